/* Choosing. Owns the choices of the present schedule. */
#include "schedule/explore.h"

#include <string.h>

#include "support/support.h"

enum { CHOICES_MOST = 4096 };

static struct {
    unsigned made, known; /* choices of this schedule; those of them that are given */
    unsigned answer[CHOICES_MOST], ways[CHOICES_MOST];
    bool begun, random;
    struct random dice;
} choices;

void explore_all(void)
{
    memset(&choices, 0, sizeof choices);
}

void explore_random(uint64_t seed)
{
    memset(&choices, 0, sizeof choices);
    choices.random = true;
    choices.dice.state = seed;
}

void explore_again(void)
{
    choices.known = choices.made;
    choices.made = 0;
}

bool explore_next(void)
{
    bool first = !choices.begun;
    choices.begun = true;
    if (first || choices.random) {
        choices.made = choices.known = 0;
        return true;
    }
    while (choices.made > 0 && choices.answer[choices.made - 1] + 1 >= choices.ways[choices.made - 1])
        choices.made--;
    choices.known = choices.made;
    choices.made = 0;
    if (choices.known == 0)
        return false;
    choices.answer[choices.known - 1]++;
    return true;
}

unsigned explore_choose(unsigned ways)
{
    unsigned at = choices.made++;
    if (at >= CHOICES_MOST)
        support_die("a schedule of more than %d choices", CHOICES_MOST);
    if (at >= choices.known) {
        choices.ways[at] = ways;
        choices.answer[at] = 0;
        if (choices.random && ways > 1 && random_chance(&choices.dice, 50))
            choices.answer[at] = (unsigned)(1 + random_below(&choices.dice, ways - 1));
    }
    if (choices.ways[at] != ways)
        support_die("the schedule cannot be repeated: choice %u was between %u, now %u", at, choices.ways[at], ways);
    return choices.answer[at];
}
