// The functions that Python calls (`sora2.kernels.cpu.library`). `half` says bf16, else float32; `threads` is torch's.
#include "attention.h"
#include "heads.h"
#include "modulate.h"
#include "pointwise.h"
#include "weight_gradient.h"

ParallelRegion parallel_region = nullptr;
ThreadNumber thread_number = nullptr;
ThreadNumber team_size = nullptr;

// Calls f with a null pointer of the element type.
template <class F>
static inline void typed(int half, F f) {
    if (half)
        f((bf16*)nullptr);
    else
        f((float*)nullptr);
}

#define ELEMENT(nothing) std::remove_pointer_t<decltype(nothing)>

extern "C" {

void sora2_set_threads(void* region, void* number, void* size) {
    parallel_region = (ParallelRegion)region;
    thread_number = (ThreadNumber)number;
    team_size = (ThreadNumber)size;
}

void sora2_norm_modulate(const Plan* plan, int half, int64_t column, const float* table, int64_t table_columns,
                         const void* x, const void* update, void* added, void* out, float* statistics, float eps,
                         int64_t threads) {
    typed(half, [&](auto* element) {
        using T = ELEMENT(element);
        auto run = update == nullptr ? norm_modulate<T, false> : norm_modulate<T, true>;
        run(*plan, column, table, table_columns, (const T*)x, (const T*)update, (T*)added, (T*)out, statistics, eps,
            threads);
    });
}

void sora2_norm_modulate_backward(const Plan* plan, int half, int64_t column, const float* table,
                                  int64_t table_columns, const void* grad, const void* through, const void* x,
                                  const float* statistics, const void* update, void* grad_x, void* grad_update,
                                  float* const* grad_rows, int add, float* grad_table, int64_t threads) {
    typed(half, [&](auto* element) {
        using T = ELEMENT(element);
        auto run = update == nullptr ? norm_modulate_backward<T, false> : norm_modulate_backward<T, true>;
        run(*plan, column, table, table_columns, (const T*)grad, (const T*)through, (const T*)x, statistics,
            (const T*)update, (T*)grad_x, (T*)grad_update, grad_rows, add, grad_table, threads);
    });
}

void sora2_gated_add(const Plan* plan, int half, int64_t column, const float* table, int64_t table_columns,
                     const void* x, const void* update, void* out, int64_t threads) {
    typed(half, [&](auto* element) {
        using T = ELEMENT(element);
        gated_add(*plan, column, table, table_columns, (const T*)x, (const T*)update, (T*)out, threads);
    });
}

void sora2_gated_add_backward(const Plan* plan, int half, int64_t column, const float* table, int64_t table_columns,
                              const void* grad, const void* update, void* grad_update, float* const* grad_rows,
                              int add, float* grad_table, int64_t threads) {
    typed(half, [&](auto* element) {
        using T = ELEMENT(element);
        gated_add_backward(*plan, column, table, table_columns, (const T*)grad, (const T*)update, (T*)grad_update,
                           grad_rows, add, grad_table, threads);
    });
}

void sora2_split_heads(const Spans* spans, int half, int64_t heads, int64_t width, const void* qkv, const float* gain,
                       const float* cosine, const float* sine, int64_t clocks, float eps, void* out,
                       int64_t threads) {
    typed(half, [&](auto* element) {
        using T = ELEMENT(element);
        split_heads(*spans, heads, width, (const T*)qkv, gain, cosine, sine, clocks, eps, (T*)out, threads);
    });
}

void sora2_split_heads_backward(const Spans* spans, int half, int64_t heads, int64_t width, const void* qkv,
                                const float* gain, const float* cosine, const float* sine, int64_t clocks, float eps,
                                const void* grad_q, const void* grad_k, const void* grad_v, void* grad,
                                float* grad_gain, int64_t threads) {
    typed(half, [&](auto* element) {
        using T = ELEMENT(element);
        split_heads_backward(*spans, heads, width, (const T*)qkv, gain, cosine, sine, clocks, eps, (const T*)grad_q,
                             (const T*)grad_k, (const T*)grad_v, (T*)grad, grad_gain, threads);
    });
}

void sora2_merge_heads(const Spans* spans, int half, int to_stream, int64_t heads, int64_t width, void* in_heads,
                       void* in_stream, int64_t threads) {
    typed(half, [&](auto* element) {
        using T = ELEMENT(element);
        auto run = to_stream ? merge_heads<T, true> : merge_heads<T, false>;
        run(*spans, heads, width, (T*)in_heads, (T*)in_stream, threads);
    });
}

void sora2_softmax(int half, void* scores, const uint8_t* mask, float scale, int64_t samples, int64_t rows,
                   int64_t keys, int64_t threads) {
    typed(half, [&](auto* element) {
        using T = ELEMENT(element);
        softmax((T*)scores, mask, scale, samples, rows, keys, threads);
    });
}

void sora2_softmax_backward(int half, void* grad, const void* weights, float scale, int64_t rows, int64_t keys,
                            int64_t threads) {
    typed(half, [&](auto* element) {
        using T = ELEMENT(element);
        softmax_backward((T*)grad, (const T*)weights, scale, rows, keys, threads);
    });
}

void sora2_squared_relu(int half, const void* x, void* out, int64_t size, int64_t threads) {
    typed(half, [&](auto* element) {
        using T = ELEMENT(element);
        squared_relu((const T*)x, (T*)out, size, threads);
    });
}

void sora2_squared_relu_backward(int half, const void* x, const void* grad, void* out, int64_t size,
                                 int64_t threads) {
    typed(half, [&](auto* element) {
        using T = ELEMENT(element);
        squared_relu_backward((const T*)x, (const T*)grad, (T*)out, size, threads);
    });
}

// Floats in a vector of this processor.
int sora2_vector() { return VECTOR; }

// Chooses how bf16 is multiplied, a `Products` of at most `most`, and returns it.
int sora2_choose_products(int most) {
    bf16_products = AS_FLOATS;
#if defined(SORA2_PAIRS)
    if (most >= BY_PAIRS) bf16_products = BY_PAIRS;
#endif
#if defined(SORA2_AMX)
    if (most >= BY_TILES && request_tiles()) bf16_products = BY_TILES;
#endif
    return bf16_products;
}

void sora2_attention(const Attention* call, int half, const void* q, const void* k, const void* v, void* out,
                     float* level) {
    typed(half, [&](auto* element) {
        using T = ELEMENT(element);
        with_panels<T>([&](auto* engine) {
            attention<ELEMENT(engine)>(*call, (const T*)q, (const T*)k, (const T*)v, (T*)out, level);
        });
    });
}

void sora2_attention_backward(const Attention* call, int half, const void* q, const void* k, const void* v,
                              const void* out, const float* level, const void* grad, void* grad_q, void* grad_k,
                              void* grad_v) {
    typed(half, [&](auto* element) {
        using T = ELEMENT(element);
        with_panels<T>([&](auto* engine) {
            attention_backward<ELEMENT(engine)>(*call, (const T*)q, (const T*)k, (const T*)v, (const T*)out, level,
                                                (const T*)grad, (T*)grad_q, (T*)grad_k, (T*)grad_v);
        });
    });
}

#if defined(SORA2_AMX)
void sora2_weight_gradient(const void* grad, const void* x, int64_t rows, int64_t outputs, int64_t inputs, float* out,
                           int64_t threads) {
    weight_gradient((const bf16*)grad, (const bf16*)x, rows, outputs, inputs, out, threads);
}
#endif
}
