#!/usr/bin/env bash
# What `docker-compose.yml` starts, without containers: a real Garage, set up by the very scripts of
# `deploy/garage`, the broker with the environment of the compose file, a file that is put into the
# bucket, overwritten and deleted, and a simulated device that fetches it.
# Usage: tests/garage/run.sh [FUOTAD]; without a binary, the debug build is made and used.
# Not a part of `.ci/run`: Garage of the version in the compose file is looked for in the search path
# and else built by cargo into target/garage, which takes a quarter of an hour.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=$(realpath --no-symlinks "${CARGO_TARGET_DIR:-target}")
version=$(sed -n 's/^ *image: .*garage:v//p' docker-compose.yml)
export PATH=$target/garage/bin:$PATH
if ! garage --version 2>/dev/null | grep -qF "$version"; then
  cargo install garage --version "$version" --locked --root "$target/garage"
fi
fuotad=${1:-}
if [ -z "$fuotad" ]; then
  cargo build --package fuotad
  fuotad=$target/debug/fuotad
fi

dir=$(mktemp -d)
garage= broker=
end() {
  for process in $broker $garage; do kill "$process" && wait "$process" || true; done 2>/dev/null
  rm -rf "$dir"
}
trap end EXIT
mkdir -p "$dir"/{bin,secrets,meta,data,broker}
ln -s "$(realpath "$fuotad")" "$dir/bin/fuotad"

# The places of the containers become places in this directory, and names addresses. The rest runs
# as it stands there. Only root can give a file to the broker's user.
ports=$(python3 -c 'import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(socket.getsockname()[1] for socket in held))')
read -r s3 rpc <<<"$ports"
here() {
  sed -e "s#/secrets#$dir/secrets#g" -e "s#/var/lib/garage/#$dir/#g" -e "s#/etc/garage.toml#$dir/garage.toml#g" \
    -e "s#garage:3900#127.0.0.1:$s3#g" -e "s#garage:3901#127.0.0.1:$rpc#g" \
    -e "s#\[::\]:3900#127.0.0.1:$s3#" -e "s#\[::\]:3901#127.0.0.1:$rpc#" \
    -e '/^ *chown /d' "$1" >"$2"
}
for script in make-secrets init-garage put-object; do
  here "deploy/garage/$script" "$dir/bin/$script"
  chmod +x "$dir/bin/$script"
done
here deploy/garage/garage.toml "$dir/garage.toml"
here docker-compose.yml "$dir/compose.yml"
export PATH=$dir/bin:$PATH GARAGE_CONFIG_FILE=$dir/garage.toml

passed=0 failed=0
# check WHAT COMMAND…: one line for each.
check() {
  local what=$1
  shift
  if "$@" >"$dir/said" 2>&1; then
    passed=$((passed + 1)) && echo "garage: $what ... ok"
  else
    failed=$((failed + 1)) && echo "garage: $what ... FAILED" && cat "$dir/said"
  fi
}
# until_true COMMAND…: asks the daemon until it says so, for a minute at most.
until_true() {
  for _ in $(seq 600); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.1
  done
  "$@"
}
# lists TEXT: whether the list of firmware says it; says_no TEXT: whether it does not.
lists() { fuotad firmware list | grep -F -- "$1"; }
says_no() { ! fuotad firmware list | grep -F -- "$1"; }

make-secrets
RUST_LOG=garage=warn garage server >"$dir/garage.log" 2>&1 &
garage=$!
check 'a new node gets its layout, bucket and key' init-garage
check 'a second start changes nothing' init-garage

# The environment of the compose file, on ports that are free.
while IFS='=' read -r name value; do export "$name=$value"; done < <(
  sed -n 's/^ *\(FUOTAD__[A-Z0-9_]*\): *"\{0,1\}\([^"]*\)"\{0,1\}$/\1=\2/p' "$dir/compose.yml"
)
export FUOTAD__MQTT__LISTEN=127.0.0.1:0 FUOTAD__ADMIN__LISTEN=127.0.0.1:0 FUOTAD__STORE__POLL_INTERVAL=1s
cd "$dir/broker"
fuotad serve >"$dir/broker.log" 2>&1 &
broker=$!
until_true grep -q '^ready$' "$dir/broker.log"
FUOTAD__ADMIN__LISTEN=$(sed -n 's#^admin listening on http://##p' "$dir/broker.log")
FUOTAD_BROKER=$(sed -n 's#^mqtt listening on ##p' "$dir/broker.log")
export FUOTAD__ADMIN__LISTEN FUOTAD_BROKER

head -c 3000000 /dev/urandom >"$dir/pump-1.4.2.bin"
put-object "$dir/pump-1.4.2.bin" all/pump-1.4.2.bin
check 'what is put into the bucket is listed' until_true lists "$(sha256sum "$dir/pump-1.4.2.bin" | cut -c 1-12)"
check 'a simulated device fetches it' "$OLDPWD/deploy/simulate-device"
head -c 300000 /dev/urandom >"$dir/pump-1.4.2.bin"
put-object "$dir/pump-1.4.2.bin" all/pump-1.4.2.bin
check 'what is overwritten is taken in anew' until_true lists "$(sha256sum "$dir/pump-1.4.2.bin" | cut -c 1-12)"
check 'the next device fetches that' "$OLDPWD/deploy/simulate-device"
head -c 300000 /dev/urandom >"$dir/lamp-1.0.0.bin"
put-object "$dir/lamp-1.0.0.bin" groups/lamps/lamp-1.0.0.bin
check 'folders are targets' until_true lists lamp-1.0.0.bin
put-object "$dir/lamp-1.0.0.bin" 'groups/lamps/odd name 1+ä&b%20=1.bin'
check 'a key with odd characters is read' until_true lists 'odd name 1+ä&b%20=1.bin'
curl --fail --silent --show-error --request DELETE --header 'x-amz-content-sha256: UNSIGNED-PAYLOAD' --aws-sigv4 aws:amz:garage:s3 \
  --user "$(cat "$dir/secrets/access_key_id"):$(cat "$dir/secrets/secret_access_key")" \
  "http://127.0.0.1:$s3/firmware/groups/lamps/lamp-1.0.0.bin"
check 'what is deleted is gone' until_true says_no lamp-1.0.0.bin

# The server is away: what was copied is served, and what comes afterwards is found.
kill "$garage" && wait "$garage" || true
check 'a device is updated while Garage is away' "$OLDPWD/deploy/simulate-device"
is_told() { fuotad status | grep -F 'store: ' | grep -F 'cannot list'; }
check 'the state is visible' until_true is_told
RUST_LOG=garage=warn garage server >>"$dir/garage.log" 2>&1 &
garage=$!
until_true put-object "$dir/lamp-1.0.0.bin" models/l2/lamp-1.1.0.bin
is_well() { ! fuotad status | grep -F 'store: '; }
check 'its return is seen' until_true is_well
check 'what came after its return is found' until_true lists lamp-1.1.0.bin

echo "garage: $passed passed, $failed failed"
[ "$failed" -eq 0 ] || { tail -20 "$dir/broker.log" "$dir/garage.log"; exit 1; }
