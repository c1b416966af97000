//! Starts the EAL with one null port and prints the ports it found: proof that binding and linking are right.
//!
//!     cargo run -p dpdk-sys --example ports
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};

fn main() {
    let arguments: Vec<CString> =
        ["ports", "--no-huge", "-m", "64", "--no-pci", "--no-shconf", "--vdev=net_null0"]
            .into_iter()
            .filter_map(|argument| CString::new(argument).ok())
            .collect();
    let mut argv: Vec<_> = arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    // SAFETY: argv holds argc strings that outlive the call.
    if unsafe { dpdk_sys::rte_eal_init(argv.len() as i32, argv.as_mut_ptr()) } < 0 {
        eprintln!("rte_eal_init failed");
        std::process::exit(1);
    }
    // SAFETY: the version is a static string.
    println!("{}", unsafe { CStr::from_ptr(dpdk_sys::rte_version()) }.to_string_lossy());
    // SAFETY: the EAL runs; the iteration ends at RTE_MAX_ETHPORTS, as rte_eth_find_next documents.
    let mut port = unsafe { dpdk_sys::rte_eth_find_next(0) };
    while u32::from(port) < dpdk_sys::RTE_MAX_ETHPORTS {
        let mut name = [0; 64];
        // SAFETY: a name has at most RTE_ETH_NAME_MAX_LEN (64) bytes, its end included.
        if unsafe { dpdk_sys::rte_eth_dev_get_name_by_port(port, name.as_mut_ptr()) } == 0 {
            // SAFETY: the call above ended the string.
            println!("port {port}: {}", unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy());
        }
        // SAFETY: as above.
        port = unsafe { dpdk_sys::rte_eth_find_next(port + 1) };
    }
}
