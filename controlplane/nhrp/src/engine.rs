//! The engine: inputs in, actions out.

use std::collections::BTreeMap;

use model::program::Binding;
use model::time::Instant;
use model::{InterfaceName, ProtocolAddr};

use crate::cloud::Cloud;
use crate::forward::Toward;
use crate::input::Peer;
use crate::limits::PRUNE_EVERY;
use crate::redirect::addresses;
use crate::turn::{Common, RequestIds, Rng, Timer, Turn};
use crate::{Action, Input, Limits, Reject, Routes, Snapshot, Tunnel};

/// NHRP on all tunnels of a node; server and client at once.
#[derive(Debug)]
pub struct Engine {
    pub(crate) clouds: BTreeMap<InterfaceName, Cloud>,
    pub(crate) common: Common,
    /// What a former life knew, until the first configuration says of which tunnels it still holds.
    pub(crate) restored: Option<Snapshot>,
    /// When `restored` was as it stands there.
    pub(crate) restored_at: Instant,
    pruned: Instant,
}

impl Engine {
    /// An engine that knows nothing but what a former life left. `seed` is all its chance; it spreads timers.
    ///
    /// What is restored is as of `now`. It is programmed again with the first [`Input::Configure`], with what remains of it then.
    #[must_use]
    pub fn new(now: Instant, seed: u64, restored: Option<Snapshot>) -> Self {
        Self::with_limits(now, seed, restored, Limits::default())
    }

    /// As [`Self::new`], with limits other than the default ones.
    #[must_use]
    pub fn with_limits(now: Instant, seed: u64, restored: Option<Snapshot>, limits: Limits) -> Self {
        let restored = restored.unwrap_or_default();
        let ids = if restored.request_id == 0 {
            RequestIds::default()
        } else {
            RequestIds::new(restored.request_id)
        };
        Self {
            clouds: BTreeMap::new(),
            common: Common { limits, ids, rng: Rng(seed), ..Common::default() },
            restored: Some(restored),
            restored_at: now,
            pruned: Instant::default(),
        }
    }

    /// Before the first [`Input::Configure`]: the data plane forwards by these bindings of a former life. What that life had not
    /// saved yet is restored from them.
    pub fn adopt(&mut self, now: Instant, forwarding: &[Binding]) {
        let Some(restored) = self.restored.take() else { return };
        let mut restored = restored.aged(now.since(self.restored_at));
        restored.adopt(forwarding);
        self.restored = Some(restored);
        self.restored_at = now;
    }

    /// Something happened at `now`, which never goes back. What is to be done is appended to `actions`, to be done in order.
    pub fn handle(&mut self, now: Instant, input: Input, routes: &dyn Routes, actions: &mut Vec<Action>) {
        // Lent to the turn, so that the tunnels can be lent beside it.
        let mut common = std::mem::take(&mut self.common);
        let mut turn = Turn::new(now, routes, &mut common, actions);
        self.expire(&mut turn);
        self.take(&mut turn, input);
        turn.end();
        self.common = common;
    }

    /// When [`Input::Tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.common.timers.next()
    }

    /// Whether a protocol address, seen from a tunnel, is that of one of our tunnels. What is in another table is somebody else's,
    /// whatever its address; and a link-local address means something on its tunnel alone.
    pub(crate) fn is_own(&self, seen_from: InterfaceName, address: ProtocolAddr) -> bool {
        let Some(cloud) = self.clouds.get(&seen_from) else { return false };
        if address.is_link_local() {
            return cloud.is_own(address);
        }
        let table = cloud.tunnel.table;
        self.clouds.values().any(|cloud| cloud.tunnel.table == table && cloud.is_own(address))
    }

    fn expire(&mut self, turn: &mut Turn<'_>) {
        while let Some(timer) = turn.common.timers.expire(turn.now) {
            let (Timer::Register(tunnel, _)
            | Timer::LinkLocal(tunnel, _)
            | Timer::FallBack(tunnel, _)
            | Timer::Ask(tunnel, _)
            | Timer::Binding(tunnel, _)
            | Timer::Shortcut(tunnel, _)
            | Timer::Purge(tunnel, _)) = timer;
            let Some(cloud) = self.clouds.get_mut(&tunnel) else { continue };
            match timer {
                Timer::Register(_, nhs) => cloud.register(turn, nhs),
                Timer::LinkLocal(_, nhs) => cloud.register_link_local(turn, nhs),
                Timer::FallBack(..) => cloud.elect(turn),
                Timer::Ask(_, destination) => cloud.ask_again(turn, destination),
                Timer::Binding(_, address) => cloud.binding_expired(turn, address),
                Timer::Shortcut(_, prefix) => cloud.drop_shortcut(turn, prefix),
                Timer::Purge(_, id) => cloud.repeat_purge(turn, id),
            }
        }
        if turn.now.since(self.pruned) >= PRUNE_EVERY {
            self.pruned = turn.now;
            for cloud in self.clouds.values_mut() {
                cloud.prune(turn.now);
            }
        }
    }

    fn take(&mut self, turn: &mut Turn<'_>, input: Input) {
        match input {
            Input::Configure(tunnels) => self.configure(turn, tunnels),
            Input::Packet { tunnel, from, destination: _, bytes } => {
                match self.receive(turn, tunnel, &from, &bytes) {
                    Ok(()) => {}
                    // Of a flood there is a number, and no tale.
                    Err(Reject::RateLimited) => turn.reject(Reject::RateLimited),
                    Err(reject) => turn.reject_from(tunnel, from.nbma, reject),
                }
            }
            Input::Redirect { tunnel, source, port, bytes } => {
                let source = Peer { nbma: source, port };
                if let Err(reject) = self.redirect(turn, tunnel, source, &bytes) {
                    turn.reject(reject);
                }
            }
            Input::Glean { tunnel, next_hop } => {
                if let Some(cloud) = self.clouds.get_mut(&tunnel) {
                    cloud.glean(turn, next_hop);
                }
            }
            Input::Used { tunnel, next_hops } => {
                if let Some(cloud) = self.clouds.get_mut(&tunnel) {
                    for next_hop in next_hops {
                        cloud.used(turn, next_hop);
                    }
                }
            }
            Input::RoutesChanged(prefixes) => {
                for cloud in self.clouds.values_mut() {
                    cloud.drop_outdated_shortcuts(turn, &prefixes);
                    cloud.purge_changed(turn, &prefixes);
                    cloud.wake_changed(turn, &prefixes);
                }
            }
            Input::LookedUp { tunnel, name, addresses } => {
                if let Some(cloud) = self.clouds.get_mut(&tunnel) {
                    cloud.looked_up(turn, &name, addresses);
                }
            }
            Input::Lost { tunnel, nbma, port } => {
                if let Some(cloud) = self.clouds.get_mut(&tunnel) {
                    cloud.lose_peer(turn, Peer { nbma, port });
                }
            }
            Input::Protected { tunnel, nbma } => {
                if let Some(cloud) = self.clouds.get_mut(&tunnel) {
                    cloud.meet_servers_at(turn, nbma);
                }
            }
            Input::Moved { tunnel, from, from_port, to, to_port } => {
                if let Some(cloud) = self.clouds.get_mut(&tunnel) {
                    let (from, to) = (Peer { nbma: from, port: from_port }, Peer { nbma: to, port: to_port });
                    cloud.move_peer(turn, from, to);
                }
            }
            Input::Clear(clear) => {
                let is_meant = |name| clear.tunnel.is_none_or(|t| t == name);
                for cloud in self.clouds.values_mut().filter(|c| is_meant(c.name())) {
                    cloud.clear(turn, clear);
                }
            }
            Input::Shutdown => {
                turn.common.is_leaving = true;
                for cloud in self.clouds.values_mut() {
                    cloud.say_goodbye(turn);
                }
                turn.save();
            }
            Input::Reconnected => {
                for cloud in self.clouds.values_mut() {
                    cloud.contact_silent_servers(turn);
                }
            }
            Input::Tick => {}
        }
    }

    fn configure(&mut self, turn: &mut Turn<'_>, tunnels: Vec<Tunnel>) {
        turn.common.networks = tunnels.iter().map(|t| (t.name, t.nhrp.network_id)).collect();
        let tunnels: BTreeMap<_, _> = tunnels.into_iter().map(|t| (t.name, t)).collect();
        let ended: Vec<_> = self
            .clouds
            .iter()
            .filter(|(name, cloud)| tunnels.get(name).is_none_or(|t| !cloud.can_become(t)))
            .map(|(name, _)| *name)
            .collect();
        for name in ended {
            if let Some(cloud) = self.clouds.remove(&name) {
                cloud.end(turn);
            }
        }
        let restored = self.restored.take().unwrap_or_default().aged(turn.now.since(self.restored_at));
        let mut restored: BTreeMap<_, _> = restored.tunnels.into_iter().map(|t| (t.name, t)).collect();
        for (name, tunnel) in tunnels {
            match self.clouds.get_mut(&name) {
                Some(cloud) => cloud.configure(turn, tunnel),
                None => {
                    let remembered = restored.remove(&name);
                    self.clouds.insert(name, Cloud::begin(turn, tunnel, remembered));
                }
            }
        }
        // So that the ids of this life are in a snapshot before they are used up.
        turn.save();
    }

    fn redirect(
        &mut self,
        turn: &mut Turn<'_>,
        tunnel: InterfaceName,
        source: Peer,
        packet: &[u8],
    ) -> Result<(), Reject> {
        let flow = addresses(packet).ok_or(Reject::Malformed)?;
        let better = match self.toward(tunnel, ProtocolAddr(flow.1), turn.routes) {
            Toward::Peer { peer, .. } => Some(peer),
            _ => None,
        };
        let cloud = self.clouds.get_mut(&tunnel).ok_or(Reject::NoTunnel)?;
        cloud.redirect(turn, source, flow, packet, better)
    }
}
