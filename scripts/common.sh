# Shared by the project's shell scripts, which source it; it runs nothing by itself.
# It expects ROOT, the project's folder.
# shellcheck shell=bash

WEIGHTS_JSON=$ROOT/weights/h2aseg.json
VENV=$ROOT/.venv
PYTHON=$VENV/bin/python
CALLER=$PWD # the scripts go elsewhere

fail() { # fail SENTENCE [CODE]: ends the script; 2 means a wrong command, 3 a broken installation, as in algorithm/
    echo "Error: $1" >&2
    exit "${2:-3}"
}

from_caller() { # from_caller PATH: prints it as an absolute path, relative ones as the caller meant them
    case "$1" in
        /*) printf '%s\n' "$1" ;;
        *) printf '%s\n' "$CALLER/$1" ;;
    esac
}

engine_answers() { # whether there is a Docker engine
    docker info > /dev/null 2>&1
}

version() { # prints the project's version, as pyproject.toml gives it
    sed -n 's/^version = "\(.*\)"$/\1/p' "$ROOT/pyproject.toml"
}

sha256_of() { # sha256_of FILE: prints its hash (macOS has shasum only)
    if command -v sha256sum > /dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

weights_of() { # weights_of CHECKPOINT.json: prints the file of the weights that it describes
    printf '%s\n' "${1%.json}.safetensors"
}

check_weights() { # check_weights [CHECKPOINT.json]: fails unless it and its weights are there, whole, and fit together
    local json=${1:-$WEIGHTS_JSON} weights file actual
    weights=$(weights_of "$json")
    for file in "$weights" "$json"; do
        [ -s "$file" ] || fail "$file is missing or empty; clone the repository again, or put your checkpoint there."
    done
    if head -c 64 "$weights" | grep -qa '^version https://git-lfs'; then
        fail "$weights is a Git-LFS pointer, not the weights; run \`git lfs pull\`."
    fi
    actual=$(sha256_of "$weights")
    grep -Eq "\"sha256\": *\"$actual\"" "$json" ||
        fail "$weights has sha256 $actual, which is not the one in $json; fetch both files again."
}

find_python() { # prints the command of a Python that the pinned packages support; H2ASEG_PYTHON goes first
    local candidate
    for candidate in ${H2ASEG_PYTHON:+"$H2ASEG_PYTHON"} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer found; install one, or name it with H2ASEG_PYTHON=/path/to/python3."
}

ensure_environment() { # ensure_environment REQUIREMENTS: .venv holds what that file lists; instant if it already does
    local requirements=$ROOT/$1 stamp=$VENV/$1.installed wanted python options=()
    # requirements-dev.txt includes the other two, so the stamp is made from all three.
    wanted=$(cat "$ROOT"/requirements*.txt | sha256_of -)
    if [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ] && "$PYTHON" -c '' 2> /dev/null; then return; fi

    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2> /dev/null ||
        fail "$python cannot make virtual environments; on Debian or Ubuntu run \`sudo apt install python3-venv\`."
    echo "Setting up $VENV from $1 (once; later runs use it at once) ..."
    # For Linux, the Python package index has torch with 3 GB of CUDA libraries, of no use without a GPU. PyTorch's own
    # index has a CPU build of 200 MB. It is no default, because it is one more server to trust.
    if [ -n "${H2ASEG_TORCH_INDEX:-}" ]; then
        options+=(--extra-index-url "$H2ASEG_TORCH_INDEX")
    elif [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi > /dev/null; then
        echo "No NVIDIA GPU found; to download torch without its CUDA libraries (3 GB), stop this and run"
        echo "    H2ASEG_TORCH_INDEX=https://download.pytorch.org/whl/cpu $0"
    fi
    [ -t 1 ] || options+=(--quiet) # on a terminal, pip shows how far the downloads are
    "$python" -m venv "$VENV"
    "$PYTHON" -m pip install --disable-pip-version-check ${options[@]+"${options[@]}"} --requirement "$requirements" ||
        fail "the packages of $requirements could not be installed; pip's reason stands above."
    echo "$wanted" > "$stamp"
}
