//! Twins as they should be.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use model::{InterfaceAddr, InterfaceName};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use twin::Anchor;

use super::fact::{Fact, Link};
use super::netlink::Netlink;
use super::netns::Site;
use super::{ALIAS, Failure, Kind, PROTOCOL, TwinSpec, sysctl};

/// What to do with a twin that was there and is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Somebody wants it so.
    Left,
    /// It was ordered to be there.
    Up,
}

/// The twins that we hold.
#[derive(Debug, Default)]
pub(super) struct Twins(BTreeMap<InterfaceName, Held>);

#[derive(Debug)]
struct Held {
    spec: TwinSpec,
    index: u32,
    /// Keeps the carrier.
    anchor: Anchor,
}

/// What [`Twins::settle`] found or did.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Twins that are no longer there, or whose link is not the one that it was.
    pub(super) gone: Vec<InterfaceName>,
    /// All twins that are there, with their link.
    pub(super) there: Vec<(u32, InterfaceName, Kind)>,
    pub(super) failures: Vec<Failure>,
}

impl Twins {
    /// Removes the twins that we made but for these, and forgets those whose link is not the one that it was.
    pub(super) async fn clear(&mut self, netlink: &Netlink, specs: &[&TwinSpec]) -> Settled {
        let mut settled = Settled::default();
        let links = match links(netlink).await {
            Ok(links) => links,
            Err(failure) => {
                settled.failures.push(failure);
                return settled;
            }
        };
        let wanted = |name: &str| specs.iter().any(|spec| spec.name.as_str() == name);
        for link in links.iter().filter(|link| link.alias == ALIAS && !wanted(&link.name)) {
            settled.failures.extend(remove(netlink, link).await.err());
        }
        let is_there = |held: &Held| {
            links.iter().any(|link| link.index == held.index && link.name == held.spec.name.as_str())
        };
        self.0.retain(|name, held| {
            let keep = wanted(name.as_str()) && is_there(held);
            if !keep {
                settled.gone.push(*name);
            }
            keep
        });
        settled
    }

    /// Makes it so that these twins are there. Changes nothing that is as it should be.
    pub(super) async fn settle(
        &mut self,
        netlink: &Netlink,
        site: &Site,
        specs: &[&TwinSpec],
        state: State,
    ) -> Settled {
        let mut settled = Settled::default();
        let links = match links(netlink).await {
            Ok(links) => links,
            Err(failure) => {
                settled.failures.push(failure);
                return settled;
            }
        };
        for spec in specs {
            let link = links.iter().find(|link| link.name == spec.name.as_str());
            let result = self.settle_one(netlink, site, spec, link, state, &mut settled).await;
            settled.failures.extend(result.err());
            if let Some(held) = self.0.get(&spec.name) {
                settled.there.push((held.index, spec.name, spec.kind));
            }
        }
        settled
    }

    async fn settle_one(
        &mut self,
        netlink: &Netlink,
        site: &Site,
        spec: &TwinSpec,
        link: Option<&Link>,
        state: State,
        settled: &mut Settled,
    ) -> Result<(), Failure> {
        let kind = match spec.kind {
            Kind::Tap { .. } => twin::Kind::Tap,
            Kind::Tun => twin::Kind::Tun,
        };
        if let Some(link) =
            link.filter(|link| link.alias == ALIAS && link.mac.is_some() != (kind == twin::Kind::Tap))
        {
            remove(netlink, link).await?;
            self.0.remove(&spec.name);
            settled.gone.push(spec.name);
        }
        let before = self.0.remove(&spec.name);
        let previous = before.as_ref().map(|held| held.spec.addresses.clone()).unwrap_or_default();
        let (anchor, up) = match before {
            Some(held) => (held.anchor, state == State::Up),
            None => (
                site.within(|| Anchor::create(spec.name.as_str(), kind))
                    .flatten()
                    .map_err(|error| Failure::new("make a twin", error))?,
                true,
            ),
        };
        let link = link_of(netlink, spec.name).await?;
        self.0.insert(spec.name, Held { spec: spec.clone(), index: link.index, anchor });
        match site.within(|| sysctl::settle(spec)) {
            Ok(failures) => settled.failures.extend(failures),
            Err(error) => settled.failures.push(Failure::new(format!("set up twin `{}`", spec.name), error)),
        }
        settle_link(netlink, spec, &link, up).await?;
        settle_addresses(netlink, spec, link.index, &previous, &mut settled.failures).await
    }
}

/// All links.
pub(super) async fn links(netlink: &Netlink) -> Result<Vec<Link>, Failure> {
    let facts = netlink.links().await.map_err(|error| Failure::new("list links", error))?;
    let links = facts.into_iter().filter_map(|fact| match fact {
        Fact::Link { link, .. } => Some(link),
        _ => None,
    });
    Ok(links.collect())
}

async fn link_of(netlink: &Netlink, name: InterfaceName) -> Result<Link, Failure> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    let failed = |error: &dyn ToString| Failure::new(format!("find twin `{name}`"), error.to_string());
    let answer = netlink.one(RouteNetlinkMessage::GetLink(message)).await.map_err(|error| failed(&error))?;
    match answer.and_then(|message| Fact::parse(message, 0)) {
        Some(Fact::Link { link, .. }) => Ok(link),
        _ => Err(failed(&"no answer")),
    }
}

async fn remove(netlink: &Netlink, link: &Link) -> Result<(), Failure> {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    match netlink.change(RouteNetlinkMessage::DelLink(message), 0).await {
        Err(error) if !error.is_absence() => Err(Failure::new(format!("remove twin `{}`", link.name), error)),
        _ => Ok(()),
    }
}

/// Alias, MAC, MTU, and up if `up`: what is not so yet. (Setting the same MAC again would make the kernel forget all neighbours.)
async fn settle_link(netlink: &Netlink, spec: &TwinSpec, link: &Link, up: bool) -> Result<(), Failure> {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    if link.alias != ALIAS {
        message.attributes.push(LinkAttribute::IfAlias(ALIAS.to_owned()));
    }
    if link.mtu != u32::from(spec.mtu) {
        message.attributes.push(LinkAttribute::Mtu(spec.mtu.into()));
    }
    if let Kind::Tap { mac } = spec.kind
        && link.mac != Some(mac)
    {
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    }
    let up = up && !link.up;
    if up {
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
    }
    if !up && message.attributes.is_empty() {
        return Ok(());
    }
    let result = netlink.change(RouteNetlinkMessage::NewLink(message), 0).await;
    result.map_err(|error| {
        Failure::new(format!("set alias, MAC, MTU {} of twin `{}`, up", spec.mtu, spec.name), error)
    })
}

/// Adds what is missing and removes what was ours: by its mark, or (before Linux 5.18, which has no marks) as one of `previous`.
async fn settle_addresses(
    netlink: &Netlink,
    spec: &TwinSpec,
    link: u32,
    previous: &[InterfaceAddr],
    failures: &mut Vec<Failure>,
) -> Result<(), Failure> {
    let failed =
        |what: &str, address: &InterfaceAddr| format!("{what} address {address} of twin `{}`", spec.name);
    let facts = netlink.addresses().await.map_err(|error| Failure::new("list addresses", error))?;
    let there: BTreeMap<_, _> = facts
        .into_iter()
        .filter_map(|fact| match fact {
            Fact::Address { index, address, ours, .. } if index == link => Some((address, ours)),
            _ => None,
        })
        .collect();
    let wanted: &[InterfaceAddr] = if spec.configured { &spec.addresses } else { &[] };
    let stale = |(address, ours): &(&InterfaceAddr, &bool)| {
        !wanted.contains(address) && (**ours || previous.contains(address))
    };
    for (address, _) in there.iter().filter(stale) {
        match netlink
            .change(RouteNetlinkMessage::DelAddress(address_message(link, spec.kind, *address)), 0)
            .await
        {
            Err(error) if !error.is_absence() => {
                failures.push(Failure::new(failed("remove", address), error))
            }
            _ => {}
        }
    }
    for address in wanted.iter().filter(|address| !there.contains_key(address)) {
        let message = RouteNetlinkMessage::NewAddress(address_message(link, spec.kind, *address));
        match netlink.change(message, NLM_F_CREATE | NLM_F_EXCL).await {
            Err(error) if !error.is(&[std::io::ErrorKind::AlreadyExists]) => {
                failures.push(Failure::new(failed("add", address), error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn address_message(link: u32, kind: Kind, address: InterfaceAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = link;
    message.header.prefix_len = address.length();
    message.header.family = match address.addr() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    if address.addr().is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.attributes = vec![
        AddressAttribute::Local(address.addr()),
        AddressAttribute::Address(address.addr()),
        AddressAttribute::Protocol(AddressProtocol::from(PROTOCOL)),
    ];
    if let (Kind::Tap { .. }, IpAddr::V4(addr), ..31) = (kind, address.addr(), address.length()) {
        let hosts = u32::MAX >> address.length();
        message.attributes.push(AddressAttribute::Broadcast(Ipv4Addr::from(u32::from(addr) | hosts)));
    }
    message
}
