// Products of bf16 matrices in AMX tiles.
//
// An AMX tile is 16 rows of 64 bytes. A product C += A B takes A as 16 rows of 32 bf16 and B as 16 rows of 16 pairs of
// bf16 (two neighbours along the summed axis, interleaved), and gives C as 16 x 16 float. Operands that play B are
// packed into such tiles first (`pairs.h`). Summed lengths are padded to multiples of 32 with zeros.
#pragma once

#include "pairs.h"

#if defined(__AMX_BF16__) && defined(SORA2_PAIRS) && defined(__linux__)
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

// c (32 x 32) = a (32 x 32 steps) b, or c += a b. `at(step)` points at two tiles, 32 columns of b.
template <class At>
static inline void product(const bf16* a, int64_t a_stride, At at, int64_t steps, float* c, int64_t c_stride,
                           bool add = false) {
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
        _tile_loadd(7, b + TILE, 64);
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
#endif
