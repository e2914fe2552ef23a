#!/usr/bin/env bash
# Foreign client libraries against the real daemon: the reference's devices on paho-mqtt, and what
# other programs of a site do, on paho-mqtt, aiomqtt, gmqtt, MQTT.js and mosquitto's commands, over
# TCP, TLS and WebSocket; devices of other clouds, on tb-mqtt-client, awsiotsdk and rustot, alone and
# all at once; a mosquitto site that moves; bridges of mosquitto; schemathesis on the admin interface; and
# firmware files and signatures of the tools that make them.
# Usage: tests/interop/run.sh [FUOTAD]; without a binary, the debug build is made and used.
# What it needs from PyPI and npm goes into target/interop; programs that are missing are installed
# with apt-get where that is allowed.
set -euo pipefail
cd "$(dirname "$0")/../.."

updated=
# need PROGRAM PACKAGE: installs the Debian package where the program is missing.
need() {
  command -v "$1" >/dev/null && return
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    [ -n "$updated" ] || apt-get update --quiet=2
    updated=yes
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends "$2" || true
  fi
  command -v "$1" >/dev/null && return
  echo "tests/interop needs $1: install the Debian package $2, or run this as root where apt-get works" >&2
  echo 'interop: 0 passed, 1 failed'
  exit 1
}
need python3 python3-venv
need curl curl
need openssl openssl
need node nodejs
need npm npm
need mosquitto_sub mosquitto-clients
need mosquitto mosquitto
need mender-artifact mender-artifact
need rauc rauc
need mksquashfs squashfs-tools
need minisign minisign

target=${CARGO_TARGET_DIR:-target}
fuotad=${1:-}
if [ -z "$fuotad" ]; then
  cargo build --package fuotad
  fuotad=$target/debug/fuotad
fi

export PYTHONDONTWRITEBYTECODE=1
passed=0 failed=0
# Runs a program whose last line is `N passed, N failed`, and adds both up.
count() {
  local output
  # The exit code is in the closing line too; the others are tried in any case.
  output=$("$@" 2>&1 | tee >(cat >&2)) || true
  if [[ $(tail -n 1 <<<"$output") =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
    passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
  else
    failed=$((failed + 1))
  fi
}

# python REQUIREMENT…: a virtual environment with these; other names make another one.
python() {
  local venv=$target/interop/${*//[^a-z0-9.-]/_}
  venv=${venv// /+}
  if ! [ -e "$venv/complete" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$@"
    touch "$venv/complete"
  fi
  echo "$venv/bin/python"
}
# The line that devices in the field run, and the newest.
old=$(python 'paho-mqtt==1.6.1')
new=$(python 'paho-mqtt>=2' aiomqtt gmqtt)
# Pinned: what it generates changes with its version.
openapi=$(python 'paho-mqtt>=2' schemathesis==4.32.5)
formats=$(python 'esptool==5.*' imgtool intelhex bincopy adafruit-nrfutil adafruit-uf2 swugenerator zigpy)
# ThingsBoard's client brings a `paho` of its own, and installs what it misses when it is imported.
thingsboard=$(python tb-mqtt-client==1.13.14 tb-paho-mqtt-client==2.1.2 mmh3 orjson requests)
# A workspace of its own, in a place of its own.
CARGO_TARGET_DIR=$(realpath "$target")/interop/rustot \
  cargo build --quiet --locked --manifest-path tests/interop/rustot/Cargo.toml
rustot=$target/interop/rustot/debug/rustot-device
awsiot=$(python awsiotsdk==1.31.0 cbor2)
if ! [ -d "$target/interop/npm/node_modules/mqtt" ]; then
  npm install --prefix "$target/interop/npm" --silent --no-audit --no-fund mqtt@5
fi
INTEROP_NODE_MODULES=$(realpath "$target/interop/npm/node_modules")
export INTEROP_NODE_MODULES

cd tests/interop
at() { realpath --no-symlinks "$OLDPWD/$1"; }
case $fuotad in /*) ;; *) fuotad=$(at "$fuotad") ;; esac
case $target in
  /*) ;;
  *)
    old=$(at "$old") new=$(at "$new") openapi=$(at "$openapi") formats=$(at "$formats")
    thingsboard=$(at "$thingsboard") awsiot=$(at "$awsiot")
    rustot=$(at "$rustot")
    ;;
esac
for python in "$old" "$new"; do
  count "$python" check.py "$fuotad"
done
count python3 clients.py "$fuotad" 'paho-mqtt 1.6.1' tcp,tls,ws "$old" clients/paho_client.py
count python3 clients.py "$fuotad" 'paho-mqtt' tcp,tls,ws,wss,mtls "$new" clients/paho_client.py
count python3 clients.py "$fuotad" 'aiomqtt' tcp,tls,ws "$new" clients/aiomqtt_client.py
count python3 clients.py "$fuotad" 'gmqtt' tcp,tls "$new" clients/gmqtt_client.py
count python3 clients.py "$fuotad" 'MQTT.js' tcp,tls,ws,wss,mtls node clients/mqttjs.mjs
count python3 clients.py "$fuotad" 'mosquitto' tcp,tls,mtls python3 clients/mosquitto_client.py
count "$new" thingsboard.py "$fuotad" "$thingsboard"
count "$new" native.py "$fuotad"
count python3 awsiot.py "$fuotad" "$awsiot"
count python3 rustot.py "$fuotad" "$rustot"
count "$new" together.py "$fuotad" "$thingsboard" "$rustot"
count "$new" migration.py "$fuotad"
count "$new" bridge.py "$fuotad"
count "$openapi" openapi.py "$fuotad"
count "$formats" formats.py "$fuotad"
echo "interop: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
