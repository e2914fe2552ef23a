"""Runs one client library against the real daemon, over each transport and in both versions.

Usage: clients.py FUOTAD NAME TRANSPORTS COMMAND…, with transports out of tcp, tls, ws, wss and
mtls (TLS with a client certificate), and commas between. Prints a line for each case, and at the
end `N passed, N failed`.
"""

import hashlib
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

from daemon import Lines, Site

HERE = pathlib.Path(__file__).resolve().parent
PASSWORD = "correct horse battery"
LISTENERS = """
auth.mode = "token"
mqtt.tls.listen = "127.0.0.1:0"
mqtt.tls.cert = "{dir}/server.pem"
mqtt.tls.key = "{dir}/server.key"
mqtt.ws.listen = "127.0.0.1:0"
mqtt.wss.listen = "127.0.0.1:0"
"""


def openssl(*arguments, **options):
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"openssl {' '.join(arguments)}: {done.stderr}"


def make_certificates(path):
    """An authority of our own, and a certificate for the server and for the device `certified`."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl(
        "req", "-x509", *key, "-days", "2", "-subj", "/CN=an authority of the test",
        "-addext", "keyUsage=critical,keyCertSign", "-keyout", f"{path}/ca.key",
        "-out", f"{path}/ca.pem",
    )
    for name, subject, extensions in [
        ("server", "localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ("client", "certified", "extendedKeyUsage=clientAuth"),
    ]:
        openssl(
            "req", "-new", *key, "-subj", f"/CN={subject}", "-keyout", f"{path}/{name}.key",
            "-out", f"{path}/{name}.csr",
        )
        (path / "extensions").write_text(f"basicConstraints=critical,CA:FALSE\n{extensions}\n")
        openssl(
            "x509", "-req", "-in", f"{path}/{name}.csr", "-CA", f"{path}/ca.pem", "-days", "2",
            "-CAkey", f"{path}/ca.key", "-CAcreateserial", "-extfile", f"{path}/extensions",
            "-out", f"{path}/{name}.pem",
        )


def orders(site, tls, transport, version):
    """What the client is told; its device has a firmware of its own."""
    kind = "tls" if transport == "mtls" else transport
    image = random.Random(f"{transport} {version}").randbytes(6 * 4096 + version)
    device, token = "certified", None
    if transport != "mtls":
        device = f"{transport}-{version}"
        token = site.add_device(device)
    path = f"devices/{device}/{transport}-{version}.0.0.bin"
    site.drop(path, image)
    site.daemon.wait_for(re.escape(path))
    return {
        "host": "127.0.0.1",
        "port": site.ports[kind],
        "tls": kind in ("tls", "wss"),
        "websocket": kind in ("ws", "wss"),
        "ca": f"{tls}/ca.pem",
        "cert": f"{tls}/client.pem" if transport == "mtls" else None,
        "key": f"{tls}/client.key" if transport == "mtls" else None,
        "version": version,
        "user": {"name": "interop", "password": PASSWORD},
        "device": {"token": token},
        "digest": hashlib.sha256(image).hexdigest(),
        "topic": f"interop/{transport}-{version}",
    }


def report(name, transport, version, client, site):
    """Prints what became of a client, and counts its cases."""
    code, lines = client.finish()
    good = sum(bool(re.fullmatch(r"\w+ \.\.\. ok", line)) for line in lines)
    bad = sum(bool(re.match(r"\w+ \.\.\. FAILED", line)) for line in lines)
    # A client that does not get as far as its cases has failed all the same.
    bad = max(bad, int(code != 0 or good + bad == 0))
    where = f"{name} over {transport}, MQTT {'3.1.1' if version == 4 else '5'}"
    print(f"{where}: {good} passed, {bad} failed", flush=True)
    if bad:
        print("\n".join(lines + site.daemon.seen[-20:]), flush=True)
    return good, bad


def main():
    fuotad, name, transports, *command = sys.argv[1:]
    counts = []
    with tempfile.TemporaryDirectory(prefix="fuotad-interop-tls-") as tls:
        make_certificates(pathlib.Path(tls))
        settings = LISTENERS.format(dir=tls)
        for certified in (False, True):
            wanted = [one for one in transports.split(",") if (one == "mtls") == certified]
            if not wanted:
                continue
            if certified:
                settings += f'mqtt.tls.client_ca = "{tls}/ca.pem"\n'
            site = Site(os.path.abspath(fuotad), settings)
            site.add("users", name="interop", role="service", password=PASSWORD)

            def start(transport, version):
                told = json.dumps(orders(site, tls, transport, version))
                environment = {**os.environ, "PYTHONPATH": str(HERE)}
                return transport, version, Lines([*command, told], env=environment), site

            for transport in wanted:
                # Both versions at once, but where a certificate makes them the same device.
                for versions in ([4], [5]) if certified else ([4, 5],):
                    started = [start(transport, version) for version in versions]
                    counts += [report(name, *client) for client in started]
            site.close()
    passed, failed = (sum(column) for column in zip(*counts))
    print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
