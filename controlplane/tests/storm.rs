//! Many spokes at once: a hub's control plane as its process runs it, and spokes that are conductors with UDP sockets of their own.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::process::*;
use common::*;
use controlplane::conductor::{Conductor, Input, Kept, Output};
use controlplane::credentials;
use controlplane::kernel::{Notice, Order};
use model::config::Config;
use model::program::{Object, Op};
use model::report::{PacketIn, PuntReason, Report};
use model::sa::Spi;
use model::state::event::Happening;
use model::{Instance, Mac, NbmaAddr};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

const SPOKES: u32 = 2000;
const HUB: &str = "10.9.0.1";

/// A network namespace in which every address of the underlay is local; gone afterwards.
struct Site(String);

impl Site {
    fn new() -> Self {
        let site = Self(format!("nave-cp-storm-{}", std::process::id()));
        twin::make_netns(&site.0).unwrap();
        for words in ["link set lo up", "route add local 10.9.0.0/16 dev lo"] {
            let mut ip = std::process::Command::new("ip");
            assert!(ip.args(["-n", &site.0]).args(words.split(' ')).status().unwrap().success(), "{words}");
        }
        site
    }

    fn socket(&self, at: Ipv4Addr) -> UdpSocket {
        let bind = move || std::net::UdpSocket::bind((at, 500));
        let socket = twin::in_netns(Path::new(&self.0), bind).unwrap().unwrap();
        socket.set_nonblocking(true).unwrap();
        UdpSocket::from_std(socket).unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = twin::remove_netns(&self.0);
    }
}

/// Processor time of this process.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let part = |time: nix::sys::time::TimeVal| {
        Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()) as u64)
    };
    part(usage.user_time()) + part(usage.system_time())
}

fn by_ike(text: &str, name: &str, more: &str) -> String {
    let text = text.replacen("source = \"wan\"", "source = \"wan\"\nprotection = \"branch\"", 1);
    format!(
        "{text}{more}\n[[profiles]]\nname = \"branch\"\n[profiles.ike]\nidentity = \"{name}.example\"\n\
         [[profiles.ike.psk]]\nsecret = \"a secret of the whole cloud\"\n"
    )
}

fn hub(site: &Site) -> String {
    let text = example(3, "hub")
        .replace("203.0.113.1/24", "10.9.0.1/16")
        .replace("10.255.0.1/24", "10.255.0.1/16")
        .replacen("name = \"wan\"", "name = \"wan\"\ntable = 1", 1)
        .replacen("source = \"wan\"", "source = \"wan\"\nunderlay_table = 1", 1);
    by_ike(&text, "hub", &format!("\n[[tables]]\nid = 1\nnetns = {:?}\n", site.0))
}

fn address(n: u32, net: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net) + 256 + n)
}

fn spoke(n: u32) -> String {
    let (nbma, own) = (address(n, Ipv4Addr::new(10, 9, 0, 0)), address(n, Ipv4Addr::new(10, 255, 0, 0)));
    let text = example(3, "spoke1")
        .replace("203.0.113.11/24", &format!("{nbma}/16"))
        .replace("203.0.113.1\"", &format!("{HUB}\""))
        .replace("10.255.0.11/24", &format!("{own}/16"));
    by_ike(&text, &format!("spoke{n}"), "")
}

/// What all spokes have in common.
struct World {
    underlay: Underlay,
    registered: AtomicUsize,
    failures: AtomicUsize,
    began: Instant,
}

/// A spoke: its conductor, and a data plane that takes everything.
struct Spoke {
    conductor: Conductor,
    socket: UdpSocket,
    nbma: NbmaAddr,
    /// The SA to the hub.
    seals: Option<Spi>,
    world: Arc<World>,
}

impl Spoke {
    fn now(&self) -> model::time::Instant {
        model::time::Instant(1_790_000_000_000_000) + self.world.began.elapsed()
    }

    async fn give(&mut self, input: Input) {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut out = Vec::new();
            self.conductor.handle(self.now(), input, &mut out);
            for output in out {
                inputs.extend(self.carry_out(output).await);
            }
        }
    }

    async fn carry_out(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Program(steps) => {
                for op in &steps.ops {
                    if let Op::Put(_, Object::OutboundSa(sa)) = op {
                        self.seals = Some(sa.spi);
                    }
                }
                return Some(Input::Taken(steps.number));
            }
            Output::Datagram(datagram) => {
                let _ = self.socket.send_to(&datagram.bytes, datagram.remote).await;
            }
            Output::Send(packet) => {
                let to = self.world.underlay.lock().unwrap().get(&packet.destination).cloned();
                let packet = PacketIn {
                    reason: PuntReason::Nhrp,
                    tunnel: packet.tunnel,
                    source: self.nbma,
                    destination: packet.destination,
                    udp_port: 0,
                    bytes: packet.bytes,
                    dropped_before: 0,
                    spi: self.seals,
                };
                assert!(packet.spi.is_some(), "a packet in the clear");
                // A queue that is full drops.
                let _ = to.map(|to| to.try_send(packet));
            }
            Output::Kernel(Order::Twins(_)) => return Some(Input::Kernel(Notice::Synced)),
            Output::Kernel(Order::Resolve(hop)) => {
                let mac = Some(Mac([2, 0xee, 0, 0, 0, 1]));
                return Some(Input::Kernel(Notice::Neighbour { hop, mac }));
            }
            Output::Record { number, .. } => return Some(Input::Recorded(number)),
            Output::Event(Happening::ServerUp { refresh: false, .. }) => {
                self.world.registered.fetch_add(1, Ordering::Relaxed);
            }
            Output::Event(Happening::IkeFailed { .. }) => {
                self.world.failures.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        None
    }

    async fn run(mut self, mut packets: mpsc::Receiver<PacketIn>) {
        self.give(Input::Tick).await;
        for (n, port) in ["wan", "lan"].into_iter().enumerate() {
            let mac = Mac([2, 0, 0, 0, 0, n as u8]);
            self.give(Input::Report(Report::Port { port: port.to_owned(), mac, up: true, mtu: 1500 })).await;
        }
        let (instance, version) = (Instance(7), "test".to_owned());
        self.give(Input::Greeted {
            connection: 1,
            instance,
            version,
            workers: 1,
            slots: 1 << 18,
            ike: vec![],
        })
        .await;
        let local = self.socket.local_addr().unwrap();
        let mut buffer = vec![0; 4096];
        loop {
            let wait = self.conductor.next_deadline().map(|due| due.since(self.now()));
            let wait = wait.unwrap_or(Duration::from_secs(60));
            tokio::select! {
                came = self.socket.recv_from(&mut buffer) => {
                    let Ok((len, remote)) = came else { continue };
                    let bytes = buffer[..len].to_vec();
                    let table = model::TableId(0);
                    let datagram = controlplane::conductor::Datagram { table, local, remote, bytes };
                    self.give(Input::Datagram(datagram)).await;
                }
                packet = packets.recv() => match packet {
                    Some(packet) => self.give(Input::Packet(packet)).await,
                    None => return,
                },
                () = tokio::time::sleep(wait) => self.give(Input::Tick).await,
            }
        }
    }
}

/// Input: a hub that just began, and 2,000 spokes that come at one moment, each with a socket of its own. Output: every one is protected and
/// registered, and the hub has two SAs for each. How many attempts come to nothing, on a machine that has other things to do, is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_spokes_return_at_once() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let site = Site::new();
    let underlay = Underlay::default();
    let folder = Folder::new("storm", "");
    folder.write(&hub(&site));
    let dataplane = DataplaneProcess::start(&folder, 10, &underlay);
    let control = ControlplaneProcess::start(&folder).await;
    wait("the hub's tunnel", || underlay.lock().unwrap().contains_key(&nbma(HUB))).await;
    let mut spokes = Vec::new();
    for n in 0..SPOKES {
        let config = Config::parse(&spoke(n)).unwrap();
        let at = address(n, Ipv4Addr::new(10, 9, 0, 0));
        spokes.push((config, at, site.socket(at)));
    }
    let world = Arc::new(World {
        underlay: Arc::clone(&underlay),
        registered: AtomicUsize::new(0),
        failures: AtomicUsize::new(0),
        began: Instant::now(),
    });
    let before = cpu();
    let mut tasks = Vec::new();
    for (n, (config, at, socket)) in spokes.into_iter().enumerate() {
        let (sender, packets) = mpsc::channel(16);
        underlay.lock().unwrap().insert(at.into(), sender);
        let held = credentials::load(&config).unwrap();
        let begins = model::time::Instant(1_790_000_000_000_000) + world.began.elapsed();
        let mut conductor = Conductor::new(begins, config, n as u64, Kept::default());
        conductor.hold_credentials(held);
        let spoke = Spoke { conductor, socket, nbma: at.into(), seals: None, world: Arc::clone(&world) };
        tasks.push(tokio::spawn(spoke.run(packets)));
    }
    let all = SPOKES as usize;
    let mut seconds = 0;
    while world.registered.load(Ordering::Relaxed) < all && seconds < 120 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        seconds = world.began.elapsed().as_secs();
    }
    let took = world.began.elapsed();
    let cpu = cpu() - before;
    let (registered, failures) =
        (world.registered.load(Ordering::Relaxed), world.failures.load(Ordering::Relaxed));
    eprintln!(
        "{registered} of {all} spokes are protected and registered after {took:?}, {cpu:?} of processor time for all of them and the \
         hub; {failures} attempts were made again"
    );
    assert_eq!(registered, all);
    let program = dataplane.served.program.lock().unwrap().program();
    let count = |is: fn(&Object) -> bool| program.values().filter(|object| is(object)).count();
    assert_eq!(count(|object| matches!(object, Object::Binding(_))), all);
    assert_eq!(count(|object| matches!(object, Object::OutboundSa(_))), all);
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    control.stop().await;
}
