#!/bin/bash
# The protocol's code under a scheduler: the short table of tests/schedule.
set -u

if [ -n "${BOUNCEIO_TEST_SANITIZER:-}${BOUNCEIO_TEST_VALGRIND:-}" ]; then
    echo "skipped: the scheduler jumps between stacks"
    exit 77
fi
exec "${BOUNCEIO_TEST_BUILD:-build}/steps/schedule"
