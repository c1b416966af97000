//! A Linux + FRR spoke in a User-Mode-Linux virtual machine (`tests/lab`), plugged into the underlay.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cloud::{BRIDGE, Cloud, HUB};
use crate::process::{self, Process};
use crate::{node, wait};

/// The virtual machine. Dropped, it is killed.
#[derive(Debug)]
pub struct Vm {
    /// Its address on the underlay.
    pub nbma: Ipv4Addr,
    /// Its address on the tunnel.
    pub tunnel: Ipv4Addr,
    /// Its address on its LAN.
    pub lan: Ipv4Addr,
    directory: PathBuf,
    process: Process,
    commands: u32,
}

impl Vm {
    /// Builds the image if there is none yet, boots a spoke numbered `number` and waits until its FRR runs. `authentication` is
    /// what it says to the hub.
    ///
    /// # Errors
    /// No image to be had, or the machine does not come up.
    pub fn boot(cloud: &Cloud, number: u8, authentication: &str) -> Result<Self> {
        let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab");
        let image = node::programs()?.parent().context("a profile in no target directory")?.join("lab");
        let built = Command::new(lab.join("build.sh")).arg(&image).output()?;
        ensure!(built.status.success(), "build.sh: {}", String::from_utf8_lossy(&built.stderr));

        let name = format!("vm{number}");
        let directory = cloud.directory().join(&name);
        fs::create_dir_all(directory.join("cmd"))?;
        let (nbma, tunnel) = (Ipv4Addr::new(203, 0, 113, number), Ipv4Addr::new(10, 255, 0, number));
        let lan = Ipv4Addr::new(192, 168, number, 1);
        let hub = &cloud.nodes[HUB];
        let config = format!(
            "name={name}\nnbma={nbma}/24\ntun={tunnel}\nlan={lan}/24\nhub_nbma={}\nhub_tun={}\ngre_key=42\n\
             nhrp_auth={authentication}\nnetid=1\nholdtime=600\nmtu=1400\nsummary=192.168.0.0/16\n",
            hub.nbma, hub.tunnel
        );
        fs::write(directory.join("config"), config)?;

        let tap = format!("tap-{name}");
        cloud.internet.ip(&format!("tuntap add dev {tap} mode tap"))?;
        cloud.internet.ip(&format!("link set dev {tap} master {BRIDGE} up"))?;
        ensure!(Command::new("mkfifo").arg(directory.join("fifo")).status()?.success(), "mkfifo");
        // The shell only opens the second console for the kernel, which then takes its place.
        let mut uml = Command::new("/bin/sh");
        uml.args(["-c", "exec \"$@\" 3<>\"$0\""]).arg(directory.join("fifo"));
        uml.arg(image.join("kernel/linux")).args(["mem=160M", "root=/dev/root", "rootfstype=hostfs", "ro"]);
        uml.arg(format!("rootflags={}", image.join("root").display())).arg("init=/usr/sbin/lab-init");
        uml.arg(format!("labdir={}", directory.display())).arg(format!("umid={name}"));
        uml.arg(format!("uml_dir={}/uml/", directory.display()));
        uml.arg(format!("eth0=tuntap,{tap},02:00:00:00:{number:02x}:01"));
        uml.args(["ssl=null", "con=null", "con0=null,fd:1", "con1=fd:3,null"]);
        uml.env("TMPDIR", "/dev/shm").env("HOME", &directory);
        let console = directory.join("console.log");
        let process = Process::start(&name, &cloud.internet, &console, &mut uml)?;
        let mut vm = Self { nbma, tunnel, lan, directory, process, commands: 0 };
        let state = vm.directory.join("state");
        wait::until(&format!("{name} to boot"), Duration::from_secs(60), || {
            vm.process.check_alive()?;
            ensure!(state.exists(), "it is not ready");
            Ok(())
        })
        .with_context(|| process::tail(&console))?;
        Ok(vm)
    }

    /// Runs a shell command inside; its exit status and output.
    ///
    /// # Errors
    /// No end within 30 seconds.
    pub fn run(&mut self, command: &str) -> Result<(i32, String)> {
        self.commands += 1;
        let file = |suffix: &str| self.directory.join(format!("cmd/{}.{suffix}", self.commands));
        fs::write(file("sh"), command)?;
        let mut fifo = fs::File::options().read(true).write(true).open(self.directory.join("fifo"))?;
        writeln!(fifo, "{}", self.commands)?;
        let status = wait::until(command, Duration::from_secs(30), || Ok(fs::read_to_string(file("rc"))?))?;
        Ok((status.trim().parse()?, fs::read_to_string(file("out")).unwrap_or_default()))
    }

    /// What its nhrpd said last.
    ///
    /// # Errors
    /// As [`Vm::run`].
    pub fn log(&mut self) -> Result<String> {
        Ok(self.run("tail -40 /run/frr/frr.log; ip route; vtysh -c 'show ip nhrp cache'")?.1)
    }
}
