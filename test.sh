#!/usr/bin/env bash
# Every check of the project. Exits with 1 if anything failed.
#
#   ./test.sh                 all but the last: the container too where a Docker engine answers
#   ./test.sh PART [PART...]  some of it: style, types, layers, scripts, supply, pytest, numerical, container; and
#                             preflight (an image as grand-challenge would check it, ten broken ones; 5 to 15 minutes)
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

style() {
    check 'ruff check' "$PYTHON" -m ruff check --output-format concise .
    check 'ruff format' "$PYTHON" -m ruff format --check --output-format concise .
}

types() { # of all packages and of what the tests share
    check mypy "$PYTHON" -m mypy
}

layers() { # who may import whom
    check import-linter "$VENV/bin/lint-imports" --no-logo
}

scripts() {
    check shellcheck "$VENV/bin/shellcheck" --external-sources ./*.sh scripts/*.sh test/*.sh .ci/run
    check hadolint "$VENV/bin/hadolint" Dockerfile Dockerfile.eval
}

supply() { # known weaknesses of what the images install; its licences are pytest's
    local report=test/output/pip-audit.json
    mkdir -p test/output
    rm -f "$report"
    "$VENV/bin/pip-audit" --requirement requirements-eval.lock --require-hashes --disable-pip --progress-spinner off \
        --format json --output "$report" > /dev/null 2>&1 || true
    # It says "no known vulnerabilities" of packages too that it could ask nobody about.
    if "$PYTHON" -m test.support.audit_report "$report" --asked > /dev/null 2>&1; then
        check pip-audit "$PYTHON" -m test.support.audit_report "$report"
    else
        summary+=('skipped  pip-audit: no service answers that knows of vulnerabilities')
    fi
}

pytest() { # a file's tests stay together: those of a document's commands build on one another
    check pytest env OMP_NUM_THREADS=1 "$PYTHON" -m pytest --numprocesses auto --dist loadfile
}

numerical() { # once more as a processor without AVX-512 and AMX computes: other kernels, other rounding
    check 'pytest, numerical, AVX2' env OMP_NUM_THREADS=1 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 \
        "$PYTHON" -m pytest --numprocesses auto --dist loadfile -m numerical
}

container() { # the tests in real containers, unless there is no engine to run them
    if ! engine_answers; then
        summary+=("skipped  container: no Docker engine answers (\`docker info\` fails)")
        return
    fi
    check container test/container.sh
    check 'container, faults' test/faults.sh
    check 'container, evaluation' test/container_eval.sh
}

preflight() { # what grand-challenge checks of an image: ours passes, broken ones fail
    if ! engine_answers; then
        summary+=("skipped  preflight: no Docker engine answers (\`docker info\` fails)")
        return
    fi
    check preflight test/preflight.sh
}

parts=("$@")
[ $# -gt 0 ] || parts=(style types layers scripts supply pytest numerical container)
for part in "${parts[@]}"; do
    case "$part" in
        style | types | layers | scripts | supply | pytest | numerical | container | preflight) ;;
        *)
            fail "the parts are style, types, layers, scripts, supply, pytest, numerical, container and preflight, got \
'$part'" 2
            ;;
    esac
done

ensure_environment requirements.txt # run.sh's, which then finds it ready
ensure_environment requirements-dev.txt
for part in "${parts[@]}"; do
    "$part"
done

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
