#!/bin/bash
# The short searches of the protocols' models, and that the models' steps are those of the code.
set -u
cd "$(dirname "$0")/../.." || exit 2

if [ -n "${BOUNCEIO_TEST_SANITIZER:-}${BOUNCEIO_TEST_VALGRIND:-}" ]; then
    echo "skipped: the models are programs of their own"
    exit 77
fi

failed=0

# steps FILE...: the names of their steps.
steps() { cat "$@" | grep -ohE '(STEP|WAIT)\("[^"]*"' | sed 's/^[A-Z]*(//' | sort -u; }

# same_steps CODE MODEL OURS: every step of the code is one of the model, and the other way round but for OURS.
same_steps() {
    local missing
    missing=$(comm -23 <(echo "$1") <(echo "$2"))
    [ -z "$missing" ] || { echo "in the code, not in the model: ${missing//$'\n'/, }"; failed=1; }
    missing=$(comm -13 <(echo "$1") <(echo "$2") | comm -23 - <(echo "$3"))
    [ -z "$missing" ] || { echo "in the model, not in the code: ${missing//$'\n'/, }"; failed=1; }
}

code=$(steps shim/checksum/{announce.c,announce.h,question.c,mutate.c,settle.c,flight.c})
model=$(steps tests/model/{announce,question,mutate,settle,flight,disk}.c)
disk=$(steps tests/model/disk.c <(echo 'STEP("look at the size") STEP("the disk empties a sector")'))
same_steps "$code" "$model" "$disk"

code=$(steps shim/checksum/region.c | grep -v '"DIRTY->SUSPECT"')
model=$(steps tests/model/power_cut.c)
same_steps "$code" "$model" "$model"

"${BOUNCEIO_TEST_BUILD:-build}/model" || failed=1
exit "$failed"
