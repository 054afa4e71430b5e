#!/bin/bash
# bounceio run, and what all commands share: help, version, exit statuses.
# shellcheck disable=SC2317 # tests are called by name
. "$(dirname "$0")/../support/command.sh"

help_names_every_command() {
    local name
    for name in run scrub adopt forget stat gc; do
        bounceio --help | grep -q "^  $name "
        bounceio "$name" --help | grep -q "^Usage: bounceio $name"
        is "$(bounceio help "$name")" "$(bounceio "$name" --help)"
    done
}

version_is_that_of_the_library() {
    bounceio --version | grep -qE '^bounceio [0-9]+\.[0-9]+\.[0-9]+$'
}

wrong_usage_is_status_2() {
    is "$(status_of bounceio)" 2
    is "$(status_of bounceio nonsense)" 2
    is "$(status_of bounceio stat --nonsense)" 2
    is "$(status_of bounceio forget)" 2
    is "$(status_of bounceio gc file)" 2
}

output_that_cannot_be_written_is_status_2() {
    is "$(status_of bash -c '"$0" --help >/dev/full' "$command")" 2
}

# on_a_terminal COMMAND...: what it prints there.
on_a_terminal() { python3 -c 'import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) != 0)' "$@"; }

progress_is_shown_on_a_terminal_only() {
    write_file file 4096
    on_a_terminal "$command" scrub file >seen
    grep -q 'scrub \[[#.]*\] *[0-9]*%.* of 16 MiB .*/s .* left' seen
    "$command" scrub file >seen 2>&1
    is "$(grep -c "$(printf '\r')" seen || true)" 0
    on_a_terminal "$command" scrub --quiet file >seen
    is "$(grep -c '%' seen || true)" 0
}

# Sanitizers' runtimes must come first in LD_PRELOAD, and are not what a user has.
[ -z "${BOUNCEIO_TEST_SANITIZER:-}" ] || { echo "skipped: needs a library without sanitizer"; exit 77; }

program_runs_under_the_shim() {
    bounceio run dd if=/dev/zero of=file bs=4096 count=3 oflag=direct status=none
    is "$(stat_of file blocks_with_checksum)" 3
}

program_s_status_is_its_own() {
    is "$(status_of bounceio run sh -c 'exit 7')" 7
}

what_cannot_be_run_is_126_or_127() {
    touch file
    is "$(status_of bounceio run ./file)" 126
    is "$(status_of bounceio run ./nonesuch)" 127
    is "$(status_of bounceio run nonesuch)" 127
}

failure_of_our_own_is_125() {
    is "$(status_of bounceio run)" 125
    is "$(status_of bounceio run --read=nonsense true)" 125
    is "$(status_of bounceio run --pool=1X true)" 125
    is "$(status_of bounceio run --nonsense true)" 125
    is "$(status_of bounceio run --store= true)" 125
}

options_after_the_program_are_its_own() {
    is "$(bounceio run echo --read=nonsense)" --read=nonsense
    is "$(bounceio run -- printf "%s" --help)" --help
}

options_become_variables() {
    bounceio run --on-mismatch=warn --read=bounce --pool 4M --pool-max 8M --copy=kernel --include 'a*' --include b \
        --exclude c --detect --adopt --log=debug --log-file log --stats %p.json --store store env >out
    grep -qx BOUNCEIO_ON_MISMATCH=warn out
    grep -qx BOUNCEIO_READ=bounce out
    grep -qx BOUNCEIO_POOL=4M out
    grep -qx BOUNCEIO_POOL_MAX=8M out
    grep -qx BOUNCEIO_COPY=kernel out
    grep -qx 'BOUNCEIO_INCLUDE=a\*:b' out
    grep -qx BOUNCEIO_EXCLUDE=c out
    grep -qx BOUNCEIO_DETECT=1 out
    grep -qx BOUNCEIO_ADOPT=1 out
    grep -qx BOUNCEIO_LOG=debug out
    grep -qx "BOUNCEIO_LOG_FILE=$PWD/log" out
    grep -qx "BOUNCEIO_STATS=$PWD/%p.json" out
    grep -qx "BOUNCEIO_STORE=$PWD/store" out
}

other_preloaded_libraries_stay_and_the_shim_comes_once() {
    LD_PRELOAD="libm.so.6:$BOUNCEIO_SHIM" bounceio run env >out
    grep -qE '^LD_PRELOAD=[^:]*libbounceshim.so:libm.so.6$' out
}

command_does_not_run_under_the_shim_itself() {
    write_file file 4
    LD_PRELOAD=$BOUNCEIO_SHIM BOUNCEIO_STATS=$PWD/stats "$command" scrub --quiet file
    [ ! -e stats ]
}

program_that_cannot_be_reached_is_warned_of() {
    bounceio run ldconfig --version 2>errors >/dev/null || true
    grep -q 'statically linked' errors
    is "$(bounceio run true 2>&1)" ""
    [ "$(id -u)" -eq 0 ] || return 0
    cp /bin/true setuid
    chown 65534 setuid
    chmod 4755 setuid
    bounceio run ./setuid 2>errors
    grep -q 'set-user-ID' errors
}

script_s_interpreter_is_looked_at() {
    printf '#!/sbin/ldconfig --version\n' >script
    chmod +x script
    bounceio run ./script 2>errors >/dev/null || true
    grep -q 'ldconfig.*statically linked' errors
}

installed_command_finds_the_installed_library() {
    mkdir -p usr/bin usr/lib
    cp "$command" usr/bin/
    cp "$BOUNCEIO_SHIM" usr/lib/libbounceshim.so.0.1.0
    ln -s libbounceshim.so.0.1.0 usr/lib/libbounceshim.so.0
    usr/bin/bounceio run env | grep -qx "LD_PRELOAD=$PWD/usr/lib/libbounceshim.so.0.1.0"
}

library_whose_path_cannot_be_preloaded_is_refused() {
    mkdir "a b"
    cp "$command" "$BOUNCEIO_SHIM" "a b"
    is "$(status_of "a b/bounceio" run true)" 125
}

run_tests once help_names_every_command version_is_that_of_the_library wrong_usage_is_status_2 \
    output_that_cannot_be_written_is_status_2 progress_is_shown_on_a_terminal_only program_runs_under_the_shim program_s_status_is_its_own \
    what_cannot_be_run_is_126_or_127 failure_of_our_own_is_125 options_after_the_program_are_its_own \
    options_become_variables other_preloaded_libraries_stay_and_the_shim_comes_once \
    command_does_not_run_under_the_shim_itself program_that_cannot_be_reached_is_warned_of \
    script_s_interpreter_is_looked_at installed_command_finds_the_installed_library \
    library_whose_path_cannot_be_preloaded_is_refused
