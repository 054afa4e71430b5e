/*
 * Copying and summing of blocks in one pass, compiled once for each instruction set that it is written for (SUM_COPY_VARIANT: avx2, avx512) and
 * chosen at run time in sum_copy.c. Like block_hash.c it lies in the section "guarded_text": it touches the caller's memory and may be unwound
 * by the fault guard, so it calls nothing outside and holds nothing.
 *
 * This is XXH3_64bits of 4,096 bytes: four rounds of sixteen stripes of 64 bytes, each stripe copied on its way into the eight lanes of the sum; the
 * lanes are scrambled between two rounds; the last stripe takes another part of the secret. Secret and final mixing are xxhash.h's. The caller's bytes may
 * change at any moment: each is loaded once, into a register, from which it is stored and summed.
 * Source: XXH3 specification, "Long inputs", https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md.
 */
#define XXH_INLINE_ALL
#include <immintrin.h>
#include <xxhash.h>

#include "checksum/block_sum.h"
#include "checksum/sum_copy.h"

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)

#if defined(__AVX512F__)
typedef __m512i lanes;
#define LANES_LOAD(from) _mm512_loadu_si512(from)
#define LANES_STORE(to, value) _mm512_storeu_si512(to, value)
#define LANES_STREAM(to, value) _mm512_stream_si512((__m512i *)(void *)(to), value)
#define LANES_ADD(a, b) _mm512_add_epi64(a, b)
#define LANES_XOR(a, b) _mm512_xor_si512(a, b)
#define LANES_MULTIPLY(a, b) _mm512_mul_epu32(a, b)
#define LANES_LEFT(a, bits) _mm512_slli_epi64(a, bits)
#define LANES_RIGHT(a, bits) _mm512_srli_epi64(a, bits)
#define LANES_SWAP(a) _mm512_shuffle_epi32(a, (_MM_PERM_ENUM)_MM_SHUFFLE(1, 0, 3, 2))
#define LANES_OF(value) _mm512_set1_epi64(value)
#define LOAD_ONCE "vmovdqu64"
#define REGISTER "=v"
#else
typedef __m256i lanes;
#define LANES_LOAD(from) _mm256_loadu_si256((const __m256i *)(const void *)(from))
#define LANES_STORE(to, value) _mm256_storeu_si256((__m256i *)(void *)(to), value)
#define LANES_STREAM(to, value) _mm256_stream_si256((__m256i *)(void *)(to), value)
#define LANES_ADD(a, b) _mm256_add_epi64(a, b)
#define LANES_XOR(a, b) _mm256_xor_si256(a, b)
#define LANES_MULTIPLY(a, b) _mm256_mul_epu32(a, b)
#define LANES_LEFT(a, bits) _mm256_slli_epi64(a, bits)
#define LANES_RIGHT(a, bits) _mm256_srli_epi64(a, bits)
#define LANES_SWAP(a) _mm256_shuffle_epi32(a, _MM_SHUFFLE(1, 0, 3, 2))
#define LANES_OF(value) _mm256_set1_epi64x(value)
#define LOAD_ONCE "vmovdqu"
#define REGISTER "=x"
#endif

enum {
    STRIPE = 64,
    PARTS = STRIPE / sizeof(lanes), /* registers that hold a stripe */
    STRIPES = (XXH_SECRET_DEFAULT_SIZE - STRIPE) / XXH_SECRET_CONSUME_RATE,
    ROUNDS = BLOCK_SIZE / (STRIPES * STRIPE),
};
_Static_assert(ROUNDS *STRIPES *STRIPE == BLOCK_SIZE, "a block is whole rounds");

#define ALWAYS_INLINE static inline __attribute__((always_inline))

struct sum {
    lanes part[PARTS];
};

struct position {
    unsigned char *to;
    const unsigned char *from;
};

ALWAYS_INLINE lanes load_once(const unsigned char *from)
{
    lanes value;
    __asm__ volatile(LOAD_ONCE " %1, %0" : REGISTER(value) : "m"(*(const unsigned char(*)[sizeof(lanes)])from));
    return value;
}

/* `streams`, a constant wherever it is passed: past the cache. */
ALWAYS_INLINE void copy_stripe(struct sum *sum, struct position *position, const unsigned char *secret, bool streams)
{
#pragma GCC unroll 2
    for (size_t i = 0; i < PARTS; i++) {
        const lanes bytes = load_once(position->from + i * sizeof(lanes));
        if (streams)
            LANES_STREAM(position->to + i * sizeof(lanes), bytes);
        else
            LANES_STORE(position->to + i * sizeof(lanes), bytes);
        const lanes keyed = LANES_XOR(bytes, LANES_LOAD(secret + i * sizeof(lanes)));
        const lanes product = LANES_MULTIPLY(keyed, LANES_RIGHT(keyed, 32));
        sum->part[i] = LANES_ADD(product, LANES_ADD(sum->part[i], LANES_SWAP(bytes)));
    }
    position->to += STRIPE;
    position->from += STRIPE;
}

ALWAYS_INLINE void scramble(struct sum *sum)
{
    const unsigned char *secret = XXH3_kSecret + XXH_SECRET_DEFAULT_SIZE - STRIPE;
    const lanes prime = LANES_OF((long long)XXH_PRIME32_1);
#pragma GCC unroll 2
    for (size_t i = 0; i < PARTS; i++) {
        const lanes shifted = LANES_XOR(sum->part[i], LANES_RIGHT(sum->part[i], 47));
        const lanes keyed = LANES_XOR(shifted, LANES_LOAD(secret + i * sizeof(lanes)));
        const lanes high = LANES_MULTIPLY(LANES_RIGHT(keyed, 32), prime);
        sum->part[i] = LANES_ADD(LANES_MULTIPLY(keyed, prime), LANES_LEFT(high, 32));
    }
}

/* @return XXH3_64bits of the block. Advances *position. */
ALWAYS_INLINE uint64_t copy_block(struct position *position, bool streams)
{
    XXH_ALIGN(64) xxh_u64 memory[8] = XXH3_INIT_ACC;
    struct sum sum;
#pragma GCC unroll 2
    for (size_t i = 0; i < PARTS; i++)
        sum.part[i] = LANES_LOAD((const unsigned char *)memory + i * sizeof(lanes));
    for (int round = 1; round <= ROUNDS; round++) {
        const int plain = round < ROUNDS ? STRIPES : STRIPES - 1;
        for (int i = 0; i < plain; i++)
            copy_stripe(&sum, position, XXH3_kSecret + i * XXH_SECRET_CONSUME_RATE, streams);
        if (round < ROUNDS)
            scramble(&sum);
    }
    copy_stripe(&sum, position, XXH3_kSecret + XXH_SECRET_DEFAULT_SIZE - STRIPE - XXH_SECRET_LASTACC_START, streams);
#pragma GCC unroll 2
    for (size_t i = 0; i < PARTS; i++)
        LANES_STORE((unsigned char *)memory + i * sizeof(lanes), sum.part[i]);
    return XXH3_mergeAccs(memory, XXH3_kSecret + XXH_SECRET_MERGEACCS_START, (xxh_u64)BLOCK_SIZE * XXH_PRIME64_1);
}

/* As block_hash.c does it. */
ALWAYS_INLINE uint64_t fold(uint64_t hash, uint64_t index)
{
    uint64_t sum = hash ^ ((index + 1) * UINT64_C(0x9E3779B97F4A7C15));
    sum = (sum ^ (sum >> 62)) & ((UINT64_C(1) << 62) - 1);
    return sum ? sum : 1;
}

ALWAYS_INLINE void copy_blocks(const struct sum_copy *work, bool streams)
{
    struct position position = {.to = work->to, .from = work->from};
    for (size_t i = 0; i < work->blocks; i++)
        work->sums[i] = fold(copy_block(&position, streams), work->first + i);
}

void PASTE(sum_copy_, SUM_COPY_VARIANT)(void *argument)
{
    copy_blocks(argument, false);
}

void PASTE(sum_stream_, SUM_COPY_VARIANT)(void *argument)
{
    copy_blocks(argument, true);
}
