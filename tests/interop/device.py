"""A device as the reference has them, on paho-mqtt 1.6 or newer.

It connects with an empty client id and a clean session, logs in as `Token` with its token as
password, subscribes and publishes on one topic at QoS 0, asks for chunk 0 when it hears a
manifest and for the next chunk after each block, with a short pause between. After the last
block it puts the image together, checks it against the manifest and writes it to a file.
"""

import argparse
import base64
import hashlib
import json
import sys
import threading
import time

import paho.mqtt.client as mqtt

TOPIC = "tago/data/post"


def new_client():
    """paho-mqtt 2 wants to be told which callbacks it shall use."""
    arguments = {"client_id": "", "clean_session": True, "protocol": mqtt.MQTTv311}
    if hasattr(mqtt, "CallbackAPIVersion"):
        arguments["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION2
    return mqtt.Client(**arguments)


class Device:
    def __init__(self, pause):
        self.pause = pause
        self.manifest = None
        self.chunks = {}
        self.manifests_heard = 0
        self.image = None
        self.problem = None
        self.ended = threading.Event()

    def on_connect(self, client, *_):
        client.subscribe(TOPIC, qos=0)

    def on_subscribe(self, *_):
        say("subscribed")

    def on_message(self, client, _userdata, message):
        try:
            variables = json.loads(message.payload)
        except ValueError:
            return
        for variable in variables if isinstance(variables, list) else [variables]:
            name = variable.get("variable")
            if name == "firmware_manifest":
                self.start(client, variable["metadata"])
            elif name == "firmware_block":
                self.take(client, variable)
            elif name == "fuota_error":
                self.give_up("the server said: " + variable["value"])

    def start(self, client, manifest):
        """A manifest begins a new download: what was there is dropped."""
        self.manifest = manifest
        self.manifests_heard += 1
        self.chunks = {}
        say("manifest", manifest["version"], manifest["total_chunks"])
        self.ask(client, 0)

    def take(self, client, block):
        self.chunks[block["value"]] = base64.b64decode(block["metadata"]["data"], validate=True)
        say("block", block["value"])
        time.sleep(self.pause)
        if block["value"] + 1 < self.manifest["total_chunks"]:
            self.ask(client, block["value"] + 1)
        else:
            self.assemble()

    def ask(self, client, index):
        request = {"variable": "firmware_request", "value": index, "unit": "index"}
        client.publish(TOPIC, json.dumps(request), qos=0)

    def assemble(self):
        missing = [i for i in range(self.manifest["total_chunks"]) if i not in self.chunks]
        if missing:
            return self.give_up(f"chunks are missing: {missing}")
        image = b"".join(self.chunks[i] for i in range(self.manifest["total_chunks"]))
        if len(image) != self.manifest["total_size"]:
            return self.give_up(f"{len(image)} bytes instead of {self.manifest['total_size']}")
        if hashlib.sha256(image).hexdigest() != self.manifest["sha256"]:
            return self.give_up("the image is not the one that the manifest names")
        self.image = image
        self.ended.set()

    def give_up(self, problem):
        self.problem = problem
        self.ended.set()


def say(*words):
    print(*words, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--output", required=True, help="file for the image")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between block and request")
    parser.add_argument("--timeout", type=float, default=120)
    options = parser.parse_args()

    device = Device(options.pause)
    client = new_client()
    client.username_pw_set("Token", options.token)
    client.on_connect = device.on_connect
    client.on_subscribe = device.on_subscribe
    client.on_message = device.on_message
    client.reconnect_delay_set(min_delay=1, max_delay=2)
    client.connect("127.0.0.1", options.port, keepalive=60)
    client.loop_start()
    if not device.ended.wait(options.timeout):
        device.problem = "the update did not end in time"
    client.disconnect()
    client.loop_stop()
    if device.problem:
        sys.exit(device.problem)
    with open(options.output, "wb") as file:
        file.write(device.image)
    say("complete", hashlib.sha256(device.image).hexdigest())


if __name__ == "__main__":
    main()
