#!/bin/bash
# bounceio gc: never removes the map of a file that exists, removes the others, and gives space back.
# shellcheck disable=SC2317 # tests are called by name
. "$(dirname "$0")/../support/command.sh"

[ "$(id -u)" -eq 0 ] || { echo "skipped: only root may look for files by their handle"; exit 77; }

gc() { bounceio gc --json "$@" >"$scratch/gc.json"; }
counted() { number "$1" <"$scratch/gc.json"; }

# still_checked PATH BLOCKS: it can be read, and that many blocks are known.
still_checked() {
    read_file "$1"
    is "$(stat_of "$1" blocks_with_checksum)" "$2"
}

map_of_a_deleted_file_is_removed() {
    write_file file 8
    rm file
    gc
    is "$(counted removed)" 1
    is "$(maps)" 0
}

map_of_a_file_that_is_there_stays() {
    write_file file 8
    gc
    is "$(counted removed)" 0
    still_checked file 8
}

map_of_a_renamed_file_stays_and_learns_its_path() {
    write_file file 8
    mkdir sub
    mv file sub/other
    gc
    is "$(counted removed)" 0
    still_checked sub/other 8
}

map_of_a_file_below_a_renamed_directory_stays() {
    mkdir -p one/two
    write_file one/two/file 8
    mv one other
    gc
    is "$(maps)" 1
    still_checked other/two/file 8
}

map_of_a_file_stays_as_long_as_a_hard_link_does() {
    write_file file 8
    ln file link
    rm file
    gc
    is "$(maps)" 1
    still_checked link 8
    rm link
    gc
    is "$(maps)" 0
}

map_of_a_replaced_file_is_removed_and_the_new_one_s_stays() {
    write_file file 8
    write_file new 4
    mv new file
    gc
    is "$(counted removed)" 1
    still_checked file 4
}

file_that_is_deleted_but_open_keeps_its_map() {
    write_file file 8
    exec 8<file
    rm file
    gc
    is "$(maps)" 1
    exec 8<&-
    gc
    is "$(maps)" 0
}

# hold FILE: a process under the shim that has it open until its standard input ends.
hold() { shimmed python3 -c 'import os, sys; fd = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT); print("open", flush=True); sys.stdin.read()' "$1"; }

map_in_use_stays() {
    write_file file 8
    coproc hold file
    read -r _ <&"${COPROC[0]}"
    rm file
    gc
    is "$(counted in_use)" 1
    is "$(maps)" 1
    eval "exec ${COPROC[1]}>&-"
    wait
    gc
    is "$(maps)" 0
}

file_on_a_file_system_that_is_not_mounted_keeps_its_map() {
    small_filesystem ext4 "$scratch/image" "$scratch/mount" || skip "cannot mount"
    write_file "$scratch/mount/file" 8
    umount "$scratch/mount"
    gc
    is "$(counted filesystem_not_mounted)" 1
    small_filesystem ext4 "$scratch/image" "$scratch/mount"
    still_checked "$scratch/mount/file" 8
    rm "$scratch/mount/file"
    gc
    is "$(counted removed)" 1
    umount "$scratch/mount"
    rm "$scratch/image"
}

file_system_that_is_mounted_elsewhere_has_its_files_found() {
    small_filesystem ext4 "$scratch/image" "$scratch/mount" || skip "cannot mount"
    write_file "$scratch/mount/file" 8
    umount "$scratch/mount"
    small_filesystem ext4 "$scratch/image" "$scratch/elsewhere"
    gc
    is "$(maps)" 1
    still_checked "$scratch/elsewhere/file" 8
    umount "$scratch/elsewhere"
    rm "$scratch/image"
}

# A clone has the same identity, and the handles of files made since are stale on it.
older_clone_of_a_file_system_proves_nothing() {
    local kind
    for kind in ext4 xfs; do
        small_filesystem $kind "$scratch/image" "$scratch/mount" || skip "cannot mount"
        sync -f "$scratch/mount"
        umount "$scratch/mount"
        cp --sparse=always "$scratch/image" "$scratch/clone"
        small_filesystem $kind "$scratch/image" "$scratch/mount"
        write_file "$scratch/mount/file" 8
        umount "$scratch/mount"
        small_filesystem $kind "$scratch/clone" "$scratch/elsewhere"
        gc
        is "$(counted undecided)" 1
        umount "$scratch/elsewhere"
        small_filesystem $kind "$scratch/image" "$scratch/mount"
        still_checked "$scratch/mount/file" 8
        rm "$scratch/mount/file"
        gc
        is "$(counted removed)" 1
        umount "$scratch/mount"
        rm "$scratch/image" "$scratch/clone"
    done
}

file_in_another_mount_namespace_keeps_its_map() {
    [ "$(id -u)" -eq 0 ] && unshare --mount true 2>/dev/null || skip "no mount namespaces"
    export command scratch BOUNCEIO_SHIM
    export -f small_filesystem write_file shimmed
    coproc unshare --mount --propagation private bash -c \
        'small_filesystem ext4 "$scratch/image" "$scratch/mount" && write_file "$scratch/mount/file" 8 && echo ready && read -r _'
    read -r ready <&"${COPROC[0]}" || skip "cannot mount"
    is "$ready" ready
    gc
    is "$(counted filesystem_not_mounted)" 1
    is "$(maps)" 1
    eval "exec ${COPROC[1]}>&-"
    wait || true
    rm "$scratch/image"
}

# What is mounted over the place of a file hides it; its handle still finds it by another mount.
file_hidden_by_a_mount_keeps_its_map() {
    [ "$(id -u)" -eq 0 ] || skip "cannot mount"
    mkdir sub
    write_file sub/file 8
    mount -t tmpfs none sub
    gc
    is "$(maps)" 1
    umount sub
    still_checked sub/file 8
}

subvolumes_of_btrfs_are_told_apart_and_found() {
    case $1 in btrfs) ;; *) return 0 ;; esac
    btrfs subvolume create sub >/dev/null
    write_file sub/file 8
    btrfs subvolume snapshot sub snapshot >/dev/null
    mv sub/file sub/other
    gc
    is "$(counted removed)" 0
    still_checked sub/other 8
    rm sub/other
    gc
    is "$(counted removed)" 1
    write_file snapshot/file 4
    btrfs subvolume delete snapshot >/dev/null
    gc
    is "$(maps)" 0
}

without_the_right_to_use_handles_nothing_is_removed() {
    [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null || skip "cannot drop privileges"
    write_file file 8
    rm file
    setpriv --bounding-set=-dac_read_search --inh-caps=-dac_read_search "$command" gc --json >"$scratch/gc.json"
    is "$(counted undecided)" 1
    is "$(maps)" 1
}

dry_run_changes_nothing() {
    write_file file 8
    rm file
    gc --dry-run
    is "$(counted removed)" 1
    is "$(maps)" 1
}

what_a_dead_creator_left_is_removed_after_a_minute() {
    write_file file 8
    touch "$BOUNCEIO_STORE/maps/a.new.1"
    touch -d '2 minutes ago' "$BOUNCEIO_STORE/maps/b.new.2"
    gc
    is "$(counted left_over_removed)" 1
    is "$(maps)" 2
    [ -e "$BOUNCEIO_STORE/maps/a.new.1" ]
}

what_a_power_cut_left_of_a_new_map_is_removed() {
    write_file file 8
    truncate -s 0 "$BOUNCEIO_STORE"/maps/*
    gc
    is "$(counted left_over_removed)" 1
    is "$(maps)" 0
}

damaged_map_stays_for_the_shim_to_set_aside() {
    write_file file 8
    printf nonsense | dd of="$(echo "$BOUNCEIO_STORE"/maps/*)" conv=notrunc status=none
    gc
    is "$(counted damaged)" 1
    is "$(maps)" 1
}

maps_set_aside_are_removed_on_demand() {
    write_file file 8
    touch "$BOUNCEIO_STORE/maps/a.bad"
    gc
    is "$(counted set_aside)" 1
    gc --set-aside
    is "$(maps)" 1
}

truncated_file_s_map_gives_its_space_back() {
    local before
    write_file file 4096
    before=$(stat_of file map_bytes_on_disk)
    shimmed truncate -s 64K file
    gc
    is "$(counted trimmed)" 1
    [ "$(stat_of file map_bytes_on_disk)" -le $((before - 3 * 16384)) ]
    still_checked file 16
    write_file file 4096
    still_checked file 4096
}

checksums_beyond_the_end_show_that_a_file_was_cut_off() {
    local modified
    # Three units of the map; with two, one that was allocated ahead would be given back.
    write_file file 3072
    modified=$(stat -c %.9Y file)
    truncate -s 64K file
    touch -d "@$modified" file
    gc
    is "$(counted trimmed)" 0
}

dirty_regions_of_a_killed_writer_are_marked_clean() {
    (shimmed python3 - file 2>/dev/null <<'PYTHON'
import mmap, os, signal, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_DIRECT)
os.pwrite(fd, mmap.mmap(-1, 65536), 0)
os.kill(os.getpid(), signal.SIGKILL)
PYTHON
    ) || true
    is "$(stat_of file regions_dirty)" 1
    gc
    is "$(counted regions_cleared)" 1
    is "$(stat_of file regions_dirty)" 0
    still_checked file 16
}

space_of_a_file_shortened_without_the_shim_is_given_back() {
    write_file file 4096
    sleep 0.2 # so that the file's time tells
    truncate -s 64K file
    gc
    is "$(counted trimmed)" 1
    is "$(stat_of file regions_dirty)" 0
    truncate -s 16M file
    read_file file
    is "$(stat_of file blocks_with_checksum)" 1024
}

# The session of a killed writer, as it lies in the store.
edit_session() {
    python3 - "$BOUNCEIO_STORE/sessions/0" "$@" <<'PYTHON'
import struct, sys
path, map_id = sys.argv[1], int(sys.argv[2])
with open(path, "r+b") as session:
    session.seek(48)  # flights_high
    session.write(struct.pack("<Q", 1))
    session.seek(4096)
    session.write(struct.pack("<QQQQq", 2, map_id, 0, 8, 0))
PYTHON
}

id_of_map() { python3 -c 'import struct, sys; print(struct.unpack_from("<Q", open(sys.argv[1], "rb").read(88), 72)[0])' "$BOUNCEIO_STORE"/maps/*; }

requests_of_the_dead_on_removed_maps_are_dropped() {
    write_file file 8
    edit_session "$(id_of_map)"
    rm file
    gc
    is "$(counted removed)" 1
    is "$(counted requests_dropped)" 1
    is "$(counted sessions_emptied)" 1
}

# Its words are idle: nothing was being written any more when it died.
requests_of_the_dead_on_maps_that_exist_are_settled() {
    write_file file 8
    edit_session "$(id_of_map)"
    gc
    is "$(counted requests_dropped)" 0
    is "$(od -An -tu1 -j4096 -N1 "$BOUNCEIO_STORE/sessions/0" | tr -d ' ')" 0
    still_checked file 8
}

# in_slot_1 COMMAND...: while another process is in slot 0.
in_slot_1() {
    coproc hold file
    read -r _ <&"${COPROC[0]}"
    "$@"
    eval "exec ${COPROC[1]}>&-"
    wait
}

tables_of_ended_processes_give_their_space_back() {
    local full
    write_file file 8
    full=$(stat -c %b "$BOUNCEIO_STORE/sessions/0")
    in_slot_1 read_file file
    is "$(stat -c %b "$BOUNCEIO_STORE/sessions/1")" "$full"
    gc # in slot 0 itself
    is "$(counted sessions_emptied)" 1
    is "$(stat -c %b "$BOUNCEIO_STORE/sessions/1")" 8
    in_slot_1 read_file file
    is "$(stat -c %b "$BOUNCEIO_STORE/sessions/1")" "$full"
}

run_tests on_each map_of_a_deleted_file_is_removed map_of_a_renamed_file_stays_and_learns_its_path \
    truncated_file_s_map_gives_its_space_back subvolumes_of_btrfs_are_told_apart_and_found \
    once map_of_a_file_that_is_there_stays map_of_a_file_below_a_renamed_directory_stays \
    map_of_a_file_stays_as_long_as_a_hard_link_does map_of_a_replaced_file_is_removed_and_the_new_one_s_stays \
    file_hidden_by_a_mount_keeps_its_map file_that_is_deleted_but_open_keeps_its_map map_in_use_stays \
    file_on_a_file_system_that_is_not_mounted_keeps_its_map file_system_that_is_mounted_elsewhere_has_its_files_found \
    older_clone_of_a_file_system_proves_nothing file_in_another_mount_namespace_keeps_its_map \
    without_the_right_to_use_handles_nothing_is_removed dry_run_changes_nothing \
    what_a_dead_creator_left_is_removed_after_a_minute what_a_power_cut_left_of_a_new_map_is_removed \
    damaged_map_stays_for_the_shim_to_set_aside maps_set_aside_are_removed_on_demand \
    space_of_a_file_shortened_without_the_shim_is_given_back checksums_beyond_the_end_show_that_a_file_was_cut_off dirty_regions_of_a_killed_writer_are_marked_clean \
    requests_of_the_dead_on_removed_maps_are_dropped requests_of_the_dead_on_maps_that_exist_are_settled \
    tables_of_ended_processes_give_their_space_back
