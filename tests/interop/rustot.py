"""Drives the real daemon with a device on rustot (`rustot/`), which fetches by AWS's jobs and streams.

Usage: rustot.py FUOTAD DEVICE, where DEVICE is the program that `rustot/` builds.
Prints a line for each case, and at the end `N passed, N failed`.
"""

import hashlib
import os
import signal
import sys

from daemon import Lines, Site, image, run_cases

FUOTAD, DEVICE = (os.path.abspath(path) for path in sys.argv[1:3])


class Field(Site):
    """A site with a device."""

    def __init__(self):
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


run_cases("rustot", CASES, Field)
