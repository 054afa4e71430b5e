/*
 * Programs whose store fails under them, for tests/shim/test_store_faults.c: modes that write, read and check data before and after a
 * shell command that does something to the store.
 */
#ifndef BOUNCEIO_TESTS_STORE_VICTIM_H
#define BOUNCEIO_TESTS_STORE_VICTIM_H

int store_victim(int argc, char **argv);
int store_latecomer(int argc, char **argv);
int store_buffered_writer(int argc, char **argv);
int store_reader(int argc, char **argv);
int store_companion(int argc, char **argv);
int store_shut_down(int argc, char **argv);

#define STORE_VICTIM_MODES                                                                                             \
    {"--victim", store_victim}, {"--latecomer", store_latecomer}, {"--buffered-writer", store_buffered_writer},        \
        {"--reader", store_reader}, {"--companion", store_companion},                                                  \
    {                                                                                                                  \
        "--shut-down", store_shut_down                                                                                 \
    }

#endif
