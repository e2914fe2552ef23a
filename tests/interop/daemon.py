"""The real daemon on a directory of its own, and child processes whose lines can be waited for."""

import json
import pathlib
import queue
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

PATIENCE = 120


def image(seed, size):
    """Random bytes, the same for the same seed."""
    return random.Random(seed).randbytes(size)


class Lines:
    """A child process whose lines can be waited for."""

    def __init__(self, command, **options):
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
        )
        self.seen = []
        self.queue = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.queue.put(line.rstrip("\n"))
        self.queue.put(None)

    def wait_for(self, pattern):
        """The first match in a line not yet waited for."""
        while True:
            line = self.queue.get(timeout=PATIENCE)
            if line is None:
                raise AssertionError(f"ended without {pattern!r}:\n" + "\n".join(self.seen))
            self.seen.append(line)
            if match := re.search(pattern, line):
                return match

    def lines(self):
        """All lines so far."""
        while True:
            try:
                line = self.queue.get_nowait()
            except queue.Empty:
                return self.seen
            if line is not None:
                self.seen.append(line)

    def finish(self):
        """The exit code, and all lines."""
        code = self.process.wait(timeout=PATIENCE)
        while (line := self.queue.get(timeout=PATIENCE)) is not None:
            self.seen.append(line)
        return code, self.seen

    def end(self, how=signal.SIGKILL):
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(timeout=PATIENCE)


class Site:
    """A daemon with its configuration, firmware and data; `settings` are lines of TOML."""

    LISTENERS = {
        "tcp": r"mqtt listening on \S+:(\d+)",
        "tls": r"mqtt over TLS listening on \S+:(\d+)",
        "ws": r"mqtt over WebSocket listening on ws://[^:]+:(\d+)",
        "wss": r"mqtt over secure WebSocket listening on wss://[^:]+:(\d+)",
    }

    def __init__(self, fuotad, settings=""):
        self.fuotad = fuotad
        self.settings = settings
        self.dir = tempfile.TemporaryDirectory(prefix="fuotad-interop-")
        self.path = pathlib.Path(self.dir.name)
        (self.path / "firmware").mkdir()
        self.ports = {"tcp": 0}
        self.devices = []
        self.start()

    def start(self):
        # The port of the first start is kept, so that devices find the second one.
        (self.path / "broker.toml").write_text(
            f'mqtt.listen = "127.0.0.1:{self.ports["tcp"]}"\nadmin.listen = "127.0.0.1:0"\n'
            'store.settle = "200ms"\nstore.poll_interval = "500ms"\nfuota.resume_grace = "500ms"\n'
            + self.settings
        )
        self.daemon = Lines([self.fuotad, "serve", "--config", "broker.toml"], cwd=self.path)
        self.daemon.wait_for(r"ready$")
        said = "\n".join(self.daemon.seen)
        found = {name: re.search(pattern, said) for name, pattern in self.LISTENERS.items()}
        self.ports = {name: int(match[1]) for name, match in found.items() if match}
        self.admin = re.search(r"admin listening on (http://[\w.:]+)", said)[1]

    def drop(self, name, image):
        """By rename, so that it counts as complete."""
        staged = self.path / "staged"
        staged.write_bytes(image)
        target = self.path / "firmware" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.rename(target)

    def ask(self, path, data=None, method=None):
        request = urllib.request.Request(
            f"{self.admin}/api/v1/{path}",
            data=data,
            method=method,
            headers={
                "Authorization": "Bearer " + (self.path / "data/admin.token").read_text().strip(),
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read() or "null")

    def get(self, path):
        """What the admin interface answers."""
        return self.ask(path)

    def remove(self, path):
        """Deletes what is there."""
        self.ask(path, method="DELETE")

    def until(self, device, reached):
        """What is known of the device, once it has `reached` this."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                about = self.get(f"devices/{device}")
                if reached(about):
                    return about
            except urllib.error.HTTPError as error:
                # It is unknown until it has done something.
                about = error
                if error.code != 404:
                    raise
            assert time.monotonic() < deadline, about
            time.sleep(0.02)

    def add(self, collection, **fields):
        """Adds a device or a user, and gives the answer."""
        return self.ask(collection, json.dumps(fields).encode())

    def add_device(self, name):
        """Registers a device and gives its token."""
        return self.add("devices", id=name)["token"]

    def close(self):
        for process in [*self.devices, self.daemon]:
            process.end()
        self.dir.cleanup()


def run_cases(client, cases, start):
    """Runs each case on a site of its own, made by `start`; prints a line for each, and at the end
    `N passed, N failed`; and ends the process."""
    failed = 0
    for case in cases:
        site = start()
        try:
            case(site)
            print(f"{client}: {case.__name__} ... ok", flush=True)
        except Exception as error:  # each case is reported, whatever went wrong in it
            failed += 1
            print(f"{client}: {case.__name__} ... FAILED: {error!r}", flush=True)
            for process in [site.daemon, *site.devices]:
                print("\n".join(process.lines()[-20:]), flush=True)
        finally:
            site.close()
    print(f"{len(cases) - failed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)
