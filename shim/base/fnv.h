/* FNV-1a, 64 bits, for what is not worth a block's hash. Source: RFC 9923. */
#ifndef BOUNCEIO_BASE_FNV_H
#define BOUNCEIO_BASE_FNV_H

#include <stddef.h>
#include <stdint.h>

uint64_t fnv_sum(const void *data, size_t length);

#endif
