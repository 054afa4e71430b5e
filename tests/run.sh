#!/bin/bash
# The test runner behind `make check`.
#
#   tests/run.sh --build DIRECTORY [--sanitizer asan|tsan] [--valgrind] KIND... [-- NAME]
#
# KIND: unit (programs linked with the shim's objects), shim (programs run under the shim), apps (real programs), torture (programs
# that kill and cut off others, and the long versions of some shim tests; TORTURE_SLICE=1: only the former).
# NAME: only the tests whose name contains it. BOUNCEIO_TEST_SEED=N repeats a randomized run.
#
# Shim and app tests run inside support/filesystems.sh. Every test has an empty BOUNCEIO_STORE of its own, on a normal
# file system, and a watchdog. One line for each program; its output when it fails; last "N passed, N failed, N skipped",
# which counts a program's single tests where it says how many it has. Exit status 1 when anything failed.
set -u

tests=$(cd "$(dirname "$0")" && pwd)
all_arguments=("$@")
build=build sanitizer='' valgrind='' kinds=() filter=''
watchdog_seconds=300

while [ $# -gt 0 ]; do
    case $1 in
    --build) build=$2; shift ;;
    --sanitizer) sanitizer=$2; shift ;;
    --valgrind) valgrind=1 ;;
    --) filter=${2:-}; break ;;
    unit | shim | apps | torture) kinds+=("$1") ;;
    *) echo "run.sh: unknown argument '$1'" >&2; exit 2 ;;
    esac
    shift
done
build=$(cd "$build" && pwd) || exit 2

# File systems once, around everything that needs them.
case " ${kinds[*]} " in
*" shim "* | *" apps "* | *" torture "*)
    if [ -z "${BOUNCEIO_TEST_FS:-}" ]; then
        exec "$tests/support/filesystems.sh" "$tests/run.sh" "${all_arguments[@]}"
    fi
    ;;
esac

scratch=$(mktemp -d "${TMPDIR:-/tmp}/bounceio-tests.XXXXXX") || exit 2
# The `timeout` around the program that is running: in a process group of its own, and it hands SIGTERM on.
running=
stop() {
    trap '' INT TERM
    [ -z "$running" ] || { kill -TERM "$running"; wait "$running"; }
    exit "$1"
}
trap 'rm -rf "$scratch"' EXIT
trap 'stop 130' INT
trap 'stop 143' TERM

passed=0 failed=0 skipped=0
preload=$build/libbounceshim.so
export BOUNCEIO_SHIM=$preload BOUNCEIO_SHIM_STEPS=$build/steps/libbounceshim.so
unset LD_PRELOAD

case $sanitizer in
'') ;;
asan | tsan)
    runtime=$("${CC:-cc}" -print-file-name="lib$sanitizer.so")
    # Some distributions have a linker script under that name.
    [ -e "$runtime" ] || { echo "run.sh: no lib$sanitizer.so" >&2; exit 2; }
    preload="$(realpath "$runtime") $preload"
    export BOUNCEIO_SHIM=$preload BOUNCEIO_TEST_SANITIZER=$sanitizer BOUNCEIO_TEST_SLOW=${BOUNCEIO_TEST_SLOW:-4}
    watchdog_seconds=1200
    # Programs under the shim are not instrumented; the guard must get its faults; the children that Check kills leave memory behind.
    export ASAN_OPTIONS=detect_leaks=0:handle_segv=0:handle_sigbus=0:allow_user_segv_handler=1:${ASAN_OPTIONS:-}
    export UBSAN_OPTIONS=print_stacktrace=1:${UBSAN_OPTIONS:-}
    export TSAN_OPTIONS=halt_on_error=0:die_after_fork=0:exitcode=66:handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:handle_abort=0:handle_sigfpe=0:${TSAN_OPTIONS:-}
    unset BOUNCEIO_SHIM_STEPS
    ;;
*) echo "run.sh: unknown sanitizer '$sanitizer'" >&2; exit 2 ;;
esac
if [ -n "$valgrind" ]; then
    # No search for leaks: the shim has nothing from malloc, and the search would walk what a forked child has no more.
    valgrind="valgrind --quiet --error-exitcode=99 --leak-check=no"
    valgrind+=" --suppressions=$tests/support/faults.supp"
    export BOUNCEIO_TEST_SLOW=${BOUNCEIO_TEST_SLOW:-20} BOUNCEIO_TEST_VALGRIND=1
    watchdog_seconds=1200
fi

[ -z "${BOUNCEIO_TEST_FULL:-}" ] || watchdog_seconds=3600

# run_one NAME COMMAND...: one program, timed and counted.
run_one() {
    local name=$1 status begin end result summary output=$scratch/output
    shift
    local home
    home=$(mktemp -d "$scratch/XXXXXX") && mkdir -m 700 "$home/store"
    begin=$(date +%s%N)
    # Under job control, or it would ignore SIGINT. In the background, because a trap waits for what is in the foreground.
    set -m
    TMPDIR=$home BOUNCEIO_STORE=$home/store BOUNCEIO_TEST_BUILD=$build \
        timeout --kill-after=10 "$watchdog_seconds" "$@" </dev/null >"$output" 2>&1 &
    running=$!
    set +m
    wait "$running"
    status=$?
    running=
    end=$(date +%s%N)
    rm -rf "$home"
    # Check's last line: "100%: Checks: 12, Failures: 0, Errors: 0".
    summary=$(grep -E '^[0-9]+%: Checks: [0-9]+, Failures: [0-9]+, Errors: [0-9]+' "$output" | tail -1)
    local checks=1 broken=0
    if [ -n "$summary" ]; then
        read -r checks broken < <(sed -E 's/.*Checks: ([0-9]+), Failures: ([0-9]+), Errors: ([0-9]+).*/\1 \2 \3/' \
            <<<"$summary" | awk '{print $1, $2 + $3}')
    fi
    if [ "$status" -eq 77 ]; then
        result=SKIP skipped=$((skipped + 1))
    elif [ "$status" -eq 0 ] && [ "$broken" -eq 0 ]; then
        result=ok passed=$((passed + checks))
    else
        result=FAIL
        [ "$broken" -gt 0 ] || broken=1
        [ "$checks" -ge "$broken" ] || checks=$broken
        failed=$((failed + broken)) passed=$((passed + checks - broken))
    fi
    printf '%-5s %-40s %7.1f s' "$result" "$name" "$(awk "BEGIN { print ($end - $begin) / 1e9 }")"
    [ -n "$summary" ] && printf '  %d tests' "$checks"
    printf '\n'
    case $name:$result in
    *:FAIL)
        [ "$status" -ne 124 ] || echo "      killed by the watchdog after $watchdog_seconds s"
        [ "$status" -le 128 ] || echo "      ended by signal $((status - 128))"
        sed 's/^/      /' "$output" | tail -200
        ;;
    torture/*) sed 's/^/      /' "$output" | tail -20 ;;
    apps/*) grep -E '^(\* |skipped)' "$output" | sed 's/^/      /' ;;
    *) grep -iE '^ *skipped' "$output" | sort | uniq -c | sed -E 's/^ *1 /      /; s/^ *([0-9]+) /      \1 x /' | head -20 ;;
    esac
}

# wanted PATH: does the filter let it through?
wanted() {
    [ -f "$1" ] && [ -x "$1" ] || return 1
    case ${1##*/} in *"$filter"*) return 0 ;; *) return 1 ;; esac
}

# programs KIND: what there is of it, wanted or not.
programs() {
    case $1 in
    torture)
        printf '%s\n' "$build/tests/torture"/*
        [ -n "${TORTURE_SLICE:-}" ] || printf '%s\n' "$build/tests/shim"/test_{corruption,wolf,sequences}*
        ;;
    *) printf '%s\n' "$build/tests/$1"/test_* "$tests/$1"/*.sh ;;
    esac
}

run_kind() {
    local kind=$1 test list
    mapfile -t list < <(programs "$kind")
    [ "$kind" != torture ] || watchdog_seconds=3600
    for test in "${list[@]}"; do
        wanted "$test" || continue
        # shellcheck disable=SC2086 # valgrind is a command line
        case $kind:$test in
        unit:*.sh | apps:* | shim:*.sh) run_one "$kind/${test##*/}" "$test" ;;
        unit:*) run_one "$kind/${test##*/}" $valgrind "$test" ;;
        torture:*/tests/torture/*) run_one "$kind/${test##*/}" "$test" ;;
        torture:*) run_one "$kind/${test##*/}" env BOUNCEIO_TEST_FULL=1 LD_PRELOAD="$preload" "$test" ;;
        shim:*) run_one "$kind/${test##*/}" env LD_PRELOAD="$preload" "$test" ;;
        esac
    done
}

for kind in "${kinds[@]}"; do
    run_kind "$kind"
done

if [ $((passed + failed + skipped)) -eq 0 ]; then
    echo "no test matches '$filter'" >&2
    exit 1
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
