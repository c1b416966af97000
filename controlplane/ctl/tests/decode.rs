//! `nave decode` as it is run, without any node: on captures of other people's routers, and on frames that nobody sends.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use wire::nhrp::{Body, Cie, ErrorCode, Extension, ExtensionType, Families, Family, Flags, Kind, Message};
use wire::{IntoBytes, checksum, esp, ethernet, gre, icmp, ipv4, ipv6, udp};

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
const CAPTURES: [(&str, u64, u64); 18] = [
    ("clear-hub-tunnel.pcap", 33, 0),
    ("clear.pcap", 34, 139),
    ("encapsulated-hub-tunnel.pcap", 21, 0),
    ("encapsulated-spoke1-tunnel.pcap", 12, 0),
    ("encapsulated.pcap", 0, 0),
    ("ike-certificates.pcap", 0, 0),
    ("ike-cookie.pcap", 0, 0),
    ("ike-psk.pcap", 0, 0),
    ("nat-inside.pcap", 13, 91),
    ("nat.pcap", 26, 110),
    ("ospf.pcap", 14, 100),
    ("protected-hub-tunnel.pcap", 33, 0),
    ("protected-spoke1-tunnel.pcap", 18, 0),
    ("protected-spoke2-tunnel.pcap", 17, 0),
    ("protected.pcap", 0, 0),
    ("rekeyed-hub-tunnel.pcap", 40, 0),
    ("rekeyed-spoke1-tunnel.pcap", 22, 0),
    ("rekeyed.pcap", 0, 0),
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

/// Captures of ESP, each with its table: NHRP messages, GRE packets and ESP packets in them.
const PROTECTED: [(&str, u64, u64); 3] =
    [("protected", 34, 156), ("encapsulated", 22, 86), ("rekeyed", 42, 236)];

/// Input: ESP of Linux and strongSwan, native, in UDP, and with SAs that are renewed, and the keys. Output: every packet is authentic,
/// and what is inside is decoded and checked as if it had come in the clear.
#[test]
fn esp_of_real_peers_is_decoded_with_their_keys() {
    for (name, nhrp, packets) in PROTECTED {
        let [table, file] = ["esp_sa", "pcap"].map(|kind| capture(&format!("{name}.{kind}")));
        let arguments = ["--check", "--esp-sa", table.to_str().unwrap(), file.to_str().unwrap()];
        let (out, err, code) = said(&decode(&arguments, None));
        assert_eq!((code, err.as_str()), (Some(0), ""), "{name}");
        assert!(out.ends_with("every checksum is right, every ESP packet is authentic\n"), "{out}");
        assert_eq!(out.matches("\n  NHRP ").count() as u64, nhrp, "{name}");
        let [gre, esp] = ["GRE packets", "ESP packets"].map(|what| format!("{what:<24}{packets:>8}\n"));
        assert!(
            out.contains(&(gre + &esp)) && out.contains(&format!("\n  {:<22}{packets:>8}\n", "decrypted"))
        );
        let mut json = vec!["--json"];
        json.extend(arguments);
        let (out, ..) = said(&decode(&json, None));
        let end: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        let opened = serde_json::json!({ "decrypted": packets, "unknown": 0, "refused": 0, "incomplete": 0 });
        assert_eq!(end["count"]["opened"], opened);
        // No key is in what is said.
        let keys = std::fs::read_to_string(&table).unwrap();
        let keys: Vec<_> = keys.split('"').filter(|field| field.len() == 42).collect();
        assert!(keys.len() >= 6 && keys.iter().all(|key| !out.contains(&key[2..])));
    }
    let [table, file] = ["esp_sa", "pcap"].map(|kind| capture(&format!("encapsulated.{kind}")));
    let (out, ..) = said(&decode(&["--esp-sa", table.to_str().unwrap(), file.to_str().unwrap()], None));
    let block = "
frame 11, 2026-11-23T21:29:55.134451Z, 190 bytes
  10.0.0.12 > 10.0.0.1, UDP 4500 > 4500, ESP transport SPI 0xc49337ba sequence 1, GRE key 1
  NHRP registration-request, IPv4 over IPv4, 106 bytes, extensions at 52, hop count 1, checksum 0x8533 right
";
    assert!(out.contains(block), "{out}");
}

/// Where a table lies.
struct Keys(PathBuf);

impl Keys {
    fn write(name: &str, text: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.esp_sa"));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

const CIPHER: &str = "AES-GCM with 16 octet ICV [RFC4106]";
const KEY: [u8; 36] = *b"0123456789abcdef0123456789abcdefSALT";

fn keys_for(name: &str, family: &str, spi: &str) -> Keys {
    let key = text(&KEY);
    Keys::write(name, &format!("\"{family}\",\"*\",\"*\",\"{spi}\",\"{CIPHER}\",\"{key}\",\"NULL\",\"\"\n"))
}

/// An ESP packet with `KEY`.
fn sealed(spi: u32, sequence: u64, esn: bool, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let key = aead::Key::new(aead::Provider::AesGcm, &KEY[..32]).unwrap();
    let mut text = [payload, &[0; 8]].concat();
    let end = esp::write_trailer(&mut text, payload.len(), next_header).unwrap();
    text.truncate(end);
    text.extend([0; esp::ICV]);
    let iv = sequence ^ 0x5a5a_0000_1234_5678;
    aead::seal_one(aead::Packet { key: &key, salt: *b"SALT", iv, sequence, spi, esn, text: &mut text });
    [esp::Header::new(spi, sequence, iv).as_bytes(), &text].concat()
}

fn over_v6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let [from, to] = ["2001:db8::1", "2001:db8::2"].map(|a| a.parse().unwrap());
    [ipv6::Header::new(from, to, protocol, 64, payload.len()).unwrap().as_bytes(), payload].concat()
}

/// Input: the same message in ESP: over IPv4 and IPv6, in UDP, in tunnel mode, with ESN on both sides of its roll-over, in pieces, in
/// pieces inside the tunnel; a dummy, and what is no GRE. Output: it is found in each, and each way is told.
#[test]
fn esp_is_decoded_wherever_it_is() {
    let keys = keys_for("wherever", "IPv4", "0x000001**");
    let v6 = keys_for("wherever-v6", "IPv6", "0x00000102");
    let gre = in_gre(&registration().encode());
    let told = |keys: &Keys, frames: &[&[u8]], line: &str| {
        let file = pcap(101, &whole(frames));
        let (out, err, code) = said(&decode(&["--check", "--esp-sa", keys.path(), "-"], Some(&file)));
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        assert!(out.contains(&format!("\n  {line}\n")), "{line}\n{out}");
        out
    };
    let nhrp = |keys: &Keys, frames: &[&[u8]], line: &str| {
        assert!(told(keys, frames, line).contains("\n  NHRP registration-request, "));
    };
    let esp = sealed(0x101, 7, false, ipv4::GRE, &gre);
    let way = "10.0.0.11 > 10.0.0.1, ESP transport SPI 0x00000101 sequence 7, GRE key 42";
    nhrp(&keys, &[&over_v4(ipv4::ESP, &esp)], way);
    let six = sealed(0x102, 8, false, ipv6::GRE, &gre);
    let way = "2001:db8::1 > 2001:db8::2, ESP transport SPI 0x00000102 sequence 8, GRE key 42";
    nhrp(&v6, &[&over_v6(ipv6::ESP, &six)], way);
    let datagram = [udp::Header::new(1024, 4500, esp.len()).unwrap().as_bytes(), &esp].concat();
    let way = "10.0.0.11 > 10.0.0.1, UDP 1024 > 4500, ESP transport SPI 0x00000101 sequence 7, GRE key 42";
    nhrp(&keys, &[&over_v4(ipv4::UDP, &datagram)], way);
    let rolled = [(1 << 32) - 1, 1 << 32, (1 << 32) + 1].map(|sequence| {
        let esp = sealed(0x103, sequence, true, ipv4::GRE, &gre);
        over_v4(ipv4::ESP, &esp)
    });
    let rolled: Vec<_> = rolled.iter().map(Vec::as_slice).collect();
    let way = "10.0.0.11 > 10.0.0.1, ESP transport SPI 0x00000103 sequence 4294967297 extended, GRE key 42";
    nhrp(&keys, &rolled, way);
    // Tunnel mode, IPv4 in IPv6.
    let tunnel = sealed(0x102, 9, false, 4, &over_v4(ipv4::GRE, &gre));
    let way =
        "2001:db8::1 > 2001:db8::2, ESP tunnel SPI 0x00000102 sequence 9, 10.0.0.11 > 10.0.0.1, GRE key 42";
    nhrp(&v6, &[&over_v6(ipv6::ESP, &tunnel)], way);
    // Pieces of ESP, and pieces inside it.
    let piece = |protocol, payload: &[u8], range: std::ops::Range<usize>, more: bool| {
        let header =
            ipv4::Header::new([10, 0, 0, 11].into(), [10, 0, 0, 1].into(), protocol, 64, range.len());
        let flags = if more { ipv4::MORE_FRAGMENTS } else { 0 };
        let header = header.unwrap().with_id(5).with_flags(flags | u16::try_from(range.start / 8).unwrap());
        [header.as_bytes(), &payload[range]].concat()
    };
    let pieces = [piece(50, &esp, 0..40, true), piece(50, &esp, 40..esp.len(), false)];
    let way = "10.0.0.11 > 10.0.0.1, ESP transport SPI 0x00000101 sequence 7, GRE key 42, put together from 2 pieces";
    nhrp(&keys, &[&pieces[0], &pieces[1]], way);
    let out = told(&keys, &[&pieces[1], &pieces[0]], "piece of ESP: 60 bytes at 40");
    assert!(out.contains("\n  NHRP "), "{out}");
    let inner = [piece(47, &gre, 0..24, true), piece(47, &gre, 24..gre.len(), false)];
    let inner = inner.map(|piece| over_v4(ipv4::ESP, &sealed(0x104, 1, false, 4, &piece)));
    let way =
        "10.0.0.11 > 10.0.0.1, ESP tunnel SPI 0x00000104 sequence 1, GRE key 42, put together from 2 pieces";
    nhrp(&keys, &[&inner[0], &inner[1]], way);
    // No GRE.
    let ping = over_v4(ipv4::ICMP, icmp::Header::echo(1, 1).as_bytes());
    let ping = over_v4(ipv4::ESP, &sealed(0x105, 1, false, 4, &ping));
    told(&keys, &[&ping], "IPv4 10.0.0.11 > 10.0.0.1, ICMP echo request");
    let dummy = over_v4(ipv4::ESP, &sealed(0x105, 2, false, esp::NO_NEXT_HEADER, &[9; 20]));
    told(&keys, &[&dummy], "nothing, a dummy");
}

/// Input: ESP that is forged, of an SPI that the table does not have, cut short, and of which a piece is missing; a quoted one. Output:
/// each is told with its frame, SPI and sequence number, and the exit status says so; without `--check` it does not.
#[test]
fn esp_that_is_not_authentic_is_named() {
    let keys = keys_for("not-authentic", "IPv4", "0x00000101");
    let esp = |spi| over_v4(ipv4::ESP, &sealed(spi, 7, false, ipv4::GRE, &in_gre(&registration().encode())));
    let (good, unknown) = (esp(0x101), esp(0x102));
    let mut forged = good.clone();
    forged[60] ^= 1;
    let header = ipv4::Header::new([10, 0, 0, 11].into(), [10, 0, 0, 1].into(), ipv4::ESP, 64, 40).unwrap();
    let piece = [header.with_flags(ipv4::MORE_FRAGMENTS).as_bytes(), &good[20..60]].concat();
    let quoted = over_v4(ipv4::ICMP, &[icmp::Header::unreachable(1).as_bytes(), &good[..28]].concat());
    let mut frames = whole(&[&good, &forged, &unknown, &piece, &quoted]);
    frames.push((good.len(), &good[..50]));
    let file = pcap(101, &frames);
    let (out, err, code) = said(&decode(&["--check", "--esp-sa", keys.path(), "-"], Some(&file)));
    assert_eq!((code, err.as_str()), (Some(1), "nave: -: 4 findings\n"), "{out}");
    let found: Vec<_> = out.lines().filter_map(|line| line.strip_prefix("check: ")).collect();
    let whole = good.len();
    assert_eq!(
        found,
        [
            "frame 2: ESP, SPI 0x00000101, sequence 7: it is not authentic with the key of line 1".to_owned(),
            "frame 3: ESP, SPI 0x00000102, sequence 7: no SA of the table has it".to_owned(),
            "frame 6: ESP, SPI 0x00000101, sequence 7: esp trailer and icv: needs 18 bytes, 14 are there; the capture kept 50 \
             of {whole} bytes"
                .replace("{whole}", &whole.to_string()),
            "frame 4: ESP, SPI 0x00000101, sequence 7: pieces of it are missing".to_owned(),
        ]
    );
    for line in [
        "\n  ESP, SPI 0x00000101, sequence 7: it is not authentic with the key of line 1\n",
        "\n  piece of ESP, SPI 0x00000101, sequence 7: 40 bytes at 0\n",
        "quoted by an ICMP error\n  ESP, protected, SPI 0x00000101\n",
        "\n  decrypted                    1\n  of an unknown SPI            1\n  not authentic                2\n  incomplete                   1\n",
    ] {
        assert!(out.contains(line), "{line}\n{out}");
    }
    let (out, err, code) = said(&decode(&["--esp-sa", keys.path(), "-"], Some(&file)));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("sequence 7: it is not authentic") && !out.contains("check:"), "{out}");
}

/// Input: no table, one with a cipher that is not decrypted, one with a damaged line. Output: file, line and what; no key.
#[test]
fn a_bad_table_says_file_and_line() {
    let file = capture("protected.pcap");
    let file = file.to_str().unwrap();
    let (out, err, code) = said(&decode(&["--esp-sa", "/nonexistent", file], None));
    assert_eq!((out.as_str(), code), ("", Some(1)));
    assert!(err.starts_with("nave: /nonexistent: No such file"), "{err}");
    let good = std::fs::read_to_string(capture("protected.esp_sa")).unwrap();
    let says = |text: &str, problem: &str| {
        let keys = Keys::write("bad", text);
        let (out, err, code) = said(&decode(&["--esp-sa", keys.path(), file], None));
        assert_eq!((out.as_str(), code), ("", Some(1)));
        assert_eq!(err, format!("nave: {}: {problem}\n", keys.path()));
    };
    let other = good.replacen(CIPHER, "ChaCha20 with Poly1305 [RFC7634]", 1);
    let problem = format!("line 1: ChaCha20 with Poly1305 [RFC7634] is not decrypted here: {CIPHER} is");
    says(&other, &problem);
    says(
        &format!("{good}\"IPv4\",\"*\"\n"),
        "line 9: 2 fields: 8 are wanted, or 10 with those of sequence numbers",
    );
    let long = good.replacen("0x463e98", "0x463e98aabb", 1);
    says(&long, "line 1: 22 bytes of key: 20 or 36 are wanted, the last 4 of them the salt");
}
