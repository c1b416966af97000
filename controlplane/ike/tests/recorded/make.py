#!/usr/bin/env python3
"""Makes the fixtures of recorded exchanges: what strongSwan said to itself or to others, and all the secrets that it wrote into its log.

    make.py NAME CAPTURE ESP_KEYS LOG... [--psk SECRET] [--certificates FOLDER]

CAPTURE is a pcap of Ethernet with UDP ports 500 and 4500. LOG is what charon logs with `ike = 4` and `chd = 4` (5.9 and 6.0 are read). ESP_KEYS
holds the keys that were installed, by SPI: lines of JSON with `spi` and `key_and_salt`, or one object whose `esp` lists `spi` and `aead.key`.
Written are NAME.json, which tests/recorded.rs reads, and NAME.ike_keys, the table that a dissector and `nave decode --ike-keys` read.

Which secrets belong to which SPIs is found by trying: those whose SK_e opens a message. All exchanges are of AES-GCM with an ICV of 16 bytes.
"""
import argparse
import json
import pathlib
import re
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MARKER = bytes(4)


def datagrams(capture):
    """Frame number, sender, receiver and IKE message of each datagram that carries one."""
    data = capture.read_bytes()
    order = "<" if data[:4] == bytes.fromhex("d4c3b2a1") else ">"
    at, frame = 24, 0
    while at < len(data):
        kept = struct.unpack(order + "I", data[at + 8 : at + 12])[0]
        bytes_, at, frame = data[at + 16 : at + 16 + kept], at + 16 + kept, frame + 1
        if bytes_[12:14] != b"\x08\x00" or bytes_[23] != 17:
            continue
        ip = bytes_[14:]
        udp = ip[(ip[0] & 15) * 4 :]
        source, destination, length = struct.unpack(">HHH", udp[:6])
        payload = udp[8:length]
        if not {source, destination} & {500, 4500}:
            continue
        if 4500 in (source, destination):
            if payload[:4] != MARKER:
                continue
            payload = payload[4:]
        ends = [".".join(map(str, ip[i : i + 4])) for i in (12, 16)]
        yield frame, f"{ends[0]}:{source}", f"{ends[1]}:{destination}", payload


class Log:
    """What a log says, in its order: names and bytes, and SPIs of children that were installed."""

    NAMED = re.compile(r"\[(IKE|CHD)\] (?:<[^>]*> )?(.+?) => (\d+) bytes")
    BYTES = re.compile(r"\[(?:IKE|CHD)\] (?:<[^>]*> )?\s+\d+: ((?:[0-9A-F]{2} ){1,16})")
    SPI = re.compile(r"\[CHD\] (?:<[^>]*> )?\s+SPI 0x([0-9a-f]+),")

    def __init__(self, file):
        self.said = []
        for line in file.read_text(errors="replace").splitlines():
            # The text beside the bytes may look like more of them.
            line = line[:line.find("  ", line.find(": ") + 2) + 2] if self.BYTES.search(line) else line
            if found := self.SPI.search(line):
                self.said.append(("SPI", found[1].zfill(8)))
            elif found := self.NAMED.search(line):
                self.said.append((f"{found[1]} {found[2]}", bytearray()))
            elif (found := self.BYTES.search(line)) and self.said and self.said[-1][0] != "SPI":
                self.said[-1][1].extend(bytes.fromhex(found[1]))

    SHARED = {"shared Diffie Hellman secret", "key exchange secret"}
    KEYS = {"Sk_d secret": "d", "Sk_ai secret": "ai", "Sk_ar secret": "ar", "Sk_ei secret": "ei",
            "Sk_er secret": "er", "Sk_pi secret": "pi", "Sk_pr secret": "pr"}

    def ike(self):
        """Secrets of each IKE SA."""
        sas = []
        for name, value in self.said:
            kind, _, what = name.partition(" ")
            if kind != "IKE":
                continue
            if what in self.SHARED:
                sas.append({"shared": value.hex()})
            elif what == "SKEYSEED":
                sas[-1]["skeyseed"] = value.hex()
            elif what in self.KEYS:
                sas[-1][self.KEYS[what]] = value.hex()
        return sas

    def children(self):
        """Shared secret of each child that has a key exchange of its own, by each of its SPIs."""
        shared, last, left = {}, None, 0
        for name, value in self.said:
            if name in {"CHD DH secret", "CHD key exchange secret"}:
                last, left = value.hex(), 2
            elif name == "SPI" and left:
                shared[value] = last
                left -= 1
        return shared


def opens(message, key):
    """Whether a message, or a fragment, is sealed with this SK_e."""
    front = 28 + (8 if message[16] == 53 else 4)
    key, salt = key[:-4], key[-4:]
    try:
        AESGCM(key).decrypt(salt + message[front : front + 8], message[front + 8 :], message[:front])
        return True
    except InvalidTag:
        return False


def esp_keys(file):
    text = file.read_text()
    if text.startswith("{\n"):
        return {sa["spi"][2:].zfill(8): sa["aead"]["key"] for sa in json.loads(text)["esp"]}
    said = map(json.loads, text.splitlines())
    return {sa["spi"][2:].zfill(8): sa["key_and_salt"] for sa in said if sa["op"] == "add_sa"}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("name")
    arguments.add_argument("capture", type=pathlib.Path)
    arguments.add_argument("esp_keys", type=pathlib.Path)
    arguments.add_argument("logs", type=pathlib.Path, nargs="+")
    arguments.add_argument("--psk")
    given = arguments.parse_args()

    messages = list(datagrams(given.capture))
    logs = [Log(file) for file in given.logs]
    secrets = {sa["skeyseed"]: sa for log in logs for sa in log.ike() if "skeyseed" in sa}
    sealed = {}
    for *_, message in messages:
        if message[16] in (46, 53):
            sealed.setdefault((message[:8], message[8:16]), []).append(message)
    found = []
    for (initiator, responder), of in sealed.items():
        key = lambda sa, message: bytes.fromhex(sa["ei" if message[19] & 8 else "er"])
        sa = next(sa for sa in secrets.values() if opens(of[0], key(sa, of[0])))
        assert all(opens(message, key(sa, message)) for message in of)
        found.append({"spis": [initiator.hex(), responder.hex()], **sa})
    # Of IKE SAs that nothing was said in.
    silent = [sa for sa in secrets.values() if not any(sa["skeyseed"] == other["skeyseed"] for other in found)]
    children = {spi: shared for log in logs for spi, shared in log.children().items()}
    shown = [{"frame": frame, "from": source, "to": to, "bytes": message.hex()}
             for frame, source, to, message in messages]
    whole = {"psk": given.psk, "messages": shown, "ike": found, "silent": silent, "shared": children, "esp": esp_keys(given.esp_keys)}
    pathlib.Path(f"{given.name}.json").write_text(json.dumps(whole, indent=1) + "\n")
    lines = []
    for sa in found:
        bits = 8 * (len(sa["ei"]) // 2 - 4)
        lines.append(f'{",".join(sa["spis"])},{sa["ei"]},{sa["er"]},"AES-GCM-{bits} with 16 octet ICV [RFC5282]",,,"NONE [RFC4306]"\n')
    pathlib.Path(f"{given.name}.ike_keys").write_text("".join(lines))


main()
