# What the tests of fio's asynchronous engines share: jobs that verify what they wrote, at several queue depths, in several ways of using
# the engine. Sourced after app.sh.

fio_depths="1 16 64"
fio_filesystems="ext4 xfs btrfs-nocow tmpfs"

# fio_jobs DIRECTORY ENGINE DEPTH LINE...: three files, written in small, medium and large requests all at once.
fio_jobs() {
    local directory=$1 engine=$2 depth=$3
    shift 3
    cat <<END
[global]
directory=$directory
ioengine=$engine
iodepth=$depth
direct=1
verify=crc32c
verify_fatal=1
verify_state_save=0
do_verify=1
randrepeat=1
fallocate=none
END
    [ $# -eq 0 ] || printf '%s\n' "$@"
    printf '[small]\nrw=randwrite\nbs=4k\nsize=8M\n'
    printf '[medium]\nrw=randrw\nbs=16k\nsize=12M\n'
    printf '[large]\nrw=write\nbs=512k\nsize=48M\n'
}

# fio_total DIRECTION: requests that the last run says it made.
fio_total() {
    awk -v section="\"$1\" : {" 'index($0, section) { inside = 1 }
        inside && /"total_ios"/ { gsub(/[^0-9]/, ""); sum += $0; inside = 0 } END { print sum + 0 }' "$app_scratch/output"
}

# every_request_was_bounced BLOCKS: and fio itself has counted no more of them than the shim. At most so many blocks were read whose
# checksum nobody knew.
every_request_was_bounced() {
    writes_were_bounced
    reads_were_verified
    expect direct_writes -ge "$(fio_total write)"
    expect direct_reads -ge "$(fio_total read)"
    expect blocks_unverified -le "$1"
    expect suspicions -eq 0
    expect unstable_buffers -eq 0
}

# fio_verifies NAME DIRECTORY ENGINE LINE...: fio writes and verifies under the shim; again without it; scrub.
fio_verifies() {
    local name=$1 directory=$2 engine=$3 depth rates=""
    shift 3
    for depth in $fio_depths; do
        rm -f "$directory"/*
        fio_jobs "$directory" "$engine" "$depth" "$@" >"$app_scratch/jobs"
        shimmed timeout -k 5 120 fio --output-format=json "$app_scratch/jobs"
        # What the mixed job reads before it has written it.
        every_request_was_bounced $((12 * 256))
        rates="$rates, depth $depth $app_seconds s"
        fio_jobs "$directory" psync 1 >"$app_scratch/again"
        sed -i -e 's/^direct=1/direct=0/' -e 's/^do_verify=1/verify_only=1/' "$app_scratch/again"
        natively fio --output-format=terse "$app_scratch/again"
        scrub_is_clean "$directory"
        [ -n "${BOUNCEIO_TEST_FULL:-}" ] || continue
        adopt_all "$directory"
        fio_jobs "$directory" "$engine" "$depth" "$@" time_based runtime=30 >"$app_scratch/jobs"
        shimmed timeout -k 5 120 fio --output-format=json "$app_scratch/jobs"
        every_request_was_bounced 0
        scrub_is_clean "$directory"
    done
    echo "* $name on $app_filesystem: ${rates#, }"
}

# fio_fails_on_damage DIRECTORY ENGINE LINE...: a flipped bit in what fio wrote makes its next verification fail with EIO.
fio_fails_on_damage() {
    local directory=$1 engine=$2
    shift 2
    rm -f "$directory"/*
    fio_jobs "$directory" "$engine" 16 "$@" >"$app_scratch/jobs"
    shimmed timeout -k 5 120 fio --output-format=json "$app_scratch/jobs"
    sed -i -e 's/^do_verify=1/verify_only=1/' "$app_scratch/jobs"
    damage_is_found "$directory/large.0.0" $((5 * 1024 * 1024 + 321)) fio --output-format=terse "$app_scratch/jobs"
    grep -q 'Input/output error' "$app_scratch/output" || { cat "$app_scratch/output" >&2; fail "fio was not told EIO"; }
}

# fio_shares DIRECTORY ENGINE LINE...: four processes, then four threads, write and verify their own parts of one file.
fio_shares() {
    local directory=$1 engine=$2 how
    shift 2
    for how in "" thread; do
        rm -f "$directory"/*
        fio_jobs "$directory" "$engine" 16 "$@" $how | sed '/^\[small\]/,$d' >"$app_scratch/jobs"
        printf '[part]\nfilename=shared\nrw=randwrite\nbs=8k\nsize=6M\noffset_increment=6M\nnumjobs=4\n' >>"$app_scratch/jobs"
        shimmed timeout -k 5 120 fio --output-format=json "$app_scratch/jobs"
        every_request_was_bounced 0
        scrub_is_clean "$directory/shared"
    done
}

# fio_is_killed DIRECTORY ENGINE LINE...: in the middle of its work, again and again; then nothing on the files must disagree with what is known
# of them: what was in flight is unknown.
fio_is_killed() {
    local directory=$1 engine=$2 round file
    shift 2
    for round in 1 2 3 4; do
        fio_jobs "$directory" "$engine" 64 "$@" thread time_based runtime=60 loops=1000 | sed 's/^do_verify=1/do_verify=0/' \
            >"$app_scratch/jobs"
        server_start "$app_scratch/log" fio --output-format=terse "$app_scratch/jobs"
        server_answers server_has_written
        sleep "0.$((round * 2))"
        [ "$(server_counter passed_through)" -eq 0 ] || server_fail "requests have passed through"
        server_is_killed
        for file in "$directory"/*; do
            shimmed dd if="$file" of=/dev/null bs=1M iflag=direct
            nothing_went_wrong
        done
        scrub_is_clean "$directory"
    done
}
