// From the flat stream to heads and back: RMS-norm and rotation of queries and keys on the way.
#pragma once

#include "lanes.h"
#include "modulate.h"

// One modality after the other: rows [row, row + batch * length) of the stream are [start, start + length) of every
// sample's sequence.
struct Spans {
    int64_t count, batch, tokens;  // tokens of one sample's sequence
    const int64_t *row, *start, *length;
};

constexpr int64_t TOKENS_PER_TASK = 64;

static inline int64_t tasks_of(int64_t rows) { return (rows + TOKENS_PER_TASK - 1) / TOKENS_PER_TASK; }

// Calls f(row of the stream, sample, place in its sequence) for the rows of one task.
template <class F>
static inline void over_rows(const Spans& spans, int64_t task, F f) {
    const int64_t total = spans.batch * spans.tokens;
    const int64_t first = task * TOKENS_PER_TASK;
    const int64_t last = first + TOKENS_PER_TASK < total ? first + TOKENS_PER_TASK : total;
    for (int64_t s = 0; s < spans.count; s++) {
        const int64_t begin = spans.row[s], length = spans.length[s];
        for (int64_t t = first > begin ? first : begin; t < last && t < begin + spans.batch * length; t++)
            f(t, (t - begin) / length, spans.start[s] + (t - begin) % length);
    }
}

// qkv (T, 3, H, Dh), gain (2, Dh), cosine and sine (clocks, N, Dh / 2) -> out (3, B, H, N, Dh).
template <class T>
static void split_heads(const Spans& spans, int64_t heads, int64_t width, const T* qkv, const float* gain,
                        const float* cosine, const float* sine, int64_t clocks, float eps, T* out, int64_t threads) {
    const int64_t half = width / 2, n = spans.tokens, size = spans.batch * heads * n * width;
    share(tasks_of(spans.batch * n), threads, [&](int64_t first, int64_t last) {
        for (int64_t task = first; task < last; task++)
            over_rows(spans, task, [&](int64_t t, int64_t sample, int64_t place) {
                const int64_t clock = ((clocks > 1 ? sample : 0) * n + place) * half;
                for (int64_t kind = 0; kind < 3; kind++)
                    for (int64_t h = 0; h < heads; h++) {
                        const T* x = qkv + ((t * 3 + kind) * heads + h) * width;
                        T* to = out + kind * size + ((sample * heads + h) * n + place) * width;
                        if (kind == 2) {
                            memcpy(to, x, width * sizeof(T));
                            continue;
                        }
                        const float* weight = gain + kind * width;
                        Lanes squares{};
                        over(width, [&](int64_t i, auto part) {
                            Lanes v = load(x + i, part);
                            squares += v * v;
                        });
                        const float inverse = 1.0f / std::sqrt(sum(squares) / width + eps);
                        over(half, [&](int64_t i, auto part) {
                            Lanes a = load(x + i, part) * inverse * load(weight + i, part);
                            Lanes b = load(x + half + i, part) * inverse * load(weight + half + i, part);
                            Lanes c = load(cosine + clock + i, part), s = load(sine + clock + i, part);
                            store(to + i, a * c - b * s, part);
                            store(to + half + i, b * c + a * s, part);
                        });
                    }
            });
    });
}

// Gradients of q, k, v (B, H, N, Dh) -> of qkv (T, 3, H, Dh) and of gain (2, Dh), which is added to.
template <class T>
static void split_heads_backward(const Spans& spans, int64_t heads, int64_t width, const T* qkv, const float* gain,
                                 const float* cosine, const float* sine, int64_t clocks, float eps, const T* grad_q,
                                 const T* grad_k, const T* grad_v, T* grad, float* grad_gain, int64_t threads) {
    const int64_t half = width / 2, n = spans.tokens, tasks = tasks_of(spans.batch * n);
    Buffer gains(tasks * 2 * width);
    share(tasks, threads, [&](int64_t first, int64_t last) {
        Buffer turned(width);
        for (int64_t task = first; task < last; task++) {
            float* own = gains + task * 2 * width;
            memset(own, 0, 2 * width * sizeof(float));
            over_rows(spans, task, [&](int64_t t, int64_t sample, int64_t place) {
                const int64_t clock = ((clocks > 1 ? sample : 0) * n + place) * half;
                for (int64_t kind = 0; kind < 3; kind++)
                    for (int64_t h = 0; h < heads; h++) {
                        const int64_t at = ((t * 3 + kind) * heads + h) * width;
                        const int64_t from = ((sample * heads + h) * n + place) * width;
                        if (kind == 2) {
                            memcpy(grad + at, grad_v + from, width * sizeof(T));
                            continue;
                        }
                        const T *x = qkv + at, *g = (kind ? grad_k : grad_q) + from;
                        const float* weight = gain + kind * width;
                        float* to_gain = own + kind * width;
                        Lanes squares{};
                        over(width, [&](int64_t i, auto part) {
                            Lanes v = load(x + i, part);
                            squares += v * v;
                        });
                        const float inverse = 1.0f / std::sqrt(sum(squares) / width + eps);
                        Lanes total{};
                        over(half, [&](int64_t i, auto part) {
                            Lanes g1 = load(g + i, part), g2 = load(g + half + i, part);
                            Lanes c = load(cosine + clock + i, part), s = load(sine + clock + i, part);
                            Lanes back[2] = {g1 * c + g2 * s, g2 * c - g1 * s};
                            for (int64_t k = 0; k < 2; k++) {
                                const int64_t j = k * half + i;
                                Lanes normed = load(x + j, part) * inverse;
                                store(to_gain + j, load(to_gain + j, part) + back[k] * normed, part);
                                back[k] *= load(weight + j, part);
                                total += back[k] * normed;
                                store(turned + j, back[k], part);
                            }
                        });
                        const float along = sum(total) / width;
                        over(width, [&](int64_t i, auto part) {
                            Lanes normed = load(x + i, part) * inverse;
                            store(grad + at + i, (load(turned + i, part) - normed * along) * inverse, part);
                        });
                    }
            });
        }
    });
    for (int64_t task = 0; task < tasks; task++)
        over(2 * width, [&](int64_t i, auto part) {
            store(grad_gain + i, load(grad_gain + i, part) + load(gains + task * 2 * width + i, part), part);
        });
}

// heads (B, H, N, Dh) <-> stream (T, H, Dh). TO_STREAM: forward, else back.
template <class T, bool TO_STREAM>
static void merge_heads(const Spans& spans, int64_t heads, int64_t width, T* in_heads, T* in_stream,
                        int64_t threads) {
    share(tasks_of(spans.batch * spans.tokens), threads, [&](int64_t first, int64_t last) {
        for (int64_t task = first; task < last; task++)
            over_rows(spans, task, [&](int64_t t, int64_t sample, int64_t place) {
                for (int64_t h = 0; h < heads; h++) {
                    T* a = in_heads + ((sample * heads + h) * spans.tokens + place) * width;
                    T* b = in_stream + (t * heads + h) * width;
                    memcpy(TO_STREAM ? b : a, TO_STREAM ? a : b, width * sizeof(T));
                }
            });
    });
}
