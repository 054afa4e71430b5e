/*
 * The bytes of one run of the fuzzer, taken from the front; zeros when they have run out.
 */
#ifndef BOUNCEIO_TESTS_FUZZ_INPUT_H
#define BOUNCEIO_TESTS_FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct input {
    const uint8_t *bytes;
    size_t left;
};

static inline void input_copy(struct input *input, void *to, size_t length)
{
    size_t have = length < input->left ? length : input->left;
    memset(to, 0, length);
    memcpy(to, input->bytes, have);
    input->bytes += have;
    input->left -= have;
}

static inline uint64_t input_take(struct input *input, size_t length)
{
    uint64_t value = 0;
    uint8_t bytes[8];
    input_copy(input, bytes, length);
    memcpy(&value, bytes, sizeof bytes < length ? sizeof bytes : length);
    return value;
}

static inline uint8_t input_byte(struct input *input)
{
    return (uint8_t)input_take(input, 1);
}

static inline uint64_t input_below(struct input *input, uint64_t bound)
{
    return input_take(input, bound > 0xffff ? 4 : bound > 0xff ? 2 : 1) % bound;
}

#endif
