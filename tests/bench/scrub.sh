#!/bin/bash
# How fast scrub is: a cached file on a RAM-backed file system, against 5 GB/s; and a file on the disk of $TMPDIR, against cat.
#
#   tests/bench/scrub.sh BUILD [--check]     --check: fail when either is missed
#
# BENCH_GIB (default 4) and BENCH_DISK_GIB (default 2) are the files' sizes. The disk part drops the page cache, as root.
set -u

build=$(cd "${1:?build directory}" && pwd) || exit 2
check=${2:-}
missed=0
rounds=5

memory=$(mktemp -d /dev/shm/bounceio-bench.XXXXXX) || exit 2
disk=$(mktemp -d "${TMPDIR:-/tmp}/bounceio-bench.XXXXXX") || exit 2
trap 'rm -rf "$memory" "$disk"' EXIT
trap 'exit 130' INT TERM

# fill FILE GIB: written under the shim, so that every block has a checksum.
fill() {
    LD_PRELOAD=$build/libbounceshim.so dd if=/dev/urandom of="$1" bs=4M count=$(($2 * 256)) oflag=direct status=none
}

# seconds FILE COMMAND...: add to FILE how long it took, and how much processor time.
seconds() {
    local file=$1 TIMEFORMAT='%3R %3U %3S'
    shift
    { time "$@" >/dev/null 2>&3 || exit 2; } 3>&2 2>>"$file"
}

median() { sort -n | awk '{ line[NR] = $1 } END { print line[int((NR + 1) / 2)] }'; }

# verdict TEXT CONDITION: awk's opinion of the condition.
verdict() {
    if awk "BEGIN { exit !($2) }"; then
        echo "  ok      $1"
    else
        echo "  MISSED  $1"
        missed=1
    fi
}

in_memory() {
    local gib=${BENCH_GIB:-4} file=$memory/file i time cpu rate
    export BOUNCEIO_STORE=$memory/store
    fill "$file" "$gib" || exit 2
    for ((i = 0; i < rounds; i++)); do
        seconds "$memory/times" "$build/bounceio" scrub --quiet "$file"
    done
    time=$(median <"$memory/times")
    cpu=$(awk '{ print $2 + $3 }' "$memory/times" | median)
    rate=$(awk "BEGIN { printf \"%.1f\", $gib * 1.073741824 / $time }")
    verdict "cached, in memory: $gib GiB in $time s ($cpu s of processor time), $rate GB/s (at least 5)" "$rate >= 5"
    rm -f "$file"
}

drop_caches() { sync && echo 1 >/proc/sys/vm/drop_caches; }

on_disk() {
    local gib=${BENCH_DISK_GIB:-2} file=$disk/file i ours cats
    export BOUNCEIO_STORE=$disk/store
    if ! [ -w /proc/sys/vm/drop_caches ]; then
        echo "  skipped: only root can drop the page cache for a comparison with cat"
        return
    fi
    fill "$file" "$gib" || exit 2
    # Interleaved: the disk has other users.
    for ((i = 0; i < rounds; i++)); do
        drop_caches
        seconds "$disk/ours" "$build/bounceio" scrub --quiet "$file"
        drop_caches
        seconds "$disk/cats" cat "$file"
    done
    ours=$(median <"$disk/ours")
    cats=$(median <"$disk/cats")
    verdict "on the disk: $gib GiB in $ours s; cat: $cats s" "$ours <= $cats * 1.02"
}

in_memory
on_disk
[ "$check" != --check ] || exit "$missed"
