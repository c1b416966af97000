//! The desired program: every object that should be in the data plane, and what changed since the last flush.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::InterfaceName;
use model::program::{Binding, Hop, Key, Object, Op, Owner, Replica, Tunnel, TunnelMode};
use model::time::Instant;

/// What should be in the data plane.
#[derive(Debug, Default)]
pub(crate) struct Desired {
    objects: BTreeMap<(Key, Owner), Wanted>,
    /// What was touched since the last flush, as it was before.
    touched: BTreeMap<(Key, Owner), Option<Wanted>>,
}

/// An object, without its remaining holding time: that is worked out when it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    object: Object,
    until: Option<Instant>,
    /// The end that the data plane was told last: it may be up to a second off, and no more however often it is moved.
    told: Option<Instant>,
}

impl Wanted {
    fn new(now: Instant, mut object: Object) -> Self {
        let until = expiry(&mut object).and_then(Option::take).map(|remaining| now + remaining);
        Self { object, until, told: None }
    }

    /// As it is told now.
    fn at(&self, now: Instant) -> Object {
        let mut object = self.object.clone();
        if let Some(place) = expiry(&mut object) {
            *place = self.until.map(|until| until.since(now));
        }
        object
    }

    /// Whether the data plane, which was told this, would do the same with `wanted`. Holding times that end within a second of
    /// each other are the same.
    fn is_same(&self, wanted: &Self) -> bool {
        let is_close = match (self.told, wanted.until) {
            (Some(a), Some(b)) => a.since(b).max(b.since(a)) < Duration::from_secs(1),
            (a, b) => a == b,
        };
        self.object == wanted.object && is_close
    }
}

fn expiry(object: &mut Object) -> Option<&mut Option<Duration>> {
    match object {
        Object::Binding(binding) => Some(&mut binding.expires_in),
        Object::Route(route) => Some(&mut route.expires_in),
        Object::PathMtu(path) => Some(&mut path.expires_in),
        _ => None,
    }
}

impl Desired {
    /// The object should be there.
    pub(crate) fn put(&mut self, now: Instant, owner: Owner, object: Object) {
        let at = (object.key(), owner);
        let before = self.objects.insert(at, Wanted::new(now, object));
        self.touched.entry(at).or_insert(before);
    }

    /// The object should not be there.
    pub(crate) fn remove(&mut self, owner: Owner, key: Key) {
        if let Some(before) = self.objects.remove(&(key, owner)) {
            self.touched.entry((key, owner)).or_insert(Some(before));
        }
    }

    /// The object, without its remaining holding time.
    pub(crate) fn object(&self, owner: Owner, key: Key) -> Option<&Object> {
        self.objects.get(&(key, owner)).map(|wanted| &wanted.object)
    }

    /// Replaces the object by what `change` makes of it; its holding time ends when it would have.
    pub(crate) fn alter(&mut self, owner: Owner, key: Key, change: impl FnOnce(&mut Object)) {
        let Some(wanted) = self.objects.get_mut(&(key, owner)) else { return };
        let before = wanted.clone();
        change(&mut wanted.object);
        self.touched.entry((key, owner)).or_insert(Some(before));
    }

    /// All objects of the owner.
    pub(crate) fn of(&self, owner: Owner) -> impl Iterator<Item = (Key, &Object)> {
        self.objects.iter().filter(move |((_, o), _)| *o == owner).map(|((key, _), w)| (*key, &w.object))
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    /// One object as it should be: the step that makes it so.
    pub(crate) fn step(&self, now: Instant, owner: Owner, key: Key) -> Op {
        self.objects.get(&(key, owner)).map_or(Op::Remove(owner, key), |w| Op::Put(owner, w.at(now)))
    }

    /// The steps from what was there at the last flush to what should be there now, none of them in vain.
    ///
    /// Puts stand in the order of keys, so that what others refer to comes first, removals in the opposite order. Puts come
    /// before removals, so that no packet meets a gap; unless an interface or a tunnel goes, whose name, port or key what
    /// comes may want, or an inbound SA from a slot that another one gets. One that stays, but has had until now what another one gets (two that exchange their keys), makes room by
    /// going and coming again, with all that refers to it; and so does one that becomes what not all of that may be on.
    pub(crate) fn flush(&mut self, now: Instant) -> Vec<Op> {
        let mut puts = BTreeMap::new();
        let mut removals = BTreeSet::new();
        let touched = std::mem::take(&mut self.touched);
        for at in self.in_the_way(&touched) {
            removals.insert(at);
            if let Some(wanted) = self.objects.get_mut(&at) {
                wanted.told = wanted.until;
                puts.insert(at, wanted.at(now));
            }
        }
        for (at, before) in touched {
            match (before, self.objects.get_mut(&at)) {
                (Some(before), Some(wanted)) if before.is_same(wanted) => wanted.told = before.told,
                (_, Some(wanted)) => {
                    wanted.told = wanted.until;
                    puts.insert(at, wanted.at(now));
                }
                (Some(_), None) => {
                    removals.insert(at);
                }
                (None, None) => {}
            }
        }
        let puts: Vec<Op> = puts.into_iter().map(|((_, owner), object)| Op::Put(owner, object)).collect();
        let removals: Vec<Op> =
            removals.into_iter().rev().map(|(key, owner)| Op::Remove(owner, key)).collect();
        let slots: BTreeSet<u32> = puts
            .iter()
            .filter_map(|op| match op {
                Op::Put(_, Object::InboundSa(sa)) => Some(sa.spi.slot()),
                _ => None,
            })
            .collect();
        let is_structural = |op: &Op| match op {
            Op::Remove(_, Key::Interface(_) | Key::Tunnel(_)) => true,
            Op::Remove(_, Key::InboundSa(spi)) => slots.contains(&spi.slot()),
            _ => false,
        };
        let (mut ops, rest) =
            if removals.iter().any(is_structural) { (removals, puts) } else { (puts, removals) };
        ops.extend(rest);
        ops
    }

    /// What was told before and must go before anything is put.
    fn in_the_way(&self, touched: &BTreeMap<(Key, Owner), Option<Wanted>>) -> Vec<(Key, Owner)> {
        let structural: Vec<_> = touched
            .iter()
            .filter(|((key, _), _)| matches!(key, Key::Interface(_) | Key::Tunnel(_)))
            .filter_map(|(at, before)| Some((at, &before.as_ref()?.object, &self.objects.get(at)?.object)))
            .collect();
        let is_wanted = |at, old| structural.iter().any(|(other, _, new)| *other != at && is_clash(old, new));
        let mut names: BTreeSet<InterfaceName> = structural
            .iter()
            .filter(|(at, old, new)| is_moved(old, new) || is_wanted(*at, old))
            .filter_map(|(_, old, _)| name_of(old))
            .collect();
        if names.is_empty() {
            return Vec::new();
        }
        let untouched =
            self.objects.iter().filter(|(at, _)| !touched.contains_key(at)).map(|(at, w)| (at, &w.object));
        let were = touched.iter().filter_map(|(at, before)| Some((at, &before.as_ref()?.object)));
        let before: Vec<_> = untouched.chain(were).collect();
        for (_, object) in &before {
            if let Object::Tunnel(tunnel) = object
                && names.contains(&tunnel.source_interface)
            {
                names.insert(tunnel.name);
            }
        }
        let goes =
            |object| name_of(object).into_iter().chain(references(object)).any(|name| names.contains(&name));
        before.into_iter().filter(|(_, object)| goes(object)).map(|(at, _)| *at).collect()
    }

    /// The whole program, between the marks of each owner. All marks stand first and all sweeps last: an object of one owner
    /// may refer to one of another.
    pub(crate) fn resync(&mut self, now: Instant) -> Vec<Op> {
        self.touched.clear();
        let mut ops: Vec<Op> = RESYNCED.map(Op::ResyncBegin).into();
        ops.extend(self.objects.iter_mut().map(|((_, owner), wanted)| {
            wanted.told = wanted.until;
            Op::Put(*owner, wanted.at(now))
        }));
        // What refers goes before what is referred to.
        ops.extend(RESYNCED.iter().rev().map(|&owner| Op::ResyncEnd(owner)));
        ops
    }

    /// What is known of a program of which parts are not known yet: nothing is swept, and what has no link so far keeps the one
    /// that the data plane may have for it.
    pub(crate) fn known(&mut self, now: Instant) -> Vec<Op> {
        let is_known = |op: &Op| {
            !matches!(
                op,
                Op::ResyncBegin(_)
                    | Op::ResyncEnd(_)
                    | Op::Put(_, Object::Binding(Binding { link: None, .. }))
                    | Op::Put(_, Object::Replica(Replica { link: None, .. }))
            )
        };
        self.resync(now).into_iter().filter(is_known).collect()
    }
}

/// Whether the data plane would not have both.
fn is_clash(old: &Object, new: &Object) -> bool {
    match (old, new) {
        (Object::Interface(old), Object::Interface(new)) => (&old.port, old.vlan) == (&new.port, new.vlan),
        (Object::Tunnel(old), Object::Tunnel(new)) => {
            let is_of_many = [old.mode, new.mode].contains(&TunnelMode::Multipoint);
            (old.source, old.key) == (new.source, new.key) && (is_of_many || old.mode == new.mode)
        }
        _ => false,
    }
}

/// Whether what refers to it may not do so any more: it comes to another table or underlay, from a peer or to one, or into another
/// family. The data plane refuses that while something does.
fn is_moved(old: &Object, new: &Object) -> bool {
    match (old, new) {
        (Object::Interface(old), Object::Interface(new)) => old.table != new.table,
        (Object::Tunnel(old), Object::Tunnel(new)) => {
            let kind = |tunnel: &Tunnel| {
                let is_of_many = tunnel.mode == TunnelMode::Multipoint;
                (tunnel.table, tunnel.underlay_table, is_of_many, tunnel.source.0.is_ipv4())
            };
            kind(old) != kind(new)
        }
        _ => false,
    }
}

fn name_of(object: &Object) -> Option<InterfaceName> {
    match object {
        Object::Interface(interface) => Some(interface.name),
        Object::Tunnel(tunnel) => Some(tunnel.name),
        _ => None,
    }
}

/// The interfaces and tunnels that an object refers to.
fn references(object: &Object) -> Vec<InterfaceName> {
    let through = |own, link: Option<Hop>| std::iter::once(own).chain(link.map(|l| l.interface)).collect();
    match object {
        Object::Interface(_) | Object::InboundSa(_) | Object::OutboundSa(_) => Vec::new(),
        Object::Tunnel(tunnel) => vec![tunnel.source_interface],
        Object::Neighbour(neighbour) => vec![neighbour.hop.interface],
        Object::Binding(binding) => through(binding.tunnel, binding.link),
        Object::Replica(replica) => through(replica.tunnel, replica.link),
        Object::Fallback(fallback) => vec![fallback.tunnel],
        Object::PathMtu(path) => vec![path.tunnel],
        Object::Route(route) => route.path.interfaces().collect(),
    }
}

/// The owners that we speak for, those that others refer to first.
const RESYNCED: [Owner; 3] = [Owner::Config, Owner::Netlink, Owner::Nhrp];

#[cfg(test)]
mod tests {
    use super::*;
    use model::program::{Fallback, Interface, OuterDf, Path, Route, TcpMss};
    use model::{NbmaAddr, ProtocolAddr, TableId};

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000)
    }

    fn interface(name: &str) -> Object {
        Object::Interface(Interface {
            name: name.parse().unwrap(),
            port: name.to_owned(),
            vlan: None,
            mtu: 1500,
            table: TableId(0),
            forwarding: true,
            netns: None,
        })
    }

    fn tunnel(name: &str) -> Object {
        Object::Tunnel(Tunnel {
            name: name.parse().unwrap(),
            mode: TunnelMode::Multipoint,
            source: "198.51.100.1".parse().unwrap(),
            source_interface: "wan0".parse().unwrap(),
            key: None,
            mtu: 1400,
            ttl: 255,
            network_id: 1,
            redirect: false,
            table: TableId(0),
            underlay_table: TableId(0),
            outer_df: OuterDf::Copy,
            tcp_mss: TcpMss::Auto,
            netns: None,
            protection: None,
        })
    }

    fn binding(expires_in: Option<Duration>) -> Object {
        Object::Binding(Binding {
            tunnel: "tunnel0".parse().unwrap(),
            next_hop: ProtocolAddr("10.0.0.1".parse().unwrap()),
            nbma: NbmaAddr("198.51.100.9".parse().unwrap()),
            link: None,
            expires_in,
            port: 0,
        })
    }

    #[test]
    fn only_what_is_different_is_told() {
        let mut desired = Desired::default();
        desired.put(at(0), Owner::Config, interface("wan0"));
        assert_eq!(desired.flush(at(0)), [Op::Put(Owner::Config, interface("wan0"))]);
        desired.put(at(1), Owner::Config, interface("wan0"));
        desired.remove(Owner::Config, interface("lan0").key());
        desired.put(at(1), Owner::Config, interface("lan0"));
        desired.remove(Owner::Config, interface("lan0").key());
        assert_eq!(desired.flush(at(1)), [], "away and back, and there and away, are nothing");
        desired.remove(Owner::Config, interface("wan0").key());
        assert_eq!(desired.flush(at(1)), [Op::Remove(Owner::Config, interface("wan0").key())]);
    }

    #[test]
    fn a_holding_time_is_told_as_what_remains_and_again_when_it_was_renewed() {
        let mut desired = Desired::default();
        let seconds = |s| Some(Duration::from_secs(s));
        desired.put(at(0), Owner::Nhrp, binding(seconds(600)));
        assert_eq!(desired.flush(at(2)), [Op::Put(Owner::Nhrp, binding(seconds(598)))]);
        desired.put(at(100), Owner::Nhrp, binding(seconds(500)));
        assert_eq!(desired.flush(at(100)), [], "the same end");
        desired.put(at(200), Owner::Nhrp, binding(seconds(600)));
        assert_eq!(desired.flush(at(200)), [Op::Put(Owner::Nhrp, binding(seconds(600)))]);
        desired.put(at(300), Owner::Nhrp, binding(None));
        assert_eq!(desired.flush(at(300)), [Op::Put(Owner::Nhrp, binding(None))]);
    }

    #[test]
    fn two_tunnels_exchange_their_keys() {
        let keyed = |name, key| {
            let Object::Tunnel(tunnel) = tunnel(name) else { panic!() };
            Object::Tunnel(Tunnel { key: Some(key), ..tunnel })
        };
        let mut desired = Desired::default();
        for object in [keyed("tunnel0", 42), keyed("tunnel1", 43), interface("wan0"), binding(None)] {
            desired.put(at(0), Owner::Config, object);
        }
        desired.flush(at(0));
        let put = |object| Op::Put(Owner::Config, object);
        let remove = |object: Object| Op::Remove(Owner::Config, object.key());
        desired.put(at(1), Owner::Config, keyed("tunnel0", 43));
        desired.put(at(1), Owner::Config, keyed("tunnel1", 42));
        assert_eq!(
            desired.flush(at(1)),
            [
                remove(binding(None)),
                remove(tunnel("tunnel1")),
                remove(tunnel("tunnel0")),
                put(keyed("tunnel0", 43)),
                put(keyed("tunnel1", 42)),
                put(binding(None))
            ]
        );
        desired.put(at(2), Owner::Config, keyed("tunnel0", 44));
        assert_eq!(desired.flush(at(2)), [put(keyed("tunnel0", 44))], "nobody else wants it");
    }

    #[test]
    fn what_is_on_a_tunnel_that_moves_goes_and_comes_with_it() {
        let Object::Tunnel(old) = tunnel("tunnel0") else { panic!() };
        let destination = "198.51.100.9".parse().unwrap();
        let others = [
            Tunnel { table: TableId(7), ..old.clone() },
            Tunnel { mode: TunnelMode::PointToPoint { destination }, ..old.clone() },
            Tunnel { source: "2001:db8::1".parse().unwrap(), ..old.clone() },
        ];
        for new in others.map(Object::Tunnel) {
            let mut desired = Desired::default();
            for object in [interface("wan0"), tunnel("tunnel0"), binding(None)] {
                desired.put(at(0), Owner::Config, object);
            }
            desired.flush(at(0));
            desired.put(at(1), Owner::Config, new.clone());
            let (put, remove) =
                (|o| Op::Put(Owner::Config, o), |o: Object| Op::Remove(Owner::Config, o.key()));
            assert_eq!(
                desired.flush(at(1)),
                [remove(binding(None)), remove(new.clone()), put(new), put(binding(None))]
            );
            assert_eq!(desired.flush(at(1)), []);
        }
        // One that others are told apart from by its peer makes room for one of many.
        let peer = Object::Tunnel(Tunnel { mode: TunnelMode::PointToPoint { destination }, ..old.clone() });
        assert!(is_clash(&Object::Tunnel(old), &peer));
    }

    #[test]
    fn many_small_renewals_are_told_as_well() {
        let mut desired = Desired::default();
        let at = |tenths: u64| Instant(tenths * 100_000);
        let binding = || binding(Some(Duration::from_secs(3)));
        let mut told = at(0);
        for tenths in (0..100).step_by(9) {
            desired.put(at(tenths), Owner::Nhrp, binding());
            if !desired.flush(at(tenths)).is_empty() {
                told = at(tenths);
            }
            assert!(at(tenths).since(told) < Duration::from_secs(1), "it would expire early at {tenths}");
        }
        // A resync tells all.
        desired.put(at(104), Owner::Nhrp, binding());
        desired.resync(at(104));
        desired.put(at(113), Owner::Nhrp, binding());
        assert_eq!(desired.flush(at(113)), []);
    }

    #[test]
    fn what_is_referred_to_comes_first_and_goes_last() {
        let mut desired = Desired::default();
        let fallback = Object::Fallback(Fallback {
            tunnel: "tunnel0".parse().unwrap(),
            next_hop: ProtocolAddr("10.0.0.1".parse().unwrap()),
        });
        let route = Object::Route(Route {
            table: TableId(0),
            prefix: "10.0.0.0/24".parse().unwrap(),
            path: Path::Attached("tunnel0".parse().unwrap()),
            expires_in: None,
        });
        let all = [interface("wan0"), tunnel("tunnel0"), binding(None), route, fallback];
        for object in all.iter().rev() {
            desired.put(at(0), Owner::Config, object.clone());
        }
        let puts = all.clone().map(|o| Op::Put(Owner::Config, o));
        assert_eq!(desired.flush(at(0)), puts);

        // A tunnel is replaced by one of another name: the old one makes room first.
        for object in &all[1..] {
            desired.remove(Owner::Config, object.key());
        }
        desired.put(at(1), Owner::Config, tunnel("tunnel1"));
        let mut ops: Vec<Op> = all[1..].iter().rev().map(|o| Op::Remove(Owner::Config, o.key())).collect();
        ops.push(Op::Put(Owner::Config, tunnel("tunnel1")));
        assert_eq!(desired.flush(at(1)), ops);

        // A route that changes its owner leaves no gap.
        let route = |owner| (owner, all[3].clone());
        let (owner, object) = route(Owner::Config);
        desired.put(at(2), owner, object);
        desired.flush(at(2));
        desired.remove(Owner::Config, all[3].key());
        let (owner, object) = route(Owner::Netlink);
        desired.put(at(3), owner, object.clone());
        assert_eq!(
            desired.flush(at(3)),
            [Op::Put(Owner::Netlink, object), Op::Remove(Owner::Config, all[3].key())]
        );
    }

    #[test]
    fn a_resync_holds_everything_between_marks() {
        let mut desired = Desired::default();
        desired.put(at(0), Owner::Nhrp, binding(Some(Duration::from_secs(60))));
        desired.put(at(0), Owner::Config, interface("wan0"));
        let ops = desired.resync(at(10));
        assert_eq!(ops[..3], RESYNCED.map(Op::ResyncBegin));
        assert_eq!(
            ops[3..5],
            [
                Op::Put(Owner::Config, interface("wan0")),
                Op::Put(Owner::Nhrp, binding(Some(Duration::from_secs(50))))
            ]
        );
        assert_eq!(ops[5..], [Owner::Nhrp, Owner::Netlink, Owner::Config].map(Op::ResyncEnd));
        assert_eq!(desired.flush(at(10)), [], "nothing is left to tell");
    }
}
