#!/bin/bash
# The benchmark behind `make bench`: what the shim costs, and where it is faster than zero-copy.
#
#   tests/bench/run.sh BUILD [--quick] [--check]
#
# --quick: about a minute instead of a quarter of an hour, with fewer sizes and ways in. --check: exit status 1 when a target is missed.
# BENCH_DISK: a directory on the machine's disk (default: BUILD). BENCH_ONLY="matrix idle": only these experiments.
#
# Measures with BUILD/tests/bench/bench (main.c says how) on that disk and, inside support/filesystems.sh, on RAM-backed file systems. Writes
# BUILD/bench.records (what was measured, a JSON object in each line); report.py makes the table, BUILD/bench.json and BUILD/bench.svg of it.
set -u

here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "${1:?build directory}" && pwd) || exit 2
all_arguments=("$@")
shift
quick='' check=''
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=--quick ;;
    --check) check=--check ;;
    *) echo "bench: unknown argument '$1'" >&2; exit 2 ;;
    esac
    shift
done

# File systems once, around everything.
if [ -z "${BOUNCEIO_TEST_FS:-}" ]; then
    exec "$here/../support/filesystems.sh" --only "xfs btrfs btrfs-nocow tmpfs" "$here/run.sh" "${all_arguments[@]}"
fi
file_systems=$BOUNCEIO_TEST_FS

# The caller's own settings must not change what is measured.
for variable in $(compgen -e BOUNCEIO_); do
    unset "$variable"
done
unset LD_PRELOAD

shim=$build/libbounceshim.so
records=$build/bench.records
scratch=()
failed=0
trap 'rm -rf "${scratch[@]}"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# seconds FULL QUICK: for a step; what a step takes besides (filling its files) comes on top.
seconds() { if [ -n "$quick" ]; then echo "$2"; else echo "$1"; fi; }

wanted() { case " ${BENCH_ONLY:-$1} " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

# directory VARIABLE PARENT: a new one, that goes at the end.
directory() {
    local made
    made=$(mktemp -d "$2/bounceio-bench.XXXXXX") || exit 2
    chmod 700 "$made"
    scratch+=("$made")
    printf -v "$1" %s "$made"
}

# step WHAT SECONDS COMMAND...: one program's records; a step that fails is told, and the others go on.
step() {
    local what=$1 limit=$(($2 * 4 + 60)) status
    shift 2
    # In our process group, so that a signal which ends us ends it too.
    timeout --foreground --kill-after=10 "$limit" "$@" </dev/null >>"$records"
    status=$?
    [ "$status" -eq 0 ] && return
    echo "bench: $what failed with status $status" >&2
    failed=1
}

# measure EXPERIMENT FILESYSTEM SECONDS PARENT [PARENT]: sides in turns, under the shim; the maps are on the same file system.
measure() {
    local experiment=$1 name=$2 time=$3 place second=()
    wanted "$experiment" || return
    directory place "$4"
    if [ $# -gt 4 ]; then
        directory second "$5"
    fi
    mkdir -m 700 "$place/store"
    # shellcheck disable=SC2086 # $quick is an option or nothing
    step "$experiment on $name" "$time" env LD_PRELOAD="$shim" BOUNCEIO_STORE="$place/store" \
        BOUNCEIO_EXCLUDE='*/zero-copy*:*/buffered' "$build/tests/bench/bench" $quick \
        "$experiment" "$name" "$time" "$place" "${second[@]}"
    rm -rf "$place" "${second[@]}"
}

# on_filesystem NAME PARENT: what is measured on each.
on_filesystem() {
    measure matrix "$1" "$(seconds 125 8)" "$2"
    if [ "$1" != tmpfs ] && { [ -z "$quick" ] || [ "$1" = xfs ]; }; then
        measure new-files "$1" "$(seconds 24 3)" "$2"
        measure threads "$1" "$(seconds 10 2)" "$2"
    fi
    if [ -z "$quick" ] || [ "$1" = xfs ]; then
        measure control "$1" "$(seconds 10 3)" "$2"
    fi
}

# place NAME: where that file system is mounted; fails when there is none.
place() {
    local word
    for word in $file_systems; do
        [ "${word%%:*}" = "$1" ] && echo "${word#*:}" && return
    done
    return 1
}

disk_type() {
    local type
    type=$(findmnt -nvo FSTYPE -T "$1" 2>/dev/null | tail -n 1)
    echo "${type:-disk}"
}

echo "  Zero-copy and bounced requests in turns; about $(seconds "13 minutes" "1 minute")." >&2
: >"$records" || exit 2
began=$SECONDS

disk=${BENCH_DISK:-$build}
on_filesystem "$(disk_type "$disk")" "$disk"
for name in xfs btrfs-nocow tmpfs; do
    if parent=$(place "$name"); then
        on_filesystem "$name" "$parent"
    fi
done
if nocow=$(place btrfs-nocow) && checksummed=$(place btrfs); then
    measure buffered btrfs "$(seconds 25 4)" "$nocow" "$checksummed"
fi
if memory=$(place tmpfs); then
    measure added tmpfs "$(seconds 30 6)" "$memory"
    if wanted internals; then
        directory inside "$memory"
        step internals 5 "$build/tests/bench/internals" "$inside"
    fi
fi
if wanted idle; then
    step idle 15 env LD_PRELOAD="$shim" "$build/tests/bench/idle" --records
fi

# shellcheck disable=SC2086 # $check and $quick are options or nothing
"$here/report.py" "$build" $check $quick --seconds $((SECONDS - began)) || exit
exit "$failed"
