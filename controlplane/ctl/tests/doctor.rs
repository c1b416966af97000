//! `nave doctor` as it is run, on machines that are made up: folders with what their /proc and /sys say.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use model::observe::{CaptureRequest, Captured, TraceRequest, TraceStep};
use model::state::ports::{Offload, OffloadKind, OffloadState, Port, Ports, Traffic};
use model::state::workers::{Idle, Worker, Workers};
use model::state::{Event, Show, State, What};
use model::{InterfaceName, Mac, WorkerId};
use proto::server::{self, Management};
use proto::{Access, Applied, Apply, Clear, Status, Stream};
use serde_json::Value;

/// A machine that is made up.
struct Machine(PathBuf);

/// What a processor with everything says of itself.
const FLAGS: &str = "aes pclmulqdq avx2 vaes vpclmulqdq avx512f avx512bw avx512vl constant_tsc nonstop_tsc";

impl Machine {
    /// A good one: eight cores on two nodes of which 2 and 3 are for workers, huge pages, a card on the first node, and a data plane that runs.
    fn good(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("nave-doctor-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let machine = Self(folder);
        machine.put("proc/cpuinfo", &format!("processor\t: 0\nflags\t\t: {FLAGS}\n"));
        machine.put("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n");
        machine.put("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
        for (file, list) in [("online", "0-7"), ("isolated", "2-3"), ("nohz_full", "2-3")] {
            machine.put(&format!("sys/devices/system/cpu/{file}"), list);
        }
        for (node, list) in [(0, "0-3"), (1, "4-7")] {
            machine.put(&format!("sys/devices/system/node/node{node}/cpulist"), list);
            machine.huge_pages(node, 1024, 600);
        }
        for core in 0..8 {
            let folder = format!("sys/devices/system/cpu/cpu{core}");
            machine.put(&format!("{folder}/topology/thread_siblings_list"), &core.to_string());
            machine.put(&format!("{folder}/cpufreq/scaling_governor"), "performance\n");
        }
        machine.put(
            "proc/interrupts",
            "           CPU0       CPU1\n  24:        900          0   PCI-MSI  eth0\n  25:          0          0   PCI-MSI  eth1\nLOC:  1 1 Local timer\n",
        );
        machine.put("proc/irq/24/effective_affinity_list", "0\n");
        machine.put("proc/irq/24/smp_affinity_list", "0-7\n");
        machine.put("proc/irq/25/smp_affinity_list", "0-7\n");
        machine.device("0000:3b:00.0", "vfio-pci", 0);
        machine.dataplane(
            700,
            &["--workers", "2,3", "--port=wan=3b:00.0", "--port", "lan=0000:3b:00.0"],
            "0-1,4-7",
        );
        machine
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn huge_pages(&self, node: u8, all: u32, free: u32) {
        let folder = format!("sys/devices/system/node/node{node}/hugepages/hugepages-2048kB");
        self.put(&format!("{folder}/nr_hugepages"), &all.to_string());
        self.put(&format!("{folder}/free_hugepages"), &free.to_string());
    }

    fn device(&self, address: &str, driver: &str, node: i8) {
        let folder = self.0.join("sys/bus/pci/devices").join(address);
        let _ = fs::remove_dir_all(&folder);
        self.put(&format!("sys/bus/pci/devices/{address}/numa_node"), &node.to_string());
        symlink(format!("../../../bus/pci/drivers/{driver}"), folder.join("driver")).unwrap();
    }

    /// A data plane with such a command line, whose other threads may run on these cores.
    fn dataplane(&self, pid: u32, words: &[&str], others: &str) {
        let line = [&["nave-dataplane"], words].concat().join("\0") + "\0";
        self.put(&format!("proc/{pid}/comm"), "nave-dataplane\n");
        self.put(&format!("proc/{pid}/cmdline"), &line);
        for (thread, name, cores) in [(pid, "nave-host", others), (pid + 1, "nave-worker-0", "2")] {
            self.put(&format!("proc/{pid}/task/{thread}/comm"), &format!("{name}\n"));
            self.put(
                &format!("proc/{pid}/task/{thread}/status"),
                &format!("Name:\t{name}\nCpus_allowed_list:\t{cores}\n"),
            );
        }
    }

    fn nave(&self, socket: &Path, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nave"));
        command
            .arg("--socket")
            .arg(socket)
            .arg("doctor")
            .arg("--root")
            .arg(&self.0)
            .args(words)
            .output()
            .unwrap()
    }

    /// The exit status, and what is found where there is no node: of each topic, and in all.
    fn diagnosed(&self, words: &[&str]) -> (i32, Value) {
        let words = [&["--json"], words].concat();
        let output = self.nave(Path::new("/nonexistent/nave.sock"), &words);
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Looks, and wants this of a topic: how bad it is, words of what is found, and words of what to do; and that nothing else is worse than a
    /// note.
    fn ails(&self, topic: &str, verdict: &str, found: &str, remedy: &str) {
        let (status, all) = self.diagnosed(&[]);
        assert_eq!(
            status,
            ["ok", "slow", "bad"].iter().position(|word| *word == verdict).unwrap() as i32,
            "{all:#}"
        );
        assert_eq!(all["verdict"], verdict);
        let costly = all["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|f| f["verdict"] == "slow" || f["verdict"] == "bad");
        let costly: Vec<_> = costly.collect();
        assert_eq!(costly.len(), 1, "{costly:#?}");
        let one = costly[0];
        assert_eq!((&one["topic"], &one["verdict"]), (&topic.into(), &verdict.into()));
        assert!(one["found"].as_str().unwrap().contains(found), "{one:#}");
        assert!(one["remedy"].as_str().unwrap_or_default().contains(remedy), "{one:#}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Input: a machine as it should be. Output: every topic is looked at and none costs anything; one screen of text says so.
#[test]
fn a_good_machine_has_nothing_that_costs_speed() {
    let machine = Machine::good("good");
    let (status, all) = machine.diagnosed(&[]);
    let findings = all["findings"].as_array().unwrap();
    let topics: Vec<_> = findings.iter().map(|finding| finding["topic"].as_str().unwrap()).collect();
    let wanted = [
        "data plane",
        "huge pages",
        "tables",
        "cores",
        "sharing",
        "interrupts",
        "frequency",
        "AES-GCM",
        "clock",
        "NUMA",
        "ports",
        "spreading",
        "idle",
    ];
    assert_eq!(topics, wanted);
    assert!(findings.iter().all(|finding| finding["verdict"] == "ok"), "{all:#}");
    assert_eq!((status, &all["verdict"]), (0, &"ok".into()));
    let text = machine.nave(Path::new("/nonexistent/nave.sock"), &[]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.ends_with("\nNothing that is known here costs speed.\n") && text.lines().count() < 25,
        "{text}"
    );
}

/// Input: the good machine with one fault each. Output: that one is found, and what to do about it; the exit status says how bad it is.
#[test]
fn each_thing_that_costs_speed_is_found_and_said_with_its_remedy() {
    let with = |name: &str, change: &dyn Fn(&Machine)| {
        let machine = Machine::good(name);
        change(&machine);
        machine
    };
    let none = |m: &Machine| (0..2).for_each(|node| m.huge_pages(node, 0, 0));
    with("no-huge", &none).ails("huge pages", "bad", "none are reserved", "vm.nr_hugepages");
    let words = ["--workers", "2,3", "--port", "wan=0000:3b:00.0", "--memory", "no-huge:256"];
    let ordinary = |m: &Machine| m.dataplane(700, &words, "0-1");
    with("ordinary", &ordinary).ails(
        "huge pages",
        "slow",
        "process 700 has its packet buffers in ordinary pages",
        "in-memory",
    );
    let never = |m: &Machine| m.put("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
    with("never", &never).ails("tables", "slow", "transparent huge pages are off", "echo madvise");
    let scheduled = |m: &Machine| m.put("sys/devices/system/cpu/isolated", "3\n");
    with("scheduled", &scheduled).ails(
        "cores",
        "slow",
        "not isolated from the scheduler: core 2",
        "isolcpus=2,3 nohz_full=2,3",
    );
    let ticking = |m: &Machine| m.put("sys/devices/system/cpu/nohz_full", "\n");
    with("ticking", &ticking).ails("cores", "slow", "with the timer's tick: cores 2, 3", "nohz_full=2,3");
    let paired = |m: &Machine| {
        for core in [2, 3] {
            m.put(&format!("sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"), "2-3\n");
        }
    };
    with("paired", &paired).ails(
        "sharing",
        "slow",
        "hyper-threads of one physical core: cores 2, 3",
        "one worker for each physical core",
    );
    let beside = |m: &Machine| m.dataplane(700, &["--workers", "2,3", "--port", "wan=0000:3b:00.0"], "0-7");
    with("beside", &beside).ails("sharing", "slow", "nave-host of process 700", "one core more");
    let two = |m: &Machine| m.dataplane(800, &["--workers=3", "--port=wan=0000:3b:00.0"], "0-1");
    with("two", &two).ails("sharing", "bad", "several workers have one: core 3", "a core of its own");
    let interrupted = |m: &Machine| m.put("proc/irq/24/effective_affinity_list", "3\n");
    with("interrupted", &interrupted).ails(
        "interrupts",
        "slow",
        "IRQ 24",
        "echo 0,1,4,5,6,7 > /proc/irq/N/smp_affinity_list",
    );
    let saving = |m: &Machine| m.put("sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "powersave\n");
    with("saving", &saving).ails("frequency", "slow", "powersave on core 3", "cpupower");
    let far = |m: &Machine| m.device("0000:3b:00.0", "vfio-pci", 1);
    let machine = with("far", &far);
    machine.dataplane(700, &["--workers", "2,3", "--port", "wan=3b:00.0"], "0-1");
    machine.ails("NUMA", "slow", "port wan (0000:3b:00.0) is on node 1, workers on 0", "cores of node 1");
    let elsewhere = |m: &Machine| m.huge_pages(0, 0, 0);
    with("elsewhere", &elsewhere).ails(
        "NUMA",
        "slow",
        "node 0 has workers and no huge pages",
        "node0/hugepages",
    );
    let kernels = |m: &Machine| m.device("0000:3b:00.0", "ixgbe", 0);
    let machine = with("kernels", &kernels);
    machine.dataplane(700, &["--workers", "2,3", "--port", "wan=3b:00.0"], "0-1");
    machine.ails("ports", "bad", "its driver ixgbe", "dpdk-devbind.py --bind=vfio-pci 0000:3b:00.0");
    let adaptive = |m: &Machine| {
        m.dataplane(700, &["--workers", "2,3", "--port", "wan=3b:00.0", "--idle=adaptive"], "0-1")
    };
    with("adaptive", &adaptive).ails("idle", "slow", "sleep", "without --idle adaptive");
    let tap = |m: &Machine| {
        m.dataplane(700, &["--workers", "2", "--port", "wan=net_tap0,iface=wan0", "--idle=poll"], "0-1")
    };
    with("tap", &tap).ails("ports", "slow", "wan (net_tap) go through the kernel", "PCI address");
    let memif = |m: &Machine| {
        m.dataplane(700, &["--workers", "2,3", "--port", "wan=net_memif0", "--idle=poll"], "0-1")
    };
    let (status, all) = with("memif", &memif).diagnosed(&[]);
    let spreading =
        all["findings"].as_array().unwrap().iter().find(|finding| finding["topic"] == "spreading");
    assert_eq!((status, &spreading.unwrap()["verdict"]), (0, &"note".into()));
    assert_eq!(spreading.unwrap()["found"], "without RSS, the other end chooses the worker: wan (net_memif)");
    let flags = |words: &str| format!("flags : {words}\n");
    let plain = |m: &Machine| m.put("proc/cpuinfo", &flags("aes pclmulqdq constant_tsc nonstop_tsc"));
    with("plain", &plain).ails("AES-GCM", "slow", "no AVX2 and BMI", "");
    let older = flags("aes pclmulqdq avx2 bmi1 bmi2 constant_tsc nonstop_tsc");
    let (status, all) = with("older", &|m: &Machine| m.put("proc/cpuinfo", &older)).diagnosed(&[]);
    let cipher =
        all["findings"].as_array().unwrap().iter().find(|finding| finding["topic"] == "AES-GCM").unwrap();
    assert_eq!((status, &cipher["verdict"]), (0, &"note".into()));
    assert!(cipher["found"].as_str().unwrap().starts_with("aesni: AES-NI, for the processor has no VAES"));
    let soft = |m: &Machine| m.put("proc/cpuinfo", &flags("constant_tsc nonstop_tsc"));
    with("soft", &soft).ails("AES-GCM", "bad", "aes-gcm", "");
    let drifting = |m: &Machine| m.put("proc/cpuinfo", &flags(&FLAGS.replace("nonstop_tsc", "")));
    with("drifting", &drifting).ails("clock", "slow", "TSC is not said to run steadily", "invariant TSC");
}

/// Input: a machine without a data plane, and what is planned. Output: it is looked at as if it ran.
#[test]
fn a_plan_is_looked_at_before_anything_runs() {
    let machine = Machine::good("plan");
    fs::remove_dir_all(machine.0.join("proc/700")).unwrap();
    let (status, all) = machine.diagnosed(&[]);
    assert_eq!(status, 0, "{all:#}");
    assert!(all["findings"][0]["found"].as_str().unwrap().contains("none runs here"), "{all:#}");
    machine.device("0000:5e:00.1", "ice", 1);
    let (status, all) = machine.diagnosed(&["--workers", "3,4", "--device", "5e:00.1"]);
    let found = all.to_string();
    assert_eq!(status, 2);
    for words in ["its driver ice", "not isolated from the scheduler: core 4", "workers are on nodes 0, 1"] {
        assert!(found.contains(words), "{words}: {all:#}");
    }
    let (status, all) = machine.diagnosed(&["--workers", "9"]);
    assert!(status == 2 && all.to_string().contains("not online: core 9"), "{all:#}");
    machine.huge_pages(0, 100, 20);
    machine.huge_pages(1, 0, 0);
    assert_eq!(machine.diagnosed(&[]).0, 2, "40 MiB are too little to start with");
}

/// A node whose data plane has slow AES-GCM, sleeps, and has fewer queues than workers.
struct Node;

#[proto::async_trait]
impl Management for Node {
    async fn show(&self, show: Show) -> Result<State, Status> {
        let worker = |id| Worker {
            id: WorkerId(id),
            core: 2 + id,
            idle: Idle::Adaptive,
            breaths: 1,
            busy_breaths: 0,
            rx_packets: 0,
            tx_packets: 0,
            dropped: 0,
            handed_in: 0,
            handed_off: 0,
            busy_cycles: 0,
            generation: 1,
            aead: "ring".into(),
        };
        let port = Port {
            name: "wan".into(),
            driver: "net_virtio".into(),
            interface: None,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            up: true,
            mtu: 1500,
            queues: 1,
            rx: Traffic::default(),
            tx: Traffic::default(),
            offloads: [OffloadState::Unused, OffloadState::Used, OffloadState::Refused, OffloadState::Unused]
                .into_iter()
                .zip(OffloadKind::ALL)
                .map(|(state, kind)| Offload { kind, state })
                .collect(),
        };
        Ok(match show.what {
            What::Workers => State::Workers(Workers([0, 1].map(worker).into())),
            What::Ports => State::Ports(Ports(vec![port])),
            other => State::empty(other),
        })
    }
    async fn apply(&self, _: Apply) -> Result<Applied, Status> {
        Err(Status::unimplemented("apply"))
    }
    async fn watch(&self, _: Option<InterfaceName>) -> Result<Stream<Event>, Status> {
        Err(Status::unimplemented("watch"))
    }
    async fn clear(&self, _: Clear) -> Result<u64, Status> {
        Err(Status::unimplemented("clear"))
    }
    async fn trace(&self, _: TraceRequest) -> Result<Stream<TraceStep>, Status> {
        Err(Status::unimplemented("trace"))
    }
    async fn capture(&self, _: CaptureRequest) -> Result<Stream<Captured>, Status> {
        Err(Status::unimplemented("capture"))
    }
}

/// Input: the good machine, and a node that says what its command line does not: who seals, how workers idle, how many queues ports have.
/// Output: that counts.
#[test]
fn what_the_data_plane_says_of_itself_counts() {
    let machine = Machine::good("node");
    let socket = machine.0.join("controlplane.sock");
    let served = socket.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let serving =
            server::serve_management(&served, Access::default(), Arc::new(Node), std::future::pending());
        runtime.block_on(serving).unwrap();
    });
    while UnixStream::connect(&socket).is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = machine.nave(&socket, &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for line in [
        "slow  AES-GCM       ring is used, and the processor can do vaes512",
        "slow  spreading     fewer queues than workers: software spreads what comes by wan (net_virtio, queues: 1), and a worker with a queue looks at every packet",
        "slow  offloads      offered and not used: wan (rss)",
        "slow  idle          workers sleep up to 200 µs when nothing comes, and a card's ring may overflow meanwhile",
        "4 findings cost speed.",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
    }
}
