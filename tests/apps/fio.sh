#!/bin/bash
# fio's synchronous engines, 512 B to 4 MiB, sequential and random, verified by fio itself and again without the shim.
. "$(dirname "$0")/lib/app.sh"
needs fio dd

# job_file DIRECTORY ENGINE OFFSET: one process per job, each with a file of its own, all at once. Buffers lie OFFSET bytes
# behind a page boundary.
job_file() {
    local directory=$1 engine=$2 offset=$3 size
    cat <<END
[global]
directory=$directory
ioengine=$engine
direct=1
iomem_align=$offset
verify=crc32c
verify_fatal=1
verify_state_save=0
do_verify=1
randrepeat=1
fallocate=none
END
    for size in 512 4k 16k 64k 1M 4M; do
        case $size in
        512) direct_works "$directory" 512 || continue ;;
        esac
        printf '[sequential-%s]\nrw=write\nbs=%s\nsize=%s\n' "$size" "$size" "$(volume "$size")"
        printf '[random-%s]\nrw=randwrite\nbs=%s\nsize=%s\n' "$size" "$size" "$(volume "$size")"
        printf '[mixed-%s]\nrw=randrw\nbs=%s\nsize=%s\n' "$size" "$size" "$(volume "$size")"
    done
    printf '[ranges]\nrw=randwrite\nbsrange=4k-1M\nblockalign=4k\nbs_unaligned=0\nsize=16M\n'
}

# volume SIZE: bytes a job writes with requests of that size.
volume() {
    case $1 in
    512) echo 512k ;;
    4k | 16k) echo 4M ;;
    *) echo 16M ;;
    esac
}

every_engine_verifies() {
    local directory=$2 engine offset
    for engine in psync pvsync pvsync2; do
        for offset in 0 1; do
            rm -f "$directory"/*
            job_file "$directory" $engine $offset >"$app_scratch/jobs"
            shimmed fio --output-format=terse "$app_scratch/jobs"
            writes_were_bounced
            reads_were_verified
            app_step="verifying $engine at $offset without the shim [$app_filesystem]"
            sed -i -e 's/^direct=1/direct=0/' -e 's/^do_verify=1/verify_only=1/' "$app_scratch/jobs"
            fio --output-format=terse "$app_scratch/jobs" >"$app_scratch/native" 2>&1 ||
                { cat "$app_scratch/native" >&2; fail "the data on the file is wrong"; }
        done
    done
}

# share ENGINE SIZE OPTION...: four jobs write their own parts of one file.
share() {
    local engine=$1 size=$2
    shift 2
    rm -f "$directory/shared"
    shimmed fio --name=shared --filename="$directory/shared" --ioengine="$engine" --direct=1 --rw=randwrite --bs="$size" \
        --size=4M --offset_increment=4M --numjobs=4 --group_reporting --verify=crc32c --verify_fatal=1 \
        --verify_state_save=0 --do_verify=1 --output-format=terse "$@"
    writes_were_bounced
    reads_were_verified
}

threads_and_processes_share_one_file() {
    local directory=$2
    share psync 4k --thread
    share pvsync2 8k
}

on_each_filesystem every_engine_verifies
on_each_filesystem threads_and_processes_share_one_file
