//! A Unix socket to serve on: who may connect, and what becomes of a file that a dead process left.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, chown};

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Permission bits of the file.
    pub mode: u32,
    /// Its owner; who starts the process if not given.
    pub uid: Option<u32>,
    /// Its group; that of who starts the process if not given.
    pub gid: Option<u32>,
}

impl Default for Access {
    fn default() -> Self {
        Self { mode: 0o660, uid: None, gid: None }
    }
}

/// Why a socket cannot be served on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process serves on it.
    #[error("{}: another process serves on this socket", .0.display())]
    InUse(PathBuf),
    /// The path leads to something that is no socket; it is left alone.
    #[error("{}: this is a file, and not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("{}: {cannot}: {error}", .path.display())]
    System {
        /// The path.
        path: PathBuf,
        /// What was tried.
        cannot: &'static str,
        /// What it said.
        error: io::Error,
    },
}

/// A bound socket. Its file goes when this is dropped, unless another process has put its own there.
#[derive(Debug)]
pub struct Socket {
    listener: Option<UnixListener>,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl Socket {
    /// Binds and listens. The directory is made if there is none. Nobody but the owner can connect before the mode is set.
    ///
    /// # Errors
    /// A process that serves there, a file that is no socket, what the system says.
    pub fn bind(path: &Path, access: Access) -> Result<Self, Error> {
        let failed = |cannot| move |error: io::Error| Error::System { path: path.to_owned(), cannot, error };
        let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(directory);
        made.map_err(failed("cannot make its directory"))?;
        // Two processes that start at once look for a dead one's file one after the other.
        let directory = fs::File::open(directory).map_err(failed("cannot open its directory"))?;
        let lock = Flock::lock(directory, FlockArg::LockExclusive);
        let _lock = lock.map_err(|(_, error)| failed("cannot lock its directory")(error.into()))?;
        remove_stale(path)?;

        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let failed_nix = |cannot| move |error: nix::Error| failed(cannot)(error.into());
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None);
        let fd = fd.map_err(failed_nix("cannot make a socket"))?;
        fchmod(&fd, Mode::from_bits_truncate(0o600)).map_err(failed_nix("cannot set its mode"))?;
        let addr = UnixAddr::new(path).map_err(failed_nix("cannot be a socket's path"))?;
        bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &addr).map_err(failed_nix("cannot bind"))?;
        let file = fs::symlink_metadata(path).map_err(failed("cannot be looked at"))?;
        // From here on a failure takes the file away again.
        let mut bound = Self { listener: None, path: path.to_owned(), file: (file.dev(), file.ino()) };
        chown(path, access.uid.map(Uid::from_raw), access.gid.map(Gid::from_raw))
            .map_err(failed_nix("cannot set its owner"))?;
        fs::set_permissions(path, fs::Permissions::from_mode(access.mode))
            .map_err(failed("cannot set its mode"))?;
        listen(&fd, Backlog::MAXCONN).map_err(failed_nix("cannot listen"))?;
        bound.listener = Some(UnixListener::from(fd));
        Ok(bound)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The listener, non-blocking; at most once.
    pub(crate) fn take(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if ours {
            // Nothing can be done about a file that stays; the next start removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket file on which nobody listens.
fn remove_stale(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(Error::System { path: path.to_owned(), cannot: "cannot be looked at", error });
        }
        Ok(file) if !file.file_type().is_socket() => return Err(Error::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        // It listens: its queue is full, or we may not connect.
        _ => return Err(Error::InUse(path.to_owned())),
    }
    let removed = fs::remove_file(path);
    removed.map_err(|error| Error::System {
        path: path.to_owned(),
        cannot: "cannot remove the old one",
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of this test's own.
    struct Room(PathBuf);

    impl Room {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("nave-socket-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn it_has_its_mode_and_goes_with_its_owner() {
        let room = Room::new("mode");
        let path = room.0.join("made/for/it.sock");
        let socket = Socket::bind(&path, Access::default()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_processs_file_is_replaced_and_a_living_ones_is_not() {
        let room = Room::new("stale");
        let path = room.0.join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file");
        let living = Socket::bind(&path, Access { mode: 0o600, ..Access::default() }).unwrap();
        assert!(matches!(Socket::bind(&path, Access::default()), Err(Error::InUse(p)) if p == path));
        // One that lost its path to another leaves the other's file alone.
        fs::remove_file(&path).unwrap();
        let other = Socket::bind(&path, Access::default()).unwrap();
        drop(living);
        assert!(path.exists());
        drop(other);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let room = Room::new("file");
        let path = room.0.join("file");
        fs::write(&path, "precious").unwrap();
        let refused = Socket::bind(&path, Access::default()).unwrap_err();
        assert_eq!(refused.to_string(), format!("{}: this is a file, and not a socket", path.display()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let long = room.0.join("x".repeat(120));
        assert!(matches!(Socket::bind(&long, Access::default()), Err(Error::System { .. })));
    }
}
