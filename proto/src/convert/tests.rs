//! Every type comes back from the bytes as it went into them, and a refusal names its field.
//!
//! [`Sample`] makes a value of any type out of random numbers. The macros that write the conversions write it too, so that a
//! field which is added is also tried.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use model::config::check::Fault;
use model::config::diff::Change;
use model::ike::{EspSuite, Identity, IkeSuite};
use model::observe::{CaptureRequest, Captured, Direction, Reason, Tap, TraceRequest, TraceStep};
use model::program::{
    Ack, Batch, Binding, Fallback, Hop, Interface, Key, Neighbour, Object, Op, OuterDf, Owner, Path, PathMtu,
    Refusal, Refused, Replica, Route, TcpMss, Tunnel, TunnelMode,
};
use model::report::{PacketIn, PacketOut, PuntReason, Report};
use model::sa::{ProfileName, SaKey, Spi, Suite};
use model::state::{Event, Filter, Show, State, What};
use model::{
    Epoch, Instance, InterfaceAddr, InterfaceName, Mac, NbmaAddr, Prefix, ProtocolAddr, TableId, VlanId,
    WorkerId, state,
};
use prost::Message;

use super::{Enumerator, Malformed, Problem};
use crate::{Apply, Clear, Greeting, Hello, Open, pb};

/// Random numbers that are the same in each run (splitmix64).
pub(crate) struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}

/// A random value.
pub(crate) trait Sample {
    fn sample(dice: &mut Dice) -> Self;
}

macro_rules! numbers {
    ($($number:ty),+) => {$(
        impl Sample for $number {
            fn sample(dice: &mut Dice) -> Self {
                let ends = [0, 1, <$number>::MAX];
                if dice.below(4) == 0 { ends[dice.below(3)] } else { dice.next() as $number }
            }
        }
    )+};
}
numbers!(u8, u16, u32, u64);

impl Sample for bool {
    fn sample(dice: &mut Dice) -> Self {
        dice.below(2) == 1
    }
}

impl Sample for String {
    fn sample(dice: &mut Dice) -> Self {
        (0..dice.below(9)).map(|_| ['a', '7', '.', ' ', 'ß', '\n'][dice.below(6)]).collect()
    }
}

impl Sample for Duration {
    fn sample(dice: &mut Dice) -> Self {
        Self::from_micros(u64::sample(dice))
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(dice: &mut Dice) -> Self {
        bool::sample(dice).then(|| T::sample(dice))
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(dice: &mut Dice) -> Self {
        (0..dice.below(4)).map(|_| T::sample(dice)).collect()
    }
}

impl Sample for IpAddr {
    fn sample(dice: &mut Dice) -> Self {
        match dice.below(4) {
            0 => IpAddr::V6(u128::from(dice.next()).into()),
            1 => IpAddr::V6((u128::from(dice.next()) << 64 | u128::from(dice.next())).into()),
            _ => IpAddr::V4(u32::sample(dice).into()),
        }
    }
}

impl Sample for Prefix {
    fn sample(dice: &mut Dice) -> Self {
        let addr = IpAddr::sample(dice);
        let bits = if addr.is_ipv4() { 33 } else { 129 };
        Self::new(addr, u8::try_from(dice.below(bits)).unwrap()).unwrap()
    }
}

impl Sample for InterfaceAddr {
    fn sample(dice: &mut Dice) -> Self {
        let addr = IpAddr::sample(dice);
        let bits = if addr.is_ipv4() { 33 } else { 129 };
        Self::new(addr, u8::try_from(dice.below(bits)).unwrap()).unwrap()
    }
}

impl Sample for InterfaceName {
    fn sample(dice: &mut Dice) -> Self {
        ["lan", "wan0", "tunnel0", "fifteen-letters", "a.7"][dice.below(5)].parse().unwrap()
    }
}

impl Sample for Mac {
    fn sample(dice: &mut Dice) -> Self {
        Self(std::array::from_fn(|_| u8::sample(dice)))
    }
}

/// Newtypes and structures whose conversion is written by hand, and enumerations with fields.
macro_rules! samples {
    ($($type:ty: $dice:ident => $value:expr;)+) => {$(
        impl Sample for $type {
            fn sample($dice: &mut Dice) -> Self {
                $value
            }
        }
    )+};
}

/// Any.
fn any<T: Sample>(dice: &mut Dice) -> T {
    T::sample(dice)
}

samples! {
    ProtocolAddr: d => Self(any(d));
    NbmaAddr: d => Self(any(d));
    TableId: d => Self(any(d));
    WorkerId: d => Self(any(d));
    Instance: d => Self(any(d));
    Epoch: d => Self(any(d));
    TunnelMode: d => match any(d) {
        None => Self::Multipoint,
        Some(destination) => Self::PointToPoint { destination },
    };
    Tunnel: d => Self {
        name: any(d), mode: any(d), source: any(d), source_interface: any(d), key: any(d), mtu: any(d), ttl: any(d),
        network_id: any(d), redirect: any(d), table: any(d), underlay_table: any(d),
        outer_df: any(d), tcp_mss: any(d), netns: any(d), protection: any(d),
    };
    VlanId: d => Self::try_from(u16::try_from(d.below(4094) + 1).unwrap()).unwrap();
    TcpMss: d => match d.below(3) {
        0 => Self::Off,
        1 => Self::Auto,
        _ => Self::Most(u16::sample(d).max(1)),
    };
    Path: d => match d.below(6) {
        5 => Self::Balanced(Vec::sample(d).into()),
        0 => Self::Via(any(d)),
        1 => Self::Attached(any(d)),
        2 => Self::Receive(any(d)),
        3 => Self::Unreachable,
        _ => Self::Blackhole,
    };
    Spi: d => Self::new(u32::sample(d).max(256)).unwrap();
    ProfileName: d => ["lab", "branch-v2"][d.below(2)].parse().unwrap();
    SaKey: d => {
        let keymat: Vec<u8> = (0..[20, 36][d.below(2)]).map(|_| u8::sample(d)).collect();
        Self::new(&keymat).unwrap()
    };
    Object: d => match d.below(10) {
        9 => Self::InboundSa(any(d)),
        8 => Self::OutboundSa(any(d)),
        7 => Self::PathMtu(any(d)),
        0 => Self::Interface(any(d)),
        1 => Self::Tunnel(any(d)),
        2 => Self::Neighbour(any(d)),
        3 => Self::Binding(any(d)),
        4 => Self::Route(any(d)),
        5 => Self::Replica(any(d)),
        _ => Self::Fallback(any(d)),
    };
    Op: d => match d.below(4) {
        0 => Self::Put(any(d), any(d)),
        // Keys of all objects.
        1 => Self::Remove(any(d), Object::sample(d).key()),
        2 => Self::ResyncBegin(any(d)),
        _ => Self::ResyncEnd(any(d)),
    };
    Refusal: d => match d.below(9) {
        8 => Self::SlotTaken(any(d), any(d)),
        7 => Self::Senseless(any(d)),
        0 => Self::NoInterface(any(d)),
        1 => Self::NoPort(any(d)),
        2 => Self::InUse(any(d), any(d)),
        3 => Self::SameKey(any(d)),
        4 => Self::Referred(any(d)),
        5 => Self::Full(any(d)),
        _ => Self::Unsupported(any(d)),
    };
    Refused: d => Self { op: u32::sample(d) as usize, reason: any(d) };
    Ack: d => Self { number: any(d), result: Option::sample(d).map_or(Ok(()), Err) };
    Report: d => match d.below(10) {
        9 => Self::SaUsed { spis: any(d) },
        8 => Self::SaMoved { spi: any(d), nbma: any(d), port: any(d) },
        7 => Self::SaLifetime { protection: any(d), spi: any(d), direction: any(d), reached: any(d) },
        6 => Self::LeaseLow { protection: any(d), worker: any(d), spi: any(d), next: any(d) },
        5 => Self::PathMtu { tunnel: any(d), nbma: any(d), mtu: any(d) },
        0 => Self::Glean(any(d)),
        1 => Self::Used { tunnel: any(d), next_hops: any(d) },
        2 => Self::UsedNeighbours(any(d)),
        3 => Self::Port { port: any(d), mac: any(d), up: any(d), mtu: any(d) },
        _ => Self::BindingExpired { tunnel: any(d), next_hop: any(d) },
    };
    Filter: d => Self { interface: any(d), address: any(d), table: any(d), owner: any(d) };
    Show: d => Self { what: any(d), filter: any(d) };
    State: d => match What::sample(d) {
        What::Dmvpn => Self::Dmvpn(state::Dmvpn(any(d))),
        What::Nhrp => Self::Nhrp(state::Cache(any(d))),
        What::Nhs => Self::Nhs(state::Servers(any(d))),
        What::Routes => Self::Routes(state::Routes(any(d))),
        What::Fib => Self::Fib(state::Fib(any(d))),
        What::Adjacency => Self::Adjacency(state::Adjacencies(any(d))),
        What::Ports => Self::Ports(state::Ports(any(d))),
        What::Workers => Self::Workers(state::Workers(any(d))),
        What::Counters => Self::Counters(any(d)),
        What::Drops => Self::Drops(state::Drops(any(d))),
        What::Program => Self::Program(state::Program(any(d))),
        What::Explain => Self::Explanation(Box::new(any(d))),
        What::NhrpTraffic => Self::NhrpTraffic(any(d)),
        What::Sa => Self::Sa(state::Sas(any(d))),
        What::Ike => Self::Ike(state::IkeSas(any(d))),
    };
    Event: d => Self { time_us: any(d), node: any(d), what: any(d) };
    Hello: d => Self { epoch: any(d), name: any(d) };
    Greeting: d => Self {
        instance: any(d), version: any(d), workers: state::Workers(any(d)), ports: state::Ports(any(d)),
        sa_slots: any(d),
    };
    Open: d => Self { instance: any(d), epoch: any(d) };
    Batch: d => Self { number: any(d), ops: any(d) };
    NonZeroU16: d => Self::new(any(d)).unwrap_or(Self::MIN);
    NonZeroU32: d => Self::new(any(d)).unwrap_or(Self::MIN);
    Tap: d => if any(d) { Self::Port(any(d)) } else { Self::Node(any(d)) };
    CaptureRequest: d => Self { at: any(d), packets: any(d), snap: any(d), address: any(d) };
    Captured: d => Self {
        worker: any(d), time_us: any(d), interface: any(d), direction: any(d), reason: any(d), len: any(d), bytes: any(d),
        lost: any(d),
    };
    Clear: d => if any(d) { Self::Nhrp { tunnel: any(d), address: any(d) } } else { Self::Ike { peer: any(d) } };
    Identity: d => match d.below(5) {
        0 => Self::Address(any(d)),
        1 => Self::Fqdn("hub.example".to_owned()),
        2 => Self::Email("hub@example".to_owned()),
        3 => Self::Dn("CN=hub, O=Example".to_owned()),
        _ => Self::KeyId((0..=d.below(9)).map(|_| any(d)).collect()),
    };
    IkeSuite: d => ["aes256gcm16-prfsha384-x25519", "aes256-sha256-prfsha256-ecp256-mlkem768"][d.below(2)].parse().unwrap();
    EspSuite: d => ["aes256gcm16-esn", "aes128gcm16", "aes128gcm16-esn-ecp384"][d.below(3)].parse().unwrap();
    SocketAddr: d => Self::new(any(d), any(d));
}

/// Goes through the bytes and comes back.
fn round<M, P>()
where
    M: Sample + Clone + PartialEq + Debug + TryFrom<P, Error: Debug> + Into<P>,
    P: Message + Default,
{
    for seed in 0..300 {
        let model = M::sample(&mut Dice(seed));
        let bytes = model.clone().into().encode_to_vec();
        let back = M::try_from(P::decode(&*bytes).unwrap());
        assert_eq!(back.unwrap(), model, "seed {seed}");
    }
}

#[test]
fn what_is_programmed_comes_back_as_it_went() {
    round::<Hop, pb::Hop>();
    round::<Interface, pb::Interface>();
    round::<Tunnel, pb::Tunnel>();
    round::<Neighbour, pb::Neighbour>();
    round::<Binding, pb::Binding>();
    round::<Path, pb::Path>();
    round::<Route, pb::Route>();
    round::<Replica, pb::Replica>();
    round::<Fallback, pb::Fallback>();
    round::<PathMtu, pb::PathMtu>();
    round::<Object, pb::Object>();
    round::<Op, pb::Op>();
    round::<Batch, pb::Batch>();
    round::<Refusal, pb::Refusal>();
    round::<Refused, pb::Refused>();
    round::<Ack, pb::Ack>();
    for seed in 0..300 {
        let key = Object::sample(&mut Dice(seed)).key();
        assert_eq!(Key::try_from(pb::Key::from(key)), Ok(key));
    }
}

#[test]
fn what_is_reported_comes_back_as_it_went() {
    round::<Report, pb::Report>();
    round::<PacketIn, pb::PacketIn>();
    round::<PacketOut, pb::PacketOut>();
}

#[test]
fn what_is_shown_comes_back_as_it_went() {
    round::<state::dmvpn::PeerAttributes, pb::PeerAttributes>();
    round::<state::dmvpn::Peer, pb::Peer>();
    round::<state::dmvpn::Tunnel, pb::DmvpnTunnel>();
    round::<state::nhrp::EntryFlags, pb::EntryFlags>();
    round::<state::nhrp::Entry, pb::Entry>();
    round::<state::nhs::Server, pb::Server>();
    round::<state::routes::RibRoute, pb::RibRoute>();
    round::<state::fib::FibEntry, pb::FibEntry>();
    round::<state::adjacency::Adjacency, pb::Adjacency>();
    round::<state::ports::Traffic, pb::Traffic>();
    round::<state::ports::Port, pb::Port>();
    round::<state::workers::Worker, pb::Worker>();
    round::<state::counters::NodeCounter, pb::NodeCounter>();
    round::<state::counters::MessageCounter, pb::MessageCounter>();
    round::<state::counters::Counter, pb::Counter>();
    round::<state::counters::ErrorCounter, pb::ErrorCounter>();
    round::<state::NhrpTraffic, pb::NhrpTraffic>();
    round::<state::Counters, pb::Counters>();
    round::<state::program::Programmed, pb::Programmed>();
    round::<state::Explanation, pb::Explanation>();
    round::<Show, pb::ShowRequest>();
    round::<State, pb::State>();
    round::<Event, pb::Event>();
}

#[test]
fn what_is_observed_comes_back_as_it_went() {
    round::<TraceRequest, pb::TraceRequest>();
    round::<TraceStep, pb::TraceStep>();
    round::<Reason, pb::DropReason>();
    round::<Tap, pb::Tap>();
    round::<CaptureRequest, pb::CaptureRequest>();
    round::<Captured, pb::Captured>();
}

#[test]
fn what_is_managed_comes_back_as_it_went() {
    round::<Hello, pb::HelloRequest>();
    round::<Greeting, pb::HelloReply>();
    round::<Open, pb::Open>();
    round::<Change, pb::Change>();
    round::<Fault, pb::Fault>();
    round::<Apply, pb::ApplyRequest>();
    round::<Clear, pb::ClearRequest>();
    for seed in 0..300 {
        let dice = &mut Dice(seed);
        let applied = if any(dice) { Ok(any::<Vec<Change>>(dice)) } else { Err(any::<Fault>(dice)) };
        assert_eq!(pb::ApplyReply::from(applied.clone()).outcome(), Ok(applied));
    }
}

#[test]
fn every_enumerator_has_its_own_number_and_none_has_zero() {
    fn all<T: Enumerator + PartialEq + Debug>(all: &[T]) {
        for &one in all {
            assert_ne!(one.number(), 0);
            assert_eq!(T::numbered(one.number()), Some(one));
        }
        assert_eq!((T::numbered(0), T::numbered(999)), (None, None));
    }
    all(&Owner::ALL);
    all(&[OuterDf::Copy, OuterDf::Set, OuterDf::Clear]);
    all(&PuntReason::ALL);
    all(&Direction::ALL);
    all(&What::ALL);
    all(&state::dmvpn::PeerState::ALL);
    all(&state::ike::IkeState::ALL);
    all(&state::ike::Role::ALL);
    all(&state::nhrp::EntryType::ALL);
    all(&state::nhs::ServerState::ALL);
    all(&state::adjacency::AdjacencyKind::ALL);
    all(&state::workers::Idle::ALL);
    all(&state::ports::OffloadKind::ALL);
    all(&state::ports::OffloadState::ALL);
    all(&Suite::ALL);
}

/// A batch of one put of a binding, with one thing changed.
fn binding(change: impl FnOnce(&mut pb::Binding)) -> Result<Batch, Malformed> {
    let mut binding = pb::Binding {
        tunnel: "tunnel0".into(),
        next_hop: "10.0.0.2".into(),
        nbma: "203.0.113.2".into(),
        link: Some(pb::Hop { interface: "wan".into(), next_hop: "203.0.113.1".into() }),
        expires_in_us: None,
        port: 0,
    };
    change(&mut binding);
    let object = pb::Object { object: Some(pb::object::Object::Binding(binding)) };
    let put = pb::Put { owner: pb::Owner::Nhrp.into(), object: Some(object) };
    let mark = pb::Op { op: Some(pb::op::Op::ResyncBegin(pb::Owner::Nhrp.into())) };
    let put = pb::Op { op: Some(pb::op::Op::Put(put)) };
    Batch::try_from(pb::Batch { number: 1, ops: vec![mark, put] })
}

#[test]
fn a_refusal_names_the_field() {
    binding(|_| {}).unwrap();
    let refused = |change: fn(&mut pb::Binding)| binding(change).unwrap_err().to_string();
    assert_eq!(
        refused(|b| b.nbma = "10.0.0".into()),
        "ops[1].put.object.binding.nbma: `10.0.0` is not an NBMA address"
    );
    assert_eq!(refused(|b| b.tunnel.clear()), "ops[1].put.object.binding.tunnel: missing");
    assert_eq!(
        refused(|b| b.link.as_mut().unwrap().next_hop = "x".into()),
        "ops[1].put.object.binding.link.next_hop: `x`: invalid IP address syntax"
    );

    let batch = |op| Batch::try_from(pb::Batch { number: 1, ops: vec![op] }).unwrap_err();
    assert_eq!(batch(pb::Op { op: None }), Malformed { path: "ops[0].op".into(), problem: Problem::Missing });
    let unspecified = pb::Op { op: Some(pb::op::Op::ResyncEnd(0)) };
    assert_eq!(batch(unspecified).to_string(), "ops[0].resync_end: 0 is not one of its values");
    let put = pb::Put { owner: 99, object: None };
    let stranger = pb::Op { op: Some(pb::op::Op::Put(put)) };
    assert_eq!(batch(stranger).to_string(), "ops[0].put.owner: 99 is not one of its values");

    let interface = pb::Interface { name: "lan".into(), mtu: 65_536, ..Default::default() };
    let refused = Interface::try_from(interface).unwrap_err();
    assert_eq!(refused.to_string(), "mtu: 65536 is too big");
    let refused = |vlan| {
        let interface = pb::Interface { name: "lan".into(), vlan: Some(vlan), ..Default::default() };
        Interface::try_from(interface).unwrap_err().to_string()
    };
    assert_eq!(refused(4095), "vlan: `4095` is not a VLAN (1 to 4094)");
    assert_eq!(refused(65_536 + 7), "vlan: 65543 is too big");
    let refused = |change: fn(&mut pb::CaptureRequest)| {
        let at = Some(pb::Tap { at: Some(pb::tap::At::Port("wan".into())) });
        let mut request = pb::CaptureRequest { at, ..Default::default() };
        change(&mut request);
        CaptureRequest::try_from(request).unwrap_err().to_string()
    };
    assert_eq!(refused(|r| r.snap = Some(0)), "snap: 0 is not allowed");
    assert_eq!(refused(|r| r.snap = Some(65_536)), "snap: 65536 is too big");
    assert_eq!(refused(|r| r.packets = Some(0)), "packets: 0 is not allowed");
    assert_eq!(refused(|r| r.at = None), "at: missing");
    assert_eq!(refused(|r| r.at = Some(pb::Tap { at: None })), "at.at: missing");
    assert_eq!(refused(|r| r.address = Some("x".into())), "address: `x`: invalid IP address syntax");
    let refused = TraceRequest::try_from(pb::TraceRequest { packets: 0, address: None }).unwrap_err();
    assert_eq!(refused.to_string(), "packets: 0 is not allowed");
    let used = pb::Used { tunnel: "t".into(), next_hops: vec!["10.0.0.1".into(), "?".into()] };
    let report = pb::Report { report: Some(pb::report::Report::Used(used)) };
    let refused = Report::try_from(report).unwrap_err();
    assert_eq!(refused.to_string(), "used.next_hops[1]: `?` is not a protocol address");
}
