/*
 * How participants are written:
 *
 *   W(bc)   a writer of the whole block, contents b and c of its sectors        R    a reader
 *   P(b.)   a writer of the first sector; P(.c) of the second                   A    an adopter
 *   M       a mutator        X   a truncator                                    T    a settler
 *
 * and behind them ! it may be killed at any step, ~ what it has issued may reach the disk after its death, ? its request may be
 * refused or fail half-way. The block holds (aa) in the beginning; "damaged": (xa), with the checksum of (aa).
 */
#ifndef BOUNCEIO_TESTS_MODEL_NOTATION_H
#define BOUNCEIO_TESTS_MODEL_NOTATION_H

#include "model/protocol.h"

/* "known", "damaged" ... */
extern const char *const notation_starts[STARTS];

/* The character of a role. */
char notation_role(enum role role);

/* Add the participants of `text` to the configuration; ends the program when it cannot be read. */
void notation_read(struct configuration *configuration, const char *text);

#endif
