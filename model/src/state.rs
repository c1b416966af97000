//! What `show` shows. Each type serializes to JSON and displays as the table that an engineer expects.
//!
//! A module for each noun of `nave show`; [`State`] is any of them. Times are ages and remaining times, never clock readings:
//! who asks need not share a clock with who answers. In JSON they are seconds.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::program::Owner;
use crate::{InterfaceName, TableId};

pub mod adjacency;
pub mod counters;
pub mod dmvpn;
pub mod drops;
pub mod event;
pub mod explain;
pub mod fib;
pub mod ike;
pub mod nhrp;
pub mod nhs;
pub mod ports;
pub mod program;
pub mod routes;
pub mod sa;
pub mod traffic;
pub mod workers;

mod table;
pub(crate) mod time;

#[cfg(test)]
mod tests;

pub use adjacency::Adjacencies;
pub use counters::Counters;
pub use dmvpn::Dmvpn;
pub use drops::Drops;
pub use event::Event;
pub use explain::Explanation;
pub use fib::Fib;
pub use ike::IkeSas;
pub use nhrp::Cache;
pub use nhs::Servers;
pub use ports::Ports;
pub use program::Program;
pub use routes::Routes;
pub use sa::Sas;
pub use traffic::NhrpTraffic;
pub use workers::Workers;

/// Elements of a big table in one message.
const CHUNK: usize = 4096;

/// What to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Show {
    /// The noun.
    pub what: What,
    /// What of it.
    #[serde(default)]
    pub filter: Filter,
}

impl From<What> for Show {
    fn from(what: What) -> Self {
        Self { what, filter: Filter::default() }
    }
}

/// The nouns of `show`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Peers of each tunnel.
    Dmvpn,
    /// The NHRP cache.
    Nhrp,
    /// Next-hop servers.
    Nhs,
    /// The RIB.
    Routes,
    /// What forwards.
    Fib,
    /// How next hops are reached.
    Adjacency,
    /// Ports.
    Ports,
    /// Workers.
    Workers,
    /// Counters of nodes and messages.
    Counters,
    /// Drops by reason.
    Drops,
    /// Programmed objects.
    Program,
    /// Why packets to the address of the filter go where they go, in its table (0 if it has none).
    Explain,
    /// NHRP messages, error indications and rejects.
    NhrpTraffic,
    /// Security associations.
    Sa,
    /// IKE SAs.
    Ike,
}

impl What {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Dmvpn,
        Self::Nhrp,
        Self::Nhs,
        Self::Routes,
        Self::Fib,
        Self::Adjacency,
        Self::Ports,
        Self::Workers,
        Self::Counters,
        Self::Drops,
        Self::Program,
        Self::Explain,
        Self::NhrpTraffic,
        Self::Sa,
        Self::Ike,
    ];

    /// Whether the data plane knows it. (Counters: of nodes; the control plane adds those of messages. Sa: the control plane adds those
    /// that it refuses, and the times of those that IKE made. Explain: the control plane asks it for its part.)
    #[must_use]
    pub fn is_of_dataplane(self) -> bool {
        !matches!(
            self,
            Self::Dmvpn
                | Self::Nhrp
                | Self::Nhs
                | Self::Routes
                | Self::Explain
                | Self::NhrpTraffic
                | Self::Ike
        )
    }
}

/// Which elements to show: those that match everything that is set. What does not apply to an element (the table of a port)
/// does not exclude it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
pub struct Filter {
    /// Of this interface or tunnel.
    pub interface: Option<InterfaceName>,
    /// What holds for this address: a prefix that contains it, a peer or next hop that has it.
    pub address: Option<IpAddr>,
    /// Of this FIB table.
    pub table: Option<TableId>,
    /// Of this owner.
    pub owner: Option<Owner>,
}

impl Filter {
    fn admits_interface(&self, interface: Option<InterfaceName>) -> bool {
        self.interface.is_none() || self.interface == interface
    }

    fn admits_table(&self, table: TableId) -> bool {
        self.table.is_none_or(|wanted| wanted == table)
    }

    fn admits_owner(&self, owner: Owner) -> bool {
        self.owner.is_none_or(|wanted| wanted == owner)
    }

    fn admits_address(&self, matches: impl Fn(IpAddr) -> bool) -> bool {
        self.address.is_none_or(matches)
    }
}

/// How much of it to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum View {
    /// Less than usual, where there is less.
    Brief,
    /// As usual: what `Display` prints.
    #[default]
    Table,
    /// Everything.
    Detail,
}

/// Anything shown. In JSON it is the thing itself, untagged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum State {
    /// Peers of each tunnel.
    Dmvpn(Dmvpn),
    /// The NHRP cache.
    Nhrp(Cache),
    /// Next-hop servers.
    Nhs(Servers),
    /// The RIB.
    Routes(Routes),
    /// What forwards.
    Fib(Fib),
    /// How next hops are reached.
    Adjacency(Adjacencies),
    /// Ports.
    Ports(Ports),
    /// Workers.
    Workers(Workers),
    /// Counters of nodes and messages.
    Counters(Counters),
    /// Drops by reason.
    Drops(Drops),
    /// Programmed objects.
    Program(Program),
    /// Why packets to an address go where they go.
    Explanation(Box<Explanation>),
    /// NHRP messages, error indications and rejects.
    NhrpTraffic(NhrpTraffic),
    /// Security associations.
    Sa(Sas),
    /// IKE SAs.
    Ike(IkeSas),
}

/// Does the same to the list in whatever variant there is; all but `Counters`, `Explanation` and `NhrpTraffic` are lists.
macro_rules! each_list {
    (
        $state:expr, $list:ident => $each:expr, $counters:ident => $else:expr, $explanation:ident => $other:expr,
        $traffic:ident => $last:expr
    ) => {
        match $state {
            State::Dmvpn($list) => $each,
            State::Nhrp($list) => $each,
            State::Nhs($list) => $each,
            State::Routes($list) => $each,
            State::Fib($list) => $each,
            State::Adjacency($list) => $each,
            State::Ports($list) => $each,
            State::Workers($list) => $each,
            State::Drops($list) => $each,
            State::Program($list) => $each,
            State::Sa($list) => $each,
            State::Ike($list) => $each,
            State::Counters($counters) => $else,
            State::Explanation($explanation) => $other,
            State::NhrpTraffic($traffic) => $last,
        }
    };
}

impl State {
    /// Nothing yet of that kind.
    #[must_use]
    pub fn empty(what: What) -> Self {
        match what {
            What::Dmvpn => Self::Dmvpn(Dmvpn::default()),
            What::Nhrp => Self::Nhrp(Cache::default()),
            What::Nhs => Self::Nhs(Servers::default()),
            What::Routes => Self::Routes(Routes::default()),
            What::Fib => Self::Fib(Fib::default()),
            What::Adjacency => Self::Adjacency(Adjacencies::default()),
            What::Ports => Self::Ports(Ports::default()),
            What::Workers => Self::Workers(Workers::default()),
            What::Counters => Self::Counters(Counters::default()),
            What::Drops => Self::Drops(Drops::default()),
            What::Program => Self::Program(Program::default()),
            What::Explain => {
                let nothing = Explanation::nothing(TableId::default(), Ipv4Addr::UNSPECIFIED.into());
                Self::Explanation(Box::new(nothing))
            }
            What::NhrpTraffic => Self::NhrpTraffic(NhrpTraffic::default()),
            What::Sa => Self::Sa(Sas::default()),
            What::Ike => Self::Ike(IkeSas::default()),
        }
    }

    /// What it is.
    #[must_use]
    pub fn what(&self) -> What {
        match self {
            Self::Dmvpn(_) => What::Dmvpn,
            Self::Nhrp(_) => What::Nhrp,
            Self::Nhs(_) => What::Nhs,
            Self::Routes(_) => What::Routes,
            Self::Fib(_) => What::Fib,
            Self::Adjacency(_) => What::Adjacency,
            Self::Ports(_) => What::Ports,
            Self::Workers(_) => What::Workers,
            Self::Counters(_) => What::Counters,
            Self::Drops(_) => What::Drops,
            Self::Program(_) => What::Program,
            Self::Explanation(_) => What::Explain,
            Self::NhrpTraffic(_) => What::NhrpTraffic,
            Self::Sa(_) => What::Sa,
            Self::Ike(_) => What::Ike,
        }
    }

    /// Keeps what the filter admits.
    pub fn retain(&mut self, filter: &Filter) {
        each_list!(
            self, list => list.retain(filter), counters => counters.retain(filter), _explanation => {},
            traffic => traffic.retain(filter)
        );
    }

    /// Appends more of the same kind.
    ///
    /// # Errors
    /// `more` itself, if it is of another kind.
    pub fn join(&mut self, more: Self) -> Result<(), Self> {
        match (self, more) {
            (Self::Dmvpn(all), Self::Dmvpn(more)) => all.0.extend(more.0),
            (Self::Nhrp(all), Self::Nhrp(more)) => all.0.extend(more.0),
            (Self::Nhs(all), Self::Nhs(more)) => all.0.extend(more.0),
            (Self::Routes(all), Self::Routes(more)) => all.0.extend(more.0),
            (Self::Fib(all), Self::Fib(more)) => all.0.extend(more.0),
            (Self::Adjacency(all), Self::Adjacency(more)) => all.0.extend(more.0),
            (Self::Ports(all), Self::Ports(more)) => all.0.extend(more.0),
            (Self::Workers(all), Self::Workers(more)) => all.0.extend(more.0),
            (Self::Counters(all), Self::Counters(more)) => all.extend(more),
            (Self::NhrpTraffic(all), Self::NhrpTraffic(more)) => all.extend(more),
            (Self::Drops(all), Self::Drops(more)) => all.0.extend(more.0),
            (Self::Program(all), Self::Program(more)) => all.0.extend(more.0),
            (Self::Sa(all), Self::Sa(more)) => all.0.extend(more.0),
            (Self::Ike(all), Self::Ike(more)) => all.0.extend(more.0),
            // There is one part, and what was there before is nothing.
            (Self::Explanation(all), Self::Explanation(more)) => *all = more,
            (_, more) => return Err(more),
        }
        Ok(())
    }

    /// The same in parts that fit into a message each; at least one. [`State::join`] undoes it.
    #[must_use]
    pub fn parts(mut self) -> Vec<Self> {
        let mut parts = Vec::new();
        while let Some(rest) = self.split_off(CHUNK) {
            parts.push(std::mem::replace(&mut self, rest));
        }
        parts.push(self);
        parts
    }

    /// Cuts what is behind the first `at` elements; `None` if there is nothing.
    fn split_off(&mut self, at: usize) -> Option<Self> {
        let mut rest = Self::empty(self.what());
        let behind = |len: usize| len > at;
        match (&mut rest, self) {
            (Self::Nhrp(rest), Self::Nhrp(all)) if behind(all.0.len()) => rest.0 = all.0.split_off(at),
            (Self::Routes(rest), Self::Routes(all)) if behind(all.0.len()) => rest.0 = all.0.split_off(at),
            (Self::Fib(rest), Self::Fib(all)) if behind(all.0.len()) => rest.0 = all.0.split_off(at),
            (Self::Adjacency(rest), Self::Adjacency(all)) if behind(all.0.len()) => {
                rest.0 = all.0.split_off(at);
            }
            (Self::Program(rest), Self::Program(all)) if behind(all.0.len()) => rest.0 = all.0.split_off(at),
            (Self::Sa(rest), Self::Sa(all)) if behind(all.0.len()) => rest.0 = all.0.split_off(at),
            (Self::Ike(rest), Self::Ike(all)) if behind(all.0.len()) => rest.0 = all.0.split_off(at),
            // A tunnel is not cut in two; the rest is never long.
            (Self::Dmvpn(rest), Self::Dmvpn(all)) if all.0.len() > 1 => rest.0 = all.0.split_off(1),
            _ => return None,
        }
        Some(rest)
    }

    /// Prints as much as the view says.
    #[must_use]
    pub fn view(&self, view: View) -> impl fmt::Display + '_ {
        Viewed { state: self, view }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        each_list!(
            self, list => list.fmt(f), counters => counters.fmt(f), explanation => explanation.fmt(f),
            traffic => traffic.fmt(f)
        )
    }
}

struct Viewed<'a> {
    state: &'a State,
    view: View,
}

impl fmt::Display for Viewed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.state, self.view) {
            (State::Dmvpn(dmvpn), View::Detail) => dmvpn.detail(f),
            (State::Nhrp(cache), View::Detail) => cache.detail(f),
            (State::Ike(ike), View::Detail) => ike.detail(f),
            (State::Nhrp(cache), View::Brief) => cache.brief(f),
            (state, _) => state.fmt(f),
        }
    }
}

/// A number and what it is a number of, as people say it.
#[must_use]
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A list of one kind of element: JSON array, and table.
macro_rules! list {
    ($(#[$doc:meta])* $name:ident of $element:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Vec<$element>);

        impl $name {
            /// Keeps what the filter admits.
            pub fn retain(&mut self, filter: &$crate::state::Filter) {
                self.0.retain_mut(|element| element.is_admitted(filter));
            }
        }
    };
}
use list;
