//! Virtual machines of Linux and FRR (`tests/lab`): User-Mode-Linux, plugged into the underlay.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cloud::Cloud;
use crate::guest::{Guest, Server, Suite};
use crate::node::{self, Node};
use crate::process::{self, Process};
use crate::swan::Swan;
use crate::wait;

/// An entry of FRR's cache, as FRR shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Its type: `local`, `nhs`, `dynamic`, `incomplete`, `negative`.
    pub kind: String,
    /// The protocol address.
    pub protocol: Ipv4Addr,
    /// Where FRR sends what is for it.
    pub nbma: Option<Ipv4Addr>,
    /// Where it says that it is, which a NAT makes another place.
    pub claimed: Option<Ipv4Addr>,
    /// A holding time runs.
    pub ends: bool,
}

impl Binding {
    /// One with a holding time, of somebody who is where he says that he is.
    #[must_use]
    pub fn held(kind: &str, protocol: Ipv4Addr, nbma: Ipv4Addr) -> Self {
        Self { kind: kind.to_owned(), protocol, nbma: Some(nbma), claimed: Some(nbma), ends: true }
    }
}

/// A virtual machine that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Vm {
    guest: Guest,
    directory: PathBuf,
    process: Process,
    commands: AtomicU32,
}

/// It is what it was told to be.
impl Deref for Vm {
    type Target = Guest;

    fn deref(&self) -> &Guest {
        &self.guest
    }
}

impl Vm {
    /// Boots these machines, all at the same time, and waits until their FRR runs. Builds the image first if there is none yet.
    ///
    /// # Errors
    /// No image to be had, or a machine does not come up.
    pub fn boot<const N: usize>(cloud: &Cloud, guests: [Guest; N]) -> Result<[Self; N]> {
        let mut vms = Vec::new();
        for guest in guests {
            vms.push(Self::start(cloud, &image(guest.suite)?, guest)?);
        }
        for vm in &mut vms {
            vm.wait_ready()?;
        }
        vms.try_into().map_err(|_| anyhow::anyhow!("as many machines as guests"))
    }

    fn start(cloud: &Cloud, image: &Path, guest: Guest) -> Result<Self> {
        let name = &guest.name;
        let directory = cloud.directory().join(name);
        fs::create_dir_all(directory.join("cmd"))?;
        fs::write(directory.join("config"), guest.variables())?;
        fs::write(directory.join("frr.conf"), guest.frr())?;
        if let Some(setup) = &guest.setup {
            fs::write(directory.join("setup"), setup)?;
        }
        if let Some(swan) = &guest.swan {
            swan.write(&directory.join("swanctl"))?;
        }

        let (namespace, bridge) = &guest.wire;
        let tap = format!("tap-{name}");
        namespace.ip(&format!("tuntap add dev {tap} mode tap"))?;
        namespace.ip(&format!("link set dev {tap} master {bridge} up"))?;
        ensure!(Command::new("mkfifo").arg(directory.join("fifo")).status()?.success(), "mkfifo");
        // The shell only opens the second console for the kernel, which then takes its place.
        let mut uml = Command::new("/bin/sh");
        uml.args(["-c", "exec \"$@\" 3<>\"$0\""]).arg(directory.join("fifo"));
        uml.arg(image.join("kernel/linux")).args(["mem=160M", "root=/dev/root", "rootfstype=hostfs", "ro"]);
        uml.arg(format!("rootflags={}", image.join(guest.suite.name()).display()))
            .arg("init=/usr/sbin/lab-init");
        uml.arg(format!("labdir={}", directory.display())).arg(format!("umid={name}"));
        uml.arg(format!("uml_dir={}/uml/", directory.display()));
        uml.arg(format!("eth0=tuntap,{tap},02:00:00:00:{:02x}:01", guest.number));
        uml.args(["ssl=null", "con=null", "con0=null,fd:1", "con1=fd:3,null"]);
        uml.env("TMPDIR", "/dev/shm").env("HOME", &directory);
        let process = Process::start(name, namespace, &directory.join("console.log"), &mut uml)?;
        Ok(Self { guest, directory, process, commands: AtomicU32::new(0) })
    }

    fn wait_ready(&mut self) -> Result<()> {
        let state = self.directory.join("state");
        wait::until(&format!("{} to boot", self.name), Duration::from_secs(60), || {
            self.process.check_alive()?;
            ensure!(state.exists(), "it is not ready");
            Ok(())
        })
        .with_context(|| process::tail(&self.directory.join("console.log")))
    }

    /// Runs a shell command inside; its exit status and output.
    ///
    /// # Errors
    /// No end within 60 seconds.
    pub fn run(&self, command: &str) -> Result<(i32, String)> {
        let number = self.commands.fetch_add(1, Ordering::Relaxed);
        let file = |suffix: &str| self.directory.join(format!("cmd/{number}.{suffix}"));
        fs::write(file("sh"), command)?;
        let mut fifo = fs::File::options().read(true).write(true).open(self.directory.join("fifo"))?;
        writeln!(fifo, "{number}")?;
        let status = wait::until(command, Duration::from_secs(60), || Ok(fs::read_to_string(file("rc"))?))?;
        Ok((status.trim().parse()?, fs::read_to_string(file("out")).unwrap_or_default()))
    }

    /// Twenty pings in four seconds from its LAN, of which each must be answered, the first too.
    ///
    /// # Errors
    /// One is not; what it knows is in the error.
    pub fn ping(&self, to: Ipv4Addr) -> Result<()> {
        let (status, output) = self.run(&format!("ping -c 20 -i 0.2 -I {} {to}", self.lan))?;
        let whole = status == 0 && output.contains(" 0% packet loss");
        ensure!(whole, "{}: ping {to}: {output}\n{}", self.name, self.log());
        Ok(())
    }

    /// Whether at least one of two pings from its LAN is answered within a second.
    ///
    /// # Errors
    /// As [`Vm::run`].
    pub fn reaches(&self, to: Ipv4Addr) -> Result<bool> {
        Ok(self.run(&format!("ping -c 2 -i 0.2 -W 1 -I {} {to}", self.lan))?.0 == 0)
    }

    /// Has it register at once, and not when its back-off is over.
    ///
    /// # Errors
    /// It has no server, or as [`Vm::vtysh`].
    pub fn register_anew(&self) -> Result<()> {
        let Server { nbma, tunnel } = self.server.context("a hub registers with nobody")?;
        let server = format!("ip nhrp nhs {tunnel} nbma {nbma}");
        self.vtysh(&format!("conf t' -c 'interface gre1' -c 'no {server}' -c '{server}")).map(drop)
    }

    /// Waits until a Nave hub has its registration, from this address.
    ///
    /// # Errors
    /// Not within half a minute; what it knows is in the error.
    pub fn wait_registered(&self, hub: &Node, nbma: Ipv4Addr) -> Result<()> {
        wait::until(&format!("registration of {}", self.name), Duration::from_secs(30), || {
            let entry = hub.entry_of(self.tunnel)?.context("the hub does not know it")?;
            let known = entry["type"] == "dynamic" && entry["nbma"] == *nbma.to_string();
            ensure!(known, "{entry:#}");
            Ok(())
        })
        .with_context(|| self.log())
    }

    /// Waits until its cache has exactly this for its protocol address.
    ///
    /// # Errors
    /// Not within half a minute; what it knows is in the error.
    pub fn wait_known(&self, binding: &Binding) -> Result<()> {
        wait::until(&format!("{binding:?}"), Duration::from_secs(30), || {
            let known = self.known(binding.protocol)?;
            ensure!(known.as_ref() == Some(binding), "it is {known:?}");
            Ok(())
        })
        .with_context(|| self.log())
    }

    /// What FRR's shell says to a command.
    ///
    /// # Errors
    /// It does not know the command.
    pub fn vtysh(&self, command: &str) -> Result<String> {
        let (status, output) = self.run(&format!("vtysh -c '{command}'"))?;
        ensure!(status == 0, "{}: vtysh: {command}: {output}", self.name);
        Ok(output)
    }

    /// As [`Vm::vtysh`], of a command that ends in `json`.
    ///
    /// # Errors
    /// As [`Vm::vtysh`].
    pub fn show(&self, command: &str) -> Result<Value> {
        let text = self.vtysh(command)?;
        serde_json::from_str(&text).with_context(|| format!("{}: {command}: {text}", self.name))
    }

    /// Its NHRP cache, in order of addresses.
    ///
    /// # Errors
    /// As [`Vm::vtysh`].
    pub fn cache(&self) -> Result<Vec<Binding>> {
        let table = self.table("show ip nhrp cache json")?;
        let mut cache = table.iter().map(binding).collect::<Result<Vec<_>>>()?;
        cache.sort_by_key(|binding| binding.protocol);
        Ok(cache)
    }

    /// What it knows of a protocol address.
    ///
    /// # Errors
    /// As [`Vm::vtysh`].
    pub fn known(&self, protocol: Ipv4Addr) -> Result<Option<Binding>> {
        Ok(self.cache()?.into_iter().find(|binding| binding.protocol == protocol))
    }

    /// Its shortcuts: prefix, and tunnel address of the next hop.
    ///
    /// # Errors
    /// As [`Vm::vtysh`].
    pub fn shortcuts(&self) -> Result<Vec<(String, String)>> {
        let table = self.table("show ip nhrp shortcut json")?;
        let shortcut = |entry: &Value| Some((word(entry, "prefix")?, word(entry, "via")?));
        let mut shortcuts: Vec<_> = table.iter().filter_map(shortcut).collect();
        shortcuts.sort();
        Ok(shortcuts)
    }

    /// Its servers, as configured: protocol address and NBMA address.
    ///
    /// # Errors
    /// As [`Vm::vtysh`].
    pub fn servers(&self) -> Result<Vec<(String, String)>> {
        let table = self.table("show ip nhrp nhs json")?;
        Ok(table.iter().filter_map(|entry| Some((word(entry, "protocol")?, word(entry, "nbma")?))).collect())
    }

    fn table(&self, command: &str) -> Result<Vec<Value>> {
        let shown = self.show(command)?;
        // Of an empty table there is nothing but its count.
        Ok(shown["table"].as_array().cloned().unwrap_or_default())
    }

    /// Gives its strongSwan something else to go by. What is up stays up.
    ///
    /// # Errors
    /// It does not like it.
    pub fn load(&self, swan: &Swan) -> Result<()> {
        let directory = self.directory.join("swanctl");
        fs::remove_dir_all(&directory)?;
        swan.write(&directory)?;
        let (status, output) = self.run("lab-swan")?;
        ensure!(status == 0, "{}: {output}", self.name);
        Ok(())
    }

    /// What strongSwan's command says.
    ///
    /// # Errors
    /// It fails.
    pub fn swanctl(&self, words: &str) -> Result<String> {
        let (status, output) = self.run(&format!("swanctl {words} --uri unix:///run/swan.vici"))?;
        ensure!(status == 0, "{}: swanctl {words}: {output}\n{}", self.name, self.swan_log());
        Ok(output)
    }

    /// What strongSwan said last.
    #[must_use]
    pub fn swan_log(&self) -> String {
        let text = fs::read_to_string(self.directory.join("log/charon.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// What its nhrpd said last, and what it knows.
    #[must_use]
    pub fn log(&self) -> String {
        let command =
            "tail -40 /run/frr/frr.log; ip route; vtysh -c 'show ip nhrp cache' -c 'show ip nhrp shortcut'";
        self.run(command).map_or_else(|error| format!("{error:#}"), |(_, output)| output)
    }
}

/// The directory of the images, with this one, which is built if it is not there.
fn image(suite: Suite) -> Result<PathBuf> {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab");
    let image = node::programs()?.parent().context("a profile in no target directory")?.join("lab");
    let built = Command::new(lab.join("build.sh")).arg(&image).arg(suite.name()).output()?;
    ensure!(built.status.success(), "build.sh: {}", String::from_utf8_lossy(&built.stderr));
    Ok(image)
}

fn word(entry: &Value, key: &str) -> Option<String> {
    entry[key].as_str().map(str::to_owned)
}

fn binding(entry: &Value) -> Result<Binding> {
    let address = |key| word(entry, key)?.parse().ok();
    Ok(Binding {
        kind: word(entry, "type").with_context(|| format!("no type: {entry}"))?,
        protocol: address("protocol").with_context(|| format!("no protocol address: {entry}"))?,
        nbma: address("nbma"),
        claimed: address("claimed_nbma"),
        ends: entry["timeout"] == true,
    })
}
