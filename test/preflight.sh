#!/usr/bin/env bash
# `python -m algorithm preflight IMAGE` passes the project's image, and fails each deliberately broken one for its reason.
# The broken ones are made from the image by a few lines each. What needs no engine is in test/algorithm/preflight.
#
# Needs a Docker engine. BASE_IMAGE names another base image (see Dockerfile).
set -Eeuo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/common.sh
. "$ROOT/scripts/common.sh"
cd "$ROOT"

WORK=$ROOT/test/output/preflight
IMAGE=h2aseg:$(version)
# shellcheck source=test/container_common.sh
. "$ROOT/test/container_common.sh"

verdicts=()

make() { # make NAME < LINES: an image of these lines on top of the good one
    mkdir -p "$WORK/context"
    cp test/support/broken_job.py "$WORK/context/"
    { echo "FROM h2aseg-preflight:good"; cat; } > "$WORK/context/Dockerfile"
    docker build --network none --quiet --tag "h2aseg-preflight:$1" "$WORK/context" > "$WORK/build.log" 2>&1 ||
        { cat "$WORK/build.log"; return 1; }
}

preflight() { # preflight NAME [OPTION...]: leaves WORK/NAME.{stdout,stderr} and sets rc
    local name=$1
    shift
    rc=0
    "$PYTHON" -m algorithm preflight "h2aseg-preflight:$name" --input test/input "$@" \
        > "$WORK/$name.stdout" 2> "$WORK/$name.stderr" || rc=$?
}

passes() { # passes NAME
    preflight "$1"
    cat "$WORK/$1.stdout"
    check "$1: exit code 0" is "$rc" 0
    check "$1: nothing on stderr" is "$(cat "$WORK/$1.stderr")" ''
    check "$1: no check failed" is "$(grep -c FAILED "$WORK/$1.stdout")" 0
    check "$1: every check was carried out" is "$(grep -c ' skipped ' "$WORK/$1.stdout")" 0
    verdicts+=("$(printf '%-12s %s' "$1" passed)")
}

fails() { # fails NAME REASON [OPTION...] < LINES: exit code 1, and the one sentence on stderr holds the reason
    local name=$1 reason=$2 said
    shift 2
    make "$name"
    preflight "$name" "$@"
    docker image rm --force "h2aseg-preflight:$name" > /dev/null
    said=$(cat "$WORK/$name.stderr")
    check "$name: exit code 1" is "$rc" 1
    check "$name: one sentence" is "$(wc -l <<< "$said" | xargs)" 1
    check "$name: its reason" grep -qF -- "$reason" <<< "$said"
    verdicts+=("$(printf '%-12s %s' "$name" "$said")")
}

good_ones() {
    # One pass is enough to see that a job is done.
    mkdir -p "$WORK/context"
    printf 'FROM %s\nENV H2ASEG_FLIPS=1\n' "$IMAGE" > "$WORK/context/Dockerfile"
    docker build --network none --quiet --tag h2aseg-preflight:good "$WORK/context" > "$WORK/build.log" 2>&1
    passes good
    make good-exec <<< 'LABEL org.grand-challenge.api-method=exec'
    passes good-exec
}

broken_as_built() { # seen without running it
    fails root 'user: it runs as root' <<< 'USER root'
    fails untrained 'weights trained: h2aseg holds random numbers' << 'LINES'
RUN python -c "from pathlib import Path; from algorithm.weights import *; c = load_checkpoint(Path('weights/h2aseg.json')); save_checkpoint(Path('weights'), 'h2aseg', H2ASeg(c.description.architecture).state_dict(), c.description)"
LABEL h2aseg.weights.sha256=unknown
LINES
}

broken_when_run() {
    fails not-serving 'its label says invoke, but nothing went on answering at port 4743' \
        <<< 'ENTRYPOINT ["sh", "-c", "true"]'
    fails network 'Temporary failure in name resolution' << 'LINES'
RUN printf 'import urllib.request\nurllib.request.urlopen("https://example.org/weights")\n' > /home/h2aseg/download.py
ENTRYPOINT ["sh", "-c", "python /home/h2aseg/download.py && exec python -m algorithm"]
LINES
    fails writes "Read-only file system" \
        <<< 'ENTRYPOINT ["sh", "-c", "touch /home/h2aseg/cache && exec python -m algorithm"]'
    fails slow 'it still ran after 5 s, the limit for a job' --time-limit 5 \
        <<< $'LABEL org.grand-challenge.api-method=exec\nENTRYPOINT ["sleep", "60"]'
    fails greedy 'it was killed for using more than 0.8 GiB of memory' --memory-limit 1 << 'LINES'
LABEL org.grand-challenge.api-method=exec
ENTRYPOINT ["python", "-c", "print(len(bytearray(b'1') * 2**31))"]
LINES
}

broken_results() {
    local fault reason
    while IFS='|' read -r fault reason; do
        fails "$fault" "$reason" << LINES
COPY --chown=10001:10001 broken_job.py /opt/h2aseg/
LABEL org.grand-challenge.api-method=exec
ENTRYPOINT ["python", "broken_job.py", "$fault"]
LINES
    done << 'FAULTS'
geometry|mask: the mask must have the PET's geometry
labels|mask: a mask holds 0 and 1 only, got 255
two|must hold exactly one image, got first.mha, second.mha
FAULTS
}

ensure_environment requirements-dev.txt
remove_work
mkdir -p "$WORK"
trap finish EXIT
./build.sh > "$WORK/build.log" 2>&1 || fail "the image could not be built: $(tail -n 1 "$WORK/build.log")" 1
good_ones
broken_as_built
broken_when_run
broken_results

printf '\n== verdicts\n'
printf '%s\n' "${verdicts[@]}"
docker image rm --force h2aseg-preflight:good h2aseg-preflight:good-exec > /dev/null
[ "$failed" -eq 0 ]
