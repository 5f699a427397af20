#!/usr/bin/env bash
# Build the image and run it as grand-challenge would, only stricter: every edition's input layout, a user's mistake,
# and a real patient. Each mask must be, voxel for voxel, the one that the command line makes on this machine.
#
# Needs a Docker engine. BASE_IMAGE names another base image (see Dockerfile). The real patient is taken from
# H2ASEG_DATA, or from ../shared/data, and left out where neither is there.
set -Eeuo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/common.sh
. "$ROOT/scripts/common.sh"
cd "$ROOT"

WORK=$ROOT/test/output/container
IMAGE=h2aseg:$(version)
DATA=${H2ASEG_DATA:-$ROOT/../shared/data}
# shellcheck source=test/container_common.sh
. "$ROOT/test/container_common.sh"
# shellcheck source=test/invoke.sh
. "$ROOT/test/invoke.sh"

# The same on both sides, so that the masks can be the same: the fallback of a GPU-less machine, and a fixed number
# of flips, as the default depends on the time that is left.
SETTINGS=(--device cpu --precision float32 --flips 1)

command_line() { # command_line NAME INPUT [OPTION...]: the same job without the container; later options win
    local input=$2 run=$WORK/runs/$1
    shift 2
    mkdir -p "$run"
    "$PYTHON" -m algorithm run --input "$input" --output "$run/output" "${SETTINGS[@]}" "$@" > "$run/stdout"
}

only_file() { # only_file FOLDER: prints the path of the one file below it
    local files
    files=$(find "$1" -type f)
    if [ -z "$files" ] || [ "$(wc -l <<< "$files")" -ne 1 ]; then
        echo "expected one file below $1, found: ${files:-none}" >&2
        return 1
    fi
    echo "$files"
}

# check_mask NAME INPUT SOCKET REFERENCE: the one image is named after the CT, lies in the socket's folder, on the PET's
# grid, can be read by every user, and equals the reference.
check_mask() {
    local name=$1 input=$2 socket=$3 reference=$4 output=$WORK/runs/$1/output ct pet mask
    ct=$(only_file "$input/images/ct")
    pet=$(only_file "$input/images/pet")
    mask=$output/images/$socket/${ct##*/}
    check "$name: one image, where this edition wants it" is "$(only_file "$output/images" 2>&1)" "$mask"
    check "$name: the PET's geometry" "$PYTHON" test/support/compare_masks.py geometry "$mask" "$pet"
    check "$name: the command line's mask" "$PYTHON" test/support/compare_masks.py identical "$mask" "$reference"
    check "$name: readable by every user" is "$(find "$output" -type f ! -perm -444)" ''
}

check_layout() { # check_layout NAME INPUT SOCKET [OPTION...]
    local name=$1 input=$2 socket=$3
    shift 3
    run_job "$name" "$input" -- "${SETTINGS[@]}" "$@"
    check_success "$name"
    check_mask "$name" "$input" "$socket" "$REFERENCE"
}

prepare_inputs() { # the synthetic torso in each layout, below WORK/inputs
    local inputs=$WORK/inputs layout ct pet
    mkdir -p "$inputs"
    for layout in images clicks sockets empty; do
        mkdir "$inputs/$layout"
    done
    for layout in images clicks sockets; do
        cp -R test/input/images "$inputs/$layout/"
    done
    echo '{"version": {"major": 1, "minor": 0}, "type": "Multiple points", "points": []}' \
        > "$inputs/clicks/lesion-clicks.json"
    ct=$(only_file test/input/images/ct)
    pet=$(only_file test/input/images/pet)
    cat > "$inputs/sockets/inputs.json" << JSON
[
    {"interface": {"slug": "ct-image", "relative_path": "images/ct", "super_kind": "Image"}, "image": {"name": "${ct##*/}"}},
    {"interface": {"slug": "pet-image", "relative_path": "images/pet", "super_kind": "Image"}, "image": {"name": "${pet##*/}"}}
]
JSON
    chmod -R a+rX "$inputs"
}

layouts() {
    local old=automated-petct-lesion-segmentation new=tumor-lesion-segmentation edition run
    for edition in I II III; do
        check_layout "edition $edition" "$WORK/inputs/images" "$old" --edition "$edition"
        run=$WORK/runs/"edition $edition"/output/data-centric-model.json
        if [ "$edition" = III ]; then
            check 'edition III: data-centric-model.json' grep -Exq 'true|false' "$run"
        else
            check "edition $edition: no data-centric-model.json" test ! -e "$run"
        fi
    done
    check_layout 'images only' "$WORK/inputs/images" "$old"
    check_layout 'images and clicks' "$WORK/inputs/clicks" "$new"
    for edition in IV V; do
        check_layout "edition $edition" "$WORK/inputs/clicks" "$new" --edition "$edition"
    done
    check_layout 'inputs.json' "$WORK/inputs/sockets" "$old"
}

without_images() { # a user's mistake: one sentence, exit code 2, no half result
    local run=$WORK/runs/nothing
    run_job nothing "$WORK/inputs/empty" -- run
    check 'no images: exit code 2' is "$(cat "$run/exit")" 2
    check 'no images: the sentence' is "$(cat "$run/stderr")" \
        'Error: no CT image found in /input/images/ct (looked for .mha, .mhd, .tif); put exactly one there'
    check 'no images: nothing in /output' is "$(find "$run/output" -mindepth 1)" ''
}

check_invoked() { # check_invoked NAME: the mask of the job that the server just did
    check_mask invoke "$RUN/input" automated-petct-lesion-segmentation "$REFERENCE"
}

invoke() { # one server, three jobs, one of them bad
    start_server invoke --env GRAND_CHALLENGE_COMPONENT_API_METHOD=invoke -- "${SETTINGS[@]}" --tune-s 0
    three_invocations "$WORK/inputs/images" "$WORK/inputs/empty" \
        'no CT image found in /input/images/ct (looked for .mha, .mhd, .tif); put exactly one there' check_invoked
    stop_server
    check 'invoke: stderr has the sentence alone' is "$(cat "$RUN/stderr")" \
        'Error: no CT image found in /input/images/ct (looked for .mha, .mhd, .tif); put exactly one there'
}

on_gpu() { # where there is one that containers can use
    if ! nvidia-smi > /dev/null 2>&1 || [[ $(docker info --format '{{json .Runtimes}}') != *nvidia* ]]; then
        echo 'skipped GPU: no NVIDIA driver, or no NVIDIA runtime in the Docker engine'
        return
    fi
    run_job gpu "$WORK/inputs/images" --gpus all -- --device cuda --flips 1
    check_success gpu
    check 'gpu: close to the CPU' "$PYTHON" test/support/compare_masks.py dice \
        "$(only_file "$WORK/runs/gpu/output/images")" "$REFERENCE" 0.98
}

to_mha() { # to_mha IMAGE TARGET: voxels and geometry; .mha takes none of NIfTI's other header entries
    "$PYTHON" - "$1" "$2" << 'PY'
import sys
import SimpleITK as sitk

image = sitk.ReadImage(sys.argv[1])
plain = sitk.GetImageFromArray(sitk.GetArrayViewFromImage(image))
plain.CopyInformation(image)
sitk.WriteImage(plain, sys.argv[2])
PY
}

real_patient() {
    local patient=$DATA/sts/STS_002/pet-ct input=$WORK/inputs/patient mask
    if [ ! -d "$patient" ]; then
        echo "skipped real patient: no $patient (H2ASEG_DATA names the folder)"
        return
    fi
    mkdir -p "$input/images/ct" "$input/images/pet"
    to_mha "$patient/CTres.nii.gz" "$input/images/ct/STS_002.mha"
    to_mha "$patient/SUV.nii.gz" "$input/images/pet/STS_002.mha"
    chmod -R a+rX "$input"
    command_line 'patient, command line' "$input"
    run_job 'STS_002' "$input" -- "${SETTINGS[@]}"
    check_success 'STS_002'
    mask=$(only_file "$WORK/runs/patient, command line/output/images")
    check_mask 'STS_002' "$input" automated-petct-lesion-segmentation "$mask"
    check 'STS_002: against the expert' "$PYTHON" test/support/compare_masks.py dice "$mask" "$patient/SEG.nii.gz"
}

ensure_environment requirements-dev.txt
remove_work
trap finish EXIT
./build.sh
prepare_inputs
check_image 'algorithm requirements.lock requirements.txt weights'
check 'image: the API' is "$(label org.grand-challenge.api-method)" invoke
check "image: the weights' sha256" is "$(label h2aseg.weights.sha256)" "$(sha256_of "$(weights_of "$WEIGHTS_JSON")")"

command_line 'command line' "$WORK/inputs/images"
REFERENCE=$(only_file "$WORK/runs/command line/output/images")
command_line 'all flips' "$WORK/inputs/images" --flips 8
check 'command line: the expected mask' "$PYTHON" test/support/compare_masks.py dice \
    "$(only_file "$WORK/runs/all flips/output/images")" "$(find test/expected_output -name '*.mha')" 0.98

layouts
without_images
invoke
on_gpu
real_patient

[ "$failed" -eq 0 ]
