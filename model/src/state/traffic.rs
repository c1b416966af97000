//! What NHRP has sent, received and not accepted (`show nhrp --traffic`).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Filter;
use super::counters::{Counter, ErrorCounter, MessageCounter, named};
use super::table::Table;

/// NHRP messages by type, error indications by code, and rejects.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NhrpTraffic {
    /// Messages of each tunnel by type.
    pub messages: Vec<MessageCounter>,
    /// Error indications of each tunnel by code; they are among the messages.
    pub errors: Vec<ErrorCounter>,
    /// Messages that were not accepted, of all tunnels, by reason.
    pub rejects: Vec<Counter>,
}

impl NhrpTraffic {
    /// Keeps what the filter admits. Rejects are of no tunnel, and stay.
    pub fn retain(&mut self, filter: &Filter) {
        self.messages.retain(|m| filter.admits_interface(Some(m.tunnel)));
        self.errors.retain(|e| filter.admits_interface(Some(e.tunnel)));
    }

    /// Appends those of another source.
    pub fn extend(&mut self, more: Self) {
        self.messages.extend(more.messages);
        self.errors.extend(more.errors);
        self.rejects.extend(more.rejects);
    }
}

impl fmt::Display for NhrpTraffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut messages = Table::new(["Tunnel", "Message", ">Sent", ">Received"], "no tunnel");
        for m in &self.messages {
            messages.row([
                m.tunnel.to_string(),
                m.message.clone(),
                m.sent.to_string(),
                m.received.to_string(),
            ]);
        }
        let mut errors =
            Table::new(["Tunnel", "Error indication", ">Code", ">Sent", ">Received"], "no error indication");
        for e in &self.errors {
            let (sent, received) = (e.sent.to_string(), e.received.to_string());
            errors.row([e.tunnel.to_string(), e.name.clone(), e.code.to_string(), sent, received]);
        }
        // In text only what happened; there are many reasons.
        let rejects: Vec<_> = self.rejects.iter().filter(|r| r.count > 0).cloned().collect();
        write!(f, "{messages}\n{errors}\n{}", named("Reject", &rejects, "nothing was rejected"))
    }
}
