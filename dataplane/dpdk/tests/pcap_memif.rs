//! net_pcap, which reads and writes capture files, and net_memif, which shares memory with another process (here both ends are
//! in this one). One test: the EAL starts once per process.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};

use dpdk::{Eal, EalArgs, Mbuf, Memory, Mempool, MempoolConfig, Opened, Port, PortConfig, free_bulk};
use wire::buf::PacketBuf;

/// Header of a pcap file of Ethernet frames, and of a record, as libpcap writes them on this machine.
const FILE: [u32; 6] = [0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 65_535, 1];

fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file: Vec<u8> = FILE.iter().flat_map(|word| word.to_ne_bytes()).collect();
    for frame in frames {
        let length = frame.len() as u32;
        file.extend([0, 0, length, length].iter().flat_map(|word: &u32| word.to_ne_bytes()));
        file.extend(frame);
    }
    file
}

fn frames_of(file: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = &file[24..];
    let mut frames = Vec::new();
    while let Some((header, more)) = rest.split_first_chunk::<16>() {
        let length = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
        frames.push(more[..length].to_vec());
        rest = &more[length..];
    }
    frames
}

/// Receives until there are `count` packets.
fn receive(port: &mut Opened, count: usize) -> Vec<Mbuf> {
    let (until, mut burst) = (Instant::now() + Duration::from_secs(5), Vec::with_capacity(64));
    while burst.len() < count {
        port.rx[0].burst(&mut burst, 32);
        assert!(Instant::now() < until, "{} of {count} came", burst.len());
    }
    burst
}

#[test]
fn pcap_and_memif_ports() {
    let folder =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ports-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (from, to) = (folder.join("in.pcap"), folder.join("out.pcap"));
    let frames: Vec<Vec<u8>> = (0..40_u8).map(|index| vec![index; 60 + 36 * usize::from(index)]).collect();
    std::fs::write(&from, pcap(&frames)).unwrap();
    let socket = format!("socket=nave-test-{}", std::process::id());
    let args = EalArgs {
        memory: Memory::NoHuge { mb: 256 },
        vdevs: vec![
            format!("net_pcap0,rx_pcap={},tx_pcap={}", from.display(), to.display()),
            format!("net_memif0,role=server,{socket}"),
            format!("net_memif1,role=client,{socket}"),
        ],
        ..EalArgs::default()
    };
    let eal = Eal::start(&args).unwrap();
    let config = MempoolConfig { name: "files", count: 8191, ..MempoolConfig::default() };
    let pool = Mempool::create(&eal, &config).unwrap();
    let open = |name| Port::open(&eal, name, &PortConfig::new(pool)).unwrap();
    let (mut file, mut server, mut client) = (open("net_pcap0"), open("net_memif0"), open("net_memif1"));
    assert_eq!((file.port.driver(), client.port.driver()), ("net_pcap", "net_memif"));
    let until = Instant::now() + Duration::from_secs(5);
    while !(server.port.link().unwrap().up && client.port.link().unwrap().up) {
        assert!(Instant::now() < until, "the ends of the memif do not find each other");
        std::thread::sleep(Duration::from_millis(10));
    }

    // Out of the file, through the shared memory, and into another file.
    let mut burst = receive(&mut file, frames.len());
    assert_eq!(client.tx[0].burst(&mut burst), frames.len());
    let mut burst = receive(&mut server, frames.len());
    for (packet, frame) in burst.iter().zip(&frames) {
        assert_eq!((packet.segments(), packet.bytes()), (1, &frame[..]));
    }
    assert_eq!((file.tx[0].burst(&mut burst), burst.len()), (frames.len(), 0));
    assert_eq!(file.rx[0].burst(&mut burst, 32), 0, "the file has ended");
    free_bulk(&mut burst);
    file.port.close(file.rx, file.tx).unwrap();
    assert_eq!(frames_of(&std::fs::read(&to).unwrap()), frames);
    for end in [server, client] {
        end.port.close(end.rx, end.tx).unwrap();
    }
    assert_eq!(pool.in_use(), 0);
    std::fs::remove_dir_all(&folder).unwrap();
}
