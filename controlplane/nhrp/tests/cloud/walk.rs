//! The bench's data planes: what a packet meets on its way.

use std::net::IpAddr;
use std::time::Duration;

use model::program::{Key, Object, Path};
use model::{Prefix, ProtocolAddr, TableId};
use nhrp::Input;

use crate::net::*;
use crate::rib::longest;

/// What became of a data packet, and the nodes that it passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Walk {
    Arrived(Vec<usize>),
    /// The underlay led to nobody alive: a dead node, a cut wire, a NAT that knows of nothing.
    Swallowed(Vec<usize>),
    /// The last node had no way.
    Dropped(Vec<usize>),
    Looped(Vec<usize>),
}

impl Node {
    /// The programmed shortcut for an address.
    fn shortcut(&self, to: IpAddr) -> Option<(Prefix, ProtocolAddr)> {
        let least = Key::Route(TableId(0), Prefix::new([0, 0, 0, 0].into(), 0)?);
        let last = |bound| match self.program.range(least..=Key::Route(TableId(0), bound)).next_back() {
            Some((Key::Route(_, prefix), _)) => Some(*prefix),
            _ => None,
        };
        let prefix = longest(to, last)?;
        match &self.program[&Key::Route(TableId(0), prefix)].0 {
            Object::Route(route) => match &route.path {
                Path::Via(hop) => Some((prefix, ProtocolAddr(hop.next_hop))),
                _ => None,
            },
            _ => None,
        }
    }

    /// Where its routes and shortcuts lead a packet: the longer prefix wins, a shortcut if both are as long.
    fn lead(&self, to: IpAddr) -> Option<Lead> {
        match (self.rib.best(to), self.shortcut(to)) {
            (Some((routed, lead)), Some((shortcut, _))) if routed.length() > shortcut.length() => Some(lead),
            (_, Some((_, hop))) => Some(Lead::Via(hop)),
            (routed, None) => routed.map(|(_, lead)| lead),
        }
    }
}

impl Net {
    /// A data packet, walked through the data planes; it takes no time. The nodes that it passed, or `None` if it was dropped.
    /// Gleans, redirects and use are reported as a data plane does.
    pub(crate) fn packet(
        &mut self,
        from: usize,
        source: ProtocolAddr,
        to: ProtocolAddr,
    ) -> Option<Vec<usize>> {
        match self.walk(from, source, to) {
            Walk::Arrived(walked) => Some(walked),
            _ => None,
        }
    }

    /// As [`Self::packet`]: what became of it.
    pub(crate) fn walk(&mut self, from: usize, source: ProtocolAddr, to: ProtocolAddr) -> Walk {
        let mut walked = vec![from];
        let mut reports = Vec::new();
        let mut came_from = None;
        let walk = loop {
            let here = *walked.last().unwrap();
            let n = &self.nodes[here];
            let hop = match n.lead(to.0) {
                None => break Walk::Dropped(walked),
                Some(Lead::Local | Lead::Lan) => break Walk::Arrived(walked),
                Some(Lead::Attached) => to,
                Some(Lead::Via(hop)) => hop,
            };
            let (used, nbma) = match self.binding(here, hop) {
                Some(nbma) => (hop, nbma),
                None => {
                    reports.push((here, Input::Glean { tunnel: tunnel0(), next_hop: hop }));
                    let Some((Object::Fallback(f), _)) = n.program.get(&Key::Fallback(tunnel0())) else {
                        break Walk::Dropped(walked);
                    };
                    let Some(nbma) = self.binding(here, f.next_hop) else { break Walk::Dropped(walked) };
                    (f.next_hop, nbma)
                }
            };
            reports.push((here, Input::Used { tunnel: tunnel0(), next_hops: vec![used] }));
            if let Some((source_nbma, port)) = came_from
                && n.tunnel.nhrp.redirect
            {
                let bytes = ip_packet(source, to);
                reports.push((here, Input::Redirect { tunnel: tunnel0(), source: source_nbma, port, bytes }));
            }
            came_from = Some((self.outside(here), self.port(here)));
            // What it is stacked on knows the port.
            let port = self.pat.iter().find(|(n, _)| overlay(**n) == used).map(|(_, (_, port))| *port);
            let Some(next) = self.carry(here, nbma, port).filter(|next| self.nodes[*next].alive) else {
                break Walk::Swallowed(walked);
            };
            walked.push(next);
            // TTL.
            if walked.len() > 9 {
                break Walk::Looped(walked);
            }
        };
        for (node, report) in reports {
            self.give(node, report);
        }
        walk
    }

    /// Packets both ways between the LANs of two spokes, ten a second, none of them lost; the longest walk of them.
    pub(crate) fn converse(&mut self, a: usize, b: usize, duration: Duration) -> usize {
        let end = self.now + duration;
        let mut longest = 0;
        while self.now < end {
            for (from, to) in [(a, b), (b, a)] {
                match self.walk(from, host(from, 9), host(to, 9)) {
                    Walk::Arrived(walked) => longest = longest.max(walked.len()),
                    other => panic!("at {} from {from} to {to}: {other:?}", self.now),
                }
            }
            self.run(millis(100));
        }
        longest
    }

    /// Whether both ways between the LANs of two spokes are direct.
    pub(crate) fn is_direct(&mut self, a: usize, b: usize) -> bool {
        self.packet(a, host(a, 9), host(b, 9)) == Some(vec![a, b])
            && self.packet(b, host(b, 9), host(a, 9)) == Some(vec![b, a])
    }
}

/// The first octets of an ICMP packet, 84 in all.
pub(crate) fn ip_packet(source: ProtocolAddr, to: ProtocolAddr) -> Vec<u8> {
    let mut bytes = vec![0; 84];
    if let (IpAddr::V6(source), IpAddr::V6(to)) = (source.0, to.0) {
        bytes[0] = 0x60;
        bytes[5] = 44;
        bytes[6] = 58;
        bytes[7] = 62;
        bytes[8..24].copy_from_slice(&source.octets());
        bytes[24..40].copy_from_slice(&to.octets());
        return bytes;
    }
    bytes[0] = 0x45;
    bytes[3] = 84;
    bytes[8] = 62;
    bytes[9] = 1;
    let (IpAddr::V4(source), IpAddr::V4(to)) = (source.0, to.0) else { panic!("two families") };
    bytes[12..16].copy_from_slice(&source.octets());
    bytes[16..20].copy_from_slice(&to.octets());
    bytes
}
