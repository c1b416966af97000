//! The task. What it tells waits in a queue of its own, so that an order is taken even while nobody reads notices. When that
//! queue is long it reads nothing more from the kernel; the kernel then drops notifications and says so, and all is told anew.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use model::TableId;
use model::program::Route;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use super::fact::Fact;
use super::place::Place;
use super::twins::State;
use super::{Failure, Notice, Order, TwinSpec, neighbours, netns};

/// How long until what failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Notices that wait before no more is read from the kernel.
pub(super) const BACKLOG: usize = 4096;

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
            (name, heard) = next(&mut actor.places, actor.turn), if actor.outbox.len() < BACKLOG => {
                actor.turn = actor.turn.wrapping_add(1);
                actor.hear(&name, heard).await;
            }
            () = until(actor.retry) => actor.settle_again().await,
            () = until(actor.look) => actor.look().await,
        }
        if actor.places.values().any(|place| place.deaf) {
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

/// The next notifications, and of which place. May be abandoned while it waits. Who is asked first changes from `turn` to turn, so
/// that a place where much happens leaves the others theirs.
async fn next(places: &mut Places, turn: usize) -> (Name, io::Result<Vec<Fact>>) {
    let next = async |name: &Name, place: &mut Place| (name.clone(), place.next().await);
    let mut all: Vec<_> = places.iter_mut().map(|(name, place)| Box::pin(next(name, place))).collect();
    let first = turn % all.len();
    all.rotate_left(first);
    select_all(all).await.0
}

/// Name of a namespace; `None`: that of this process.
type Name = Option<String>;

/// That of this process is always there.
type Places = BTreeMap<Name, Place>;

struct Actor {
    /// Marks the namespaces that we make.
    mark: String,
    places: Places,
    /// As last ordered.
    specs: Option<Arc<[TwinSpec]>>,
    static_routes: Option<Arc<[Route]>>,
    /// Whether namespaces of a former life were looked for.
    is_tidy: bool,
    /// Whether this kernel keeps neighbours resolved by itself; not known before the first.
    manages: Option<bool>,
    outbox: VecDeque<Notice>,
    /// Failures that were told: what, and why.
    failed: BTreeMap<String, String>,
    retry: Option<Instant>,
    /// When to see whether the namespaces are still there.
    look: Option<Instant>,
    turn: usize,
}

impl Actor {
    async fn open(notices: &mpsc::Sender<Notice>) -> Self {
        let open = || Ok((netns::mark()?, Place::home()?));
        let (mark, home) = insist(notices, open).await;
        Self {
            mark,
            places: BTreeMap::from([(None, home)]),
            specs: None,
            static_routes: None,
            is_tidy: false,
            manages: None,
            outbox: VecDeque::new(),
            failed: BTreeMap::new(),
            retry: None,
            look: None,
            turn: 0,
        }
    }

    /// Listens anew where it has to, then dumps: of what is heard from now on nothing is missing.
    async fn reopen(&mut self, notices: &mpsc::Sender<Notice>) {
        for place in self.places.values_mut().filter(|place| place.deaf) {
            insist(notices, || place.reopen()).await;
        }
        if self.specs.is_some() {
            self.resync().await;
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Twins(specs) => {
                self.specs = Some(specs.into());
                self.failed.clear();
                self.settle(State::Up).await;
                self.resync().await;
            }
            Order::Routes(routes) => {
                self.static_routes = Some(routes.into());
                self.failed.clear();
                self.settle(State::Left).await;
            }
            Order::Resolve(hop) => {
                let home = self.places.values().next();
                let place = self.places.values().find(|place| place.has(hop.interface)).or(home);
                let Some(Place { netlink, mirror, .. }) = place else { return };
                let asked = neighbours::resolve(netlink, mirror, hop, &mut self.manages, &mut self.outbox);
                if let Err(Failure { order, reason }) = asked.await {
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
            let mut failures = Vec::new();
            for place in self.places.values_mut() {
                // What goes by our own will is not told: nobody is to act upon it.
                failures.extend(place.remove(&mut VecDeque::new()).await);
            }
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
        let Some(specs) = self.specs.clone() else { return false };
        let mut failures = self.open_places(&specs).await;
        // A twin that moves to another namespace is gone from one before it is in the other.
        for place in self.places.values_mut() {
            failures.extend(place.clear(&specs, &mut self.outbox).await);
        }
        failures.extend(self.close_places(&specs).await);
        let mut changed = false;
        for place in self.places.values_mut() {
            let (new, failed) = place.settle(&specs, state, &mut self.outbox).await;
            changed |= new;
            failures.extend(failed);
        }
        if let Some(wanted) = self.static_routes.clone() {
            failures.extend(self.settle_routes(&wanted).await);
        }
        self.report(failures);
        changed
    }

    /// Opens the namespaces that are named, and the first time removes those that were left behind.
    async fn open_places(&mut self, specs: &[TwinSpec]) -> Vec<Failure> {
        let named = specs.iter().filter_map(|spec| Some((spec.netns.as_deref()?, spec.table)));
        let wanted: BTreeMap<&str, TableId> = named.collect();
        let mut failures = Vec::new();
        if !std::mem::replace(&mut self.is_tidy, true) {
            let mut left = netns::left_behind(&self.mark).await;
            left.retain(|name| !wanted.contains_key(name.as_str()));
            for name in left {
                match Place::named(&name, TableId::default(), &self.mark).await {
                    Ok(mut place) => failures.extend(place.remove(&mut self.outbox).await),
                    Err(failure) => failures.push(failure),
                }
            }
        }
        for (name, table) in wanted {
            if self.places.contains_key(&Some(name.to_owned())) {
                continue;
            }
            match Place::named(name, table, &self.mark).await {
                // Two would remove each other's twins.
                Ok(place) if self.places.values().any(|other| other.is_same(&place)) => {
                    let order = format!("use network namespace `{name}`");
                    failures.push(Failure::new(order, "it is also that of another table"));
                }
                Ok(place) => drop(self.places.insert(Some(name.to_owned()), place)),
                Err(failure) => failures.push(failure),
            }
        }
        self.look = (self.places.len() > 1).then(|| Instant::now() + LOOK);
        failures
    }

    /// Leaves the namespaces that no twin should be in.
    async fn close_places(&mut self, specs: &[TwinSpec]) -> Vec<Failure> {
        let is_wanted = |name: &Name| name.is_none() || specs.iter().any(|spec| spec.netns == *name);
        let unwanted: Vec<Name> = self.places.keys().filter(|name| !is_wanted(name)).cloned().collect();
        let mut failures = Vec::new();
        for name in unwanted {
            if let Some(mut place) = self.places.remove(&name) {
                failures.extend(place.remove(&mut self.outbox).await);
            }
        }
        failures
    }

    async fn settle_routes(&self, wanted: &[Route]) -> Vec<Failure> {
        let mut failures = Vec::new();
        for place in self.places.values() {
            failures.extend(place.settle_routes(wanted).await);
        }
        let has_place =
            |route: &&Route| self.places.values().any(|place| place.mirror.table() == route.table);
        let homeless = wanted.iter().filter(|route| !has_place(route)).map(|route| {
            Failure::new(
                format!("put route {}", route.prefix),
                format!("no twin is in table {}", route.table.0),
            )
        });
        failures.extend(homeless);
        failures
    }

    /// Namespaces that lost their name, or whose name is that of another now, are made anew.
    async fn look(&mut self) {
        self.look = Some(Instant::now() + LOOK);
        let is_lost = |(name, place): (&Name, &Place)| (!place.is_there()).then(|| name.clone());
        let lost: Vec<Name> = self.places.iter().filter_map(is_lost).collect();
        for name in &lost {
            if let Some(mut place) = self.places.remove(name) {
                // So that the data plane notices: its queues keep what has no name any more.
                place.remove(&mut self.outbox).await;
                let order = format!("keep network namespace `{}`", name.as_deref().unwrap_or_default());
                self.outbox.push_back(Notice::Failed { order, reason: "it was removed".to_owned() });
            }
        }
        if !lost.is_empty() {
            self.settle(State::Left).await;
            self.resync().await;
        }
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
        for place in self.places.values_mut() {
            place.resync(&mut self.outbox).await;
        }
        // Where a dump failed it is done anew, and all told again.
        if !self.places.values().any(|place| place.deaf) {
            self.outbox.push_back(Notice::Synced);
        }
    }

    async fn hear(&mut self, name: &Name, facts: io::Result<Vec<Fact>>) {
        let Some(place) = self.places.get_mut(name) else { return };
        place.hear(facts, &mut self.outbox).await;
        if place.heed(&mut self.outbox).await {
            let soon = Instant::now() + SOON;
            self.retry = Some(self.retry.map_or(soon, |retry| retry.min(soon)));
        }
    }
}

/// How long until twins are looked at again after something happened to them. Long enough for what comes together.
const SOON: Duration = Duration::from_millis(100);
/// Time between looks whether the namespaces are there: a look is a `stat` of each.
const LOOK: Duration = Duration::from_secs(1);

/// Opens what nothing can be done without, however often it takes.
async fn insist<T>(notices: &mpsc::Sender<Notice>, mut open: impl FnMut() -> io::Result<T>) -> T {
    loop {
        match open() {
            Ok(opened) => return opened,
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
