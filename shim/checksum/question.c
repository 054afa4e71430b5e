/*
 * The read side of the protocol. Each step stands as in MAP.md §5 and in the model; change one, run the model again.
 */
#include "checksum/question.h"

#include "base/step.h"

enum verdict map_verify(const struct map *map, uint64_t block, uint64_t sum)
{
    uint64_t run;
    struct block_words *words = map_words(map, block, &run);
    if (!words)
        return VERDICT_UNVERIFIED;
    STEP("load pending");
    uint64_t pending = atomic_load(&words->pending);
    STEP("load current");
    uint64_t current = atomic_load(&words->current);
    if (sum == pending || sum == current)
        return VERDICT_GOOD;
    if (current == WORD_UNKNOWN || word_is_contended(pending) || pending == WORD_CLAIMED)
        return VERDICT_UNVERIFIED;
    return VERDICT_SUSPECT;
}

enum verdict question_open(struct question *question, struct map *map, uint64_t block, bool nowait)
{
    uint64_t run;
    *question = (struct question){.block = block, .words = map_words(map, block, &run)};
    if (!question->words)
        return VERDICT_UNVERIFIED;
    STEP("load current");
    question->asked = atomic_load(&question->words->current);
    if (question->asked == WORD_UNKNOWN)
        return VERDICT_UNVERIFIED;
    announce_open(&question->announcement, map, block, 1, FLIGHT_QUESTION, TRANSPORT_BLOCKING, nowait);
    uint64_t idle = WORD_IDLE;
    STEP("CAS pending 0->current");
    if (atomic_compare_exchange_strong(&question->words->pending, &idle, question->asked))
        return VERDICT_SUSPECT;
    announce_close(&question->announcement);
    return VERDICT_UNDECIDED;
}

static enum verdict judge(const struct question *question, uint64_t sum)
{
    const struct announcement *announcement = &question->announcement;
    if (sum == question->asked)
        return VERDICT_GOOD;
    if (sum == 0 || map_mutator_covers(announcement->map, question->block, announcement->nowait))
        return VERDICT_UNVERIFIED;
    STEP("current still that");
    if (atomic_load(&question->words->current) != question->asked)
        return VERDICT_UNDECIDED;
    STEP("pending still exactly that");
    return atomic_load(&question->words->pending) == question->asked ? VERDICT_MISMATCH : VERDICT_UNDECIDED;
}

enum verdict question_close(struct question *question, uint64_t sum)
{
    enum verdict verdict = judge(question, sum);
    uint64_t mine = question->asked;
    STEP("release");
    if (!atomic_compare_exchange_strong(&question->words->pending, &mine, WORD_IDLE)) {
        STEP("count down");
        word_count_down(&question->words->pending);
    }
    announce_close(&question->announcement);
    return verdict;
}
