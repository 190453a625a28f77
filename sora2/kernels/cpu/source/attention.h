// Attention over one head at a time in AMX tiles: scores never leave the second-level cache.
//
// The backward works on transposed scores (keys x queries): then the weights and the gradients of the scores come out
// of the softmax in the layouts in which the three products that follow need them. It recomputes the weights.
#pragma once

#include "tiles.h"

#if defined(SORA2_AMX)
// `count` rows of x from `first`, zeros beyond `length`.
static inline void pad(const bf16* x, int64_t first, int64_t count, int64_t length, int64_t width, bf16* to) {
    const int64_t there = length - first < count ? length - first : count;
    memcpy((void*)to, x + first * width, there * width * sizeof(bf16));
    memset((void*)(to + there * width), 0, (count - there) * width * sizeof(bf16));
}

// 2^t to 3e-6, exactly 0 below -160 and for minus infinity; NaN stays NaN.
static inline Lanes power_of_two(Lanes t) {
    const __m512 x = _mm512_max_ps(_mm512_set1_ps(-160.0f), (__m512)t);
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    Lanes r = (Lanes)_mm512_sub_ps(x, whole);
    Lanes p = spread(9.560510206e-3f);
    p = p * r + 5.591703917e-2f;
    p = p * r + 2.402498111e-1f;
    p = p * r + 6.931219677e-1f;
    p = p * r + 9.999991909e-1f;
    return (Lanes)_mm512_scalef_ps((__m512)p, whole);
}

struct Attention {
    int64_t batch, heads, queries, keys, width;
    int64_t q_strides[2], k_strides[2], v_strides[2];  // of samples and heads, in values; rows lie together
    float scale;
    const uint8_t* mask;  // (batch, keys), 0 hides a key; null = all are seen
    int64_t threads;
};

constexpr float LOG2_E = 1.44269504f;

// out (B, H, N, D) and level (B, H, N): the logarithm to base 2 of the sum of exp(scores * scale), +inf where no key
// is seen and the output is 0.
static void attention(const Attention& a, const bf16* q, const bf16* k, const bf16* v, bf16* out, float* level) {
    const int64_t d = a.width, n = a.queries, m = a.keys, wide = padded(m), steps = d / 32;
    const float factor = a.scale * LOG2_E;
    share(a.batch * a.heads, a.threads, [&](int64_t first, int64_t last) {
        Tiles tiles;
        Buffers buffers;
        bf16 *keys = buffers.take<bf16>(wide * d), *values = buffers.take<bf16>(wide * d);
        bf16 *block = buffers.take<bf16>(32 * d), *weights = buffers.take<bf16>(32 * wide);
        float *scores = buffers.take<float>(32 * wide), *sums = buffers.take<float>(32 * d);
        float* bias = buffers.take<float>(wide);
        for (int64_t head = first; head < last; head++) {
            const int64_t b = head / a.heads, h = head % a.heads;
            const bf16* own = q + b * a.q_strides[0] + h * a.q_strides[1];
            pack_columns(k + b * a.k_strides[0] + h * a.k_strides[1], m, d, keys);
            pack_rows(v + b * a.v_strides[0] + h * a.v_strides[1], m, d, values, 0, wide / 32);
            for (int64_t j = 0; j < wide; j++)
                bias[j] = j < m && (a.mask == nullptr || a.mask[b * m + j]) ? 0.0f : -INFINITY;
            for (int64_t i = 0; i < n; i += 32) {
                pad(own, i, 32, n, d, block);
                for (int64_t j = 0; j < wide; j += 32)
                    product(block, d, keys + j / 16 * steps * TILE, steps, scores + j, wide);
                float inverse[32];
                for (int64_t row = 0; row < 32; row++) {
                    float* s = scores + row * wide;
                    Lanes top = spread(-INFINITY);
                    for (int64_t j = 0; j < wide; j += LANES) {
                        Lanes hidden = load(bias + j), x = load(s + j) * factor;
                        x = hidden < 0.0f ? hidden : x;
                        store(s + j, x);
                        top = larger(x, top);
                    }
                    const float highest = largest(top), base = highest == -INFINITY ? 0.0f : highest;
                    Lanes total{};
                    for (int64_t j = 0; j < wide; j += LANES) {
                        Lanes e = power_of_two(load(s + j) - base);
                        total += e;
                        store(weights + row * wide + j, e);
                    }
                    const float whole = sum(total);
                    inverse[row] = whole == 0.0f ? 0.0f : 1.0f / whole;
                    if (i + row < n)
                        level[head * n + i + row] = whole == 0.0f ? INFINITY : base + std::log2(whole);
                }
                for (int64_t c = 0; c < d; c += 32)
                    product(weights, wide, values + c / 16 * (wide / 32) * TILE, wide / 32, sums + c, d);
                for (int64_t row = 0; row < 32 && i + row < n; row++)
                    for (int64_t c = 0; c < d; c += LANES)
                        store(out + (head * n + i + row) * d + c, load(sums + row * d + c) * inverse[row]);
            }
        }
    });
}

// Gradients of q (B, H, N, D), k and v (B, H, M, D); out and level as `attention` gave them.
static void attention_backward(const Attention& a, const bf16* q, const bf16* k, const bf16* v, const bf16* out,
                               const float* level, const bf16* grad, bf16* grad_q, bf16* grad_k, bf16* grad_v) {
    const int64_t d = a.width, n = a.queries, m = a.keys, tall = padded(n), wide = padded(m), steps = d / 32;
    const float factor = a.scale * LOG2_E;
    share(a.batch * a.heads, a.threads, [&](int64_t first, int64_t last) {
        Tiles tiles;
        Buffers buffers;
        bf16 *q_columns = buffers.take<bf16>(tall * d), *q_rows = buffers.take<bf16>(tall * d);
        bf16 *g_columns = buffers.take<bf16>(tall * d), *g_rows = buffers.take<bf16>(tall * d);
        bf16 *k_columns = buffers.take<bf16>(wide * d), *k_turned = buffers.take<bf16>(wide * d);
        bf16 *k_block = buffers.take<bf16>(32 * d), *v_block = buffers.take<bf16>(32 * d);
        bf16 *weights = buffers.take<bf16>(32 * tall), *slopes = buffers.take<bf16>(32 * tall);
        bf16* all_slopes = buffers.take<bf16>(wide * tall);
        float *scores = buffers.take<float>(32 * tall), *to_weights = buffers.take<float>(32 * tall);
        float *sums = buffers.take<float>(32 * d), *q_sums = buffers.take<float>(d * tall);
        float *base = buffers.take<float>(tall), *along = buffers.take<float>(tall);
        for (int64_t head = first; head < last; head++) {
            const int64_t b = head / a.heads, h = head % a.heads;
            const bf16* own_q = q + b * a.q_strides[0] + h * a.q_strides[1];
            const bf16* own_k = k + b * a.k_strides[0] + h * a.k_strides[1];
            const bf16* own_v = v + b * a.v_strides[0] + h * a.v_strides[1];
            const bf16 *g = grad + head * n * d, *o = out + head * n * d;
            pack_columns(own_q, n, d, q_columns);
            pack_rows(own_q, n, d, q_rows, 0, tall / 32);
            pack_columns(g, n, d, g_columns);
            pack_rows(g, n, d, g_rows, 0, tall / 32);
            pack_columns(own_k, m, d, k_columns, k_turned);
            for (int64_t i = 0; i < tall; i++) {
                base[i] = i < n ? level[head * n + i] : INFINITY;
                Lanes total{};
                for (int64_t c = 0; i < n && c < d; c += LANES) total += load(g + i * d + c) * load(o + i * d + c);
                along[i] = sum(total);
            }
            for (int64_t j = 0; j < wide; j += 32) {
                pad(own_k, j, 32, m, d, k_block);
                pad(own_v, j, 32, m, d, v_block);
                for (int64_t i = 0; i < tall; i += 32) {
                    product(k_block, d, q_columns + i / 16 * steps * TILE, steps, scores + i, tall);
                    product(v_block, d, g_columns + i / 16 * steps * TILE, steps, to_weights + i, tall);
                }
                for (int64_t row = 0; row < 32; row += 2) {
                    bool seen[2];
                    for (int64_t s = 0; s < 2; s++) {
                        const int64_t key = j + row + s;
                        seen[s] = key < m && (a.mask == nullptr || a.mask[b * m + key]);
                    }
                    for (int64_t i = 0; i < tall; i += LANES) {
                        Lanes slope[2];
                        for (int64_t s = 0; s < 2; s++) {
                            const int64_t at = (row + s) * tall + i;
                            Lanes w = power_of_two(load(scores + at) * factor - load(base + i));
                            slope[s] = w * (load(to_weights + at) - load(along + i)) * a.scale;
                            if (!seen[s]) w = slope[s] = Lanes{};
                            store(weights + at, w);
                            store(slopes + at, slope[s]);
                        }
                        __m512bh both = _mm512_cvtne2ps_pbh((__m512)slope[1], (__m512)slope[0]);
                        bf16* tile = all_slopes + (i / 16 * (wide / 32) + j / 32) * TILE;
                        _mm512_store_si512(tile + row / 2 * 32, interleave((__m512i)both));
                    }
                }
                for (int64_t which = 0; which < 2; which++)
                    for (int64_t c = 0; c < d; c += 32) {
                        const bf16* rows = which ? q_rows : g_rows;
                        bf16* to = (which ? grad_k : grad_v) + head * m * d;
                        product(which ? slopes : weights, tall, rows + c / 16 * (tall / 32) * TILE, tall / 32, sums, 32);
                        for (int64_t row = 0; row < 32 && j + row < m; row++)
                            for (int64_t e = 0; e < 32; e += LANES)
                                store(to + (j + row) * d + c + e, load(sums + row * 32 + e));
                    }
            }
            // Transposed: (channels x keys) (keys x queries).
            for (int64_t c = 0; c < d; c += 32)
                for (int64_t i = 0; i < tall; i += 32)
                    product(k_turned + c * wide, wide, all_slopes + i / 16 * (wide / 32) * TILE, wide / 32,
                            q_sums + c * tall + i, tall);
            for (int64_t i = 0; i < n; i += 16)
                for (int64_t c = 0; c < d; c += 16) {
                    __m512i r[16];
                    for (int64_t e = 0; e < 16; e++) r[e] = _mm512_loadu_si512(q_sums + (c + e) * tall + i);
                    transpose(r);
                    for (int64_t e = 0; e < 16 && i + e < n; e++)
                        store(grad_q + (head * n + i + e) * d + c, (Lanes)r[e]);
                }
        }
    });
}
#endif
