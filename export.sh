#!/usr/bin/env bash
# Pack what is uploaded to grand-challenge, or handed to a third party, into the project's folder.
#
#   ./export.sh          h2aseg-<version>.tar.gz: the algorithm's image
#   ./export.sh eval     h2aseg-eval-<version>.tar.gz: the evaluation's image
#   ./export.sh model    model.tar.gz: the weights alone; grand-challenge unpacks it at /opt/ml/model, where they
#                        come before those in the image
#   ./export.sh handover [INPUT [OUT_FOLDER]]
#                        h2aseg-<version>-handover: masks, metrics, weights, hashes and all else that it takes to
#                        repeat the inference and check it. INPUT is a case list (CSV), a folder of AutoPET studies
#                        or of grand-challenge jobs; without it, the example in test/.
#
# `.venv/bin/python -m evaluation handover --help` lists further options of the last.
set -Eeuo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/common.sh
. "$ROOT/scripts/common.sh"

partial=''
trap '[ -z "$partial" ] || rm -f "$partial"' EXIT

compress() { # -n: no time stamp, so that the same content gives the same file
    if command -v pigz > /dev/null; then pigz -nc; else gzip -nc; fi
}

pack() { # pack ARCHIVE COMMAND...: the command's output, compressed; the archive appears whole or not at all
    local archive=$ROOT/$1
    shift
    partial=$archive.partial
    "$@" | compress > "$partial"
    mv "$partial" "$archive"
    partial=''
    echo "Wrote $archive ($(du -h "$archive" | cut -f 1))"
}

hand_over() { # hand_over INPUT OUT_FOLDER
    local input=$1 out=$2 inputs=$1 image=()
    [ -d "$input" ] || inputs=$(dirname "$input")
    check_weights
    ensure_environment requirements.txt
    if engine_answers; then
        "$ROOT/build.sh"
        image=(--image "h2aseg:$version")
    else
        echo "No Docker engine answers, so the bundle will not name the image."
    fi
    cd "$ROOT"
    "$PYTHON" -m evaluation handover --cases "$input" --out "$out" ${image[@]+"${image[@]}"}
    echo "To repeat and check it: python -m evaluation verify $out --input $inputs"
}

version=$(version)
case "$#:${1:-}" in
    0:)
        "$ROOT/build.sh"
        pack "h2aseg-$version.tar.gz" docker save "h2aseg:$version"
        ;;
    1:eval)
        "$ROOT/build.sh" eval
        pack "h2aseg-eval-$version.tar.gz" docker save "h2aseg-eval:$version"
        ;;
    1:model)
        check_weights
        # --mode: the container's user is not the one who unpacks, and must be able to read.
        # --mtime, --owner, --group: nothing of this machine, so that the same weights give the same archive.
        pack model.tar.gz tar --create --directory "$ROOT/weights" \
            --mode a=r,u+w --mtime @0 --owner 0 --group 0 --numeric-owner \
            "${WEIGHTS_JSON##*/}" "${WEIGHTS##*/}"
        ;;
    [123]:handover)
        hand_over "$(from_caller "${2:-$ROOT/test/cases.csv}")" \
            "$(from_caller "${3:-$ROOT/h2aseg-$version-handover}")"
        ;;
    *) fail "usage: export.sh, export.sh eval, export.sh model, or export.sh handover [INPUT [OUT_FOLDER]]" 2 ;;
esac
