"""Drives the real daemon with a device on rustot (`rustot/`), which fetches by AWS's jobs and streams.

Usage: rustot.py FUOTAD DEVICE, where DEVICE is the program that `rustot/` builds.
Prints a line for each case, and at the end `N passed, N failed`.
"""

import hashlib
import os
import random
import signal
import sys

from daemon import Lines, Site

FUOTAD, DEVICE = (os.path.abspath(path) for path in sys.argv[1:3])


def image(seed, size):
    return random.Random(seed).randbytes(size)


class Field(Site):
    """A site with a device."""

    def __init__(self):
        self.devices = []
        super().__init__(FUOTAD)

    def device(self, name, block_size):
        device = Lines([DEVICE, str(self.ports["tcp"]), name, str(block_size)])
        self.devices.append(device)
        return device

    def ends(self, device, name, expected):
        """It has this image, tries it after a restart, and says so."""
        assert device.wait_for(r"complete (\w+)")[1] == hashlib.sha256(expected).hexdigest()
        device.wait_for("updated")
        about = self.until(name, lambda about: about["state"] == "updated")
        assert about["dialect"] == "aws", about

    def close(self):
        for device in self.devices:
            device.end()
        super().close()


def a_job_is_notified_fetched_tried_and_ended(site):
    expected = image(1, 300_001)
    device = site.device("pump-1", 1024)
    device.wait_for("waiting")
    site.until("pump-1", lambda about: about["online"])
    site.drop("pump-1.4.2.bin", expected)
    site.ends(device, "pump-1", expected)


def a_job_waits_for_a_device(site):
    """Of a size that is a multiple of the block's."""
    expected = image(2, 64 * 4096)
    site.drop("pump-1.4.2.bin", expected)
    site.ends(site.device("pump-1", 4096), "pump-1", expected)


def the_broker_dies_in_mid_transfer(site):
    expected = image(3, 4_000_003)
    site.drop("pump-1.4.2.bin", expected)
    device = site.device("pump-1", 256)
    device.wait_for("block, 15500 more")
    site.daemon.end(signal.SIGKILL)
    assert not any(line.startswith("complete") for line in device.lines())
    site.start()
    # Goes on: it counts down from where it was.
    site.ends(device, "pump-1", expected)
    told = [line for line in device.seen if line.startswith("block")]
    assert len(told) == -(-len(expected) // 256), len(told)


CASES = [
    a_job_is_notified_fetched_tried_and_ended,
    a_job_waits_for_a_device,
    the_broker_dies_in_mid_transfer,
]


def main():
    failed = 0
    for case in CASES:
        site = Field()
        try:
            case(site)
            print(f"rustot: {case.__name__} ... ok", flush=True)
        except Exception as error:  # each case is reported, whatever went wrong in it
            failed += 1
            print(f"rustot: {case.__name__} ... FAILED: {error!r}", flush=True)
            print("\n".join(site.daemon.seen[-20:]), flush=True)
            for device in site.devices:
                print("\n".join(device.lines()[-20:]), flush=True)
        finally:
            site.close()
    print(f"{len(CASES) - failed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
