//! What a path looks like from its end: its hops, the sizes that it takes, how TCP fares on it. Asked with the system's own tools;
//! where all sizes are to be tried, with a socket, which is faster.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto};
use serde_json::Value;

use crate::netns::Namespace;
use crate::{frame, wait};

/// Who answers on the way to an address, and at last the address itself, as `traceroute` tells it.
///
/// # Errors
/// A hop does not answer, or the address is not reached.
pub fn hops(from: &Namespace, to: IpAddr) -> Result<Vec<IpAddr>> {
    // One probe at a time: a router owes an answer to ten a second.
    let args = ["-n", "-q", "1", "-N", "1", "-w", "2", "-m", "8", &to.to_string()];
    let said = from.check("traceroute", &args)?;
    let hop = |line: &str| line.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    let hops: Option<Vec<IpAddr>> = said.lines().skip(1).map(hop).collect();
    hops.filter(|hops| hops.last() == Some(&to)).with_context(|| format!("traceroute {to}: {said}"))
}

/// What `tracepath` finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    /// Largest IP packet that the path takes, in bytes.
    pub mtu: u32,
    /// Hops, the address itself included.
    pub hops: u32,
}

/// The path as `tracepath` tells it.
///
/// # Errors
/// It does not reach the address.
pub fn traced(from: &Namespace, to: IpAddr) -> Result<Traced> {
    let said = from.check("tracepath", &["-n", "-m", "8", &to.to_string()])?;
    let resume = said.lines().find_map(|line| line.trim().strip_prefix("Resume: "));
    let number = |word: &str| {
        let mut words = resume?.split_whitespace().skip_while(|w| *w != word);
        words.nth(1)?.parse().ok()
    };
    let found = number("pmtu").zip(number("hops")).filter(|_| said.contains("reached"));
    found.map(|(mtu, hops)| Traced { mtu, hops }).with_context(|| format!("tracepath {to}: {said}"))
}

/// Who refuses a ping of `size` bytes that may not be cut, and how many bytes an IP packet may have as he says. The sender
/// forgets first what it knew of the path.
///
/// # Errors
/// Nobody refuses it.
pub fn refusal(from: &Namespace, to: IpAddr, size: u16) -> Result<(IpAddr, u32)> {
    forget(from)?;
    let args = ["-n", "-c", "1", "-W", "2", "-M", "do", "-s", &size.to_string(), &to.to_string()];
    let said = String::from_utf8(from.output("ping", &args)?.stdout)?;
    let refused = said.lines().find_map(|line| {
        let rest = line.strip_prefix("From ")?;
        let who = rest.split(' ').next()?.trim_end_matches(':');
        let mtu = rest.split_once("mtu")?.1;
        let mtu: String = mtu.chars().filter(char::is_ascii_digit).collect();
        Some((who.parse().ok()?, mtu.parse().ok()?))
    });
    refused.with_context(|| format!("ping -s {size} {to}: {said}"))
}

/// What the kernel has learnt of the path to an address.
///
/// # Errors
/// No route.
pub fn known_mtu(from: &Namespace, to: IpAddr) -> Result<Option<u32>> {
    let route = from.ip(&format!("route get {to}"))?;
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
    words.nth(1).map(|word| word.parse().context(route.clone())).transpose()
}

/// Has the kernel forget what it has learnt of paths.
///
/// # Errors
/// No `ip`.
pub fn forget(host: &Namespace) -> Result<()> {
    for family in ["-4", "-6"] {
        host.ip(&format!("{family} route flush cache"))?;
    }
    Ok(())
}

/// Passes over the sizes until each has its answer: first packets wait for neighbours, and those on their way when a path turns
/// out to be narrower are lost.
const ROUNDS: u32 = 10;
/// Pings on their way at once.
const WINDOW: usize = 32;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Pings an address with each payload from 1 byte to `most`, none of which may be cut, and returns the largest that is echoed.
/// Every smaller one is echoed too, byte for byte, and every larger one refused to its sender (`EMSGSIZE`).
///
/// # Errors
/// It is not so.
pub fn largest_of_every_size(from: &Namespace, to: IpAddr, most: u16) -> Result<u16> {
    let mut pings = Pings { socket: from.run(|| socket(to))??, to, echoed: BTreeSet::new() };
    let mut refused = BTreeSet::new();
    for _ in 0..ROUNDS {
        let open: Vec<_> = (1..=most).filter(|n| !pings.echoed.contains(n) && !refused.contains(n)).collect();
        if open.is_empty() {
            break;
        }
        let mut waiting = BTreeSet::new();
        for size in open {
            if pings.send(size)? {
                waiting.insert(size);
                pings.wait(&mut waiting, WINDOW, PATIENCE / 10)?;
            } else {
                refused.insert(size);
            }
        }
        pings.wait(&mut waiting, 0, PATIENCE)?;
    }
    let largest = pings.echoed.last().copied().unwrap_or(0);
    let silent: Vec<_> =
        (1..=most).filter(|n| !pings.echoed.contains(n) && !refused.contains(n)).take(20).collect();
    ensure!(silent.is_empty(), "of the pings to {to} these had no answer: {silent:?} …");
    let odd: Vec<_> = refused.range(..=largest).take(20).collect();
    ensure!(odd.is_empty(), "{largest} bytes to {to} are echoed, but these are refused: {odd:?} …");
    Ok(largest)
}

struct Pings {
    socket: OwnedFd,
    to: IpAddr,
    echoed: BTreeSet<u16>,
}

/// A socket that never lets a packet be cut.
fn socket(to: IpAddr) -> Result<OwnedFd> {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let socket = rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
    match to {
        IpAddr::V4(_) => sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DO)?,
        IpAddr::V6(_) => sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::DO)?,
    }
    sockopt::set_socket_recv_buffer_size_force(&socket, 16 << 20)?;
    Ok(socket)
}

/// Of our echo requests; their number is their size.
const IDENTIFIER: [u8; 2] = *b"NV";

fn payload(size: u16) -> impl Iterator<Item = u8> {
    (0..size).map(move |at| at.wrapping_add(size).to_be_bytes()[1])
}

impl Pings {
    /// Whether the kernel lets it out.
    fn send(&self, size: u16) -> Result<bool> {
        let kind = if self.to.is_ipv4() { 8 } else { 128 };
        let mut echo = vec![kind, 0, 0, 0];
        echo.extend(IDENTIFIER);
        echo.extend(size.to_be_bytes());
        echo.extend(payload(size));
        // Of ICMPv6 the kernel does it.
        if self.to.is_ipv4() {
            let sum = frame::checksum(&echo);
            echo[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        match sendto(&self.socket, &echo, SendFlags::empty(), &SocketAddr::new(self.to, 0)) {
            Ok(_) => Ok(true),
            Err(Errno::MSGSIZE) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("ping of {size} bytes to {}", self.to)),
        }
    }

    /// Takes echoes until no more than `left` are waited for, or none has come for some time.
    fn wait(&mut self, waiting: &mut BTreeSet<u16>, left: usize, patience: Duration) -> Result<()> {
        let mut buffer = [0_u8; 16_384];
        let mut last = Instant::now();
        while waiting.len() > left && last.elapsed() < patience {
            match recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((_, length)) => {
                    if let Some(size) = self.echo(&buffer[..length])? {
                        waiting.remove(&size);
                        self.echoed.insert(size);
                        last = Instant::now();
                    }
                }
                Err(Errno::AGAIN) => sleep(Duration::from_micros(100)),
                Err(error) => return Err(error).context("waiting for echoes"),
            }
        }
        Ok(())
    }

    /// The size of the request that these bytes answer, if they do.
    fn echo(&self, bytes: &[u8]) -> Result<Option<u16>> {
        let (header, kind) = match self.to {
            IpAddr::V4(_) => (usize::from(bytes.first().copied().unwrap_or(0) & 15) * 4, 0),
            IpAddr::V6(_) => (0, 129),
        };
        let Some([of, 0, _, _, id0, id1, n0, n1, echoed @ ..]) = bytes.get(header..) else { return Ok(None) };
        if (*of, [*id0, *id1]) != (kind, IDENTIFIER) {
            return Ok(None);
        }
        let size = u16::from_be_bytes([*n0, *n1]);
        let same = echoed.iter().copied().eq(payload(size));
        ensure!(same, "the echo of {size} bytes from {} has {} bytes, or others", self.to, echoed.len());
        Ok(Some(size))
    }
}

/// Refusals because of size that a host has received: fragmentation needed (with all other unreachables) or packet too big.
///
/// # Errors
/// The kernel does not count them.
pub fn too_bigs(host: &Namespace, ipv6: bool) -> Result<u64> {
    let count = if ipv6 {
        let text = host.check("cat", &["/proc/net/snmp6"])?;
        let line = text.lines().find(|line| line.starts_with("Icmp6InPktTooBigs"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
    } else {
        let text = host.check("cat", &["/proc/net/snmp"])?;
        let mut lines = text.lines().filter(|line| line.starts_with("Icmp:"));
        let at = lines.next().and_then(|names| names.split(' ').position(|n| n == "InDestUnreachs"));
        at.zip(lines.next()).and_then(|(at, counts)| counts.split(' ').nth(at)?.parse().ok())
    };
    count.context("no such counter")
}

/// What `iperf3` says of a TCP connection.
#[derive(Debug, Clone, Copy)]
pub struct Tcp {
    /// Bytes that arrived.
    pub bytes: u64,
    /// Largest segment that the client may send, in bytes, without options.
    pub segment: u64,
    /// Segments that were sent again.
    pub retransmits: u64,
}

/// Sends by TCP for some seconds.
///
/// # Errors
/// No connection, or it breaks.
pub fn tcp(client: &Namespace, server: &Namespace, to: IpAddr, seconds: u32) -> Result<Tcp> {
    let mut iperf = Command::new("iperf3");
    iperf.args(["-s", "-1"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut listener = server.spawn(&mut iperf)?;
    let listens = || server.check("ss", &["-Hltn", "sport = :5201"]).is_ok_and(|said| !said.is_empty());
    let result = wait::until_true("iperf3 to listen", Duration::from_secs(5), listens).and_then(|()| {
        let time = seconds.to_string();
        let args = ["-c", &to.to_string(), "-t", &time, "-J", "--connect-timeout", "5000"];
        let output = client.output("iperf3", &args)?;
        serde_json::from_slice::<Value>(&output.stdout).context("iperf3")
    });
    let _ = listener.kill();
    listener.wait()?;
    let report = result?;
    if let Some(error) = report["error"].as_str() {
        bail!("iperf3 to {to}: {error}");
    }
    let number = |value: &Value| value.as_u64().with_context(|| format!("iperf3 said {report}"));
    Ok(Tcp {
        bytes: number(&report["end"]["sum_received"]["bytes"])?,
        segment: number(&report["start"]["tcp_mss_default"])?,
        retransmits: number(&report["end"]["sum_sent"]["retransmits"])?,
    })
}
