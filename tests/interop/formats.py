"""Files that the formats' own tools make now, dropped into the real daemon: it must say of them
what those tools say, and serve what they make. And signatures, both ways, with minisign.

Usage: formats.py FUOTAD, under a python with the packages that
crates/store/tests/fixtures/formats/make.sh names, where Debian's mender-artifact, rauc and minisign
are installed. Prints a line for each file, and at the end `N passed, N failed`.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import traceback
import urllib.request

from daemon import PATIENCE, Site

MAKER = pathlib.Path(__file__).resolve().parents[2] / "crates/store/tests/fixtures/formats/make.py"

# What the tools say is asked where the files are made.
sys.dont_write_bytecode = True
sys.path.insert(0, str(MAKER.parent))
from says import READERS, output  # noqa: E402

REFUSED = {
    "application.elf": "not the .elf", "esp32-bootloader.bin": "boot loader", "esp32-merged.bin": "whole flash",
    "esp32s3-merged.bin": "whole flash", "esp32-merged-table.bin": "whole flash", "page.bin": "web page", "zephyr.bin.gz": "gunzip",
    "dfu_application-two.zip": "2 images", "families.bin": "more than one family",
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
    said = expect(made / name)
    # In a folder of its own, so that equal titles and versions are no conflict; under a name that
    # tells nothing.
    folder = f"devices/{name.replace('_', '-')}"
    (site.path / "firmware" / folder).mkdir(parents=True, exist_ok=True)
    site.drop(f"{folder}/dropped", (made / name).read_bytes())
    row = view(site, f"{folder}/dropped")
    assert row["state"] != "refused", row
    fields = {"format": "format", "chip": "chip", "security_counter": "security_counter", "image": "digest"}
    for key, field in fields.items():
        if key in said:
            assert row[field] == said[key], (field, said, row)
    for field in ("title", "version"):
        decided = row[field] if row[field]["from"] == "image header" else None
        assert (decided or {}).get("value") == said.get(field), (field, said, row)


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
    cases = [(name, lambda n=name, e=expect: taken(site, made, n, e)) for name, expect in READERS.items() if name not in REFUSED]
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
