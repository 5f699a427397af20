#!/usr/bin/env bash
# Segment tumours in a PET/CT pair on this machine, without a container.
#
#   ./run.sh                       the example in test/input; the mask goes to output/
#   ./run.sh CT PET OUT_FOLDER     your files (.mha, .mhd, .nii, .nii.gz, .nrrd; PET in SUV)
#
# The first run installs what is needed into .venv, inside this folder. Options are environment variables, e.g.
# H2ASEG_DEVICE=cpu ./run.sh; `.venv/bin/python -m algorithm run --help` lists them.
set -Eeuo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/common.sh
. "$ROOT/scripts/common.sh"

case $# in
    0)
        ensure_environment requirements.txt
        cd "$ROOT"
        rm -rf output
        mkdir output
        exec "$PYTHON" -m algorithm run --input test/input --output output
        ;;
    3)
        ensure_environment requirements.txt
        cd "$ROOT"
        exec "$PYTHON" -m algorithm predict "$(from_caller "$1")" "$(from_caller "$2")" "$(from_caller "$3")"
        ;;
    *) fail "usage: run.sh, or run.sh CT PET OUT_FOLDER" 2 ;;
esac
