/*
 * How requests of POSIX AIO end, with and without the shim: waited for, cancelled, in which order, and who is told of it; in lists, too. What they do is
 * in test_posix_aio_parity.c.
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "support/direct.h"
#include "support/posix_parity.h"
#include "support/support.h"

static unsigned char *memory; /* SCRIPT_BLOCKS blocks */

/* --- Waiting and cancelling --------------------------------------------------------------------------------------- */

static _Atomic int handled;

static void handle(int number)
{
    atomic_fetch_add(&handled, number == SIGALRM);
}

/* SIGALRM every 50 ms, until the time is up: on a busy machine the first may come before the wait. */
static timer_t timer;

static void alarm_often(int flags)
{
    struct sigaction action = {.sa_handler = handle, .sa_flags = flags};
    sigaction(SIGALRM, &action, NULL);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    struct itimerspec soon = {{0, 50000000}, {0, 50000000}};
    check_that(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &soon, NULL) == 0,
               "timer");
}

/* A read that does not end until something is written to the other end. */
struct stuck {
    int ends[2];
    char text[8];
    struct aiocb control;
};

/* Is a thread of ours inside read(fd)? */
static bool somebody_reads(int fd)
{
    char wanted[32], path[300], line[64];
    bool found = false;
    DIR *tasks = opendir("/proc/self/task");
    check_that(tasks, "/proc/self/task");
    snprintf(wanted, sizeof wanted, "%d 0x%x ", SYS_read, fd);
    for (struct dirent *task; !found && (task = readdir(tasks));) {
        snprintf(path, sizeof path, "/proc/self/task/%s/syscall", task->d_name);
        FILE *file = fopen(path, "r");
        found = file && fgets(line, sizeof line, file) && strncmp(line, wanted, strlen(wanted)) == 0;
        if (file)
            fclose(file);
    }
    closedir(tasks);
    return found;
}

static void get_stuck(struct stuck *stuck)
{
    memset(stuck, 0, sizeof *stuck);
    check_that(pipe(stuck->ends) == 0, "pipe");
    stuck->control = control_of(stuck->ends[0], stuck->text, 1, 0);
    check_that(aio_read(&stuck->control) == 0, "aio_read");
    /* Until it is being carried out: it can no longer be cancelled. */
    for (int i = 0; i < PATIENCE * 1000 && !somebody_reads(stuck->ends[0]); i++)
        usleep(1000);
}

static void get_loose(struct stuck *stuck)
{
    check_that(write(stuck->ends[1], "xxxxxxxx", 8) == 8, "write");
    say_end("stuck", &stuck->control);
    close(stuck->ends[0]);
    close(stuck->ends[1]);
}

static void waits(int fd)
{
    struct stuck stuck;
    struct aiocb done = control_of(fd, memory, BLOCK, 0);
    const struct timespec short_time = {0, 20000000}, no_time = {0, 0}, long_time = {PATIENCE, 0};
    check_that(aio_read(&done) == 0, "aio_read");
    say_end("done", &done);
    get_stuck(&stuck);
    const struct aiocb *mixed[] = {NULL, &stuck.control, NULL, &done}, *waiting[] = {NULL, &stuck.control},
                       *nothing[] = {NULL, NULL};
    SAY("suspend: -1", aio_suspend(mixed, -1, NULL));
    SAY("suspend: 0", aio_suspend(mixed, 0, NULL));
    SAY("suspend: nothing", aio_suspend(nothing, 2, NULL));
    SAY("suspend: one is done", aio_suspend(mixed, 4, NULL));
    SAY("suspend: none is done, no time", aio_suspend(waiting, 2, &no_time));
    SAY("suspend: none is done, short time", aio_suspend(waiting, 2, &short_time));
    alarm_often(0);
    SAY("suspend: interrupted", aio_suspend(waiting, 2, &long_time));
    timer_delete(timer);
    alarm_often(0);
    SAY("suspend: interrupted, for ever", aio_suspend(waiting, 2, NULL));
    timer_delete(timer);
    alarm_often(SA_RESTART);
    SAY("suspend: interrupted, timed, restarting", aio_suspend(waiting, 2, &long_time));
    timer_delete(timer);
    get_loose(&stuck);
    SAY("suspend: all are done", aio_suspend(mixed, 4, NULL));
    printf("handled %d\n", atomic_load(&handled) >= 3);
}

static void cancellations(int fd)
{
    struct stuck stuck;
    struct aiocb behind[3], done = control_of(fd, memory, BLOCK, 0);
    SAY("cancel: -1", aio_cancel(-1, NULL));
    SAY("cancel: 999", aio_cancel(999, &done));
    SAY("cancel: nothing in progress", aio_cancel(fd, NULL));
    SAY("cancel: never submitted", aio_cancel(fd, &done));
    check_that(aio_read(&done) == 0, "aio_read");
    say_end("done", &done);
    SAY("cancel: done", aio_cancel(fd, &done));
    get_stuck(&stuck);
    SAY("cancel: another descriptor", aio_cancel(fd, &stuck.control));
    SAY("cancel: running", aio_cancel(stuck.ends[0], &stuck.control));
    for (int i = 0; i < 3; i++) {
        behind[i] = control_of(stuck.ends[0], stuck.text + 1 + i, 1, 0);
        check_that(aio_read(&behind[i]) == 0, "aio_read");
    }
    SAY("cancel: one that waits", aio_cancel(stuck.ends[0], &behind[1]));
    say_end("behind 1", &behind[1]);
    SAY("cancel: it again", aio_cancel(stuck.ends[0], &behind[1]));
    SAY("cancel: all", aio_cancel(stuck.ends[0], NULL));
    say_end("behind 0", &behind[0]);
    say_end("behind 2", &behind[2]);
    SAY("cancel: all again", aio_cancel(stuck.ends[0], NULL));
    printf("running: %s\n", name_of(aio_error(&stuck.control)));
    get_loose(&stuck);
}

/* What waits for one descriptor goes by priority, then by age. */
static void order(void)
{
    static const int priorities[] = {10, 0, 10, 20, 0};
    struct stuck stuck;
    struct aiocb behind[5];
    char text[5];
    get_stuck(&stuck);
    for (int i = 0; i < 5; i++) {
        behind[i] = control_of(stuck.ends[0], text + i, 1, 0);
        behind[i].aio_reqprio = priorities[i];
        check_that(aio_read(&behind[i]) == 0, "aio_read");
    }
    check_that(write(stuck.ends[1], "0123456", 7) == 7, "write");
    for (int i = 0; i < 5; i++) {
        check_that(wait_until_over(&behind[i]), "request %d never ends", i);
        printf("priority %d: %c\n", priorities[i], text[i]);
    }
    get_loose(&stuck);
}

/* --- Notifications ------------------------------------------------------------------------------------------------ */

static struct {
    siginfo_t info;
    _Atomic int count;
} told;

static void on_signal(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    told.info = *info;
    atomic_fetch_add(&told.count, 1);
}

static struct {
    int value, detached;
    size_t stack;
    bool blocks_signals;
} thread_told;

static void on_thread(union sigval value)
{
    pthread_attr_t attributes;
    sigset_t mask;
    int detached;
    size_t stack;
    /* Into variables of its own: ThreadSanitizer sees what its functions write, but not the order of this program's threads. */
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getdetachstate(&attributes, &detached);
    pthread_attr_getstacksize(&attributes, &stack);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    if (detached == PTHREAD_CREATE_JOINABLE) /* nobody will join it */
        pthread_detach(pthread_self());
    thread_told.detached = detached;
    thread_told.stack = stack;
    thread_told.blocks_signals = !sigisemptyset(&mask);
    thread_told.value = value.sival_int;
    atomic_fetch_add(&told.count, 1);
}

/* Everything that is still to come has come: nobody is told too often. */
static void expect_told(const char *what, int wanted)
{
    for (int i = 0; i < PATIENCE * 1000 && atomic_load(&told.count) < wanted; i++)
        usleep(1000);
    usleep(20000);
    printf("%s: told %d times\n", what, atomic_exchange(&told.count, 0));
}

static void expect_signal(const char *what, int wanted)
{
    expect_told(what, wanted);
    printf("signal %d code %d value %d from %s, %s\n", told.info.si_signo - SIGRTMIN, told.info.si_code,
           told.info.si_value.sival_int, told.info.si_pid == getpid() ? "us" : "others",
           told.info.si_uid == getuid() ? "our user" : "another user");
}

static struct sigevent by_signal(int value)
{
    return (struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3, .sigev_value.sival_int = value};
}

/* Two that come at once: ThreadSanitizer keeps one of a number. */
static struct sigevent by_another_signal(int value)
{
    struct sigevent event = by_signal(value);
    event.sigev_signo++;
    return event;
}

static struct sigevent by_thread(int value, pthread_attr_t *attributes)
{
    return (struct sigevent){.sigev_notify = SIGEV_THREAD,
                             .sigev_notify_function = on_thread,
                             .sigev_notify_attributes = attributes,
                             .sigev_value.sival_int = value};
}

static void expect_thread(const char *what, int wanted, size_t stack)
{
    expect_told(what, wanted);
    printf("thread value %d, %s, %s, stack as asked %d\n", thread_told.value,
           thread_told.detached == PTHREAD_CREATE_DETACHED ? "detached" : "joinable",
           thread_told.blocks_signals ? "blocks signals" : "blocks nothing", stack && thread_told.stack == stack);
}

static void notifications(int fd)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(by_signal(0).sigev_signo, &action, NULL);
    sigaction(by_another_signal(0).sigev_signo, &action, NULL);
    struct aiocb control = control_of(fd, memory, BLOCK, 0);

    control.aio_sigevent = by_signal(11);
    SAY("signal after a write", aio_write(&control));
    expect_signal("signal after a write", 1);
    say_end("signal after a write", &control);
    SAY("signal after fsync", aio_fsync(O_DSYNC, &control));
    expect_signal("signal after fsync", 1);
    control.aio_fildes = 999;
    control.aio_sigevent.sigev_value.sival_int = 12;
    SAY("signal after a failure", aio_read(&control));
    expect_signal("signal after a failure", 1);
    control.aio_fildes = fd;

    control.aio_sigevent = by_thread(13, NULL);
    SAY("thread after a read", aio_read(&control));
    expect_thread("thread after a read", 1, 0);

    pthread_attr_t attributes;
    pthread_attr_init(&attributes); /* more than the thread-locals of this program */
    pthread_attr_setstacksize(&attributes, 16 << 20);
    control.aio_sigevent = by_thread(14, &attributes);
    SAY("thread with attributes", aio_read(&control));
    expect_thread("thread with attributes", 1, 16 << 20);
    pthread_attr_destroy(&attributes);

    control.aio_sigevent.sigev_notify = 77;
    SAY("an unknown notification", aio_read(&control));
    say_end("an unknown notification", &control);
    expect_told("an unknown notification", 0);

    struct stuck stuck;
    get_stuck(&stuck);
    struct aiocb behind = control_of(stuck.ends[0], stuck.text + 1, 1, 0);
    behind.aio_sigevent = by_signal(15);
    SAY("signal after cancellation", aio_read(&behind));
    SAY("signal after cancellation", aio_cancel(stuck.ends[0], &behind));
    expect_signal("signal after cancellation", 1);
    get_loose(&stuck);
}

/* --- Lists -------------------------------------------------------------------------------------------------------- */

/* Not inlined: the compiler would see that some of the lists are NULL, which <aio.h> says they never are. */
static __attribute__((noinline)) void say_list(const char *what, int mode, struct aiocb *const *list, int count,
                                               struct sigevent *event)
{
    SAY(what, lio_listio(mode, list, count, event));
    for (int i = 0; i < count; i++)
        if (list[i] && list[i]->aio_lio_opcode != LIO_NOP)
            say_end(what, list[i]);
}

static void lists(int fd)
{
    struct aiocb controls[6];
    struct aiocb *list[] = {&controls[0], NULL, &controls[1], &controls[2], &controls[3]};
    const int opcodes[] = {LIO_WRITE, LIO_READ, LIO_NOP, LIO_READ};
    struct sigevent event = by_signal(21);
    for (int mode = LIO_WAIT; mode <= LIO_NOWAIT; mode++) {
        const char *name = mode == LIO_WAIT ? "LIO_WAIT" : "LIO_NOWAIT";
        const int told_once = mode == LIO_NOWAIT;
        for (size_t i = 0; i < 4; i++) {
            controls[i] = control_of(fd, memory + i * BLOCK, BLOCK, i * BLOCK);
            controls[i].aio_lio_opcode = opcodes[i];
        }
        printf("%s\n", name);
        say_list("all succeed", mode, list, 5, NULL);
        say_list("all succeed, with a signal", mode, list, 5, &event);
        expect_told("all succeed, with a signal", told_once);
        controls[0].aio_sigevent = by_signal(22);
        controls[1].aio_sigevent = by_another_signal(22);
        say_list("each with a signal", mode, list, 5, NULL);
        expect_told("each with a signal", 2);
        controls[0].aio_sigevent.sigev_notify = controls[1].aio_sigevent.sigev_notify = SIGEV_NONE;
        event = by_thread(23, NULL);
        say_list("with a thread", mode, list, 5, &event);
        expect_told("with a thread", told_once);
        event = by_signal(24);

        controls[1].aio_fildes = 999;
        say_list("one fails", mode, list, 5, &event);
        expect_told("one fails", told_once);
        controls[1].aio_fildes = fd;
        controls[1].aio_lio_opcode = 77;
        say_list("an unknown opcode", mode, list, 5, NULL);
        controls[1].aio_lio_opcode = LIO_READ;
        controls[1].aio_reqprio = 21;
        say_list("one is refused", mode, list, 5, &event);
        expect_told("one is refused", told_once);
        controls[0].aio_reqprio = controls[3].aio_reqprio = -1;
        say_list("all are refused", mode, list, 5, &event);
        expect_told("all are refused", told_once);
        struct aiocb *nothing[] = {NULL, &controls[2]};
        say_list("nothing to do", mode, nothing, 2, &event);
        expect_told("nothing to do", told_once);
        say_list("an empty list", mode, list, 0, NULL);
        say_list("a negative count", mode, NULL, -1, &event);
    }
    say_list("an unknown mode", 55, NULL, 0, NULL);
}

/* --- The script --------------------------------------------------------------------------------------------------- */

static void script(const struct posix_scene *scene)
{
    memory = scene->memory;
    pattern_fill(memory, SCRIPT_BLOCKS * BLOCK, 1, 0);
    say_write("write", scene->fd, memory, SCRIPT_BLOCKS * BLOCK, 0);
    waits(scene->fd);
    cancellations(scene->fd);
    order();
    notifications(scene->fd);
    lists(scene->fd);
}

int main(int argc, char **argv)
{
    return posix_parity_main(argc, argv, "posix_aio_parity_ends", script);
}
