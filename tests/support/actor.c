/* The director's side of actors. */
#include "support/actor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/direct.h"

enum { SETTINGS = 6 };

bool actors_can_play(void)
{
    if (counting() && getenv("BOUNCEIO_SHIM_STEPS"))
        return true;
    test_skip("needs the build of the shim with steps");
    return false;
}

const char *store_variable(const char *directory)
{
    static char variables[64][4300];
    static unsigned count;
    char *variable = variables[count++ % 64];

    snprintf(variable, sizeof(variables[0]), "BOUNCEIO_STORE=%s/store.XXXXXX", directory);
    if (!mkdtemp(strchr(variable, '=') + 1))
        support_die("cannot make a store in %s", directory);
    return variable;
}

static _Noreturn void become_actor(int wire, const char *const *environment)
{
    char number[16];

    for (; environment && *environment; environment++)
        putenv((char *)(uintptr_t)*environment);
    const char *shim = getenv("BOUNCEIO_SHIM_STEPS");

    setenv("LD_PRELOAD", shim ? shim : "", 1);
    fcntl(wire, F_SETFD, 0);
    snprintf(number, sizeof(number), "%d", wire);
    execl("/proc/self/exe", "actor", "--actor", number, (char *)NULL);
    _exit(127);
}

struct actor actor_new(const char *const *environment)
{
    struct actor actor;
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        support_die("no wire to an actor");
    fflush(NULL);
    actor.pid = fork();
    if (actor.pid < 0)
        support_die("no process for an actor");
    if (actor.pid == 0)
        become_actor(ends[1], environment);
    close(ends[1]);
    actor.wire = ends[0];
    return actor;
}

void actor_begin(struct actor *actor, const struct order *order)
{
    /* An actor that dies at start has closed its end. */
    if (send(actor->wire, order, sizeof(*order), MSG_NOSIGNAL) != sizeof(*order) && errno != EPIPE &&
        errno != ECONNRESET)
        support_die("cannot give an order");
}

static void reap(struct actor *actor)
{
    int status;

    if (waitpid(actor->pid, &status, 0) != actor->pid)
        support_die("cannot wait for an actor");
    close(actor->wire);
    actor->pid = 0;
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "an actor ended with status %#x",
                  (unsigned)status);
}

static bool receive(struct actor *actor, struct answer *answer)
{
    ssize_t n = recv(actor->wire, answer, sizeof(*answer), MSG_WAITALL);

    if (n == sizeof(*answer))
        return true;
    reap(actor);
    return false;
}

bool actor_survives(struct actor *actor, const struct order *order, struct answer *answer)
{
    actor_begin(actor, order);
    return receive(actor, answer);
}

struct answer actor_finish(struct actor *actor)
{
    struct answer answer;

    ck_assert_msg(receive(actor, &answer), "an actor was killed");
    return answer;
}

struct answer actor_do(struct actor *actor, const struct order *order)
{
    actor_begin(actor, order);
    return actor_finish(actor);
}

void actor_does(struct actor *actor, const struct order *order)
{
    struct answer answer = actor_do(actor, order);

    ck_assert_msg(answer.result >= 0, "act %d at %llu failed: %s", (int)order->act, (unsigned long long)order->offset,
                  strerror(answer.error));
}

void actor_await_stop(struct actor *actor)
{
    int status;

    ck_assert_int_eq(waitpid(actor->pid, &status, WUNTRACED), actor->pid);
    ck_assert_msg(WIFSTOPPED(status), "an actor ended with status %#x instead of stopping", (unsigned)status);
}

void actor_continue(struct actor *actor)
{
    ck_assert_int_eq(kill(actor->pid, SIGCONT), 0);
}

void actor_leaves(struct actor *actor)
{
    int status;

    actor_begin(actor, &(struct order){.act = ACT_LEAVE});
    ck_assert_int_eq(waitpid(actor->pid, &status, 0), actor->pid);
    ck_assert_msg(status == 0, "an actor left with status %#x", (unsigned)status);
    close(actor->wire);
    actor->pid = 0;
}

void actor_is_killed(struct actor *actor)
{
    ck_assert_int_eq(kill(actor->pid, SIGKILL), 0);
    reap(actor);
}

void actor_opens(struct actor *actor, const char *path)
{
    struct order order = {.act = ACT_OPEN};

    snprintf(order.text, sizeof(order.text), "%s", path);
    actor_does(actor, &order);
}

void actor_writes(struct actor *actor, uint64_t seed, uint64_t first, uint64_t blocks)
{
    actor_does(actor,
               &(struct order){.act = ACT_WRITE, .seed = seed, .offset = first * BLOCK, .length = blocks * BLOCK});
}

void actor_stops_at(struct actor *actor, const char *where)
{
    struct order order = {.act = ACT_STOP};

    snprintf(order.text, sizeof(order.text), "%s", where);
    actor_does(actor, &order);
}

struct answer actor_survey(struct actor *actor, uint64_t blocks)
{
    return actor_do(actor, &(struct order){.act = ACT_SURVEY, .length = blocks});
}

struct answer survey_of(const char *const *environment, const char *path, uint64_t blocks)
{
    struct actor actor = actor_new(environment);

    actor_opens(&actor, path);
    struct answer answer = actor_survey(&actor, blocks);

    actor_leaves(&actor);
    return answer;
}
