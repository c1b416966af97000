//! `redirect`: what leaves by the network it came from could go straight (draft-detienne-dmvpn §4.2.2: the traffic
//! indication).
//!
//! 1. Within the limits, for its tunnel, source and destination, and in all (the draft: MUST be rate limited)?
//! 2. A copy of the inner packet's first 128 octets goes to the control plane, with the tunnel that it came by and the
//!    outer source.
//! 3. The packet itself goes on by `midchain`.

use std::net::IpAddr;

use model::report::PuntReason;
use wire::buf::PacketBuf;

use crate::DropReason;
use crate::graph::Node;
use crate::packet::{addresses, current, folded};
use crate::ports::Ports;
use crate::tables::Tables;
use crate::walk::{Walk, control_punt};

/// Octets of a packet that the control plane gets.
const OCTETS: usize = 128;

pub(crate) fn run<P: Ports>(walk: &mut Walk<P::Buf>, tables: &Tables, ports: &mut P) {
    let frame = walk.frames.take(Node::Redirect);
    walk.enter(frame);
    for at in frame.places() {
        let slot = walk.frames.slot(frame, at);
        // The total alone decides where a hub is busy; nothing of the packet is touched.
        if !walk.redirects.is_open(walk.now) {
            return;
        }
        let at = usize::from(slot);
        let meta = walk.meta[at];
        let bytes = walk.bufs[at].bytes();
        let packet = current(&meta, bytes);
        let Some((source, destination)) = addresses(packet) else { continue };
        if !walk.redirects.pass(walk.now, key(meta.interface, source, destination)) {
            continue;
        }
        let head = &packet[..packet.len().min(OCTETS)];
        let Some(mut copy) = ports.alloc() else {
            walk.drop_copy(DropReason::NoBuffer);
            continue;
        };
        let Some(room) = copy.append(head.len()) else {
            walk.refuse_copy(ports, copy, DropReason::NoBuffer);
            continue;
        };
        room.copy_from_slice(head);
        match ports.punt(control_punt(tables, PuntReason::Redirect, &meta, bytes), copy) {
            Ok(()) => {
                walk.flow.copied += 1;
                walk.flow.punted += 1;
            }
            Err(copy) => walk.refuse_copy(ports, copy, DropReason::PuntFull),
        }
    }
}

/// One for each pair of addresses and tunnel: clouds may have the same addresses.
fn key(tunnel: u16, source: IpAddr, destination: IpAddr) -> u64 {
    let tunnel = u64::from(tunnel).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    folded(source).rotate_left(32) ^ folded(destination) ^ tunnel
}
