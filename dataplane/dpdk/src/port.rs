//! Ports: Ethernet devices, real and virtual.

use crate::Eal;
use crate::errno::{ENOTSUP, Errno};
use crate::mempool::Mempool;
use crate::queue::{RxQueue, TxQueue};
use crate::ring::{RingRx, RingTx};
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// How a port is set up.
#[derive(Debug, Clone)]
pub struct PortConfig {
    /// Receive queues: one per worker. Clamped to what the device has; see how many came back.
    pub rx_queues: u16,
    /// Transmit queues: one per worker. Clamped likewise.
    pub tx_queues: u16,
    /// Descriptors per receive queue, clamped and aligned to what the device allows.
    pub rx_ring: u16,
    /// Descriptors per transmit queue, likewise.
    pub tx_ring: u16,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Whether frames to other MAC addresses are received. A device without such a filter receives them anyway.
    pub promiscuous: bool,
    /// What the device does in place of whoever uses it.
    pub offloading: Offloading,
    /// Pools that received packets come from: queue n's is the n-th, or the last.
    pub pools: Vec<Mempool>,
}

/// Which of a device's offloads are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offloading {
    /// None. A device that would spread packets over its queues by itself has one queue each way then (net_tap wants as many one way as
    /// the other).
    None,
    /// Those that cost the receiving core nothing: none that a driver does in software.
    #[default]
    Free,
    /// All that we have a use for.
    All,
}

/// Drivers that sum IPv4 headers themselves, and all that UDP and TCP carry with them, in the time of whoever receives.
const SUMMING: [&str; 1] = ["net_tap"];

impl PortConfig {
    /// One queue each way with 1,024 descriptors, MTU 1,500, not promiscuous, free offloads, packets from `pool`.
    #[must_use]
    pub fn new(pool: Mempool) -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_ring: 1024,
            tx_ring: 1024,
            mtu: 1500,
            promiscuous: false,
            offloading: Offloading::default(),
            pools: vec![pool],
        }
    }
}

/// A running port: its control side. It may move between threads, and is used by one at a time. The port stops and
/// closes when this and all its queues are dropped.
#[derive(Debug)]
pub struct Port {
    pub(crate) device: Arc<Device>,
    name: String,
    driver: String,
    offloads: Offloads,
    used: Offloads,
    /// DPDK's control calls are not safe in parallel on one port.
    not_sync: PhantomData<Cell<()>>,
}

/// A port that was opened, and its queues for the workers.
#[derive(Debug)]
pub struct Opened {
    /// The control side.
    pub port: Port,
    /// Receive queues, at most as many as asked for.
    pub rx: Vec<RxQueue>,
    /// Transmit queues, at most as many as asked for.
    pub tx: Vec<TxQueue>,
}

/// State of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Whether it carries packets.
    pub up: bool,
    /// Speed in Mbit/s; `u32::MAX` when the device does not know.
    pub mbps: u32,
    /// Whether both sides may send at once.
    pub full_duplex: bool,
}

/// Counters of the device since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets that the device dropped because the receive rings were full: the workers are too slow.
    pub rx_missed: u64,
    /// Packets received in error.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets not received because the mempool was empty.
    pub rx_no_mbuf: u64,
}

/// What a device can do for us, or does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads {
    /// Spreads flows over receive queues (RSS).
    pub rss: bool,
    /// Checks the IPv4 header checksum of received packets.
    pub rx_ipv4_checksum: bool,
    /// Fills in the IPv4 header checksum.
    pub tx_ipv4_checksum: bool,
    /// Receives a packet into several buffers.
    pub rx_scatter: bool,
    /// Sends a packet from several buffers.
    pub tx_multi_segment: bool,
    /// Does ESP inline, both ways.
    pub inline_ipsec: bool,
}

/// What was being done to a port when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Creating a port over rings.
    Create,
    /// Asking what it is and can do.
    Describe,
    /// Setting queue counts, MTU and packet distribution.
    Configure,
    /// Sizing its descriptor rings.
    SizeRings,
    /// Setting up a receive queue.
    RxQueue(u16),
    /// Setting up a transmit queue.
    TxQueue(u16),
    /// Setting the MTU.
    Mtu,
    /// Switching promiscuous reception.
    Promiscuous,
    /// Starting it.
    Start,
    /// Reading its MAC address.
    Mac,
    /// Reading its link state.
    Link,
    /// Reading its counters.
    Stats,
    /// Stopping it.
    Stop,
    /// Closing it.
    Close,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create => f.write_str("create"),
            Self::Describe => f.write_str("describe"),
            Self::Configure => f.write_str("configure"),
            Self::SizeRings => f.write_str("size rings"),
            Self::RxQueue(queue) => write!(f, "set up rx queue {queue}"),
            Self::TxQueue(queue) => write!(f, "set up tx queue {queue}"),
            Self::Mtu => f.write_str("set MTU"),
            Self::Promiscuous => f.write_str("set promiscuous"),
            Self::Start => f.write_str("start"),
            Self::Mac => f.write_str("read MAC address"),
            Self::Link => f.write_str("read link state"),
            Self::Stats => f.write_str("read counters"),
            Self::Stop => f.write_str("stop"),
            Self::Close => f.write_str("close"),
        }
    }
}

/// A port that does not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// No device of that name: not created at start, not bound to a driver that DPDK can use, or closed since.
    #[error("port {port}: no such device")]
    NotFound {
        /// The name.
        port: String,
    },
    /// Somebody has it open.
    #[error("port {port}: is open already")]
    Open {
        /// The name.
        port: String,
    },
    /// Neither a queue nor a pool, nor more queues than DPDK can count, make no port.
    #[error("port {port}: needs at least one rx queue, one tx queue and one mempool")]
    Empty {
        /// The name.
        port: String,
    },
    /// The device cannot have that MTU.
    #[error("port {port}: MTU {mtu} is outside {min} to {max}")]
    Mtu {
        /// The name.
        port: String,
        /// What was asked for.
        mtu: u16,
        /// Least that the device allows.
        min: u16,
        /// Most that the device allows.
        max: u16,
    },
    /// A full frame does not fit a buffer, and the device cannot scatter it over several.
    #[error("port {port}: MTU {mtu} does not fit mempool buffers of {data_room} bytes")]
    Buffers {
        /// The name.
        port: String,
        /// What was asked for.
        mtu: u16,
        /// What the smallest of its mempools has for a frame.
        data_room: u16,
    },
    /// A call of the driver failed; its own words are on standard error.
    #[error("port {port}: {step}: {errno}")]
    Device {
        /// The name.
        port: String,
        /// What was being done.
        step: Step,
        /// Why it failed.
        errno: Errno,
    },
}

/// A device between configuration and close. Dropping it stops and closes it.
#[derive(Debug)]
pub(crate) struct Device {
    id: u16,
    closed: AtomicBool,
    /// Whether it has rules for queues.
    has_rules: AtomicBool,
}

/// Devices that are open, a bit each: two owners of one queue would be two users of one ring.
static OPEN: AtomicU32 = AtomicU32::new(0);
const _: () = assert!(dpdk_sys::RTE_MAX_ETHPORTS <= u32::BITS);

impl Device {
    /// Takes the device, unless it is taken.
    fn take(id: u16) -> Option<Self> {
        let bit = 1 << id;
        (OPEN.fetch_or(bit, Ordering::AcqRel) & bit == 0).then(|| Self {
            id,
            closed: AtomicBool::new(false),
            has_rules: AtomicBool::new(false),
        })
    }

    #[inline(always)]
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    /// Says that it has rules for queues now, which are to go before it is closed.
    pub(crate) fn keep_rules(&self) {
        self.has_rules.store(true, Ordering::Release);
    }

    /// Stops and closes the device; a second time it does nothing.
    fn close(&self) -> Result<(), (Step, Errno)> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        if self.has_rules.load(Ordering::Acquire) {
            // SAFETY: the device is ours and still runs; without an error to fill in. What a driver does not take back goes when it stops.
            let _ = unsafe { dpdk_sys::rte_flow_flush(self.id, std::ptr::null_mut()) };
        }
        // SAFETY: the device is ours, and no queue of it is in use any more.
        let (stopped, closed) =
            unsafe { (dpdk_sys::rte_eth_dev_stop(self.id), dpdk_sys::rte_eth_dev_close(self.id)) };
        OPEN.fetch_and(!(1 << self.id), Ordering::AcqRel);
        Errno::check(stopped).map_err(|errno| (Step::Stop, errno))?;
        Errno::check(closed).map_err(|errno| (Step::Close, errno))?;
        Ok(())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // A driver that fails to stop has nothing left that we could do about it.
        let _ = self.close();
    }
}

impl Port {
    /// Names of all devices that DPDK has, open or not.
    #[must_use]
    pub fn list(_: &Eal) -> Vec<String> {
        let ids = std::iter::successors(Some(next_device(0)), |id| Some(next_device(id.saturating_add(1))));
        ids.take_while(|id| u32::from(*id) < dpdk_sys::RTE_MAX_ETHPORTS).filter_map(device_name).collect()
    }

    /// Opens and starts the device `name`: a virtual device (`net_tap0`) or a PCI address (`0000:3b:00.0`).
    ///
    /// 1. describe: clamp queues and rings, check the MTU against device and pools
    /// 2. configure: RSS over the queues if there are several and the device can
    /// 3. rings and queues, MTU, promiscuous
    /// 4. start
    ///
    /// # Errors
    /// [`PortError`], which names the step; the device is closed then.
    pub fn open(_: &Eal, name: &str, config: &PortConfig) -> Result<Opened, PortError> {
        let not_found = || PortError::NotFound { port: name.to_owned() };
        let c_name = CString::new(name).map_err(|_| not_found())?;
        let mut id = 0;
        // SAFETY: the EAL runs; the call reads the name and writes the number.
        let found = unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(c_name.as_ptr(), &raw mut id) };
        Errno::check(found).map_err(|_| not_found())?;
        Self::open_device(id, name, config)
    }

    /// A port whose wires are rings: what its receive queues deliver comes out of `rx`, what is sent goes into `tx`, and
    /// no byte is copied. Both ends of one ring make a loop, the other ends of its rings a peer.
    /// Queue counts of `config` do not matter.
    ///
    /// # Errors
    /// [`PortError`], which names the step.
    pub fn over_rings(
        _: &Eal,
        name: &str,
        rx: Vec<RingRx>,
        tx: Vec<RingTx>,
        config: &PortConfig,
    ) -> Result<Opened, PortError> {
        let failed = |errno| PortError::Device { port: name.to_owned(), step: Step::Create, errno };
        let counts = (u16::try_from(rx.len()), u16::try_from(tx.len()));
        let (Ok(rx_queues @ 1..), Ok(tx_queues @ 1..)) = counts else {
            return Err(PortError::Empty { port: name.to_owned() });
        };
        let c_name = CString::new(name).map_err(|_| PortError::NotFound { port: name.to_owned() })?;
        let (rx, tx): (Vec<_>, Vec<_>) =
            (rx.iter().map(|end| end.0.as_ptr()).collect(), tx.iter().map(|end| end.0.as_ptr()).collect());
        // SAFETY: the EAL runs; the driver copies the lists; it owns one end of each ring from here on.
        let id = unsafe {
            dpdk_sys::rte_eth_from_rings(
                c_name.as_ptr(),
                rx.as_ptr(),
                u32::from(rx_queues),
                tx.as_ptr(),
                u32::from(tx_queues),
                dpdk_sys::SOCKET_ID_ANY as u32,
            )
        };
        let id = u16::try_from(id).map_err(|_| failed(Errno::last()))?;
        Self::open_device(id, name, &PortConfig { rx_queues, tx_queues, ..config.clone() })
    }

    fn open_device(id: u16, name: &str, config: &PortConfig) -> Result<Opened, PortError> {
        if config.rx_queues == 0 || config.tx_queues == 0 || config.pools.is_empty() {
            return Err(PortError::Empty { port: name.to_owned() });
        }
        let device = Device::take(id).ok_or_else(|| PortError::Open { port: name.to_owned() })?;
        let opening = Opening { id, name, config };
        let facts = opening.describe()?;
        let (rx_queues, tx_queues, used) = opening.configure(&facts)?;
        opening.set_up_queues(rx_queues, tx_queues)?;
        opening.set_mtu()?;
        opening.start()?;
        let device = Arc::new(device);
        // SAFETY: the device runs, has these queues, and was taken above: these are its only handles.
        let rx = (0..rx_queues)
            .map(|queue| unsafe { RxQueue::new(Arc::clone(&device), queue, facts.has_wake_fds()) })
            .collect();
        // SAFETY: as above.
        let tx = (0..tx_queues).map(|queue| unsafe { TxQueue::new(Arc::clone(&device), queue) }).collect();
        let port = Self {
            device,
            name: name.to_owned(),
            driver: facts.driver(),
            offloads: facts.offloads(),
            used,
            not_sync: PhantomData,
        };
        Ok(Opened { port, rx, tx })
    }

    /// The name it was opened by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of the driver: `net_tap`, `net_ixgbe`.
    #[must_use]
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// What the device could do.
    #[must_use]
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// What of it is switched on.
    #[must_use]
    pub fn used(&self) -> Offloads {
        self.used
    }

    /// NUMA socket that the device is on, if it says.
    #[must_use]
    pub fn socket(&self) -> Option<u32> {
        // SAFETY: the device is open.
        u32::try_from(unsafe { dpdk_sys::rte_eth_dev_socket_id(self.device.id()) }).ok()
    }

    /// The MAC address.
    ///
    /// # Errors
    /// [`PortError::Device`] if the driver cannot tell.
    pub fn mac(&self) -> Result<[u8; 6], PortError> {
        let mut mac = dpdk_sys::rte_ether_addr { addr_bytes: [0; 6] };
        // SAFETY: the device is open; the call writes the address.
        self.check(Step::Mac, unsafe { dpdk_sys::rte_eth_macaddr_get(self.device.id(), &raw mut mac) })?;
        Ok(mac.addr_bytes)
    }

    /// The MTU: largest IP packet in bytes.
    ///
    /// # Errors
    /// [`PortError::Device`] if the driver cannot tell.
    pub fn mtu(&self) -> Result<u16, PortError> {
        let mut mtu = 0;
        // SAFETY: the device is open; the call writes the number.
        self.check(Step::Mtu, unsafe { dpdk_sys::rte_eth_dev_get_mtu(self.device.id(), &raw mut mtu) })?;
        Ok(mtu)
    }

    /// The link's state now, without waiting for it to settle.
    ///
    /// A net_tap port is up for as long as it is open: its carrier is this process. Its driver asks the kernel by the
    /// interface's name, in the namespace where it was made, and would call it down after a move to another one.
    ///
    /// # Errors
    /// [`PortError::Device`] if the driver cannot tell.
    pub fn link(&self) -> Result<Link, PortError> {
        // SAFETY: a link of zeroes is one; the device is open, and the call writes its state.
        let (link, returned) = unsafe {
            let mut link = std::mem::zeroed::<dpdk_sys::rte_eth_link>();
            let returned = dpdk_sys::rte_eth_link_get_nowait(self.device.id(), &raw mut link);
            (link, returned)
        };
        self.check(Step::Link, returned)?;
        Ok(Link {
            up: self.driver == "net_tap" || u32::from(link.link_status()) == dpdk_sys::RTE_ETH_LINK_UP,
            mbps: link.link_speed,
            full_duplex: u32::from(link.link_duplex()) == dpdk_sys::RTE_ETH_LINK_FULL_DUPLEX,
        })
    }

    /// The device's counters.
    ///
    /// # Errors
    /// [`PortError::Device`] if the driver cannot tell.
    pub fn stats(&self) -> Result<PortStats, PortError> {
        // SAFETY: counters of zeroes are counters; the device is open, and the call writes them.
        let (raw, returned) = unsafe {
            let mut raw = std::mem::zeroed::<dpdk_sys::rte_eth_stats>();
            let returned = dpdk_sys::rte_eth_stats_get(self.device.id(), &raw mut raw);
            (raw, returned)
        };
        self.check(Step::Stats, returned)?;
        Ok(PortStats {
            rx_packets: raw.ipackets,
            tx_packets: raw.opackets,
            rx_bytes: raw.ibytes,
            tx_bytes: raw.obytes,
            rx_missed: raw.imissed,
            rx_errors: raw.ierrors,
            tx_errors: raw.oerrors,
            rx_no_mbuf: raw.rx_nombuf,
        })
    }

    /// Stops and closes the port, now rather than when it is dropped. Its queues come back first, so that no worker can
    /// be in the middle of a burst.
    ///
    /// # Errors
    /// [`PortError::Open`] if the queues given are not all of this port's; [`PortError::Device`] if the driver fails,
    /// the port is closed all the same.
    pub fn close(self, rx: Vec<RxQueue>, tx: Vec<TxQueue>) -> Result<(), PortError> {
        drop((rx, tx));
        if Arc::strong_count(&self.device) > 1 {
            return Err(PortError::Open { port: self.name });
        }
        let closed = self.device.close();
        closed.map_err(|(step, errno)| PortError::Device { port: self.name, step, errno })
    }

    fn check(&self, step: Step, returned: c_int) -> Result<c_int, PortError> {
        Errno::check(returned).map_err(|errno| PortError::Device { port: self.name.clone(), step, errno })
    }
}

/// What a device says about itself.
struct Facts(dpdk_sys::rte_eth_dev_info);

impl Facts {
    fn driver(&self) -> String {
        if self.0.driver_name.is_null() {
            return String::new();
        }
        // SAFETY: a driver's name is a static string.
        unsafe { CStr::from_ptr(self.0.driver_name) }.to_string_lossy().into_owned()
    }

    /// Whether a receive queue is a kernel descriptor that a worker can wait on.
    fn has_wake_fds(&self) -> bool {
        self.driver() == "net_tap"
    }

    /// By what it can spread packets over queues, of what we want.
    fn distribution(&self) -> u64 {
        self.0.flow_type_rss_offloads & dpdk_sys::NAVE_RSS_TUNNELS_AND_FLOWS
    }

    /// Whether it is to check the IPv4 header checksum of what it receives.
    fn checks_ipv4(&self, offloading: Offloading) -> bool {
        let wanted = match offloading {
            Offloading::None => false,
            Offloading::Free => !SUMMING.contains(&&*self.driver()),
            Offloading::All => true,
        };
        wanted && self.offloads().rx_ipv4_checksum
    }

    fn offloads(&self) -> Offloads {
        let (rx, tx) = (self.0.rx_offload_capa, self.0.tx_offload_capa);
        Offloads {
            rss: self.distribution() != 0,
            rx_ipv4_checksum: rx & dpdk_sys::NAVE_RX_IPV4_CHECKSUM != 0,
            tx_ipv4_checksum: tx & dpdk_sys::NAVE_TX_IPV4_CHECKSUM != 0,
            rx_scatter: rx & dpdk_sys::NAVE_RX_SCATTER != 0,
            tx_multi_segment: tx & dpdk_sys::NAVE_TX_MULTI_SEGMENT != 0,
            inline_ipsec: rx & dpdk_sys::NAVE_RX_SECURITY != 0 && tx & dpdk_sys::NAVE_TX_SECURITY != 0,
        }
    }
}

/// A port on its way to running.
struct Opening<'a> {
    id: u16,
    name: &'a str,
    config: &'a PortConfig,
}

/// Bytes of a frame that are not its IP packet: Ethernet header and two VLAN tags.
const FRAME_OVERHEAD: u32 = 14 + 2 * 4;

impl Opening<'_> {
    fn check(&self, step: Step, returned: c_int) -> Result<c_int, PortError> {
        Errno::check(returned).map_err(|errno| PortError::Device { port: self.name.to_owned(), step, errno })
    }

    fn describe(&self) -> Result<Facts, PortError> {
        // SAFETY: facts of zeroes are facts; the EAL runs, and the call fills them in.
        let (info, returned) = unsafe {
            let mut info = std::mem::zeroed::<dpdk_sys::rte_eth_dev_info>();
            let returned = dpdk_sys::rte_eth_dev_info_get(self.id, &raw mut info);
            (info, returned)
        };
        self.check(Step::Describe, returned)?;
        let (mtu, min, max) = (self.config.mtu, info.min_mtu, info.max_mtu);
        if !(min..=max).contains(&mtu) {
            return Err(PortError::Mtu { port: self.name.to_owned(), mtu, min, max });
        }
        Ok(Facts(info))
    }

    /// Sets queue counts, packet distribution, offloads and MTU; returns how many queues of each kind there are, and what is used.
    fn configure(&self, facts: &Facts) -> Result<(u16, u16, Offloads), PortError> {
        let (info, mut used) = (&facts.0, Offloads::default());
        let distribution = facts.distribution();
        let most = match self.config.offloading {
            Offloading::None if distribution != 0 => 1,
            _ => u16::MAX,
        };
        let rx_queues = self.config.rx_queues.min(info.max_rx_queues).min(most);
        let tx_queues = self.config.tx_queues.min(info.max_tx_queues).min(most);
        // SAFETY: a configuration of zeroes is DPDK's default.
        let mut conf = unsafe { std::mem::zeroed::<dpdk_sys::rte_eth_conf>() };
        conf.rxmode.mtu = u32::from(self.config.mtu);
        if rx_queues > 1 && distribution != 0 {
            used.rss = true;
            conf.rxmode.mq_mode = dpdk_sys::RTE_ETH_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf.rss_hf = distribution;
        }
        if facts.checks_ipv4(self.config.offloading) {
            used.rx_ipv4_checksum = true;
            conf.rxmode.offloads |= dpdk_sys::NAVE_RX_IPV4_CHECKSUM;
        }
        let data_room = self.config.pools.iter().map(Mempool::data_room).min().unwrap_or(0);
        if u32::from(data_room) < u32::from(self.config.mtu) + FRAME_OVERHEAD {
            if !facts.offloads().rx_scatter {
                return Err(PortError::Buffers {
                    port: self.name.to_owned(),
                    mtu: self.config.mtu,
                    data_room,
                });
            }
            used.rx_scatter = true;
            conf.rxmode.offloads |= dpdk_sys::NAVE_RX_SCATTER;
        }
        // net_tap installs its queues' descriptors then, which RxQueue::wake_fd shows. Cards would want their
        // interrupts armed before each sleep; they have workers that do not sleep.
        conf.intr_conf.set_rxq(u32::from(facts.has_wake_fds()));
        // SAFETY: the device is stopped and ours; the call copies the configuration.
        let returned =
            unsafe { dpdk_sys::rte_eth_dev_configure(self.id, rx_queues, tx_queues, &raw const conf) };
        self.check(Step::Configure, returned)?;
        Ok((rx_queues, tx_queues, used))
    }

    fn set_up_queues(&self, rx_queues: u16, tx_queues: u16) -> Result<(), PortError> {
        let (mut rx_ring, mut tx_ring) = (self.config.rx_ring, self.config.tx_ring);
        // SAFETY: the device is configured; the call reads and writes the two numbers.
        let returned = unsafe {
            dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &raw mut rx_ring, &raw mut tx_ring)
        };
        self.check(Step::SizeRings, returned)?;
        // SAFETY: the device is configured.
        let socket = unsafe { dpdk_sys::rte_eth_dev_socket_id(self.id) };
        let pools = self
            .config
            .pools
            .iter()
            .chain(std::iter::repeat(&self.config.pools[self.config.pools.len() - 1]));
        for (queue, pool) in (0..rx_queues).zip(pools) {
            // SAFETY: the device has the queue; the pool lives for good; null is the driver's own configuration.
            let returned = unsafe {
                dpdk_sys::rte_eth_rx_queue_setup(
                    self.id,
                    queue,
                    rx_ring,
                    socket as u32,
                    std::ptr::null(),
                    pool.as_ptr(),
                )
            };
            self.check(Step::RxQueue(queue), returned)?;
        }
        for queue in 0..tx_queues {
            // SAFETY: as above.
            let returned = unsafe {
                dpdk_sys::rte_eth_tx_queue_setup(self.id, queue, tx_ring, socket as u32, std::ptr::null())
            };
            self.check(Step::TxQueue(queue), returned)?;
        }
        Ok(())
    }

    /// Tells the driver the MTU. One without that operation has taken it from the configuration.
    fn set_mtu(&self) -> Result<(), PortError> {
        // SAFETY: the device is configured and ours.
        let returned = unsafe { dpdk_sys::rte_eth_dev_set_mtu(self.id, self.config.mtu) };
        self.tolerate(Step::Mtu, returned)
    }

    fn start(&self) -> Result<(), PortError> {
        // SAFETY: the device is configured and ours.
        self.check(Step::Start, unsafe { dpdk_sys::rte_eth_dev_start(self.id) })?;
        // SAFETY: the device is ours.
        let returned = unsafe {
            if self.config.promiscuous {
                dpdk_sys::rte_eth_promiscuous_enable(self.id)
            } else {
                dpdk_sys::rte_eth_promiscuous_disable(self.id)
            }
        };
        self.tolerate(Step::Promiscuous, returned)
    }

    /// As `check`, but a driver without the operation is fine.
    fn tolerate(&self, step: Step, returned: c_int) -> Result<(), PortError> {
        if Errno::check(returned) == Err(ENOTSUP) {
            return Ok(());
        }
        self.check(step, returned).map(drop)
    }
}

/// The first device from `id` on; `RTE_MAX_ETHPORTS` or more if there is none.
fn next_device(id: u16) -> u16 {
    // SAFETY: the EAL runs, any number is allowed.
    unsafe { dpdk_sys::rte_eth_find_next(id) }
}

/// Name of a device.
fn device_name(id: u16) -> Option<String> {
    let mut name: [c_char; dpdk_sys::RTE_ETH_NAME_MAX_LEN as usize] = [0; _];
    // SAFETY: the call writes at most RTE_ETH_NAME_MAX_LEN bytes, with the zero that ends them.
    (unsafe { dpdk_sys::rte_eth_dev_get_name_by_port(id, name.as_mut_ptr()) } == 0)
        // SAFETY: the call ended the string.
        .then(|| unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
}
