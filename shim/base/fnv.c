/* See fnv.h. */
#include "base/fnv.h"

uint64_t fnv_sum(const void *data, size_t length)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    const unsigned char *bytes = data;
    for (size_t i = 0; i < length; i++)
        sum = (sum ^ bytes[i]) * UINT64_C(0x100000001b3);
    return sum;
}
