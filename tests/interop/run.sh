#!/usr/bin/env bash
# The reference's devices on foreign client libraries, against the real daemon.
# Usage: tests/interop/run.sh [FUOTAD]; without a binary, the debug build is made and used.
# Needs python3 with venv, and PyPI for the first run.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
fuotad=${1:-}
if [ -z "$fuotad" ]; then
  cargo build --package fuotad
  fuotad=$target/debug/fuotad
fi

export PYTHONDONTWRITEBYTECODE=1
passed=0 failed=0
# The line that devices in the field run, and the newest; a change of either name makes a new venv.
for requirement in 'paho-mqtt==1.6.1' 'paho-mqtt>=2'; do
  venv=$target/interop/${requirement//[^a-z0-9.-]/_}
  if ! [ -e "$venv/complete" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$requirement"
    touch "$venv/complete"
  fi
  # The exit code is in the closing line too; the other library is tried in any case.
  output=$("$venv/bin/python" tests/interop/check.py "$fuotad" 2>&1 | tee >(cat >&2)) || true
  if [[ $(tail -n 1 <<<"$output") =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
    passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
  else
    failed=$((failed + 1))
  fi
done
echo "interop: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
