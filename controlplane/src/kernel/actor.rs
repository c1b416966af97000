//! The task. What it tells waits in a queue of its own, so that an order is taken even while nobody reads notices. When that
//! queue is long it reads nothing more from the kernel; the kernel then drops notifications and says so, and all is told anew.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use model::program::{Hop, Route};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteProtocol, RouteType};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use super::fact::{Certainty, Fact, Life};
use super::mirror::Mirror;
use super::netlink::{self, Monitor, Netlink};
use super::twins::{State, Twins};
use super::{Failure, Kind, Notice, Order, PROTOCOL, TwinSpec, routes};

/// How long until what failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Notices that wait before no more is read from the kernel.
const BACKLOG: usize = 4096;

/// Runs until it is stopped or either channel is closed.
pub(super) async fn run(mut orders: mpsc::Receiver<Order>, notices: mpsc::Sender<Notice>) {
    let mut actor = Actor::open(&notices).await;
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Stop { remove_twins }) => return actor.stop(remove_twins, &notices).await,
                Some(order) => actor.obey(order).await,
                None => return,
            },
            permit = notices.reserve(), if !actor.outbox.is_empty() => match (permit, actor.outbox.pop_front()) {
                (Ok(permit), Some(notice)) => permit.send(notice),
                _ => return,
            },
            heard = actor.monitor.next(), if actor.outbox.len() < BACKLOG => {
                actor.hear(heard, |_| false).await;
                actor.heed().await;
            }
            () = until(actor.retry) => actor.settle_again().await,
        }
        if actor.deaf {
            actor.reopen(&notices).await;
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

struct Actor {
    netlink: Netlink,
    monitor: Monitor,
    /// As last ordered.
    specs: Option<Vec<TwinSpec>>,
    static_routes: Option<Vec<Route>>,
    /// Whether this kernel keeps neighbours resolved by itself; not known before the first.
    manages: Option<bool>,
    twins: Twins,
    mirror: Mirror,
    outbox: VecDeque<Notice>,
    /// Failures that were told: what, and why.
    failed: BTreeMap<String, String>,
    retry: Option<Instant>,
    /// Something of what was heard is still to be done about.
    heard: Heard,
    /// Notifications were lost, or a socket is closed: open both anew.
    deaf: bool,
}

/// What notifications bring about beside the notice of them.
#[derive(Debug, Default, Clone, Copy)]
struct Heard {
    /// A link went down or lost its last address, or a nexthop object went: it took routes with it without a word.
    flushed: bool,
    /// Something may be missing of what was ordered.
    unsettled: bool,
}

impl Actor {
    async fn open(notices: &mpsc::Sender<Notice>) -> Self {
        let (netlink, monitor) = open_sockets(notices).await;
        Self {
            netlink,
            monitor,
            specs: None,
            static_routes: None,
            manages: None,
            twins: Twins::default(),
            mirror: Mirror::default(),
            outbox: VecDeque::new(),
            failed: BTreeMap::new(),
            retry: None,
            heard: Heard::default(),
            deaf: false,
        }
    }

    /// Listens anew, then dumps: of what is heard from now on nothing is missing.
    async fn reopen(&mut self, notices: &mpsc::Sender<Notice>) {
        (self.netlink, self.monitor) = open_sockets(notices).await;
        self.deaf = false;
        if self.specs.is_some() {
            self.resync().await;
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Twins(specs) => {
                self.specs = Some(specs);
                self.failed.clear();
                self.settle(State::Up).await;
                self.resync().await;
            }
            Order::Routes(routes) => {
                self.static_routes = Some(routes);
                self.failed.clear();
                self.settle(State::Left).await;
            }
            Order::Resolve(hop) => {
                if let Err(Failure { order, reason }) = self.resolve(hop).await {
                    self.outbox.push_back(Notice::Failed { order, reason });
                }
            }
            // Taken by `run`.
            Order::Stop { .. } => {}
        }
    }

    async fn settle_again(&mut self) {
        if self.settle(State::Left).await {
            self.resync().await;
        }
    }

    async fn stop(mut self, remove_twins: bool, notices: &mpsc::Sender<Notice>) {
        if remove_twins {
            let mut failures = routes::settle(&self.netlink, &[], &self.mirror).await;
            failures.extend(self.twins.remove_all(&self.netlink).await);
            self.report(failures);
        }
        // Nobody may be reading any more.
        while let Some(notice) = self.outbox.pop_front() {
            if notices.try_send(notice).is_err() {
                return;
            }
        }
    }

    /// Makes everything as it was ordered; what fails is tried again later. Returns whether a link is there that was not.
    async fn settle(&mut self, state: State) -> bool {
        self.retry = None;
        let Some(specs) = &self.specs else { return false };
        let settled = self.twins.settle(&self.netlink, specs, state).await;
        for name in settled.gone {
            self.mirror.remove(name, &mut self.outbox);
        }
        let mut changed = false;
        for (index, name, kind) in settled.there {
            changed |= self.mirror.twin(index).is_none();
            self.mirror.add(index, name, kind);
        }
        let mut failures = settled.failures;
        if let Some(wanted) = &self.static_routes {
            failures.extend(routes::settle(&self.netlink, wanted, &self.mirror).await);
        }
        self.report(failures);
        changed
    }

    /// Tells what is new of these failures, which are all that there are, and sees to it that it is tried again.
    fn report(&mut self, failures: Vec<Failure>) {
        let told = std::mem::take(&mut self.failed);
        for Failure { order, reason } in failures {
            self.retry.get_or_insert_with(|| Instant::now() + RETRY);
            if told.get(&order) != Some(&reason) {
                warn!(order, reason, "the kernel refused");
                self.outbox.push_back(Notice::Failed { order: order.clone(), reason: reason.clone() });
            }
            self.failed.insert(order, reason);
        }
    }

    /// Tells everything that is there, and what is gone.
    async fn resync(&mut self) {
        self.catch_up(|fact| matches!(fact, Fact::Address { .. } | Fact::Route { .. })).await;
        self.heard.flushed = false;
        let dumped = async {
            let mut facts = self.netlink.addresses().await?;
            facts.extend(self.netlink.neighbours().await?);
            facts.extend(self.netlink.routes(None).await?);
            Ok(facts)
        };
        match dumped.await {
            Ok(facts) => {
                self.mirror.resync(facts, &mut self.outbox);
                self.outbox.push_back(Notice::Synced);
            }
            Err(error) => self.broke("dump", &error),
        }
    }

    /// Nothing can be known without a dump: begin anew.
    fn broke(&mut self, what: &str, error: &netlink::Error) {
        warn!(%error, "cannot {what}");
        self.deaf = true;
    }

    /// Takes in what the kernel has said so far, so that what it says in a dump is newer. What `dumped` says is in that dump is
    /// not told: it would be told twice.
    async fn catch_up(&mut self, dumped: fn(&Fact) -> bool) {
        while self.outbox.len() < BACKLOG && !self.deaf {
            match self.monitor.at_hand() {
                Ok(Some(facts)) => self.hear(Ok(facts), dumped).await,
                Ok(None) => return,
                Err(error) => self.hear(Err(error), dumped).await,
            }
        }
    }

    async fn hear(&mut self, facts: io::Result<Vec<Fact>>, dumped: fn(&Fact) -> bool) {
        let facts = match facts {
            Ok(facts) => facts,
            Err(error) => {
                debug!(%error, "netlink notifications were lost");
                self.deaf = true;
                return;
            }
        };
        for fact in facts {
            match &fact {
                Fact::Link { link, present } if self.mirror.twin(link.index).is_some() => {
                    self.heard.flushed |= !present || !link.up;
                    self.heard.unsettled = true;
                }
                Fact::Address { index, present, .. } if self.mirror.twin(*index).is_some() => {
                    self.heard.flushed |= !present;
                    self.heard.unsettled = true;
                }
                Fact::Neighbour { index, address, life, ours: true } => {
                    self.see_neighbour(*index, *address, *life).await;
                }
                Fact::NexthopGone => self.heard.flushed = true,
                _ => {}
            }
            if !dumped(&fact) {
                self.mirror.apply(fact, &mut self.outbox);
            }
        }
    }

    /// Does something about what was heard.
    async fn heed(&mut self) {
        if self.heard.flushed {
            self.catch_up(|fact| matches!(fact, Fact::Route { .. })).await;
            match self.netlink.routes(None).await {
                Ok(facts) => self.mirror.resync_routes(facts, &mut self.outbox),
                Err(error) => self.broke("dump routes", &error),
            }
        }
        if self.heard.unsettled {
            let soon = Instant::now() + SOON;
            self.retry = Some(self.retry.map_or(soon, |retry| retry.min(soon)));
        }
        self.heard = Heard::default();
    }

    async fn resolve(&mut self, hop: Hop) -> Result<(), Failure> {
        let failed = |reason: &dyn ToString| {
            Failure::new(format!("resolve {} on `{}`", hop.next_hop, hop.interface), reason.to_string())
        };
        let Some((link, Kind::Tap { .. })) = self.mirror.link(hop.interface) else {
            return Err(failed(&"that is no twin of a port"));
        };
        if let Some((mac, certainty)) = self.mirror.neighbour(&hop) {
            self.outbox.push_back(Notice::Neighbour { hop, mac: Some(mac) });
            if matches!(certainty, Certainty::Fixed | Certainty::Managed) {
                return Ok(());
            }
        }
        if self.manages != Some(false) {
            self.ask(manage(link, &hop)).await.map_err(|error| failed(&error))?;
        }
        if self.manages.is_none() {
            self.manages = Some(self.is_managed(link, &hop).await.map_err(|error| failed(&error))?);
        }
        if self.manages == Some(false) {
            self.ask(make_use(link, &hop)).await.map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    async fn ask(&self, message: NeighbourMessage) -> Result<(), netlink::Error> {
        let message = RouteNetlinkMessage::NewNeighbour(message);
        self.netlink.change(message, NLM_F_CREATE | NLM_F_REPLACE).await
    }

    /// Whether the kernel understood: before Linux 5.16 it does not, and says nothing.
    async fn is_managed(&self, link: u32, hop: &Hop) -> Result<bool, netlink::Error> {
        let answer = self.netlink.one(RouteNetlinkMessage::GetNeighbour(neighbour(link, hop))).await?;
        let Some(RouteNetlinkMessage::NewNeighbour(message)) = answer else { return Ok(false) };
        Ok(message.attributes.iter().any(|attribute| {
            matches!(attribute, NeighbourAttribute::ExtFlags(flags) if flags.contains(NeighbourExtFlags::Managed))
        }))
    }

    /// Keeps resolved what we asked for, as long as it answers.
    async fn see_neighbour(&self, index: u32, next_hop: IpAddr, life: Life) {
        let Some((interface, _)) = self.mirror.twin(index) else { return };
        let hop = Hop { interface, next_hop };
        let result = match life {
            // The kernel does not keep it, and nothing that the kernel sees uses it.
            Life::Resolved { certainty: Certainty::Stale, .. } => self.ask(make_use(index, &hop)).await,
            // It would be asked for, for ever.
            Life::Failed => {
                let message = RouteNetlinkMessage::DelNeighbour(neighbour(index, &hop));
                self.netlink.change(message, 0).await
            }
            Life::Resolved { .. } | Life::Asking | Life::Gone => return,
        };
        if let Err(error) = result
            && !error.is_absence()
        {
            debug!(%error, %next_hop, %interface, "the kernel does not keep a neighbour");
        }
    }
}

/// How long until twins are looked at again after something happened to them. Long enough for what comes together.
const SOON: Duration = Duration::from_millis(100);

async fn open_sockets(notices: &mpsc::Sender<Notice>) -> (Netlink, Monitor) {
    loop {
        let opened = Monitor::open().and_then(|monitor| Ok((Netlink::open()?, monitor)));
        match opened {
            Ok(sockets) => return sockets,
            Err(error) => {
                warn!(%error, "cannot open netlink");
                let failed = Notice::Failed { order: "open netlink".to_owned(), reason: error.to_string() };
                // If there is no room it is told the next time.
                notices.try_send(failed).ok();
                sleep(RETRY).await;
            }
        }
    }
}

fn neighbour(link: u32, hop: &Hop) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = link;
    message.header.family = if hop.next_hop.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.state = NeighbourState::None;
    message.header.kind = RouteType::Unspec;
    message.attributes.push(NeighbourAttribute::Destination(hop.next_hop.into()));
    message
}

/// Marked as asked for by us.
fn ours(link: u32, hop: &Hop) -> NeighbourMessage {
    let mut message = neighbour(link, hop);
    message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
    message
}

/// The kernel resolves the neighbour now and whenever it goes stale (`NTF_EXT_MANAGED`).
fn manage(link: u32, hop: &Hop) -> NeighbourMessage {
    let mut message = ours(link, hop);
    message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    message
}

/// As if a packet had been sent to the neighbour (`NTF_USE`): resolves it, or confirms it within seconds.
fn make_use(link: u32, hop: &Hop) -> NeighbourMessage {
    let mut message = ours(link, hop);
    message.header.flags = NeighbourFlags::Use;
    message
}
