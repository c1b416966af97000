//! The command line. The data plane has no file of its own: what it forwards it is told by the control plane.

use std::path::PathBuf;
use std::str::FromStr;

use aead::Provider;
use clap::{Parser, ValueEnum};
use dpdk::Offloading;

/// The forwarding process of a Nave node: polls DPDK ports on pinned cores and forwards as the control plane programs it.
#[derive(Debug, Parser)]
#[command(name = "nave-dataplane", version)]
pub(crate) struct Args {
    /// Unix socket on which the Dataplane service is served (mode 0660).
    #[arg(long, value_name = "PATH", default_value = "/run/nave/dataplane.sock")]
    pub(crate) socket: PathBuf,

    /// A port: the name that the configuration calls it by, and its DPDK device: a PCI address, or a virtual device with its
    /// arguments (net_tap, net_af_packet, net_ring, net_pcap, net_null, net_memif). May be given several times.
    #[arg(long = "port", value_name = "NAME=DEVICE[,ARGS]", required = true)]
    pub(crate) ports: Vec<PortArg>,

    /// Cores of the workers, one worker each, with one receive and one transmit queue on every port; where a port has fewer,
    /// packets are spread over the workers by software.
    #[arg(long, value_name = "CORE,…", value_delimiter = ',', required = true)]
    pub(crate) workers: Vec<usize>,

    /// Receive and transmit queues of a port, if not as many as there are workers: where what is at the other end of a virtual
    /// port uses only so many. May be given several times.
    #[arg(long = "queues", value_name = "NAME=COUNT")]
    pub(crate) queues: Vec<QueuesArg>,

    /// What a port's device does in place of the workers, if not what costs them nothing: `all` that it offers, also what its driver
    /// does in software, or `none` (what came by it is forwarded the same). May be given several times.
    #[arg(long = "offloads", value_name = "NAME=all|none")]
    pub(crate) offloads: Vec<OffloadsArg>,

    /// What a worker does when there is nothing to do. If not given: `adaptive` when every port is virtual, else `poll`.
    #[arg(long)]
    pub(crate) idle: Option<Idle>,

    /// Where packet buffers live: `huge` (mounted huge pages), `in-memory` (huge pages without a mount), or `no-huge:MB`.
    #[arg(long, value_name = "KIND", default_value = "in-memory")]
    pub(crate) memory: MemoryArg,

    /// Network namespace of the kernel twins (a name as of `ip netns`, or a path); the process's own if not given.
    #[arg(long, value_name = "NETNS")]
    pub(crate) host_netns: Option<PathBuf>,

    /// DPDK's file prefix, for several data planes on one machine with `huge` memory.
    #[arg(long, value_name = "WORD", default_value = "nave")]
    pub(crate) file_prefix: String,

    /// Largest IP packet that the ports take, in bytes; a VLAN tag comes on top of it.
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u16).range(576..=9000))]
    pub(crate) mtu: u16,

    /// Count the cycles that each node of the graph takes, for `nave show counters`: a look at the processor's clock more
    /// for each node of each burst.
    #[arg(long)]
    pub(crate) measure_nodes: bool,

    /// Who seals and opens ESP. A provider that does not run on this machine is refused.
    #[arg(long, value_name = "PROVIDER", default_value = "auto")]
    pub(crate) aead: Aead,

    /// End when standard input ends: with whoever started this process, even if that is killed.
    #[arg(long)]
    pub(crate) until_stdin_ends: bool,

    /// Packet buffers. If not given: enough for all rings, and 8,192 more.
    #[arg(long, value_name = "COUNT")]
    pub(crate) buffers: Option<u32>,
}

/// What a worker does in a breath without packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Idle {
    /// Polls on; never sleeps.
    Poll,
    /// Sleeps shortly, longer the longer nothing comes (up to 200 µs).
    Adaptive,
}

/// An AES-GCM provider, or the choice of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Aead {
    /// The fastest one that runs here and passes its self-test.
    Auto,
    /// VAES and VPCLMULQDQ in 512 bits (AVX-512).
    Vaes512,
    /// VAES and VPCLMULQDQ in 256 bits (AVX2).
    Vaes256,
    /// AES-NI and PCLMULQDQ (with AVX2).
    Aesni,
    /// ring.
    Ring,
    /// The crate aes-gcm: portable, slow.
    AesGcm,
}

impl Aead {
    /// Which one that is here.
    ///
    /// # Errors
    /// The one that was asked for cannot be used; in a sentence.
    pub(crate) fn provider(self) -> Result<Provider, String> {
        let provider = match self {
            Self::Auto => return Ok(Provider::best()),
            Self::Vaes512 => Provider::Vaes512,
            Self::Vaes256 => Provider::Vaes256,
            Self::Aesni => Provider::Aesni,
            Self::Ring => Provider::Ring,
            Self::AesGcm => Provider::AesGcm,
        };
        match why_not(provider) {
            None => Ok(provider),
            Some(why) => {
                let usable = Provider::ALL.into_iter().filter(|provider| provider.is_usable());
                let usable: Vec<_> = usable.map(Provider::name).collect();
                Err(format!("--aead {provider}: {why}; {} can be used here", usable.join(", ")))
            }
        }
    }
}

/// Why a provider cannot be used here; `None`: it can.
pub(crate) fn why_not(provider: Provider) -> Option<&'static str> {
    match (provider.is_possible(), provider.is_usable()) {
        (_, true) => None,
        (true, false) => Some("it does not find the known answers of its self-test"),
        (false, false) => Some("the processor does not have its instructions"),
    }
}

/// `NAME=DEVICE[,ARGS]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortArg {
    /// What the configuration calls the port.
    pub(crate) name: String,
    /// DPDK's name of the device: `net_tap0`, or a PCI address.
    pub(crate) device: String,
    /// Device arguments, without the leading comma; empty if none.
    pub(crate) arguments: String,
}

impl PortArg {
    /// Whether DPDK makes the device itself (then it is an EAL `--vdev`), rather than finding it on a bus.
    pub(crate) fn is_virtual(&self) -> bool {
        self.device.starts_with("net_")
    }

    /// As EAL wants it: device and arguments.
    pub(crate) fn devargs(&self) -> String {
        if self.arguments.is_empty() {
            self.device.clone()
        } else {
            format!("{},{}", self.device, self.arguments)
        }
    }
}

impl FromStr for PortArg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, device) =
            text.split_once('=').ok_or("NAME=DEVICE wanted, as in wan=net_tap0,iface=wan0")?;
        let (device, arguments) = device.split_once(',').unwrap_or((device, ""));
        let legal = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_graphic());
        if !legal(name) || name.len() > 15 {
            return Err(format!("`{name}` is not a port name (1 to 15 printable characters)"));
        }
        let is_pci = device.split([':', '.']).all(|part| u16::from_str_radix(part, 16).is_ok())
            && matches!(device.matches(':').count(), 1 | 2)
            && device.matches('.').count() == 1;
        if !legal(device) || !(device.starts_with("net_") || is_pci) {
            return Err(format!(
                "`{device}` is neither a virtual device (net_…) nor a PCI address (0000:01:00.0)"
            ));
        }
        // DPDK names devices with their domain, in small letters.
        let device = match device.matches(':').count() {
            _ if device.starts_with("net_") => device.to_owned(),
            1 => format!("0000:{device}").to_ascii_lowercase(),
            _ => device.to_ascii_lowercase(),
        };
        Ok(Self { name: name.to_owned(), device, arguments: arguments.to_owned() })
    }
}

/// `NAME=COUNT`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueuesArg {
    /// Name of a port.
    port: String,
    /// Queues of each direction.
    count: u16,
}

impl FromStr for QueuesArg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (port, count) = text.split_once('=').ok_or("NAME=COUNT wanted")?;
        match count.parse() {
            Ok(count @ 1..=64) => Ok(Self { port: port.to_owned(), count }),
            _ => Err(format!("`{count}`: 1 to 64 queues wanted")),
        }
    }
}

/// `NAME=all` or `NAME=none`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffloadsArg {
    /// Name of a port.
    port: String,
    offloading: Offloading,
}

impl FromStr for OffloadsArg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (port, offloading) = text.split_once('=').ok_or("NAME=all or NAME=none wanted")?;
        let offloading = match offloading {
            "all" => Offloading::All,
            "none" => Offloading::None,
            other => return Err(format!("`{other}`: all or none wanted")),
        };
        Ok(Self { port: port.to_owned(), offloading })
    }
}

/// Where packet buffers live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryArg {
    /// Huge pages of a mounted hugetlbfs.
    Huge,
    /// Huge pages of memfds.
    InMemory,
    /// Ordinary pages, so many megabytes.
    NoHuge(u32),
}

impl FromStr for MemoryArg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "huge" => Ok(Self::Huge),
            None if text == "in-memory" => Ok(Self::InMemory),
            Some(("no-huge", mb)) => match mb.parse() {
                Ok(mb @ 32..=65_536) => Ok(Self::NoHuge(mb)),
                _ => Err(format!("`{mb}`: 32 to 65536 megabytes wanted")),
            },
            _ => Err("huge, in-memory or no-huge:MB wanted".to_owned()),
        }
    }
}

impl Args {
    /// The idle policy, given or by default.
    pub(crate) fn idle(&self) -> Idle {
        let all_virtual = self.ports.iter().all(PortArg::is_virtual);
        self.idle.unwrap_or(if all_virtual { Idle::Adaptive } else { Idle::Poll })
    }

    /// Queues of a port, if the command line says how many.
    pub(crate) fn queues_of(&self, port: &str) -> Option<u16> {
        self.queues.iter().find(|queues| queues.port == port).map(|queues| queues.count)
    }

    /// What a port's device is to do.
    pub(crate) fn offloading_of(&self, port: &str) -> Offloading {
        let given = self.offloads.iter().find(|offloads| offloads.port == port);
        given.map_or(Offloading::Free, |offloads| offloads.offloading)
    }

    /// What clap cannot see: names and cores that stand twice, and names of no port.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (index, port) in self.ports.iter().enumerate() {
            for earlier in &self.ports[..index] {
                if earlier.name == port.name {
                    return Err(format!("--port {}: the name is given twice", port.name));
                }
                if earlier.device == port.device {
                    return Err(format!("--port {}: device {} is given twice", port.name, port.device));
                }
            }
        }
        let queues: Vec<_> = self.queues.iter().map(|queues| &*queues.port).collect();
        let offloads: Vec<_> = self.offloads.iter().map(|offloads| &*offloads.port).collect();
        for (flag, of) in [("--queues", queues), ("--offloads", offloads)] {
            for (index, name) in of.iter().enumerate() {
                if self.ports.iter().all(|port| port.name != *name) {
                    return Err(format!("{flag} {name}: there is no such port"));
                }
                if of[..index].contains(name) {
                    return Err(format!("{flag} {name}: given twice"));
                }
            }
        }
        for (index, core) in self.workers.iter().enumerate() {
            if self.workers[..index].contains(core) {
                return Err(format!("--workers: core {core} is given twice"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Args, String> {
        let line = [&["nave-dataplane"], arguments].concat();
        let args = Args::try_parse_from(line).map_err(|error| error.to_string())?;
        args.check().map(|()| args)
    }

    #[test]
    fn a_port_is_a_name_and_a_device() {
        let args = parse(&["--port", "wan=net_tap0,iface=w", "--workers", "0"]).unwrap();
        assert_eq!(args.ports[0].devargs(), "net_tap0,iface=w");
        assert_eq!(args.idle(), Idle::Adaptive);
        let args = parse(&["--port", "wan=0000:01:00.0", "--workers", "0,1"]).unwrap();
        assert_eq!((args.idle(), args.workers.len()), (Idle::Poll, 2));
        for text in ["01:00.0", "0000:01:00.0"] {
            let args = parse(&["--port", &format!("wan={text}"), "--workers", "0"]).unwrap();
            assert_eq!(args.ports[0].device, "0000:01:00.0");
        }
        let args = parse(&["--port", "wan=0A:00.1,x=Y", "--workers", "0"]).unwrap();
        assert_eq!(args.ports[0].devargs(), "0000:0a:00.1,x=Y");
        assert_eq!(args.queues_of("wan"), None);
        let args = parse(&["--port", "a=net_null0", "--workers", "0,1", "--queues", "a=1"]).unwrap();
        assert_eq!((args.queues_of("a"), args.queues_of("b")), (Some(1), None));
        let offloads = ["--offloads", "a=none", "--offloads", "b=all"];
        let ports =
            ["--port", "a=net_null0", "--port", "b=net_null1", "--port", "c=net_null2", "--workers", "0"];
        let args = parse(&[&ports[..], &offloads].concat()).unwrap();
        let of = ["a", "b", "c"].map(|port| args.offloading_of(port));
        assert_eq!(of, [Offloading::None, Offloading::All, Offloading::Free]);
    }

    #[test]
    fn every_provider_can_be_named_and_what_cannot_be_used_says_why() {
        let provider = |name: &str| {
            let args = parse(&["--port", "a=net_null0", "--workers", "0", "--aead", name]).unwrap();
            args.aead.provider()
        };
        assert_eq!(provider("auto"), Ok(Provider::best()));
        assert_eq!(parse(&["--port", "a=net_null0", "--workers", "0"]).unwrap().aead, Aead::Auto);
        for named in Provider::ALL {
            match provider(named.name()) {
                Ok(provider) => assert!(provider == named && named.is_usable()),
                Err(fault) => {
                    assert!(!named.is_usable());
                    let begin = format!("--aead {named}: the processor does not have its instructions; ");
                    assert!(fault.starts_with(&begin) && fault.contains("ring, aes-gcm"), "{fault}");
                }
            }
        }
    }

    #[test]
    fn bad_flags_are_refused_by_name() {
        let bad = |arguments: &[&str], word: &str| {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains(word), "{error}");
        };
        bad(&["--port", "wan", "--workers", "0"], "NAME=DEVICE");
        bad(&["--port", "wan=eth0", "--workers", "0"], "neither a virtual device");
        bad(&["--port", "a=net_null0", "--port", "a=net_null1", "--workers", "0"], "given twice");
        bad(
            &["--port", "a=net_null0", "--port", "b=net_null0", "--workers", "0"],
            "net_null0 is given twice",
        );
        bad(&["--port", "a=01:00.0", "--port", "b=0000:01:00.0", "--workers", "0"], "is given twice");
        bad(&["--port", "a=net_null0", "--workers", "1,1"], "core 1 is given twice");
        bad(&["--port", "a=net_null0", "--workers", "0", "--memory", "no-huge:1"], "megabytes");
        bad(&["--workers", "0"], "--port");
        let queues = |queues| ["--port", "a=net_null0", "--workers", "0", "--queues", queues];
        bad(&queues("a"), "NAME=COUNT");
        bad(&queues("a=0"), "1 to 64 queues");
        bad(&queues("b=1"), "no such port");
        bad(&[&queues("a=1")[..], &["--queues", "a=2"]].concat(), "given twice");
        let offloads = |offloads| ["--port", "a=net_null0", "--workers", "0", "--offloads", offloads];
        bad(&offloads("a"), "NAME=all");
        bad(&offloads("a=some"), "all or none");
        bad(&offloads("b=none"), "--offloads b: there is no such port");
        bad(&[&offloads("a=none")[..], &["--offloads", "a=all"]].concat(), "--offloads a: given twice");
        bad(&["--port", "a=net_null0", "--workers", "0", "--aead", "rot13"], "vaes256, aesni, ring, aes-gcm");
        bad(&["--port", "a=net_null0", "--workers", "0", "--mtu", "100"], "576..=9000");
    }
}
