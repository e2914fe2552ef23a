"""Drives the real daemon with devices on ThingsBoard's client library (`clients/thingsboard_client.py`).

Usage: thingsboard.py FUOTAD PYTHON, where PYTHON has tb-mqtt-client, and this interpreter paho-mqtt 2.
Prints a line for each case, and at the end `N passed, N failed`.
"""

import hashlib
import os
import pathlib
import queue
import signal
import sys
import tempfile
import threading

import paho.mqtt.client as mqtt

from daemon import PATIENCE, Lines, Site, image, run_cases

CLIENT = pathlib.Path(__file__).resolve().parent / "clients/thingsboard_client.py"
FUOTAD, PYTHON = (os.path.abspath(path) for path in sys.argv[1:3])


class Field(Site):
    """A site with ThingsBoard devices."""

    def __init__(self):
        super().__init__(FUOTAD)

    def device(self, name, chunk_size, *versions, telemetry=None):
        token = self.add_device(name)
        place = tempfile.mkdtemp(dir=self.path)
        command = [PYTHON, CLIENT, "--port", str(self.ports["tcp"]), "--token", token]
        command += ["--chunk-size", str(chunk_size), "--versions", *versions]
        if telemetry:
            command += ["--telemetry", telemetry]
        device = Lines(command, cwd=place)
        self.devices.append(device)
        return device


def sha256(bytes_):
    return hashlib.sha256(bytes_).hexdigest()


def every_chunk_size(site):
    """None, sizes below and above the image, and an image that is a multiple of the chunk."""
    images = {"1.4.2": image(1, 20 * 4096 + 17), "1.5.0": image(2, 32 * 4096)}
    devices = []
    for version, expected in images.items():
        for chunk_size in (0, 1024, 4096, 65536, 200_000):
            name = f"pump-{version}-{chunk_size}"
            site.drop(f"devices/{name}/pump-{version}.bin", expected)
            devices.append((name, version, sha256(expected), site.device(name, chunk_size, version)))
    for name, version, digest, device in devices:
        assert device.wait_for(rf"complete pump {version} (\w+)")[1] == digest, name
        about = site.until(name, lambda about: about["state"] == "updated")
        assert about["dialect"] == "thingsboard" and about["version"] == version, about


def nothing_assigned_and_then_something(site):
    device = site.device("pump-1", 4096, "1.0.0")
    device.wait_for("asked")
    site.until("pump-1", lambda about: about["version"] == "v0")
    expected = image(3, 5 * 4096)
    site.drop("pump-1.0.0.bin", expected)
    assert device.wait_for(r"complete pump 1.0.0 (\w+)")[1] == sha256(expected)


def reassigned_while_online(site):
    old, new = image(4, 50_000), image(5, 60_001)
    site.drop("pump-1.0.0.bin", old)
    device = site.device("pump-1", 1000, "1.0.0", "1.1.0")
    assert device.wait_for(r"complete pump 1.0.0 (\w+)")[1] == sha256(old)
    site.drop("pump-1.1.0.bin", new)
    assert device.wait_for(r"complete pump 1.1.0 (\w+)")[1] == sha256(new)
    site.until("pump-1", lambda about: about["state"] == "updated")


def every_checksum(site):
    """The client checks each by itself, and begins anew where it is wrong."""
    algorithms = ["MD5", "SHA256", "SHA384", "SHA512", "CRC32", "MURMUR3_32", "MURMUR3_128"]
    devices = []
    for number, algorithm in enumerate(algorithms):
        name, version = f"pump-{number}", f"1.{number}.0"
        expected = image(20 + number, 30_000 + number)
        file = f"devices/{name}/pump-{version}.bin"
        site.drop(f"{file}.toml", f'checksum = "{algorithm}"\n'.encode())
        site.drop(file, expected)
        devices.append((name, version, algorithm, sha256(expected), site.device(name, 4096, version)))
    for name, version, algorithm, digest, device in devices:
        device.wait_for(f"checked by {algorithm}$")
        assert device.wait_for(rf"complete pump {version} (\w+)")[1] == digest, name
        site.until(name, lambda about: about["state"] == "updated")


def withdrawn_in_mid_transfer(site):
    old, new = image(8, 4_000_000), image(9, 50_000)
    site.drop("pump-1.0.0.bin", old)
    device = site.device("pump-1", 1000, "1.1.0")
    site.until("pump-1", lambda about: about["progress"]["chunks_sent"] > 20)
    [firmware] = site.get("firmware")["firmware"]
    site.remove(f"firmware/{firmware['id']}")
    device.wait_for("deleted fw_title fw_version fw_size fw_checksum_algorithm fw_checksum$")
    site.drop("pump-1.1.0.bin", new)
    assert device.wait_for(r"complete pump 1.1.0 (\w+)")[1] == sha256(new)


def the_broker_dies_in_mid_transfer(site):
    expected = image(6, 4_000_000)
    site.drop("pump-1.0.0.bin", expected)
    device = site.device("pump-1", 1000, "1.0.0")
    site.until("pump-1", lambda about: about["progress"]["chunks_sent"] > 20)
    site.daemon.end(signal.SIGKILL)
    assert site.path.exists() and device.process.poll() is None
    site.start()
    assert device.wait_for(r"complete pump 1.0.0 (\w+)")[1] == sha256(expected)
    site.until("pump-1", lambda about: about["state"] == "updated")


def what_is_no_firmware_goes_on_to_others(site):
    heard = queue.Queue()
    onlooker = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    subscribed = threading.Event()
    onlooker.on_subscribe = lambda *_: subscribed.set()
    onlooker.on_message = lambda _client, _data, message: heard.put((message.topic, message.payload))
    password = "a password of the dashboard"
    site.add("users", name="dashboard", role="service", password=password)
    onlooker.username_pw_set("dashboard", password)
    onlooker.connect("127.0.0.1", site.ports["tcp"])
    onlooker.loop_start()
    onlooker.subscribe([("#", 1)])
    assert subscribed.wait(PATIENCE)
    expected = image(7, 9000)
    site.drop("pump-1.0.0.bin", expected)
    device = site.device("pump-1", 4096, "1.0.0", telemetry="21.5")
    assert device.wait_for(r"complete pump 1.0.0 (\w+)")[1] == sha256(expected)
    said = []
    while b"UPDATED" not in (message := heard.get(timeout=PATIENCE))[1]:
        said.append(message)
    onlooker.disconnect()
    onlooker.loop_stop()
    topics = {topic for topic, _ in said}
    assert topics == {"fuota/devices/pump-1/telemetry", "fuota/devices/pump-1/attributes"}, topics
    bodies = b"".join(payload for _, payload in said)
    assert b'"temperature":"21.5"' in bodies and b'"serial":"21.5"' in bodies, bodies


CASES = [
    every_chunk_size,
    nothing_assigned_and_then_something,
    reassigned_while_online,
    every_checksum,
    withdrawn_in_mid_transfer,
    the_broker_dies_in_mid_transfer,
    what_is_no_firmware_goes_on_to_others,
]


run_cases("tb-mqtt-client", CASES, Field)
