#!/bin/bash
# The runner behind `make fuzz`.
#
#   tests/fuzz/run.sh BUILD RUNS SECONDS     each target of BUILD, RUNS inputs or (when not 0) SECONDS
#
# An input that fails is kept in BUILD/findings and named; BUILD/corpus/TARGET is where the next run goes on from.
set -u

build=${1:?build directory} runs=${2:?runs} seconds=${3:-0}
failed=0
store=$(mktemp -d /dev/shm/bounceio-fuzz.XXXXXX) || exit 2
trap 'rm -rf "$store"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p "$build/findings" || exit 2
for target in "$build"/tests/fuzz/fuzz_*; do
    [ -x "$target" ] && [ -f "$target" ] || continue
    name=${target##*/}
    corpus=$build/corpus/$name
    mkdir -p "$corpus" || exit 2
    # The guard must get its faults. What is mapped is not what is used: a map of a sparse file is long.
    mkdir -m 700 "$store/$name" || exit 2
    BOUNCEIO_STORE=$store/$name ASAN_OPTIONS=handle_segv=0:handle_sigbus=0:detect_leaks=0 \
        "$target" -runs="$runs" -max_total_time="$seconds" -max_len=400 -len_control=20 -timeout=20 -rss_limit_mb=0 \
        -print_final_stats=1 -verbosity=1 -artifact_prefix="$build/findings/$name-" "$corpus" ||
        { echo "fuzz: $name has a finding in $build/findings" >&2; failed=1; }
done
exit "$failed"
