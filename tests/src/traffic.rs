//! Numbered UDP packets from one namespace to another, and what became of them.

use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use crate::netns::Namespace;

/// Bytes of UDP payload, where a flow does not want others: number (8), time of sending (8), and planted words again and again.
pub const PAYLOAD: usize = 100;
/// What stands in every packet of a flow, and would be found where it can be read.
pub const PLANTED: &[u8] = b"what only the two hosts may read";

/// Who sends what to whom.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Where the sender is.
    pub from: Arc<Namespace>,
    /// Its address.
    pub source: IpAddr,
    /// Where the receiver is.
    pub to: Arc<Namespace>,
    /// Its address.
    pub destination: IpAddr,
    /// UDP port of both.
    pub port: u16,
    /// Packets a second.
    pub rate: u32,
    /// Bytes of UDP payload, 16 at least.
    pub payload: usize,
}

/// A flow that is being sent.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<u64>>,
    receiver: JoinHandle<Result<Vec<Arrival>>>,
    arrived: Arc<AtomicU64>,
    start: Instant,
    flow: Flow,
}

#[derive(Debug, Clone, Copy)]
struct Arrival {
    number: u64,
    /// Nanoseconds since the stream's start.
    sent: u64,
    received: u64,
}

impl Stream {
    /// Starts both ends. The first packet goes out when the receiver listens.
    ///
    /// # Errors
    /// A socket cannot be had.
    pub fn start(flow: Flow) -> Result<Self> {
        let inside = flow.to.run(|| UdpSocket::bind((flow.destination, flow.port)))?;
        let inside = inside.with_context(|| format!("{}:{}", flow.destination, flow.port))?;
        inside.set_read_timeout(Some(Duration::from_millis(20)))?;
        nix::sys::socket::setsockopt(&inside, nix::sys::socket::sockopt::RcvBufForce, &(8 << 20))?;
        let outside = flow.from.run(|| UdpSocket::bind((flow.source, flow.port)))?;
        let outside = outside.with_context(|| format!("{}:{}", flow.source, flow.port))?;

        let start = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let drained = Arc::new(AtomicBool::new(false));
        let arrived = Arc::new(AtomicU64::new(0));
        let receiver = std::thread::spawn({
            let (drained, arrived, length) = (drained.clone(), arrived.clone(), flow.payload);
            move || receive(&inside, length, start, &drained, &arrived)
        });
        let sender = std::thread::spawn({
            let (stop, flow) = (stop.clone(), flow.clone());
            move || {
                let sent = send(&outside, &flow, start, &stop);
                // What is still on its way may arrive.
                sleep(Duration::from_millis(500));
                drained.store(true, Ordering::Relaxed);
                sent
            }
        });
        Ok(Self { stop, sender, receiver, arrived, start, flow })
    }

    /// Packets that have arrived so far, duplicates and all.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Time since the stream began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Stops sending.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Stops sending, waits half a second for what is on its way, and counts.
    ///
    /// # Errors
    /// A socket failed.
    pub fn finish(self) -> Result<Tally> {
        self.stop();
        let lost = |_| anyhow::anyhow!("a traffic thread panicked");
        let sent = self.sender.join().map_err(lost)??;
        let arrivals = self.receiver.join().map_err(lost)??;
        Tally::of((self.flow.source, self.flow.destination), sent, &arrivals)
    }
}

fn send(socket: &UdpSocket, flow: &Flow, start: Instant, stop: &AtomicBool) -> Result<u64> {
    let to = SocketAddr::from((flow.destination, flow.port));
    let interval = Duration::from_secs(1) / flow.rate;
    let first = Instant::now();
    let mut payload: Vec<u8> =
        [0; 16].iter().chain(PLANTED.iter().cycle()).copied().take(flow.payload).collect();
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let due = first + interval * u32::try_from(number)?;
        sleep(due.saturating_duration_since(Instant::now()));
        payload[..8].copy_from_slice(&number.to_be_bytes());
        payload[8..16].copy_from_slice(&nanos(start.elapsed()).to_be_bytes());
        socket.send_to(&payload, to).with_context(|| format!("packet {number} to {to}"))?;
        number += 1;
    }
    Ok(number)
}

fn receive(
    socket: &UdpSocket,
    expected: usize,
    start: Instant,
    drained: &AtomicBool,
    arrived: &AtomicU64,
) -> Result<Vec<Arrival>> {
    let mut arrivals = Vec::new();
    let mut payload = [0_u8; 9216];
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes);
    while !drained.load(Ordering::Relaxed) {
        match socket.recv(&mut payload) {
            Ok(length) if length == expected => {
                let (number, sent) = (word(&payload[..8])?, word(&payload[8..16])?);
                arrivals.push(Arrival { number, sent, received: nanos(start.elapsed()) });
                arrived.fetch_add(1, Ordering::Relaxed);
            }
            Ok(length) => anyhow::bail!("a packet of {length} bytes where {expected} were sent"),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(e) => return Err(e).context("receiving"),
        }
    }
    Ok(arrivals)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Consecutive packets that did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Number of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// What became of a flow's packets.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Source and destination.
    pub ends: (IpAddr, IpAddr),
    /// Packets sent.
    pub sent: u64,
    /// Numbers that arrived at least once.
    pub received: u64,
    /// Numbers that never arrived.
    pub lost: u64,
    /// Arrivals of a number that had arrived before.
    pub duplicated: u64,
    /// Arrivals behind a higher number.
    pub reordered: u64,
    /// The losses in order.
    pub gaps: Vec<Gap>,
    /// The longest time in which nothing arrived, from the first packet's sending on.
    pub longest_silence: Duration,
    /// When that silence began, since the stream's start.
    pub silence_began: Duration,
    /// Microseconds from sending to arrival.
    pub latency: Histogram<u64>,
}

impl Tally {
    fn of(ends: (IpAddr, IpAddr), sent: u64, arrivals: &[Arrival]) -> Result<Self> {
        let mut seen = vec![false; usize::try_from(sent)?];
        let mut latency = Histogram::new_with_bounds(1, 60_000_000, 3)?;
        let (mut duplicated, mut reordered, mut highest) = (0, 0, None);
        let (mut silence, mut began, mut last) = (0, 0, 0);
        for arrival in arrivals {
            let slot = seen.get_mut(usize::try_from(arrival.number)?).context("a number never sent")?;
            duplicated += u64::from(std::mem::replace(slot, true));
            reordered += u64::from(highest.is_some_and(|h| arrival.number < h));
            highest = highest.max(Some(arrival.number));
            latency.saturating_record((arrival.received - arrival.sent) / 1000);
            if arrival.received - last > silence {
                (silence, began) = (arrival.received - last, last);
            }
            last = arrival.received;
        }
        let mut gaps: Vec<Gap> = Vec::new();
        for first in (0..sent).filter(|&n| !usize::try_from(n).is_ok_and(|n| seen[n])) {
            match gaps.last_mut() {
                Some(gap) if gap.first + gap.count == first => gap.count += 1,
                _ => gaps.push(Gap { first, count: 1 }),
            }
        }
        let lost = gaps.iter().map(|g| g.count).sum();
        Ok(Self {
            ends,
            sent,
            received: sent - lost,
            lost,
            duplicated,
            reordered,
            gaps,
            longest_silence: Duration::from_nanos(silence),
            silence_began: Duration::from_nanos(began),
            latency,
        })
    }

    /// Whether every packet arrived, once.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.sent > 0 && self.lost == 0 && self.duplicated == 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = self.ends;
        write!(
            f,
            "{from} → {to}: sent {}, lost {}, duplicated {}, reordered {}; latency µs p50 {} p99 {} max {}; longest silence {:.1} ms (at {:.3} s)",
            self.sent,
            self.lost,
            self.duplicated,
            self.reordered,
            self.latency.value_at_quantile(0.5),
            self.latency.value_at_quantile(0.99),
            self.latency.max(),
            self.longest_silence.as_secs_f64() * 1e3,
            self.silence_began.as_secs_f64(),
        )?;
        for gap in self.gaps.iter().take(8) {
            write!(f, "; lost {} from no. {}", gap.count, gap.first)?;
        }
        Ok(())
    }
}

/// Now, as captures tell it: since the Unix epoch.
#[must_use]
pub fn wall_clock() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn tally(sent: u64, numbers: &[u64]) -> Tally {
        let arrived = |(&number, at): (&u64, u64)| Arrival { number, sent: 0, received: at * 1000 };
        let arrivals: Vec<_> = numbers.iter().zip(1..).map(arrived).collect();
        Tally::of((Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()), sent, &arrivals).unwrap()
    }

    #[test]
    fn what_is_lost_doubled_or_late_is_counted() {
        let whole = tally(3, &[0, 1, 2]);
        assert!(whole.is_whole() && whole.reordered == 0);
        let torn = tally(7, &[0, 2, 1, 1, 5]);
        assert_eq!((torn.lost, torn.duplicated, torn.reordered), (3, 1, 2));
        assert_eq!(torn.gaps, [Gap { first: 3, count: 2 }, Gap { first: 6, count: 1 }]);
        assert!(!torn.is_whole());
        assert!(!tally(0, &[]).is_whole(), "nothing sent proves nothing");
    }

    #[test]
    fn numbered_packets_cross_a_veth() {
        let guardian = crate::guardian::Guardian::start().unwrap();
        let name = |end| format!("nave-{end}-{}", std::process::id());
        let left = Arc::new(Namespace::add(&guardian, &name("left")).unwrap());
        let right = Arc::new(Namespace::add(&guardian, &name("right")).unwrap());
        left.ip(&format!("link add e type veth peer name e netns {}", right.name())).unwrap();
        for (namespace, addr) in [(&left, "10.0.0.1/24"), (&right, "10.0.0.2/24")] {
            namespace.ip(&format!("addr add {addr} dev e")).unwrap();
            namespace.ip("link set e up").unwrap();
        }
        let (source, destination) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let flow =
            Flow { from: left, source, to: right.clone(), destination, port: 5000, rate: 1000, payload: 100 };
        let stream = Stream::start(flow.clone()).unwrap();
        sleep(Duration::from_millis(300));
        let tally = stream.finish().unwrap();
        assert!(tally.is_whole() && tally.sent >= 250, "{tally}");

        let stream = Stream::start(flow).unwrap();
        sleep(Duration::from_millis(200));
        right.ip("link set e down").unwrap();
        sleep(Duration::from_millis(200));
        let tally = stream.finish().unwrap();
        assert!(tally.lost > 100, "{tally}");
    }
}
