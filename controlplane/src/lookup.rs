//! DNS names of servers, looked up by the C library: hosts file, DNS and whatever else the machine was told. That waits, so each
//! look-up has a thread of its own, in the network namespace from which the tunnel's packets go.
//!
//! A namespace that has a name sees the files of `/etc/netns/NAME` in `/etc`, as it does under `ip netns exec`: its own `resolv.conf` and
//! `hosts`.

use std::collections::BTreeSet;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{InterfaceName, NbmaAddr};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::debug;

use crate::conductor::Input;

/// An answer that takes longer is none. (The C library gives a silent DNS server 5 s, twice.)
const PATIENCE: Duration = Duration::from_secs(12);
/// Look-ups that may be under way; each has a thread.
const AT_ONCE: usize = 16;

/// A look-up: whose it is, and from where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LookUp {
    /// The tunnel that it is for.
    pub tunnel: InterfaceName,
    /// The name.
    pub name: String,
    /// The network namespace of the tunnel's underlay; `None`: that of this process.
    pub netns: Option<String>,
}

/// What looks a name up, blocking.
type Resolve = dyn Fn(&LookUp) -> Vec<NbmaAddr> + Send + Sync;

/// Names, with the namespaces that they are looked up in.
type Names = BTreeSet<(Option<String>, String)>;

/// Looks names up; the answers become inputs of the conductor.
pub struct LookUps {
    inputs: mpsc::Sender<Input>,
    /// Names whose threads have not ended, perhaps long after the answer was given up.
    under_way: Arc<Mutex<Names>>,
    resolve: Arc<Resolve>,
    patience: Duration,
}

impl LookUps {
    /// By the C library.
    #[must_use]
    pub fn new(inputs: mpsc::Sender<Input>) -> Self {
        Self::with(inputs, resolve, PATIENCE)
    }

    /// By anything else.
    pub fn with(
        inputs: mpsc::Sender<Input>,
        resolve: impl Fn(&LookUp) -> Vec<NbmaAddr> + Send + Sync + 'static,
        patience: Duration,
    ) -> Self {
        Self { inputs, under_way: Arc::default(), resolve: Arc::new(resolve), patience }
    }

    /// Looks a name up and waits for nothing. The answer comes in any case; without addresses if there are none, if it takes too long, or
    /// if too many others are under way.
    pub fn start(&self, what: LookUp) {
        let (tunnel, name) = (what.tunnel, what.name.clone());
        let answer = self.on_a_thread(what);
        let (inputs, patience) = (self.inputs.clone(), self.patience);
        tokio::spawn(async move {
            let addresses = match answer {
                Some(answer) => timeout(patience, answer).await.ok().and_then(Result::ok).unwrap_or_default(),
                None => Vec::new(),
            };
            debug!(%tunnel, name, ?addresses, "looked up");
            // Nobody asks any more when the conductor is gone.
            let _ = inputs.send(Input::LookedUp { tunnel, name, addresses }).await;
        });
    }

    fn on_a_thread(&self, what: LookUp) -> Option<oneshot::Receiver<Vec<NbmaAddr>>> {
        let key = (what.netns.clone(), what.name.clone());
        let under_way = Arc::clone(&self.under_way);
        {
            let mut all = under_way.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= AT_ONCE || !all.insert(key.clone()) {
                return None;
            }
        }
        let (up, answer) = oneshot::channel();
        let resolve = Arc::clone(&self.resolve);
        let of_thread = (Arc::clone(&under_way), key.clone());
        let thread = std::thread::Builder::new().name("look-up".to_owned()).spawn(move || {
            let addresses = resolve(&what);
            let (under_way, key) = of_thread;
            under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            let _ = up.send(addresses);
        });
        if thread.is_err() {
            under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        }
        thread.ok().map(|_| answer)
    }
}

/// All addresses of a name.
fn resolve(what: &LookUp) -> Vec<NbmaAddr> {
    let all = || {
        let found = (what.name.as_str(), 0).to_socket_addrs();
        found.map(|all| all.map(|addr| NbmaAddr(addr.ip())).collect::<Vec<_>>())
    };
    let found = match &what.netns {
        None => Ok(all()),
        Some(netns) => twin::in_netns_with_files(Path::new(netns), all),
    };
    match found {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => {
            debug!(name = what.name, %error, "not looked up");
            Vec::new()
        }
        Err(error) => {
            debug!(name = what.name, %error, "not looked up");
            Vec::new()
        }
    }
}

/// Those of a name's addresses that a tunnel can use: of the family of its own NBMA address, hosts, and in an order that does not change when a
/// DNS server turns its answers.
#[must_use]
pub fn usable(own: Option<NbmaAddr>, mut addresses: Vec<NbmaAddr>) -> Vec<NbmaAddr> {
    let is_host = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => !addr.is_unspecified() && !addr.is_multicast() && !addr.is_broadcast(),
        IpAddr::V6(addr) => !addr.is_unspecified() && !addr.is_multicast() && !addr.is_unicast_link_local(),
    };
    addresses.retain(|addr| is_host(addr.0) && own.is_none_or(|own| own.0.is_ipv4() == addr.0.is_ipv4()));
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(name: &str) -> LookUp {
        LookUp { tunnel: "tunnel0".parse().unwrap(), name: name.to_owned(), netns: None }
    }

    fn addrs(texts: &[&str]) -> Vec<NbmaAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    async fn next(inputs: &mut mpsc::Receiver<Input>) -> (String, Vec<NbmaAddr>) {
        match inputs.recv().await {
            Some(Input::LookedUp { name, addresses, .. }) => (name, addresses),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_hosts_of_the_own_family_are_usable_and_their_order_is_their_own() {
        let all = ["192.0.2.9", "2001:db8::2", "192.0.2.1", "fe80::1", "224.0.0.9", "0.0.0.0", "192.0.2.9"];
        let own = |text: &str| Some(text.parse().unwrap());
        assert_eq!(usable(own("198.51.100.1"), addrs(&all)), addrs(&["192.0.2.1", "192.0.2.9"]));
        assert_eq!(usable(own("2001:db8::1"), addrs(&all)), addrs(&["2001:db8::2"]));
        assert_eq!(usable(None, addrs(&all)).len(), 3);
    }

    #[tokio::test]
    async fn every_look_up_is_answered_whatever_becomes_of_it() {
        let (up, mut inputs) = mpsc::channel(8);
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Mutex::new(held);
        let resolve = move |what: &LookUp| match what.name.as_str() {
            "hub" => addrs(&["192.0.2.1"]),
            "slow" => {
                held.lock().unwrap().recv().ok();
                addrs(&["192.0.2.2"])
            }
            _ => Vec::new(),
        };
        let look_ups = LookUps::with(up, resolve, Duration::from_millis(50));
        look_ups.start(what("hub"));
        assert_eq!(next(&mut inputs).await, ("hub".to_owned(), addrs(&["192.0.2.1"])));
        look_ups.start(what("nobody"));
        assert_eq!(next(&mut inputs).await, ("nobody".to_owned(), vec![]));
        // The thread of one that was given up is not joined by another of the same name.
        for _ in 0..3 {
            look_ups.start(what("slow"));
            assert_eq!(next(&mut inputs).await, ("slow".to_owned(), vec![]));
        }
        assert_eq!(look_ups.under_way.lock().unwrap().len(), 1);
        look_ups.start(what("hub"));
        assert_eq!(next(&mut inputs).await.0, "hub", "it holds up nobody else");
        release.send(()).unwrap();
        while !look_ups.under_way.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(release);
        let look_ups = LookUps { patience: PATIENCE, ..look_ups };
        look_ups.start(what("slow"));
        assert_eq!(next(&mut inputs).await, ("slow".to_owned(), addrs(&["192.0.2.2"])));
    }

    #[tokio::test]
    async fn threads_are_no_more_than_there_may_be() {
        let (up, mut inputs) = mpsc::channel(64);
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Mutex::new(held);
        let resolve = move |_: &LookUp| {
            held.lock().unwrap().recv().ok();
            addrs(&["192.0.2.2"])
        };
        let look_ups = LookUps::with(up, resolve, PATIENCE);
        (0..=AT_ONCE).for_each(|n| look_ups.start(what(&format!("hub{n}"))));
        assert_eq!(next(&mut inputs).await, (format!("hub{AT_ONCE}"), vec![]));
        drop(release);
        for _ in 0..AT_ONCE {
            assert_eq!(next(&mut inputs).await.1.len(), 1);
        }
    }

    #[tokio::test]
    async fn the_c_library_knows_the_machines_own_name_for_itself() {
        let (up, mut inputs) = mpsc::channel(8);
        LookUps::new(up).start(what("localhost"));
        let (_, addresses) = next(&mut inputs).await;
        assert!(!addresses.is_empty() && addresses.iter().all(|addr| addr.0.is_loopback()), "{addresses:?}");
    }
}
