"""A site of Debian's mosquitto moves: what its users may publish and hear stays the same.

Usage: migration.py FUOTAD, under a python with paho-mqtt 2. Both brokers run, one on mosquitto's
own files and one on what `fuotad import mosquitto` made of them, and each user tries each topic
on both. Prints a line for each user, and at the end `N passed, N failed`.
"""

import os
import pathlib
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import traceback

import paho.mqtt.client as mqtt

from daemon import PATIENCE, Lines, Site

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures/mosquitto"
# Those whose hashes mosquitto 2.0 knows; `pump-*` become devices.
USERS = {
    "grafana": "tulip-mania-1637",
    "node-red": "größe: 7 $ällig",
    "pump-1": "pw1",
    "pump-2": "pw2",
    "root": "root of the test",
}
TOPICS = [
    "plant", "plant/1", "plant/1/secret", "notes/grafana", "notes/x", "commands/pump 1/start",
    "pumps/pump-1/x", "pumps/pump-1/factory", "pumps/pump-1/locked", "pumps/pump-2/factory",
    "pumps/grafana/x", "pumps/locked", "clients/on-mosquitto-pump-1/state", "clients/x/state",
    "news", "payroll/x", "public/x", "100%/load", "other",
]


class Client:
    def __init__(self, port, broker, name):
        self.paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, f"on-{broker}-{name}", protocol=mqtt.MQTTv5
        )
        self.paho.username_pw_set(name, USERS[name])
        self.said, self.heard = queue.Queue(), queue.Queue()
        self.paho.on_connect = lambda _c, _u, _f, code, _p: self.said.put(code)
        self.paho.on_subscribe = lambda *_: self.said.put("subscribed")
        self.paho.on_publish = lambda _c, _u, _id, code, _p: self.said.put(code)
        self.paho.on_message = lambda _c, _u, message: self.heard.put(message.topic)
        self.paho.connect("127.0.0.1", port)
        self.paho.loop_start()
        assert not self.said.get(timeout=PATIENCE).is_failure, f"{name} is not let in by {broker}"

    def may_publish(self, topic):
        self.paho.publish(topic, "x", qos=1)
        return not self.said.get(timeout=PATIENCE).is_failure

    def subscribe(self, topic):
        self.paho.subscribe(topic, qos=1)
        assert self.said.get(timeout=PATIENCE) == "subscribed"

    def may_hear(self, topic, root, own):
        """`own` is a topic that it may hear, and that root publishes to afterwards."""
        self.subscribe(topic)
        for each in (topic, own):
            assert root.may_publish(each)
        heard = [self.heard.get(timeout=PATIENCE)]
        while heard[-1] != own:
            heard.append(self.heard.get(timeout=PATIENCE))
        return topic in heard

    def close(self):
        self.paho.disconnect()
        self.paho.loop_stop()


def rights(port, broker, name):
    """What a user may publish, and what it hears, out of TOPICS."""
    user, root = Client(port, broker, name), Client(port, broker, "root")
    own = f"pumps/{name}/mark"
    user.subscribe(own)
    # Client ids differ between the brokers, so that a rule with one is the same rule.
    topics = [topic.replace("on-mosquitto", f"on-{broker}") for topic in TOPICS]
    result = [(user.may_publish(topic), user.may_hear(topic, root, own)) for topic in topics]
    user.close()
    root.close()
    return result


def old_site(path):
    """Mosquitto on the fixtures, with a user who may do everything; its port."""
    for name in ("passwords", "acl"):
        shutil.copy(FIXTURES / name, path / name)
    subprocess.run(
        ["mosquitto_passwd", "-b", path / "passwords", "root", USERS["root"]], check=True
    )
    with open(path / "acl", "a") as acl:
        acl.write("\nuser root\ntopic #\n")
    # It cannot be told to choose a port, so one that was free just now is taken.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (path / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous false\n"
        f"password_file {path}/passwords\nacl_file {path}/acl\n"
        + ("user root\n" if os.geteuid() == 0 else "")
    )
    mosquitto = Lines(["mosquitto", "-c", path / "mosquitto.conf"])
    mosquitto.wait_for(r"running$")
    return mosquitto, port


def new_site(fuotad, path):
    """A daemon with what the import made of the files."""
    command = [fuotad, "import", "mosquitto", "--acl", path / "acl"]
    site = Site(fuotad, subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    subprocess.run(
        [fuotad, "import", "mosquitto", "--passwords", path / "passwords", "--devices", "pump-*"]
        + ["--url", site.admin, "--token-file", site.path / "data/admin.token"],
        check=True, capture_output=True, text=True,
    )
    return site


def main():
    fuotad = os.path.abspath(sys.argv[1])
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="fuotad-interop-mosquitto-") as directory:
        path = pathlib.Path(directory)
        mosquitto, port = old_site(path)
        site = new_site(fuotad, path)
        for name in USERS.keys() - {"root"}:
            try:
                before = rights(port, "mosquitto", name)
                after = rights(site.ports["tcp"], "fuotad", name)
                assert len(set(before)) > 2, "some rights, and not all"
                differing = [
                    f"{topic}: {was} became {is_now}"
                    for topic, was, is_now in zip(TOPICS, before, after)
                    if was != is_now
                ]
                assert not differing, "; ".join(differing)
                passed += 1
                print(f"mosquitto's {name} has the same rights ... ok", flush=True)
            except Exception as error:
                failed += 1
                print(f"mosquitto's {name} has the same rights ... FAILED: {error}", flush=True)
                traceback.print_exc(file=sys.stdout)
        site.close()
        mosquitto.end()
    print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
