/*
 * Direct files that BOUNCEIO_EXCLUDE names: every call reaches the kernel as the program made it, once, and is counted as passed through.
 */
#include <libaio.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

enum { FORMS = 5, ROUNDS = 3 };

static unsigned char *buffer;
static int file;

static ssize_t write_by(int form)
{
    const struct iovec vector = {buffer, BLOCK};

    switch (form) {
    case 0:
        return lseek(file, 0, SEEK_SET) == 0 ? write(file, buffer, BLOCK) : -1;
    case 1:
        return pwrite(file, buffer, BLOCK, 0);
    case 2:
        return lseek(file, 0, SEEK_SET) == 0 ? writev(file, &vector, 1) : -1;
    case 3:
        return pwritev(file, &vector, 1, 0);
    default:
        return pwritev2(file, &vector, 1, 0, 0);
    }
}

static ssize_t read_by(int form)
{
    const struct iovec vector = {buffer, BLOCK};

    switch (form) {
    case 0:
        return lseek(file, 0, SEEK_SET) == 0 ? read(file, buffer, BLOCK) : -1;
    case 1:
        return pread(file, buffer, BLOCK, 0);
    case 2:
        return lseek(file, 0, SEEK_SET) == 0 ? readv(file, &vector, 1) : -1;
    case 3:
        return preadv(file, &vector, 1, 0);
    default:
        return preadv2(file, &vector, 1, 0, 0);
    }
}

/* Each form writes what it then reads; 2 * FORMS calls. */
static void play_blocking(void)
{
    for (int form = 0; form < FORMS; form++) {
        memset(buffer, 'a' + form, BLOCK);
        check_that(write_by(form) == BLOCK, "write by form %d", form);
        memset(buffer, 0, BLOCK);
        check_that(read_by(form) == BLOCK, "read by form %d", form);
        check_that(buffer[0] == 'a' + form && buffer[BLOCK - 1] == 'a' + form, "form %d reads something else", form);
    }
}

static void play_libaio(void)
{
    io_context_t context = NULL;
    struct iocb iocbs[2], *list[] = {&iocbs[0], &iocbs[1]};
    struct io_event events[2];

    check_that(io_setup(2, &context) == 0, "io_setup");
    memset(buffer, 'x', BLOCK);
    io_prep_pwrite(&iocbs[0], file, buffer, BLOCK, 0);
    io_prep_pread(&iocbs[1], file, buffer + BLOCK, BLOCK, BLOCK);
    check_that(io_submit(context, 2, list) == 2, "io_submit");
    check_that(io_getevents(context, 2, 2, events, NULL) == 2, "io_getevents");
    for (int i = 0; i < 2; i++)
        check_that((long)events[i].res == BLOCK, "event %d: %ld", i, (long)events[i].res);
    check_that(io_destroy(context) == 0, "io_destroy");
}

static void *play_in_thread(void *unused)
{
    (void)unused;
    play_blocking();
    return NULL;
}

static int be_excluded(int argc, char **argv)
{
    const struct bounceio_stats before = counters();
    pthread_t thread;

    (void)argc;
    buffer = aligned_memory();
    file = open(argv[0], O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
    check_that(file >= 0 && ftruncate(file, 2 * BLOCK) == 0, "%s", argv[0]);
    for (int round = 0; round < ROUNDS; round++)
        play_blocking();
    /* A thread whose first call it is. */
    check_that(pthread_create(&thread, NULL, play_in_thread, NULL) == 0, "pthread_create");
    pthread_join(thread, NULL);
    play_libaio();

    const struct bounceio_stats after = counters();
    const uint64_t passed = after.passed_through - before.passed_through;

    check_that(passed == 2 * FORMS * (ROUNDS + 1) + 2, "%llu passed through", (unsigned long long)passed);
    check_that(after.bytes_bounced == 0 && after.direct_writes == 0 && after.direct_reads == 0, "not left alone");
    return 0;
}

START_TEST(every_call_on_an_excluded_file_passes_and_is_counted_once)
{
    struct test_fs fs[TEST_FS_MAX];
    const size_t count = test_filesystems(fs);

    for (size_t i = 0; i < count && counting(); i++) {
        struct child child =
            child_run_self(WITH_SHIM, (const char *const[]){"BOUNCEIO_EXCLUDE=*/left-alone", NULL},
                           (const char *const[]){"--excluded", path_in(fs[i].path, "left-alone"), NULL});

        ck_assert_msg(child_succeeded(&child), "%s: %s", fs[i].name, child.errors);
        child_free(&child);
    }
}
END_TEST

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--excluded", be_excluded}, {NULL, NULL}};
    const TTest *const tests[] = {every_call_on_an_excluded_file_passes_and_is_counted_once, NULL};

    return support_main(argc, argv, "excluded files", 60, modes, tests);
}
