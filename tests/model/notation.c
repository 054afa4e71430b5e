/*
 * Reading the notation.
 */
#include "model/notation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const notation_starts[STARTS] = {[START_KNOWN] = "known",
                                             [START_UNKNOWN] = "unknown",
                                             [START_DAMAGED] = "damaged",
                                             [START_SHORT] = "short",
                                             [START_EMPTY] = "empty"};

static const char letters[] = {[WHOLE_WRITER] = 'W', [PARTIAL_WRITER] = 'P', [READER] = 'R', [ADOPTER] = 'A',
                               [MUTATOR] = 'M',      [TRUNCATOR] = 'X',      [SETTLER] = 'T'};

char notation_role(enum role role)
{
    return letters[role];
}

_Noreturn static void cannot_read(const char *text)
{
    fprintf(stderr, "model: what is \"%s\"? Participants are written like \"W(bb)!~ P(.c)? R M X A T\"\n", text);
    exit(2);
}

/* "(bc)": contents are letters of "0abcx", a dot for the sector that is left alone. */
static const char *parse_content(struct part *part, const char *text)
{
    static const char contents[] = "0abcx";
    if (strlen(text) < 4 || text[0] != '(' || text[3] != ')')
        cannot_read(text);
    for (unsigned sector = 0; sector < 2; sector++) {
        const char *content = strchr(contents, text[1 + sector]);
        if (content)
            part->content[sector] = (uint8_t)(content - contents);
        else if (text[1 + sector] != '.')
            cannot_read(text);
    }
    part->sector = text[1] == '.';
    return text + 4;
}

void notation_read(struct configuration *configuration, const char *text)
{
    while (*text) {
        struct part *part = &configuration->part[configuration->participants++];
        const char *letter = memchr(letters, *text++, sizeof letters);
        if (!letter || configuration->participants >= PARTICIPANTS_MOST)
            cannot_read(text - 1);
        part->role = (enum role)(letter - letters);
        if (part->role == WHOLE_WRITER || part->role == PARTIAL_WRITER)
            text = parse_content(part, text);
        for (; *text && *text != ' '; text++) {
            part->may_die |= *text == '!';
            part->asynchronous |= *text == '~';
            part->may_fail |= *text == '?';
        }
        text += *text == ' ';
    }
}
