// Softmax over keys and squared ReLU.
#pragma once

#include "lanes.h"
#include "modulate.h"

// In place: scores (rows, keys) -> softmax(scores * scale) over the keys that `mask` (samples, keys) keeps, each sample
// having rows / samples rows. Hidden keys weigh 0; where all are hidden the row is 0.
template <class T>
static void softmax(T* scores, const uint8_t* mask, float scale, int64_t samples, int64_t rows, int64_t keys,
                    int64_t threads) {
    share(rows, threads, [&](int64_t first, int64_t last) {
        Buffer row(keys), bias(keys);
        int64_t known = -1;
        for (int64_t r = first; r < last; r++) {
            T* x = scores + r * keys;
            if (mask != nullptr && r / (rows / samples) != known) {
                known = r / (rows / samples);
                for (int64_t i = 0; i < keys; i++) (bias + 0)[i] = mask[known * keys + i] ? 0.0f : -INFINITY;
            }
            Lanes top = spread(-INFINITY);
            over(keys, [&](int64_t i, auto part) {
                Lanes v = load(x + i, part) * scale;
                if (mask != nullptr) v += load(bias + i, part);
                store(row + i, v, part);
                top = larger(inside(v, part, -INFINITY), top);
            });
            const float highest = largest(top);
            if (highest == -INFINITY) {
                memset((void*)x, 0, keys * sizeof(T));
                continue;
            }
            Lanes total{};
            over(keys, [&](int64_t i, auto part) {
                Lanes e = inside(exponential(load(row + i, part) - highest), part);
                total += e;
                store(row + i, e, part);
            });
            const float share_of_one = 1.0f / sum(total);
            over(keys, [&](int64_t i, auto part) { store(x + i, load(row + i, part) * share_of_one, part); });
        }
    });
}

// In place: gradients of weights (rows, keys) -> of the scores before they were scaled.
template <class T>
static void softmax_backward(T* grad, const T* weights, float scale, int64_t rows, int64_t keys, int64_t threads) {
    share(rows, threads, [&](int64_t first, int64_t last) {
        for (int64_t r = first; r < last; r++) {
            T* g = grad + r * keys;
            const T* w = weights + r * keys;
            Lanes total{};
            over(keys, [&](int64_t i, auto part) { total += load(g + i, part) * load(w + i, part); });
            const float along = sum(total);
            over(keys, [&](int64_t i, auto part) {
                store(g + i, load(w + i, part) * (load(g + i, part) - along) * scale, part);
            });
        }
    });
}

constexpr int64_t VALUES_PER_TASK = 16384;

template <class T, class F>
static void elementwise(int64_t size, int64_t threads, F f) {
    share((size + VALUES_PER_TASK - 1) / VALUES_PER_TASK, threads, [&](int64_t first, int64_t last) {
        const int64_t begin = first * VALUES_PER_TASK, end = last * VALUES_PER_TASK;
        over((end < size ? end : size) - begin, [&](int64_t i, auto part) { f(begin + i, part); });
    });
}

// out = max(x, 0)^2. NaN stays NaN.
template <class T>
static void squared_relu(const T* x, T* out, int64_t size, int64_t threads) {
    elementwise<T>(size, threads, [&](int64_t i, auto part) {
        Lanes v = load(x + i, part);
        v = select(less(v, Lanes{}), Lanes{}, v);
        store(out + i, v * v, part);
    });
}

template <class T>
static void squared_relu_backward(const T* x, const T* grad, T* out, int64_t size, int64_t threads) {
    elementwise<T>(size, threads, [&](int64_t i, auto part) {
        Lanes v = load(x + i, part);
        v = select(less(v, Lanes{}), Lanes{}, v);
        store(out + i, load(grad + i, part) * (v + v), part);
    });
}
