/*
 * See crew.h. Files are taken from the list in order and opened by whichever thread has nothing better to do, which is a region of a file
 * that is open already; so there are seldom more open files than threads.
 */
#include "cli/crew.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "bounce/pool.h"

struct crew {
    const struct crew_task *task;
    struct crew_list *list;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t next;                  /* of the list */
    unsigned opening;             /* files that may have regions in a moment */
    struct subject *open, **last; /* files with regions that nobody has taken yet */
};

static volatile sig_atomic_t stop_signal;

static void stop(int signal)
{
    stop_signal = signal;
}

void crew_catch_signals(void)
{
    struct sigaction action = {.sa_handler = stop, .sa_flags = SA_RESTART | (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int crew_stopped(void)
{
    return stop_signal;
}

unsigned crew_default_jobs(void)
{
    cpu_set_t processors;
    int count = sched_getaffinity(0, sizeof processors, &processors) == 0 ? CPU_COUNT(&processors) : 1;
    return count < 1 ? 1 : count < CREW_JOBS_MOST ? (unsigned)count : CREW_JOBS_MOST;
}

bool crew_list_add(struct crew_list *list, struct subject *subject)
{
    if (list->count == list->room) {
        size_t room = list->room ? list->room * 2 : 64;
        struct subject **subjects = realloc(list->subjects, room * sizeof *subjects);
        if (!subjects)
            return false;
        list->subjects = subjects;
        list->room = room;
    }
    list->subjects[list->count++] = subject;
    list->bytes += subject->size;
    return true;
}

static void finish(struct crew *crew, struct subject *subject)
{
    pthread_mutex_unlock(&crew->lock);
    crew->task->close(subject);
    subject_free(subject);
    pthread_mutex_lock(&crew->lock);
}

/* One region of the first open file. Lock held, but not while it works. */
static void work_on_region(struct crew *crew, char *room)
{
    struct subject *subject = crew->open;
    uint64_t region = subject->next_region++;
    if (subject->next_region == subject->regions) {
        crew->open = subject->next;
        if (!crew->open)
            crew->last = &crew->open;
    }
    pthread_mutex_unlock(&crew->lock);
    crew->task->region(subject, region, room);
    pthread_mutex_lock(&crew->lock);
    if (--subject->left == 0)
        finish(crew, subject);
}

/* Open the next file of the list. */
static void open_next(struct crew *crew)
{
    struct subject *subject = crew->list->subjects[crew->next++];
    crew->opening++;
    pthread_mutex_unlock(&crew->lock);
    crew->task->open(subject);
    pthread_mutex_lock(&crew->lock);
    crew->opening--;
    if (subject->regions > 0) {
        subject->left = subject->regions;
        *crew->last = subject;
        crew->last = &subject->next;
    } else {
        finish(crew, subject);
    }
    pthread_cond_broadcast(&crew->changed);
}

static void *work(void *argument)
{
    struct crew *crew = argument;
    struct extent room;
    if (pool_take(&room, CREW_ROOM, false) != 0)
        return NULL;
    pthread_mutex_lock(&crew->lock);
    for (;;) {
        if (crew->open)
            work_on_region(crew, room.base);
        else if (crew->next < crew->list->count && !crew_stopped())
            open_next(crew);
        else if (crew->opening > 0)
            pthread_cond_wait(&crew->changed, &crew->lock);
        else
            break;
    }
    pthread_mutex_unlock(&crew->lock);
    pool_give(&room);
    return crew;
}

bool crew_run(const struct crew_task *task, struct crew_list *list, unsigned jobs)
{
    struct crew crew = {
        .task = task, .list = list, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    pthread_t threads[CREW_JOBS_MOST];
    unsigned started = 0;
    crew.last = &crew.open;
    while (started + 1 < jobs && pthread_create(&threads[started], NULL, work, &crew) == 0)
        started++;
    bool worked = work(&crew) != NULL;
    for (unsigned i = 0; i < started; i++) {
        void *result;
        pthread_join(threads[i], &result);
        worked |= result != NULL;
    }
    /* Those that an interruption has left. */
    while (crew.next < list->count)
        subject_free(list->subjects[crew.next++]);
    free(list->subjects);
    *list = (struct crew_list){0};
    return worked;
}
