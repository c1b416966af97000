//! One tunnel and all that NHRP knows on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use model::config::MapMulticast;
use model::program::{Fallback, Key, Object, Replica, TunnelMode};
use model::time::Instant;
use model::{InterfaceName, NbmaAddr, Prefix, ProtocolAddr};
use wire::nhrp::{Body, Cie, Extension, ExtensionType, Families, Family, Flags, Kind, Message};

use crate::Tunnel;
use crate::answer::Told;
use crate::auth;
use crate::cache::{Entry, Origin};
use crate::heard::Heard;
use crate::input::Peer;
use crate::limits::{HOP_COUNT, Shares};
use crate::nhs::{Server, timers_of};
use crate::purge::Purge;
use crate::redirect::Redirected;
use crate::resolution::Ask;
use crate::shortcut::Shortcut;
use crate::snapshot::RememberedTunnel;
use crate::turn::{Timer, Turn};

/// A tunnel.
#[derive(Debug)]
pub(crate) struct Cloud {
    pub(crate) tunnel: Tunnel,
    pub(crate) cache: BTreeMap<ProtocolAddr, Entry>,
    /// In the order of the configuration.
    pub(crate) servers: Vec<Server>,
    /// Bindings of the servers, as far as they are known.
    pub(crate) bound_servers: BTreeMap<ProtocolAddr, NbmaAddr>,
    /// Look-ups of names of servers that are not answered yet, and since when.
    pub(crate) look_ups: BTreeMap<String, Instant>,
    /// Where others were told that they see us, if that is not where we are.
    pub(crate) seen_at: Option<NbmaAddr>,
    /// Ids of servers given so far.
    pub(crate) server_ids: u32,
    /// What is asked for, by address.
    pub(crate) asks: BTreeMap<ProtocolAddr, Ask>,
    /// Request ids of answered resolutions, oldest first.
    pub(crate) answered: VecDeque<u32>,
    pub(crate) shortcuts: BTreeMap<Prefix, Shortcut>,
    /// Peers that have a host route.
    pub(crate) reached: BTreeSet<ProtocolAddr>,
    /// Shortcuts by next hop.
    pub(crate) via: BTreeMap<ProtocolAddr, BTreeSet<Prefix>>,
    /// Sources of requests that passed.
    pub(crate) heard: BTreeMap<ProtocolAddr, Heard>,
    /// Who was told what.
    pub(crate) told: BTreeMap<(Prefix, ProtocolAddr), Told>,
    pub(crate) redirected: BTreeMap<(Peer, IpAddr, IpAddr), Redirected>,
    /// How many entries of the cache are registrations.
    pub(crate) registered_clients: usize,
    /// How many shortcuts are prefixes that clients registered.
    pub(crate) registered_prefixes: usize,
    /// How much peers asked of late.
    pub(crate) requests: Shares,
    /// Purge requests without a reply.
    pub(crate) purges: BTreeMap<u32, Purge>,
    /// Receivers of multicast, and for how many reasons each.
    replicas: BTreeMap<Peer, u32>,
    /// Those of them that are configured.
    configured_replicas: BTreeSet<NbmaAddr>,
    /// Those of them that are servers.
    pub(crate) server_replicas: BTreeSet<NbmaAddr>,
    fallback: Option<ProtocolAddr>,
    /// The NBMA address that the tunnel had before it had none.
    left: Option<NbmaAddr>,
    /// Messages sent and received, by type.
    pub(crate) messages: [(u64, u64); 8],
    /// Error indications sent and received, by code; 0: all others.
    pub(crate) errors: BTreeMap<u16, (u64, u64)>,
}

impl Cloud {
    /// A tunnel without anything; [`Self::configure`] fills it.
    fn new(tunnel: Tunnel) -> Self {
        Self {
            tunnel,
            cache: BTreeMap::new(),
            servers: Vec::new(),
            bound_servers: BTreeMap::new(),
            look_ups: BTreeMap::new(),
            seen_at: None,
            server_ids: 0,
            asks: BTreeMap::new(),
            answered: VecDeque::new(),
            shortcuts: BTreeMap::new(),
            reached: BTreeSet::new(),
            via: BTreeMap::new(),
            heard: BTreeMap::new(),
            told: BTreeMap::new(),
            redirected: BTreeMap::new(),
            registered_clients: 0,
            registered_prefixes: 0,
            requests: Shares::default(),
            purges: BTreeMap::new(),
            replicas: BTreeMap::new(),
            configured_replicas: BTreeSet::new(),
            server_replicas: BTreeSet::new(),
            fallback: None,
            left: None,
            messages: [(0, 0); 8],
            errors: BTreeMap::new(),
        }
    }

    /// Begins: what the configuration knows is programmed at once, what a former life knew is programmed again, and then the
    /// servers hear from us.
    pub(crate) fn begin(turn: &mut Turn<'_>, tunnel: Tunnel, remembered: Option<RememberedTunnel>) -> Self {
        let mut cloud = Self::new(tunnel);
        cloud.configure_statics(turn);
        cloud.adopt_servers(turn);
        if let Some(remembered) = remembered {
            cloud.remember(turn, remembered);
        }
        cloud.contact_servers(turn, false);
        // Routes may have gone while nobody was there to see it.
        if cloud.tunnel.nbma.is_some() {
            let told: BTreeSet<_> = cloud.told.keys().map(|(prefix, _)| *prefix).collect();
            cloud.purge_changed(turn, &told.into_iter().collect::<Vec<_>>());
        }
        cloud
    }

    /// Whether the tunnel can become `tunnel` without beginning anew: nothing changes of the addresses that others know it by. One of
    /// a family that it had none of may come. In an underlay of the other family nobody is where we know them to be.
    pub(crate) fn can_become(&self, tunnel: &Tunnel) -> bool {
        let old = &self.tunnel;
        let first =
            |of: &Tunnel, family| of.addresses.iter().find(|a| Family::of(a.addr()) == family).copied();
        let stays = |family| first(old, family).is_none_or(|address| first(tunnel, family) == Some(address));
        old.mode == tunnel.mode
            && old.table == tunnel.table
            && old.nbma.or(self.left).zip(tunnel.nbma).is_none_or(|(a, b)| a.0.is_ipv4() == b.0.is_ipv4())
            && [Family::V4, Family::V6].into_iter().all(stays)
    }

    /// Takes a changed configuration, or a changed NBMA address.
    pub(crate) fn configure(&mut self, turn: &mut Turn<'_>, tunnel: Tunnel) {
        if self.tunnel == tunnel {
            return;
        }
        let old = std::mem::replace(&mut self.tunnel, tunnel);
        self.configure_statics(turn);
        self.drop_unaccepted_prefixes(turn);
        // From the new address; with none there is nobody to say it, and it is said when there is one.
        match (old.nbma.or(self.left), self.tunnel.nbma) {
            (Some(left), None) => self.left = Some(left),
            (Some(left), Some(now)) => {
                self.left = None;
                if left != now {
                    self.purge_self(turn, left, false);
                }
            }
            _ => {}
        }
        self.adopt_servers(turn);
        let (before, after) = (&old.nhrp, &self.tunnel.nhrp);
        let is_told_otherwise = (old.nbma, old.mtu) != (self.tunnel.nbma, self.tunnel.mtu)
            || (before.holding_time, before.registration) != (after.holding_time, after.registration)
            || before.authentication != after.authentication;
        self.contact_servers(turn, is_told_otherwise);
    }

    /// Ends: whoever knows of us through us is told so, and everything is programmed away.
    pub(crate) fn end(mut self, turn: &mut Turn<'_>) {
        self.say_goodbye(turn);
        // What was told of clients is true without us.
        self.told.clear();
        self.set_fallback(turn, None);
        let addresses: Vec<_> = self.cache.keys().copied().collect();
        for address in addresses {
            self.forget(turn, address);
        }
        for prefix in self.shortcuts.keys().copied().collect::<Vec<_>>() {
            self.drop_shortcut(turn, prefix);
        }
        for address in self.asks.keys() {
            turn.cancel(Timer::Ask(self.tunnel.name, *address));
        }
        for id in self.purges.keys() {
            turn.cancel(Timer::Purge(self.tunnel.name, *id));
        }
        for timer in self.servers.iter().flat_map(|s| timers_of(self.tunnel.name, s.id)) {
            turn.cancel(timer);
        }
        let replicas = [&mut self.configured_replicas, &mut self.server_replicas].map(std::mem::take);
        for nbma in replicas.into_iter().flatten() {
            self.release_replica(turn, nbma);
        }
    }

    /// Static bindings, and receivers of multicast.
    fn configure_statics(&mut self, turn: &mut Turn<'_>) {
        let nhrp = &self.tunnel.nhrp;
        let wanted: BTreeMap<_, _> = nhrp.map.iter().map(|m| (m.protocol, m.nbma)).collect();
        let receivers: BTreeSet<_> = nhrp
            .map_multicast
            .iter()
            .filter_map(|m| match m {
                MapMulticast::Nbma(nbma) => Some(*nbma),
                MapMulticast::Dynamic | MapMulticast::Nhs => None,
            })
            .collect();
        let gone: Vec<_> = self
            .cache
            .iter()
            .filter(|(a, e)| e.origin == Origin::Static && wanted.get(a) != Some(&e.nbma))
            .map(|(a, _)| *a)
            .collect();
        for address in gone {
            self.forget(turn, address);
        }
        for (address, nbma) in wanted {
            if self.cache.get(&address).is_none_or(|e| !e.origin.is_configured()) {
                self.install(turn, address, Entry::configured(Origin::Static, nbma, turn.now));
            }
        }
        for nbma in self.configured_replicas.difference(&receivers).copied().collect::<Vec<_>>() {
            self.release_replica(turn, nbma);
        }
        for nbma in receivers.difference(&self.configured_replicas).copied().collect::<Vec<_>>() {
            self.acquire_replica(turn, nbma);
        }
        self.configured_replicas = receivers;
        self.configure_replicas_of_clients(turn);
    }

    /// Whether every registered client gets multicast.
    pub(crate) fn replicates_to_clients(&self) -> bool {
        self.tunnel.nhrp.map_multicast.contains(&MapMulticast::Dynamic)
    }

    fn configure_replicas_of_clients(&mut self, turn: &mut Turn<'_>) {
        let replicates = self.replicates_to_clients();
        let changed: Vec<_> = self
            .cache
            .iter_mut()
            .filter(|(_, e)| e.replica != replicates && e.is_registered())
            .map(|(_, e)| {
                e.replica = replicates;
                e.peer()
            })
            .collect();
        for peer in changed {
            if replicates { self.acquire_replica(turn, peer) } else { self.release_replica(turn, peer) }
        }
    }

    /// One more reason to send multicast there.
    pub(crate) fn acquire_replica(&mut self, turn: &mut Turn<'_>, peer: impl Into<Peer>) {
        let peer = peer.into();
        let reasons = self.replicas.entry(peer).or_default();
        *reasons += 1;
        if *reasons == 1 && self.is_multipoint() {
            let (nbma, port) = (peer.nbma, peer.port.unwrap_or(0));
            turn.put(Object::Replica(Replica { tunnel: self.tunnel.name, nbma, link: None, port }));
        }
    }

    /// One reason less.
    pub(crate) fn release_replica(&mut self, turn: &mut Turn<'_>, peer: impl Into<Peer>) {
        let peer = peer.into();
        let Some(reasons) = self.replicas.get_mut(&peer) else { return };
        *reasons -= 1;
        if *reasons == 0 {
            self.replicas.remove(&peer);
            if self.is_multipoint() {
                turn.remove(Key::Replica(self.tunnel.name, peer.nbma, peer.port.unwrap_or(0)));
            }
        }
    }

    /// Where packets go whose next hop has no binding. Whether it is elsewhere than before.
    pub(crate) fn set_fallback(&mut self, turn: &mut Turn<'_>, server: Option<ProtocolAddr>) -> bool {
        if self.fallback == server {
            return false;
        }
        self.fallback = server;
        let tunnel = self.tunnel.name;
        match server {
            _ if !self.is_multipoint() => {}
            Some(next_hop) => turn.put(Object::Fallback(Fallback { tunnel, next_hop })),
            None => turn.remove(Key::Fallback(tunnel)),
        }
        true
    }

    pub(crate) fn name(&self) -> InterfaceName {
        self.tunnel.name
    }

    /// Whether next hops have NBMA addresses of their own. A point-to-point tunnel needs nothing of what NHRP programs.
    pub(crate) fn is_multipoint(&self) -> bool {
        self.tunnel.mode == TunnelMode::Multipoint
    }

    /// Where a next hop is that the routes name.
    pub(crate) fn peer(&self, next_hop: ProtocolAddr) -> Option<Peer> {
        match self.tunnel.mode {
            TunnelMode::Multipoint => self.binding(next_hop),
            TunnelMode::PointToPoint { destination } => Some(destination.into()),
        }
    }

    /// Sweeps what is over by itself.
    pub(crate) fn prune(&mut self, now: Instant) {
        self.told.retain(|_, told| told.until > now);
        self.heard.retain(|_, heard| heard.until > now);
        self.redirected.retain(|_, redirected| !redirected.is_over(now));
    }

    /// Whether a protocol address is the tunnel's own.
    pub(crate) fn is_own(&self, address: ProtocolAddr) -> bool {
        self.tunnel.addresses.iter().any(|a| a.addr() == address.0)
    }

    /// Own protocol address of a family: the first that means something beyond the link.
    pub(crate) fn own(&self, family: Family) -> Option<ProtocolAddr> {
        let mut of_family = self.own_of(family).filter(|a| !a.is_link_local());
        of_family.next()
    }

    /// Own link-local address: the first.
    pub(crate) fn own_link_local(&self) -> Option<ProtocolAddr> {
        self.own_of(Family::V6).find(|a| a.is_link_local())
    }

    fn own_of(&self, family: Family) -> impl Iterator<Item = ProtocolAddr> {
        let all = self.tunnel.addresses.iter().map(|a| ProtocolAddr(a.addr()));
        all.filter(move |a| Family::of(a.0) == family)
    }

    /// The addresses that a message to, or about, `address` is sent from; `None` while there is none of the family.
    pub(crate) fn identity(&self, address: ProtocolAddr) -> Option<Identity> {
        self.identity_as(self.own(Family::of(address.0))?)
    }

    /// As [`Self::identity`], with this protocol address.
    pub(crate) fn identity_as(&self, protocol: ProtocolAddr) -> Option<Identity> {
        let nbma = self.tunnel.nbma?;
        let families = Families { nbma: Family::of(nbma.0), protocol: Family::of(protocol.0) };
        Some(Identity { families, nbma, protocol })
    }

    /// What we say of ourselves in a CIE.
    pub(crate) fn own_entry(&self, own: &Identity) -> Cie {
        Cie {
            mtu: self.tunnel.mtu,
            holding_time: self.tunnel.nhrp.holding_time.0,
            nbma: Some(own.nbma.0),
            protocol: Some(own.protocol.0),
            ..Cie::default()
        }
    }

    /// What we say of ourselves in the CIE of a request: addresses are those of its source.
    pub(crate) fn requesters_entry(&self, prefix: u8) -> Cie {
        Cie { prefix, mtu: self.tunnel.mtu, holding_time: self.tunnel.nhrp.holding_time.0, ..Cie::default() }
    }

    /// Sends a message to a peer: authenticates it, counts it, writes it.
    pub(crate) fn send(&mut self, turn: &mut Turn<'_>, to: impl Into<Peer>, mut message: Message) {
        auth::renew(&mut message, self.tunnel.nhrp.authentication.as_deref());
        self.messages[message.message_type() as usize - 1].0 += 1;
        turn.send(self.tunnel.name, to.into(), message.encode());
    }
}

/// Own addresses as one message has them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) families: Families,
    pub(crate) nbma: NbmaAddr,
    pub(crate) protocol: ProtocolAddr,
}

impl Identity {
    /// A message of types 1 to 6 that begins here.
    pub(crate) fn request(
        &self,
        kind: Kind,
        flags: Flags,
        request_id: u32,
        destination: ProtocolAddr,
        entries: Vec<Cie>,
        extensions: Vec<Extension>,
    ) -> Message {
        Message {
            families: self.families,
            hop_count: HOP_COUNT,
            source_nbma: Some(self.nbma.0),
            source: Some(self.protocol.0),
            destination: Some(destination.0),
            body: Body::Exchange { kind, flags, request_id, entries },
            extensions: Some(extensions),
        }
    }
}

/// The extensions of a registration or resolution request, but for authentication: who answers, whom it passes both ways,
/// and NAT (with what is known of the server).
pub(crate) fn request_extensions(nat: Option<Cie>, families: Families) -> Vec<Extension> {
    let mut addresses = Extension::empty(ExtensionType::NAT, false);
    if let Some(entry) = nat {
        // An empty extension has room for one entry.
        let _ = addresses.push(&entry, families);
    }
    vec![
        Extension::empty(ExtensionType::RESPONDER, true),
        Extension::empty(ExtensionType::FORWARD_TRANSIT, true),
        Extension::empty(ExtensionType::REVERSE_TRANSIT, true),
        addresses,
    ]
}
