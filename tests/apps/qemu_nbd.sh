#!/bin/bash
# qemu-nbd serves an image to several clients at once, as a virtual machine's disk is served: an event loop that waits for sockets and
# for completions together. Killed and started again, it must find what it has flushed.
. "$(dirname "$0")/lib/app.sh"
. "$app_directory/server.sh"
needs qemu-nbd qemu-img qemu-io cmp python3

count=4000
[ -z "${BOUNCEIO_TEST_FULL:-}" ] || count=100000

server_needs_sockets
address="nbd+unix:///?socket=$server_sockets/nbd"

# start_nbd AIO IMAGE
start_nbd() {
    rm -f "$server_sockets/nbd"
    server_start "$app_scratch/log" qemu-nbd --persistent --shared=8 --format=raw --cache=none --aio="$1" --discard=unmap \
        --socket="$server_sockets/nbd" "$2"
    server_answers qemu-img info "$address"
}

stop_nbd() {
    kill -TERM "$server_pid"
    server_ends 30 || server_fail "does not end well"
    ! grep 'bounceio: ' "$app_scratch/log" >&2 || fail "the shim had something to say"
}

# client COMMAND...: of qemu-io, natively.
client() {
    local command
    local -a arguments=()
    for command in "$@"; do
        arguments+=(-c "$command")
    done
    natively timeout 60 qemu-io -f raw "${arguments[@]}" "$address"
    ! grep -i -e 'pattern verification failed' -e error -e failed "$app_scratch/native" || fail "a client saw wrong data"
}

# Each has 32 MiB of its own.
four_clients() {
    local client pids=() pid
    app_step="four clients [$app_filesystem]"
    for client in 0 1 2 3; do
        timeout 100 qemu-img bench -f raw -w -c $((count / 4)) -d 16 -s 16k -o $((client << 25)) --pattern=$((client + 17)) \
            "$address" >"$app_scratch/client$client" 2>&1 &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || { cat "$app_scratch"/client? >&2; server_fail "a client failed"; }
    done
}

served_by() {
    local aio=$1 image=$2/image begin=$SECONDS
    rm -f "$image" "$2/copy" "$app_scratch/log"
    truncate -s 160M "$image"
    start_nbd "$aio" "$image"
    four_clients
    client "read -P 17 0 15M" "read -P 18 32M 15M" "read -P 19 64M 15M" "read -P 20 96M 15M" "write -P 33 140M 8M" flush \
        "discard 141M 1M" "read -P 33 140M 1M" "read -P 33 142M 6M" flush
    natively qemu-img convert -f raw -O raw "$address" "$2/copy"
    stop_nbd
    writes_were_bounced
    reads_were_verified
    same_data "$image" "$2/copy"
    scrub_is_clean "$image"
    killed_while_serving "$aio" "$image"
    echo "* nbd by $aio on $app_filesystem: four clients, killed, served again: $((SECONDS - begin)) s"
}

killed_while_serving() {
    local aio=$1 image=$2 load
    start_nbd "$aio" "$image"
    client "write -P 44 130M 4M" flush
    # The first 128 MiB, round and round.
    timeout 60 qemu-img bench -w -c 1000000 -d 64 -s 64k --image-opts \
        "driver=raw,size=134217728,file.driver=nbd,file.server.type=unix,file.server.path=$server_sockets/nbd" >"$app_scratch/load" 2>&1 &
    load=$!
    server_answers server_has_written
    sleep 0.5
    server_is_killed
    wait $load || true
    start_nbd "$aio" "$image"
    client "read -P 44 130M 4M" "read 0 128M"
    stop_nbd
    reads_were_verified
    scrub_is_clean "$image"
}

every_way_of_asking() {
    local aio
    for aio in threads native io_uring; do
        served_by $aio "$2"
    done
}

on_filesystems "ext4 xfs btrfs-nocow" every_way_of_asking
