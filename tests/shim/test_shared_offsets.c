/*
 * read() and write() at a file offset that several threads, or a thread and its own signal handler, share: each request gets
 * bytes of its own, whole, and nobody waits for somebody that it has interrupted.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

enum { THREADS = 4 };

static int shared;

/* Run THREADS threads to their end; each gets its index. */
static void run_threads(void *(*run)(void *))
{
    pthread_t threads[THREADS];

    for (uintptr_t i = 0; i < THREADS; i++)
        check_that(pthread_create(&threads[i], NULL, run, (void *)i) == 0, "no thread");
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void *memory_new(size_t length)
{
    void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    check_that(memory != MAP_FAILED, "no memory");
    return memory;
}

/* --- Small records ------------------------------------------------------------------------------------------------ */

enum { RECORDS = 4096 };

static atomic_int taken[RECORDS];

static void *take_records(void *unused)
{
    uint32_t *record = memory_new(BLOCK);
    ssize_t n;

    (void)unused;
    while ((n = read(shared, record, SECTOR)) == SECTOR)
        atomic_fetch_add(&taken[record[0] % RECORDS], 1);
    check_that(n == 0, "read at a shared offset gave %zd", n);
    return NULL;
}

START_TEST(each_record_smaller_than_a_block_is_read_by_one_thread)
{
    struct test_fs fs[TEST_FS_MAX];
    char *records = memory_new(RECORDS * SECTOR);

    test_filesystems(fs);
    const char *path = path_in(fs[0].path, "file");

    for (uint32_t i = 0; i < RECORDS; i++)
        memcpy(records + i * SECTOR, &i, sizeof(i));
    shared = direct_open(path, O_RDWR | O_CREAT);
    ck_assert_int_eq(write(shared, records, RECORDS * SECTOR), RECORDS * SECTOR);
    ck_assert_int_eq(lseek(shared, 0, SEEK_SET), 0);
    run_threads(take_records);
    for (int i = 0; i < RECORDS; i++)
        ck_assert_msg(taken[i] == 1, "record %d was read %d times", i, taken[i]);
}
END_TEST

/* --- Records longer than one of the shim's own requests ----------------------------------------------------------- */

enum { LONG_RECORD = 6 << 20, LONG_RECORDS = 4 };

static void *write_long_records(void *index)
{
    char *record = memory_new(LONG_RECORD);

    memset(record, 'a' + (int)(uintptr_t)index, LONG_RECORD);
    for (int i = 0; i < LONG_RECORDS; i++)
        check_that(write(shared, record, LONG_RECORD) == LONG_RECORD, "short write");
    return NULL;
}

static bool is_whole(const char *record)
{
    return memcmp(record, record + 1, LONG_RECORD - 1) == 0;
}

static atomic_int torn, whole;

static void *read_long_records(void *unused)
{
    char *record = memory_new(LONG_RECORD);
    ssize_t n;

    (void)unused;
    while ((n = read(shared, record, LONG_RECORD)) == LONG_RECORD)
        atomic_fetch_add(is_whole(record) ? &whole : &torn, 1);
    check_that(n == 0, "read at a shared offset gave %zd", n);
    return NULL;
}

START_TEST(a_long_record_is_written_and_read_in_one_piece)
{
    struct test_fs fs[TEST_FS_MAX];

    test_filesystems(fs);
    shared = direct_open(path_in(fs[0].path, "file"), O_RDWR | O_CREAT);
    run_threads(write_long_records);
    ck_assert_int_eq(lseek(shared, 0, SEEK_CUR), (off_t)THREADS * LONG_RECORDS * LONG_RECORD);
    char *record = memory_new(LONG_RECORD);

    for (off_t offset = 0; offset < (off_t)THREADS * LONG_RECORDS * LONG_RECORD; offset += LONG_RECORD) {
        ck_assert_int_eq(pread(shared, record, LONG_RECORD, offset), LONG_RECORD);
        ck_assert_msg(is_whole(record), "the record at %lld is torn", (long long)offset);
    }
    ck_assert_int_eq(lseek(shared, 0, SEEK_SET), 0);
    run_threads(read_long_records);
    ck_assert_int_eq(torn, 0);
    ck_assert_int_eq(whole, THREADS * LONG_RECORDS);
}
END_TEST

/* --- A handler at the offset of what it interrupts ---------------------------------------------------------------- */

static volatile sig_atomic_t handled;
static volatile double longest;
static unsigned char *handler_memory;

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void write_in_handler(int signal)
{
    double begin = now();

    (void)signal;
    check_that(write(shared, handler_memory, BLOCK) == BLOCK, "the handler's write failed");
    if (now() - begin > longest)
        longest = now() - begin;
    handled++;
}

START_TEST(a_handler_that_writes_where_it_interrupts_a_write_does_not_wait)
{
    struct test_fs fs[TEST_FS_MAX];
    struct sigaction action = {.sa_handler = write_in_handler, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};

    test_filesystems(fs);
    shared = direct_open(path_in(fs[0].path, "file"), O_RDWR | O_CREAT);
    unsigned char *memory = memory_new(16 * BLOCK);

    handler_memory = memory_new(BLOCK);
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    /* Long enough for a wait of two seconds to end. */
    for (double end = now() + 2.3; now() < end && longest < 1.5;) {
        ck_assert_int_eq(write(shared, memory, 16 * BLOCK), 16 * BLOCK);
        lseek(shared, 0, SEEK_SET);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    ck_assert_int_gt(handled, 10);
    ck_assert_msg(longest < 1.5, "a write in a handler took %.3f s", longest);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {each_record_smaller_than_a_block_is_read_by_one_thread,
                                  a_long_record_is_written_and_read_in_one_piece,
                                  a_handler_that_writes_where_it_interrupts_a_write_does_not_wait, NULL};

    return support_main(argc, argv, "shared offsets", 60, NULL, tests);
}
