//! Things that happen (`nave watch`): typed, one line each.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ike::{EspSuite, Identity, IkeSuite};
use crate::sa::{Direction, ProfileName, Protection, Reached, Spi};
use crate::state::{count, time::of_day};
use crate::{InterfaceName, Mac, NbmaAddr, Prefix, ProtocolAddr};

/// Something that happened at a time on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Microseconds since 1970-01-01 UTC.
    pub time_us: u64,
    /// Name of the node.
    pub node: String,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happened. In JSON: `"event": "shortcut-up"` with the fields beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Happening {
    /// A client registered with us, or refreshed.
    Registered {
        /// The tunnel.
        tunnel: InterfaceName,
        /// The client.
        client: ProtocolAddr,
        /// Where it is.
        nbma: NbmaAddr,
        /// It was registered before.
        refresh: bool,
    },
    /// A server accepted our registration, or its refresh.
    ServerUp {
        /// The tunnel.
        tunnel: InterfaceName,
        /// The server.
        nhs: ProtocolAddr,
        /// It was up before.
        refresh: bool,
    },
    /// A server does not answer any more, or refused.
    ServerDown {
        /// The tunnel.
        tunnel: InterfaceName,
        /// The server.
        nhs: ProtocolAddr,
    },
    /// We told a sender of a better way.
    RedirectSent {
        /// The tunnel.
        tunnel: InterfaceName,
        /// Who was told.
        to: NbmaAddr,
        /// Destination of the packet.
        destination: ProtocolAddr,
    },
    /// We were told of a better way.
    RedirectReceived {
        /// The tunnel.
        tunnel: InterfaceName,
        /// Destination of the packet.
        destination: ProtocolAddr,
    },
    /// We ask for an address.
    ResolutionSent {
        /// The tunnel.
        tunnel: InterfaceName,
        /// The address.
        destination: ProtocolAddr,
    },
    /// We answered for one of our prefixes.
    ResolutionAnswered {
        /// The tunnel.
        tunnel: InterfaceName,
        /// Who asked.
        client: ProtocolAddr,
        /// What we answered for.
        prefix: Prefix,
    },
    /// A binding is complete.
    Resolved {
        /// The tunnel.
        tunnel: InterfaceName,
        /// The next hop.
        next_hop: ProtocolAddr,
        /// Where it is.
        nbma: NbmaAddr,
    },
    /// An address could not be resolved; traffic stays on the server's path.
    Unresolved {
        /// The tunnel.
        tunnel: InterfaceName,
        /// The address.
        destination: ProtocolAddr,
    },
    /// A shortcut is installed.
    ShortcutUp {
        /// The tunnel.
        tunnel: InterfaceName,
        /// Its prefix.
        prefix: Prefix,
        /// Its next hop.
        next_hop: ProtocolAddr,
    },
    /// A shortcut is gone.
    ShortcutDown {
        /// The tunnel.
        tunnel: InterfaceName,
        /// Its prefix.
        prefix: Prefix,
    },
    /// A binding's holding time ended, or it was purged.
    Gone {
        /// The tunnel.
        tunnel: InterfaceName,
        /// Its protocol address.
        address: ProtocolAddr,
    },
    /// The data plane is there and programmed.
    DataplaneUp {
        /// Its life.
        instance: u64,
        /// Its version.
        version: String,
    },
    /// The data plane is away; it forwards on by what it has if it lives.
    DataplaneDown {
        /// What the connection said.
        reason: String,
    },
    /// A port's link or address changed.
    Port {
        /// The port.
        port: String,
        /// Its Ethernet address.
        mac: Mac,
        /// Whether its link is up.
        up: bool,
        /// Largest IP packet in bytes.
        mtu: u16,
    },
    /// The NBMA address of a tunnel changed.
    SourceChanged {
        /// The tunnel.
        tunnel: InterfaceName,
        /// The new address; `None`: the source interface has none.
        nbma: Option<NbmaAddr>,
    },
    /// A router of the underlay said that the path to a peer takes less than was known.
    PathMtu {
        /// The tunnel.
        tunnel: InterfaceName,
        /// The peer.
        nbma: NbmaAddr,
        /// Largest outer IP packet, in bytes.
        mtu: u16,
    },
    /// A configuration was applied.
    ConfigApplied {
        /// How many differences it had to the one before.
        changes: u32,
    },
    /// The data plane refused a batch.
    ProgramRefused {
        /// What it said.
        reason: String,
    },
    /// An NHRP message was not accepted.
    Rejected {
        /// The tunnel.
        tunnel: InterfaceName,
        /// Source of its outer header.
        source: NbmaAddr,
        /// Why, by the name it is counted under.
        reason: String,
    },
    /// An SA has reached a lifetime in bytes or packets.
    SaLifetime {
        /// Whose SA.
        protection: Protection,
        /// Its SPI.
        spi: Spi,
        /// Which way it goes.
        direction: Direction,
        /// Which lifetime.
        reached: Reached,
    },
    /// A peer whose packets are encapsulated in UDP has another address or port now.
    SaMoved {
        /// Whose SAs, as they are now.
        protection: Protection,
        /// Its inbound SPI.
        spi: Spi,
        /// Where it was.
        from: NbmaAddr,
        /// Its UDP port there.
        from_port: u16,
    },
    /// An SA is not given to the data plane: its key would be used twice with one sequence number, or there are no more of them.
    SaRefused {
        /// Whose SA.
        protection: Protection,
        /// Its SPI.
        spi: Spi,
        /// Why, and what is to be done.
        reason: String,
    },
    /// The sequence numbers that outbound SAs may use could not be recorded; it is tried again, and until then none gets more.
    LeasesUnrecorded {
        /// What the file system said.
        reason: String,
    },
    /// An IKE SA is established: the peer is who it says it is.
    IkeUp {
        /// The peer.
        protection: Protection,
        /// Who it is.
        identity: Identity,
        /// What the IKE SA is protected by.
        suite: IkeSuite,
        /// We began.
        initiator: bool,
        /// It takes the place of one that was rekeyed.
        rekey: bool,
    },
    /// An IKE SA is gone.
    IkeDown {
        /// The peer.
        protection: Protection,
        /// Who it was.
        identity: Option<Identity>,
        /// Why, in words.
        reason: String,
    },
    /// A pair of child SAs is programmed.
    ChildUp {
        /// The peer.
        protection: Protection,
        /// The SPI that we chose.
        inbound: Spi,
        /// The SPI that the peer chose.
        outbound: Spi,
        /// What it is sealed with.
        suite: EspSuite,
        /// It takes the place of one that was rekeyed.
        rekey: bool,
    },
    /// A pair of child SAs is gone.
    ChildDown {
        /// The peer.
        protection: Protection,
        /// The SPI that we chose.
        inbound: Spi,
        /// The SPI that the peer chose.
        outbound: Spi,
        /// Why, in words.
        reason: String,
    },
    /// A peer was not protected: it refused us, we refused it, or it does not answer.
    IkeFailed {
        /// The profile, where it is known.
        profile: Option<ProfileName>,
        /// Where the peer is.
        remote: SocketAddr,
        /// Who it says it is, if it said that.
        identity: Option<Identity>,
        /// Why, in words.
        reason: String,
    },
    /// A peer whose keys IKE agreed on is at another place: a NAT on the way gave it another one.
    PeerMoved {
        /// The peer, as it is now.
        protection: Protection,
        /// Where it was.
        from: NbmaAddr,
        /// Its UDP port there.
        from_port: u16,
    },
    /// The kernel did not do something; it is tried again.
    KernelRefused {
        /// What was to be done.
        order: String,
        /// What the kernel said.
        reason: String,
    },
    /// This watcher was too slow.
    Missed {
        /// How many events it lost.
        events: u64,
    },
}

impl Happening {
    /// The tunnel that it is about.
    #[must_use]
    pub fn tunnel(&self) -> Option<InterfaceName> {
        match self {
            Self::Registered { tunnel, .. }
            | Self::ServerUp { tunnel, .. }
            | Self::ServerDown { tunnel, .. }
            | Self::RedirectSent { tunnel, .. }
            | Self::RedirectReceived { tunnel, .. }
            | Self::ResolutionSent { tunnel, .. }
            | Self::ResolutionAnswered { tunnel, .. }
            | Self::Resolved { tunnel, .. }
            | Self::Unresolved { tunnel, .. }
            | Self::ShortcutUp { tunnel, .. }
            | Self::ShortcutDown { tunnel, .. }
            | Self::Gone { tunnel, .. }
            | Self::Rejected { tunnel, .. }
            | Self::PathMtu { tunnel, .. }
            | Self::SourceChanged { tunnel, .. } => Some(*tunnel),
            Self::DataplaneUp { .. }
            | Self::DataplaneDown { .. }
            | Self::Port { .. }
            | Self::ConfigApplied { .. }
            | Self::ProgramRefused { .. }
            | Self::KernelRefused { .. }
            | Self::SaLifetime { .. }
            | Self::SaMoved { .. }
            | Self::SaRefused { .. }
            | Self::LeasesUnrecorded { .. }
            | Self::IkeUp { .. }
            | Self::IkeDown { .. }
            | Self::ChildUp { .. }
            | Self::ChildDown { .. }
            | Self::IkeFailed { .. }
            | Self::PeerMoved { .. }
            | Self::Missed { .. } => None,
        }
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered { tunnel, client, nbma, refresh } => {
                let verb = if *refresh { "refreshed" } else { "registered" };
                write!(f, "{tunnel}: client {client} {verb} from {nbma}")
            }
            Self::ServerUp { tunnel, nhs, refresh } => {
                let verb = if *refresh { "refreshed" } else { "accepted" };
                write!(f, "{tunnel}: server {nhs} {verb} our registration")
            }
            Self::ServerDown { tunnel, nhs } => write!(f, "{tunnel}: server {nhs} is down"),
            Self::RedirectSent { tunnel, to, destination } => {
                write!(f, "{tunnel}: redirect sent to {to} for {destination}")
            }
            Self::RedirectReceived { tunnel, destination } => {
                write!(f, "{tunnel}: redirect received for {destination}")
            }
            Self::ResolutionSent { tunnel, destination } => write!(f, "{tunnel}: asking for {destination}"),
            Self::ResolutionAnswered { tunnel, client, prefix } => {
                write!(f, "{tunnel}: answered {client} for {prefix}")
            }
            Self::Resolved { tunnel, next_hop, nbma } => write!(f, "{tunnel}: {next_hop} is at {nbma}"),
            Self::Unresolved { tunnel, destination } => {
                write!(f, "{tunnel}: {destination} could not be resolved")
            }
            Self::ShortcutUp { tunnel, prefix, next_hop } => {
                write!(f, "{tunnel}: shortcut to {prefix} via {next_hop}")
            }
            Self::ShortcutDown { tunnel, prefix } => write!(f, "{tunnel}: shortcut to {prefix} is gone"),
            Self::Gone { tunnel, address } => write!(f, "{tunnel}: binding of {address} is gone"),
            Self::DataplaneUp { instance, version } => {
                write!(f, "data plane is up (version {version}, instance {instance:016x})")
            }
            Self::DataplaneDown { reason } => write!(f, "data plane is away: {reason}"),
            Self::Port { port, mac, up, mtu } => {
                let link = if *up { "up" } else { "down" };
                write!(f, "port {port} is {link} ({mac}, MTU {mtu})")
            }
            Self::SourceChanged { tunnel, nbma: Some(nbma) } => {
                write!(f, "{tunnel}: own NBMA address is {nbma} now")
            }
            Self::SourceChanged { tunnel, nbma: None } => {
                write!(f, "{tunnel}: source interface has no address")
            }
            Self::PathMtu { tunnel, nbma, mtu } => {
                write!(f, "{tunnel}: the path to {nbma} takes packets of {mtu} bytes")
            }
            Self::ConfigApplied { changes } => {
                write!(f, "configuration applied, {}", count(u64::from(*changes), "change", "changes"))
            }
            Self::ProgramRefused { reason } => write!(f, "data plane refused: {reason}"),
            Self::Rejected { tunnel, source, reason } => {
                write!(f, "{tunnel}: NHRP message from {source} not accepted: {reason}")
            }
            Self::SaLifetime { protection, spi, direction, reached } => {
                let (way, said) = match (direction, reached) {
                    (Direction::Inbound, Reached::Soft) => ("inbound", "has reached its soft lifetime"),
                    (Direction::Inbound, Reached::Hard) => ("inbound", "has ended: hard lifetime"),
                    (Direction::Outbound, Reached::Soft) => ("outbound", "has reached its soft lifetime"),
                    (Direction::Outbound, Reached::Hard) => ("outbound", "has ended: hard lifetime"),
                };
                write!(f, "{way} SA {spi} of {protection} {said}")
            }
            Self::SaMoved { protection, spi, from, from_port } => {
                let Protection { profile, remote, port, .. } = protection;
                write!(
                    f,
                    "peer of {profile} with SA {spi} moved from {from} port {from_port} to {remote} port {port}"
                )
            }
            Self::SaRefused { protection, spi, reason } => {
                write!(f, "outbound SA {spi} of {protection} is refused: {reason}")
            }
            Self::LeasesUnrecorded { reason } => {
                write!(f, "sequence numbers of outbound SAs cannot be recorded: {reason}")
            }
            Self::IkeUp { .. }
            | Self::IkeDown { .. }
            | Self::ChildUp { .. }
            | Self::ChildDown { .. }
            | Self::IkeFailed { .. }
            | Self::PeerMoved { .. } => self.fmt_ike(f),
            Self::KernelRefused { order, reason } => write!(f, "kernel refused: {order}: {reason}"),
            Self::Missed { events } => {
                let lost = count(*events, "event was", "events were");
                write!(f, "{lost} lost: this watcher is too slow")
            }
        }
    }
}

impl Happening {
    /// What happened in IKE.
    fn fmt_ike(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IkeUp { protection, identity, suite, initiator, rekey } => {
                let how = match (rekey, initiator) {
                    (true, _) => "rekeyed",
                    (false, true) => "up, begun by us",
                    (false, false) => "up, begun by the peer",
                };
                write!(f, "IKE SA of {protection} is {how}: {identity}, {suite}")
            }
            Self::IkeDown { protection, identity: Some(identity), reason } => {
                write!(f, "IKE SA of {protection} with {identity} is gone: {reason}")
            }
            Self::IkeDown { protection, identity: None, reason } => {
                write!(f, "IKE SA of {protection} is gone: {reason}")
            }
            Self::ChildUp { protection, inbound, outbound, suite, rekey } => {
                let how = if *rekey { "rekeyed" } else { "up" };
                write!(f, "SAs of {protection} are {how}: in {inbound}, out {outbound}, {suite}")
            }
            Self::ChildDown { protection, inbound, outbound, reason } => {
                write!(f, "SAs in {inbound}, out {outbound} of {protection} are gone: {reason}")
            }
            Self::IkeFailed { profile, remote, identity, reason } => {
                f.write_str("IKE failed")?;
                profile.map_or(Ok(()), |profile| write!(f, " for {profile}"))?;
                write!(f, " with {remote}")?;
                identity.as_ref().map_or(Ok(()), |identity| write!(f, ", {identity}"))?;
                write!(f, ": {reason}")
            }
            Self::PeerMoved { protection, from, from_port } => {
                write!(f, "{protection}: the peer was at {from} port {from_port}")
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", of_day(self.time_us), self.node, self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one() {
        let applied = |changes| Happening::ConfigApplied { changes }.to_string();
        assert_eq!(applied(1), "configuration applied, 1 change");
        assert_eq!(applied(2), "configuration applied, 2 changes");
        assert_eq!(Happening::Missed { events: 1 }.to_string(), "1 event was lost: this watcher is too slow");
    }

    #[test]
    fn what_ike_says_is_a_sentence_with_the_reason() {
        let protection = Protection {
            profile: "branch".parse().unwrap(),
            table: crate::TableId(0),
            local: "203.0.113.1".parse().unwrap(),
            remote: "203.0.113.2".parse().unwrap(),
            port: 4500,
        };
        let failed = Happening::IkeFailed {
            profile: Some(protection.profile),
            remote: "203.0.113.2:500".parse().unwrap(),
            identity: Some("hub.example".parse().unwrap()),
            reason: "peer proposed only AES-CBC for ESP; profile branch accepts aes128gcm16".to_owned(),
        };
        assert_eq!(
            failed.to_string(),
            "IKE failed for branch with 203.0.113.2:500, hub.example: peer proposed only AES-CBC for ESP; profile branch accepts \
             aes128gcm16"
        );
        let up = Happening::IkeUp {
            protection,
            identity: "hub.example".parse().unwrap(),
            suite: "aes256gcm16-prfsha384-x25519".parse().unwrap(),
            initiator: true,
            rekey: false,
        };
        let sentence = "IKE SA of branch 203.0.113.1 to 203.0.113.2 port 4500 is up, begun by us: hub.example, \
                        aes256gcm16-prfsha384-x25519";
        assert_eq!(up.to_string(), sentence);
        let json = serde_json::to_value(&failed).unwrap();
        assert_eq!((&json["event"], &json["identity"]), (&"ike-failed".into(), &"hub.example".into()));
        assert_eq!(serde_json::from_value::<Happening>(json).unwrap(), failed);
    }
}
