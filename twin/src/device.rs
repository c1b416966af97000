//! The ioctls of `/dev/net/tun` (Linux, Documentation/networking/tuntap.rst). All unsafe code of this crate is here.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::net::if_::if_nametoindex;

use crate::{Error, Kind};

/// How every queue of a twin is opened. `IFF_PERSIST` is not among them: it is set by an ioctl of its own.
fn flags(kind: Kind) -> i32 {
    let kind = match kind {
        Kind::Tap => libc::IFF_TAP,
        Kind::Tun => libc::IFF_TUN,
    };
    kind | libc::IFF_NO_PI | libc::IFF_MULTI_QUEUE
}

/// An open queue of a device.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) file: File,
    pub(crate) name: String,
}

/// What a device of the wanted name was before its queue was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    Absent,
    Persistent,
}

impl Device {
    /// Opens a queue of device `name` in the network namespace of this thread, attached and nonblocking. Makes the device if
    /// it is not there and `make`; never joins a device that is not persistent, for that is somebody else's.
    pub(crate) fn open(name: &str, kind: Kind, make: bool) -> Result<(Self, Before), Error> {
        let request = Request::new(name, flags(kind))?;
        let refused = |step| move |source| Error::Refused { name: name.to_owned(), step, source };
        let there = if_nametoindex(name).is_ok();
        if !there && !make {
            return Err(Error::Absent(name.to_owned()));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(refused("open /dev/net/tun"))?;
        let foreign = || Error::Foreign { name: name.to_owned(), kind };
        set_iff(&file, request).map_err(|source| match source.raw_os_error() {
            // Another kind of device, or one with a single queue.
            Some(libc::EINVAL | libc::EBUSY) if there => foreign(),
            _ => refused("TUNSETIFF")(source),
        })?;
        let device = Self { file, name: name.to_owned() };
        let persistent = status_flags(&device.file).map_err(refused("TUNGETIFF"))? & libc::IFF_PERSIST != 0;
        match (there, persistent) {
            (_, true) => Ok((device, Before::Persistent)),
            (false, false) if make => Ok((device, Before::Absent)),
            // It went away since we looked, and ours came and goes with the file.
            (false, false) => Err(Error::Absent(name.to_owned())),
            (true, false) => Err(foreign()),
        }
    }

    /// Whether the device outlives its queues.
    pub(crate) fn persist(&self, on: bool) -> Result<(), Error> {
        // SAFETY: TUNSETPERSIST takes its argument as a number; the descriptor is open for as long as `self.file` lives.
        let result = unsafe { set_persist(self.file.as_raw_fd(), i32::from(on)) };
        result.map(drop).map_err(|errno| self.refused("TUNSETPERSIST", errno.into()))
    }

    /// The queue takes no packets from now on; those that wait in it are dropped.
    pub(crate) fn detach(&self) -> Result<(), Error> {
        let request = Request::new(&self.name, libc::IFF_DETACH_QUEUE)?;
        // SAFETY: TUNSETQUEUE reads one `ifreq`, which lives until after the call; the descriptor is open.
        let result = unsafe { set_queue(self.file.as_raw_fd(), &request.0) };
        result.map(drop).map_err(|errno| self.refused("TUNSETQUEUE", errno.into()))
    }

    fn refused(&self, step: &'static str, source: io::Error) -> Error {
        Error::Refused { name: self.name.clone(), step, source }
    }
}

nix::ioctl_readwrite_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);
nix::ioctl_read_bad!(tun_get_iff, libc::TUNGETIFF, libc::ifreq);
nix::ioctl_write_int_bad!(set_persist, libc::TUNSETPERSIST);
nix::ioctl_write_ptr_bad!(set_queue, libc::TUNSETQUEUE, libc::ifreq);

fn set_iff(file: &File, mut request: Request) -> io::Result<()> {
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives until after the call; the descriptor is open.
    unsafe { tun_set_iff(file.as_raw_fd(), &mut request.0) }?;
    Ok(())
}

fn status_flags(file: &File) -> io::Result<i32> {
    let mut request = Request::blank();
    // SAFETY: TUNGETIFF writes one `ifreq`, which lives until after the call; the descriptor is open.
    unsafe { tun_get_iff(file.as_raw_fd(), &mut request.0) }?;
    // SAFETY: TUNGETIFF fills `ifru_flags`; any bits are a number.
    Ok(i32::from(unsafe { request.0.ifr_ifru.ifru_flags }))
}

/// `struct ifreq` with a name and flags.
struct Request(libc::ifreq);

impl Request {
    fn blank() -> Self {
        // SAFETY: `ifreq` is bytes, numbers and a null pointer when all its bits are zero: all valid.
        Self(unsafe { std::mem::zeroed() })
    }

    fn new(name: &str, flags: i32) -> Result<Self, Error> {
        let mut request = Self::blank();
        if name.is_empty() || name.len() >= request.0.ifr_name.len() || name.contains('\0') {
            return Err(Error::Name(name.to_owned()));
        }
        for (to, from) in request.0.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        // The kernel's field is 16 bits wide, and every flag of TUNSETIFF fits.
        request.0.ifr_ifru.ifru_flags = flags as libc::c_short;
        Ok(request)
    }
}
