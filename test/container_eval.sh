#!/usr/bin/env bash
# Build the evaluation image and run it as grand-challenge would, only stricter, on three jobs: a perfect mask, a
# shifted one and an empty one. The metrics must be, to the last digit, those of `python -m evaluation score`.
#
# Needs a Docker engine, but no weights. BASE_IMAGE names another base image (see Dockerfile.eval).
set -Eeuo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/common.sh
. "$ROOT/scripts/common.sh"
cd "$ROOT"

WORK=$ROOT/test/output/container_eval
IMAGE=h2aseg-eval:$(version)
# shellcheck source=test/container_common.sh
. "$ROOT/test/container_common.sh"
# shellcheck source=test/invoke.sh
. "$ROOT/test/invoke.sh"

TRUTH=test/input_truth/synthetic_torso.mha
PHASE=$WORK/phase
TRUTH_MOUNT=/opt/ml/input/data/ground_truth # where grand-challenge unpacks the ground truth's tarball

dice_of() { # dice_of CASE METRICS: prints the Dice of a case, as compare_masks.py prints it
    "$PYTHON" - "$@" << 'PY'
import json
import sys
from pathlib import Path

results = json.loads(Path(sys.argv[2]).read_text())["results"]
print(*(f"Dice {result['dice']:.4f}" for result in results if result["case"] == sys.argv[1]))
PY
}

same_metrics() { # same_metrics METRICS: those of `evaluation score`, but for what only the platform knows
    "$PYTHON" - "$1" "$WORK/scored.json" << 'PY'
import json
import sys
from pathlib import Path

container, scored = (json.loads(Path(path).read_text()) for path in sys.argv[1:])
container.pop("jobs")
assert container.pop("cross_check")["cases"] == 3
sys.exit(container != scored)
PY
}

three_jobs() {
    local name='three jobs' metrics="$WORK/runs/three jobs/output/metrics.json"
    run_job "$name" "$PHASE/input" --volume "$PHASE/ground_truth:$TRUTH_MOUNT:ro" --
    check_success "$name"
    check "$name: metrics.json alone" is "$(find "$WORK/runs/$name/output" -mindepth 1)" "$metrics"
    check "$name: readable by every user" is "$(find "$metrics" ! -perm -444)" ''

    "$PYTHON" -m evaluation score --prediction "$PHASE/masks" --truth "$PHASE/ground_truth" \
        --json "$WORK/scored.json" > "$WORK/scored.txt"
    check "$name: the metrics of evaluation score" same_metrics "$metrics"
    check "$name: its table" diff <(grep -v '^Run time' "$WORK/runs/$name/stdout") "$WORK/scored.txt"
    check "$name: the run time" grep -Fxq 'Run time of 3 jobs: mean 20.0 s, most 30.0 s; 0 over the limit of 300 s' \
        "$WORK/runs/$name/stdout"

    # What they must be, told without the evaluation.
    check "$name: perfect" is "$(dice_of fdg_perfect "$metrics")" 'Dice 1.0000'
    check "$name: shifted" is "$(dice_of fdg_shifted "$metrics")" \
        "$("$PYTHON" test/support/compare_masks.py dice "$PHASE/masks/fdg_shifted.mha" "$TRUTH")"
    check "$name: empty" is "$(dice_of psma_empty "$metrics")" 'Dice 0.0000'
}

check_invoked() { # check_invoked NAME
    check "$1: the metrics of evaluation score" same_metrics "$RUN/output/metrics.json"
}

invoke() {
    mkdir -p "$WORK/nothing"
    start_server invoke --volume "$PHASE/ground_truth:$TRUTH_MOUNT:ro" -- # as the starter kit does: nothing tells it
    three_invocations "$PHASE/input" "$WORK/nothing" \
        'cannot read the list of jobs /input/predictions.json: No such file or directory; put it there, readable' \
        check_invoked
    stop_server
}

without_truth() { # a phase without ground truth: one sentence, exit code 2, no half result
    local run="$WORK/runs/no truth"
    run_job 'no truth' "$PHASE/input" --
    check 'no truth: exit code 2' is "$(cat "$run/exit")" 2
    check 'no truth: the sentence' grep -q "^Error: no truth in $TRUTH_MOUNT " "$run/stderr"
    check 'no truth: one line' is "$(wc -l < "$run/stderr" | xargs)" 1
    check 'no truth: nothing in /output' is "$(find "$run/output" -mindepth 1)" ''
}

ensure_environment requirements-dev.txt
remove_work
trap finish EXIT
./build.sh eval
"$PYTHON" -m test.support.phase "$TRUTH" "$PHASE"
chmod -R a+rX "$PHASE"

check_image 'algorithm evaluation requirements-eval.lock requirements.txt'
check 'image: the API' is "$(label org.grand-challenge.api-method)" invoke
three_jobs
without_truth
invoke

[ "$failed" -eq 0 ]
