# Scaffolding of the real-program tests: run a program under the shim, ask its counters, check its data without the shim.
#
# A test sources this file, names the programs it needs, and calls `on_each_filesystem FUNCTION`; the function is called with
# the name of the filesystem and an empty directory on it. Any command that fails ends the test.
# Exit status: 0 passed, 1 failed, 77 skipped (the reason is printed).

set -euo pipefail

: "${BOUNCEIO_SHIM:?absolute path of libbounceshim.so}"
: "${BOUNCEIO_TEST_FS:?run this inside tests/support/filesystems.sh}"

app_scratch=$(mktemp -d "${TMPDIR:-/tmp}/bounceio-app.XXXXXX")
app_step="starting"

app_finish() {
    local status=$?
    rm -rf "$app_scratch"
    if [ "$status" -ne 0 ] && [ "$status" -ne 77 ]; then
        echo "FAILED: $app_step" >&2
    fi
}
trap app_finish EXIT

needs() {
    local program
    for program in "$@"; do
        if ! command -v "$program" >/dev/null; then
            echo "skipped: $program is not installed"
            exit 77
        fi
    done
}

fail() {
    echo "$app_step: $*" >&2
    exit 1
}

# shimmed CMD...: run it under the shim with counters of its own; its output is shown only when it fails.
shimmed() {
    app_step="$* [$app_filesystem]"
    rm -rf "$app_scratch/stats"
    mkdir "$app_scratch/stats"
    if ! LD_PRELOAD=$BOUNCEIO_SHIM BOUNCEIO_STATS=$app_scratch/stats/%p.json BOUNCEIO_STORE=$app_scratch/store \
        "$@" >"$app_scratch/output" 2>&1; then
        cat "$app_scratch/output" >&2
        fail "failed under the shim"
    fi
    if grep -q '^bounceio: checksum mismatch' "$app_scratch/output"; then
        cat "$app_scratch/output" >&2
        fail "the shim reported a mismatch"
    fi
}

# counter NAME: its sum over all processes of the last `shimmed` command (every exec counts for itself).
counter() {
    cat "$app_scratch"/stats/*.json 2>/dev/null |
        awk -F'[:,]' -v key="\"$1\"" 'index($1, key) { sum += $2; found = 1 } END { if (!found) exit 1; print sum }' ||
        fail "no counter $1 in the shim's statistics"
}

# expect NAME OPERATOR NUMBER: e.g. expect direct_writes -gt 0
expect() {
    local value
    value=$(counter "$1")
    test "$value" "$2" "$3" || fail "$1 is $value, expected $2 $3"
}

nothing_went_wrong() {
    expect mismatches -eq 0
    expect passed_through -eq 0
    expect pages_leaked -eq 0
    expect changed_outside -eq 0
}

writes_were_bounced() {
    expect direct_writes -gt 0
    expect bytes_bounced -gt 0
    expect blocks_summed -gt 0
    nothing_went_wrong
}

reads_were_verified() {
    expect direct_reads -gt 0
    expect blocks_verified -gt 0
    nothing_went_wrong
}

# same_data FILE FILE: compared through the page cache, without the shim.
same_data() {
    app_step="comparing $1 with $2 [$app_filesystem]"
    cmp "$1" "$2" || fail "the data differs"
}

# random_file PATH BYTES
random_file() {
    head -c "$2" /dev/urandom >"$1"
}

on_each_filesystem() {
    local function=$1 entry directory ran=""
    for entry in $BOUNCEIO_TEST_FS; do
        app_filesystem=${entry%%:*}
        [ "$app_filesystem" != tmpfs ] || continue
        directory=$(mktemp -d "${entry#*:}/app.XXXXXX")
        rm -rf "$app_scratch/store"
        "$function" "$app_filesystem" "$directory"
        rm -rf "$directory"
        ran="$ran $app_filesystem"
    done
    [ -n "$ran" ] || { echo "skipped: no filesystem but tmpfs"; exit 77; }
    echo "$(basename "$0" .sh): verified on$ran"
}
