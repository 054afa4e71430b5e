#!/bin/bash
# PostgreSQL, a process for each client: its write-ahead log is written with O_DIRECT (wal_sync_method=open_datasync with nobody to stream it
# to), its data too where it can (debug_io_direct, from version 16). Loaded, crashed, recovered; its own data directory and socket.
for directory in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
    [ ! -d "$directory" ] || PATH=$directory:$PATH
done
. "$(dirname "$0")/lib/app.sh"
. "$app_directory/server.sh"
needs postgres initdb psql pgbench pg_amcheck setpriv python3

seconds=4 scale=2
[ -z "${BOUNCEIO_TEST_FULL:-}" ] || seconds=30 scale=20

# It refuses to run as root; whoever it runs as must find the library, and have a store.
if [ "$(id -u)" -eq 0 ]; then
    id postgres >/dev/null 2>&1 || { echo "skipped: PostgreSQL does not run as root, and there is no user postgres"; exit 77; }
    app_user=(setpriv --reuid=postgres --regid=postgres --clear-groups)
    "${app_user[@]}" test -r "$BOUNCEIO_SHIM" || { echo "skipped: user postgres may not read $BOUNCEIO_SHIM"; exit 77; }
fi

server_needs_sockets

version=$(postgres --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
direct=()
if [ "$version" -ge 16 ]; then
    direct=(-c "debug_io_direct=data,wal,wal_init")
else
    echo "skipped: direct I/O of data files: PostgreSQL $version has no debug_io_direct; its log alone"
fi

client() { local program=$1; shift; "${app_user[@]}" timeout 100 "$program" -h "$server_sockets" "$@"; }
sql() { client psql -d bank -v ON_ERROR_STOP=1 -qAt -c "$1"; }

start_postgresql() {
    server_start "$1/log" "${app_user[@]}" postgres -D "$1/data" -k "$server_sockets" -c listen_addresses= -c shared_buffers=1MB \
        -c wal_level=minimal -c max_wal_senders=0 -c wal_sync_method=open_datasync -c max_wal_size=64MB -c full_page_writes=on "${direct[@]}"
    server_answers client psql -d postgres -c "SELECT 1"
}

# stop_postgresql SIGNAL: SIGINT asks for an orderly end, SIGQUIT for one without any tidying up.
stop_postgresql() {
    local status=0
    kill "-$1" "$server_pid"
    server_ends 60 || status=$?
    [ "$status" -ne 124 ] || server_fail "does not end"
}

install_postgresql() {
    local directory=$1
    app_state=$directory/state
    mkdir -p "$app_state"
    chmod 755 "$directory"
    if [ ${#app_user[@]} -gt 0 ]; then chown -R postgres: "$directory" "$server_sockets"; fi
    natively "${app_user[@]}" initdb -D "$directory/data" --data-checksums --no-sync -A trust
}

shim_is_silent() {
    ! grep 'bounceio: ' "$1/log" >&2 || fail "the shim had something to say"
}

postgresql_was_protected() {
    expect direct_writes -gt 0
    expect bytes_bounced -gt 0
    nothing_went_wrong
    [ "$version" -lt 16 ] || reads_were_verified
    shim_is_silent "$1"
    ! grep -E 'PANIC|FATAL|invalid page|checksum verification failed' "$1/log" >&2 || fail "the server found something"
}

# Every transaction of pgbench's moves an amount through three tables, and notes it in a fourth.
books_balance() {
    local sums
    sums=$(sql "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history),
        (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(delta) FROM pgbench_history)")
    [ "$sums" = "t|t" ] || server_fail "the books do not balance: $sums"
    natively client pg_amcheck -d bank --install-missing --heapallindexed
}

load_and_recover() {
    local directory=$2 commits backend
    install_postgresql "$directory"
    start_postgresql "$directory"
    natively client psql -d postgres -c "CREATE DATABASE bank"
    natively client pgbench -i -q -s $scale bank
    natively client pgbench -n -c 4 -j 2 -T $seconds bank
    commits=$(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$app_scratch/native")
    [ "$(sql "SELECT count(*) FROM pgbench_history")" -eq "$commits" ] || server_fail "transactions are missing"
    books_balance
    stop_postgresql INT
    postgresql_was_protected "$directory"
    scrub_is_clean "$directory/data"

    # A client's process is killed in the middle of its work: the server starts itself anew, from its log.
    start_postgresql "$directory"
    client pgbench -n -c 4 -j 2 -T 30 bank >"$app_scratch/load" 2>&1 &
    sleep 2
    backend=$(sql "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgbench' LIMIT 1")
    kill -KILL "$backend"
    wait $! || true
    server_answers client psql -d postgres -c "SELECT 1"
    books_balance
    # All of it, without a word.
    client pgbench -n -c 4 -j 2 -T 30 bank >"$app_scratch/load" 2>&1 &
    sleep 2
    stop_postgresql QUIT
    wait $! || true
    start_postgresql "$directory"
    books_balance
    shim_is_silent "$directory"
    : >"$directory/log"
    stop_postgresql INT
    postgresql_was_protected "$directory"
    scrub_is_clean "$directory/data"
    echo "* postgresql $version on $app_filesystem: $commits commits in $seconds s; recovered twice"
    log_rots "$directory"
}

# The log is read through the page cache: the shim cannot tell the server; scrub can.
log_rots() {
    local file
    file=$(find "$1/data/pg_wal" -name '0*' -type f | sort | head -1)
    damage "$file" 500000
    scrub_finds_damage "$file" 500000
}

on_filesystems "ext4 xfs btrfs-nocow" load_and_recover
