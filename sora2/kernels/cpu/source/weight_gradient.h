// Gradient of a linear layer's weight in AMX tiles.
#pragma once

#include "panels.h"

#if defined(SORA2_AMX)
// Blocks of rows that are worked on at once: 32 columns of them stay in the first-level cache.
constexpr int64_t ROW_BLOCKS = 11;

// out (outputs x inputs), float = grad^T x, of grad (rows x outputs) and x (rows x inputs). Outputs and inputs are
// multiples of 32.
static void weight_gradient(const bf16* grad, const bf16* x, int64_t rows, int64_t outputs, int64_t inputs, float* out,
                            int64_t threads) {
    // Calls f(from, stride) for 32 x 32 values of a matrix at `row` and `column`, with zeros beyond the last row.
    auto block = [rows](const bf16* matrix, int64_t width, int64_t row, int64_t column, auto f) {
        const bf16* from = matrix + row * width + column;
        if (rows - row >= BLOCK) return f(from, width);
        bf16 whole[BLOCK * 32] = {};
        for (int64_t r = 0; r < rows - row; r++) memcpy((void*)(whole + r * 32), from + r * width, 32 * sizeof(bf16));
        f((const bf16*)whole, int64_t{32});
    };
    Buffers shared;
    bf16* panels = shared.take<bf16>(ROW_BLOCKS * BLOCK * inputs);
    for (int64_t begin = 0; begin < rows; begin += ROW_BLOCKS * BLOCK) {
        const int64_t left = padded(rows - begin) / BLOCK, steps = left < ROW_BLOCKS ? left : ROW_BLOCKS;
        share(steps, threads, [&](int64_t first, int64_t last) {
            for (int64_t k = first; k < last; k++)
                for (int64_t i = 0; i < inputs; i += 32)
                    block(x, inputs, begin + k * BLOCK, i, [&](const bf16* from, int64_t stride) {
                        TilePanels::rows(from, stride, panels + (i / 32 * steps + k) * PANEL);
                    });
        });
        share(outputs / 32, threads, [&](int64_t first, int64_t last) {
            TilePanels engine;
            Buffers own;
            bf16* turned = own.take<bf16>(32 * steps * BLOCK);
            for (int64_t o = first * 32; o < last * 32; o += 32) {
                for (int64_t k = 0; k < steps; k++)
                    block(grad, outputs, begin + k * BLOCK, o, [&](const bf16* from, int64_t stride) {
                        TilePanels::turn(from, stride, turned + k * BLOCK, steps * BLOCK);
                    });
                for (int64_t i = 0; i < inputs; i += 32)
                    TilePanels::product(turned, steps * BLOCK,
                                        [&](int64_t k) { return panels + (i / 32 * steps + k) * PANEL; }, steps,
                                        out + o * inputs + i, inputs, begin > 0);
            }
        });
    }
}
#endif
