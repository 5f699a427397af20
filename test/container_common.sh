# Shared by the scripts that test an image in a real container; they source it after scripts/common.sh.
# It expects WORK, a folder of the script's own that is made anew, and IMAGE.
# shellcheck shell=bash

RUN_TIMEOUT=600 # seconds for one job

# What the image must work under. Grand-challenge's own limits are wider.
STRICT=(
    --network none                    # nothing can be downloaded
    --cap-drop ALL                    # no privileges of any kind ...
    --security-opt no-new-privileges  # ... nor a way to get them
    --memory 8g --memory-swap 8g      # the same number twice: no swap on top of the memory
    --shm-size 128m                   # /dev/shm, too small for worker processes that pass arrays around
    --pids-limit 256                  # processes and threads together
    --read-only                       # nothing can be written but /output, not even /tmp
)

passed=0
failed=0

check() { # check WHAT COMMAND...: keeps the score; what the command prints follows the verdict
    local what=$1 said
    shift
    if said=$("$@" 2>&1); then
        passed=$((passed + 1))
        echo "ok      $what${said:+ ($said)}"
    else
        failed=$((failed + 1))
        echo "FAILED  $what${said:+: $said}"
    fi
}

is() { # is ACTUAL EXPECTED
    [ "$1" = "$2" ] || { echo "got '$1', expected '$2'"; return 1; }
}

remove_work() { # what the container wrote belongs to its user, so only root, or a container, can remove it
    [ -e "$WORK" ] || return 0
    rm -rf "$WORK" 2> /dev/null ||
        docker run --rm --user root --entrypoint rm --volume "$WORK:/work" "$IMAGE" -rf /work/runs
    rm -rf "$WORK"
}

container=''
finish() {
    local rc=$?
    trap - EXIT
    [ -z "$container" ] || docker rm --force "$container" > /dev/null 2>&1 || true # still there after a Ctrl-C
    remove_work || true
    [ "$rc" -eq 0 ] || [ "$failed" -gt 0 ] || failed=1 # something between the checks went wrong
    echo "$passed passed, $failed failed"
    exit "$rc"
}

# run_job NAME INPUT [DOCKER FLAG...] -- [OPTION OF THE ENTRY POINT...]
# Leaves WORK/runs/NAME/{output,stdout,stderr,exit}.
run_job() {
    local run=$WORK/runs/$1 input=$2 flags=() rc=0
    shift 2
    while [ "$1" != -- ]; do
        flags+=("$1")
        shift
    done
    shift
    mkdir -p "$run/output"
    chmod 0777 "$run/output" # the image's user is none of this machine's
    container=h2aseg-test-$$
    timeout --kill-after 10 "$RUN_TIMEOUT" docker run --rm --name "$container" \
        "${STRICT[@]}" ${flags[@]+"${flags[@]}"} \
        --volume "$input:/input:ro" --volume "$run/output:/output" \
        "$IMAGE" "$@" > "$run/stdout" 2> "$run/stderr" || rc=$?
    docker rm --force "$container" > /dev/null 2>&1 || true # left only after a time-out
    container=''
    echo "$rc" > "$run/exit"
}

# start_server NAME [DOCKER FLAG...] -- [OPTION OF THE ENTRY POINT...]
# The image as it is started for the invoke API: no command; the platform sets a variable, its starter kit's local test
# does not. Sets RUN and `container`; ask() asks from inside, as the container has no network.
start_server() {
    RUN=$WORK/runs/$1
    local flags=()
    shift
    while [ "$1" != -- ]; do
        flags+=("$1")
        shift
    done
    shift
    mkdir -p "$RUN/input" "$RUN/output"
    chmod 0777 "$RUN/output"
    cp test/support/ask.py "$RUN/ask.py"
    container=h2aseg-test-server-$$
    docker run --detach --name "$container" "${STRICT[@]}" ${flags[@]+"${flags[@]}"} \
        --volume "$RUN/input:/input:ro" --volume "$RUN/output:/output" --volume "$RUN/ask.py:/ask.py:ro" \
        "$IMAGE" "$@" > /dev/null
}

ask() { # ask METHOD PATH
    docker exec "$container" python /ask.py 4743 "$@"
}

stop_server() { # with the platform's patience: SIGKILL 5 s after SIGTERM
    local began=$SECONDS
    docker stop --time 5 "$container" > /dev/null
    check 'invoke: SIGTERM ends it in time' test $((SECONDS - began)) -lt 5
    check 'invoke: exit code 0' is "$(docker inspect --format '{{.State.ExitCode}}' "$container")" 0
    docker logs "$container" > "$RUN/stdout" 2> "$RUN/stderr"
    docker rm --force "$container" > /dev/null
    container=''
}

check_success() { # check_success NAME
    local run=$WORK/runs/$1
    check "$1: exit code 0" is "$(cat "$run/exit")" 0
    check "$1: nothing on stderr" is "$(cat "$run/stderr")" ''
}

label() { # label NAME: prints the image's label
    docker image inspect --format "{{index .Config.Labels \"$1\"}}" "$IMAGE"
}

check_image() { # check_image CONTENT: the image is fit for grand-challenge and holds this and nothing else
    check 'image: not root' is "$(docker image inspect --format '{{.Config.User}}' "$IMAGE")" 10001:10001
    check 'image: the version' is "$(label org.opencontainers.image.version)" "$(version)"
    check 'image: no setuid files' is "$(docker run --rm --network none --user 0:0 --entrypoint find "$IMAGE" \
        / -xdev -type f -perm /6000)" ''
    check 'image: no compiler' is \
        "$(docker run --rm --network none --entrypoint sh "$IMAGE" -c 'command -v gcc cc g++ clang nvcc' || true)" ''
    check "image: nothing but $1" is "$(docker run --rm --network none --entrypoint ls "$IMAGE" | xargs)" "$1"
}
