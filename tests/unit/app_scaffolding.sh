#!/bin/bash
# The scaffolding of the real-program tests: however one of them ends, none of its processes and directories is left.
# shellcheck disable=SC2317 # tests are called by name
. "$(dirname "$0")/../support/command.sh"

if ! dd if=/dev/zero of="$scratch/probe" bs=4096 count=1 oflag=direct status=none 2>/dev/null; then
    rm -rf "$scratch"
    echo "skipped: no direct requests in ${TMPDIR:-/tmp}, without which no test of a program runs"
    exit 77
fi

tests=$(cd "$(dirname "$0")/.." && pwd)

# What a program does that leaves two processes behind, in sessions of their own; the second does not listen to SIGTERM.
# shellcheck disable=SC2016 # for another shell
leave_two='setsid sleep 60 & echo $! >>pids; trap "" TERM; setsid sleep 60 & echo $! >>pids; trap - TERM'

# app_test NAME BODY: a real-program test in ./NAME whose function on a file system is BODY.
app_test() {
    mkdir "$1.files" "$1.temporary"
    printf '. %q\n' "$tests/apps/lib/app.sh" "$tests/apps/lib/server.sh" >"$1"
    printf 'body() {\n%s\n}\non_filesystems disk body\n' "$2" >>"$1"
}

# in_place_of NAME COMMAND...: with that test's directories.
in_place_of() { BOUNCEIO_TEST_FS=disk:$PWD/$1.files TMPDIR=$PWD/$1.temporary "${@:2}"; }

run_app() { in_place_of "$1" timeout -k 10 40 bash "$1" >"$1.log" 2>&1; }

# start_app NAME: in the background, its process in $app.
start_app() {
    in_place_of "$1" exec bash "$1" >"$1.log" 2>&1 &
    app=$!
}

# becomes_true COMMAND...: within ten seconds.
becomes_true() {
    local i
    for ((i = 0; i < 200; i++)); do
        ! "$@" || return 0
        sleep 0.05
    done
    echo "never: $*" >&2
    return 1
}

two_are_left() { [ "$(wc -l <pids)" -eq 2 ]; }
runs() { case $(ps -o state= -p "$1" || true) in "" | Z*) return 1 ;; esac; }
has_ended() { ! runs "$1"; }

# is_ended PID: one of our own, by SIGTERM, without waiting for the program that it runs.
is_ended() {
    local status=0
    kill -TERM "$1"
    becomes_true has_ended "$1"
    wait "$1" || status=$?
    is "$status" 143
}

# Those that the scaffolding has not ended, end with the test.
note_processes() {
    touch pids
    # shellcheck disable=SC2046 # numbers
    trap 'kill -KILL $(cat pids) 2>/dev/null' EXIT
}

nothing_is_left_of() {
    local pid
    two_are_left
    while read -r pid; do
        becomes_true has_ended "$pid"
    done <pids
    is "$(find "$1.files" "$1.temporary" -mindepth 1)" ""
}

test_that_is_killed_leaves_nothing() {
    note_processes
    app_test killed "touch \"\$2/file\"; natively timeout 60 bash -c '$leave_two; sleep 60 & echo \$! >last; wait'"
    start_app killed
    becomes_true two_are_left
    becomes_true test -s last
    is_ended "$app"
    nothing_is_left_of killed
    becomes_true has_ended "$(cat last)"
}

test_that_fails_leaves_nothing() {
    note_processes
    app_test failing "touch \"\$2/file\"; natively bash -c '$leave_two'; fail 'for a reason'"
    is "$(status_of run_app failing)" 1
    grep -q '^FAILED: without the shim' failing.log
    nothing_is_left_of failing
}

test_that_passes_leaves_nothing() {
    note_processes
    app_test passing "server_needs_sockets; touch \"\$2/file\" \"\$server_sockets/file\"; echo \"\$server_sockets\" >sockets
        natively bash -c '$leave_two'"
    is "$(status_of run_app passing)" 0
    nothing_is_left_of passing
    is "$(status_of ls "$(cat sockets)")" 2
}

test_leaves_the_processes_of_others_alone() {
    note_processes
    app_test other "natively timeout 60 bash -c '$leave_two; sleep 60'"
    start_app other
    becomes_true two_are_left
    app_test passing "natively true"
    run_app passing
    local pid
    while read -r pid; do
        runs "$pid"
    done <pids
    is_ended "$app"
    nothing_is_left_of other
}

runner_that_is_killed_leaves_nothing() {
    note_processes
    mkdir -p copy/apps
    cp "$tests/run.sh" copy/
    app_test killed "natively timeout 60 bash -c '$leave_two; sleep 60'"
    (printf '#!/bin/bash\ncd %q\n' "$PWD"; cat killed) >copy/apps/killed.sh
    chmod +x copy/apps/killed.sh
    in_place_of killed exec copy/run.sh --build "$BOUNCEIO_TEST_BUILD" apps >killed.log 2>&1 &
    becomes_true two_are_left
    is_ended $!
    nothing_is_left_of killed
}

run_tests once test_that_is_killed_leaves_nothing test_that_fails_leaves_nothing test_that_passes_leaves_nothing \
    test_leaves_the_processes_of_others_alone runner_that_is_killed_leaves_nothing
