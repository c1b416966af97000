//! Network namespaces by name, as `ip netns` keeps them, so that an operator can enter them too.

use std::fs::{self, File};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};

use crate::guardian::Guardian;

/// A namespace that the guardian removes in the end.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes one: loopback up, no IPv6 (nothing but what is sent on purpose shall be on the wires).
    ///
    /// # Errors
    /// It exists already, or this is not root.
    pub fn add(guardian: &Guardian, name: &str) -> Result<Self> {
        let added = Command::new("ip").args(["netns", "add", name]).output().context("running ip")?;
        ensure!(added.status.success(), "ip netns add {name}: {}", text(&added.stderr));
        guardian.watch_namespace(name)?;
        let path = format!("/run/netns/{name}");
        let file = File::open(&path).with_context(|| path.clone())?;
        let namespace = Self { name: name.to_owned(), file };
        if fs::exists("/proc/sys/net/ipv6")? {
            namespace.switch("ipv6/conf/all/disable_ipv6", true)?;
            namespace.switch("ipv6/conf/default/disable_ipv6", true)?;
        }
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Lets IPv6 into a namespace of hosts: an address counts from the moment that it is there, and nobody on the link gives
    /// out others.
    ///
    /// # Errors
    /// The kernel has no IPv6.
    pub fn allow_ipv6(&self) -> Result<()> {
        for conf in ["all", "default"] {
            for key in ["disable_ipv6", "accept_dad", "accept_ra", "autoconf"] {
                self.switch(&format!("ipv6/conf/{conf}/{key}"), false)?;
            }
        }
        Ok(())
    }

    /// Its name, for `ip netns exec`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `f` inside, on a thread of its own (a namespace is a property of a thread).
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| self.enter().map(|()| f()));
            inside.join().map_err(|_| anyhow::anyhow!("panic in namespace {}", self.name))?
        })
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn enter(&self) -> Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {}", self.name))
    }

    /// Starts a program inside.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let program = command.get_program().to_owned();
        self.run(|| command.spawn())?.with_context(|| format!("starting {}", program.display()))
    }

    /// Runs a program inside to its end.
    ///
    /// # Errors
    /// It cannot be started. How it ended is in the output.
    pub fn output(&self, program: &str, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(self.spawn(&mut command)?.wait_with_output()?)
    }

    /// Runs a program inside that must succeed; its standard output.
    ///
    /// # Errors
    /// It failed; its words are in the error.
    pub fn check(&self, program: &str, args: &[&str]) -> Result<String> {
        let output = self.output(program, args)?;
        ensure!(
            output.status.success(),
            "in {}: {program} {}: {}: {}{}",
            self.name,
            args.join(" "),
            output.status,
            text(&output.stderr),
            text(&output.stdout)
        );
        Ok(text(&output.stdout))
    }

    /// `ip` with these words, inside.
    ///
    /// # Errors
    /// As [`Namespace::check`].
    pub fn ip(&self, words: &str) -> Result<String> {
        self.check("ip", &words.split_whitespace().collect::<Vec<_>>())
    }

    /// Switches off `/proc/sys/net/KEY`, or on; a kernel that does not have it has it off.
    ///
    /// # Errors
    /// It is there and cannot be written.
    pub fn switch(&self, key: &str, on: bool) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        let write =
            || if on || fs::exists(&path)? { fs::write(&path, if on { "1" } else { "0" }) } else { Ok(()) };
        self.run(write)?.with_context(|| path.clone())
    }

    /// Whether an interface of that name is inside.
    #[must_use]
    pub fn has_link(&self, link: &str) -> bool {
        self.output("ip", &["link", "show", "dev", link]).is_ok_and(|o| o.status.success())
    }

    /// Index of an interface inside.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn link_index(&self, link: &str) -> Result<usize> {
        let index = self.run(|| nix::net::if_::if_nametoindex(link))?;
        Ok(index.with_context(|| format!("{link} in {}", self.name))? as usize)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_lives_as_long_as_its_guardian() {
        let name = format!("nave-test-{}", std::process::id());
        let guardian = Guardian::start().unwrap();
        let namespace = Namespace::add(&guardian, &name).unwrap();
        assert!(Namespace::add(&guardian, &name).is_err(), "one name, one namespace");
        namespace.ip("link add left type veth peer name right").unwrap();
        assert!(namespace.has_link("left") && !namespace.has_link("middle"));
        assert!(namespace.link_index("right").unwrap() > 1);
        // What still runs inside goes with it.
        let mut sleeper = namespace.spawn(Command::new("sleep").arg("60")).unwrap();
        drop(guardian);
        assert!(!sleeper.wait().unwrap().success());
        assert!(!fs::exists(format!("/run/netns/{name}")).unwrap());
    }
}
