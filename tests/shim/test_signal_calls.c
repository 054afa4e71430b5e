/*
 * What the signal calls return and report about SIGSEGV and SIGBUS while the guard keeps them for itself, and signals that
 * somebody sends: all as without the shim.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/scenario.h"
#include "support/support.h"

/* These calls are old, and deprecated for it; programs use them. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

static const int two[] = {SIGSEGV, SIGBUS};

static void ignore_it(int number)
{
    say("handler: signal %d", number);
}

static void ignore_it_too(int number)
{
    say("other handler: signal %d", number);
}

static const char *name_of(void (*handler)(int))
{
    return handler == SIG_DFL     ? "SIG_DFL"
           : handler == SIG_IGN   ? "SIG_IGN"
           : handler == SIG_ERR   ? "SIG_ERR"
           : handler == SIG_HOLD  ? "SIG_HOLD"
           : handler == ignore_it ? "handler"
                                  : "other handler";
}

static void say_result(const char *what, long result)
{
    say("%s: %ld errno %d", what, result, result < 0 ? errno : 0);
}

static void say_handler(const char *what, void (*result)(int))
{
    say("%s: %s errno %d", what, name_of(result), result == SIG_ERR ? errno : 0);
}

static void say_set(const char *what, const sigset_t *set)
{
    uint64_t bits;
    memcpy(&bits, set, sizeof(bits));
    say("%s %016llx", what, (unsigned long long)bits);
}

static void say_own_mask(const char *what)
{
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    say_set(what, &mask);
}

static void say_action(int number)
{
    struct sigaction action;
    if (sigaction(number, NULL, &action) != 0) {
        say("action of %d: errno %d", number, errno);
        return;
    }
    say("action of %d: %s, flags %#x", number, name_of(action.sa_handler), (unsigned)action.sa_flags);
    say_set("  mask", &action.sa_mask);
}

static sigset_t set_of(int one, int other)
{
    sigset_t set;
    sigemptyset(&set);
    if (one != 0)
        sigaddset(&set, one);
    if (other != 0)
        sigaddset(&set, other);
    return set;
}

SCENARIO(actions_are_reported_back_as_they_were_set)
{
    static const unsigned flags[] = {0,
                                     SA_SIGINFO,
                                     SA_ONSTACK | SA_RESTART,
                                     SA_NODEFER,
                                     SA_RESETHAND | SA_NOCLDSTOP,
                                     SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER | SA_RESETHAND,
                                     0x20000000 /* SA_INTERRUPT: the kernel forgets it */};
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGUSR1, SIGCHLD, 64};
    sigset_t masks[] = {set_of(0, 0), set_of(SIGSEGV, SIGBUS), set_of(SIGBUS, SIGUSR2), set_of(SIGKILL, SIGSTOP)};
    guard_may_rise();
    for (size_t n = 0; n < sizeof(numbers) / sizeof(numbers[0]); n++) {
        for (size_t f = 0; f < sizeof(flags) / sizeof(flags[0]); f++) {
            for (size_t m = 0; m < sizeof(masks) / sizeof(masks[0]); m++) {
                struct sigaction action = {.sa_handler = f % 2 ? ignore_it : ignore_it_too, .sa_flags = (int)flags[f]};
                struct sigaction old;
                action.sa_mask = masks[m];
                sigaction(numbers[n], &action, &old);
                say("before: %s %#x", name_of(old.sa_handler), (unsigned)old.sa_flags);
                say_set("  mask", &old.sa_mask);
                say_action(numbers[n]);
            }
        }
    }
}

SCENARIO(actions_installed_before_the_guard_are_reported_back)
{
    sigset_t all;
    sigfillset(&all);
    for (int number = 1; number < 32; number++) {
        struct sigaction action = {.sa_handler = ignore_it, .sa_flags = number % 2 ? SA_RESTART : SA_ONSTACK};
        if (number % 3)
            action.sa_mask = all;
        sigaction(number, &action, NULL);
    }
    guard_may_rise();
    for (int number = 1; number < 32; number++)
        say_action(number);
}

SCENARIO(one_sigaction_can_read_and_write_the_same_memory)
{
    guard_may_rise();
    for (int i = 0; i < 2; i++) {
        struct sigaction action = {.sa_handler = ignore_it, .sa_flags = SA_RESTART};
        struct sigaction *same = &action;
        sigaction(two[i], &action, same);
        say("%s", name_of(action.sa_handler));
        say_action(two[i]);
    }
}

SCENARIO(numbers_that_are_no_signals_are_refused)
{
    static const int numbers[] = {-1, 0, 9, 19, 32, 33, 65, 1000};
    struct sigaction action = {.sa_handler = ignore_it}, old;
    guard_may_rise();
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        int number = numbers[i];
        say("number %d", number);
        say_result("sigaction", sigaction(number, &action, &old));
        say_handler("signal", signal(number, ignore_it));
        say_handler("sigset", sigset(number, ignore_it));
        say_result("sighold", sighold(number));
        say_result("sigignore", sigignore(number));
        say_result("siginterrupt", siginterrupt(number, 1));
    }
    say_handler("signal(SIG_ERR)", signal(SIGSEGV, SIG_ERR));
}

SCENARIO(the_relatives_of_signal_do_what_they_say)
{
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGUSR1};
    guard_may_rise();
    for (int i = 0; i < 3; i++) {
        int number = numbers[i];
        say("signal: %s", name_of(signal(number, ignore_it)));
        say_action(number);
        say("siginterrupt: %d", siginterrupt(number, 1));
        say_action(number);
        say("signal: %s", name_of(signal(number, ignore_it_too)));
        say_action(number);
        say("siginterrupt: %d", siginterrupt(number, 0));
        say_action(number);
        say("sysv_signal: %s", name_of(sysv_signal(number, ignore_it)));
        say_action(number);
        say("ssignal: %s", name_of(ssignal(number, ignore_it)));
        say("sigset: %s", name_of(sigset(number, ignore_it_too)));
        say_action(number);
        say("sigset: %s", name_of(sigset(number, SIG_HOLD)));
        say("sigset: %s", name_of(sigset(number, SIG_HOLD)));
        say_own_mask("held");
        say("sigset: %s", name_of(sigset(number, SIG_DFL)));
        say_own_mask("released");
        say("sighold: %d", sighold(number));
        say_own_mask("held");
        say("sigrelse: %d", sigrelse(number));
        say_own_mask("released");
        say("sigignore: %d", sigignore(number));
        say_action(number);
    }
}

SCENARIO(masks_are_reported_back_as_they_were_set)
{
    sigset_t all, old, some = set_of(SIGSEGV, SIGUSR1), bus = set_of(SIGBUS, 0);
    sigfillset(&all);
    guard_may_rise();
    say_own_mask("at first");
    sigprocmask(SIG_BLOCK, &some, &old);
    say_set("old", &old);
    pthread_sigmask(SIG_BLOCK, &bus, &old);
    say_set("old", &old);
    sigprocmask(SIG_UNBLOCK, &some, &old);
    say_set("old", &old);
    sigset_t *same = &all;
    pthread_sigmask(SIG_SETMASK, &all, same);
    say_set("old", &all);
    say_own_mask("all");
    memset(&all, 0xff, sizeof(all)); /* also what the C library keeps for itself */
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    say_own_mask("every bit");
    direct_write_from_nowhere();
    sigprocmask(SIG_SETMASK, &all, &old);
    say_set("old", &old);
    say_result("bad how", sigprocmask(17, &all, NULL));
    say("bad how: %d", pthread_sigmask(-1, &all, NULL));
    say("bad how, no set: %d", pthread_sigmask(-1, NULL, &old));
    say_result("bad old", sigprocmask(SIG_BLOCK, NULL, (sigset_t *)8));
    say_own_mask("at last");
}

SCENARIO(the_masks_of_old_are_reported_back)
{
    guard_may_rise();
    say("sigblock %x", (unsigned)sigblock(1 << (SIGSEGV - 1) | 1 << (SIGUSR2 - 1)));
    say("sigsetmask %x", (unsigned)sigsetmask(1 << (SIGBUS - 1)));
    direct_write_from_nowhere();
    say("sigblock %x", (unsigned)sigblock(0));
    say_own_mask("at last");
}

SCENARIO(a_mask_set_before_the_guard_is_reported_back)
{
    sigset_t some = set_of(SIGSEGV, SIGUSR1);
    sigprocmask(SIG_BLOCK, &some, NULL);
    guard_may_rise();
    direct_write_from_nowhere();
    say_own_mask("still");
    sigprocmask(SIG_UNBLOCK, &some, NULL);
    say_own_mask("now");
}

static void *say_inherited(void *name)
{
    say_own_mask(name);
    direct_write_from_nowhere();
    say_own_mask(name);
    return NULL;
}

SCENARIO(a_new_thread_inherits_the_mask)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, none, some = set_of(SIGBUS, SIGUSR1);
    sigfillset(&all);
    sigemptyset(&none);
    guard_may_rise();
    sigprocmask(SIG_BLOCK, &all, &none);
    pthread_create(&thread, NULL, say_inherited, (void *)"inherits all");
    pthread_join(thread, NULL);
    say_own_mask("creator");
    direct_write_from_nowhere();
    sigprocmask(SIG_SETMASK, &none, NULL);
    pthread_create(&thread, NULL, say_inherited, (void *)"inherits none");
    pthread_join(thread, NULL);
    pthread_attr_init(&attributes);
    pthread_attr_setsigmask_np(&attributes, &some);
    pthread_create(&thread, &attributes, say_inherited, (void *)"is given");
    pthread_join(thread, NULL);
}

SCENARIO(a_forked_child_inherits_the_mask_and_the_actions)
{
    sigset_t some = set_of(SIGSEGV, SIGUSR1);
    int status;
    guard_may_rise();
    sigprocmask(SIG_BLOCK, &some, NULL);
    signal(SIGBUS, ignore_it);
    if (fork() == 0) {
        say_own_mask("child");
        say_action(SIGBUS);
        direct_write_from_nowhere();
        _exit(5);
    }
    wait(&status);
    say("child: %#x", (unsigned)status);
}

/* What launchers of programs do in the child of vfork: none of it may reach the parent, whose memory it is. */
static __attribute__((noinline)) void change_everything(void)
{
    sigset_t all;
    sigfillset(&all);
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_IGN);
    signal(SIGUSR1, SIG_DFL);
    sigprocmask(SIG_BLOCK, &all, NULL);
    say_own_mask("child");
}

SCENARIO(what_a_child_of_vfork_changes_is_its_own)
{
    struct sigaction action = {.sa_handler = ignore_it};
    int status;
    sigaddset(&action.sa_mask, SIGSEGV);
    signal(SIGSEGV, ignore_it);
    signal(SIGBUS, ignore_it);
    sigaction(SIGUSR1, &action, NULL);
    guard_may_rise();
    if (vfork() == 0) {
        change_everything();
        _exit(0);
    }
    wait(&status);
    say_action(SIGSEGV);
    say_action(SIGBUS);
    say_action(SIGUSR1);
    say_own_mask("parent");
    direct_write_from_nowhere();
}

static void describe_sent(int number, siginfo_t *info, void *context)
{
    (void)context;
    say("signal %d code %d by me %d value %d", number, info->si_code, info->si_pid == getpid(), info->si_int);
}

static void describe_what_is_sent(void)
{
    struct sigaction action = {.sa_sigaction = describe_sent, .sa_flags = SA_SIGINFO};
    for (int i = 0; i < 2; i++)
        sigaction(two[i], &action, NULL);
}

static void send_all_ways(int number)
{
    kill(getpid(), number);
    say("killed");
    raise(number);
    say("raised");
    sigqueue(getpid(), number, (union sigval){.sival_int = 77});
    say("queued");
}

SCENARIO(signals_that_are_sent_arrive_with_what_was_sent)
{
    describe_what_is_sent();
    guard_may_rise();
    send_all_ways(SIGSEGV);
    send_all_ways(SIGBUS);
}

SCENARIO(signals_that_are_sent_wait_while_blocked_and_arrive_on_unblocking)
{
    sigset_t segv = set_of(SIGSEGV, 0), both = set_of(SIGSEGV, SIGBUS);
    describe_what_is_sent();
    guard_may_rise();
    sigprocmask(SIG_BLOCK, &both, NULL);
    sigqueue(getpid(), SIGSEGV, (union sigval){.sival_int = 77});
    sigqueue(getpid(), SIGSEGV, (union sigval){.sival_int = 78}); /* lost: one of a kind is kept */
    raise(SIGBUS);
    direct_write_from_nowhere();
    say("unblocking one");
    sigprocmask(SIG_UNBLOCK, &segv, NULL);
    say("unblocking both");
    sigprocmask(SIG_UNBLOCK, &both, NULL);
    say("done");
}

static void raise_in_handler(int number)
{
    static int times;
    say("enter");
    if (++times < 3)
        raise(number);
    say("leave");
}

SCENARIO(a_signal_raised_in_its_own_handler_arrives_after_it)
{
    signal(SIGSEGV, raise_in_handler);
    guard_may_rise();
    raise(SIGSEGV);
    say("done");
}

SCENARIO(a_signal_that_is_sent_and_has_no_handler_kills)
{
    guard_may_rise();
    kill(getpid(), SIGSEGV);
    pause();
}

SCENARIO(a_signal_that_waits_kills_when_it_is_unblocked_without_a_handler)
{
    sigset_t both = set_of(SIGSEGV, SIGBUS);
    guard_may_rise();
    sigprocmask(SIG_BLOCK, &both, NULL);
    raise(SIGBUS);
    say("still here");
    sigprocmask(SIG_UNBLOCK, &both, NULL);
    say("not here");
}

SCENARIO(a_signal_that_is_sent_and_ignored_does_nothing)
{
    signal(SIGSEGV, SIG_IGN);
    guard_may_rise();
    kill(getpid(), SIGSEGV);
    say("still here");
}

SCENARIO(a_waiting_signal_is_not_inherited_by_a_forked_child)
{
    sigset_t both = set_of(SIGSEGV, SIGBUS);
    int status;
    describe_what_is_sent();
    guard_may_rise();
    sigprocmask(SIG_BLOCK, &both, NULL);
    raise(SIGSEGV);
    if (fork() == 0) {
        sigprocmask(SIG_UNBLOCK, &both, NULL);
        _exit(0);
    }
    wait(&status);
    say("child: %#x", (unsigned)status);
    sigprocmask(SIG_UNBLOCK, &both, NULL);
}

/* Runs with the mask of the wait that it ends. */
static void write_from_nowhere(int number)
{
    say("handler: signal %d", number);
    direct_write_from_nowhere();
}

static void alarm_in(long microseconds)
{
    struct itimerval once = {{0, 0}, {0, microseconds}};
    struct sigaction action = {.sa_handler = write_from_nowhere};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &once, NULL);
}

SCENARIO(waits_with_a_full_mask_end_by_the_one_signal_that_is_let_through)
{
    sigset_t almost_all, alarm_only = set_of(SIGALRM, 0);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event;
    struct timespec second = {5, 0};
    sigfillset(&almost_all);
    sigdelset(&almost_all, SIGALRM);
    guard_may_rise();
    sigprocmask(SIG_BLOCK, &alarm_only, NULL);
    alarm_in(1000);
    say_result("sigsuspend", sigsuspend(&almost_all));
    alarm_in(1000);
    say_result("ppoll", ppoll(NULL, 0, &second, &almost_all));
    alarm_in(1000);
    say_result("pselect", pselect(0, NULL, NULL, NULL, &second, &almost_all));
    alarm_in(1000);
    say_result("epoll_pwait", epoll_pwait(epoll, &event, 1, 5000, &almost_all));
    alarm_in(1000);
    say_result("epoll_pwait2", epoll_pwait2(epoll, &event, 1, &second, &almost_all));
    alarm_in(1000);
    say_result("sigpause", sigpause(SIGALRM));
    say_own_mask("at last");
    direct_write_from_nowhere();
}

SCENARIO(waits_with_a_bad_mask_are_refused)
{
    sigset_t *bad = (sigset_t *)8;
    struct timespec none = {0, 0};
    struct epoll_event event;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    guard_may_rise();
    say_result("sigsuspend", sigsuspend(bad));
    say_result("ppoll", ppoll(NULL, 0, &none, bad));
    say_result("pselect", pselect(0, NULL, NULL, NULL, &none, bad));
    say_result("epoll_pwait", epoll_pwait(epoll, &event, 1, 0, bad));
}

static int run_scenario(int argc, char **argv)
{
    static const struct scenario scenarios[] = {
        {"actions_are_reported_back_as_they_were_set", scenario_actions_are_reported_back_as_they_were_set},
        {"actions_installed_before_the_guard_are_reported_back",
         scenario_actions_installed_before_the_guard_are_reported_back},
        {"one_sigaction_can_read_and_write_the_same_memory", scenario_one_sigaction_can_read_and_write_the_same_memory},
        {"numbers_that_are_no_signals_are_refused", scenario_numbers_that_are_no_signals_are_refused},
        {"the_relatives_of_signal_do_what_they_say", scenario_the_relatives_of_signal_do_what_they_say},
        {"masks_are_reported_back_as_they_were_set", scenario_masks_are_reported_back_as_they_were_set},
        {"the_masks_of_old_are_reported_back", scenario_the_masks_of_old_are_reported_back},
        {"a_mask_set_before_the_guard_is_reported_back", scenario_a_mask_set_before_the_guard_is_reported_back},
        {"a_new_thread_inherits_the_mask", scenario_a_new_thread_inherits_the_mask},
        {"a_forked_child_inherits_the_mask_and_the_actions", scenario_a_forked_child_inherits_the_mask_and_the_actions},
        {"what_a_child_of_vfork_changes_is_its_own", scenario_what_a_child_of_vfork_changes_is_its_own},
        {"signals_that_are_sent_arrive_with_what_was_sent", scenario_signals_that_are_sent_arrive_with_what_was_sent},
        {"signals_that_are_sent_wait_while_blocked_and_arrive_on_unblocking",
         scenario_signals_that_are_sent_wait_while_blocked_and_arrive_on_unblocking},
        {"a_signal_raised_in_its_own_handler_arrives_after_it",
         scenario_a_signal_raised_in_its_own_handler_arrives_after_it},
        {"a_signal_that_is_sent_and_has_no_handler_kills", scenario_a_signal_that_is_sent_and_has_no_handler_kills},
        {"a_signal_that_waits_kills_when_it_is_unblocked_without_a_handler",
         scenario_a_signal_that_waits_kills_when_it_is_unblocked_without_a_handler},
        {"a_signal_that_is_sent_and_ignored_does_nothing", scenario_a_signal_that_is_sent_and_ignored_does_nothing},
        {"a_waiting_signal_is_not_inherited_by_a_forked_child",
         scenario_a_waiting_signal_is_not_inherited_by_a_forked_child},
        {"waits_with_a_full_mask_end_by_the_one_signal_that_is_let_through",
         scenario_waits_with_a_full_mask_end_by_the_one_signal_that_is_let_through},
        {"waits_with_a_bad_mask_are_refused", scenario_waits_with_a_bad_mask_are_refused},
        {NULL, NULL},
    };
    return scenario_run(scenarios, argc, argv);
}

int main(int argc, char **argv)
{
    static const struct support_mode modes[] = {{"--scenario", run_scenario}, {NULL, NULL}};
    const TTest *const tests[] = {
        actions_are_reported_back_as_they_were_set,
        actions_installed_before_the_guard_are_reported_back,
        one_sigaction_can_read_and_write_the_same_memory,
        numbers_that_are_no_signals_are_refused,
        the_relatives_of_signal_do_what_they_say,
        masks_are_reported_back_as_they_were_set,
        the_masks_of_old_are_reported_back,
        a_mask_set_before_the_guard_is_reported_back,
        a_new_thread_inherits_the_mask,
        a_forked_child_inherits_the_mask_and_the_actions,
        what_a_child_of_vfork_changes_is_its_own,
        signals_that_are_sent_arrive_with_what_was_sent,
        signals_that_are_sent_wait_while_blocked_and_arrive_on_unblocking,
        a_signal_raised_in_its_own_handler_arrives_after_it,
        a_signal_that_is_sent_and_has_no_handler_kills,
        a_signal_that_waits_kills_when_it_is_unblocked_without_a_handler,
        a_signal_that_is_sent_and_ignored_does_nothing,
        a_waiting_signal_is_not_inherited_by_a_forked_child,
        waits_with_a_full_mask_end_by_the_one_signal_that_is_let_through,
        waits_with_a_bad_mask_are_refused,
        NULL,
    };
    return support_main(argc, argv, "signal calls", 30, modes, tests);
}
