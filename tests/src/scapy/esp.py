"""Seals and opens ESP with scapy's layers alone: one JSON object a line, in and out."""

import json
import random
import sys

import scapy.config

scapy.config.conf.verb = 0
from scapy.layers.inet import IP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.layers.ipsec import ESP, SecurityAssociation  # noqa: E402
from scapy.layers.l2 import GRE  # noqa: E402
from scapy.packet import Raw, raw  # noqa: E402

PEERS = {4: ("192.0.2.9", "192.0.2.1"), 6: ("2001:db8::9", "2001:db8::1")}


def outer(family):
    """The header between two peers."""
    source, destination = PEERS[family]
    return IP(src=source, dst=destination) if family == 4 else IPv6(src=source, dst=destination)


def clear(case):
    """A GRE packet with a key between two peers, and what it carries, all of a seed."""
    rng = random.Random(case["seed"])
    carried = rng.randbytes(case["size"])
    if rng.random() < 0.5:
        inner = IP(src="10.1.9.9", dst="10.1.0.2", id=rng.getrandbits(16)) / UDP(sport=1, dport=2) / Raw(carried)
        protocol = 0x0800
    else:
        inner = IPv6(src="fd00:1:9::9", dst="fd00:1::2", fl=rng.getrandbits(20)) / UDP(sport=1, dport=2) / Raw(carried)
        protocol = 0x86DD
    gre = GRE(key_present=1, key=case["gre_key"], proto=protocol)
    # Through bytes, so that lengths and checksums are computed.
    return outer(case["family"]).__class__(raw(outer(case["family"]) / gre / inner))


def association(case):
    """The SA of a case."""
    return SecurityAssociation(
        ESP,
        spi=case["spi"],
        crypt_algo="AES-GCM",
        crypt_key=bytes.fromhex(case["key"]),
        tunnel_header=outer(case["outer"]) if case["outer"] else None,
        nat_t_header=UDP(sport=4500, dport=4500) if case["udp"] else None,
        esn_en=case["esn"],
        esn=case["sequence"] >> 32,
    )


def sealed(case):
    """What scapy makes of the packet of a case."""
    packet = clear(case)
    iv = bytes.fromhex(case["iv"])
    return association(case).encrypt(packet.copy(), seq_num=case["sequence"] & 0xFFFFFFFF, iv=iv)


def opened(case):
    """What scapy finds in a packet; it raises what it does not believe."""
    packet = bytes.fromhex(case["packet"])
    packet = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
    return association(case).decrypt(packet)


def answer(case):
    """The answer to a line."""
    try:
        if case["do"] == "clear":
            return {"packet": raw(clear(case)).hex()}
        if case["do"] == "seal":
            return {"clear": raw(clear(case)).hex(), "packet": raw(sealed(case)).hex()}
        return {"packet": raw(opened(case)).hex()}
    except Exception as error:  # The test judges.
        return {"refused": f"{type(error).__name__}: {error}"}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))))
