/*
 * The file: two sectors, which are read and written one at a time, and a size.
 */
#include "model/participant.h"

static uint8_t content_of(unsigned sector)
{
    return sector < now->size ? now->disk[sector] : 0;
}

enum progress read_block(void)
{
    BEGIN(me->at[3]);
    STEP("read the first sector");
    me->sector[0] = content_of(0);
    STEP("read the second sector");
    me->sector[1] = content_of(1);
    END;
}

uint8_t sum_as_read(void)
{
    return sum_of(me->sector[0], me->sector[1]);
}

static uint8_t sectors_of(const struct part *part)
{
    return part->role == WHOLE_WRITER ? BOTH : (uint8_t)(1U << part->sector);
}

/* The end of what is written, in sectors. */
static uint8_t end_of(const struct part *part)
{
    return part->role == WHOLE_WRITER ? SECTORS : part->sector + 1;
}

void move_size(const struct part *part)
{
    if (now->size < end_of(part))
        now->size = end_of(part);
}

void land(struct participant *writer, const struct part *part)
{
    unsigned sector = writer->landing == BOTH ? search_choose(SECTORS) : writer->landing >> 1;
    writer->landing &= (uint8_t) ~(1U << sector);
    now->disk[sector] = part->content[sector];
}

/* What it has written beyond the end of the file is never seen. */
static void lose_beyond_end(void)
{
    for (unsigned sector = now->size; sector < SECTORS; sector++)
        if ((sectors_of(my) & ~me->landing) >> sector & 1)
            now->disk[sector] = 0;
}

/* The kernel finishes what is written; of the rest, only what is asynchronous still reaches the disk. */
void abandon(void)
{
    if (me->issued && me->landing == 0)
        move_size(my);
    else if (me->issued && !my->asynchronous)
        lose_beyond_end();
    if (!my->asynchronous)
        me->landing = 0;
}

/* The request is over with an error: what has not reached the disk never will. */
static void fail(void)
{
    me->failed = true;
    me->refused = me->landing == sectors_of(my) && search_choose(2) == 1;
    lose_beyond_end();
    me->landing = 0;
}

enum progress transfer(void)
{
    BEGIN(me->at[1]);
    STEP("issue");
    me->landing = sectors_of(my);
    me->issued = true;
    while (me->landing != 0) {
        STEP("the disk writes");
        if (my->may_fail && search_choose(2) == 1)
            fail();
        else
            land(me, my);
    }
    if (!me->failed && now->size < end_of(my)) {
        STEP("the size moves");
        move_size(my);
    }
    me->issued = false;
    END;
}
