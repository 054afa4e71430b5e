#!/bin/bash
# bounceio stat and forget: what is said of files, processes and the store, and that forgetting leaves nobody without his map.
# shellcheck disable=SC2317 # tests are called by name
. "$(dirname "$0")/../support/command.sh"

# hold FILE: a process under the shim that has written one block of it, and has it open until its standard input ends.
hold() {
    shimmed python3 -c 'import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
os.pwrite(fd, mmap.mmap(-1, 4096), 0)
print(os.getpid(), flush=True)
sys.stdin.read()' "$1"
}
start_holding() {
    coproc hold "$1"
    read -r holder <&"${COPROC[0]}"
}
end_holding() {
    eval "exec ${COPROC[1]}>&-"
    wait
}

valid_json() { python3 -m json.tool >/dev/null; }

blocks_with_and_without_checksum_are_counted() {
    write_file file 10
    truncate -s 80K file
    is "$(stat_of file has_map)" true
    is "$(stat_of file size)" 81920
    is "$(stat_of file blocks)" 20
    is "$(stat_of file blocks_with_checksum)" 10
    is "$(stat_of file blocks_unknown)" 10
    is "$(stat_of file blocks_damaged)" 0
    is "$(stat_of file coverage_percent)" 50.000
}

damaged_block_is_counted_once_it_was_found() {
    write_file file 10
    bounceio stat file | grep -q 'damaged  *0 blocks'
    python3 - file <<'PYTHON'
import os, sys
status = os.stat(sys.argv[1])
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, b"x" * 16, 8192)
os.fsync(fd)
os.utime(sys.argv[1], ns=(status.st_atime_ns, status.st_mtime_ns))
PYTHON
    # A partial write finds the damage, and poisons the block.
    shimmed python3 -c 'import mmap, os
os.pwrite(os.open("file", os.O_RDWR | os.O_DIRECT), mmap.mmap(-1, 4096)[:512], 8704)' 2>/dev/null || true
    is "$(stat_of file blocks_damaged)" 1
}

file_without_a_map_is_said_to_have_none() {
    touch file
    write_file other 1
    is "$(stat_of file has_map)" false
    bounceio stat file | grep -q 'map  *none'
}

last_write_and_its_boot_are_told() {
    local now
    write_file file 1
    now=$(stat -c %Y file)
    is "$(stat_of file last_written | cut -d. -f1)" "$now"
    is "$(stat_of file this_boot)" true
    BOUNCEIO_TEST_BOOT_ID=00000000000000000000000000000001 bounceio stat --json file | grep -q '"this_boot": false'
    is "$(stat_of file boot)" '"'"$(cat /proc/sys/kernel/random/boot_id)"'"'
}

looking_changes_nothing() {
    local before
    write_file file 1
    before=$(find "$BOUNCEIO_STORE" -type f -exec sha256sum {} +)
    bounceio stat file >/dev/null
    BOUNCEIO_TEST_BOOT_ID=00000000000000000000000000000001 bounceio stat file . >/dev/null
    bounceio stat >/dev/null
    is "$(find "$BOUNCEIO_STORE" -type f -exec sha256sum {} +)" "$before"
}

directory_tells_of_the_files_that_have_a_map() {
    mkdir -p sub/deeper
    write_file sub/deeper/file 1
    write_file sub/other 1
    touch sub/without
    is "$(bounceio stat --json . | grep -c '"path"')" 2
}

region_in_use_is_dirty_and_suspect_after_a_power_cut() {
    write_file file 1
    start_holding file
    is "$(stat_of file regions_dirty)" 1
    kill -9 "$holder"
    end_holding || true
    BOUNCEIO_TEST_BOOT_ID=00000000000000000000000000000001 read_file file
    is "$(stat_of file regions_suspect)" 1
    bounceio stat --verbose file | grep -q 'suspect: offset 0,'
}

process_is_told_by_its_pid() {
    write_file file 2
    start_holding file
    is "$(bounceio stat --json "$holder" | number direct_writes)" 1
    bounceio stat "$holder" | grep -q "file  *$PWD/file"
    is "$(bounceio stat --json | number pid)" "$holder"
    bounceio stat file | grep -q "1 process: $holder (python3)"
    end_holding
    is "$(status_of bounceio stat "$holder")" 2
}

file_with_a_name_of_digits_is_named_with_its_directory() {
    write_file 12345 1
    is "$(stat_of ./12345 has_map)" true
}

process_of_another_user_names_the_remedy() {
    [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null || skip "not root"
    write_file file 2
    start_holding file
    setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace "$command" stat "$holder" >/dev/null 2>errors || true
    # A process with all of our rights but one more is not ours to look at.
    grep -q 'root' errors
    end_holding
}

names_of_any_bytes_give_valid_json() {
    local name=$'back\\slash "quote" \xff\xfe new\nline \xc3\xa4'
    write_file "$name" 1
    bounceio stat --json "$name" | valid_json
    bounceio stat --json . | valid_json
    bounceio stat --json | valid_json
    bounceio stat "$name" | head -1 | grep -q 'new?line'
}

without_a_store_nothing_is_known_and_nothing_is_made() {
    touch file
    is "$(status_of bounceio stat file)" 0
    is "$(status_of bounceio stat)" 0
    is "$(status_of bounceio forget file)" 0
    is "$(status_of bounceio gc)" 0
    is "$(status_of bounceio stat nonesuch)" 2
    is "$(status_of bounceio forget nonesuch)" 2
    bounceio stat --json file 2>/dev/null | valid_json
    [ ! -e "$BOUNCEIO_STORE" ]
}

forgotten_file_has_no_map() {
    write_file file 8
    write_file other 8
    is "$(bounceio forget --json file | number maps_removed)" 1
    is "$(stat_of file has_map)" false
    is "$(stat_of other has_map)" true
    is "$(bounceio forget --json file | number maps_removed)" 0
}

directory_is_forgotten_as_a_whole() {
    mkdir -p sub/deeper
    write_file sub/file 8
    write_file sub/deeper/file 8
    ln sub/file sub/link
    write_file other 8
    is "$(bounceio forget --json sub | number maps_removed)" 2
    is "$(maps)" 1
}

symbolic_links_below_a_directory_are_not_followed() {
    mkdir sub
    write_file file 8
    ln -s ../file sub/link
    is "$(bounceio forget --json sub | number maps_removed)" 0
    is "$(bounceio forget --json sub/link | number maps_removed)" 1
}

file_in_use_is_not_forgotten_and_its_user_is_named() {
    write_file file 8
    start_holding file
    is "$(status_of bounceio forget file)" 2
    { bounceio forget file 2>&1 || true; } | grep -q "in use by $holder (python3)"
    is "$(stat_of file blocks_with_checksum)" 8
    end_holding
    is "$(status_of bounceio forget file)" 0
    is "$(stat_of file has_map)" false
}

# Promised: 0.45% of the file and 64 KiB, and all of it given back.
large_file_s_map_costs_what_is_promised() {
    local size=$((80 << 20)) bytes
    shimmed dd if=/dev/zero of=file bs=1M count=80 oflag=direct status=none
    bytes=$(stat_of file map_bytes_on_disk)
    [ "$bytes" -le $((size * 45 / 10000 + 65536)) ] || { echo "$bytes bytes" >&2; return 1; }
    bounceio forget --quiet file
    [ "$(du -s --block-size=1K "$BOUNCEIO_STORE/maps" | cut -f1)" -le 64 ]
}

thousand_small_files_cost_less_than_64_MiB() {
    BOUNCEIO_STORE=$PWD/../store # in memory: each file is flushed when it is closed
    shimmed python3 - <<'PYTHON'
import mmap, os
memory = mmap.mmap(-1, 102400)
for i in range(1000):
    fd = os.open("file%d" % i, os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    os.pwrite(fd, memory, 0)
    os.close(fd)
PYTHON
    is "$(maps)" 1000
    [ "$(du -s --block-size=1M "$BOUNCEIO_STORE" | cut -f1)" -le 64 ]
    rm file?
    is "$(bounceio gc --json | number removed)" 10
    is "$(bounceio forget --json . | number maps_removed)" 990
    [ "$(du -s --block-size=1M "$BOUNCEIO_STORE" | cut -f1)" -le 1 ]
}

run_tests on_each blocks_with_and_without_checksum_are_counted file_in_use_is_not_forgotten_and_its_user_is_named \
    large_file_s_map_costs_what_is_promised \
    once damaged_block_is_counted_once_it_was_found file_without_a_map_is_said_to_have_none last_write_and_its_boot_are_told \
    looking_changes_nothing directory_tells_of_the_files_that_have_a_map region_in_use_is_dirty_and_suspect_after_a_power_cut \
    process_is_told_by_its_pid file_with_a_name_of_digits_is_named_with_its_directory process_of_another_user_names_the_remedy \
    names_of_any_bytes_give_valid_json without_a_store_nothing_is_known_and_nothing_is_made forgotten_file_has_no_map \
    directory_is_forgotten_as_a_whole symbolic_links_below_a_directory_are_not_followed thousand_small_files_cost_less_than_64_MiB
