//! What the black-box tests and the demonstration share: a cloud of namespaces with the real processes in it, traffic
//! through it, and captures of what passes.
//!
//! - [`netns`] namespaces, [`guardian`] who cleans up after a run however it ends, [`process`] programs in namespaces
//! - [`cloud`] the topology: an underlay, nodes, LAN hosts; [`node`] one node's processes, configuration and `nave` client
//! - [`site`] nodes that are not of the examples: any number of them, made of a few words
//! - [`underlay`] other underlays: IPv6, a router in between; [`vlan`] a LAN of several hosts in VLANs
//! - [`path`] what a path shows to a host: hops, sizes, TCP through it
//! - [`traffic`] numbered UDP packets and what became of them; [`flows`] of all ways at once, while processes die
//! - [`capture`] what passes on the underlay, [`trail`] what it means, [`tshark`] what others say it means
//! - [`esp`] ESP with its keys, [`keys`] keys for a cloud, [`census`] what may pass on the underlay and what may not
//! - [`ike`] a cloud whose keys IKEv2 agrees on, [`pki`] certificates for it
//! - [`frame`] packets made by hand, right and wrong ones; [`probe`] a station on the underlay that sends them
//! - [`frr`] routing daemons that nobody here wrote, [`vm`] whole hubs and spokes of that kind, [`guest`] what they are told to be, [`swan`] strongSwan in them
//! - [`scapy`] ESP that nobody here wrote
//! - [`nat`] a router with NAT, of the kernel; [`translator`] a box that translates addresses, which needs nothing of the kernel
//! - [`wait`] waiting with a deadline and a reason, [`lock`] one heavy test at a time
//!
//! Nothing here uses the code under test to judge it: packets are taken apart and put together by hand.
#![forbid(unsafe_code)]

pub mod capture;
pub mod census;
pub mod cloud;
pub mod esp;
pub mod flows;
pub mod frame;
pub mod frr;
pub mod guardian;
pub mod guest;
pub mod ike;
pub mod keys;
pub mod lock;
pub mod named;
pub mod nat;
pub mod netns;
pub mod node;
pub mod path;
pub mod pki;
pub mod probe;
pub mod process;
pub mod scapy;
pub mod site;
pub mod swan;
pub mod traffic;
pub mod trail;
pub mod translator;
pub mod tshark;
pub mod underlay;
pub mod vlan;
pub mod vm;
pub mod wait;

pub use anyhow::Result;
