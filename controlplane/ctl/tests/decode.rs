//! `nave decode` as it is run, without any node: on captures of other people's routers, and on frames that nobody sends.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use wire::nhrp::{Body, Cie, ErrorCode, Extension, ExtensionType, Families, Family, Flags, Kind, Message};
use wire::{IntoBytes, checksum, ethernet, gre, icmp, ipv4, ipv6};

fn capture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/captures").join(name)
}

/// Decodes a file, or what comes by standard input.
fn decode(arguments: &[&str], input: Option<&[u8]>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nave"));
    // No node: nothing may want to ask one.
    command.args(["--socket", "/nonexistent", "decode"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    if let Some(input) = input {
        // It may have seen enough before the end.
        let _ = stdin.write_all(input);
    }
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Standard output, standard error, exit status.
fn said(output: &Output) -> (String, String, Option<i32>) {
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

/// A pcap file of frames: link type, and of each frame its whole length and what was kept.
fn pcap(link: u32, frames: &[(usize, &[u8])]) -> Vec<u8> {
    let mut file: Vec<u8> =
        [0xa1b2_c3d4_u32, 0x0002_0004, 0, 0, 0x4_0000, link].iter().flat_map(|w| w.to_be_bytes()).collect();
    for (len, kept) in frames {
        let head = [3661, 5, u32::try_from(kept.len()).unwrap(), u32::try_from(*len).unwrap()];
        file.extend(head.iter().flat_map(|w| w.to_be_bytes()));
        file.extend(*kept);
    }
    file
}

fn whole<'a>(frames: &[&'a [u8]]) -> Vec<(usize, &'a [u8])> {
    frames.iter().map(|frame| (frame.len(), *frame)).collect()
}

fn registration() -> Message {
    let entry = Cie { prefix: 32, mtu: 1400, holding_time: 600, ..Cie::default() };
    Message {
        families: Families { nbma: Family::V4, protocol: Family::V4 },
        hop_count: 255,
        source_nbma: Some([10, 0, 0, 11].into()),
        source: Some([172, 16, 0, 11].into()),
        destination: Some([172, 16, 0, 1].into()),
        body: Body::Exchange {
            kind: Kind::RegistrationRequest,
            flags: Flags::UNIQUE | Flags::NAT,
            request_id: 7,
            entries: vec![entry],
        },
        extensions: Some(vec![]),
    }
}

fn in_gre(nhrp: &[u8]) -> Vec<u8> {
    [gre::Keyed::new(gre::NHRP, 42).as_bytes(), nhrp].concat()
}

fn over_v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (from, to) = ([10, 0, 0, 11].into(), [10, 0, 0, 1].into());
    [ipv4::Header::new(from, to, protocol, 64, payload.len()).unwrap().as_bytes(), payload].concat()
}

fn framed(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [ethernet::Header::new([2; 6], [4; 6], ethertype).as_bytes(), payload].concat()
}

fn seal(nhrp: &mut [u8]) {
    nhrp[12..14].fill(0);
    let sum = checksum::checksum(nhrp);
    nhrp[12..14].copy_from_slice(&sum.to_be_bytes());
}

/// NHRP messages and GRE packets of each capture, as a dissector counts them.
const CAPTURES: [(&str, u64, u64); 14] = [
    ("clear-hub-tunnel.pcap", 33, 0),
    ("clear.pcap", 34, 139),
    ("encapsulated-hub-tunnel.pcap", 21, 0),
    ("encapsulated-spoke1-tunnel.pcap", 12, 0),
    ("encapsulated.pcap", 0, 0),
    ("nat-inside.pcap", 13, 91),
    ("nat.pcap", 26, 110),
    ("ospf.pcap", 14, 100),
    ("protected-hub-tunnel.pcap", 33, 0),
    ("protected-spoke1-tunnel.pcap", 18, 0),
    ("protected-spoke2-tunnel.pcap", 17, 0),
    ("protected.pcap", 0, 0),
    ("rekeyed-hub-tunnel.pcap", 40, 0),
    ("rekeyed-spoke1-tunnel.pcap", 22, 0),
];

/// Input: captures of Linux and FRR, in the clear, behind a NAT, on tunnel interfaces, protected. Output: every message is read and
/// written byte for byte, as many as a dissector counts, without a node.
#[test]
fn every_message_of_real_peers_is_read_and_written_byte_for_byte() {
    for (name, nhrp, gre) in CAPTURES {
        let file = capture(name);
        let file = file.to_str().unwrap();
        let (out, err, code) = said(&decode(&["--check", file], None));
        assert_eq!((code, err.as_str()), (Some(0), ""), "{name}");
        assert!(out.ends_with("check: every message is written as it came, every checksum is right\n"));
        assert_eq!(out.matches("\n  NHRP ").count() as u64, nhrp, "{name}");

        let (out, _, code) = said(&decode(&["--json", "--check", file], None));
        assert_eq!(code, Some(0));
        let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (end, blocks) = lines.split_last().unwrap();
        let all =
            |count: &Value| count.as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>();
        assert_eq!((all(&end["count"]["nhrp"]), end["count"]["gre"].as_u64()), (nhrp, Some(gre)), "{name}");
        assert_eq!(end["findings"], serde_json::json!([]), "{name}");
        assert_eq!(blocks.iter().filter(|block| block["nhrp"].is_object()).count() as u64, nhrp, "{name}");
    }
}

#[test]
fn a_block_has_every_field() {
    let file = capture("nat.pcap");
    let (out, ..) = said(&decode(&[file.to_str().unwrap()], None));
    let block = "
frame 130, 2026-11-23T21:21:23.462454Z, 188 bytes
  10.0.0.1 > 10.0.0.99, GRE key 1
  NHRP registration-reply, IPv4 over IPv4, 146 bytes, extensions at 52, hop count 64, checksum 0xfce0 right
    request 5, flags 0x8002 unique nat
    source 172.16.0.11 at 10.1.0.11, destination 172.16.0.1
    entry: success (0), nbma -, protocol -, prefix length 255, mtu 1400, holding time 30 s, preference 0
    extension forward-transit (4), compulsory: empty
    extension reverse-transit (5), compulsory: empty
    extension responder (3), compulsory
      success (0), nbma 10.0.0.1, protocol 172.16.0.1, prefix length 0, mtu 1400, holding time 60 s, preference 0
    extension nat (9)
      success (0), nbma 10.0.0.1, protocol 172.16.0.1, prefix length 32, mtu 1400, holding time 0 s, preference 0
      success (0), nbma 10.0.0.99, protocol 172.16.0.11, prefix length 32, mtu 1400, holding time 0 s, preference 0
    extension authentication (7), compulsory: SPI 1, \"secret\"

";
    assert!(out.contains(block), "{out}");
    let end = "
frames                       136
NHRP messages                 26
  resolution-request           4
  resolution-reply             4
  registration-request         8
  registration-reply           8
  traffic-indication           2
GRE packets                  110
others                        26
";
    assert!(out.ends_with(end), "{out}");
    let file = capture("protected.pcap");
    let (out, ..) = said(&decode(&[file.to_str().unwrap()], None));
    assert!(out.contains("\n  10.0.0.11 > 10.0.0.1\n  ESP, protected, SPI 0x"), "{out}");
    assert!(out.contains("\n  IKE\n"), "{out}");
}

/// Input: extensions of every kind, indications with what they carry, and things where nothing belongs. Output: all of it is told.
#[test]
fn what_is_rare_is_told_too() {
    let mut message = registration();
    let vendor = |data: &[u8]| Extension::new(ExtensionType::VENDOR, false, [&[0, 0, 12], data].concat());
    message.extensions = Some(vec![
        vendor(&[1, 2]),
        vendor(&[]),
        Extension::new(ExtensionType::new(0x33).unwrap(), true, vec![0xde, 0xad]),
        Extension::new(ExtensionType::AUTHENTICATION, true, vec![0, 0, 0, 1, 0xff]),
        Extension::new(ExtensionType::NAT, false, vec![1, 2, 3]),
        Extension::new(ExtensionType::AUTHENTICATION, true, vec![0]),
    ]);
    let error = Message {
        body: Body::Error { code: ErrorCode::HOP_COUNT_EXCEEDED, offset: 9, packet: registration().encode() },
        extensions: None,
        ..message.clone()
    };
    let ping = over_v4(ipv4::ICMP, icmp::Header::echo(1, 1).as_bytes());
    let redirect = Message { body: Body::Traffic { code: 0, packet: ping }, ..error.clone() };
    // SNAP, the bit beside C, no End.
    let mut strange = message.encode();
    strange[8] = 9;
    strange[52] |= 0x40;
    strange.truncate(strange.len() - 4);
    strange[11] -= 4;
    seal(&mut strange);
    let frames: Vec<_> =
        [&strange, &error.encode(), &redirect.encode()].map(|nhrp| over_v4(ipv4::GRE, &in_gre(nhrp))).into();
    let frames: Vec<_> = frames.iter().map(Vec::as_slice).collect();
    let (out, err, code) = said(&decode(&["--check", "-"], Some(&pcap(101, &whole(&frames)))));
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    for line in [
        "frame 1, 1970-01-01T01:01:01.000005Z, 123 bytes\n",
        "extension vendor (8), unused bit set: vendor 00000c, 0102\n",
        "extension vendor (8): vendor 00000c, \n",
        "extension 51, compulsory: dead\n",
        "extension authentication (7), compulsory: SPI 1, 00000001ff\n",
        "extension nat (9): 010203 (CIE unused: needs 2 bytes, 1 are there)\n",
        "extension authentication (7), compulsory: 00 (1 bytes are too few)\n",
        "reserved: ar$pro.snap is 0000000009\n",
        "reserved: the End extension is missing\n",
        "no extensions, hop count 255",
        "error hop count exceeded (15), at byte 9\n",
        "packet in error, 56 bytes: NHRP registration-request, 172.16.0.11 > 172.16.0.1, 56 bytes\n",
        "code redirect (0)\n    packet, 28 bytes: IPv4 10.0.0.11 > 10.0.0.1, ICMP echo request\n",
    ] {
        assert!(out.contains(line), "{line}\n{out}");
    }
}

/// Input: the same message on each link, tagged, over IPv6, in pieces, with every option of GRE, quoted. Output: it is found in each.
#[test]
fn a_message_is_found_wherever_it_is() {
    let nhrp = registration().encode();
    let v4 = over_v4(ipv4::GRE, &in_gre(&nhrp));
    let count = |link, frames: &[&[u8]]| {
        let (out, err, code) = said(&decode(&["--json", "--check", "-"], Some(&pcap(link, &whole(frames)))));
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.last().unwrap()["count"]["nhrp"]["registration-request"], 1, "{out}");
        lines[0].clone()
    };
    let tag = ethernet::Tag::new(0, 7, ethernet::IPV4);
    let tagged = count(1, &[&framed(ethernet::VLAN, &[tag.as_bytes(), &v4].concat())]);
    assert_eq!((&tagged["vlans"][0], &tagged["gre"]["key"]), (&7.into(), &42.into()));
    let [from, to] = ["2001:db8::1", "2001:db8::2"].map(|a| a.parse().unwrap());
    let gre = in_gre(&nhrp);
    let header = ipv6::Header::new(from, to, ipv6::GRE, 64, gre.len()).unwrap();
    let v6 = count(101, &[&[header.as_bytes(), &gre].concat()]);
    assert_eq!(v6["source"], "2001:db8::1");
    count(113, &[&[&[0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0, 8, 0], &v4[..]].concat()]);
    let head = [0x20, 1, 0, 0, 0, 0, 0, 3, 3, 10, 4, 4, 10, 0, 0, 12, 0, 0, 0, 0];
    let tunnel = count(276, &[&[&head, &nhrp[..]].concat()]);
    assert_eq!(tunnel["tunnel"], serde_json::json!({ "sent": true, "nbma": "10.0.0.12" }));
    let mut optional = [&[0xb0, 0, 0x20, 1, 0, 0, 0, 0, 0, 0, 0, 42, 0, 0, 0, 9], &nhrp[..]].concat();
    let sum = checksum::checksum(&optional);
    optional[4..6].copy_from_slice(&sum.to_be_bytes());
    let summed = count(101, &[&over_v4(ipv4::GRE, &optional)]);
    assert_eq!((&summed["gre"]["sequence"], &summed["gre"]["checksum_right"]), (&9.into(), &true.into()));
    // In pieces, the last one first.
    let piece = |range: std::ops::Range<usize>, flags: u16| {
        let header = ipv4::Header::new([10, 0, 0, 11].into(), [10, 0, 0, 1].into(), 47, 64, range.len());
        let header = header.unwrap().with_id(5).with_flags(flags | u16::try_from(range.start / 8).unwrap());
        [header.as_bytes(), &gre[range]].concat()
    };
    let (first, second) = (piece(0..40, ipv4::MORE_FRAGMENTS), piece(40..gre.len(), 0));
    assert_eq!(count(101, &[&second, &first])["pieces"], 2);
    let told = [icmp::Header::unreachable(2).as_bytes(), &v4].concat();
    assert_eq!(count(101, &[&over_v4(ipv4::ICMP, &told)])["quoted"], true);
}

/// Input: messages with a wrong checksum, with FRR's of an odd length, that contradict themselves; GRE with a wrong checksum. Output:
/// each is named with its frame, and the exit status says so; without `--check` it does not.
#[test]
fn check_names_the_frame_of_each_fault() {
    let good = registration().encode();
    let mut flipped = good.clone();
    flipped[30] ^= 1;
    let odd = Message {
        body: Body::Traffic { code: 0, packet: vec![0x45; 21] },
        extensions: None,
        ..registration()
    };
    let mut odd = odd.encode();
    odd[12..14].fill(0);
    let (last, rest) = odd.split_last().unwrap();
    let sum = checksum::Sum::new().bytes(rest).u16(u16::from(*last)).checksum();
    odd[12..14].copy_from_slice(&sum.to_be_bytes());
    let mut long = good.clone();
    long[41] = 9;
    let mut version = good.clone();
    version[16] = 2;
    let mut frames: Vec<_> =
        [&good, &flipped, &odd, &version].map(|nhrp| over_v4(ipv4::GRE, &in_gre(nhrp))).into();
    frames.push(over_v4(ipv4::GRE, &[&[0x80, 0, 0x20, 1, 0, 1, 0, 0], &good[..]].concat()));
    let frames: Vec<_> = frames.iter().map(Vec::as_slice).collect();
    let mut frames = whole(&frames);
    let cut = &frames[0].1[..70];
    frames.push((84, cut));
    let file = pcap(101, &frames);
    let (out, err, code) = said(&decode(&["--check", "-"], Some(&file)));
    assert_eq!((code, err.as_str()), (Some(1), "nave: -: 5 findings\n"), "{out}");
    let found: Vec<_> = out.lines().filter_map(|line| line.strip_prefix("check: ")).collect();
    let right = u16::from_be_bytes([good[12], good[13]]);
    assert!(
        found[0].starts_with(&format!("frame 2: registration-request: checksum {right:#06x} should be 0x")),
        "{found:?}"
    );
    assert!(found[1].starts_with("frame 3: traffic-indication: checksum 0x"), "{found:?}");
    assert!(found[1].ends_with("adding the last byte of an odd length in the wrong half makes"), "{found:?}");
    assert_eq!(
        found[2..],
        [
            "frame 4: NHRP: ar$op.version: 2 is not allowed",
            "frame 5: the checksum of GRE is wrong",
            "frame 6: NHRP: ar$pktsz: needs 56 bytes, 42 are there; the capture kept 70 of 84 bytes",
        ]
    );
    let (out, err, code) = said(&decode(&["-"], Some(&file)));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("checksum wrong\n") && !out.contains("check:"), "{out}");
    let unreadable = out.lines().find_map(|line| line.strip_prefix("  unreadable")).unwrap();
    assert_eq!(unreadable.trim(), "2");
    let (out, _, code) = said(&decode(&["--json", "--check", "-"], Some(&file)));
    let end: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((code, end["findings"].as_array().unwrap().len()), (Some(1), 5));
    assert_eq!(end["findings"][3]["frame"], 5);
}

/// Input: no file, another file, one that ends in a frame, a link that is not read. Output: what and where, and all that was read.
#[test]
fn a_bad_file_says_what_and_where() {
    let (_, err, code) = said(&decode(&["/nonexistent.pcap"], None));
    assert_eq!(code, Some(1));
    assert!(err.starts_with("nave: /nonexistent.pcap: No such file"), "{err}");
    let (out, err, code) = said(&decode(&["-"], Some(b"[node]\nname = 1\n")));
    let other = "nave: -: is not a capture: a pcap or pcapng file begins with other bytes\n";
    assert_eq!((out.as_str(), err.as_str(), code), ("", other, Some(1)));
    let (_, err, code) = said(&decode(&["-"], Some(b"")));
    assert_eq!((err.as_str(), code), (other, Some(1)));

    let file = std::fs::read(capture("clear.pcap")).unwrap();
    let (out, err, code) = said(&decode(&["--check", "-"], Some(&file[..file.len() - 5])));
    assert_eq!(code, Some(1));
    assert!(err.starts_with("nave: -: byte 2") && err.contains(": the file ends where "), "{err}");
    assert!(out.contains("\nNHRP messages ") && out.contains("\nframe 8, "), "{out}");

    let (out, _, code) = said(&decode(&["-"], Some(&pcap(147, &[(3, &[1, 2, 3])]))));
    assert_eq!(code, Some(0));
    assert!(
        out.contains("not readable: link type 147 is not read: Ethernet, Linux cooked and raw IP are"),
        "{out}"
    );
    assert_eq!(decode(&[], None).status.code(), Some(2));
}
