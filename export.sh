#!/usr/bin/env bash
# Pack what is uploaded to grand-challenge, into the project's folder.
#
#   ./export.sh          h2aseg-<version>.tar.gz: the algorithm's image
#   ./export.sh eval     h2aseg-eval-<version>.tar.gz: the evaluation's image
#   ./export.sh model    model.tar.gz: the weights alone; grand-challenge unpacks it at /opt/ml/model, where they
#                        come before those in the image
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
    *) fail "usage: export.sh [eval | model]" 2 ;;
esac
