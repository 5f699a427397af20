#!/usr/bin/env bash
# Pack what is uploaded to grand-challenge, or handed to a third party, into the project's folder.
#
#   ./export.sh          h2aseg-<version>.tar.gz: the algorithm's image, and h2aseg-<version>.cdx.json: all packages in it.
#                        It is built anew, as EDITION and API_METHOD say, or else as it was built before (build.sh)
#   ./export.sh eval     h2aseg-eval-<version>.tar.gz: the evaluation's image, and likewise
#   ./export.sh model [CHECKPOINT.json...]
#                        model.tar.gz: weights alone, those in weights/ or the ones named; grand-challenge unpacks it
#                        at /opt/ml/model, where they come before those in the image. Several are averaged
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

keep() { # keep FILE COMMAND...: the command's output in the project's folder, whole or not at all
    local file=$ROOT/$1
    shift
    partial=$file.partial
    "$@" > "$partial"
    mv "$partial" "$file"
    partial=''
    echo "Wrote $file ($(du -h "$file" | cut -f 1))"
}

compressed() { # compressed COMMAND...: the command's output, compressed
    "$@" | compress
}

bill_of_materials() { # bill_of_materials NAME: the packages of NAME:version, told from inside it (CycloneDX)
    docker run --rm --interactive --network none --entrypoint python "$1:$version" - "$1" "$version" \
        < "$ROOT/scripts/sbom.py"
}

pack_image() { # pack_image NAME: NAME:version and what it holds
    keep "$1-$version.tar.gz" compressed docker save "$1:$version"
    keep "$1-$version.cdx.json" bill_of_materials "$1"
}

built_as() { # built_as NAME FORMAT: what NAME:version says of itself; nothing where there is none
    docker image inspect --format "$2" "$1:$version" 2> /dev/null || true
}

build() { # build NAME [eval]: what the environment does not say stays as it was when NAME:version was last built
    local name=$1
    shift
    : "${EDITION=$(built_as "$name" '{{range .Config.Env}}{{println .}}{{end}}' | sed -n 's/^H2ASEG_EDITION=//p')}"
    : "${API_METHOD=$(built_as "$name" '{{index .Config.Labels "org.grand-challenge.api-method"}}')}"
    export EDITION API_METHOD
    "$ROOT/build.sh" "$@"
}

hand_over() { # hand_over INPUT OUT_FOLDER
    local input=$1 out=$2 inputs=$1 image=()
    [ -d "$input" ] || inputs=$(dirname "$input")
    check_weights
    ensure_environment requirements.txt
    if engine_answers; then
        build h2aseg
        image=(--image "h2aseg:$version")
    else
        echo "No Docker engine answers, so the bundle will not name the image."
    fi
    cd "$ROOT"
    "$PYTHON" -m evaluation handover --cases "$input" --out "$out" ${image[@]+"${image[@]}"}
    echo "To repeat and check it: .venv/bin/python -m evaluation verify $out --input $inputs"
}

pack_model() { # pack_model CHECKPOINT.json...: each with the weights that it describes
    local json files=() twice
    twice=$(basename -a "$@" | sort | uniq -d)
    [ -z "$twice" ] || fail "several checkpoints are called $twice; copy them under different names." 2
    for json in "$@"; do
        json=$(from_caller "$json")
        check_weights "$json"
        files+=(--directory "$(dirname "$json")" "$(basename "$json")" "$(basename "$(weights_of "$json")")")
    done
    # --mode: the container's user is not the one who unpacks, and must be able to read.
    # --mtime, --owner, --group: nothing of this machine, so that the same weights give the same archive.
    keep model.tar.gz compressed tar --create --mode a=r,u+w --mtime @0 --owner 0 --group 0 --numeric-owner "${files[@]}"
    echo "It holds $(printf '%s ' "$@")"
}

version=$(version)
case "$#:${1:-}" in
    0:)
        build h2aseg
        pack_image h2aseg
        ;;
    1:eval)
        build h2aseg-eval eval
        pack_image h2aseg-eval
        ;;
    *:model)
        shift
        pack_model "${@:-$WEIGHTS_JSON}"
        ;;
    [123]:handover)
        hand_over "$(from_caller "${2:-$ROOT/test/cases.csv}")" \
            "$(from_caller "${3:-$ROOT/h2aseg-$version-handover}")"
        ;;
    *) fail "usage: export.sh, export.sh eval, export.sh model [CHECKPOINT.json...], or export.sh handover [INPUT [OUT_FOLDER]]" 2 ;;
esac
