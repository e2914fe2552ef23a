"""A mosquitto beside the daemon, with a bridge to it: messages pass both ways, once, at each QoS.

Usage: bridge.py FUOTAD, under a python with paho-mqtt 2. Prints a line for each way to set a bridge
up, and at the end `N passed, N failed`.
"""

import itertools
import os
import pathlib
import queue
import socket
import sys
import tempfile
import traceback

import paho.mqtt.client as mqtt

from daemon import PATIENCE, Lines, Site


class Client:
    """Hears all below `both/`."""

    def __init__(self, port, name):
        self.paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, f"hears-{name}", protocol=mqtt.MQTTv5
        )
        self.said, self.heard = queue.Queue(), queue.Queue()
        self.paho.on_connect = lambda *_: self.said.put("connected")
        self.paho.on_subscribe = lambda *_: self.said.put("subscribed")
        self.paho.on_message = lambda _c, _u, m: self.heard.put((m.payload.decode(), m.qos))
        self.paho.connect("127.0.0.1", port)
        self.paho.loop_start()
        assert self.said.get(timeout=PATIENCE) == "connected"
        self.paho.subscribe("both/#", qos=2)
        assert self.said.get(timeout=PATIENCE) == "subscribed"

    def publish(self, text, qos):
        self.paho.publish("both/x", text, qos=qos).wait_for_publish(PATIENCE)

    def hear(self):
        return self.heard.get(timeout=PATIENCE)

    def close(self):
        self.paho.disconnect()
        self.paho.loop_stop()


def mosquitto(path, remote, name, settings):
    """One with a bridge to `remote`, that is up; its port."""
    # It cannot be told to choose a port, so one that was free just now is taken.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (path / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nlog_type all\n"
        + ("user root\n" if os.geteuid() == 0 else "")
        + f"connection {name}\naddress 127.0.0.1:{remote}\ntopic both/# both 2\n"
        + "".join(f"{line}\n" for line in settings)
    )
    process = Lines(["mosquitto", "-c", path / "mosquitto.conf"])
    process.wait_for(r"running$")
    # Of the SUBSCRIBE to the daemon, not to itself.
    process.wait_for(r"Received SUBACK from local\.")
    return process, port


def check(site, path, name, settings):
    process, port = mosquitto(path, site.ports["tcp"], name, settings)
    try:
        refused = [line for line in process.lines() if "onnection Refused" in line]
        assert not refused, refused
        here, there = Client(site.ports["tcp"], f"{name}-here"), Client(port, f"{name}-there")
        for qos in (0, 1, 2):
            for one, other in ((here, there), (there, here)):
                one.publish(f"{qos}", qos)
                # An echo would come before what is published next.
                one.publish(f"{qos} again", qos)
                for client in (one, other):
                    heard = [client.hear(), client.hear()]
                    assert heard == [(f"{qos}", qos), (f"{qos} again", qos)], heard
        for client in (here, there):
            client.publish("last", 2)
        # Each hears its own one and the other's, and nothing beside them.
        for client in (here, there):
            heard = [client.hear(), client.hear()]
            assert heard == [("last", 2)] * 2, heard
            assert client.heard.empty()
            client.close()
    finally:
        process.end()


def main():
    passed = failed = 0
    site = Site(os.path.abspath(sys.argv[1]))
    ways = itertools.product(
        ("mqttv311", "mqttv50"), ("notifications true", "notifications false"), ("true", "false")
    )
    for number, (version, notifications, clean) in enumerate(ways):
        settings = [f"bridge_protocol_version {version}", notifications, f"cleansession {clean}"]
        with tempfile.TemporaryDirectory(prefix="fuotad-interop-bridge-") as directory:
            try:
                check(site, pathlib.Path(directory), f"bridge-{number}", settings)
                passed += 1
                print(f"a bridge with {', '.join(settings)} ... ok", flush=True)
            except Exception as error:
                failed += 1
                print(f"a bridge with {', '.join(settings)} ... FAILED: {error}", flush=True)
                traceback.print_exc(file=sys.stdout)
    site.close()
    print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
