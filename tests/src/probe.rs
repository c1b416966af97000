//! A station on the underlay that sends whatever bytes it is told to.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use twin::{Anchor, Kind, Queue};

use crate::cloud::{BRIDGE, Cloud};
use crate::{frame, wait};

/// Its Ethernet address.
const MAC: [u8; 6] = [2, 0, 0, 0, 0x66, 1];
const BROADCAST: [u8; 6] = [0xff; 6];

/// The station: 203.0.113.66, at the far end of a tap on the bridge.
#[derive(Debug)]
pub struct Probe {
    queue: Queue,
    // Keeps the tap.
    _anchor: Anchor,
}

impl Probe {
    /// Its address.
    pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

    /// Plugs it in.
    ///
    /// # Errors
    /// The tap cannot be made.
    pub fn plug_in(cloud: &Cloud) -> Result<Self> {
        let internet = &cloud.internet;
        let anchor = internet.run(|| Anchor::create("probe", Kind::Tap))??;
        internet.ip(&format!("link set dev probe master {BRIDGE} up"))?;
        let queue = Queue::attach("probe", Kind::Tap, Some(Path::new(internet.name())))?;
        Ok(Self { queue, _anchor: anchor })
    }

    /// Asks by ARP who has an address.
    ///
    /// # Errors
    /// Nobody within three seconds.
    pub fn resolve(&self, address: Ipv4Addr) -> Result<[u8; 6]> {
        let request = frame::arp(false, MAC, Self::ADDRESS, [0; 6], address);
        wait::until(&format!("ARP reply of {address}"), Duration::from_secs(3), || {
            self.queue.write(&frame::ethernet(BROADCAST, MAC, 0x0806, &request))?;
            std::thread::sleep(Duration::from_millis(50));
            let mut buffer = [0; 2048];
            while let Ok(length) = self.queue.read(&mut buffer) {
                let frame = &buffer[..length];
                // Ethernet type ARP, operation reply, sender's protocol address.
                if length >= 42
                    && frame[12..14] == [8, 6]
                    && frame[20..22] == [0, 2]
                    && frame[28..32] == address.octets()
                {
                    return frame[22..28].try_into().context("an ARP packet cut short");
                }
            }
            bail!("no answer")
        })
    }

    /// Sends an IPv4 packet to a station on the underlay.
    ///
    /// # Errors
    /// The tap is gone.
    pub fn send(&self, to: [u8; 6], packet: &[u8]) -> Result<()> {
        self.send_frame(&frame::ethernet(to, MAC, 0x0800, packet))
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The tap is gone.
    pub fn send_frame(&self, frame: &[u8]) -> Result<()> {
        self.queue.write(frame).context("sending from the probe")
    }
}
