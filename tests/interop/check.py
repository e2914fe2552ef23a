"""Drives the real daemon with `device.py` under the paho-mqtt of the running interpreter.

Prints a line for each case, and at the end `N passed, N failed`.
"""

import argparse
import hashlib
import importlib.metadata
import os
import pathlib
import queue
import signal
import sys
import threading

from daemon import PATIENCE, Lines, Site, image, run_cases
from device import TOPIC, new_client

HERE = pathlib.Path(__file__).resolve().parent


class Field(Site):
    """A site with devices."""

    def device(self, token, pause=0.1):
        output = self.path / f"image-{len(self.devices)}"
        device = Lines(
            [sys.executable, HERE / "device.py", "--port", str(self.ports["tcp"]), "--token", token]
            + ["--output", output, "--pause", str(pause)]
        )
        device.output = output
        self.devices.append(device)
        return device


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
    onlooker.connect("127.0.0.1", site.ports["tcp"])
    onlooker.loop_start()
    assert subscribed.wait(PATIENCE)

    images = {f"pump-{n}": image(10 + n, 6 * 4096 + n) for n in range(5)}
    devices = {name: site.device(site.add_device(name), pause=0.01) for name in images}
    for name, expected in images.items():
        site.drop(f"devices/{name}/image.bin", expected)
    for name, expected in images.items():
        expect_image(devices[name], expected)

    speaker = new_client()
    speaker.connect("127.0.0.1", site.ports["tcp"])
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
    client = f"paho-mqtt {importlib.metadata.version('paho-mqtt')}"
    run_cases(client, CASES, lambda: Field(fuotad))


if __name__ == "__main__":
    main()
