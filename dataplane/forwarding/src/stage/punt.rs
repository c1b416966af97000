//! `punt`: the last touches of what goes to the kernel or to the control plane.
//!
//! 1. For the twin of a tunnel (TUN): the IP packet, bare.
//! 2. For the twin of a port (TAP): the frame as it came, if it came in one by that port; else (our address there, reached
//!    by another way or by an error of our own making) the packet in a frame to the twin's address. Neither has a tag: the twin of a
//!    VLAN is all of it.
//! 3. NHRP: as it is; the walk's end takes the headers off when it has read who sent it.
//! 4. Handed over when the walk ends; the queue is full: drop `punt-full`.

use wire::buf::PacketBuf;
use wire::ethernet;
use zerocopy::IntoBytes;

use super::start_before;
use crate::DropReason;
use crate::adjacency::LINK_LEN;
use crate::burst::{End, family};
use crate::graph::Node;
use crate::tables::{Role, Tables};
use crate::walk::Walk;

pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables) {
    let frame = walk.frames.take(Node::Punt);
    walk.enter(frame);
    for at in frame.places() {
        let slot = walk.frames.slot(frame, at);
        let at = usize::from(slot);
        let meta = &walk.meta[at];
        let (offset, came_by) = (usize::from(meta.offset), meta.interface);
        let buf = &mut walk.bufs[at];
        if meta.end == End::Nhrp {
            continue;
        }
        let ethertype = if meta.family & family::V6 == 0 { ethernet::IPV4 } else { ethernet::IPV6 };
        let target = meta.target;
        match tables.interface(target).map(|interface| &interface.role) {
            None => walk.drop(slot, DropReason::StaleIndex),
            Some(Role::Tunnel(_)) => {
                if !start_before(buf, offset, 0) {
                    walk.drop(slot, DropReason::BadHeader);
                }
            }
            Some(Role::Port(_)) if came_by == target && offset >= LINK_LEN => {
                if !start_before(buf, offset, LINK_LEN) {
                    walk.drop(slot, DropReason::NoHeadroom);
                }
            }
            Some(Role::Port(port)) => {
                if !start_before(buf, offset, LINK_LEN) {
                    walk.drop(slot, DropReason::NoHeadroom);
                    continue;
                }
                let header = ethernet::Header::new(port.mac, port.mac, ethertype);
                if let Some(link) = buf.bytes_mut().first_chunk_mut::<LINK_LEN>() {
                    link.copy_from_slice(header.as_bytes());
                }
            }
        }
    }
}
