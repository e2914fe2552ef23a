"""One dropped file, and a real client of every dialect that fetches it at the same time: the
reference's device on paho-mqtt, ThingsBoard's client, rustot, the simulator in the native dialect,
and curl.

Usage: together.py FUOTAD THINGSBOARD RUSTOT, where THINGSBOARD is the Python that has
tb-mqtt-client, RUSTOT the program that `rustot/` builds, and this interpreter has paho-mqtt.
Prints a line for each client, and at the end `N passed, N failed`.
"""

import hashlib
import os
import pathlib
import sys

from daemon import Lines, Site, image

HERE = pathlib.Path(__file__).resolve().parent
FUOTAD, THINGSBOARD, RUSTOT = (os.path.abspath(path) for path in sys.argv[1:4])
DIALECTS = ["reference", "thingsboard", "aws", "native", "http"]


class Field(Site):
    """A site with a device of each dialect, by which it is named; each is connected and waits."""

    LISTENERS = Site.LISTENERS | {"http": r"downloads listening on http://[\w.]+:(\d+)"}

    def __init__(self):
        super().__init__(FUOTAD, 'http.listen = "127.0.0.1:0"\n')
        self.clients = {}
        self.images = self.path / "images"
        self.images.mkdir()
        port = str(self.ports["tcp"])
        self.start_device(
            "reference",
            [sys.executable, HERE / "device.py", "--port", port, "--pause", "0.05"]
            + ["--token", self.add_device("reference"), "--output", "reference"],
            "subscribed",
        )
        self.start_device(
            "thingsboard",
            [THINGSBOARD, HERE / "clients/thingsboard_client.py", "--port", port]
            + ["--token", self.add_device("thingsboard"), "--chunk-size", "4096", "--versions", "1.4.2"],
            "asked",
        )
        self.start_device("aws", [RUSTOT, port, "aws", "1024"], "waiting")
        self.start_device(
            "native",
            [FUOTAD, "simulate", "--dialect", "native", "--broker", f"127.0.0.1:{port}"]
            + ["--id-prefix", "native-", "--window", "4", "--pace", "10ms", "--report"]
            + ["--image-dir", "native", "--progress", "lines"],
            None,
        )
        for name in ("thingsboard", "aws", "native-0001"):
            self.until(name, lambda about: about["online"])

    def start_device(self, name, command, ready):
        client = self.clients[name] = Lines(command, cwd=self.images)
        self.devices.append(client)
        if ready:
            client.wait_for(ready)

    def fetch_over_http(self):
        url = f"http://127.0.0.1:{self.ports['http']}/devices/http/firmware"
        self.start_device(
            "http",
            ["curl", "--silent", "--show-error", "--fail", "--limit-rate", "200k"]
            + ["--output", "http", "--write-out", "fetched %{http_code}\\n", url],
            None,
        )

    def digest_of(self, name):
        """What its client ended with, by the file that it wrote or by what it says."""
        device = self.clients[name]
        if name == "aws":
            digest = device.wait_for(r"complete (\w+)")[1]
            device.wait_for("updated")
            return digest
        if name == "thingsboard":
            return device.wait_for(r"complete pump 1.4.2 (\w+)")[1]
        code, lines = device.finish()
        assert code == 0, "\n".join(lines)
        if name == "native":
            [file] = (self.images / "native").iterdir()
        else:
            file = self.images / name
        return hashlib.sha256(file.read_bytes()).hexdigest()


def main():
    failed = 0
    site = Field()
    expected = image(9, 400_017)
    try:
        site.drop("pump-1.4.2.bin", expected)
        # Everybody is at it before the first of them, which is the slowest, has ended.
        site.clients["reference"].wait_for("block 0")
        site.fetch_over_http()
        site.clients["aws"].wait_for("block")
        for name in ("thingsboard", "native-0001", "http"):
            site.until(name, lambda about: about["state"] not in ("", "offered", None))
        assert site.clients["reference"].process.poll() is None, "it was too quick"
        for name in DIALECTS:
            try:
                digest = site.digest_of(name)
                assert digest == hashlib.sha256(expected).hexdigest(), digest
                device = "native-0001" if name == "native" else name
                # An answer that was not whole would not count as delivered.
                done = ("downloaded", "updating", "updated")
                about = site.until(device, lambda about: about["state"] in done)
                assert about["dialect"] == name, about
                print(f"together: {name} ... ok", flush=True)
            except Exception as error:  # each is reported, whatever went wrong with it
                failed += 1
                print(f"together: {name} ... FAILED: {error!r}", flush=True)
                print("\n".join(site.clients[name].lines()[-20:]), flush=True)
    except Exception as error:  # nobody got so far
        failed = len(DIALECTS)
        print(f"together ... FAILED: {error!r}", flush=True)
        for device in site.devices:
            print("\n".join(device.lines()[-20:]), flush=True)
        print("\n".join(site.daemon.lines()[-20:]), flush=True)
    finally:
        site.close()
    print(f"{len(DIALECTS) - failed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
