//! Every way in which a packet can end here, with a sentence for each.

use std::fmt;

macro_rules! reasons {
    ($($name:ident $text:literal $sentence:literal;)+) => {
        /// Why a packet was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $sentence] $name,)+
        }

        impl DropReason {
            /// All of them, in the order of the walk.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$name),+];

            /// The name, as counters, traces and the command line show it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)+ }
            }
        }
    };
}

reasons! {
    NoInterface "no-interface" "The port, or this VLAN of it, has no interface.";
    InjectForbidden "inject-forbidden" "The kernel sent GRE or ESP by the twin of a port: that is for tunnels alone.";
    InjectFamily "inject-family" "The kernel sent something else than an IP packet by the twin of a tunnel.";
    Runt "runt" "The frame ends before its Ethernet header does.";
    NotForUs "not-for-us" "The frame is for another station.";
    BadHeader "bad-header" "The IP header's version or a length in it is wrong.";
    BadChecksum "bad-checksum" "The IPv4 header checksum is wrong.";
    FragmentOverlap "fragment-overlap" "A fragment of GRE for us lies over another or contradicts it: nothing of its packet is taken (RFC 5722).";
    ReassemblyFull "reassembly-full" "Too many packets wait for their fragments, or this one has too many of them.";
    ReassemblyTimeout "reassembly-timeout" "The other fragments of the packet did not come within a second.";
    ReassemblyTooBig "reassembly-too-big" "The packet that the fragments make is larger than a buffer holds, or than an IP packet may be.";
    NatKeepalive "nat-keepalive" "It kept a mapping of a NAT alive, and has done so (RFC 3948).";
    NoSa "no-sa" "ESP with an SPI for which there is no SA.";
    SaMismatch "sa-mismatch" "ESP from another peer than the SA's, or in it something else than GRE for a tunnel that the SA protects.";
    Replayed "replayed" "The ESP packet came before, or is older than the replay window.";
    BadIcv "bad-icv" "The ESP packet is not authentic.";
    EspMalformed "esp-malformed" "The ESP packet is cut short, or its padding or what is in it is wrong.";
    EspDummy "esp-dummy" "The ESP packet is a dummy, which its sender made to hide how much it sends (RFC 4303).";
    LifetimeEnded "lifetime-ended" "The SA has carried all that it may.";
    UnprotectedIn "unprotected-in" "GRE in the clear for a tunnel that is protected.";
    GreMalformed "gre-malformed" "The GRE header is cut short, or has a version or flags that RFC 2784 wants refused.";
    GreChecksum "gre-checksum" "The GRE checksum is wrong.";
    GreNoTunnel "gre-no-tunnel" "No tunnel has this address, GRE key and peer.";
    GreProtocol "gre-protocol" "The tunnel's packet holds neither IP nor NHRP.";
    Congestion "congestion" "A router of the underlay marked the packet as congested, and its sender knows no such marks (RFC 6040).";
    StaleIndex "stale-index" "The packet refers to a table entry or tunnel that is gone.";
    NoRoute "no-route" "No route leads to the destination; its sender was told, if the rules and limits allow.";
    Blackhole "blackhole" "The route to the destination is a black hole.";
    Martian "martian" "No packet may have this destination on a wire.";
    Multicast "multicast" "Multicast that no one routes.";
    Scope "scope" "A link-local address goes no farther than its link, and what is no station's address is no source.";
    UnderlayTransit "underlay-transit" "Transit into or out of a port that does not forward between underlay and overlay.";
    NbmaViaTunnel "nbma-via-tunnel" "The NBMA address is routed into a tunnel, or is our own.";
    NoReplica "no-replica" "Nobody on the tunnel receives multicast.";
    ReplicateFull "replicate-full" "Too many multicast packets wait for their copies.";
    NoBuffer "no-buffer" "No buffer was left for a copy or for a packet of our own.";
    ParkFull "park-full" "Too many packets wait for this next hop, or for all of them.";
    Unresolved "unresolved" "The next hop was not resolved within a second, or the receiver of a copy of multicast has no link.";
    TtlExpired "ttl-expired" "The time to live ended here; its sender was told, if the rules and limits allow.";
    TooBig "too-big" "The packet is larger than the link or tunnel that it would leave by takes; a sender that wants it whole was told, if the rules and limits allow.";
    FragmentFull "fragment-full" "Too many pieces of packets that were cut wait for the next breaths.";
    NoHeadroom "no-headroom" "The buffer has no room for the outer header, or for the trailer of ESP.";
    NoOutboundSa "no-outbound-sa" "There is no SA to the peer, and nothing goes to it in the clear; the sender was told, if the rules and limits allow.";
    LeaseSpent "lease-spent" "The outbound SA may use no further sequence number until the control plane has recorded more.";
    SequenceOverflow "sequence-overflow" "The outbound SA has used all sequence numbers that there are.";
    HandoffFull "handoff-full" "The queue to the worker that has the packet's SA is full.";
    HostUnreachable "host-unreachable" "The destination cannot be reached; its sender was told, if the rules and limits allow.";
    PuntFull "punt-full" "The queue to the kernel twin or to the control plane is full.";
    TxFull "tx-full" "The port did not take the packet.";
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
