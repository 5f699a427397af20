#!/usr/bin/env bash
# Faults in a real container: killed at random moments, disk full, no folder for temporary files, a user that nobody
# knows, all under container_common.sh's restrictions (read-only root, 8 GiB, no network).
#
#   test/faults.sh [KILLS]   KILLS (default 5) per way of running, exec and invoke; every second is a SIGTERM
#
# SEED (default 1) decides the moments. A tiny checkpoint with random weights is handed in as the platform hands in a
# model, so that a case takes seconds; what is tested is what is written, not what is found. Needs a Docker engine.
set -Eeuo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/common.sh
. "$ROOT/scripts/common.sh"
cd "$ROOT"

KILLS=${1:-5}
RANDOM=${SEED:-1}
WORK=$ROOT/test/output/faults
IMAGE=h2aseg:$(version)
# shellcheck source=test/container_common.sh
. "$ROOT/test/container_common.sh"
# shellcheck source=test/invoke.sh
. "$ROOT/test/invoke.sh"

SETTINGS=(--device cpu --precision float32 --flips 1)
SOCKET=images/automated-petct-lesion-segmentation

random_below() { # random_below N: a whole number in DRAWN; no subshell, so that the seed decides
    DRAWN=$(((RANDOM * 32768 + RANDOM) % $1))
}

draw_moment() { # draw_moment NUMBER WHOLE: in DRAWN; half of the moments lie in the last fifth, where files are written
    random_below "$2"
    [ $(($1 % 4)) -lt 2 ] || DRAWN=$(($2 * 4 / 5 + DRAWN / 4))
}

milliseconds() { date +%s%3N; }

wait_ms() { sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"; }

allowed() { # allowed OUTPUT SIGNAL: no other file than the results; after SIGKILL also what the next run clears
    local foreign
    foreign=$(find "$1" -type f ! -path "$1/$MASK" ! -path "$1/data-centric-model.json")
    [ "$2" = TERM ] || foreign=$(grep -v "^$1/\.partial-" <<< "$foreign" || true)
    [ -z "$foreign" ] || { echo "foreign: $foreign"; return 1; }
}

whole_or_nothing() { # whole_or_nothing OUTPUT
    [ ! -e "$1/$MASK" ] || "$PYTHON" test/support/compare_masks.py identical "$1/$MASK" "$REFERENCE"
}

start_job() { # start_job OUTPUT: a job in the background, in `container`
    mkdir -p "$1"
    chmod 0777 "$1"
    container=h2aseg-faults-$$
    docker run --detach --name "$container" "${STRICT[@]}" "${MODEL[@]}" \
        --volume "$WORK/inputs/images:/input:ro" --volume "$1:/output" "$IMAGE" "${SETTINGS[@]}" > /dev/null
}

end_container() {
    docker rm --force "$container" > /dev/null 2>&1 || true
    container=''
}

kill_after() { # kill_after MILLISECONDS NUMBER: every second kill is a SIGTERM; says which in SIGNAL
    SIGNAL=KILL
    [ $(($2 % 2)) -eq 0 ] || SIGNAL=TERM
    wait_ms "$1"
    docker kill --signal "$SIGNAL" "$container" > /dev/null 2>&1 || true # it may have ended already
    timeout 20 docker wait "$container" > /dev/null || echo "$container does not end"
}

kill_exec() {
    local began number output whole=0
    began=$(milliseconds)
    start_job "$WORK/runs/timed"
    check 'exec: the run that is timed' is "$(docker wait "$container")" 0
    whole=$(($(milliseconds) - began))
    end_container
    for number in $(seq "$KILLS"); do
        output=$WORK/runs/exec-$number
        start_job "$output"
        draw_moment "$number" "$whole"
        kill_after "$DRAWN" "$number"
        end_container
        check "exec $number: SIG$SIGNAL after $DRAWN ms of $whole, no foreign file" allowed "$output" "$SIGNAL"
        check "exec $number: a whole mask or none" whole_or_nothing "$output"
    done
    start_job "$output" # into the folder of the last that was killed
    check 'exec: the next run' is "$(docker wait "$container")" 0
    end_container
    check 'exec: the next run clears what was left' allowed "$output" TERM
}

kill_invoke() {
    local number whole=0 began asking
    for number in $(seq 0 "$KILLS"); do
        start_server "invoke-$number" --env GRAND_CHALLENGE_COMPONENT_API_METHOD=invoke "${MODEL[@]}" -- "${SETTINGS[@]}" --tune-s 0
        wait_until_healthy || return 1
        place_inputs "$WORK/inputs/images"
        if [ "$number" -eq 0 ]; then
            began=$(milliseconds)
            check 'invoke: the call that is timed' is "$(ask POST /invoke | cut -c 1-3)" 201
            whole=$(($(milliseconds) - began))
            end_container
            continue
        fi
        ask POST /invoke > /dev/null 2>&1 &
        asking=$!
        draw_moment "$number" "$whole"
        kill_after "$DRAWN" "$number"
        wait "$asking" || true
        end_container
        check "invoke $number: SIG$SIGNAL after $DRAWN ms of $whole, no foreign file" allowed "$RUN/output" "$SIGNAL"
        check "invoke $number: a whole mask or none" whole_or_nothing "$RUN/output"
    done
}

surroundings() {
    local user
    random_below 60000
    user=$((DRAWN + 20000))
    run_job 'unknown user' "$WORK/inputs/images" --user "$user:$user" "${MODEL[@]}" -- "${SETTINGS[@]}"
    check_success 'unknown user'
    check "user $user: a whole mask" whole_or_nothing "$WORK/runs/unknown user/output"
    run_job 'no tmp' "$WORK/inputs/images" --env TMPDIR=/nowhere "${MODEL[@]}" -- "${SETTINGS[@]}"
    check_success 'no tmp'
    check 'no tmp: a whole mask' whole_or_nothing "$WORK/runs/no tmp/output"
}

disk_full() { # /output holds one page of memory; run_job's volume would hold the mask
    local run=$WORK/runs/full rc=0
    mkdir -p "$run"
    timeout "$RUN_TIMEOUT" docker run --rm "${STRICT[@]}" "${MODEL[@]}" --volume "$WORK/inputs/images:/input:ro" \
        --mount type=tmpfs,destination=/output,tmpfs-size=4096,tmpfs-mode=1777 \
        "$IMAGE" "${SETTINGS[@]}" > "$run/stdout" 2> "$run/stderr" || rc=$?
    check 'disk full: exit code 2' is "$rc" 2
    check 'disk full: one sentence' is "$(wc -l < "$run/stderr")" 1
    check 'disk full: it says so' grep -Eiq 'space|full|could not be stored' "$run/stderr"
}

ensure_environment requirements-dev.txt
remove_work
trap finish EXIT
./build.sh
mkdir -p "$WORK/inputs" "$WORK/model"
cp -R test/input "$WORK/inputs/images"
"$PYTHON" -c 'import sys; from pathlib import Path; from test.support.checkpoints import write_checkpoint
write_checkpoint(Path(sys.argv[1]))' "$WORK/model"
chmod -R a+rX "$WORK"
MODEL=(--volume "$WORK/model:/opt/ml/model:ro")
MASK=$SOCKET/$(basename "$(find test/input/images/ct -name '*.mha')")

run_job reference "$WORK/inputs/images" "${MODEL[@]}" -- "${SETTINGS[@]}"
check_success reference
REFERENCE=$WORK/runs/reference/output/$MASK

surroundings
disk_full
kill_exec
kill_invoke

[ "$failed" -eq 0 ]
