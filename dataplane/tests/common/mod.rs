//! A data plane of a test, and what it is told.
#![allow(dead_code)] // Each test uses some of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use model::program::{Interface, Object, Op, Owner, Path as RoutePath, Route};
use model::{InterfaceName, TableId};

/// A data plane that ends with the test.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) socket: PathBuf,
}

impl Running {
    pub(crate) fn start(test: &str, workers: &str) -> Self {
        Self::start_with(test, workers, &[])
    }

    pub(crate) fn start_with(test: &str, workers: &str, flags: &[&str]) -> Self {
        Self::start_on(test, workers, ["wan=net_null0", "lan=net_null1,copy=1"], flags)
    }

    pub(crate) fn start_on(test: &str, workers: &str, ports: [&str; 2], flags: &[&str]) -> Self {
        let socket = std::env::temp_dir().join(format!("nave-process-{test}-{}.sock", std::process::id()));
        let memory = format!("no-huge:{}", 128 * workers.split(',').count());
        let child = Command::new(env!("CARGO_BIN_EXE_nave-dataplane"))
            .args(["--port", ports[0], "--port", ports[1], "--memory", &memory])
            .args(["--idle", "adaptive", "--workers", workers, "--socket"])
            .arg(&socket)
            .args(flags)
            .stdin(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let running = Self { child, socket };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !running.socket.exists() {
            assert!(Instant::now() < deadline, "no socket after 30 s");
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }

    /// Name and allowed cores of every thread.
    pub(crate) fn threads(&self) -> Vec<(String, String)> {
        let tasks = Path::new("/proc").join(self.child.id().to_string()).join("task");
        let mut threads = Vec::new();
        for task in fs::read_dir(tasks).unwrap() {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                line.trim().to_owned()
            };
            threads.push((field("Name:"), field("Cpus_allowed_list:")));
        }
        threads
    }

    pub(crate) fn terminate(mut self) -> std::process::ExitStatus {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

/// Of an interface.
pub(crate) fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

/// A port interface.
pub(crate) fn interface(called: &str, port: &str) -> Op {
    let interface = Interface {
        name: name(called),
        port: port.to_owned(),
        mtu: 1500,
        table: TableId::default(),
        forwarding: true,
        vlan: None,
        netns: None,
    };
    Op::Put(Owner::Config, Object::Interface(interface))
}

/// An address of ours.
pub(crate) fn receive(prefix: &str, by: &str) -> Op {
    let path = RoutePath::Receive(name(by));
    let route = Route { table: TableId::default(), prefix: prefix.parse().unwrap(), path, expires_in: None };
    Op::Put(Owner::Config, Object::Route(route))
}
