//! What passes on a wire.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};

use crate::netns::Namespace;

/// One Ethernet frame, as it entered the bridge.
#[derive(Debug, Clone)]
pub struct Frame {
    /// When, since the Unix epoch (the kernel's stamp).
    pub at: Duration,
    /// Its bytes, [`SNAP`] at most.
    pub bytes: Vec<u8>,
    /// Its real length.
    pub length: usize,
}

/// Bytes kept of each frame: all that an underlay of 1,500 bytes carries.
pub const SNAP: usize = 2048;

/// Whether a frame is worth keeping.
pub type Filter = fn(&[u8]) -> bool;

/// Gives each frame that enters a namespace's bridges to somebody, on a thread of its own: once, where it comes in. Dropped, it stops.
#[derive(Debug)]
pub(crate) struct Tap {
    stop: Arc<AtomicBool>,
    missed: Arc<AtomicU32>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Tap {
    /// Starts with what comes in by any interface but this bridge itself.
    pub(crate) fn start(
        namespace: &Namespace,
        bridge: &str,
        mut take: impl FnMut(Frame) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let bridge = namespace.link_index(bridge)?;
        let fd = namespace
            .run(|| socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), SockProtocol::EthAll))?
            .context("packet socket")?;
        setsockopt(&fd, sockopt::RcvBufForce, &(64 << 20))?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&fd, sockopt::RxqOvfl, &1)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000))?;
        let (stop, missed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let thread = std::thread::spawn({
            let (stop, missed) = (stop.clone(), missed.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Some(frame) = receive(&fd, bridge, &missed)? {
                        take(frame)?;
                    }
                }
                Ok(())
            }
        });
        Ok(Self { stop, missed, thread: Some(thread) })
    }

    /// Ends it after all that is on its way; how many frames were too many for it.
    pub(crate) fn finish(mut self) -> Result<u32> {
        std::thread::sleep(Duration::from_millis(50));
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow::anyhow!("the capture panicked"))??;
        }
        Ok(self.missed.load(Ordering::Relaxed))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A capture that runs, of all frames that enter a namespace's bridge: each once, where it comes in.
#[derive(Debug)]
pub struct Capture {
    frames: Arc<Mutex<Vec<Frame>>>,
    tap: Tap,
}

impl Capture {
    /// Starts one of what comes in by any interface but the bridge itself.
    ///
    /// # Errors
    /// No packet socket, or no such bridge.
    pub fn start(namespace: &Namespace, bridge: &str, keep: Filter) -> Result<Self> {
        let frames = Arc::new(Mutex::new(Vec::new()));
        let kept = frames.clone();
        let tap = Tap::start(namespace, bridge, move |frame: Frame| {
            if keep(&frame.bytes) {
                kept.lock().map_err(|_| anyhow::anyhow!("capture lost"))?.push(frame);
            }
            Ok(())
        })?;
        Ok(Self { frames, tap })
    }

    /// What has been captured so far.
    #[must_use]
    pub fn frames(&self) -> Vec<Frame> {
        self.frames_after(0)
    }

    /// What has been captured after the first `seen`.
    #[must_use]
    pub fn frames_after(&self, seen: usize) -> Vec<Frame> {
        self.frames.lock().map(|f| f[seen..].to_vec()).unwrap_or_default()
    }

    /// Ends it after all that is on its way.
    ///
    /// # Errors
    /// The socket failed meanwhile.
    pub fn finish(self) -> Result<Vec<Frame>> {
        let Self { frames, tap } = self;
        tap.finish()?;
        Ok(frames.lock().map(|mut frames| std::mem::take(&mut *frames)).unwrap_or_default())
    }
}

/// `PACKET_OUTGOING` of packet(7): the same frame on its way out by another port.
const OUTGOING: u8 = 4;

fn receive(fd: &OwnedFd, bridge: usize, missed: &AtomicU32) -> Result<Option<Frame>> {
    let mut buffer = [0_u8; SNAP];
    let mut room = nix::cmsg_space!(nix::sys::time::TimeSpec, u32);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let message = match recvmsg::<LinkAddr>(fd.as_raw_fd(), &mut parts, Some(&mut room), MsgFlags::MSG_TRUNC)
    {
        Ok(message) => message,
        Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
        Err(error) => return Err(error).context("capturing"),
    };
    let Some(from) = message.address else { return Ok(None) };
    if from.pkttype() == OUTGOING || from.ifindex() == bridge {
        return Ok(None);
    }
    let mut stamp = None;
    for said in message.cmsgs()? {
        match said {
            ControlMessageOwned::ScmTimestampns(at) => stamp = Some(Duration::from(at)),
            ControlMessageOwned::RxqOvfl(count) => missed.store(count, Ordering::Relaxed),
            _ => {}
        }
    }
    let length = message.bytes;
    let bytes = buffer[..length.min(SNAP)].to_vec();
    Ok(Some(Frame { at: stamp.unwrap_or_else(crate::traffic::wall_clock), bytes, length }))
}

/// Writes frames as a pcap file.
///
/// # Errors
/// The file cannot be written.
pub fn save(path: &Path, frames: &[Frame]) -> Result<()> {
    std::fs::write(path, pcap(frames)?).with_context(|| path.display().to_string())
}

/// Frames as the bytes of a pcap file.
///
/// # Errors
/// A frame is longer than such a file can say.
pub fn pcap(frames: &[Frame]) -> Result<Vec<u8>> {
    let header = PcapHeader { ts_resolution: pcap_file::TsResolution::NanoSecond, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(Vec::new(), header)?;
    for frame in frames {
        let length = u32::try_from(frame.length)?;
        writer.write_packet(&PcapPacket::new(frame.at, length, &frame.bytes))?;
    }
    Ok(writer.into_writer())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::guardian::Guardian;

    #[test]
    fn a_bridged_frame_is_captured_once_and_survives_the_file() {
        let guardian = Guardian::start().unwrap();
        let add =
            |end: &str| Namespace::add(&guardian, &format!("nave-cap-{end}-{}", std::process::id())).unwrap();
        let (left, wire, right) = (add("l"), add("w"), add("r"));
        wire.ip("link add br0 type bridge mcast_snooping 0 forward_delay 0").unwrap();
        wire.ip("link set br0 up").unwrap();
        for (end, name, address) in [(&left, "l", "10.0.0.1/24"), (&right, "r", "10.0.0.2/24")] {
            end.ip(&format!("link add e type veth peer name {name} netns {}", wire.name())).unwrap();
            end.ip(&format!("addr add {address} dev e")).unwrap();
            end.ip("link set e up").unwrap();
            wire.ip(&format!("link set dev {name} master br0 up")).unwrap();
        }
        let capture = Capture::start(&wire, "br0", |_| true).unwrap();
        left.check("ping", &["-c", "2", "-i", "0.2", "-s", "1000", "10.0.0.2"]).unwrap();
        let frames = capture.finish().unwrap();
        let pings: Vec<_> = frames.iter().filter(|f| f.bytes[12..14] == [8, 0]).collect();
        assert_eq!(pings.len(), 4, "two requests, two replies");
        assert!(pings.iter().all(|f| f.length == 1042 && f.bytes.len() == 1042));
        assert!(frames.windows(2).all(|w| w[0].at <= w[1].at));
        let arp = |operation| {
            frames.iter().filter(|f| f.bytes[12..14] == [8, 6] && f.bytes[21] == operation).count()
        };
        // Who has to wait asks again.
        assert!(arp(1) >= arp(2) && arp(2) > 0, "ARP too, of both sides");

        let path = std::env::temp_dir().join(format!("nave-capture-{}.pcap", std::process::id()));
        save(&path, &frames).unwrap();
        let mut file = pcap_file::pcap::PcapReader::new(File::open(&path).unwrap()).unwrap();
        let mut read = Vec::new();
        while let Some(packet) = file.next_packet() {
            let packet = packet.unwrap();
            read.push((packet.timestamp, packet.data.to_vec()));
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read, frames.into_iter().map(|f| (f.at, f.bytes)).collect::<Vec<_>>());
    }
}
