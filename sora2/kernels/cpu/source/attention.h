// Attention over one head at a time with AMX tiles: scores never leave the second-level cache.
//
// An AMX tile is 16 rows of 64 bytes. A product C += A B takes A as 16 rows of 32 bf16 and B as 16 rows of 16 pairs of
// bf16 (two neighbours along the summed axis, interleaved), and gives C as 16 x 16 float. Operands that play B are
// packed into such tiles once per head. All lengths are padded to multiples of 32 with zeros.
//
// The backward works on transposed scores (keys x queries): then the weights and the gradients of the scores come out
// of the softmax in the layouts in which the three products that follow need them. It recomputes the weights.
#pragma once

#include "lanes.h"
#include "modulate.h"

#include <vector>

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#define SORA2_AMX 1
#include <sys/syscall.h>
#include <unistd.h>

static bool request_tiles() {
    constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

// Eight full tiles while it lives, then what was configured before: other libraries of the process use tiles too.
struct Tiles {
    struct alignas(64) Config {
        uint8_t palette = 0, start_row = 0, reserved[14] = {};
        uint16_t bytes[16] = {};
        uint8_t rows[16] = {};
    };
    Config before;
    Tiles() {
        _tile_storeconfig(&before);
        Config own;
        own.palette = 1;
        for (int i = 0; i < 8; i++) own.bytes[i] = 64, own.rows[i] = 16;
        _tile_loadconfig(&own);
    }
    ~Tiles() { _tile_loadconfig(&before); }
};

constexpr int64_t TILE = 512;  // bf16 values of a tile

// Buffers of a thread, each at the start of a cache line.
struct Buffers {
    std::vector<std::unique_ptr<char[]>> kept;
    template <class T>
    T* take(int64_t count) {
        kept.emplace_back(new char[count * sizeof(T) + 64]);
        char* data = kept.back().get();
        return (T*)(data + (64 - (uintptr_t)data % 64) % 64);
    }
};

static inline int64_t padded(int64_t length) { return (length + 31) / 32 * 32; }

// c (32 x 32) = a (32 x 32 steps) b; `b` points at the first tile of a column of tiles, the next column follows it.
static inline void product(const bf16* a, int64_t a_stride, const bf16* b, int64_t steps, float* c, int64_t c_stride) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < steps; k++) {
        _tile_loadd(4, a + k * 32, a_stride * 2);
        _tile_loadd(6, b + k * TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b + (steps + k) * TILE, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + 16 * a_stride + k * 32, a_stride * 2);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, c_stride * 4);
    _tile_stored(1, c + 16, c_stride * 4);
    _tile_stored(2, c + 16 * c_stride, c_stride * 4);
    _tile_stored(3, c + 16 * c_stride + 16, c_stride * 4);
}

static inline void transpose(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

// Rows of x (length, width) as columns: B operand of a product that sums over channels. Also, where `plain` is not
// null, x transposed as it is, (width, padded length): A operand.
static void pack_columns(const bf16* x, int64_t length, int64_t width, bf16* to, bf16* plain = nullptr) {
    const int64_t steps = width / 32, whole = padded(length);
    for (int64_t n = 0; n < whole; n += 16)
        for (int64_t k = 0; k < steps; k++) {
            __m512i r[16];
            for (int64_t i = 0; i < 16; i++)
                r[i] = n + i < length ? _mm512_loadu_si512(x + (n + i) * width + k * 32) : _mm512_setzero_si512();
            transpose(r);
            bf16* tile = to + (n / 16 * steps + k) * TILE;
            for (int64_t i = 0; i < 16; i++) {
                _mm512_store_si512(tile + i * 32, r[i]);
                if (plain == nullptr) continue;
                bf16* pair = plain + (k * 32 + 2 * i) * whole + n;
                _mm256_storeu_si256((__m256i*)pair, _mm512_cvtepi32_epi16(r[i]));
                _mm256_storeu_si256((__m256i*)(pair + whole), _mm512_cvtepi32_epi16(_mm512_srli_epi32(r[i], 16)));
            }
        }
}

static inline __m512i interleave(__m512i low_and_high) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, low_and_high);
}

// Rows of x (length, width) as rows: B operand of a product that sums over the rows.
static void pack_rows(const bf16* x, int64_t length, int64_t width, bf16* to) {
    const int64_t steps = padded(length) / 32;
    for (int64_t pair = 0; pair < steps * 16; pair++)
        for (int64_t n = 0; n < width / 16; n++) {
            __m256i low = _mm256_setzero_si256(), high = low;
            if (2 * pair < length) low = _mm256_loadu_si256((const __m256i*)(x + 2 * pair * width + n * 16));
            if (2 * pair + 1 < length)
                high = _mm256_loadu_si256((const __m256i*)(x + (2 * pair + 1) * width + n * 16));
            __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
            _mm512_store_si512(to + (n * steps + pair / 16) * TILE + pair % 16 * 32, interleave(both));
        }
}

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
            pack_rows(v + b * a.v_strides[0] + h * a.v_strides[1], m, d, values);
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
            pack_rows(own_q, n, d, q_rows);
            pack_columns(g, n, d, g_columns);
            pack_rows(g, n, d, g_rows);
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
