# A server under the shim, in the background: started, waited for, stopped or killed, each in bounded time. Sourced after app.sh.

server_pid=

# server_needs_sockets: $server_sockets becomes a directory for them. Paths of sockets are short.
server_needs_sockets() {
    temporary_directory server_sockets /tmp/bounceio-sockets.XXXXXX
}

# server_start LOG CMD...: under the shim, with counters of its own; standard output and standard error go to the end of LOG.
server_start() {
    local log=$1
    shift
    app_step="$* [$app_filesystem]"
    fresh_counters
    server_log=$log
    LD_PRELOAD=$BOUNCEIO_SHIM BOUNCEIO_STATS=$app_state/stats/%p.json BOUNCEIO_STORE=$app_state/store \
        "$@" >>"$log" 2>&1 &
    server_pid=$!
}

server_runs() { [ -n "$server_pid" ] && kill -0 "$server_pid" 2>/dev/null; }

server_fail() {
    tail -50 "$server_log" >&2
    fail "$*"
}

# server_answers CMD...: wait until it succeeds.
server_answers() {
    local i
    for ((i = 0; i < 300; i++)); do
        ! "$@" >/dev/null 2>&1 || return 0
        server_runs || server_fail "the server is gone"
        sleep 0.2
    done
    server_fail "the server does not answer"
}

# server_ends SECONDS: wait for it. @return its exit status; 124 when it had to be killed.
server_ends() {
    local i status=0
    for ((i = 0; i < $1 * 5; i++)); do
        server_runs || break
        sleep 0.2
    done
    if server_runs; then
        kill -KILL "$server_pid"
        wait "$server_pid" 2>/dev/null || true
        status=124
    else
        wait "$server_pid" || status=$?
    fi
    server_pid=
    return "$status"
}

# server_is_killed: it must have been alive.
server_is_killed() {
    server_runs || server_fail "the server was gone before"
    server_kill
}

# Whatever it is doing, if anything.
server_kill() {
    server_runs || return 0
    kill -KILL "$server_pid"
    wait "$server_pid" 2>/dev/null || true
    server_pid=
}
app_at_end+=(server_kill)

# server_counter NAME: of the running server, from outside.
server_counter() {
    BOUNCEIO_STORE=$app_state/store "${app_user[@]}" "$BOUNCEIO_TEST_BUILD/bounceio" stat --json "$server_pid" |
        sed -n "s/^ *\"$1\": \([0-9]*\),*\$/\1/p" | head -1
}

# For server_answers.
server_has_written() { [ "$(server_counter direct_writes)" -gt 0 ]; }
