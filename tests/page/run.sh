#!/usr/bin/env bash
# The page in Debian's Chromium against the real daemon with simulated devices.
# Usage: tests/page/run.sh [FUOTAD]; without a binary, the debug build is made and used.
# What it needs from npm goes into target/page; programs that are missing are installed with
# apt-get where that is allowed. `PAGE_ONLY=PATTERN` runs the tests of that name.
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
  echo "tests/page needs $1: install the Debian package $2, or run this as root where apt-get works" >&2
  echo 'page: 0 passed, 1 failed'
  exit 1
}
need node nodejs
need npm npm
need chromium chromium

target=$(realpath --no-symlinks "${CARGO_TARGET_DIR:-target}")
fuotad=${1:-}
if [ -z "$fuotad" ]; then
  cargo build --package fuotad
  fuotad=$target/debug/fuotad
fi
FUOTAD=$(realpath "$fuotad")
export FUOTAD CHROMIUM=${CHROMIUM:-$(command -v chromium)}

# The page itself: what is checked in is what its sources make.
ui=$target/page/ui
rm -rf "$ui/src" "$ui/dist"
mkdir -p "$ui" "$target/page/tests"
cp -r crates/admin/ui/{src,dist,build.mjs,tsconfig.json,package.json,package-lock.json,.npmrc} "$ui"
npm ci --prefix "$ui" --silent --no-audit --no-fund
(cd "$ui" && npm run --silent check)

rm -f "$target/page/tests/"*.mjs
cp tests/page/{*.mjs,*.json,.npmrc} "$target/page/tests"
npm ci --prefix "$target/page/tests" --silent --no-audit --no-fund
cd "$target/page/tests"
output=$(node --test --test-reporter=spec --test-concurrency=1 ${PAGE_ONLY:+--test-name-pattern="$PAGE_ONLY"} ./*.test.mjs 2>&1 | tee >(cat >&2)) || true
number() { sed -n "s/^ℹ $1 //p" <<<"$output" | tail -n 1; }
passed=$(number pass) failed=$(number fail)
echo "page: ${passed:-0} passed, ${failed:-1} failed"
[ "${failed:-1}" -eq 0 ]
