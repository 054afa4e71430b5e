#!/bin/bash
# MariaDB with O_DIRECT, on io_uring (by liburing) and on libaio (reaping by raw system calls): loaded, checked, restarted, killed, recovered;
# and it is told when a page on the medium has rotted. Its own data directory and socket; no network.
PATH=$PATH:/usr/sbin:/sbin
. "$(dirname "$0")/lib/app.sh"
. "$app_directory/server.sh"
needs mariadbd mariadb-install-db mariadb mariadb-check mariadb-admin sysbench python3

seconds=4 rows=8000
[ -z "${BOUNCEIO_TEST_FULL:-}" ] || seconds=30 rows=50000
user=$(id -un)

server_needs_sockets
socket=$server_sockets/socket

sql() { timeout 60 mariadb --no-defaults --socket="$socket" --user="$user" --batch --skip-column-names "$@"; }

# The smaller the pool of buffers, the more is read.
start_mariadb() {
    server_start "$1/log" mariadbd --no-defaults --datadir="$1/data" --user="$user" --socket="$socket" --skip-networking \
        --pid-file="$1/pid" --innodb-flush-method=O_DIRECT --innodb-use-native-aio=1 --innodb-linux-aio="$2" \
        --innodb-buffer-pool-size=8M --innodb-log-file-size=16M --innodb-buffer-pool-dump-at-shutdown=0 --innodb-stats-persistent=0
    server_answers mariadb-admin --no-defaults --socket="$socket" --user="$user" ping
}

stop_mariadb() {
    natively timeout 60 mariadb-admin --no-defaults --socket="$socket" --user="$user" shutdown
    server_ends 60 || server_fail "did not shut down cleanly"
}

# Everything that it wrote and read went through the shim.
mariadb_was_protected() {
    writes_were_bounced
    reads_were_verified
    ! grep 'bounceio: ' "$1/log" >&2 || fail "the shim had something to say"
    ! grep -iE '\[ERROR\]|corrupt|Operating system error' "$1/log" >&2 || fail "the server found something"
}

install_mariadb() {
    mkdir "$1/data"
    shimmed timeout 120 mariadb-install-db --no-defaults --datadir="$1/data" --user="$user" \
        --auth-root-authentication-method=normal --skip-test-db --innodb-flush-method=O_DIRECT --innodb-linux-aio="$2"
    nothing_went_wrong
}

oltp() {
    timeout 200 sysbench oltp_read_write --mysql-socket="$socket" --mysql-user="$user" --mysql-db=bank --tables=2 \
        --table-size=$rows --threads=4 "$@"
}

checksums() { sql --execute "CHECKSUM TABLE bank.sbtest1, bank.sbtest2, bank.ledger"; }

check_tables() {
    natively timeout 200 mariadb-check --no-defaults --socket="$socket" --user="$user" --all-databases --check --extended
    ! grep -iE 'error|corrupt|warning' "$app_scratch/native" || fail "mariadb-check found something"
}

# which AIO DIRECTORY: as its log says.
uses() {
    grep -q "$1" "$2/log" || server_fail "it does not say '$1'"
}

load_and_restart() {
    local directory=$1 aio=$2 before after rates
    start_mariadb "$directory" "$aio"
    uses "$3" "$directory"
    sql --execute "CREATE DATABASE bank; CREATE TABLE bank.ledger (id INT PRIMARY KEY, filler CHAR(200)) ENGINE=InnoDB"
    natively oltp prepare
    natively oltp --time=$seconds run
    rates=$(sed -n 's/^ *transactions: *[0-9]* *(\(.*\) per sec.)/\1/p' "$app_scratch/native")
    check_tables
    before=$(checksums)
    stop_mariadb
    mariadb_was_protected "$directory"
    scrub_is_clean "$directory/data"

    start_mariadb "$directory" "$aio"
    after=$(checksums)
    [ "$before" = "$after" ] || fail "tables differ after the restart"
    check_tables
    stop_mariadb
    # Reading alone; but its redo log is written.
    nothing_went_wrong
    reads_were_verified
    scrub_is_clean "$directory/data"
    echo "* mariadb on $app_filesystem: $3: $rates transactions/s"
}

# A client that notes every commit of which it was told.
keep_ledger() {
    local id
    for ((id = 1; ; id++)); do
        echo "INSERT INTO bank.ledger VALUES ($id, REPEAT('x', 200)); SELECT $id;"
    done | mariadb --no-defaults --socket="$socket" --user="$user" --batch --skip-column-names --unbuffered >"$1" 2>/dev/null
}

kill_and_recover() {
    local directory=$1 aio=$2 ledger=$app_scratch/ledger load keeper last missing
    start_mariadb "$directory" "$aio"
    oltp --time=60 run >"$app_scratch/load" 2>&1 &
    load=$!
    keep_ledger "$ledger" &
    keeper=$!
    sleep $seconds
    [ "$(server_counter passed_through)" -eq 0 ] || server_fail "requests have passed through"
    [ "$(server_counter direct_writes)" -gt 0 ] || server_fail "nothing was written"
    server_is_killed
    wait $load $keeper 2>/dev/null || true
    last=$(tail -1 "$ledger")
    [ "${last:-0}" -gt 0 ] || fail "no commit was noted"

    start_mariadb "$directory" "$aio"
    missing=$(sql --execute "SELECT $last - COUNT(*) FROM bank.ledger WHERE id <= $last")
    [ "$missing" -eq 0 ] || fail "$missing of $last committed rows are lost"
    check_tables
    stop_mariadb
    mariadb_was_protected "$directory"
    scrub_is_clean "$directory/data"
    echo "* mariadb on $app_filesystem, $aio: killed after $last commits, recovered, all there"
}

# A page with rows in it.
page_rots() {
    local directory=$1 aio=$2 before file=$1/data/bank/sbtest1.ibd row offset
    start_mariadb "$directory" "$aio"
    before=$(checksums)
    row=$(sql --execute "SELECT c FROM bank.sbtest1 WHERE id > $((rows / 2)) LIMIT 1")
    stop_mariadb
    offset=$(grep -abo -m 1 -e "$row" "$file" | head -1 | cut -d: -f1)
    damage "$file" $offset
    start_mariadb "$directory" "$aio"
    app_step="reading a table with a damaged page [$app_filesystem]"
    ! sql --execute "SELECT SUM(k), SUM(LENGTH(c)) FROM bank.sbtest1" >/dev/null 2>&1 || server_fail "it can be read"
    grep -q "^bounceio: checksum mismatch: path=\".*/bank/sbtest1.ibd\" offset=$((offset / 4096 * 4096)) " "$directory/log" ||
        server_fail "the log does not say so"
    server_kill
    scrub_finds_damage "$file" $offset
    damage "$file" $offset
    : >"$directory/log"
    start_mariadb "$directory" "$aio"
    [ "$before" = "$(checksums)" ] || fail "tables differ"
    stop_mariadb
    mariadb_was_protected "$directory"
}

# with_aio DIRECTORY NAME TEXT
with_aio() {
    install_mariadb "$@"
    load_and_restart "$@"
    kill_and_recover "$@"
    page_rots "$@"
}

on_io_uring() { with_aio "$2" io_uring "Using io_uring"; }
on_libaio() { with_aio "$2" aio "Using Linux native AIO"; }

on_filesystems "ext4 xfs" on_io_uring
on_filesystems "ext4 btrfs-nocow" on_libaio
