//! What passes on a wire.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Bytes kept of each frame: whole control messages, headers of the rest.
pub const SNAP: usize = 512;

/// Whether a frame is worth keeping.
pub type Filter = fn(&[u8]) -> bool;

/// A capture that runs, of all frames that enter a namespace's bridge: each once, where it comes in.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    frames: Arc<Mutex<Vec<Frame>>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Capture {
    /// Starts one of what comes in by any interface but the bridge itself.
    ///
    /// # Errors
    /// No packet socket, or no such bridge.
    pub fn start(namespace: &Namespace, bridge: &str, keep: Filter) -> Result<Self> {
        let bridge = namespace.link_index(bridge)?;
        let fd = namespace
            .run(|| socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), SockProtocol::EthAll))?
            .context("packet socket")?;
        setsockopt(&fd, sockopt::RcvBufForce, &(64 << 20))?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000))?;
        let (stop, frames) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let thread = std::thread::spawn({
            let (stop, frames) = (stop.clone(), frames.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Some(frame) = receive(&fd, bridge)?.filter(|f| keep(&f.bytes)) {
                        frames.lock().map_err(|_| anyhow::anyhow!("capture lost"))?.push(frame);
                    }
                }
                Ok(())
            }
        });
        Ok(Self { stop, frames, thread: Some(thread) })
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
    pub fn finish(mut self) -> Result<Vec<Frame>> {
        std::thread::sleep(Duration::from_millis(50));
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow::anyhow!("the capture panicked"))??;
        }
        Ok(self.frames())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `PACKET_OUTGOING` of packet(7): the same frame on its way out by another port.
const OUTGOING: u8 = 4;

fn receive(fd: &OwnedFd, bridge: usize) -> Result<Option<Frame>> {
    let mut buffer = [0_u8; SNAP];
    let mut room = nix::cmsg_space!(nix::sys::time::TimeSpec);
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
    let stamp = message.cmsgs()?.find_map(|c| match c {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
        _ => None,
    });
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
        assert!(pings.iter().all(|f| f.length == 1042 && f.bytes.len() == SNAP));
        assert!(frames.windows(2).all(|w| w[0].at <= w[1].at));
        assert_eq!(frames.iter().filter(|f| f.bytes[12..14] == [8, 6]).count() % 2, 0, "ARP too, once each");

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
