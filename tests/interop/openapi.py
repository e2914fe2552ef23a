"""Schemathesis against the real daemon: what the description allows must work, what it forbids must
be refused, and every answer must be as described.

Prints what schemathesis prints, and at the end `N passed, N failed`.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import threading

import paho.mqtt.client as mqtt

from daemon import PATIENCE, Site

HERE = pathlib.Path(__file__).resolve().parent
SEED = "20"
EXAMPLES = "25"


def inhabit(site):
    """Something to list: a session, a device, retained messages, firmware, whose id it gives. The
    session ends with the process."""
    client, subscribed = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "pump-1"), threading.Event()
    client.on_connect = lambda client, *_: client.subscribe("tago/data/post", 1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", site.ports["tcp"])
    client.loop_start()
    assert subscribed.wait(PATIENCE)
    for payload in (b"warm", b"\xff\x00"):
        client.publish(f"plant/{len(payload)}", payload, qos=1, retain=True).wait_for_publish()
    site.drop("pump-1.4.2.bin", b"\x01an image" * 100)
    site.drop("attic/lost.bin", b"a lost image")
    site.add("users", name="ann", role="operator")
    site.add("devices", id="pump-2", groups=["hall-1"], labels={"hall": "1"}, model="pump")
    while True:
        files = site.get("firmware")["firmware"]
        if found := [file["id"] for file in files if file["path"] == "pump-1.4.2.bin"]:
            return found[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fuotad", help="the daemon's binary")
    parser.add_argument("more", nargs="*", help="further arguments for schemathesis, after --")
    arguments = parser.parse_args()
    site = Site(os.path.abspath(arguments.fuotad))
    try:
        firmware = inhabit(site)
        backups = site.path / "backups"
        backups.mkdir()
        token = (site.path / "data/admin.token").read_text().strip()
        command = [pathlib.Path(sys.executable).parent / "st"]
        command += ["--config-file", HERE / "openapi/schemathesis.toml", "run"]
        command += [f"{site.admin}/api/v1/openapi.json", "--header", f"Authorization: Bearer {token}"]
        command += ["--seed", SEED, "--max-examples", EXAMPLES]
        command += ["--request-timeout", "30", "--continue-on-failure", *arguments.more]
        environment = os.environ | {
            "OPENAPI_BACKUPS": str(backups),
            "OPENAPI_FIRMWARE": firmware,
            "SCHEMATHESIS_HOOKS": str(HERE / "openapi/hooks.py"),
        }
        # Its notes on earlier runs would stand in the checkout otherwise.
        code = subprocess.run(command, cwd=site.path, env=environment).returncode
        alive = site.daemon.process.poll() is None
        panics = [line for line in site.daemon.lines() if "panic" in line]
    finally:
        site.close()
    for line in panics:
        print(line)
    good = code == 0 and alive and not panics
    print(f"schemathesis on the admin interface ... {'ok' if good else 'FAILED'}", flush=True)
    print("1 passed, 0 failed" if good else "0 passed, 1 failed", flush=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
