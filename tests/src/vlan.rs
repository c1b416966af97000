//! A switch on a LAN: an 802.1Q trunk to a node's port, and a port without tags for the host of each VLAN.
//!
//! It is made here and by hand, of taps and a thread, so that it needs nothing of the kernel but bridges.
//!
//! ```text
//!   node's LAN port ── port ┌─────────────────┐ trunk ── thread ┬── eth0 of a host in VLAN 10
//!                           │ bridge lan      │      tags       └── eth0 of a host in VLAN 20
//!                           └─────────────────┘ namespace P-NODE-lan
//! ```

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use twin::{Anchor, Kind, Queue};

use crate::guardian::Guardian;
use crate::netns::Namespace;

/// The switch. Dropped, it stops.
#[derive(Debug)]
pub struct VlanSwitch {
    namespace: Namespace,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    // They keep the taps.
    _anchors: Vec<Anchor>,
}

impl VlanSwitch {
    /// What the node's end of the trunk is called in the switch's namespace.
    pub const PORT: &'static str = "port";

    /// Makes one in a namespace of this name, with an `eth0` for each VLAN's host in the host's namespace.
    ///
    /// # Errors
    /// The namespace is there already, or a host has an `eth0`.
    pub fn new(guardian: &Guardian, name: &str, hosts: &[(u16, &Namespace)]) -> Result<Self> {
        let namespace = Namespace::add(guardian, name)?;
        for family in ["iptables", "ip6tables", "arptables"] {
            namespace.switch(&format!("bridge/bridge-nf-call-{family}"), false)?;
        }
        namespace.ip("link add lan type bridge mcast_snooping 0 forward_delay 0")?;
        namespace.ip("link set lan up")?;
        let (anchor, trunk) = tap(&namespace, "trunk")?;
        namespace.ip("link set trunk master lan up")?;
        let (mut anchors, mut ports) = (vec![anchor], Vec::new());
        for &(vlan, host) in hosts {
            let (anchor, queue) = tap(host, "eth0")?;
            anchors.push(anchor);
            ports.push((vlan, queue));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                while !stop.load(Ordering::Relaxed) {
                    wait(&trunk, &ports);
                    switch(&trunk, &ports);
                }
            }
        });
        Ok(Self { namespace, stop, thread: Some(thread), _anchors: anchors })
    }

    /// Where the node's end of the trunk belongs, as [`VlanSwitch::PORT`].
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Plugs that end in. It gets an address of its own: DPDK gives a tap that of its port, and a bridge forwards nothing to an
    /// address of its own ports.
    ///
    /// # Errors
    /// It is not there.
    pub fn connect(&self) -> Result<()> {
        let address = "02:00:00:00:fe:01";
        self.namespace.ip(&format!("link set dev {} address {address} master lan up", Self::PORT)).map(drop)
    }
}

impl Drop for VlanSwitch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn tap(namespace: &Namespace, name: &str) -> Result<(Anchor, Queue)> {
    let anchor = namespace.run(|| Anchor::create(name, Kind::Tap))??;
    let queue = Queue::attach(name, Kind::Tap, Some(Path::new(namespace.name())))
        .with_context(|| format!("{name} in {}", namespace.name()))?;
    Ok((anchor, queue))
}

/// Until there is something to do, for 20 ms at most.
fn wait(trunk: &Queue, ports: &[(u16, Queue)]) {
    let all = std::iter::once(trunk).chain(ports.iter().map(|(_, queue)| queue));
    let mut all: Vec<_> = all.map(|queue| PollFd::new(queue.as_fd(), PollFlags::POLLIN)).collect();
    let _ = poll(&mut all, PollTimeout::from(20_u8));
}

/// Where a tag stands in a frame, and its Ethernet type (IEEE 802.1Q §9.5).
const TAG_AT: usize = 12;
const TAG: [u8; 2] = [0x81, 0];

/// Carries over what has come.
fn switch(trunk: &Queue, ports: &[(u16, Queue)]) {
    let mut buffer = [0_u8; 16_384];
    // What a link that is down does not take is lost, as on any wire.
    while let Ok(length) = trunk.read(&mut buffer) {
        let Some((vlan, frame)) = untag(&buffer[..length]) else { continue };
        if let Some((_, port)) = ports.iter().find(|(of, _)| *of == vlan) {
            let _ = port.write(&frame);
        }
    }
    for (vlan, port) in ports {
        while let Ok(length) = port.read(&mut buffer) {
            let _ = trunk.write(&tag(*vlan, &buffer[..length]));
        }
    }
}

fn untag(frame: &[u8]) -> Option<(u16, Vec<u8>)> {
    let (addresses, rest) = frame.split_at_checked(TAG_AT)?;
    let [a, b, c, d, rest @ ..] = rest else { return None };
    let vlan = u16::from_be_bytes([*c, *d]) & 0xfff;
    ([*a, *b] == TAG).then(|| (vlan, [addresses, rest].concat()))
}

fn tag(vlan: u16, frame: &[u8]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(TAG_AT.min(frame.len()));
    [addresses, &TAG, &vlan.to_be_bytes(), rest].concat()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wait;

    #[test]
    fn hosts_reach_those_of_their_own_vlan_only() {
        let guardian = Guardian::start().unwrap();
        let add = |end: &str| {
            let name = format!("nave-vlan-{end}-{}", std::process::id());
            Namespace::add(&guardian, &name).unwrap()
        };
        let hosts = [("a", 10, 1), ("b", 10, 2), ("c", 20, 3)]
            .map(|(name, vlan, number)| (add(name), vlan, format!("10.0.0.{number}")));
        let make = |end: &str, hosts: &[(u16, &Namespace)]| {
            let name = format!("nave-vlan-{end}-{}", std::process::id());
            VlanSwitch::new(&guardian, &name, hosts).unwrap()
        };
        let left = make("left", &[(10, &hosts[0].0)]);
        let right = make("right", &[(10, &hosts[1].0), (20, &hosts[2].0)]);
        let port = VlanSwitch::PORT;
        let wire = format!("link add {port} type veth peer name {port} netns {}", right.namespace().name());
        left.namespace().ip(&wire).unwrap();
        left.connect().unwrap();
        right.connect().unwrap();
        for (host, _, address) in &hosts {
            host.ip(&format!("addr add {address}/24 dev eth0")).unwrap();
            host.ip("link set eth0 up").unwrap();
        }
        let pings = |to: &str| {
            let args = ["-c", "1", "-W", "1", "-s", "1472", "-M", "do", to];
            hosts[0].0.output("ping", &args).unwrap().status.success()
        };
        // Once the bridges have noticed their links.
        wait::until_true("a ping", Duration::from_secs(5), || pings(&hosts[1].2)).unwrap();
        assert!(!pings(&hosts[2].2));
    }
}
