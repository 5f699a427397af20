#!/usr/bin/env bash
# Build the container image.
#
#   ./build.sh         h2aseg:<version>, the algorithm with its weights
#   ./build.sh eval    h2aseg-eval:<version>, the evaluation
#
# In the environment, BASE_IMAGE replaces the base image that the Dockerfile names, API_METHOD=exec labels the image for a
# run per case in place of the invoke API, and EDITION=V (or I to IV) fixes the AutoPET edition whose sockets it writes, or
# by whose rules it scores.
set -Eeuo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/common.sh
. "$ROOT/scripts/common.sh"

api_method=${API_METHOD:-invoke}
case "$api_method" in
    invoke | exec) ;;
    *) fail "API_METHOD must be invoke or exec, got '$api_method'" 2 ;;
esac
case "${EDITION:-}" in
    '' | I | II | III | IV | V) ;;
    *) fail "EDITION must be I, II, III, IV or V, got '$EDITION'" 2 ;;
esac
version=$(version)
revision=$(git -C "$ROOT" describe --always --dirty 2> /dev/null || echo unknown)
arguments=(
    --platform linux/amd64            # the only one that grand-challenge takes
    --build-arg "VERSION=$version"    # these end in the image's labels
    --build-arg "REVISION=$revision"
    --build-arg "API_METHOD=$api_method"
    --build-arg "EDITION=${EDITION:-}"
)

case "$#:${1:-}" in
    0:)
        check_weights
        weights=$(weights_of "$WEIGHTS_JSON")
        others=$(find "$ROOT/weights" -maxdepth 1 -name '*.safetensors' ! -name "${weights##*/}" -exec basename {} ';')
        [ -z "$others" ] || fail "weights/ holds ${others//$'\n'/, } beside ${weights##*/}, and the image would average \
them; move all but one elsewhere, or upload an ensemble by \`./export.sh model CHECKPOINT.json...\`."
        image=h2aseg:$version
        arguments+=(--file "$ROOT/Dockerfile" --build-arg "WEIGHTS_SHA256=$(sha256_of "$weights")")
        ;;
    1:eval)
        image=h2aseg-eval:$version
        arguments+=(--file "$ROOT/Dockerfile.eval")
        ;;
    *) fail "usage: build.sh [eval]" 2 ;;
esac

if [ -n "${BASE_IMAGE:-}" ]; then
    arguments+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
fi
# buildx adds a provenance attestation unless told not to, and grand-challenge has failed to import images with one.
# Older engines neither add it nor know the flag.
case $(docker build --help 2> /dev/null) in # no pipe to grep -q, whose leaving early would count as a failure
    *--provenance*) arguments+=(--provenance=false) ;;
esac

docker build "${arguments[@]}" --tag "$image" "$ROOT"
echo "Built $image"
