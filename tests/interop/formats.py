"""Files that the formats' own tools make now, dropped into the real daemon: it must say of them
what those tools say, and serve what they make. And signatures, both ways, with minisign.

Usage: formats.py FUOTAD, under a python with the packages that
crates/store/tests/fixtures/formats/make.sh names, where Debian's mender-artifact, rauc and minisign
are installed. Prints a line for each file, and at the end `N passed, N failed`.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import traceback
import urllib.request

import bincopy
import intelhex
from imgtool.image import Image
from zigpy.ota.image import OTAImage

from daemon import PATIENCE, Site

MAKER = pathlib.Path(__file__).resolve().parents[2] / "crates/store/tests/fixtures/formats/make.py"
BIN = pathlib.Path(sys.executable).parent


def output(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def esp(path):
    """What esptool says."""
    said = output(BIN / "esptool", "image-info", path)
    field = lambda name: re.search(rf"^{name}: (.*)$", said, re.M)
    assert "(valid)" in said
    title, version = field("Project name")[1], field("App version")[1]
    if title == "arduino-lib-builder":
        title = version = None
    counter = int(field("Secure version")[1]) or None
    chip = field("Chip ID")[1]
    chip = re.search(r"\((.*)\)", chip)[1].lower().replace("-", "")
    return {"format": "ESP-IDF", "chip": chip, "security_counter": counter}, title, version


def mcuboot(path):
    """What imgtool says."""
    result, version, *_ = Image.verify(str(path), None)
    assert result.name == "OK", result
    major, minor, revision, build = version
    return {"format": "MCUboot"}, None, f"{major}.{minor}.{revision}" + (f"+{build}" if build else "")


def binary(image):
    return {"digest": hashlib.sha256(image).hexdigest(), "size": len(image)}


def hex_file(path):
    parsed = intelhex.IntelHex(str(path))
    parsed.padding = 0xFF
    return {"format": "Intel HEX", **binary(parsed.tobinstr())}, None, None


def srec(path):
    parsed = bincopy.BinFile()
    parsed.add_srec(path.read_text())
    return {"format": "SREC", **binary(bytes(parsed.as_binary(padding=b"\xff")))}, parsed.header, None


def uf2(path):
    made = path.with_suffix(".converted")
    output(BIN / "uf2conv", "-o", made, path)
    image = made.read_bytes()
    if path.name == "nrf52840.uf2":
        # Where no block is it writes zeros, and fuotad what erased flash has.
        image = image[:256] + b"\xff" * 256 + image[512:]
    return {"format": "UF2", **binary(image)}, None, None


def mender(path):
    said = output("mender-artifact", "read", path)
    title, version = re.search(r"Name: (\S+)-([\d.]+)", said).groups()
    return {"format": "Mender"}, title, version


def rauc(path):
    said = output("rauc", "info", "--no-verify", path)
    # In a plain bundle the manifest is packed, and not looked for.
    version = re.search(r"Version:\s+'(.*)'", said)[1] if "verity" in path.name else None
    return {"format": "RAUC"}, None, version


def zigbee(path):
    header = OTAImage.deserialize(path.read_bytes())[0].header
    title = header.header_string.rstrip(b"\0").decode() if isinstance(header.header_string, bytes) else str(header.header_string)
    return {"format": "Zigbee OTA"}, title, f"0x{header.file_version:08x}"


CASES = [
    *[(name, esp) for name in ("esp32.bin", "esp32s3.bin", "esp32c3-no-digest.bin", "esp32-arduino.bin")],
    *[(name, mcuboot) for name in ("mcuboot.bin", "mcuboot-counter.bin", "mcuboot-signed.bin", "mcuboot-padded.bin")],
    *[(name, hex_file) for name in ("gap.hex", "segments.hex", "gap-bincopy.hex")],
    *[(name, srec) for name in ("gap24.srec", "gap32.srec")],
    *[(name, uf2) for name in ("rp2040.uf2", "nrf52840.uf2")],
    *[(name, mender) for name in ("gzip.mender", "none.mender")],
    *[(name, rauc) for name in ("plain.raucb", "verity.raucb")],
    ("gateway.swu", lambda path: ({"format": "SWUpdate"}, None, "3.2.1")),
    ("lamp.zigbee", zigbee),
    ("dfu_application.zip", lambda path: (
        {"format": "nRF Connect SDK", **binary((path.parent / "mcuboot.bin").read_bytes())}, "sensor", "1.2.3+4")),
    ("nrfutil.zip", lambda path: ({"format": "nrfutil"}, None, "7")),
]
REFUSED = {
    "application.elf": "not the .elf", "esp32-bootloader.bin": "boot loader", "esp32-merged.bin": "whole flash",
    "esp32s3-merged.bin": "whole flash", "page.bin": "web page", "zephyr.bin.gz": "gunzip",
    "dfu_application-two.zip": "2 images",
}


def listed(site):
    token = (site.path / "data/admin.token").read_text().strip()
    request = urllib.request.Request(
        f"{site.admin}/api/v1/firmware?limit=1000", headers={"Authorization": "Bearer " + token})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)["firmware"]


def view(site, path):
    """The row of a dropped file."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for row in listed(site):
            if row["path"] == path:
                return row
        time.sleep(0.05)
    raise AssertionError(f"{path} does not appear")


def taken(site, made, name, expect):
    wanted, title, version = expect(made / name)
    # In a folder of its own, so that equal titles and versions are no conflict; under a name that
    # tells nothing.
    folder = f"devices/{name.replace('_', '-')}"
    (site.path / "firmware" / folder).mkdir(parents=True, exist_ok=True)
    site.drop(f"{folder}/dropped", (made / name).read_bytes())
    row = view(site, f"{folder}/dropped")
    assert row["state"] != "refused", row
    for field, value in wanted.items():
        assert row[field] == value, (field, value, row)
    for field, value in (("title", title), ("version", version)):
        decided = row[field] if row[field]["from"] == "image header" else None
        assert (decided or {}).get("value") == value, (field, value, row)


def refused(site, made, name, says):
    site.drop(f"all/{name}", (made / name).read_bytes())
    row = view(site, f"all/{name}")
    assert row["state"] == "refused" and says in row["reason"], row


def signatures(fuotad, made):
    """What minisign signs fuotad verifies, and the other way around."""
    work = made / "signing"
    work.mkdir()
    file = work / "pump.bin"
    shutil.copy(made / "signed.bin", file)
    verify = lambda key: subprocess.run(
        [fuotad, "firmware", "verify", file, "--key", key], capture_output=True, text=True)
    for old in ("", "-l"):
        output("minisign", "-G", "-W", "-f", "-p", work / "theirs.pub", "-s", work / "theirs.key")
        output("minisign", "-S", *old.split(), "-s", work / "theirs.key", "-m", file, "-t", "version:1.2.3 model:px")
        said = verify(work / "theirs.pub")
        assert said.returncode == 0 and "version: 1.2.3" in said.stdout, said
    # A key of minisign signs here, one of ours verifies there.
    os.remove(f"{file}.minisig")
    output(fuotad, "firmware", "sign", file, "--key", work / "theirs.key", "--title", "heat pump")
    output("minisign", "-V", "-p", work / "theirs.pub", "-m", file)
    password = work / "password"
    password.write_text("correct horse battery staple\n")
    output(fuotad, "firmware", "keygen", work / "ours", "--password-file", password)
    output(fuotad, "firmware", "sign", file, "--key", work / "ours.key", "--password-file", password, "--version", "2.0.0")
    said = output("minisign", "-V", "-p", work / "ours.pub", "-m", file)
    assert "version:2.0.0" in said, said
    # minisign signs with it too, given the password.
    subprocess.run(["minisign", "-S", "-s", work / "ours.key", "-m", file], check=True, text=True,
                   input=password.read_text(), capture_output=True)
    assert verify(work / "ours.pub").returncode == 0
    file.write_bytes(b"other")
    assert verify(work / "ours.pub").returncode != 0


def main():
    fuotad = str(pathlib.Path(sys.argv[1]).resolve())
    site = Site(fuotad)
    made = site.path / "made"
    output(sys.executable, MAKER, made)
    passed = failed = 0
    cases = [(name, lambda n=name, e=expect: taken(site, made, n, e)) for name, expect in CASES]
    cases += [(name, lambda n=name, s=says: refused(site, made, n, s)) for name, says in REFUSED.items()]
    cases.append(("minisign", lambda: signatures(fuotad, made)))
    for name, case in cases:
        try:
            case()
            passed += 1
            print(f"ok      formats {name}")
        except Exception:
            failed += 1
            print(f"FAILED  formats {name}\n{traceback.format_exc()}")
    site.close()
    print(f"{passed} passed, {failed} failed")


main()
