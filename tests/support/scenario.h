/*
 * Scenarios: short programs that print what they see, run without and with the shim, and expected to see and end the same.
 *
 * Under the shim each runs twice: with the fault guard up from the first instruction, and with the guard coming up where
 * the scenario calls guard_may_rise, which is after it has installed its handlers and masks.
 */
#ifndef BOUNCEIO_TESTS_SCENARIO_H
#define BOUNCEIO_TESTS_SCENARIO_H

#include <check.h>

struct scenario {
    const char *name;
    void (*run)(void);
};

/*
 * SCENARIO(sentence) { statements } defines a test of that name. Then, at the end of the file:
 * SCENARIOS lists {#name, scenario_name} pairs ending with {NULL, NULL} for the mode "--scenario".
 */
#define SCENARIO(name)                                                                                                 \
    static void scenario_##name(void);                                                                                 \
    START_TEST(name)                                                                                                   \
    {                                                                                                                  \
        expect_same_without_and_with_shim(#name);                                                                      \
    }                                                                                                                  \
    END_TEST                                                                                                           \
    static void scenario_##name(void)

/* Run the named scenario without the shim and both ways with it; the outputs and wait statuses must be equal. */
void expect_same_without_and_with_shim(const char *name);

/* The mode "--scenario WHEN NAME" of a program with these scenarios. @return its exit status. */
int scenario_run(const struct scenario *scenarios, int argc, char **argv);

/* Print one line, with a single system call: usable in handlers and in children of fork. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Handlers and masks are in place: do a first direct write, unless that was done at the beginning. */
void guard_may_rise(void);

/* Direct I/O from a bad pointer, which must give EFAULT as it does natively; dies when it does not. */
void direct_write_from_nowhere(void);

#endif
