// Products of 32 x 32 blocks, in bf16 by AMX tiles or pairs in vector lanes, or in float, behind one interface.
//
// C (32 x 32) = A B is summed in steps of 32. A lies in rows, as it is. B is cut into panels of 32 x 32 values, one for
// each step, in the order that the products of its kind want. An engine is alive while its functions are called.
#pragma once

#include "lanes.h"
#include "tiles.h"

constexpr int64_t BLOCK = 32, PANEL = 1024;  // rows of a block; values of a panel

// Rows of a product whose sums stay in registers.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ROWS = 8;
#else
constexpr int ROWS = 4;
#endif

static inline Vector load_vector(const float* from) {
    Vector v;
    memcpy(&v, from, sizeof v);
    return v;
}

// In float. `product` keeps ROWS x 2 VECTOR sums in registers.
struct FloatPanels {
    using Value = float;

    // 32 rows of x, of 32 values each -> turned: value c of row r at to[c * stride + r].
    static void turn(const float* x, int64_t x_stride, float* to, int64_t stride) {
        for (int64_t half = 0; half < 32; half += 16)
            for (int64_t c = 0; c < 32; c += 16) {
                Lanes r[16];
                for (int64_t i = 0; i < 16; i++) r[i] = load(x + (half + i) * x_stride + c);
                transpose(r);
                for (int64_t i = 0; i < 16; i++) store(to + (c + i) * stride + half, r[i]);
            }
    }

    // 32 rows of x as the columns of a panel.
    static void columns(const float* x, int64_t stride, float* panel) { turn(x, stride, panel, 32); }

    // 32 rows of x as the rows of a panel.
    static void rows(const float* x, int64_t stride, float* panel) {
        for (int64_t r = 0; r < 32; r++) memcpy(panel + r * 32, x + r * stride, 32 * sizeof(float));
    }

    // Sixteen columns of rows `row` and `row + 1` of a panel.
    static void put(float* panel, int64_t row, int64_t column, Lanes first, Lanes second) {
        store(panel + row * 32 + column, first);
        store(panel + row * 32 + 32 + column, second);
    }

    // c = a b, or c += a b; `at(step)` is a panel of b.
    template <class At>
    static void product(const float* a, int64_t a_stride, At at, int64_t steps, float* c, int64_t c_stride,
                        bool add = false) {
        for (int64_t first = 0; first < 32; first += ROWS)
            for (int64_t column = 0; column < 32; column += 2 * VECTOR) {
                float* to = c + first * c_stride + column;
                Vector sums[ROWS][2];
                for (int r = 0; r < ROWS; r++)
                    for (int h = 0; h < 2; h++)
                        sums[r][h] = add ? load_vector(to + r * c_stride + h * VECTOR) : Vector{};
                for (int64_t step = 0; step < steps; step++) {
                    const float *own = a + first * a_stride + step * 32, *panel = at(step) + column;
                    for (int64_t k = 0; k < 32; k++) {
                        const Vector left = load_vector(panel + k * 32), right = load_vector(panel + k * 32 + VECTOR);
#pragma GCC unroll 8
                        for (int r = 0; r < ROWS; r++) {
                            const Vector factor = own[r * a_stride + k] - Vector{};
                            sums[r][0] += factor * left;
                            sums[r][1] += factor * right;
                        }
                    }
                }
                for (int r = 0; r < ROWS; r++)
                    for (int h = 0; h < 2; h++) memcpy(to + r * c_stride + h * VECTOR, &sums[r][h], sizeof(Vector));
            }
    }
};

#if defined(SORA2_PAIRS)
// In bf16 with float sums, by the instruction that adds the products of a pair.
struct PairLanes : PairPanels {
    template <class At>
    static void product(const bf16* a, int64_t a_stride, At at, int64_t steps, float* c, int64_t c_stride,
                        bool add = false) {
        for (int64_t first = 0; first < 32; first += ROWS) {
            float* to = c + first * c_stride;
            __m512 sums[ROWS][2];
            for (int r = 0; r < ROWS; r++)
                for (int h = 0; h < 2; h++)
                    sums[r][h] = add ? _mm512_loadu_ps(to + r * c_stride + h * 16) : _mm512_setzero_ps();
            for (int64_t step = 0; step < steps; step++) {
                const bf16 *own = a + first * a_stride + step * 32, *panel = at(step);
                for (int64_t k = 0; k < 16; k++) {
                    const __m512bh left = (__m512bh)_mm512_load_si512(panel + k * 32);
                    const __m512bh right = (__m512bh)_mm512_load_si512(panel + TILE + k * 32);
#pragma GCC unroll 8
                    for (int r = 0; r < ROWS; r++) {
                        int32_t pair;
                        memcpy(&pair, own + r * a_stride + 2 * k, sizeof pair);
                        const __m512bh factor = (__m512bh)_mm512_set1_epi32(pair);
                        sums[r][0] = _mm512_dpbf16_ps(sums[r][0], factor, left);
                        sums[r][1] = _mm512_dpbf16_ps(sums[r][1], factor, right);
                    }
                }
            }
            for (int r = 0; r < ROWS; r++)
                for (int h = 0; h < 2; h++) _mm512_storeu_ps(to + r * c_stride + h * 16, sums[r][h]);
        }
    }
};
#endif

#if defined(SORA2_AMX)
// The same by AMX tiles.
struct TilePanels : PairPanels {
    Tiles tiles;

    template <class At>
    static void product(const bf16* a, int64_t a_stride, At at, int64_t steps, float* c, int64_t c_stride,
                        bool add = false) {
        ::product(a, a_stride, at, steps, c, c_stride, add);
    }
};
#endif

// How bf16 is multiplied: as floats, by pairs, by AMX tiles. The best that this process may use, unless it is limited.
enum Products { AS_FLOATS, BY_PAIRS, BY_TILES };
static int bf16_products = AS_FLOATS;

// Calls f with a null pointer of the engine for values of type T.
template <class T, class F>
static inline void with_panels(F f) {
    if constexpr (std::is_same<T, bf16>::value) {
#if defined(SORA2_AMX)
        if (bf16_products == BY_TILES) return f((TilePanels*)nullptr);
#endif
#if defined(SORA2_PAIRS)
        if (bf16_products == BY_PAIRS) return f((PairLanes*)nullptr);
#endif
    }
    f((FloatPanels*)nullptr);
}
