//! What the data plane says, and packets that come up.

use model::program::{Key, Owner};
use model::report::{PacketIn, PuntReason, Report};
use model::state::event::Happening;
use model::time::Instant;

use super::{ASK_AGAIN, CONFIRM, Conductor, Output, Port, PortLink, topology};
use crate::rib::Link;

impl Conductor {
    pub(super) fn report(&mut self, now: Instant, report: Report, out: &mut Vec<Output>) {
        match report {
            Report::Glean(hop) => match self.rib.interfaces().get(&hop.interface) {
                Some(Link::Port { .. }) => self.ask(now, hop, ASK_AGAIN, out),
                Some(Link::Multipoint) => {
                    let next_hop = model::ProtocolAddr(hop.next_hop);
                    self.glean_sa(hop.interface, next_hop);
                    self.engine(now, nhrp::Input::Glean { tunnel: hop.interface, next_hop }, out);
                }
                Some(Link::PointToPoint) => self.want_destinations(),
                None => {}
            },
            Report::Used { tunnel, next_hops } => {
                self.hops_used(now, tunnel, &next_hops, out);
                self.engine(now, nhrp::Input::Used { tunnel, next_hops }, out);
            }
            Report::UsedNeighbours(hops) => {
                for hop in hops {
                    self.ask(now, hop, CONFIRM, out);
                }
            }
            Report::Port { port, mac, up, mtu } => {
                let link = Some(PortLink { up, mtu });
                let before = self.ports.insert(port.clone(), Port { mac, link });
                if before == Some(Port { mac, link }) {
                    return;
                }
                let of_port = self.config.interfaces.iter().filter(|i| topology::port_of(i) == port);
                self.changed.interfaces.extend(of_port.map(|i| (i.name, now)));
                if before.is_none_or(|p| p.mac != mac) {
                    self.is_topology_old = true;
                    out.push(Output::Save);
                }
                out.push(Output::Event(Happening::Port { port, mac, up, mtu }));
            }
            Report::BindingExpired { tunnel, next_hop } => {
                // If it is still wanted, the two clocks disagree: ours counts.
                let key = Key::Binding(tunnel, next_hop);
                if self.desired.object(Owner::Nhrp, key).is_some() && self.is_programmed() {
                    let again = self.desired.step(now, Owner::Nhrp, key);
                    self.program(vec![again], out);
                }
            }
            Report::PathMtu { tunnel, nbma, mtu } => self.learn_path(now, tunnel, nbma, mtu, out),
            Report::LeaseLow { protection, worker, spi, next } => {
                self.lease_low(now, (protection, worker), spi, next, out);
            }
            Report::SaLifetime { protection: peer, spi, direction, reached }
                if self.is_of_ike(peer.profile) =>
            {
                self.ike(now, ike::Input::Lifetime { peer, spi, direction, reached }, out);
            }
            Report::SaLifetime { protection, spi, direction, reached } => {
                self.lifetime_reached((protection, spi, direction), reached, out);
            }
            Report::SaMoved { spi, nbma, port } if self.peer_of(spi).is_some() => {
                let remote = std::net::SocketAddr::new(nbma.0, port);
                self.ike(now, ike::Input::Moved { spi, remote }, out);
            }
            Report::SaMoved { spi, nbma, port } => self.peer_moved(spi, nbma, port, out),
            Report::SaUsed { spis } => self.sas_used(now, spis, out),
        }
    }

    pub(super) fn packet(&mut self, now: Instant, packet: PacketIn, out: &mut Vec<Output>) {
        let PacketIn { reason, tunnel, source, destination, udp_port, spi, bytes, dropped_before } = packet;
        if let Some(spi) = spi {
            // The first packet by a new SA says that the peer has it, and who it is follows from that.
            self.sas_used(now, vec![spi], out);
        }
        *self.counted.punts_lost.entry(reason).or_default() += dropped_before;
        let port = (udp_port != 0).then_some(udp_port);
        let input = match reason {
            PuntReason::Nhrp => {
                let Some(from) = self.sender(source, port, tunnel, spi) else {
                    self.counted.unknown += 1;
                    return;
                };
                nhrp::Input::Packet { tunnel, from, destination, bytes }
            }
            PuntReason::Redirect => nhrp::Input::Redirect { tunnel, source, port, bytes },
        };
        self.engine(now, input, out);
    }
}
