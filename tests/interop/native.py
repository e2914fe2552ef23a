"""A device of the native dialect, written from its page, on paho-mqtt; it checks an image's
signature with OpenSSL and Python's BLAKE2. minisign signs.

Usage: native.py FUOTAD, where this interpreter has paho-mqtt 2.
Prints a line for each case, and at the end `N passed, N failed`.
"""

import base64
import hashlib
import os
import queue
import random
import struct
import subprocess
import sys

import paho.mqtt.client as mqtt

from daemon import PATIENCE, Site, run_cases

FUOTAD = os.path.abspath(sys.argv[1])
UP, DOWN = "fuota/v1/up", "fuota/v1/down"
# What stands before an Ed25519 key in DER.
ED25519 = bytes.fromhex("302a300506032b6570032100")


class Device:
    def __init__(self, port, name):
        self.heard, subscribed = queue.Queue(), queue.Queue()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name)
        self.client.on_subscribe = lambda *_: subscribed.put(None)
        self.client.on_message = lambda _client, _data, message: self.heard.put(message.payload)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.client.subscribe(DOWN)
        subscribed.get(timeout=PATIENCE)

    def manifest(self):
        """The fields of the next manifest."""
        self.client.publish(UP, b"\x01")
        while (said := self.heard.get(timeout=PATIENCE))[0] != 0x81:
            assert said[0] == 0x83, said
        fields, rest = {}, said[1:]
        while rest:
            tag, length = rest[:2]
            fields[tag], rest = rest[2 : 2 + length], rest[2 + length :]
        return fields

    def fetch(self, manifest):
        """The whole image."""
        (size,) = struct.unpack(">I", manifest[2])
        count = -(-size // 4096)
        self.client.publish(UP, b"\x02" + manifest[1] + struct.pack(">HBII", 4096, 0, 0, count))
        image = bytearray(size)
        while count:
            said = self.heard.get(timeout=PATIENCE)
            if said[0] != 0x82:
                continue
            assert said[5:9] == manifest[1][:4]
            (offset,) = struct.unpack(">I", said[9:13])
            image[offset : offset + len(said) - 13] = said[13:]
            count -= 1
        assert hashlib.sha256(image).digest() == manifest[3]
        return bytes(image)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def is_signed(image, field, key_file):
    """What a device does that trusts the key; `field` is the manifest's signature."""
    key = base64.b64decode(key_file.read_text().splitlines()[1])
    if field[:2] != b"ED" or field[2:10] != key[2:10]:
        return False
    work = key_file.parent
    for name, content in [
        ("key.der", ED25519 + key[10:]),
        ("hash", hashlib.blake2b(image, digest_size=64).digest()),
        ("signature", field[10:]),
    ]:
        (work / name).write_bytes(content)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-rawin"]
    command += ["-inkey", work / "key.der", "-in", work / "hash", "-sigfile", work / "signature"]
    return subprocess.run(command, capture_output=True).returncode == 0


def new_key(site, name):
    """A pair of minisign's; the public one."""
    public = site.path / f"{name}.pub"
    command = ["minisign", "-G", "-W", "-f", "-p", public, "-s", site.path / f"{name}.key"]
    subprocess.run(command, check=True, capture_output=True)
    return public


def drop_signed(site, key, name, content):
    """A file and its signature, which comes first."""
    file = site.path / "to-sign"
    file.write_bytes(content)
    command = ["minisign", "-S", "-s", key.with_suffix(".key"), "-m", file]
    subprocess.run(command, check=True, capture_output=True)
    site.drop(f"{name}.minisig", (site.path / "to-sign.minisig").read_bytes())
    site.drop(name, content)


def simulated(site, name, key):
    """A simulated device that trusts this key; its exit code and what it said."""
    command = [FUOTAD, "simulate", "--dialect", "native", "--id-prefix", name, "--trusted-key", key]
    command += ["--broker", f"127.0.0.1:{site.ports['tcp']}", "--progress", "silent"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, done.stdout + done.stderr


def wait_for_firmware(site, name):
    while not any(row["path"] == name for row in site.get("firmware")["firmware"]):
        pass


def an_image_is_trusted_by_its_signature(site):
    key, other = new_key(site, "site"), new_key(site, "other")
    image = random.Random(1).randbytes(100_003)
    drop_signed(site, key, "pump-1.4.2.bin", image)
    wait_for_firmware(site, "pump-1.4.2.bin")
    device = Device(site.ports["tcp"], "pump-1")
    manifest = device.manifest()
    assert len(manifest[6]) == 74, manifest
    got = device.fetch(manifest)
    device.close()
    assert got == image
    assert is_signed(got, manifest[6], key)
    assert not is_signed(got[:-1] + bytes([got[-1] ^ 1]), manifest[6], key)
    assert not is_signed(got, manifest[6], other)
    code, said = simulated(site, "careful-", key)
    assert code == 0, said
    code, said = simulated(site, "choosy-", other)
    assert code != 0 and "another key made it" in said, said


def what_is_not_signed_has_no_signature(site):
    key = new_key(site, "site")
    site.drop("pump-1.4.2.bin", random.Random(2).randbytes(10_000))
    wait_for_firmware(site, "pump-1.4.2.bin")
    device = Device(site.ports["tcp"], "pump-1")
    assert 6 not in device.manifest()
    device.close()
    code, said = simulated(site, "careful-", key)
    assert code != 0 and "not signed" in said, said


def a_signature_of_what_was_unpacked_is_not_sent(site):
    key, image = new_key(site, "site"), random.Random(3).randbytes(16 * 64)
    records = [struct.pack(">BHB", 16, at, 0) + image[at : at + 16] for at in range(0, len(image), 16)]
    lines = [record + bytes([-sum(record) & 0xFF]) for record in records]
    text = "".join(f":{line.hex().upper()}\n" for line in lines) + ":00000001FF\n"
    drop_signed(site, key, "pump-1.4.2.hex", text.encode())
    wait_for_firmware(site, "pump-1.4.2.hex")
    device = Device(site.ports["tcp"], "pump-1")
    manifest = device.manifest()
    assert 6 not in manifest and device.fetch(manifest) == image
    device.close()


CASES = [
    an_image_is_trusted_by_its_signature,
    what_is_not_signed_has_no_signature,
    a_signature_of_what_was_unpacked_is_not_sent,
]


run_cases("native", CASES, lambda: Site(FUOTAD))
