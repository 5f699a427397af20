#!/usr/bin/env bash
# Lock what the images install: requirements.lock and requirements-eval.lock, made from the .txt of the same name, with
# every dependency and the hashes of its files.
#
#   scripts/lock.sh              both
#   scripts/lock.sh FILE.txt...  these
#
# torch and what it needs are left out: the base image has them, with the CUDA that belongs to them. Run it after a
# change of a requirements file; a test compares the two.
set -Eeuo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/common.sh
. "$ROOT/scripts/common.sh"

[ $# -gt 0 ] || set -- requirements.txt requirements-eval.txt
cd "$ROOT"
for file in "$@"; do
    [ -f "$file" ] || fail "there is no $file in $ROOT; name a requirements file." 2
done
ensure_environment requirements-dev.txt

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A marker that holds nowhere takes a package out of the resolution, and with it what it alone needs.
echo "torch ; sys_platform == 'none'" > "$work/without.txt"
for file in "$@"; do
    # For the oldest Python that the project supports; the hashes are those of all of a release's files.
    # The old lock is given, so that what nobody changed keeps its version.
    lock=${file%.txt}.lock
    [ ! -f "$lock" ] || cp "$lock" "$work/lock"
    "$VENV/bin/uv" pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links \
        --python-version 3.11 --python-platform x86_64-unknown-linux-gnu --override "$work/without.txt" \
        --custom-compile-command scripts/lock.sh --output-file "$work/lock" "$file"
    chmod 0644 "$work/lock"
    mv "$work/lock" "$lock"
    echo "Wrote $lock"
done
