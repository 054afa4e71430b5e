# Scaffolding of the real-program tests: run a program under the shim, ask its counters, check its data without the shim.
#
# A test sources this file, names the programs it needs, and calls `on_each_filesystem FUNCTION` (or `on_filesystems KINDS FUNCTION`);
# the function is called with the name of the filesystem and an empty directory on it. Any command that fails ends the test.
# Lines that begin with "* " are shown when the test has passed, too.
# Exit status: 0 passed, 1 failed, 77 skipped (the reason is printed).

set -euo pipefail

: "${BOUNCEIO_SHIM:?absolute path of libbounceshim.so}"
: "${BOUNCEIO_TEST_FS:?run this inside tests/support/filesystems.sh}"
: "${BOUNCEIO_TEST_BUILD:?build directory, with the command}"

app_directory=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

app_step="starting"
# A prefix for commands that use the programs' store, where it is another user's.
app_user=()

# What must be undone however the test ends: names of functions, and directories.
app_at_end=()
app_temporary=()

# The processes that have app_scratch in their environment: what this test has started, and what those have, whatever session they are in.
# Not the script itself, which was started before there was one.
app_processes() {
    (
        export -n app_scratch
        grep -lszxF "app_scratch=$app_scratch" /proc/[0-9]*/environ | cut -d/ -f3
    )
}

# A second to end in an orderly way, and then they must.
app_end_processes() {
    local signal=TERM round pids
    for ((round = 0; round < 50; round++)); do
        mapfile -t pids < <(app_processes)
        [ ${#pids[@]} -gt 0 ] || return 0
        [ "$round" -lt 10 ] || signal=KILL
        kill "-$signal" "${pids[@]}" 2>/dev/null || true
        sleep 0.1
    done
    echo "processes are left: ${pids[*]}" >&2
}

# Also when the script gets SIGTERM: it has no trap of its own, which would wait for the program that is running.
app_finish() {
    local status=$? undo
    trap '' HUP INT TERM
    for undo in "${app_at_end[@]}"; do
        "$undo" || true
    done
    [ -z "$app_scratch" ] || app_end_processes
    rm -rf "${app_temporary[@]}"
    if [ "$status" -ne 0 ] && [ "$status" -ne 77 ]; then
        echo "FAILED: $app_step" >&2
    fi
}
app_scratch=
trap app_finish EXIT

# temporary_directory VARIABLE TEMPLATE: a new one, removed at the end.
temporary_directory() {
    local -n made=$1
    made=$(mktemp -d "$2")
    app_temporary+=("$made")
}

temporary_directory app_scratch "${TMPDIR:-/tmp}/bounceio-app.XXXXXX"
export app_scratch
# Where the programs under the shim have their store and leave their counters.
app_state=$app_scratch

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

# Any user may have to write there.
fresh_counters() {
    rm -rf "$app_state/stats"
    mkdir -m 1777 "$app_state/stats"
}

# under_shim CMD...: run it under the shim with counters of its own, output in $app_scratch/output. @return its exit status.
under_shim() {
    fresh_counters
    LD_PRELOAD=$BOUNCEIO_SHIM BOUNCEIO_STATS=$app_state/stats/%p.json BOUNCEIO_STORE=$app_state/store \
        "$@" >"$app_scratch/output" 2>&1
}

# shimmed CMD...: the same for what must succeed; its output is shown only when it fails. How long it took: $app_seconds.
shimmed() {
    local begin
    app_step="$* [$app_filesystem]"
    begin=$(date +%s%N)
    if ! under_shim "$@"; then
        cat "$app_scratch/output" >&2
        fail "failed under the shim"
    fi
    app_seconds=$(awk "BEGIN { printf \"%.1f\", ($(date +%s%N) - $begin) / 1e9 }")
    if grep -q 'bounceio: checksum mismatch' "$app_scratch/output"; then
        cat "$app_scratch/output" >&2
        fail "the shim reported a mismatch"
    fi
}

# natively CMD...: without the shim; its output, in $app_scratch/native, is shown only when it fails.
natively() {
    app_step="without the shim: $* [$app_filesystem]"
    if ! "$@" >"$app_scratch/native" 2>&1; then
        cat "$app_scratch/native" >&2
        fail "failed without the shim"
    fi
}

# counter NAME: its sum over all processes of the last `shimmed` command (every exec counts for itself).
counter() {
    cat "$app_state"/stats/*.json 2>/dev/null |
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

# scrub PATH...: `bounceio scrub`, its findings in $app_scratch/scrub. @return its exit status.
scrub() {
    BOUNCEIO_STORE=$app_state/store "${app_user[@]}" "$BOUNCEIO_TEST_BUILD/bounceio" scrub --json "$@" \
        >"$app_scratch/scrub" 2>"$app_scratch/scrub.log"
}

# scrubbed KEY: the total of that name.
scrubbed() {
    sed -n '/"totals"/,$s/^ *"'"$1"'": \([0-9]*\),*$/\1/p' "$app_scratch/scrub"
}

# scrub_is_clean PATH...: at least one block is known, every known one is what is on the medium, nothing came from outside.
scrub_is_clean() {
    app_step="scrubbing after $app_step"
    scrub "$@" || { cat "$app_scratch/scrub" "$app_scratch/scrub.log" >&2; fail "scrub found something"; }
    [ "$(scrubbed mismatches)" -eq 0 ] && [ "$(scrubbed changed_outside)" -eq 0 ] || fail "scrub: $(cat "$app_scratch/scrub")"
    [ "$(scrubbed blocks_verified)" -gt 0 ] || { cat "$app_scratch/scrub" >&2; fail "scrub knew no block"; }
}

# adopt_all PATH...: blocks that nobody knows take the checksum of what is there.
adopt_all() {
    BOUNCEIO_STORE=$app_state/store natively "${app_user[@]}" "$BOUNCEIO_TEST_BUILD/bounceio" adopt --quiet "$@"
}

# damage FILE OFFSET: flip a bit of the byte there as a failing medium would: the file's times stay what they were.
damage() {
    python3 "$app_directory/damage.py" "$@"
}

# damage_is_found FILE OFFSET CMD...: one bit of FILE is wrong, and nobody knows it yet. The program's own read must fail, in a logged
# mismatch of that file; scrub must find exactly that block. The bit is put right again.
damage_is_found() {
    local file=$1 offset=$2
    shift 2
    damage "$file" "$offset"
    app_step="$* after damage at $offset of $file [$app_filesystem]"
    if (under_shim timeout -k 5 60 "$@") 2>/dev/null; then
        cat "$app_scratch/output" >&2
        fail "succeeded"
    fi
    # A program that aborts leaves no counters.
    if [ -n "$(ls "$app_state/stats")" ]; then
        expect mismatches -gt 0
        expect passed_through -eq 0
    fi
    grep -q "bounceio: checksum mismatch: path=\"$(realpath "$file")\" offset=$((offset / 4096 * 4096)) " "$app_scratch/output" ||
        { cat "$app_scratch/output" >&2; fail "the log does not say so"; }
    scrub_finds_damage "$file" "$offset"
    damage "$file" "$offset"
}

# scrub_finds_damage FILE OFFSET
scrub_finds_damage() {
    local status=0
    app_step="scrubbing $1, damaged at $2 [$app_filesystem]"
    scrub "$1" || status=$?
    [ "$status" -eq 1 ] && [ "$(scrubbed mismatches)" -eq 1 ] || { cat "$app_scratch/scrub" >&2; fail "scrub did not find it"; }
    grep -q "\"offset\": $(($2 / 4096 * 4096)),*\$" "$app_scratch/scrub" || { cat "$app_scratch/scrub" >&2; fail "wrong place"; }
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

# direct_works DIRECTORY [BYTES]: does the filesystem take direct requests of that size?
direct_works() {
    dd if=/dev/zero of="$1/probe" bs="${2:-4096}" count=1 oflag=direct status=none 2>/dev/null || return 1
    rm "$1/probe"
}

# on_filesystems KINDS FUNCTION: on those of them that there are. Without loop devices there is "disk", which stands for all.
on_filesystems() {
    local kinds=$1 function=$2 entry directory ran=""
    for entry in $BOUNCEIO_TEST_FS; do
        app_filesystem=${entry%%:*}
        case " $kinds disk " in *" $app_filesystem "*) ;; *) continue ;; esac
        temporary_directory directory "${entry#*:}/app.XXXXXX"
        if direct_works "$directory"; then
            rm -rf "$app_state/store"
            "$function" "$app_filesystem" "$directory"
            ran="$ran $app_filesystem"
        fi
        rm -rf "$directory"
    done
    [ -n "$ran" ] || { echo "skipped: none of $kinds takes direct requests"; exit 77; }
    echo "$(basename "$0" .sh): $function: verified on$ran"
}

on_each_filesystem() {
    on_filesystems "ext4 xfs btrfs btrfs-nocow" "$1"
}

# once FUNCTION: on one filesystem.
once() {
    local kind
    for kind in ext4 xfs btrfs-nocow disk; do
        case " $BOUNCEIO_TEST_FS" in *" $kind:"*) on_filesystems "$kind" "$1"; return ;; esac
    done
    echo "skipped: no filesystem"
    exit 77
}
