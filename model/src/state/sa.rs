//! Security associations (`show sa`). Their keys are shown nowhere.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::table::{Table, or_dash};
use super::time::{Clock, maybe_seconds};
use super::{Filter, IkeSas, list};
use crate::WorkerId;
use crate::sa::{Direction, Protection, Reached, SaMode, Spi, Suite};

/// A security association.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sa {
    /// Which way it goes.
    pub direction: Direction,
    /// Its SPI.
    pub spi: Spi,
    /// Whose it is.
    pub protection: Protection,
    /// What ESP stands around.
    pub mode: SaMode,
    /// What it is sealed with.
    pub suite: Suite,
    /// Whether sequence numbers have 64 bits.
    pub esn: bool,
    /// The worker that opens or seals.
    pub worker: WorkerId,
    /// Packets that were authentic, or were sealed.
    pub packets: u64,
    /// Bytes of what is encrypted in them.
    pub bytes: u64,
    /// Inbound: the highest sequence number that was authentic. Outbound: that of the last packet sealed. 0: none was.
    pub sequence: u64,
    /// Outbound: the last sequence number that may be used before more are leased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leased: Option<u64>,
    /// Inbound: packets dropped because their sequence number had been seen, or is too old.
    pub replayed: u64,
    /// Inbound: packets dropped because they are not authentic.
    pub bad_icv: u64,
    /// The lifetime that it has reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<Reached>,
    /// Why it is not in the data plane, and what is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// How old it is, where IKE made it.
    #[serde(default, with = "maybe_seconds", skip_serializing_if = "Option::is_none")]
    pub age: Option<Duration>,
    /// When another takes its place, where IKE made it.
    #[serde(default, with = "maybe_seconds", skip_serializing_if = "Option::is_none")]
    pub rekey_in: Option<Duration>,
}

impl Sa {
    pub(super) fn is_admitted(&self, filter: &Filter) -> bool {
        let Protection { table, local, remote, .. } = self.protection;
        filter.admits_table(table) && filter.admits_address(|addr| [local.0, remote.0].contains(&addr))
    }

    /// Whether every sequence number that there is has been leased: of a key of IKE, which is new.
    fn has_all_numbers(&self) -> bool {
        self.leased.is_some_and(|last| last >= if self.esn { u64::MAX - 1 } else { u32::MAX.into() })
    }

    fn state(&self) -> &'static str {
        match (&self.refused, self.reached) {
            (Some(_), _) => "refused",
            (None, Some(Reached::Soft)) => "soft lifetime reached",
            (None, Some(Reached::Hard)) => "ended: hard lifetime",
            (None, None) => "up",
        }
    }
}

list! {
    /// Security associations.
    Sas of Sa
}

impl Sas {
    /// Adds what IKE knows of those that it made: how old they are, and when they are replaced.
    pub fn add_times(&mut self, ike: &IkeSas) {
        let children =
            ike.0.iter().flat_map(|sa| sa.children.iter().map(move |child| (sa.protection.remote, child)));
        let times: HashMap<_, _> = children
            .flat_map(|(remote, child)| {
                let [inbound, outbound] =
                    [(Direction::Inbound, child.inbound), (Direction::Outbound, child.outbound)];
                [inbound, outbound].map(|(way, spi)| ((way, spi, remote), (child.age, child.rekey_in)))
            })
            .collect();
        for sa in &mut self.0 {
            if let Some((age, rekey_in)) = times.get(&(sa.direction, sa.spi, sa.protection.remote)) {
                (sa.age, sa.rekey_in) = (Some(*age), *rekey_in);
            }
        }
    }
}

impl fmt::Display for Sas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = [
            "Way",
            "SPI",
            "Profile",
            "Local",
            "Remote",
            ">Port",
            "Mode",
            "Suite",
            "ESN",
            ">Worker",
            ">Packets",
            ">Bytes",
            ">Sequence",
            ">Leased",
            ">Replayed",
            ">Bad ICV",
            "Age",
            "Rekey in",
            "State",
        ];
        let mut table = Table::new(headings, "no SAs");
        for sa in &self.0 {
            let Protection { profile, local, remote, port, .. } = sa.protection;
            let is_inbound = sa.direction == Direction::Inbound;
            table.row([
                if is_inbound { "in" } else { "out" }.to_owned(),
                sa.spi.to_string(),
                profile.to_string(),
                local.to_string(),
                remote.to_string(),
                or_dash((port != 0).then_some(port)),
                sa.mode.to_string(),
                sa.suite.to_string(),
                if sa.esn { "yes" } else { "no" }.to_owned(),
                sa.worker.0.to_string(),
                sa.packets.to_string(),
                sa.bytes.to_string(),
                sa.sequence.to_string(),
                or_dash(
                    sa.leased
                        .map(|last| if sa.has_all_numbers() { "all".to_owned() } else { last.to_string() }),
                ),
                or_dash(is_inbound.then_some(sa.replayed)),
                or_dash(is_inbound.then_some(sa.bad_icv)),
                or_dash(sa.age.map(Clock)),
                or_dash(sa.rekey_in.map(Clock)),
                sa.state().to_owned(),
            ]);
        }
        table.fmt(f)?;
        for sa in &self.0 {
            if let Some(why) = &sa.refused {
                writeln!(f, "{} to {}: {why}", sa.spi, sa.protection.remote)?;
            }
        }
        Ok(())
    }
}
