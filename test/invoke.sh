# The invoke API as grand-challenge uses it, for a server in a container or in a process. Sourced by the scripts that
# test either, after test/container_common.sh; it expects ask METHOD PATH, which prints status and body, and
# RUN, a folder with input/ and output/ that the server reads and writes.
# shellcheck shell=bash

wait_until_healthy() { # as the platform polls: anything but 200 means not yet
    local _
    for _ in $(seq 1 300); do
        case "$(ask GET /health)" in
            '200 '*) return 0 ;;
            *) sleep 0.2 ;;
        esac
    done
    echo 'no health after a minute'
    return 1
}

place_inputs() { # place_inputs FOLDER: a new job, whose output is empty
    find "$RUN/input" "$RUN/output" -mindepth 1 -delete
    cp -R "$1/." "$RUN/input/"
    chmod -R a+rX "$RUN/input"
}

three_invocations() { # three_invocations GOOD BAD SENTENCE CHECK...: two good jobs around a bad one; CHECK judges RUN/output
    local good=$1 bad=$2 sentence=$3 number
    shift 3
    check 'invoke: healthy' wait_until_healthy
    for number in first second; do
        place_inputs "$good"
        check "invoke: the $number good job answers 201" is "$(ask POST /invoke | cut -c 1-3)" 201
        "$@" "invoke, $number"
        [ "$number" = second ] && continue
        place_inputs "$bad"
        check 'invoke: the bad job answers with its sentence' is "$(ask POST /invoke)" "422 $sentence"
        check 'invoke: the bad job leaves nothing' is "$(find "$RUN/output" -mindepth 1)" ''
        check 'invoke: healthy after it' is "$(ask GET /health)" '200 ready'
    done
    check 'invoke: no such address' is "$(ask GET /elsewhere | cut -c 1-3)" 404
    check 'invoke: no such method' is "$(ask GET /invoke | cut -c 1-3)" 405
}
