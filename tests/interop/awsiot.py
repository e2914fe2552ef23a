"""Drives the real daemon with a device on AWS's SDK (`clients/awsiot_client.py`).

Usage: awsiot.py FUOTAD PYTHON, where PYTHON has awsiotsdk and cbor2.
Prints a line for each case, and at the end `N passed, N failed`.
"""

import hashlib
import os
import pathlib
import random
import sys

from daemon import Lines, Site

CLIENT = pathlib.Path(__file__).resolve().parent / "clients/awsiot_client.py"
FUOTAD, PYTHON = (os.path.abspath(path) for path in sys.argv[1:3])


def a_job_is_notified_started_streamed_and_ended(site, devices):
    image = random.Random(1).randbytes(300_001)
    device = Lines([PYTHON, CLIENT, "--port", str(site.ports["tcp"]), "--thing", "dev-1"])
    devices.append(device)
    device.wait_for("waiting")
    site.drop("pump-1.4.2.bin", image)
    assert device.wait_for(r"complete (\w+)")[1] == hashlib.sha256(image).hexdigest()
    code, lines = device.finish()
    assert code == 0, "\n".join(lines)


CASES = [a_job_is_notified_started_streamed_and_ended]


def main():
    failed = 0
    for case in CASES:
        site, devices = Site(FUOTAD), []
        try:
            case(site, devices)
            print(f"awsiotsdk: {case.__name__} ... ok", flush=True)
        except Exception as error:  # each case is reported, whatever went wrong in it
            failed += 1
            print(f"awsiotsdk: {case.__name__} ... FAILED: {error!r}", flush=True)
            print("\n".join(site.daemon.seen[-20:]), flush=True)
        finally:
            for device in devices:
                device.end()
            site.close()
    print(f"{len(CASES) - failed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
