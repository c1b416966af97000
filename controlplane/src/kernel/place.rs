//! One namespace: its sockets, the twins in it, and what is known of them.

use std::collections::VecDeque;
use std::io;

use model::program::Route;
use model::{InterfaceName, TableId};
use tracing::{debug, warn};

use super::actor::BACKLOG;
use super::fact::Fact;
use super::mirror::Mirror;
use super::netlink::{self, Monitor, Netlink};
use super::netns::{self, Maker, Site};
use super::twins::{Settled, State, Twins};
use super::{Failure, Notice, TwinSpec, neighbours, routes};

/// See the module.
pub(super) struct Place {
    site: Site,
    maker: Maker,
    pub(super) netlink: Netlink,
    monitor: Monitor,
    twins: Twins,
    pub(super) mirror: Mirror,
    /// Something of what was heard is still to be done about.
    heard: Heard,
    /// Notifications were lost, or a socket is closed: open both anew.
    pub(super) deaf: bool,
}

/// What notifications bring about beside the notice of them.
#[derive(Debug, Default, Clone, Copy)]
struct Heard {
    /// A link went down or lost its last address, or a nexthop object went: it took routes with it without a word.
    flushed: bool,
    /// Something may be missing of what was ordered.
    unsettled: bool,
}

impl Place {
    /// The namespace of this process, with table 0.
    pub(super) fn home() -> io::Result<Self> {
        Self::in_site(Site::home(), Maker::Somebody, TableId(0))
    }

    /// The namespace of a name, which is made if it is not there.
    pub(super) async fn named(name: &str, table: TableId, mark: &str) -> Result<Self, Failure> {
        let order = || format!("use network namespace `{name}`");
        let made = twin::make_netns(name).map_err(|error| Failure::new("make a network namespace", error))?;
        let opened = Site::named(name).and_then(|site| Self::in_site(site, Maker::Somebody, table));
        let mut place = opened.map_err(|error| Failure::new(order(), error))?;
        match netns::claim(&place.netlink, name, mark, made).await {
            Ok(maker) => place.maker = maker,
            Err(failure) => {
                if made {
                    twin::remove_netns(name).ok();
                }
                return Err(failure);
            }
        }
        Ok(place)
    }

    fn in_site(site: Site, maker: Maker, table: TableId) -> io::Result<Self> {
        // First who listens: of what is asked for nothing is missed.
        let monitor = Monitor::open(&site)?;
        let netlink = Netlink::open(&site)?;
        Ok(Self {
            site,
            maker,
            netlink,
            monitor,
            twins: Twins::default(),
            mirror: Mirror::new(table),
            heard: Heard::default(),
            deaf: false,
        })
    }

    /// Listens anew; afterwards a dump: of what is heard from now on nothing is missing.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.monitor = Monitor::open(&self.site)?;
        self.netlink = Netlink::open(&self.site)?;
        self.deaf = false;
        Ok(())
    }

    /// Name of the namespace; `None` if it is that of this process.
    pub(super) fn name(&self) -> Option<&str> {
        self.site.name()
    }

    /// Whether another place is the same namespace, under whatever name.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.site.is_same(&other.site)
    }

    /// Whether the namespace still has its name.
    pub(super) fn is_there(&self) -> bool {
        self.site.is_there()
    }

    /// The next notifications. May be abandoned while it waits.
    pub(super) async fn next(&mut self) -> io::Result<Vec<Fact>> {
        self.monitor.next().await
    }

    /// Those of the twins that should be here.
    fn own<'a>(&self, specs: &'a [TwinSpec]) -> Vec<&'a TwinSpec> {
        specs.iter().filter(|spec| spec.netns.as_deref() == self.name()).collect()
    }

    /// Removes the twins that should not be here.
    pub(super) async fn clear(&mut self, specs: &[TwinSpec], out: &mut VecDeque<Notice>) -> Vec<Failure> {
        let own = self.own(specs);
        let settled = self.twins.clear(&self.netlink, &own).await;
        self.take_in(settled, out).1
    }

    /// Makes the twins that should be here as they should be. Returns whether a link is there that was not.
    pub(super) async fn settle(
        &mut self,
        specs: &[TwinSpec],
        state: State,
        out: &mut VecDeque<Notice>,
    ) -> (bool, Vec<Failure>) {
        let own = self.own(specs);
        if let Some(spec) = own.first() {
            self.mirror.set_table(spec.table, out);
        }
        let settled = self.twins.settle(&self.netlink, &self.site, &own, state).await;
        self.take_in(settled, out)
    }

    fn take_in(&mut self, settled: Settled, out: &mut VecDeque<Notice>) -> (bool, Vec<Failure>) {
        for name in settled.gone {
            self.mirror.remove(name, out);
        }
        let mut changed = false;
        for (index, name, kind) in settled.there {
            changed |= self.mirror.twin(index).is_none();
            self.mirror.add(index, name, kind);
        }
        (changed, settled.failures)
    }

    /// Makes it so that of our routes those of this table are here and no others.
    pub(super) async fn settle_routes(&self, wanted: &[Route]) -> Vec<Failure> {
        let own: Vec<&Route> = wanted.iter().filter(|route| route.table == self.mirror.table()).collect();
        routes::settle(&self.netlink, &own, &self.mirror).await
    }

    /// Removes everything of ours, and the namespace if we made it and nobody else is in it.
    pub(super) async fn remove(&mut self, out: &mut VecDeque<Notice>) -> Vec<Failure> {
        let mut failures = self.settle_routes(&[]).await;
        failures.extend(self.clear(&[], out).await);
        if self.maker == Maker::Ours {
            failures.extend(netns::remove(&self.netlink, &self.site).await.err());
        }
        self.mirror.clear(out);
        failures
    }

    /// Whether a twin is here.
    pub(super) fn has(&self, interface: InterfaceName) -> bool {
        self.mirror.link(interface).is_some()
    }

    /// Tells everything that is there, and what is gone.
    pub(super) async fn resync(&mut self, out: &mut VecDeque<Notice>) {
        self.catch_up(|fact| matches!(fact, Fact::Address { .. } | Fact::Route { .. }), out).await;
        self.heard.flushed = false;
        let dumped = async {
            let mut facts = self.netlink.addresses().await?;
            facts.extend(self.netlink.neighbours().await?);
            facts.extend(self.netlink.routes(None).await?);
            Ok(facts)
        };
        match dumped.await {
            Ok(facts) => self.mirror.resync(facts, out),
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
    async fn catch_up(&mut self, dumped: fn(&Fact) -> bool, out: &mut VecDeque<Notice>) {
        while out.len() < BACKLOG && !self.deaf {
            match self.monitor.at_hand() {
                Ok(Some(facts)) => self.hear_but(Ok(facts), dumped, out).await,
                Ok(None) => return,
                Err(error) => self.hear_but(Err(error), dumped, out).await,
            }
        }
    }

    /// Takes notifications in.
    pub(super) async fn hear(&mut self, facts: io::Result<Vec<Fact>>, out: &mut VecDeque<Notice>) {
        self.hear_but(facts, |_| false, out).await;
    }

    async fn hear_but(
        &mut self,
        facts: io::Result<Vec<Fact>>,
        dumped: fn(&Fact) -> bool,
        out: &mut VecDeque<Notice>,
    ) {
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
                    neighbours::see(&self.netlink, &self.mirror, *index, *address, *life).await;
                }
                Fact::NexthopGone => self.heard.flushed = true,
                _ => {}
            }
            if !dumped(&fact) {
                self.mirror.apply(fact, out);
            }
        }
    }

    /// Does something about what was heard. Returns whether something may be missing of what was ordered.
    pub(super) async fn heed(&mut self, out: &mut VecDeque<Notice>) -> bool {
        if self.heard.flushed {
            self.catch_up(|fact| matches!(fact, Fact::Route { .. }), out).await;
            match self.netlink.routes(None).await {
                Ok(facts) => self.mirror.resync_routes(facts, out),
                Err(error) => self.broke("dump routes", &error),
            }
        }
        std::mem::take(&mut self.heard).unsettled
    }
}
