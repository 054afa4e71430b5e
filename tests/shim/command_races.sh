#!/bin/bash
# bounceio forget and gc against programs that open, write, shorten and close the same files all the time.
# shellcheck disable=SC2317 # tests are called by name
. "$(dirname "$0")/../support/command.sh"

seconds=${BOUNCEIO_TEST_FULL:+60}
seconds=${seconds:-4}

# work FILE: until the time is over, open the file, write some of it, shorten it at times, and see that all of it can be read.
cat >"$scratch/work.py" <<'PYTHON'
import mmap, os, random, sys, time
path, until = sys.argv[1], time.monotonic() + float(sys.argv[2])
memory, size = mmap.mmap(-1, 1 << 20), 24 << 20
rounds = 0
while time.monotonic() < until:
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    for _ in range(4):
        memory[:8] = random.randbytes(8)
        os.pwrite(fd, memory, random.randrange(0, size, 1 << 20))
    if rounds % 3 == 0:
        os.ftruncate(fd, random.randrange(0, size, 1 << 20))
    for offset in range(0, os.fstat(fd).st_size, 1 << 20):
        os.preadv(fd, [memory], offset)
    os.close(fd)
    rounds += 1
print(rounds)
PYTHON

work() { shimmed_slowly python3 "$scratch/work.py" "$1" "$seconds"; }

# With delays between the steps of the protocol, where that build is there.
shimmed_slowly() {
    if [ -e "${BOUNCEIO_SHIM_STEPS:-}" ]; then
        BOUNCEIO_TEST_DELAYS=300:8 LD_PRELOAD=$BOUNCEIO_SHIM_STEPS "$@"
    else
        shimmed "$@"
    fi
}

# slow_command: the build of the command with the same delays, if there is one.
slow_command=$BOUNCEIO_TEST_BUILD/steps/bounceio
[ -e "$slow_command" ] || slow_command=$command

# Run it again and again while `work` goes on; it must always succeed, or say that a file is in use.
disturb() {
    local status count=0
    while kill -0 "$worker" 2>/dev/null; do
        status=0
        BOUNCEIO_TEST_DELAYS=300:8 "$slow_command" "$@" >output 2>&1 || status=$?
        if [ "$status" -ne 0 ] && ! grep -qE 'in use|try again' output; then
            cat output >&2
            return 1
        fi
        count=$((count + 1))
    done
    [ "$count" -gt 0 ]
}

# against COMMAND...: two workers on one file, and the command.
against() {
    local worker other
    truncate -s 24M file
    work file >rounds 2>said &
    worker=$!
    work file >other_rounds 2>other_said &
    other=$!
    disturb "$@"
    wait "$worker" "$other"
    [ "$(cat rounds)" -gt 0 ]
    # A program with a map of its own takes the others' writes for changes from outside.
    is "$(cat said other_said)" ""
    write_file file 1 # makes a map, if there is none
    is "$(maps)" 1
    bounceio scrub --quiet file
}

forget_leaves_no_program_with_a_map_of_its_own() {
    against forget file
}

gc_never_takes_space_or_a_map_that_is_used() {
    against gc
}

run_tests once forget_leaves_no_program_with_a_map_of_its_own gc_never_takes_space_or_a_map_that_is_used
