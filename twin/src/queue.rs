//! The data plane's end of a twin.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::device::Device;
use crate::{Error, Kind, in_netns};

/// An attached queue: what the kernel sends by the twin is read here, what is written here the kernel receives from the
/// twin. Nonblocking.
#[derive(Debug)]
pub struct Queue {
    device: Device,
}

impl Queue {
    /// Attaches a queue to the twin `name` in `netns` (a file, or a name as `ip netns` has it; `None`: the namespace of this
    /// thread). The queue then works from any namespace. From this moment it gets what the kernel sends.
    ///
    /// # Errors
    /// [`Error::Absent`] while there is no such device: try again later; [`Error::Foreign`] if it is no twin;
    /// [`Error::Netns`], [`Error::Refused`].
    pub fn attach(name: &str, kind: Kind, netns: Option<&Path>) -> Result<Self, Error> {
        let open = || Device::open(name, kind, false);
        let (device, _) = match netns {
            Some(netns) => in_netns(netns, open)??,
            None => open()?,
        };
        Ok(Self { device })
    }

    /// Name of the twin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.device.name
    }

    /// One frame (TAP) or IP packet (TUN) that the kernel sent; its length in bytes. What does not fit into `into` is cut off.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; see [`is_gone`] for a twin that was deleted.
    pub fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        (&self.device.file).read(into)
    }

    /// Gives the kernel one frame or IP packet, as received by the twin.
    ///
    /// # Errors
    /// `EIO` if the twin is down, `EINVAL` if these bytes are no frame or no IP packet; see [`is_gone`] for a twin that was
    /// deleted.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        (&self.device.file).write(packet).map(drop)
    }
}

impl AsFd for Queue {
    /// For epoll: readable when the kernel sent something, `EPOLLERR` when the twin was deleted.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.file.as_fd()
    }
}

/// Whether an error of [`Queue::read`] or [`Queue::write`] says that the twin was deleted (`EBADFD`): the queue is of no
/// more use, and [`Queue::attach`] finds the next twin of that name when there is one.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADFD)
}
