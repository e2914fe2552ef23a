"""What the clients in Python share: their orders, the runner of cases, and the firmware download.

`clients.py` starts a client with its orders as one JSON argument; the client prints a line for
each case, `NAME ... ok` or `NAME ... FAILED: WHY`.
"""

import asyncio
import base64
import hashlib
import inspect
import json
import ssl
import sys
import traceback

# host, port, tls, websocket, ca, cert, key, version (4 or 5), user {name, password},
# device {token}, digest and topic, which no other client uses.
ORDERS = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
V5 = ORDERS.get("version") == 5
PATIENCE = 30
TAGO = "tago/data/post"


def login_of(who):
    """User name and password of the user, or of the device as the reference's devices have it; a
    device with a certificate has none."""
    if who == "device":
        return (None, None) if ORDERS["cert"] else ("Token", ORDERS["device"]["token"])
    return ORDERS["user"]["name"], ORDERS["user"]["password"]


def tls():
    """Trusts the test's own authority alone, and checks the host's name; `None` without TLS."""
    if not ORDERS["tls"]:
        return None
    context = ssl.create_default_context(cafile=ORDERS["ca"])
    if ORDERS["cert"]:
        context.load_cert_chain(ORDERS["cert"], ORDERS["key"])
    return context


class Download:
    """A firmware download in the reference protocol: what arrives goes in, requests come out."""

    def __init__(self):
        self.manifest = None
        self.image = b""

    def take(self, payload):
        """The next request for what was heard; `None` where nothing is to be asked."""
        said = json.loads(payload)
        if said["variable"] == "firmware_manifest":
            self.manifest, self.image = said["metadata"], b""
            return self.request(0)
        if said["variable"] == "firmware_block" and self.manifest:
            self.image += base64.b64decode(said["metadata"]["data"], validate=True)
            return None if self.complete else self.request(said["value"] + 1)
        raise AssertionError(f"the server said {payload!r}")

    @staticmethod
    def request(index):
        return json.dumps({"variable": "firmware_request", "value": index, "unit": "index"})

    @property
    def complete(self):
        return self.manifest is not None and len(self.image) >= self.manifest["total_size"]

    def check(self):
        digest = hashlib.sha256(self.image).hexdigest()
        assert digest == self.manifest["sha256"] == ORDERS["digest"], "another image"


def run(cases):
    """Runs each case, a function or a coroutine, and ends the process."""
    failed = 0
    for case in cases:
        try:
            result = case()
            if inspect.iscoroutine(result):
                asyncio.run(asyncio.wait_for(result, PATIENCE))
            print(f"{case.__name__} ... ok", flush=True)
        except Exception as error:  # each case is reported, whatever went wrong in it
            failed += 1
            print(f"{case.__name__} ... FAILED: {error!r}", flush=True)
            traceback.print_exc(file=sys.stdout)
    sys.exit(1 if failed else 0)
