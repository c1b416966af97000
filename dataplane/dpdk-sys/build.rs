//! Binds libdpdk 22.11 (Debian 12: `libdpdk-dev`) and links it statically.
//!
//! Bindgen must be LLVM 14's: a newer libclang lays out DPDK's packed and aligned structs in ways that bindgen refuses.
//! The compiler flags of `pkg-config --cflags libdpdk` are taken verbatim, they carry `-include rte_config.h` and the
//! `-march` that libdpdk was built for.
//!
//! Static, because a driver's burst function is then a direct neighbour and a binary needs no libdpdk where it runs.
//! Whole archives, because drivers, buses and mempool operations enter themselves in tables from constructors that no
//! symbol refers to. The price: a driver that is not in [`ARCHIVES`] cannot be loaded as a plug-in (`-d`), a plug-in
//! would bring a second EAL with it; add its archive instead.

#![allow(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Archives of libdpdk that are linked, users before what they use.
const ARCHIVES: &[&str] = &[
    // Virtual ports.
    "rte_net_af_packet",
    "rte_net_memif",
    "rte_net_null",
    "rte_net_pcap",
    "rte_net_ring",
    "rte_net_tap",
    // Cards, and what hypervisors offer in their place.
    "rte_net_e1000",
    "rte_net_ena",
    "rte_net_gve",
    "rte_net_i40e",
    "rte_net_iavf",
    "rte_net_ice",
    "rte_net_igc",
    "rte_net_ixgbe",
    "rte_net_mlx5",
    "rte_net_virtio",
    "rte_net_vmxnet3",
    "rte_common_iavf",
    "rte_common_mlx5",
    "rte_bus_auxiliary",
    "rte_bus_pci",
    "rte_bus_vdev",
    // Libraries.
    "rte_mempool_ring",
    "rte_fib",
    "rte_lpm",
    "rte_rib",
    "rte_gso",
    "rte_security",
    "rte_cryptodev",
    "rte_hash",
    "rte_timer",
    "rte_pci",
    "rte_ethdev",
    "rte_meter",
    "rte_net",
    "rte_mbuf",
    "rte_mempool",
    "rte_rcu",
    "rte_ring",
    "rte_eal",
    "rte_telemetry",
    "rte_kvargs",
];

/// Shared libraries that the archives need (Debian: libibverbs1, ibverbs-providers, libpcap0.8, libnuma1, libbsd0).
const SHARED: &[&str] = &["mlx5", "ibverbs", "pcap", "numa", "bsd", "m", "dl", "pthread"];

const PACKAGES: &str = "on Debian 12: apt-get install libdpdk-dev libclang-14-dev clang-14 pkg-config";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=c");
    println!("cargo:rerun-if-env-changed=LIBCLANG_PATH");
    println!("cargo:rerun-if-env-changed=PKG_CONFIG_PATH");

    let version = pkg_config(&["--modversion"]);
    if !version.starts_with("22.11.") && version != "22.11" {
        fail(&format!("libdpdk is {version}, Nave is written for 22.11; {PACKAGES}"));
    }
    let cflags: Vec<String> = pkg_config(&["--cflags"]).split_whitespace().map(str::to_owned).collect();
    let out = PathBuf::from(
        std::env::var_os("OUT_DIR").unwrap_or_else(|| fail("OUT_DIR is not set: run by cargo only")),
    );

    bind(&cflags, &out.join("bindings.rs"));
    compile_shim(&cflags);
    link();
}

/// Writes the Rust view of `c/dpdk.h`.
fn bind(cflags: &[String], bindings: &Path) {
    choose_libclang();
    let generated = bindgen::Builder::default()
        .header("c/dpdk.h")
        .clang_args(cflags)
        .allowlist_function("nave_.*")
        .allowlist_function("rte_eal_init")
        .allowlist_function("rte_(strerror|version|thread_(un)?register|vdev_init)")
        .allowlist_function("rte_mempool_(walk|avail_count|in_use_count)")
        .allowlist_function("rte_pktmbuf_(pool_create_by_ops|free_bulk)")
        .allowlist_function("rte_ring_create")
        .allowlist_function("rte_eth_from_rings")
        .allowlist_function(
            "rte_eth_dev_(start|stop|close|configure|info_get|get_port_by_name|get_name_by_port)",
        )
        .allowlist_function(
            "rte_eth_dev_(socket_id|set_mtu|get_mtu|adjust_nb_rx_tx_desc|rx_intr_ctl_q_get_fd)",
        )
        .allowlist_function("rte_eth_(find_next|rx_queue_setup|tx_queue_setup|macaddr_get|link_get_nowait)")
        .allowlist_function("rte_eth_(promiscuous|allmulticast)_(enable|disable)")
        .allowlist_function("rte_eth_stats_(get|reset)")
        .allowlist_function("rte_flow_(validate|create|destroy|flush)")
        .allowlist_function("rte_malloc_get_socket_stats")
        .allowlist_function("rte_(lpm|lpm6|fib|fib6)_(create|free|add|delete)")
        .allowlist_function("rte_lpm6_lookup(_bulk_func)?|rte_fib6?_lookup_bulk")
        .allowlist_var("rte_eth_fp_ops")
        .allowlist_var("RTE_(MAX_ETHPORTS|MAX_QUEUES_PER_PORT|PKTMBUF_HEADROOM|MEMPOOL_CACHE_MAX_SIZE)")
        .allowlist_var("RTE_ETH_(LINK_UP|LINK_FULL_DUPLEX|MQ_RX_RSS|MQ_RX_NONE|NAME_MAX_LEN)|NAVE_.*")
        .allowlist_var("RING_F_.*|RTE_PTYPE_TUNNEL_(MASK|ESP)")
        .allowlist_var(
            "SOCKET_ID_ANY|RTE_MAX_NUMA_NODES|RTE_LPM_LOOKUP_SUCCESS|RTE_FIB6?_(DIR24_8|TRIE)(_4B)?",
        )
        .allowlist_type("rte_(mbuf|mempool|ring)")
        .allowlist_type("rte_eth_(conf|dev_info|link|stats|rxconf|txconf|fp_ops)")
        .allowlist_type("rte_flow_(attr|item|item_esp|item_udp|action|action_queue|error)")
        // Packed and aligned at once, or never looked into: passed by pointer only.
        .opaque_type("rte_arp_(ipv4|hdr)")
        .opaque_type("rte_l2tpv2_.*")
        .opaque_type("rte_ring|rte_ring_.*|rte_mempool|rte_memzone.*|rte_mempool_.*")
        .opaque_type("rte_eth_(vmdq|dcb|rxseg|switch).*")
        // 64 MiB that Rust only points to.
        .opaque_type("rte_lpm")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_debug(false)
        .derive_default(false)
        .generate_comments(false)
        .layout_tests(false)
        .size_t_is_usize(true)
        .generate()
        .unwrap_or_else(|error| fail(&format!("bindgen on c/dpdk.h: {error}; {PACKAGES}")));
    generated
        .write_to_file(bindings)
        .unwrap_or_else(|error| fail(&format!("writing {}: {error}", bindings.display())));
}

/// Points bindgen at LLVM 14 where the environment does not say otherwise.
fn choose_libclang() {
    const PLACES: [&str; 2] = ["/usr/lib/llvm-14/lib", "/usr/lib64/llvm14/lib"];
    if std::env::var_os("LIBCLANG_PATH").is_some() {
        return;
    }
    let place = PLACES.iter().find(|place| {
        Path::new(place).join("libclang.so").exists() || Path::new(place).join("libclang-14.so.1").exists()
    });
    match place {
        // SAFETY: a build script has one thread here.
        Some(place) => unsafe { std::env::set_var("LIBCLANG_PATH", place) },
        None => {
            fail(&format!("libclang 14 is not in {}; {PACKAGES}, or set LIBCLANG_PATH", PLACES.join(" or ")))
        }
    }
}

/// Compiles the inline functions into `libnave_dpdk_shim.a`.
fn compile_shim(cflags: &[String]) {
    let mut build = cc::Build::new();
    build.file("c/shim.c").opt_level(3).warnings(false);
    for flag in cflags {
        build.flag(flag);
    }
    build.try_compile("nave_dpdk_shim").unwrap_or_else(|error| fail(&format!("compiling c/shim.c: {error}")));
}

/// Tells rustc, and through it every binary above, what to link.
fn link() {
    let libdir = PathBuf::from(pkg_config(&["--variable=libdir"]));
    println!("cargo:rustc-link-search=native={}", libdir.display());
    for archive in ARCHIVES {
        let file = libdir.join(format!("lib{archive}.a"));
        if !file.exists() {
            fail(&format!("{} is missing; {PACKAGES}", file.display()));
        }
        println!("cargo:rustc-link-lib=static:+whole-archive,-bundle={archive}");
    }
    for library in SHARED {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
}

/// What pkg-config says about libdpdk.
fn pkg_config(arguments: &[&str]) -> String {
    let output = Command::new("pkg-config").args(arguments).arg("libdpdk").output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr);
            fail(&format!("libdpdk is not installed ({}); {PACKAGES}", reason.trim().replace('\n', " ")))
        }
        Err(error) => fail(&format!("pkg-config does not run ({error}); {PACKAGES}")),
    }
}

/// Ends the build with one sentence.
fn fail(reason: &str) -> ! {
    println!("cargo:warning=dpdk-sys: {reason}");
    eprintln!("dpdk-sys: {reason}");
    std::process::exit(1)
}
