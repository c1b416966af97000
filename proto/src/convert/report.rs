//! `model::report`.

use model::report::{PacketIn, PacketOut, PuntReason, Report};

use super::kind::{enumerator, inner, inners, small, spi, spis, text, texts, worker};
use super::{Malformed, enumeration, message, needed, up};
use crate::pb;

enumeration!(PuntReason => PuntReason { Nhrp, Redirect });

message!(PacketIn => PacketIn {
    reason: enumerator, tunnel: text, source: text, destination: text, udp_port: small, bytes: same, dropped_before: same, spi: maybe_spi,
});
message!(PacketOut => PacketOut { tunnel: text, destination: text, protocol_type: small, bytes: same, port: small, });

impl From<Report> for pb::Report {
    fn from(report: Report) -> Self {
        use pb::report::Report as Pb;
        let report = match report {
            Report::Glean(hop) => Pb::Glean(hop.into()),
            Report::Used { tunnel, next_hops } => {
                Pb::Used(pb::Used { tunnel: text::down(tunnel), next_hops: texts::down(next_hops) })
            }
            Report::UsedNeighbours(hops) => {
                Pb::UsedNeighbours(pb::UsedNeighbours { hops: inners::down(hops) })
            }
            Report::Port { port, mac, up, mtu } => {
                Pb::Port(pb::PortReport { port, mac: text::down(mac), up, mtu: mtu.into() })
            }
            Report::BindingExpired { tunnel, next_hop } => Pb::BindingExpired(pb::BindingKey {
                tunnel: text::down(tunnel),
                next_hop: text::down(next_hop),
            }),
            Report::PathMtu { tunnel, nbma, mtu } => Pb::PathMtu(pb::PathMtu {
                tunnel: text::down(tunnel),
                nbma: text::down(nbma),
                mtu: mtu.into(),
                expires_in_us: None,
            }),
            Report::LeaseLow { protection, worker, spi, next } => Pb::LeaseLow(pb::LeaseLow {
                protection: inner::down(protection),
                worker: worker::down(worker),
                spi: spi::down(spi),
                next,
            }),
            Report::SaLifetime { protection, spi, direction, reached } => Pb::SaLifetime(pb::SaLifetime {
                protection: inner::down(protection),
                spi: spi::down(spi),
                direction: enumerator::down(direction),
                reached: enumerator::down(reached),
            }),
            Report::SaMoved { spi, nbma, port } => {
                Pb::SaMoved(pb::SaMoved { spi: spi::down(spi), nbma: text::down(nbma), port: port.into() })
            }
            Report::SaUsed { spis } => Pb::SaUsed(pb::SaUsed { spis: spis::down(spis) }),
        };
        Self { report: Some(report) }
    }
}

impl TryFrom<pb::Report> for Report {
    type Error = Malformed;
    fn try_from(report: pb::Report) -> Result<Self, Malformed> {
        use pb::report::Report as Pb;
        Ok(match needed(report.report, "report")? {
            Pb::Glean(hop) => Self::Glean(up(hop, "glean")?),
            Pb::Used(used) => Self::Used {
                tunnel: text::up(used.tunnel, "used.tunnel")?,
                next_hops: texts::up(used.next_hops, "used.next_hops")?,
            },
            Pb::UsedNeighbours(used) => Self::UsedNeighbours(inners::up(used.hops, "used_neighbours.hops")?),
            Pb::Port(port) => Self::Port {
                mac: text::up(port.mac, "port.mac")?,
                up: port.up,
                mtu: small::up(port.mtu, "port.mtu")?,
                port: port.port,
            },
            Pb::BindingExpired(key) => Self::BindingExpired {
                tunnel: text::up(key.tunnel, "binding_expired.tunnel")?,
                next_hop: text::up(key.next_hop, "binding_expired.next_hop")?,
            },
            Pb::PathMtu(path) => Self::PathMtu {
                tunnel: text::up(path.tunnel, "path_mtu.tunnel")?,
                nbma: text::up(path.nbma, "path_mtu.nbma")?,
                mtu: small::up(path.mtu, "path_mtu.mtu")?,
            },
            Pb::LeaseLow(low) => Self::LeaseLow {
                protection: inner::up(low.protection, "lease_low.protection")?,
                worker: worker::up(low.worker, "lease_low.worker")?,
                spi: spi::up(low.spi, "lease_low.spi")?,
                next: low.next,
            },
            Pb::SaLifetime(reached) => Self::SaLifetime {
                protection: inner::up(reached.protection, "sa_lifetime.protection")?,
                spi: spi::up(reached.spi, "sa_lifetime.spi")?,
                direction: enumerator::up(reached.direction, "sa_lifetime.direction")?,
                reached: enumerator::up(reached.reached, "sa_lifetime.reached")?,
            },
            Pb::SaMoved(moved) => Self::SaMoved {
                spi: spi::up(moved.spi, "sa_moved.spi")?,
                nbma: text::up(moved.nbma, "sa_moved.nbma")?,
                port: small::up(moved.port, "sa_moved.port")?,
            },
            Pb::SaUsed(used) => Self::SaUsed { spis: spis::up(used.spis, "sa_used.spis")? },
        })
    }
}
