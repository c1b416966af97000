//! What is wanted of the graph, and what the peer takes: cycles of the time stamp counter per packet on one worker.
//!
//! Both were set on a virtual machine with a Zen 4 (AVX-512, 1.42 cycles of the core to one that is counted, 2 MiB pages): on another machine
//! compare ratios. The peer is FD.io VPP 26.06 with multipoint GRE, TEIB and AES-GCM-128 in transport mode, a release build with its VAES
//! code switched on, without ESN, replay window and GRE key; the best of several runs, its packet generator not counted.

/// Sizes of the frame in the clear, in bytes, that figures below are of.
pub(crate) const SIZES: [&str; 3] = ["64", "354", "1400"];

/// One row, by size.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) scenario: &'static str,
    pub(crate) spokes: u64,
    pub(crate) must: [f64; 3],
    pub(crate) aim: [f64; 3],
    pub(crate) peer: [f64; 3],
}

impl Target {
    const fn new(scenario: &'static str, spokes: u64, must: [f64; 3], aim: [f64; 3], peer: [f64; 3]) -> Self {
        Self { scenario, spokes, must, aim, peer }
    }

    /// What is wanted of a scenario.
    pub(crate) fn of(scenario: &str, spokes: u64) -> Option<&'static Self> {
        TARGETS.iter().find(|target| (target.scenario, target.spokes) == (scenario, spokes))
    }
}

/// 1,000 routes.
pub(crate) const TARGETS: [Target; 8] = [
    Target::new("ipv4", 1000, [40.0; 3], [30.0; 3], [50.0, 53.0, 58.0]),
    Target::new("encap", 1000, [70.0; 3], [50.0; 3], [94.0, 98.0, 105.0]),
    Target::new("gre-relay", 1000, [110.0; 3], [80.0; 3], [271.0, 293.0, 326.0]),
    Target::new("encrypt", 1, [170.0, 240.0, 490.0], [130.0, 200.0, 440.0], [217.0, 295.0, 500.0]),
    Target::new("encrypt", 1000, [200.0, 270.0, 540.0], [150.0, 230.0, 470.0], [298.0, 388.0, 648.0]),
    Target::new("decrypt", 1000, [210.0, 280.0, 540.0], [150.0, 230.0, 450.0], [328.0, 418.0, 682.0]),
    Target::new("relay", 1000, [380.0, 520.0, 1050.0], [280.0, 420.0, 900.0], [630.0, 819.0, 1298.0]),
    Target::new("relay", 10_000, [520.0, 700.0, 1250.0], [380.0, 520.0, 1000.0], [1586.0, 2355.0, 3668.0]),
];
