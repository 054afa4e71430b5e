/*
 * Verification of a range of a file on request, throwing the data away.
 */
#ifndef BOUNCEIO_ENGINE_SURVEY_H
#define BOUNCEIO_ENGINE_SURVEY_H

#include "bounceio.h"

/* See bounceio_verify_range. @return 0 or -errno. */
int survey_range(int fd, uint64_t offset, uint64_t length, struct bounceio_verify_result *result);

#endif
