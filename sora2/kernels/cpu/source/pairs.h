// Panels of bf16 pairs, for the instructions that multiply two neighbours along the summed axis at once.
//
// A tile is 16 rows of 16 pairs: row r holds values 2 r and 2 r + 1 of sixteen columns, interleaved. A panel of 32 x 32
// values is two tiles, sixteen columns each.
#pragma once

#include "lanes.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#define SORA2_PAIRS 1

constexpr int64_t TILE = 512;  // bf16 values of a tile

// 16 rows of pairs -> 32 rows of 16 values.
static inline void separate(const Lanes r[16], bf16* to, int64_t stride) {
    for (int64_t i = 0; i < 16; i++) {
        bf16* pair = to + 2 * i * stride;
        const __m512i both = (__m512i)r[i];
        _mm256_storeu_si256((__m256i*)pair, _mm512_cvtepi32_epi16(both));
        _mm256_storeu_si256((__m256i*)(pair + stride), _mm512_cvtepi32_epi16(_mm512_srli_epi32(both, 16)));
    }
}

static inline __m512i interleave(__m512i low_and_high) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, low_and_high);
}

// How panels of pairs are filled; the engines that multiply them are in `panels.h`.
struct PairPanels {
    using Value = bf16;

    static void turn(const bf16* x, int64_t x_stride, bf16* to, int64_t stride) {
        for (int64_t half = 0; half < 32; half += 16) {
            Lanes r[16];
            for (int64_t i = 0; i < 16; i++) r[i] = load((const float*)(x + (half + i) * x_stride));
            transpose(r);
            separate(r, to + half, stride);
        }
    }

    static void columns(const bf16* x, int64_t stride, bf16* panel) {
        for (int64_t half = 0; half < 2; half++) {
            Lanes r[16];
            for (int64_t i = 0; i < 16; i++) r[i] = load((const float*)(x + (half * 16 + i) * stride));
            transpose(r);
            for (int64_t i = 0; i < 16; i++) store((float*)(panel + half * TILE + i * 32), r[i]);
        }
    }

    static void rows(const bf16* x, int64_t stride, bf16* panel) {
        for (int64_t row = 0; row < 32; row += 2)
            for (int64_t half = 0; half < 2; half++) {
                const __m256i* from = (const __m256i*)(x + row * stride + half * 16);
                const __m256i* next = (const __m256i*)(x + (row + 1) * stride + half * 16);
                __m512i both = _mm512_castsi256_si512(_mm256_loadu_si256(from));
                both = _mm512_inserti64x4(both, _mm256_loadu_si256(next), 1);
                _mm512_store_si512(panel + half * TILE + row / 2 * 32, interleave(both));
            }
    }

    static void put(bf16* panel, int64_t row, int64_t column, Lanes first, Lanes second) {
        const __m512bh both = _mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
        _mm512_store_si512(panel + column / 16 * TILE + row / 2 * 32, interleave((__m512i)both));
    }
};
#endif
