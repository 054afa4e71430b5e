/*
 * The threads that carry out POSIX AIO requests, and how the program is told. See posix_aio.h.
 *
 * A helper takes what is due, makes the call, publishes the result, tells the program, and only then lets the descriptor's next request go: a
 * program sees its notifications in order. It ends when it has had nothing to do for a while. Its signals are blocked from its first
 * instruction on.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/raw.h"
#include "rings/posix_queue.h"

/* As glibc's. */
struct posix_limits posix_limits = {.helpers = 20, .idle_seconds = 1};

/* Enough for a request, a fault in it, and a line of the log; where the program's thread-locals want more, the usual size. */
enum { HELPER_STACK = 256 << 10 };

/* --- Telling ------------------------------------------------------------------------------------------------------ */

/* Those who wait for any result look again. */
static void wake_waiters(void)
{
    uint32_t seen = atomic_load_explicit(&posix_state->completions, memory_order_relaxed);
    /* Release: the results before it; partner of the acquire in posix_aio.c, which sets the lowest bit. */
    while (!atomic_compare_exchange_weak_explicit(&posix_state->completions, &seen, (seen + 2) & ~UINT32_C(1),
                                                  memory_order_release, memory_order_relaxed))
        ;
    if (seen & 1)
        raw(SYS_futex, &posix_state->completions, FUTEX_WAKE_PRIVATE, INT_MAX);
}

void posix_publish(struct posix_request *request, ssize_t result, int error)
{
    request->state = POSIX_DONE;
    if (request->group && result == -1)
        request->group->failed = true;
    request->control->__return_value = result;
    /* Release: partner of the acquire in posix_aio_error. The aiocb is the program's again. */
    __atomic_store_n(&request->control->__error_code, error, __ATOMIC_RELEASE);
    wake_waiters();
}

static void send_signal(const struct posix_notice *notice)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_signo = notice->signal;
    info.si_code = SI_ASYNCIO;
    info.si_pid = (pid_t)raw(SYS_getpid);
    info.si_uid = (uid_t)raw(SYS_getuid);
    info.si_value = notice->value;
    raw(SYS_rt_sigqueueinfo, info.si_pid, info.si_signo, &info);
}

/* The first function of a notification's thread. The carrier came from whoever started it. */
static void *run_notice(void *carrier)
{
    const struct posix_notice notice = ((struct posix_request *)carrier)->notice;
    uint64_t saved;
    sigset_t none;
    posix_enter(&saved);
    posix_request_give(carrier);
    posix_leave(&saved);
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    notice.function(notice.value);
    return NULL;
}

/* Through the front door, like a thread that the program makes itself: its masks are what the program thinks they are. */
static int start_thread(const struct posix_notice *notice, struct posix_request *carrier)
{
    pthread_t thread;
    pthread_attr_t usual;
    if (notice->attributes)
        return pthread_create(&thread, notice->attributes, run_notice, carrier);
    pthread_attr_init(&usual);
    pthread_attr_setdetachstate(&usual, PTHREAD_CREATE_DETACHED);
    int error = pthread_create(&thread, &usual, run_notice, carrier);
    pthread_attr_destroy(&usual);
    return error;
}

static void notify_by_thread(const struct posix_notice *notice)
{
    uint64_t saved;
    posix_enter(&saved);
    struct posix_request *carrier = posix_request_take();
    posix_leave(&saved);
    if (!carrier)
        return;
    carrier->notice = *notice;
    if (start_thread(notice, carrier) == 0)
        return;
    posix_enter(&saved);
    posix_request_give(carrier);
    posix_leave(&saved);
}

void posix_notify(const struct posix_notice *notice)
{
    if (notice->how == SIGEV_SIGNAL)
        send_signal(notice);
    else if (notice->how == SIGEV_THREAD)
        notify_by_thread(notice);
}

void posix_group_leave(struct posix_group *group)
{
    struct posix_notice notice = {.how = SIGEV_NONE};
    uint64_t saved;
    posix_enter(&saved);
    /* Release: partner of the acquire by whoever waits for the group. */
    const bool is_over = atomic_fetch_sub_explicit(&group->left, 1, memory_order_acq_rel) == 1;
    const bool is_kept = group->kept;
    if (is_over && !is_kept) {
        notice = group->notice;
        posix_group_give(group);
    }
    posix_leave(&saved);
    if (is_over && is_kept)
        wake_waiters();
    posix_notify(&notice);
}

void posix_tell(struct posix_request *request)
{
    posix_notify(&request->notice);
    if (request->group)
        posix_group_leave(request->group);
}

/* --- Carrying out ------------------------------------------------------------------------------------------------- */

static ssize_t transfer(const struct posix_request *request)
{
    const bool reads = (request->operation & 127) == LIO_READ;
    const int fd = request->fd;
    ssize_t result = reads ? pread(fd, request->buffer, request->length, request->offset)
                           : pwrite(fd, request->buffer, request->length, request->offset);
    /* What has no offset ignores it. */
    if (result == -1 && errno == ESPIPE)
        result = reads ? read(fd, request->buffer, request->length) : write(fd, request->buffer, request->length);
    return result;
}

/* The program's own call, by the wrappers that it would have called itself. @return as they do, with errno. */
static ssize_t carry_out(const struct posix_request *request)
{
    switch (request->operation & 127) {
    case LIO_READ:
    case LIO_WRITE:
        for (;;) {
            ssize_t result = transfer(request);
            if (result != -1 || errno != EINTR)
                return result;
        }
    case POSIX_AIO_DATASYNC:
        return fdatasync(request->fd);
    case POSIX_AIO_SYNC:
        return fsync(request->fd);
    default:
        errno = EINVAL;
        return -1;
    }
}

/* --- Threads ------------------------------------------------------------------------------------------------------ */

/* The priority and policy of who has asked for it, lowered as asked. */
struct standing_of_helper {
    int policy;
    struct sched_param parameters;
};

static void take_standing(struct standing_of_helper *standing, const struct posix_request *request)
{
    if (standing->policy == request->policy && standing->parameters.sched_priority == request->priority)
        return;
    standing->policy = request->policy;
    standing->parameters.sched_priority = request->priority;
    pthread_setschedparam(pthread_self(), standing->policy, &standing->parameters);
}

/* Until something may be due. Under the lock, which is given up meanwhile. @return false when the time for that is over. */
static bool sleep_idle(void)
{
    const struct timespec while_idle = {.tv_sec = posix_limits.idle_seconds};
    const uint32_t seen = atomic_load_explicit(&posix_state->calls, memory_order_relaxed);
    posix_state->idle++;
    posix_unlock();
    const long result = raw(SYS_futex, &posix_state->calls, FUTEX_WAIT_PRIVATE, seen, &while_idle);
    posix_lock();
    /* Whoever called has counted one sleeper less; which of them hears it does not matter. */
    if (posix_state->called > 0) {
        posix_state->called--;
        return true;
    }
    posix_state->idle--;
    return result != -ETIMEDOUT || posix_state->due;
}

/* Under the lock, which is given up while the program is told. */
static void finish(struct posix_request *request, ssize_t result, int error)
{
    posix_publish(request, result, error);
    if (request->notice.how != SIGEV_NONE || request->group) {
        posix_unlock();
        posix_tell(request);
        posix_lock();
    }
    posix_queue_end(request);
    posix_request_give(request);
}

static void *help(void *unused)
{
    struct standing_of_helper standing;
    pthread_getschedparam(pthread_self(), &standing.policy, &standing.parameters);
    posix_lock();
    do {
        struct posix_request *request;
        while ((request = posix_queue_begin()) != NULL) {
            posix_unlock();
            take_standing(&standing, request);
            const ssize_t result = carry_out(request);
            const int error = result == -1 ? errno : 0;
            pool_give(&request->pages);
            posix_lock();
            finish(request, result, error);
        }
    } while (sleep_idle());
    posix_state->helpers--;
    posix_unlock();
    return unused;
}

static int start_helper(size_t stack)
{
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (stack > 0)
        pthread_attr_setstacksize(&attributes, stack);
    int error = pthread_create(&thread, &attributes, help, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

int posix_call_helper(void)
{
    if (posix_state->idle > 0) {
        posix_state->idle--;
        posix_state->called++;
        atomic_fetch_add_explicit(&posix_state->calls, 1, memory_order_relaxed);
        raw(SYS_futex, &posix_state->calls, FUTEX_WAKE_PRIVATE, 1);
        return 0;
    }
    if (posix_state->helpers >= posix_limits.helpers)
        return 0;
    posix_state->helpers++;
    int error = start_helper(HELPER_STACK);
    if (error == EINVAL)
        error = start_helper(0);
    if (error != 0)
        posix_state->helpers--;
    return error != 0 && posix_state->helpers == 0 ? -error : 0;
}
