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

three_jobs() {
    local name='three jobs' metrics="$WORK/runs/three jobs/output/metrics.json"
    run_job "$name" "$PHASE/input" --volume "$PHASE/ground_truth:$TRUTH_MOUNT:ro" --
    check_success "$name"
    check "$name: metrics.json alone" is "$(find "$WORK/runs/$name/output" -mindepth 1)" "$metrics"
    check "$name: readable by every user" is "$(find "$metrics" ! -perm -444)" ''

    "$PYTHON" -m evaluation score --prediction "$PHASE/masks" --truth "$PHASE/ground_truth" \
        --json "$WORK/scored.json" > "$WORK/scored.txt"
    check "$name: the metrics of evaluation score" diff "$metrics" "$WORK/scored.json"
    check "$name: its table" diff "$WORK/runs/$name/stdout" "$WORK/scored.txt"

    # What they must be, told without the evaluation.
    check "$name: perfect" is "$(dice_of fdg_perfect "$metrics")" 'Dice 1.0000'
    check "$name: shifted" is "$(dice_of fdg_shifted "$metrics")" \
        "$("$PYTHON" test/support/compare_masks.py dice "$PHASE/masks/fdg_shifted.mha" "$TRUTH")"
    check "$name: empty" is "$(dice_of psma_empty "$metrics")" 'Dice 0.0000'
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

check_image 'algorithm evaluation requirements.txt'
three_jobs
without_truth

[ "$failed" -eq 0 ]
