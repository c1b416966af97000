//! Two netlink sockets of a namespace: one that asks and one that listens.

use std::io;

use futures::StreamExt as _;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteHeader, RouteMessage, RouteProtocol};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::sys::{
    AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE,
};
use tokio::task::JoinHandle;

use super::fact::Fact;
use super::netns::Site;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The kernel's answer.
    #[error("{0}")]
    Refused(io::Error),
    /// The socket broke.
    #[error("the netlink socket is closed")]
    Closed,
}

impl Error {
    /// Whether the kernel answered with one of these.
    pub(super) fn is(&self, kinds: &[io::ErrorKind]) -> bool {
        matches!(self, Self::Refused(error) if kinds.contains(&error.kind()))
    }

    /// There is no such thing: `ENODEV`, `ENOENT`, `ESRCH`, `EADDRNOTAVAIL`.
    pub(super) fn is_absence(&self) -> bool {
        const ESRCH: i32 = 3;
        const ENODEV: i32 = 19;
        self.is(&[io::ErrorKind::NotFound, io::ErrorKind::AddrNotAvailable])
            || matches!(self, Self::Refused(error) if matches!(error.raw_os_error(), Some(ESRCH | ENODEV)))
    }
}

/// Opens a socket in a namespace for this tokio runtime.
fn open_in<T: Send>(site: &Site, open: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let runtime = tokio::runtime::Handle::current();
    let opened = site.within(|| {
        let _entered = runtime.enter();
        open()
    });
    opened.map_err(io::Error::other)?
}

/// The socket that asks.
#[derive(Debug)]
pub(super) struct Netlink {
    handle: rtnetlink::Handle,
    driver: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Netlink {
    /// In a namespace. Strict, so that the kernel filters what it dumps.
    pub(super) fn open(site: &Site) -> io::Result<Self> {
        let (connection, handle, _) = open_in(site, rtnetlink::new_connection_with_strict_check)?;
        Ok(Self { handle, driver: tokio::spawn(connection) })
    }

    /// Asks for one change. `flags` are those beside `NLM_F_REQUEST` and `NLM_F_ACK`.
    pub(super) async fn change(&self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Error> {
        self.ask(message, NLM_F_ACK | flags).await.map(drop)
    }

    /// Asks for one thing.
    pub(super) async fn one(
        &self,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, Error> {
        Ok(self.ask(message, 0).await?.pop())
    }

    /// All links.
    pub(super) async fn links(&self) -> Result<Vec<Fact>, Error> {
        self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default())).await
    }

    /// All addresses.
    pub(super) async fn addresses(&self) -> Result<Vec<Fact>, Error> {
        self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default())).await
    }

    /// All neighbours.
    pub(super) async fn neighbours(&self) -> Result<Vec<Fact>, Error> {
        self.dump(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default())).await
    }

    /// The routes of the main table, of one protocol if it is given.
    pub(super) async fn routes(&self, protocol: Option<RouteProtocol>) -> Result<Vec<Fact>, Error> {
        let mut facts = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.header.table = RouteHeader::RT_TABLE_MAIN;
            message.header.protocol = protocol.unwrap_or_default();
            match self.dump(RouteNetlinkMessage::GetRoute(message)).await {
                // A kernel without IPv6 answers with the other family.
                Ok(found) => facts.extend(found.into_iter().filter(|fact| {
                    matches!(fact, Fact::Route { route, .. }
                        if route.prefix.addr().is_ipv4() == (family == AddressFamily::Inet))
                })),
                // A namespace has no main table until a first route is put there.
                Err(error) if error.is_absence() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(facts)
    }

    async fn dump(&self, message: RouteNetlinkMessage) -> Result<Vec<Fact>, Error> {
        Ok(self.ask(message, NLM_F_DUMP).await?.into_iter().filter_map(|m| Fact::parse(m, 0)).collect())
    }

    async fn ask(&self, message: RouteNetlinkMessage, flags: u16) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        let mut answers = self.handle.clone().request(message).map_err(|_| Error::Closed)?;
        let mut found = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(Error::Refused(error.to_io()));
                }
                NetlinkPayload::InnerMessage(message) => found.push(message),
                _ => {}
            }
        }
        if self.driver.is_finished() { Err(Error::Closed) } else { Ok(found) }
    }
}

/// The socket that listens.
pub(super) struct Monitor(TokioSocket);

impl Monitor {
    const GROUPS: [MulticastGroup; 7] = [
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Nexthop,
    ];
    /// Bytes of notifications that the kernel keeps for us, if it lets us: some thousand.
    const BUFFER: i32 = 4 << 20;

    /// In a namespace.
    pub(super) fn open(site: &Site) -> io::Result<Self> {
        let mut socket = open_in(site, || TokioSocket::new(NETLINK_ROUTE))?;
        // The default is enough to work with: what does not fit costs a resync.
        socket.socket_ref().set_rx_buf_sz(Self::BUFFER).ok();
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        for group in Self::GROUPS {
            socket.socket_mut().add_membership(group as u32)?;
        }
        Ok(Self(socket))
    }

    /// The next notifications. May be abandoned while it waits.
    ///
    /// # Errors
    /// `ENOBUFS` when the kernel had to drop some, and whatever else a socket may say: open another and dump again.
    pub(super) async fn next(&mut self) -> io::Result<Vec<Fact>> {
        let (datagram, _) = self.0.recv_from_full().await?;
        Ok(facts(&datagram))
    }

    /// Notifications that are here already, if there are any.
    ///
    /// # Errors
    /// As of [`Self::next`].
    pub(super) fn at_hand(&self) -> io::Result<Option<Vec<Fact>>> {
        match self.0.socket_ref().recv_from_full() {
            Ok((datagram, _)) => Ok(Some(facts(&datagram))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Of the kernel's `rtnetlink.h`; the crate that parses messages does not know nexthop objects.
const RTM_DELNEXTHOP: u16 = 105;

fn facts(datagram: &[u8]) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut rest = datagram;
    // Each message has its length in front, padded to four bytes (netlink(7), NLMSG_NEXT).
    while let Ok(buffer) = NetlinkBuffer::new_checked(rest) {
        let length = buffer.length() as usize;
        if buffer.message_type() == RTM_DELNEXTHOP {
            facts.push(Fact::NexthopGone);
        } else if let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length])
            && let NetlinkPayload::InnerMessage(inner) = message.payload
        {
            facts.extend(Fact::parse(inner, message.header.flags));
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    facts
}
