# Scaffolding of the command's tests: each test is a function whose name is a sentence, run in a subshell in an empty directory on each
# file system, and an empty store. Any command in it that fails, fails the test.
#
# A test program sources this file, defines its functions, and ends with `run_tests on_each FUNCTION... once FUNCTION...`.
set -u

: "${BOUNCEIO_SHIM:?what is preloaded}" "${BOUNCEIO_TEST_BUILD:?build directory}"
command=$BOUNCEIO_TEST_BUILD/bounceio
scratch=$(mktemp -d "${TMPDIR:-/tmp}/bounceio-command.XXXXXX")

bounceio() { "$command" "$@"; }

# shimmed PROGRAM...: under the shim, but without the runtimes of sanitizers in our own shells.
shimmed() { env LD_PRELOAD="$BOUNCEIO_SHIM" "$@"; }

# write_file PATH BLOCKS: so many blocks of random bytes, written directly under the shim.
write_file() { shimmed dd if=/dev/urandom of="$1" bs=4096 count="$2" oflag=direct iflag=fullblock conv=notrunc status=none; }

# read_file PATH: directly, under the shim; fails when a block disagrees with its checksum.
read_file() { shimmed dd if="$1" of=/dev/null bs=4096 iflag=direct status=none; }

maps() { find "$BOUNCEIO_STORE/maps" -type f | wc -l; }

# number KEY: the value of that key in the JSON on standard input, which has one value on a line.
number() { sed -n "s/^ *\"$1\": \(.*[^,]\),\{0,1\}\$/\1/p"; }

# stat_of PATH KEY
stat_of() { bounceio stat --json "$1" | number "$2"; }

# is ACTUAL EXPECTED
is() {
    [ "$1" = "$2" ] && return
    echo "got '$1', expected '$2' (line ${BASH_LINENO[0]})" >&2
    return 1
}

# status_of COMMAND...: prints its exit status.
status_of() {
    local status=0
    "$@" >/dev/null 2>&1 || status=$?
    echo "$status"
}

# small_filesystem KIND IMAGE DIRECTORY [MOUNT OPTIONS]: make (unless IMAGE exists) and mount it. Returns 1 where that is not permitted.
small_filesystem() {
    local kind=$1 image=$2 directory=$3 options=loop
    [ "$(id -u)" -eq 0 ] || return 1
    [ "$kind" != xfs ] || options=loop,nouuid
    if [ ! -e "$image" ]; then
        truncate -s 320M "$image"
        "mkfs.$kind" -q "$image" || return 1
    fi
    mkdir -p "$directory" && mount -t "$kind" -o "$options" "$image" "$directory"
}

skip() {
    echo "skipped: $*"
    exit 0
}

checks=0 failures=0

# run_test FUNCTION FILE_SYSTEM DIRECTORY
run_test() {
    local dir status
    dir=$(mktemp -d "$3/command.XXXXXX")
    checks=$((checks + 1))
    # Not as a condition: errexit would not work in it.
    (
        export BOUNCEIO_STORE=$dir/store TMPDIR=$scratch
        [ "$2" = tmpfs ] || BOUNCEIO_STORE=$(mktemp -d "$scratch/XXXXXX")/store
        mkdir "$dir/files"
        cd "$dir/files" || exit
        set -eE
        trap 'echo "failed: line $LINENO: $BASH_COMMAND" >&2' ERR
        "$1" "$2"
    )
    status=$?
    if [ "$status" -ne 0 ]; then
        echo "$1 [$2]: failed"
        failures=$((failures + 1))
    fi
    rm -rf "$dir"
}

# run_tests {on_each|once} FUNCTION...: on each file system, or on the first one.
run_tests() {
    local mode=once argument place
    for argument; do
        case $argument in
        on_each | once) mode=$argument ;;
        *)
            case ${BOUNCEIO_TEST_ONLY:-$argument} in "$argument") ;; *) continue ;; esac
            for place in ${BOUNCEIO_TEST_FS:-disk:$scratch}; do
                run_test "$argument" "${place%%:*}" "${place#*:}"
                [ "$mode" = on_each ] || break
            done
            ;;
        esac
    done
    echo "$(((checks - failures) * 100 / (checks ? checks : 1)))%: Checks: $checks, Failures: $failures, Errors: 0"
    rm -rf "$scratch"
    [ "$failures" -eq 0 ]
}
