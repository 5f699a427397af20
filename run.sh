#!/usr/bin/env bash
# Segment tumours in PET/CT on this machine, without a container.
#
#   ./run.sh                                    the example in test/input; the mask goes to output/
#   ./run.sh STUDY_FOLDER OUT_FOLDER            a study's DICOM files
#   ./run.sh CT PET OUT_FOLDER                  files (.mha, .mhd, .nii, .nii.gz, .nrrd; PET in SUV) or DICOM folders
#   ./run.sh --cases LIST_OR_TREE OUT_FOLDER    many studies
#
# The first run installs what is needed into .venv, inside this folder. Options are environment variables, e.g.
# H2ASEG_DEVICE=cpu ./run.sh; `.venv/bin/python -m algorithm predict --help` lists them. Paths are the caller's.
set -Eeuo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/common.sh
. "$ROOT/scripts/common.sh"

options_from_caller() { # options that are paths, too, are meant from the caller's folder
    local name
    for name in H2ASEG_WEIGHTS H2ASEG_REPORT H2ASEG_PICTURE H2ASEG_TUNING H2ASEG_CACHE H2ASEG_CASES; do
        if [ -n "${!name:-}" ]; then export "$name=$(from_caller "${!name}")"; fi
    done
}

predict() { # predict REQUIREMENTS [OPTION...] PATH...: paths as the caller means them
    local requirements=$1 words=() word
    shift
    for word in "$@"; do
        case "$word" in
            --*) words+=("$word") ;;
            *) words+=("$(from_caller "$word")") ;;
        esac
    done
    ensure_environment "$requirements"
    options_from_caller
    cd "$ROOT"
    exec "$PYTHON" -m algorithm predict "${words[@]}"
}

case $#:${1:-} in
    0:)
        ensure_environment requirements.txt
        options_from_caller
        cd "$ROOT"
        exec "$PYTHON" -m algorithm run --input test/input --output output
        ;;
    3:--cases | 2:[!-]*) predict requirements-clinic.txt "$@" ;;
    3:[!-]*)
        # Of two image files comes no DICOM SEG, and so nothing beyond what the container has is needed.
        if [ -d "$(from_caller "$1")" ] || [ -d "$(from_caller "$2")" ]; then
            predict requirements-clinic.txt "$@"
        fi
        predict requirements.txt "$@"
        ;;
    *) fail "usage: run.sh, run.sh STUDY_FOLDER OUT_FOLDER, run.sh CT PET OUT_FOLDER, or run.sh --cases LIST_OR_TREE OUT_FOLDER; options are variables, such as H2ASEG_FLIPS=1 before it" 2 ;;
esac
