// Sixteen float lanes over bf16 or float memory, and a loop over tasks on the OpenMP pool that the process has already.
//
// Written with the vector extensions that GCC and Clang share, so that one source serves every processor; conversions
// to bf16 use the instruction where there is one. All arithmetic is in float.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

struct bf16 {
    uint16_t bits;
};

typedef float Lanes __attribute__((vector_size(64)));
typedef int32_t IntLanes __attribute__((vector_size(64)));
typedef uint32_t BitLanes __attribute__((vector_size(64)));
typedef uint16_t HalfLanes __attribute__((vector_size(32)));

constexpr int64_t LANES = 16;

// A vector as wide as the processor's.
#if defined(__AVX512F__)
constexpr int VECTOR = 16;
#elif defined(__AVX__)
constexpr int VECTOR = 8;
#else
constexpr int VECTOR = 4;
#endif
typedef float Vector __attribute__((vector_size(VECTOR * 4)));
typedef int32_t IntVector __attribute__((vector_size(VECTOR * 4)));

template <class V, class All>
static inline V piece(const All& of, int number) {
    V v;
    memcpy(&v, (const V*)&of + number, sizeof v);
    return v;
}

// Comparisons and choices of wider vectors than the processor has are compiled value by value: they go by pieces.
template <class V, class All, class F>
static inline IntLanes compare(All a, All b, F f) {
    IntLanes result;
    for (int i = 0; i < LANES / VECTOR; i++) {
        const IntVector found = f(piece<V>(a, i), piece<V>(b, i));
        memcpy((IntVector*)&result + i, &found, sizeof found);
    }
    return result;
}

static inline IntLanes less(Lanes a, Lanes b) {
    return compare<Vector>(a, b, [](Vector x, Vector y) { return x < y; });
}

static inline IntLanes less_or_equal(IntLanes a, IntLanes b) {
    return compare<IntVector>(a, b, [](IntVector x, IntVector y) { return x <= y; });
}

static inline Lanes select(IntLanes where, Lanes yes, Lanes no) {
#if defined(__AVX512F__)
    return where ? yes : no;
#else
    return (Lanes)(((IntLanes)yes & where) | ((IntLanes)no & ~where));
#endif
}

// How much of a group of lanes lies inside the row: all of it, or the first `count`.
struct Whole {};
struct Part {
    int64_t count;
};

static inline Lanes spread(float value) { return value - Lanes{}; }

static inline Lanes load(const float* from, Whole = {}) {
    Lanes v;
    memcpy(&v, from, sizeof v);
    return v;
}

static inline Lanes widen(HalfLanes half) { return (Lanes)(__builtin_convertvector(half, BitLanes) << 16); }

static inline Lanes load(const bf16* from, Whole = {}) {
    HalfLanes half;
    memcpy(&half, from, sizeof half);
    return widen(half);
}

// Lanes beyond the row are zero.
static inline Lanes load(const float* from, Part part) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_maskz_loadu_ps((__mmask16)((1u << part.count) - 1), from);
#else
    Lanes v{};
    memcpy(&v, from, part.count * sizeof(float));
    return v;
#endif
}

static inline Lanes load(const bf16* from, Part part) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    return widen((HalfLanes)_mm256_maskz_loadu_epi16((__mmask16)((1u << part.count) - 1), from));
#else
    HalfLanes half{};
    memcpy(&half, from, part.count * sizeof(bf16));
    return widen(half);
#endif
}

static inline HalfLanes narrow(Lanes v) {
#if defined(__AVX512BF16__)
    __m256bh half = _mm512_cvtneps_pbh((__m512)v);
    HalfLanes result;
    memcpy(&result, &half, sizeof result);
    return result;
#else
    BitLanes bits = (BitLanes)v;
    BitLanes rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
    BitLanes nan = (BitLanes)compare<Vector>(v, v, [](Vector x, Vector y) { return x != y; });
    return __builtin_convertvector((rounded & ~nan) | ((bits >> 16 | 0x40) & nan), HalfLanes);
#endif
}

static inline void store(float* to, Lanes v, Whole = {}) { memcpy(to, &v, sizeof v); }
static inline void store(bf16* to, Lanes v, Whole = {}) {
    HalfLanes half = narrow(v);
    memcpy(to, &half, sizeof half);
}

static inline void store(float* to, Lanes v, Part part) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << part.count) - 1), (__m512)v);
#else
    memcpy(to, &v, part.count * sizeof(float));
#endif
}

static inline void store(bf16* to, Lanes v, Part part) {
    HalfLanes half = narrow(v);
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    _mm256_mask_storeu_epi16(to, (__mmask16)((1u << part.count) - 1), (__m256i)half);
#else
    memcpy(to, &half, part.count * sizeof(bf16));
#endif
}

// Lanes beyond the row become `outside`.
static inline Lanes inside(Lanes v, Whole, float = 0.0f) { return v; }
static inline Lanes inside(Lanes v, Part part, float outside = 0.0f) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_mask_blend_ps((__mmask16)((1u << part.count) - 1), (__m512)spread(outside), (__m512)v);
#else
    Lanes kept = spread(outside);
    memcpy(&kept, &v, part.count * sizeof(float));
    return kept;
#endif
}

static inline float sum(Lanes v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#else
    float total[8];
    for (int i = 0; i < 8; i++) total[i] = v[i] + v[i + 8];
    for (int step = 4; step; step /= 2)
        for (int i = 0; i < step; i++) total[i] += total[i + step];
    return total[0];
#endif
}

static inline float largest(Lanes v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);
#else
    float found = v[0];
    for (int i = 1; i < LANES; i++) found = v[i] > found ? v[i] : found;
    return found;
#endif
}

static inline Lanes larger(Lanes a, Lanes b) { return select(less(b, a), a, b); }

// e^x to 2 ulp for x <= 0 or moderate x; below -87 it is 0. NaN stays NaN.
static inline Lanes exponential(Lanes x) {
    const Lanes low = spread(-87.0f);
    IntLanes tiny = less(x, low);
    Lanes y = select(tiny, low, x);
    Lanes turns = y * 1.44269504f;
    Lanes shifted = turns + 12582912.0f;  // the sum's low bits are the nearest integer
    IntLanes power = (IntLanes)shifted << 23;
    Lanes whole = shifted - 12582912.0f;
    Lanes r = y - whole * 0.693359375f;
    r = r + whole * 2.12194440e-4f;
    Lanes p = spread(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    Lanes result = (Lanes)((IntLanes)p + power);
    return select(tiny, Lanes{}, result);
}

// A 16 x 16 square of 32-bit values, turned.
static inline void transpose(Lanes r[16]) {
#if defined(__AVX512F__)
    __m512i t[16], *x = (__m512i*)r;
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        x[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        x[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        x[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        x[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        x[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
#else
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < i; j++) {
            const float kept = r[i][j];
            r[i][j] = r[j][i];
            r[j][i] = kept;
        }
#endif
}

// Calls f(offset, Whole or Part) over a row of `width`.
template <class F>
static inline void over(int64_t width, F f) {
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES) f(i, Whole{});
    if (i < width) f(i, Part{width - i});
}

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

// ---- threads: the pool of the OpenMP runtime that is loaded already, so that there is one pool and not two ----

typedef void (*ParallelRegion)(void (*body)(void*), void* data, unsigned threads, unsigned flags);
typedef int (*ThreadNumber)();

extern ParallelRegion parallel_region;
extern ThreadNumber thread_number;
extern ThreadNumber team_size;

template <class F>
struct Work {
    const F* body;
    int64_t count;
    static void run(void* data) {
        auto* work = static_cast<Work*>(data);
        int64_t mine = thread_number(), team = team_size();
        int64_t first = work->count * mine / team, last = work->count * (mine + 1) / team;
        if (first < last) (*work->body)(first, last);
    }
};

// Calls body(first, last) on every thread with its share of [0, count). Nothing that is computed may depend on the
// shares: sums run over tasks of a fixed size.
template <class F>
static void share(int64_t count, int64_t threads, const F& body) {
    if (threads <= 1 || count <= 1 || parallel_region == nullptr) {
        if (count > 0) body(int64_t{0}, count);
        return;
    }
    Work<F> work{&body, count};
    parallel_region(&Work<F>::run, &work, (unsigned)(threads < count ? threads : count), 0);
}
