//! UDP sockets of IKE: one for each own address and port, in the network namespace of its table. They are open for as long as the conductor
//! wants them; one that cannot be opened is tried again, and that is said once.
//!
//! What the kernel sends by them goes through the port's twin into the data plane, and what the data plane has for the box comes back that
//! way. An address may be none of the kernel's yet, or not any more: the socket is there all the same (`IP_FREEBIND`).

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket as Unread};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::conductor::{Datagram, Endpoint, Input};
use crate::kernel::Notice;
use crate::queue::Queue;

/// A socket that could not be opened is tried again after this.
const AGAIN: Duration = Duration::from_secs(2);
/// Datagrams that may wait for the conductor; with more the oldest goes, and is sent again by its peer.
const WAITING: usize = 8192;
/// Bytes that the kernel may hold for a socket: thousands of peers may come back at once.
const BUFFER: usize = 8 << 20;
/// The largest datagram.
const LARGEST: usize = 65_535;

/// The sockets that are open, or to be.
pub struct Sockets {
    inputs: mpsc::Sender<Input>,
    /// What came.
    pub datagrams: Queue<Datagram>,
    open: BTreeMap<Endpoint, One>,
}

/// One of them.
struct One {
    task: JoinHandle<()>,
    socket: Arc<OnceLock<Open>>,
}

/// A socket that is open, by two descriptors.
struct Open {
    receiving: UdpSocket,
    /// The runtime lets nobody send before it has heard that there is room, and the first datagram is sent right behind the opening.
    sending: Unread,
}

impl Open {
    fn new(socket: Unread) -> io::Result<Self> {
        let sending = socket.try_clone()?;
        Ok(Self { receiving: UdpSocket::from_std(socket)?, sending })
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sockets {
    /// None yet. What goes wrong is told to `inputs`.
    #[must_use]
    pub fn new(inputs: mpsc::Sender<Input>) -> Self {
        Self { inputs, datagrams: Queue::new(WAITING), open: BTreeMap::new() }
    }

    /// These are to be open, and no others.
    pub fn listen(&mut self, wanted: Vec<Endpoint>) {
        self.open.retain(|endpoint, _| wanted.contains(endpoint));
        for endpoint in wanted {
            if self.open.contains_key(&endpoint) {
                continue;
            }
            // At once, if it can be: the first datagram is about to be sent by it.
            let socket = Arc::new(OnceLock::new());
            if let Ok(open) = open(&endpoint).and_then(Open::new) {
                let _ = socket.set(open);
            }
            let (inputs, datagrams) = (self.inputs.clone(), self.datagrams.clone());
            let task = tokio::spawn(receive(endpoint.clone(), Arc::clone(&socket), inputs, datagrams));
            self.open.insert(endpoint, One { task, socket });
        }
    }

    /// Sends by the socket of its address. What cannot be sent at once is lost, as any datagram may be: IKE sends it again.
    pub fn send(&self, datagram: &Datagram) {
        let Datagram { table, local, remote, bytes } = datagram;
        let is_it = |endpoint: &&Endpoint| (endpoint.table, endpoint.local) == (*table, *local);
        let socket =
            self.open.iter().find(|(endpoint, _)| is_it(endpoint)).and_then(|(_, one)| one.socket.get());
        let sent = socket.map(|socket| socket.sending.send_to(bytes, *remote));
        if let Some(Err(error)) = sent {
            tracing::debug!(%local, %remote, %error, "a datagram of IKE was not sent");
        }
    }
}

/// Opens a socket, and hands up what comes.
async fn receive(
    endpoint: Endpoint,
    cell: Arc<OnceLock<Open>>,
    inputs: mpsc::Sender<Input>,
    datagrams: Queue<Datagram>,
) {
    let mut told = String::new();
    let socket = loop {
        if let Some(socket) = cell.get() {
            break socket;
        }
        match open(&endpoint).and_then(Open::new) {
            Ok(socket) => {
                let _ = cell.set(socket);
            }
            Err(error) => {
                let reason = error.to_string();
                if reason != told {
                    told.clone_from(&reason);
                    let order = format!("open UDP {} for IKE", endpoint.local);
                    // The conductor may be gone.
                    let _ = inputs.send(Input::Kernel(Notice::Failed { order, reason })).await;
                }
                sleep(AGAIN).await;
            }
        }
    };
    let mut buffer = vec![0; LARGEST];
    loop {
        match socket.receiving.recv_from(&mut buffer).await {
            Ok((len, remote)) => datagrams.push(Datagram {
                table: endpoint.table,
                local: endpoint.local,
                remote: plain(remote),
                bytes: buffer.get(..len).unwrap_or_default().to_vec(),
            }),
            // An ICMP message about what was sent: who does not answer is found out otherwise.
            Err(error) => tracing::debug!(local = %endpoint.local, %error, "IKE"),
        }
    }
}

/// Without flow label and scope: what tells peers apart is address and port.
fn plain(from: SocketAddr) -> SocketAddr {
    SocketAddr::new(from.ip(), from.port())
}

fn open(endpoint: &Endpoint) -> io::Result<Unread> {
    let local = endpoint.local;
    let bind = move || -> io::Result<Unread> {
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
        if local.is_ipv6() {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        } else {
            socket.set_freebind_v4(true)?;
        }
        socket.set_nonblocking(true)?;
        // More than others may have, or as much of it as the kernel gives.
        if setsockopt(&socket, RcvBufForce, &BUFFER).is_err() {
            let _ = socket.set_recv_buffer_size(BUFFER);
        }
        if setsockopt(&socket, SndBufForce, &BUFFER).is_err() {
            let _ = socket.set_send_buffer_size(BUFFER);
        }
        socket.bind(&local.into())?;
        Ok(socket.into())
    };
    match &endpoint.netns {
        None => bind(),
        Some(netns) => twin::in_netns(Path::new(netns), bind).map_err(io::Error::other)?,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::TableId;

    fn endpoint(local: &str) -> Endpoint {
        Endpoint { table: TableId(0), netns: None, local: local.parse().unwrap() }
    }

    #[tokio::test]
    async fn datagrams_go_and_come_by_the_socket_of_their_address() {
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let local = free.local_addr().unwrap();
        let (inputs, mut heard) = mpsc::channel(8);
        let mut sockets = Sockets::new(inputs);
        // Somebody has it: that is said once, and it is tried again.
        sockets.listen(vec![endpoint(&local.to_string())]);
        let Some(Input::Kernel(Notice::Failed { order, reason })) = heard.recv().await else { panic!() };
        assert_eq!(order, format!("open UDP {local} for IKE"));
        assert!(reason.contains("in use"), "{reason}");
        drop(free);
        let peer = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let is_open = async {
            while sockets.open.values().any(|one| one.socket.get().is_none()) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), is_open).await.unwrap();
        peer.send_to(b"up", local).await.unwrap();
        let remote = peer.local_addr().unwrap();
        let came = tokio::time::timeout(Duration::from_secs(20), sockets.datagrams.pop()).await.unwrap();
        assert_eq!(came, Datagram { table: TableId(0), local, remote, bytes: b"up".to_vec() });
        sockets.send(&Datagram { bytes: b"down".to_vec(), ..came });
        let mut buffer = [0; 16];
        let (len, from) = tokio::time::timeout(Duration::from_secs(20), peer.recv_from(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!((&buffer[..len], from), (&b"down"[..], local));
        // Nobody wants it any more.
        sockets.listen(Vec::new());
        let is_free = async {
            while std::net::UdpSocket::bind(local).is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), is_free).await.unwrap();
    }
}
