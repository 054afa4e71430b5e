#!/bin/bash
# The demonstration that `make demo` runs: each step without bounceio and with it, side by side in a table.
#
#   tests/demo.sh [BUILD]          BUILD: directory of the library and the examples (default: build)
#
# BOUNCEIO_DEMO_DIR: where to put the files (default: BUILD, or the first place whose file system has direct I/O).
# Needs no root. Exit status: 0 when everything was as it should be, 1 when not.
set -euo pipefail

build=$(cd "${1:-build}" && pwd)
shim=$build/libbounceshim.so
scratch=
failures=0
wrong=0

wanted=${BOUNCEIO_DEMO_DIR:-$build}

# The caller's own settings must not change what is shown.
for variable in $(compgen -e BOUNCEIO_ || true); do
    unset "$variable"
done
unset LD_PRELOAD

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else
    bold='' green='' red='' plain=''
fi

clean_up() {
    [ -z "$scratch" ] || rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# ---- Where ----

has_direct_io() {
    local probe
    probe=$(mktemp "$1/bounceio-probe.XXXXXX" 2>/dev/null) || return 1
    local answer=0
    dd if=/dev/zero of="$probe" bs=4096 count=1 oflag=direct status=none 2>/dev/null || answer=1
    rm -f "$probe"
    return $answer
}

choose_directory() {
    local place
    for place in "$wanted" /var/tmp "${TMPDIR:-/tmp}" /dev/shm; do
        if [ -d "$place" ] && has_direct_io "$place"; then
            scratch=$(mktemp -d "$place/bounceio-demo.XXXXXX")
            return
        fi
    done
    echo "demo: no directory with direct I/O found; name one: BOUNCEIO_DEMO_DIR=/path make demo" >&2
    exit 1
}

# ---- The table ----

row() {
    printf '  %-52s  %-18s  %s\n' "$1" "$2" "$3"
}

good() {
    printf '%s%s%s' "$green" "$1" "$plain"
}

# require TEXT TEST...: a demonstration that does not show what it says fails.
require() {
    local what=$1
    shift
    if ! "$@"; then
        echo "${red}  not as expected: $what${plain}"
        failures=$((failures + 1))
    fi
}

thousands() {
    local number=$1 grouped=
    while [ ${#number} -gt 3 ]; do
        grouped=,${number: -3}$grouped
        number=${number:0:${#number}-3}
    done
    echo "$number$grouped"
}

# number NAME FILE: a number of a JSON file, 0 when there is none.
number() {
    local value
    value=$(sed -n "s/.*\"$1\": *\([0-9][0-9]*\).*/\1/p" "$2" 2>/dev/null || true)
    echo "${value:-0}"
}

# ---- Running programs ----

# with_bounceio CMD...: counters go to $scratch/stats, messages to $scratch/log.
with_bounceio() {
    rm -f "$scratch/stats"
    LD_PRELOAD=$shim BOUNCEIO_STORE=$scratch/store BOUNCEIO_STATS=$scratch/stats BOUNCEIO_LOG_FILE=$scratch/log "$@"
}

without_bounceio() {
    "$@"
}

# timed CMD...: sets $seconds. @return the command's status
timed() {
    local before after status=0
    before=$(date +%s%N)
    "$@" || status=$?
    after=$(date +%s%N)
    seconds=$(printf '%d.%d s' $(((after - before) / 1000000000)) $(((after - before) / 100000000 % 10)))
    return $status
}

copy() {
    dd if="$1" of="$2" bs=1M iflag=direct oflag=direct conv=fsync status=none
}

read_all() {
    dd if="$1" of=/dev/null bs=1M iflag=direct status=none
}

# ---- The steps ----

race() {
    local size=$1 writes=$2 without with
    without_bounceio "$build/examples/racer" --json --size "$size" --writes "$writes" "$scratch/race" >"$scratch/without" ||
        [ $? -eq 1 ] || exit 1
    rm -f "$scratch/race"
    with_bounceio "$build/examples/racer" --json --size "$size" --writes "$writes" "$scratch/race" >"$scratch/with" ||
        [ $? -eq 1 ] || exit 1
    rm -f "$scratch/race"
    without=$(number changed "$scratch/without")
    with=$(number changed "$scratch/with")
    row "  $(thousands "$writes") writes of $size: blocks with a wrong checksum" \
        "$(thousands "$without") of $(thousands "$(number blocks "$scratch/without")")" \
        "$(good "$(thousands "$with")") of $(thousands "$(number blocks "$scratch/with")")"
    wrong=$((wrong + without))
    require "with bounceio, every block is what was checksummed" [ "$with" -eq 0 ]
    require "with bounceio, every block is verified" \
        [ "$(number verified "$scratch/with")" -eq "$(number blocks "$scratch/with")" ]
}

# Real data: programs and libraries, as tar packs them. A slow disk gets a smaller file, to stay within two minutes.
make_large_file() {
    timed make_tar
    if [ "${seconds%%.*}" -ge 30 ]; then
        truncate -s $((256 << 20)) "$scratch/original"
    fi
    truncate -s '/1M' "$scratch/original"
    blocks=$(($(stat -c %s "$scratch/original") / 4096))
    require "there is enough real data for a large file" [ "$blocks" -ge $((64 << 8)) ]
}

make_tar() {
    local size=1G free
    free=$(df --output=avail -B1M "$scratch" | tail -n 1)
    [ "$free" -ge 3072 ] || size=256M
    { tar -cf - /usr 2>/dev/null || true; } | head -c "$size" >"$scratch/original"
    sync "$scratch/original"
}

copy_large_file() {
    local plain_time
    timed without_bounceio copy "$scratch/original" "$scratch/plain"
    plain_time=$seconds
    timed with_bounceio copy "$scratch/original" "$scratch/copy"
    row "dd copies a real file of $((blocks / 256)) MiB" "$plain_time" "$seconds"
    row "  blocks with a checksum" 0 "$(good "$(thousands "$(number blocks_summed "$scratch/stats")")")"
    require "every block copied has a checksum" [ "$(number blocks_summed "$scratch/stats")" -ge "$blocks" ]
    require "the copy equals the original" cmp -s "$scratch/original" "$scratch/copy"
}

read_large_file() {
    local plain_time
    timed without_bounceio read_all "$scratch/plain"
    plain_time=$seconds
    timed with_bounceio read_all "$scratch/copy"
    row "dd reads the copy back" "$plain_time" "$seconds"
    row "  blocks verified" 0 "$(good "$(thousands "$(number blocks_verified "$scratch/stats")")")"
    require "every block read is verified" [ "$(number blocks_verified "$scratch/stats")" -eq "$blocks" ]
    require "no block disagrees" [ "$(number mismatches "$scratch/stats")" -eq 0 ]
}

differ() {
    ! cmp -s "$1" "$2"
}

# Change one bit as failing hardware would: without bounceio, and with the modification time as it was.
flip_bit() {
    local file=$1 offset=$2 byte
    touch -r "$file" "$scratch/time"
    byte=$(od -An -tu1 -j "$offset" -N 1 "$file")
    printf '%b' "\\x$(printf %02x $((byte ^ 1)))" | dd of="$file" bs=1 seek="$offset" conv=notrunc,fsync status=none
    touch -r "$scratch/time" "$file"
}

read_damaged_file() {
    local offset=$((blocks * 4096 * 2 / 3 / 4096 * 4096 + 1234)) before=ok after=ok
    flip_bit "$scratch/plain" "$offset"
    flip_bit "$scratch/copy" "$offset"
    : >"$scratch/log"
    without_bounceio read_all "$scratch/plain" 2>"$scratch/plain-error" || before="fails"
    with_bounceio read_all "$scratch/copy" 2>"$scratch/copy-error" || after="fails"
    if [ $after = fails ] && grep -q "Input/output error" "$scratch/copy-error"; then
        after="fails: Input/output error"
    fi
    row "one bit of the copy flips on the disk" "" ""
    row "  reading it again" "$before, wrong data" "$(good "$after")"
    echo
    echo "  what bounceio reports:"
    echo "${bold}$(grep -m 1 mismatch "$scratch/log" || echo "  nothing")${plain}"
    require "without bounceio, the damage goes unnoticed" [ "$before" = ok ]
    require "without bounceio, the data is wrong" differ "$scratch/original" "$scratch/plain"
    require "with bounceio, the read fails with EIO" [ "$after" = "fails: Input/output error" ]
    require "the report names path and offset" grep -qF \
        "bounceio: checksum mismatch: path=\"$(realpath "$scratch/copy")\" offset=$((offset / 4096 * 4096)) length=4096" \
        "$scratch/log"
}

choose_directory
echo "bounceio on $(findmnt -nvo FSTYPE -T "$scratch" | tail -n 1 || stat -f -c %T "$scratch"), in ${scratch%/*}, Linux $(uname -r)"
echo
echo "$bold$(row "" "without bounceio" "with bounceio")$plain"
row "a thread changes the buffer during each write" "" ""
race 4K 2000
race 64K 2000
race 1M 500
# Of all sizes together: where the kernel copies (tmpfs, btrfs with data checksums) small writes are hard to catch.
require "without bounceio, some blocks are not what was checksummed" [ $wrong -gt 0 ]
make_large_file
copy_large_file
read_large_file
read_damaged_file
echo
if [ $failures -gt 0 ]; then
    echo "${red}demo: $failures expectations not met${plain}"
    exit 1
fi
echo "${green}demo: everything as expected${plain} (${SECONDS} s)"
