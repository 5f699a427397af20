#!/usr/bin/env bash
# Every check of the project: style, types, scripts, Dockerfiles, pytest, and the container where a Docker engine is
# at hand. Exits with 1 if anything failed.
#
# The first run installs what is needed into .venv, inside this folder. The tests on real patients run where
# H2ASEG_DATA names their folder; without it they are skipped.
set -Eeuo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/common.sh
. "$ROOT/scripts/common.sh"
cd "$ROOT"

passed=0
failed=0
summary=()

check() { # check NAME COMMAND...: runs it and keeps the score; a failure does not stop the others
    local name=$1 start=$SECONDS verdict
    shift
    printf '\n== %s\n' "$name"
    if "$@"; then
        passed=$((passed + 1)) verdict=passed
    else
        failed=$((failed + 1)) verdict=FAILED
    fi
    summary+=("$(printf '%-8s %s (%d s)' "$verdict" "$name" $((SECONDS - start)))")
}

container() { # the tests in real containers, unless there is no engine to run them
    if ! engine_answers; then
        summary+=("skipped  container: no Docker engine answers (\`docker info\` fails)")
        return
    fi
    check container test/container.sh
    check 'container, evaluation' test/container_eval.sh
}

ensure_environment requirements.txt # run.sh's, which then finds it ready
ensure_environment requirements-dev.txt
scripts=(./*.sh scripts/*.sh test/*.sh .ci/run)

check 'ruff check' "$PYTHON" -m ruff check --output-format concise .
check 'ruff format' "$PYTHON" -m ruff format --check --output-format concise .
check mypy "$PYTHON" -m mypy algorithm synthesis training evaluation benchmark
check shellcheck "$VENV/bin/shellcheck" --external-sources "${scripts[@]}"
check hadolint "$VENV/bin/hadolint" Dockerfile Dockerfile.eval
check pytest "$PYTHON" -m pytest
container

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
