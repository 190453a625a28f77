// Products of bf16 matrices in AMX tiles.
//
// An AMX tile is 16 rows of 64 bytes. A product C += A B takes A as 16 rows of 32 bf16 and B as 16 rows of 16 pairs of
// bf16 (two neighbours along the summed axis, interleaved), and gives C as 16 x 16 float. Operands that play B are
// packed into such tiles first. Summed lengths are padded to multiples of 32 with zeros.
#pragma once

#include "lanes.h"

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

// c (32 x 32) = a (32 x 32 steps) b, or c += a b. `at(step)` points at the first of two tiles, 32 columns of b, and the
// second lies `second` values behind it.
template <class At>
static inline void product(const bf16* a, int64_t a_stride, At at, int64_t second, int64_t steps, float* c,
                           int64_t c_stride, bool add = false) {
    if (add) {
        _tile_loadd(0, c, c_stride * 4);
        _tile_loadd(1, c + 16, c_stride * 4);
        _tile_loadd(2, c + 16 * c_stride, c_stride * 4);
        _tile_loadd(3, c + 16 * c_stride + 16, c_stride * 4);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t k = 0; k < steps; k++) {
        const bf16* b = at(k);
        _tile_loadd(4, a + k * 32, a_stride * 2);
        _tile_loadd(6, b, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b + second, 64);
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

// Rows of x (length, width) as rows: B operand of a product that sums over the rows. Of its steps of 32 rows, those
// from `first` to before `last`.
static void pack_rows(const bf16* x, int64_t length, int64_t width, bf16* to, int64_t first, int64_t last) {
    const int64_t steps = padded(length) / 32;
    for (int64_t pair = first * 16; pair < last * 16; pair++)
        for (int64_t n = 0; n < width / 16; n++) {
            __m256i low = _mm256_setzero_si256(), high = low;
            if (2 * pair < length) low = _mm256_loadu_si256((const __m256i*)(x + 2 * pair * width + n * 16));
            if (2 * pair + 1 < length)
                high = _mm256_loadu_si256((const __m256i*)(x + (2 * pair + 1) * width + n * 16));
            __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
            _mm512_store_si512(to + (n * steps + pair / 16) * TILE + pair % 16 * 32, interleave(both));
        }
}

// Rows of the summed axis that are worked on at once: 32 columns of them stay in the first-level cache.
constexpr int64_t ROWS_AT_ONCE = 352;

// Gradient of a linear layer's weight: out (outputs x inputs), float = grad^T x, of grad (rows x outputs) and x
// (rows x inputs). Outputs and inputs are multiples of 32.
static void weight_gradient(const bf16* grad, const bf16* x, int64_t rows, int64_t outputs, int64_t inputs, float* out,
                            int64_t threads) {
    Buffers shared;
    bf16* packed = shared.take<bf16>(ROWS_AT_ONCE * inputs);
    for (int64_t begin = 0; begin < rows; begin += ROWS_AT_ONCE) {
        const int64_t here = rows - begin < ROWS_AT_ONCE ? rows - begin : ROWS_AT_ONCE;
        const int64_t whole = padded(here), steps = whole / 32;
        share(steps, threads, [&](int64_t first, int64_t last) {
            pack_rows(x + begin * inputs, here, inputs, packed, first, last);
        });
        share(outputs / 32, threads, [&](int64_t first, int64_t last) {
            Tiles tiles;
            Buffers own;
            bf16* turned = own.take<bf16>(32 * whole);
            for (int64_t o = first * 32; o < last * 32; o += 32) {
                for (int64_t n = 0; n < whole; n += 16) {
                    Lanes r[16];
                    for (int64_t i = 0; i < 16; i++)
                        r[i] = n + i < here ? load((const float*)(grad + (begin + n + i) * outputs + o)) : Lanes{};
                    transpose(r);
                    separate(r, turned + n, whole);
                }
                for (int64_t i = 0; i < inputs; i += 32) {
                    const bf16* column = packed + i / 16 * steps * TILE;
                    product(turned, whole, [&](int64_t k) { return column + k * TILE; }, steps * TILE, steps,
                            out + o * inputs + i, inputs, begin > 0);
                }
            }
        });
    }
}
#endif
