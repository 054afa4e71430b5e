/* Scripts of POSIX AIO, with and without the shim. See posix_parity.h. */
#include "support/posix_parity.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/support.h"

const char *name_of(int error)
{
    return error == 0 ? "0" : strerrorname_np(error);
}

bool wait_until_over(struct aiocb *control)
{
    const struct aiocb *list[] = {control};
    const struct timespec time = {.tv_sec = PATIENCE};
    while (aio_error(control) == EINPROGRESS)
        if (aio_suspend(list, 1, &time) != 0 && errno != EINTR)
            return false;
    return true;
}

void say_end(const char *what, struct aiocb *control)
{
    check_that(wait_until_over(control), "%s never ends", what);
    int error = aio_error(control);
    printf("%s ends: %s %zd, again %s %zd\n", what, name_of(error), aio_return(control), name_of(aio_error(control)),
           aio_return(control));
}

void say_write(const char *what, int fd, void *buffer, size_t length, off_t offset)
{
    struct aiocb control = control_of(fd, buffer, length, (size_t)offset);
    SAY(what, aio_write(&control));
    say_end(what, &control);
}

void say_read(const char *what, int fd, void *buffer, size_t length, off_t offset)
{
    struct aiocb control = control_of(fd, buffer, length, (size_t)offset);
    SAY(what, aio_read(&control));
    say_end(what, &control);
}

static void (*theme_script)(const struct posix_scene *scene);

/* arguments: directory, "direct" or "plain". */
static int record(int argc, char **argv)
{
    check_that(argc == 2, "usage: --record DIRECTORY KIND");
    const char *path = path_in(argv[0], "file");
    const int flags = O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | (strcmp(argv[1], "direct") == 0 ? O_DIRECT : 0);
    struct posix_scene scene = {.directory = argv[0], .fd = open(path, flags, 0600)};
    check_that(scene.fd >= 0, "cannot open %s", path);
    scene.memory = aligned_alloc(BLOCK, SCRIPT_BLOCKS * BLOCK);
    setvbuf(stdout, NULL, _IOLBF, 0);
    theme_script(&scene);
    close(scene.fd);
    printf("hash %llx\n", (unsigned long long)hash_behind(path_in(scene.directory, "file")));
    return 0;
}

static void expect_same(const struct test_fs *fs, const char *kind)
{
    struct child recorded[2];
    for (int i = 0; i < 2; i++) {
        recorded[i] = child_run_self(i == 0 ? WITHOUT_SHIM : WITH_SHIM, NULL,
                                     (const char *const[]){"--record", fs->path, kind, NULL});
        ck_assert_msg(child_succeeded(&recorded[i]), "%s, %s, %s the shim: %s", fs->name, kind,
                      i == 0 ? "without" : "with", recorded[i].errors);
    }
    const char *a = recorded[0].output, *b = recorded[1].output;
    size_t line = 0;
    for (size_t i = 0; a[i] && a[i] == b[i]; i++)
        if (a[i] == '\n')
            line = i + 1;
    ck_assert_msg(strcmp(a, b) == 0, "%s, %s: without the shim '%.*s', with it '%.*s'", fs->name, kind,
                  (int)strcspn(a + line, "\n"), a + line, (int)strcspn(b + line, "\n"), b + line);
    ck_assert_uint_gt(strlen(a), 2000);
    child_free(&recorded[0]);
    child_free(&recorded[1]);
}

static void on_every_file_system(const char *kind)
{
    struct test_fs fs[TEST_FS_MAX];
    size_t count = test_filesystems(fs);
    for (size_t i = 0; i < count; i++)
        expect_same(&fs[i], kind);
}

START_TEST(direct_files_behave_as_without_the_shim)
{
    on_every_file_system("direct");
}
END_TEST

START_TEST(plain_files_behave_as_without_the_shim)
{
    on_every_file_system("plain");
}
END_TEST

int posix_parity_main(int argc, char **argv, const char *theme, void (*script)(const struct posix_scene *scene))
{
    static const struct support_mode modes[] = {{"--record", record}, {NULL, NULL}};
    const TTest *const tests[] = {direct_files_behave_as_without_the_shim, plain_files_behave_as_without_the_shim,
                                  NULL};

    theme_script = script;
    return support_main(argc, argv, theme, 120, modes, tests);
}
