"""Drives the real daemon with `device.py` under the paho-mqtt of the running interpreter.

Prints a line for each case, and at the end `N passed, N failed`.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import pathlib
import queue
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request

from device import TOPIC, new_client

HERE = pathlib.Path(__file__).resolve().parent
PATIENCE = 120


class Lines:
    """A child process whose lines can be waited for."""

    def __init__(self, command, **options):
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
        )
        self.seen = []
        self.queue = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.queue.put(line.rstrip("\n"))
        self.queue.put(None)

    def wait_for(self, pattern):
        """The first match in a line not yet waited for."""
        while True:
            line = self.queue.get(timeout=PATIENCE)
            if line is None:
                raise AssertionError(f"ended without {pattern!r}:\n" + "\n".join(self.seen))
            self.seen.append(line)
            if match := re.search(pattern, line):
                return match

    def finish(self):
        """The exit code, and all lines."""
        code = self.process.wait(timeout=PATIENCE)
        while (line := self.queue.get(timeout=PATIENCE)) is not None:
            self.seen.append(line)
        return code, self.seen

    def end(self, how=signal.SIGKILL):
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(timeout=PATIENCE)


class Site:
    """A daemon on a directory of its own."""

    def __init__(self, fuotad):
        self.fuotad = fuotad
        self.dir = tempfile.TemporaryDirectory(prefix="fuotad-interop-")
        self.path = pathlib.Path(self.dir.name)
        (self.path / "firmware").mkdir()
        self.mqtt_port = 0
        self.devices = []
        self.start()

    def start(self):
        # The port of the first start is kept, so that devices find the second one.
        (self.path / "broker.toml").write_text(
            f'mqtt.listen = "127.0.0.1:{self.mqtt_port}"\nadmin.listen = "127.0.0.1:0"\n'
            'store.settle = "200ms"\nstore.poll_interval = "500ms"\nfuota.resume_grace = "500ms"\n'
        )
        self.daemon = Lines([self.fuotad, "serve", "--config", "broker.toml"], cwd=self.path)
        self.mqtt_port = int(self.daemon.wait_for(r"mqtt listening on \S+:(\d+)")[1])
        self.admin = self.daemon.wait_for(r"admin listening on (http://[\w.:]+)")[1]
        self.daemon.wait_for(r"ready$")

    def drop(self, name, image):
        """By rename, so that it counts as complete."""
        staged = self.path / "staged"
        staged.write_bytes(image)
        target = self.path / "firmware" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.rename(target)

    def add_device(self, name):
        """Registers a device and gives its token."""
        request = urllib.request.Request(
            self.admin + "/api/v1/devices",
            data=json.dumps({"id": name}).encode(),
            headers={
                "Authorization": "Bearer " + (self.path / "data/admin.token").read_text().strip(),
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)["token"]

    def device(self, token, pause=0.1):
        output = self.path / f"image-{len(self.devices)}"
        device = Lines(
            [sys.executable, HERE / "device.py", "--port", str(self.mqtt_port), "--token", token]
            + ["--output", output, "--pause", str(pause)]
        )
        device.output = output
        self.devices.append(device)
        return device

    def close(self):
        for device in self.devices:
            device.end()
        self.daemon.end()
        self.dir.cleanup()


def image(seed, size):
    return random.Random(seed).randbytes(size)


def expect_image(device, expected):
    code, lines = device.finish()
    assert code == 0, "\n".join(lines)
    got = device.output.read_bytes()
    assert hashlib.sha256(got).digest() == hashlib.sha256(expected).digest(), "another image"


def a_dropped_file_reaches_a_connected_device(site):
    expected = image(1, 20 * 4096 + 17)
    device = site.device("a-token-of-the-field")
    device.wait_for("subscribed")
    site.drop("pump-1.4.2.bin", expected)
    assert device.wait_for(r"manifest (\S+) 21")[1] == "1.4.2"
    expect_image(device, expected)


def a_device_that_comes_later_hears_of_it(site):
    expected = image(2, 4096)
    site.drop("pump-1.4.2.bin", expected)
    expect_image(site.device("a-token-of-the-field"), expected)


def devices_get_their_own_images_and_onlookers_none(site):
    onlooker, heard = new_client(), queue.Queue()
    subscribed = threading.Event()
    onlooker.on_connect = lambda client, *_: client.subscribe([("#", 2), ("tago/+/post", 1)])
    onlooker.on_subscribe = lambda *_: subscribed.set()
    onlooker.on_message = lambda _client, _userdata, message: heard.put(message.payload)
    onlooker.connect("127.0.0.1", site.mqtt_port)
    onlooker.loop_start()
    assert subscribed.wait(PATIENCE)

    images = {f"pump-{n}": image(10 + n, 6 * 4096 + n) for n in range(5)}
    devices = {name: site.device(site.add_device(name), pause=0.01) for name in images}
    for name, expected in images.items():
        site.drop(f"devices/{name}/image.bin", expected)
    for name, expected in images.items():
        expect_image(devices[name], expected)

    speaker = new_client()
    speaker.connect("127.0.0.1", site.mqtt_port)
    speaker.loop_start()
    speaker.publish(TOPIC, "marker", qos=1).wait_for_publish()
    assert heard.get(timeout=PATIENCE) == b"marker", "the first thing that an onlooker hears"
    for client in (onlooker, speaker):
        client.disconnect()
        client.loop_stop()


def a_file_replaced_on_the_way_is_never_mixed(site):
    old, new = image(3, 20 * 4096), image(4, 20 * 4096 + 5)
    site.drop("pump.bin", old)
    device = site.device("a-token-of-the-field")
    device.wait_for("block 5")
    site.drop("pump.bin", new)
    device.wait_for("manifest")
    expect_image(device, new)


def a_broker_that_dies_on_the_way_ends_no_update(site):
    expected = image(5, 20 * 4096)
    site.drop("pump-1.0.0.bin", expected)
    device = site.device("a-token-of-the-field")
    device.wait_for("block 5")
    site.daemon.end(signal.SIGKILL)
    site.start()
    expect_image(device, expected)


CASES = [
    a_dropped_file_reaches_a_connected_device,
    a_device_that_comes_later_hears_of_it,
    devices_get_their_own_images_and_onlookers_none,
    a_file_replaced_on_the_way_is_never_mixed,
    a_broker_that_dies_on_the_way_ends_no_update,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fuotad", help="the daemon's binary")
    fuotad = os.path.abspath(parser.parse_args().fuotad)
    version = importlib.metadata.version("paho-mqtt")
    failed = 0
    for case in CASES:
        site = Site(fuotad)
        try:
            case(site)
            print(f"paho-mqtt {version}: {case.__name__} ... ok", flush=True)
        except Exception as error:  # each case is reported, whatever went wrong in it
            failed += 1
            print(f"paho-mqtt {version}: {case.__name__} ... FAILED: {error!r}", flush=True)
            print("\n".join(site.daemon.seen[-20:]), flush=True)
        finally:
            site.close()
    print(f"{len(CASES) - failed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
