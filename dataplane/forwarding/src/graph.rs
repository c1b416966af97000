//! The graph: which stages there are, and which may hand a packet to which.
//!
//! ```text
//! rx → classify ┬→ reassemble → esp-decrypt, gre-decap, ip-lookup, ip6-lookup
//!               ├→ esp-decrypt → gre-decap
//!               ├→ gre-decap ┬→ ip-lookup ┬→ rewrite ──────────────┬→ tx
//!               │            ├→ ip6-lookup├→ redirect → punt (copy)│
//!               │            └→ punt      ├→ midchain ┬────────────┤
//!               ├→ ip-lookup, ip6-lookup  │           └→ esp-encrypt
//!               └→ punt (host)            ├→ glean ┬→ midchain     │
//! inject ┬→ ip-lookup, ip6-lookup         │        └→ icmp-error   │
//!        ├→ replicate → midchain, glean   ├→ icmp-error → drop     │
//!        ├→ rewrite, glean (NHRP)         │                        │
//!        ├→ esp-decrypt, esp-encrypt      │                        │
//!        └→ tx ───────────────────────────┼────────────────────────┘
//! every node → drop(reason)               └→ punt (receive)
//! midchain, rewrite ┬→ fragment → icmp-error
//!                   └→ icmp-error
//! esp-encrypt → fragment
//! inject, esp-decrypt, esp-encrypt ⇢ the worker that has the SA: its inject
//! ```
//!
//! Nodes stand in walk order and no edge goes back, so one pass over them is a whole walk. What must go round goes round
//! in the next breath, by `inject`: there is no other loop. That way go the pieces of what `fragment` cut.

use std::fmt;

macro_rules! nodes {
    ($($name:ident $text:literal $doc:literal;)+) => {
        /// A node of the graph, in walk order.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Node {
            $(#[doc = $doc] $name,)+
        }

        impl Node {
            /// All of them, in walk order.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$name),+];

            /// The name, as counters, traces and the command line show it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

nodes! {
    Rx "rx" "Takes bursts from the ports.";
    Inject "inject" "Takes what the host, the control plane and the last breath left for this one.";
    Classify "classify" "Ethernet and IP headers: what is it, and is it for us?";
    Reassemble "reassemble" "Fragments of GRE and ESP for us: the packet, once all of it is there.";
    EspDecrypt "esp-decrypt" "ESP for us: authenticated, decrypted, and not seen before.";
    GreDecap "gre-decap" "GRE of our tunnels: from outer to inner packet.";
    IpLookup "ip-lookup" "IPv4 destination to adjacency.";
    Ip6Lookup "ip6-lookup" "IPv6 destination to adjacency.";
    Replicate "replicate" "Multicast on a tunnel: one copy for each receiver.";
    Redirect "redirect" "A copy for the control plane of what leaves by the network it came from.";
    Glean "glean" "Next hops that are not resolved: report, then wait or fall back.";
    Midchain "midchain" "Into the tunnel: inner packet to outer frame.";
    EspEncrypt "esp-encrypt" "What goes to a peer whom an SA protects is sealed.";
    Rewrite "rewrite" "Onto the link: time to live and Ethernet header.";
    Fragment "fragment" "Cuts what is larger than the link or tunnel takes, if it may be cut.";
    IcmpError "icmp-error" "Tells the sender why its packet is dropped.";
    Punt "punt" "To the kernel twin or the control plane.";
    Tx "tx" "Gives bursts to the ports.";
    Drop "drop" "Ends a packet for a reason.";
}

impl Node {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Every hand-over from one node to another. `drop` is open to all and not listed.
pub const EDGES: [(Node, Node); 50] = [
    (Node::Rx, Node::Classify),
    (Node::Inject, Node::IpLookup),
    (Node::Inject, Node::Ip6Lookup),
    (Node::Inject, Node::Replicate),
    (Node::Inject, Node::Glean),
    (Node::Inject, Node::Midchain),
    (Node::Inject, Node::Rewrite),
    (Node::Inject, Node::EspDecrypt),
    (Node::Inject, Node::EspEncrypt),
    (Node::Inject, Node::Tx),
    (Node::Classify, Node::Reassemble),
    (Node::Classify, Node::EspDecrypt),
    (Node::Classify, Node::GreDecap),
    (Node::Classify, Node::IpLookup),
    (Node::Classify, Node::Ip6Lookup),
    (Node::Classify, Node::Punt),
    (Node::Reassemble, Node::EspDecrypt),
    (Node::Reassemble, Node::GreDecap),
    (Node::Reassemble, Node::IpLookup),
    (Node::Reassemble, Node::Ip6Lookup),
    (Node::EspDecrypt, Node::GreDecap),
    (Node::GreDecap, Node::IpLookup),
    (Node::GreDecap, Node::Ip6Lookup),
    (Node::GreDecap, Node::Punt),
    (Node::IpLookup, Node::Redirect),
    (Node::IpLookup, Node::Glean),
    (Node::IpLookup, Node::Midchain),
    (Node::IpLookup, Node::Rewrite),
    (Node::IpLookup, Node::IcmpError),
    (Node::IpLookup, Node::Punt),
    (Node::Ip6Lookup, Node::Redirect),
    (Node::Ip6Lookup, Node::Glean),
    (Node::Ip6Lookup, Node::Midchain),
    (Node::Ip6Lookup, Node::Rewrite),
    (Node::Ip6Lookup, Node::IcmpError),
    (Node::Ip6Lookup, Node::Punt),
    (Node::Replicate, Node::Glean),
    (Node::Replicate, Node::Midchain),
    (Node::Glean, Node::Midchain),
    (Node::Glean, Node::IcmpError),
    (Node::Midchain, Node::EspEncrypt),
    (Node::Midchain, Node::Fragment),
    (Node::Midchain, Node::IcmpError),
    (Node::Midchain, Node::Tx),
    (Node::EspEncrypt, Node::Fragment),
    (Node::EspEncrypt, Node::Tx),
    (Node::Rewrite, Node::Fragment),
    (Node::Rewrite, Node::IcmpError),
    (Node::Rewrite, Node::Tx),
    (Node::Fragment, Node::IcmpError),
];

const _: () = {
    let mut at = 0;
    while at < EDGES.len() {
        assert!((EDGES[at].0 as u8) < EDGES[at].1 as u8, "an edge goes backwards");
        at += 1;
    }
};

/// Whether a packet may go from `from` to `to`; stages ask it at compile time.
#[must_use]
pub const fn is_edge(from: u8, to: u8) -> bool {
    let mut at = 0;
    while at < EDGES.len() {
        if EDGES[at].0 as u8 == from && EDGES[at].1 as u8 == to {
            return true;
        }
        at += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_reached_and_has_a_name_of_its_own() {
        for node in Node::ALL {
            let reached = EDGES.iter().any(|(_, to)| *to == node);
            assert!(reached || matches!(node, Node::Rx | Node::Inject | Node::Drop), "{node}");
            assert_eq!(Node::ALL.iter().filter(|other| other.name() == node.name()).count(), 1);
        }
        let mut edges = EDGES.to_vec();
        edges.dedup();
        assert_eq!(edges.len(), EDGES.len());
    }
}
