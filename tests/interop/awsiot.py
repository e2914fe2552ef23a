"""Drives the real daemon with a device on AWS's SDK (`clients/awsiot_client.py`).

Usage: awsiot.py FUOTAD PYTHON, where PYTHON has awsiotsdk and cbor2.
Prints a line for each case, and at the end `N passed, N failed`.
"""

import hashlib
import os
import pathlib
import sys

from daemon import Lines, Site, image, run_cases

CLIENT = pathlib.Path(__file__).resolve().parent / "clients/awsiot_client.py"
FUOTAD, PYTHON = (os.path.abspath(path) for path in sys.argv[1:3])


def a_job_is_notified_started_streamed_and_ended(site):
    expected = image(1, 300_001)
    device = Lines([PYTHON, CLIENT, "--port", str(site.ports["tcp"]), "--thing", "dev-1"])
    site.devices.append(device)
    device.wait_for("waiting")
    site.drop("pump-1.4.2.bin", expected)
    assert device.wait_for(r"complete (\w+)")[1] == hashlib.sha256(expected).hexdigest()
    code, lines = device.finish()
    assert code == 0, "\n".join(lines)


CASES = [a_job_is_notified_started_streamed_and_ended]


run_cases("awsiotsdk", CASES, lambda: Site(FUOTAD))
