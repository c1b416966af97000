//! The control plane's hold on a twin.

use crate::device::{Before, Device};
use crate::{Error, Kind};

/// A detached queue: as long as it is open the twin has carrier, whether or not a data plane is there; no packet ever
/// comes to it. Dropping it leaves the twin, which is persistent, to its other queues or to the next anchor.
#[derive(Debug)]
pub struct Anchor {
    device: Device,
    adopted: bool,
}

impl Anchor {
    /// Makes the twin, or takes hold of it if it is there, in the network namespace of this thread. A new twin is down and
    /// has no addresses.
    ///
    /// # Errors
    /// [`Error::Foreign`] if a device of this name is there that is not persistent, is of another kind or has one queue;
    /// [`Error::Refused`] otherwise, with the kernel's reason. Nothing is left behind then.
    pub fn create(name: &str, kind: Kind) -> Result<Self, Error> {
        let (device, before) = Device::open(name, kind, true)?;
        device.detach()?;
        device.persist(true)?;
        Ok(Self { device, adopted: before == Before::Persistent })
    }

    /// Whether the twin was there before.
    #[must_use]
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Name of the twin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.device.name
    }

    /// Gives the twin up: it goes with its last queue, which is at once if no data plane is attached. (Deleting the link by
    /// netlink takes it from under the data plane's queue as well; see [`crate::is_gone`].)
    ///
    /// # Errors
    /// [`Error::Refused`] if the twin was deleted by somebody else.
    pub fn remove(self) -> Result<(), Error> {
        self.device.persist(false)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::UdpSocket;
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn nothing_is_delivered_into_a_detached_queue() {
        let read = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let anchor = Anchor::create("t0", Kind::Tun).unwrap();
            for args in ["link set t0 up", "addr add 10.255.0.1/24 dev t0"] {
                assert!(Command::new("ip").args(args.split(' ')).status().unwrap().success());
            }
            let socket = UdpSocket::bind("10.255.0.1:0").unwrap();
            for _ in 0..10 {
                socket.send_to(b"lost", "10.255.0.2:9").unwrap();
            }
            (&anchor.device.file).read(&mut [0; 64]).unwrap_err().kind()
        });
        assert_eq!(read.join().unwrap(), ErrorKind::WouldBlock);
    }
}
