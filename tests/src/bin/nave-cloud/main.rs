//! The demonstration cloud: a hub, two spokes and a host behind each, all on this machine. It is brought up, its story told
//! as it happens and checked, and then it stays for whoever wants to try it.
#![forbid(unsafe_code)]

mod observer;
mod story;
mod teller;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};

use anyhow::Result;
use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use tests::census::Lookout;
use tests::cloud::{Cloud, HUB, Phase, Ports, SPOKE1};
use tests::guardian::Guardian;
use tests::keys::Protection;
use tests::node;

use crate::teller::Teller;

/// Brings up a hub and two spokes on this machine, lets two hosts talk through them and tells what happens.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// End after the story; the exit status tells whether it went as it should.
    #[arg(long)]
    once: bool,
    /// Phase of DMVPN.
    #[arg(long, value_enum, default_value = "3")]
    phase: Phase,
    /// What the data planes' ports are.
    #[arg(long, value_enum, default_value = "tap")]
    ports: Ports,
    /// How tunnels are protected.
    #[arg(long, value_enum, default_value = "ikev2")]
    protection: Protection,
    /// What the names of its namespaces, and of its folder in /run, begin with.
    #[arg(long, default_value = "nave")]
    name: String,
}

/// Who cleans up when a signal ends the program in the middle of the story.
static GUARDIAN: OnceLock<Arc<Guardian>> = OnceLock::new();
/// The cloud is up and waits for a signal to end.
static STAYING: AtomicBool = AtomicBool::new(false);
/// A signal ended the story.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let result = run(&Args::parse());
    // However it went: when this program is gone, so is everything that it made.
    if let Some(guardian) = GUARDIAN.get() {
        guardian.dismiss();
    }
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Of a story that was cut off nobody wants to hear how it failed.
        Err(_) if INTERRUPTED.load(Ordering::Relaxed) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("nave-cloud: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the story went as it should.
fn run(args: &Args) -> Result<bool> {
    let (interrupt, interrupted) = mpsc::channel();
    watch_signals(interrupt)?;
    for name in ["nave-dataplane", "nave-controlplane", "nave"] {
        node::program(name)?;
    }

    let mut teller = Teller::new();
    let mut cloud = Cloud::lay(&args.name, args.phase, args.ports)?;
    let _ = GUARDIAN.set(cloud.guardian());
    match args.protection {
        Protection::Ikev2 => drop(cloud.protect_by_ike()?),
        Protection::StaticKeys => {
            cloud.protect()?;
            write_keys(&cloud)?;
        }
        Protection::None => {}
    }
    let lookout = Lookout::start(&cloud)?;
    story::tell(&mut cloud, args.phase, args.protection, &mut teller)?;

    if !args.once {
        teller.sum_up();
        // Before it is said: whoever reads it may press the keys at once.
        STAYING.store(true, Ordering::Relaxed);
        print_what_to_try(&cloud, args.protection);
        let _ = interrupted.recv();
        println!("\nstopping");
    }
    cloud.stop()?;
    story::underlay(&lookout.finish()?, args.protection, &mut teller);
    Ok(teller.sum_up())
}

/// Takes SIGINT, SIGTERM and SIGHUP on a thread of its own. While the cloud stays, one of them ends the stay; at any other time
/// the guardian removes everything at once.
fn watch_signals(interrupt: mpsc::Sender<()>) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if STAYING.swap(false, Ordering::Relaxed) {
                let _ = interrupt.send(());
                continue;
            }
            INTERRUPTED.store(true, Ordering::Relaxed);
            if let Some(guardian) = GUARDIAN.get() {
                guardian.dismiss();
            }
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// The keys of this run, for who wants to read what is protected.
fn write_keys(cloud: &Cloud) -> Result<()> {
    let mut file = File::options();
    let mut file = file.create_new(true).write(true).mode(0o600).open(keys_file(cloud))?;
    file.write_all(cloud.keys().table().as_bytes())?;
    Ok(())
}

fn keys_file(cloud: &Cloud) -> PathBuf {
    cloud.directory().join("esp_sa")
}

fn print_what_to_try(cloud: &Cloud, protection: Protection) {
    let (hub, spoke) = (&cloud.nodes[HUB], &cloud.nodes[SPOKE1]);
    let (from, to) = (&spoke.host, &cloud.nodes[SPOKE1 + 1].host);
    let nave = node::program("nave").unwrap_or_default();
    println!("\nThe cloud stays up until Ctrl-C. In another terminal, as root:\n");
    println!("  # a host behind spoke1 pings one behind spoke2");
    println!("  ip netns exec {} ping {}", from.namespace.name(), to.address());
    println!("  # what the nodes know");
    for node in [hub, spoke] {
        println!("  {} --socket {} show dmvpn", nave.display(), node.management_socket().display());
    }
    let socket = spoke.management_socket();
    for words in ["show nhrp --detail", "show adjacency", "show drops", "clear nhrp", "watch"] {
        println!("  {} --socket {} {words}", nave.display(), socket.display());
    }
    println!("  # the underlay");
    let what = match protection {
        Protection::Ikev2 => "'esp or udp port 500'",
        Protection::StaticKeys => "esp",
        Protection::None => "proto gre",
    };
    println!("  ip netns exec {} tcpdump -ni {} {what}", cloud.internet.name(), tests::cloud::BRIDGE);
    if protection == Protection::StaticKeys {
        println!(
            "  # what the next packets on spoke1's port hold, which only the keys of this run show (`clear nhrp` and a ping: NHRP too)"
        );
        let (nave, keys) = (nave.display(), keys_file(cloud));
        let capture = format!("{nave} --socket {} capture --port wan -c 12 -w -", socket.display());
        println!("  {capture} | {nave} decode --esp-sa {} -", keys.display());
    }
    if protection == Protection::Ikev2 {
        println!("  # who is who, and what is agreed on with whom");
        for words in ["show ike --detail", "show sa", "clear ike 203.0.113.12"] {
            println!("  {} --socket {} {words}", nave.display(), socket.display());
        }
    }
    println!("  # the kernel twins of spoke1");
    println!("  ip -n {} -brief address", spoke.namespace.name());
    println!("  # configuration and logs");
    println!("  ls {}/*", cloud.directory().display());
}
