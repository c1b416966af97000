//! `model::program`.

use model::program::{
    Ack, Binding, Fallback, Hop, Interface, Key, Neighbour, Object, Op, OuterDf, Owner, Path, PathMtu,
    Refusal, Refused, Replica, Route, TcpMss, Tunnel, TunnelMode,
};

use super::kind::{enumerator, inner, inners, maybe_text, small, spi, table, text, worker};
use super::{Malformed, Problem, enumeration, message, needed, up};
use crate::pb;

enumeration!(Owner => Owner { Nhrp, Ike, Config, Netlink });
enumeration!(OuterDf => OuterDf { Copy, Set, Clear });

message!(Hop => Hop { interface: text, next_hop: text, });
message!(Interface => Interface {
    name: text, port: same, mtu: small, table: table, forwarding: same, vlan: maybe_vlan, netns: same,
});
message!(Neighbour => Neighbour { hop: inner, mac: text, });
message!(Binding => Binding {
    tunnel: text, next_hop: text, nbma: text, link: maybe_inner, expires_in as expires_in_us: maybe_micros, port: small,
});
message!(Route => Route {
    table: table, prefix: text, path: inner, expires_in as expires_in_us: maybe_micros,
});
message!(Replica => Replica { tunnel: text, nbma: text, link: maybe_inner, port: small, });
message!(Fallback => Fallback { tunnel: text, next_hop: text, });
message!(PathMtu => PathMtu { tunnel: text, nbma: text, mtu: small, expires_in as expires_in_us: maybe_micros, });

impl From<Tunnel> for pb::Tunnel {
    fn from(tunnel: Tunnel) -> Self {
        let destination = match tunnel.mode {
            TunnelMode::Multipoint => None,
            TunnelMode::PointToPoint { destination } => Some(destination),
        };
        Self {
            name: text::down(tunnel.name),
            destination: maybe_text::down(destination),
            source: text::down(tunnel.source),
            source_interface: text::down(tunnel.source_interface),
            key: tunnel.key,
            mtu: tunnel.mtu.into(),
            ttl: tunnel.ttl.into(),
            network_id: tunnel.network_id,
            redirect: tunnel.redirect,
            table: tunnel.table.0,
            underlay_table: tunnel.underlay_table.0,
            outer_df: enumerator::down(tunnel.outer_df),
            tcp_mss: match tunnel.tcp_mss {
                TcpMss::Off => None,
                TcpMss::Auto => Some(0),
                TcpMss::Most(most) => Some(most.into()),
            },
            netns: tunnel.netns,
            protection: maybe_text::down(tunnel.protection),
        }
    }
}

impl TryFrom<pb::Tunnel> for Tunnel {
    type Error = Malformed;
    fn try_from(tunnel: pb::Tunnel) -> Result<Self, Malformed> {
        let mode = match maybe_text::up(tunnel.destination, "destination")? {
            None => TunnelMode::Multipoint,
            Some(destination) => TunnelMode::PointToPoint { destination },
        };
        Ok(Self {
            name: text::up(tunnel.name, "name")?,
            mode,
            source: text::up(tunnel.source, "source")?,
            source_interface: text::up(tunnel.source_interface, "source_interface")?,
            key: tunnel.key,
            mtu: small::up(tunnel.mtu, "mtu")?,
            ttl: small::up(tunnel.ttl, "ttl")?,
            network_id: tunnel.network_id,
            redirect: tunnel.redirect,
            table: table::up(tunnel.table, "table")?,
            underlay_table: table::up(tunnel.underlay_table, "underlay_table")?,
            outer_df: enumerator::up(tunnel.outer_df, "outer_df")?,
            tcp_mss: match tunnel.tcp_mss {
                None => TcpMss::Off,
                Some(0) => TcpMss::Auto,
                Some(most) => TcpMss::Most(small::up(most, "tcp_mss")?),
            },
            netns: tunnel.netns,
            protection: maybe_text::up(tunnel.protection, "protection")?,
        })
    }
}

impl From<Path> for pb::Path {
    fn from(path: Path) -> Self {
        use pb::path::Path as Pb;
        let path = match path {
            Path::Via(hop) => Pb::Via(hop.into()),
            Path::Attached(interface) => Pb::Attached(text::down(interface)),
            Path::Receive(interface) => Pb::Receive(text::down(interface)),
            Path::Unreachable => Pb::Unreachable(pb::Unreachable {}),
            Path::Blackhole => Pb::Blackhole(pb::Blackhole {}),
            Path::Balanced(hops) => {
                Pb::Balanced(pb::Hops { hops: hops.iter().map(|hop| (*hop).into()).collect() })
            }
        };
        Self { path: Some(path) }
    }
}

impl TryFrom<pb::Path> for Path {
    type Error = Malformed;
    fn try_from(path: pb::Path) -> Result<Self, Malformed> {
        use pb::path::Path as Pb;
        Ok(match needed(path.path, "path")? {
            Pb::Via(hop) => Self::Via(up(hop, "via")?),
            Pb::Attached(interface) => Self::Attached(text::up(interface, "attached")?),
            Pb::Receive(interface) => Self::Receive(text::up(interface, "receive")?),
            Pb::Unreachable(pb::Unreachable {}) => Self::Unreachable,
            Pb::Blackhole(pb::Blackhole {}) => Self::Blackhole,
            Pb::Balanced(pb::Hops { hops }) => {
                let hops: Vec<Hop> = inners::up(hops, "balanced.hops")?;
                Self::Balanced(hops.into())
            }
        })
    }
}

impl From<Object> for pb::Object {
    fn from(object: Object) -> Self {
        use pb::object::Object as Pb;
        let object = match object {
            Object::Interface(o) => Pb::Interface(o.into()),
            Object::Tunnel(o) => Pb::Tunnel(o.into()),
            Object::Neighbour(o) => Pb::Neighbour(o.into()),
            Object::Binding(o) => Pb::Binding(o.into()),
            Object::Route(o) => Pb::Route(o.into()),
            Object::Replica(o) => Pb::Replica(o.into()),
            Object::Fallback(o) => Pb::Fallback(o.into()),
            Object::PathMtu(o) => Pb::PathMtu(o.into()),
            Object::InboundSa(o) => Pb::InboundSa(o.into()),
            Object::OutboundSa(o) => Pb::OutboundSa(o.into()),
        };
        Self { object: Some(object) }
    }
}

impl TryFrom<pb::Object> for Object {
    type Error = Malformed;
    fn try_from(object: pb::Object) -> Result<Self, Malformed> {
        use pb::object::Object as Pb;
        Ok(match needed(object.object, "object")? {
            Pb::Interface(o) => Self::Interface(up(o, "interface")?),
            Pb::Tunnel(o) => Self::Tunnel(up(o, "tunnel")?),
            Pb::Neighbour(o) => Self::Neighbour(up(o, "neighbour")?),
            Pb::Binding(o) => Self::Binding(up(o, "binding")?),
            Pb::Route(o) => Self::Route(up(o, "route")?),
            Pb::Replica(o) => Self::Replica(up(o, "replica")?),
            Pb::Fallback(o) => Self::Fallback(up(o, "fallback")?),
            Pb::PathMtu(o) => Self::PathMtu(up(o, "path_mtu")?),
            Pb::InboundSa(o) => Self::InboundSa(up(o, "inbound_sa")?),
            Pb::OutboundSa(o) => Self::OutboundSa(up(o, "outbound_sa")?),
        })
    }
}

impl From<Key> for pb::Key {
    fn from(key: Key) -> Self {
        use pb::key::Key as Pb;
        let key = match key {
            Key::Interface(name) => Pb::Interface(text::down(name)),
            Key::Tunnel(name) => Pb::Tunnel(text::down(name)),
            Key::Neighbour(hop) => Pb::Neighbour(hop.into()),
            Key::Binding(tunnel, next_hop) => {
                Pb::Binding(pb::BindingKey { tunnel: text::down(tunnel), next_hop: text::down(next_hop) })
            }
            Key::Route(table, prefix) => {
                Pb::Route(pb::RouteKey { table: table::down(table), prefix: text::down(prefix) })
            }
            Key::Replica(tunnel, nbma, port) => Pb::Replica(pb::ReplicaKey {
                tunnel: text::down(tunnel),
                nbma: text::down(nbma),
                port: port.into(),
            }),
            Key::Fallback(tunnel) => Pb::Fallback(text::down(tunnel)),
            Key::PathMtu(tunnel, nbma) => {
                Pb::PathMtu(pb::ReplicaKey { tunnel: text::down(tunnel), nbma: text::down(nbma), port: 0 })
            }
            Key::InboundSa(of) => Pb::InboundSa(spi::down(of)),
            Key::OutboundSa(protection, of) => Pb::OutboundSa(pb::OutboundSaKey {
                protection: inner::down(protection),
                worker: worker::down(of),
            }),
        };
        Self { key: Some(key) }
    }
}

impl TryFrom<pb::Key> for Key {
    type Error = Malformed;
    fn try_from(key: pb::Key) -> Result<Self, Malformed> {
        use pb::key::Key as Pb;
        Ok(match needed(key.key, "key")? {
            Pb::Interface(name) => Self::Interface(text::up(name, "interface")?),
            Pb::Tunnel(name) => Self::Tunnel(text::up(name, "tunnel")?),
            Pb::Neighbour(hop) => Self::Neighbour(up(hop, "neighbour")?),
            Pb::Binding(k) => Self::Binding(
                text::up(k.tunnel, "binding.tunnel")?,
                text::up(k.next_hop, "binding.next_hop")?,
            ),
            Pb::Route(k) => {
                Self::Route(table::up(k.table, "route.table")?, text::up(k.prefix, "route.prefix")?)
            }
            Pb::Replica(k) => {
                let (tunnel, nbma) =
                    (text::up(k.tunnel, "replica.tunnel")?, text::up(k.nbma, "replica.nbma")?);
                Self::Replica(tunnel, nbma, small::up(k.port, "replica.port")?)
            }
            Pb::Fallback(tunnel) => Self::Fallback(text::up(tunnel, "fallback")?),
            Pb::PathMtu(k) => {
                Self::PathMtu(text::up(k.tunnel, "path_mtu.tunnel")?, text::up(k.nbma, "path_mtu.nbma")?)
            }
            Pb::InboundSa(of) => Self::InboundSa(spi::up(of, "inbound_sa")?),
            Pb::OutboundSa(k) => Self::OutboundSa(
                inner::up(k.protection, "outbound_sa.protection")?,
                worker::up(k.worker, "outbound_sa.worker")?,
            ),
        })
    }
}

impl From<Op> for pb::Op {
    fn from(op: Op) -> Self {
        use pb::op::Op as Pb;
        let op = match op {
            Op::Put(owner, object) => {
                Pb::Put(pb::Put { owner: enumerator::down(owner), object: inner::down(object) })
            }
            Op::Remove(owner, key) => {
                Pb::Remove(pb::Remove { owner: enumerator::down(owner), key: inner::down(key) })
            }
            Op::ResyncBegin(owner) => Pb::ResyncBegin(enumerator::down(owner)),
            Op::ResyncEnd(owner) => Pb::ResyncEnd(enumerator::down(owner)),
        };
        Self { op: Some(op) }
    }
}

impl TryFrom<pb::Op> for Op {
    type Error = Malformed;
    fn try_from(op: pb::Op) -> Result<Self, Malformed> {
        use pb::op::Op as Pb;
        Ok(match needed(op.op, "op")? {
            Pb::Put(put) => {
                Self::Put(enumerator::up(put.owner, "put.owner")?, inner::up(put.object, "put.object")?)
            }
            Pb::Remove(remove) => Self::Remove(
                enumerator::up(remove.owner, "remove.owner")?,
                inner::up(remove.key, "remove.key")?,
            ),
            Pb::ResyncBegin(owner) => Self::ResyncBegin(enumerator::up(owner, "resync_begin")?),
            Pb::ResyncEnd(owner) => Self::ResyncEnd(enumerator::up(owner, "resync_end")?),
            // Several steps, which a batch makes of it.
            Pb::PutRoutes(_) => {
                return Err(Malformed::new("put_routes", Problem::Text("this is not one step".to_owned())));
            }
        })
    }
}

impl From<Refusal> for pb::Refusal {
    fn from(refusal: Refusal) -> Self {
        use pb::refusal::Reason as Pb;
        let reason = match refusal {
            Refusal::NoInterface(name) => Pb::NoInterface(text::down(name)),
            Refusal::NoPort(port) => Pb::NoPort(port),
            Refusal::InUse(name, by) => Pb::InUse(pb::InUse { name, by: text::down(by) }),
            Refusal::SameKey(name) => Pb::SameKey(text::down(name)),
            Refusal::Referred(name) => Pb::Referred(text::down(name)),
            Refusal::Full(table) => Pb::Full(table),
            Refusal::Unsupported(what) => Pb::Unsupported(what),
            Refusal::SlotTaken(of, by) => {
                Pb::SlotTaken(pb::SlotTaken { spi: spi::down(of), by: spi::down(by) })
            }
            Refusal::Senseless(what) => Pb::Senseless(what),
        };
        Self { reason: Some(reason) }
    }
}

impl TryFrom<pb::Refusal> for Refusal {
    type Error = Malformed;
    fn try_from(refusal: pb::Refusal) -> Result<Self, Malformed> {
        use pb::refusal::Reason as Pb;
        Ok(match needed(refusal.reason, "reason")? {
            Pb::NoInterface(name) => Self::NoInterface(text::up(name, "no_interface")?),
            Pb::NoPort(port) => Self::NoPort(port),
            Pb::InUse(in_use) => Self::InUse(in_use.name, text::up(in_use.by, "in_use.by")?),
            Pb::SameKey(name) => Self::SameKey(text::up(name, "same_key")?),
            Pb::Referred(name) => Self::Referred(text::up(name, "referred")?),
            Pb::Full(table) => Self::Full(table),
            Pb::Unsupported(what) => Self::Unsupported(what),
            Pb::SlotTaken(taken) => {
                Self::SlotTaken(spi::up(taken.spi, "slot_taken.spi")?, spi::up(taken.by, "slot_taken.by")?)
            }
            Pb::Senseless(what) => Self::Senseless(what),
        })
    }
}

impl From<Refused> for pb::Refused {
    fn from(refused: Refused) -> Self {
        // A batch has no more than four thousand million steps: a message is bounded.
        Self { op: u32::try_from(refused.op).unwrap_or(u32::MAX), reason: inner::down(refused.reason) }
    }
}

impl TryFrom<pb::Refused> for Refused {
    type Error = Malformed;
    fn try_from(refused: pb::Refused) -> Result<Self, Malformed> {
        Ok(Self { op: refused.op as usize, reason: inner::up(refused.reason, "reason")? })
    }
}

impl From<Ack> for pb::Ack {
    fn from(ack: Ack) -> Self {
        Self { number: ack.number, refused: ack.result.err().map(Into::into) }
    }
}

impl TryFrom<pb::Ack> for Ack {
    type Error = Malformed;
    fn try_from(ack: pb::Ack) -> Result<Self, Malformed> {
        let result = match ack.refused {
            None => Ok(()),
            Some(refused) => Err(up(refused, "refused")?),
        };
        Ok(Self { number: ack.number, result })
    }
}
