// Attention over listed pairs of tiles, one sample and head at a time: scores never leave the second-level cache. Threads
// take heads, or, where heads are few, parts of one: blocks of queries in the forward, strips of keys in the backward.
//
// Tiles are cut into blocks of 32 tokens, padded with zeros; a key that is padding has a rank that no query reaches.
// The forward takes 32 queries and their listed keys in stretches, with a running maximum. The backward takes the keys
// of a tile and the queries that list it, on transposed scores (keys x queries): then the weights and the gradients of
// the scores come out of the softmax in the layouts in which the three products that follow need them. It recomputes
// the weights. Every sum has one order, whatever the number of threads.
#pragma once

#include "panels.h"

// 2^t, exactly 0 below -125 and for minus infinity; NaN stays NaN. To 2e-7 where PRECISE, else to 3e-6. Nothing is ever
// smaller than a normal number: a processor takes a hundred cycles for one that is.
template <bool PRECISE>
static inline Lanes power_of_two(Lanes t) {
#if defined(__AVX512F__)
    const __mmask16 counts = _mm512_cmp_ps_mask((__m512)t, _mm512_set1_ps(-125.0f), _CMP_NLT_UQ);
    const __m512 x = (__m512)t;
    const __m512 whole = _mm512_maskz_roundscale_ps(counts, x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Lanes r = (Lanes)_mm512_maskz_sub_ps(counts, x, whole);
#else
    const IntLanes tiny = less(t, spread(-125.0f));
    const Lanes x = select(tiny, spread(-125.0f), t);
    const Lanes shifted = x + 12582912.0f;  // the sum's low bits are the nearest integer
    const Lanes r = x - (shifted - 12582912.0f);
#endif
    Lanes p;
    if (PRECISE) {
        p = spread(1.535336188e-4f);
        p = p * r + 1.339887440e-3f;
        p = p * r + 9.618437357e-3f;
        p = p * r + 5.550332471e-2f;
        p = p * r + 2.402264791e-1f;
        p = p * r + 6.931472028e-1f;
        p = p * r + 1.0f;
    } else {
        p = spread(9.560510206e-3f);
        p = p * r + 5.591703917e-2f;
        p = p * r + 2.402498111e-1f;
        p = p * r + 6.931219677e-1f;
        p = p * r + 9.999991909e-1f;
    }
#if defined(__AVX512F__)
    return (Lanes)_mm512_maskz_scalef_ps(counts, (__m512)p, whole);
#else
    const Lanes result = (Lanes)((IntLanes)p + ((IntLanes)shifted << 23));
    return select(tiny, Lanes{}, result);
#endif
}

// Rows of lists, as in `sora2.kernels.pattern.Lists`.
struct Lists {
    const int32_t *start, *full, *entry;
};

struct Attention {
    int64_t batch, heads, queries, keys, width;        // width is a multiple of 16
    int64_t q_strides[2], k_strides[2], v_strides[2];  // of samples and heads, in values; rows lie together
    float scale;
    int64_t query_tiles, key_tiles, groups;
    const int32_t *query_start, *key_start;  // of tiles, and the end
    Lists by_query, by_key;
    const int32_t *query_rank, *key_rank;  // (rank_rows, N or M); both null = all listed pairs are seen
    int64_t rank_rows, threads;

    // Parts of a head for `workers`, at most `most`.
    int64_t parts(int64_t workers, int64_t most) const {
        const int64_t wanted = (workers + batch * heads - 1) / (batch * heads);
        return wanted < most ? wanted : most;
    }
    int64_t group(int64_t head) const { return groups == 1 ? 0 : groups == batch ? head / heads : head; }
    int64_t rank_row(int64_t head) const { return rank_rows == 1 ? 0 : head / heads; }
};

constexpr float LOG2_E = 1.44269504f, LN_2 = 0.69314718f;
constexpr int32_t NEVER = 0x7fffffff;  // the rank of keys that nobody sees

// The first block of every tile, and the number of blocks.
static std::vector<int64_t> blocks_of(const int32_t* start, int64_t tiles) {
    std::vector<int64_t> first(tiles + 1, 0);
    for (int64_t i = 0; i < tiles; i++) first[i + 1] = first[i] + (start[i + 1] - start[i] + BLOCK - 1) / BLOCK;
    return first;
}

// Ranks by place in the blocks; `outside` where there is padding.
static void spread_ranks(const int32_t* rank, const int32_t* start, const std::vector<int64_t>& first, int32_t outside,
                         int32_t* to) {
    for (size_t i = 0; i + 1 < first.size(); i++) {
        int32_t* own = to + first[i] * BLOCK;
        const int64_t length = start[i + 1] - start[i], whole = (first[i + 1] - first[i]) * BLOCK;
        for (int64_t t = 0; t < whole; t++) own[t] = t >= length ? outside : rank == nullptr ? 0 : rank[start[i] + t];
    }
}

// `count` rows of x as values of the engine, with zeros up to 32 rows of `wide` values.
template <class T, class Value>
static inline void pad(const T* x, int64_t count, int64_t width, Value* to, int64_t wide) {
    if (std::is_same<T, Value>::value && width == wide) {
        memcpy((void*)to, x, count * width * sizeof(T));
    } else {
        for (int64_t row = 0; row < count; row++) {
            for (int64_t i = 0; i < width; i += LANES) store(to + row * wide + i, load(x + row * width + i));
            for (int64_t i = width; i < wide; i += LANES) store(to + row * wide + i, Lanes{});
        }
    }
    memset((void*)(to + count * wide), 0, (BLOCK - count) * wide * sizeof(Value));
}

// Calls f(tile, block, first token, tokens) for the blocks of all tiles.
template <class F>
static inline void over_blocks(const int32_t* start, const std::vector<int64_t>& first, F f) {
    for (size_t tile = 0; tile + 1 < first.size(); tile++)
        for (int64_t block = first[tile]; block < first[tile + 1]; block++) {
            const int64_t token = start[tile] + (block - first[tile]) * BLOCK, left = start[tile + 1] - token;
            f(tile, block, token, left < BLOCK ? left : BLOCK);
        }
}

static inline IntLanes ranks(const int32_t* from) {
    IntLanes v;
    memcpy(&v, from, sizeof v);
    return v;
}

static inline IntLanes every(int32_t value) { return value - IntLanes{}; }

// Some of the blocks that a tile is listed with, and which of them need the comparison of ranks.
struct Stretch {
    const int64_t* block;
    const char* compared;
    int64_t count;
};

// All of them.
struct Listed {
    std::vector<int64_t> block;
    std::vector<char> compared;

    void fill(const Lists& lists, int64_t row, bool ranked, const int32_t* start, const std::vector<int64_t>& first) {
        block.clear();
        compared.clear();
        for (int64_t e = lists.start[row]; e < lists.start[row + 1]; e++) {
            const int64_t tile = lists.entry[e], length = start[tile + 1] - start[tile];
            const bool partial = ranked && e - lists.start[row] >= lists.full[row];
            for (int64_t b = first[tile]; b < first[tile + 1]; b++) {
                block.push_back(b);
                compared.push_back(partial || (b + 1 - first[tile]) * BLOCK > length);
            }
        }
    }

    // Calls f(stretch, whether it is the first) for at most `most` blocks at a time.
    template <class F>
    void over(int64_t most, F f) const {
        const int64_t all = block.size();
        for (int64_t from = 0; from < all; from += most)
            f(Stretch{block.data() + from, compared.data() + from, all - from < most ? all - from : most}, from == 0);
    }
};

// Blocks of keys, or of queries, that are worked on at once.
constexpr int64_t KEYS = 32, STRIP = 4, QUERIES = 16;
// Threads that the backward has work for, however few heads there are.
constexpr int64_t WORKERS = 16;

// Up to STRIP blocks of the keys of a tile, which the backward works on at once.
struct Strip {
    int64_t tile, token;
};

static std::vector<Strip> strips_of(const int32_t* start, int64_t tiles) {
    std::vector<Strip> found;
    for (int64_t tile = 0; tile < tiles; tile++)
        for (int64_t token = start[tile]; token < start[tile + 1]; token += STRIP * BLOCK) found.push_back({tile, token});
    return found;
}

// The softmax of a block's queries over all keys that they have met.
struct Softmax {
    float highest[BLOCK], total[BLOCK];

    Softmax() {
        for (int64_t row = 0; row < BLOCK; row++) highest[row] = -INFINITY, total[row] = 0.0f;
    }

    // One query meets the keys of a stretch, whose scores are scaled and hidden in place: `weights` of these keys,
    // relative to the highest score so far. Returns what the sums of earlier stretches must be multiplied with.
    template <bool PRECISE, class Value>
    float meet(int64_t row, const Stretch& keys, float factor, int32_t rank, const int32_t* key_rank, float* scores,
               Value* weights) {
        Lanes top = spread(-INFINITY);
        for (int64_t x = 0; x < keys.count; x++)
            for (int64_t j = x * BLOCK; j < (x + 1) * BLOCK; j += LANES) {
                Lanes score = load(scores + j) * factor;
                if (keys.compared[x]) {
                    const int32_t* own = key_rank + keys.block[x] * BLOCK + j % BLOCK;
                    score = select(less_or_equal(ranks(own), every(rank)), score, spread(-INFINITY));
                }
                store(scores + j, score);
                top = larger(score, top);
            }
        const float found = largest(top), before = highest[row];
        highest[row] = found > before ? found : before;
        const float base = highest[row] == -INFINITY ? 0.0f : highest[row];
        Lanes sums{};
        for (int64_t j = 0; j < keys.count * BLOCK; j += LANES) {
            const Lanes weight = power_of_two<PRECISE>(load(scores + j) - base);
            sums += weight;
            store(weights + j, weight);
        }
        const float shrink = before == highest[row] ? 1.0f : std::exp2(before - base);
        total[row] = total[row] * shrink + sum(sums);
        return shrink;
    }

    bool blind(int64_t row) const { return total[row] == 0.0f; }

    // The natural logarithm of the sum of exponentials.
    float level(int64_t row) const {
        return blind(row) ? -INFINITY : (highest[row] + std::log2(total[row])) * LN_2;
    }
};

// out (B, H, N, D) and level (B, H, N): the natural logarithm of the sum of exp(scores * scale), -inf where no key is
// seen and the output is 0.
template <class Engine, class T>
static void attention(const Attention& a, const T* q, const T* k, const T* v, T* out, float* level) {
    using Value = typename Engine::Value;
    constexpr bool PRECISE = std::is_same<Value, float>::value;
    const int64_t width = a.width, d = padded(width), steps = d / 32, panels = steps * PANEL, wide = KEYS * BLOCK;
    const float factor = a.scale * LOG2_E;
    const auto q_first = blocks_of(a.query_start, a.query_tiles), k_first = blocks_of(a.key_start, a.key_tiles);
    const int64_t k_blocks = k_first.back();
    std::vector<int32_t> key_rank(a.rank_rows * k_blocks * BLOCK);
    for (int64_t row = 0; row < a.rank_rows; row++)
        spread_ranks(a.key_rank == nullptr ? nullptr : a.key_rank + row * a.keys, a.key_start, k_first, NEVER,
                     key_rank.data() + row * k_blocks * BLOCK);
    const int64_t q_blocks = q_first.back(), parts = a.parts(a.threads, q_blocks);
    share(a.batch * a.heads * parts, a.threads, [&](int64_t begin, int64_t end) {
        Engine engine;
        Buffers buffers;
        Value *keys = buffers.take<Value>(k_blocks * panels), *values = buffers.take<Value>(k_blocks * panels);
        Value *block = buffers.take<Value>(BLOCK * d), *weights = buffers.take<Value>(BLOCK * wide);
        float *scores = buffers.take<float>(BLOCK * wide), *sums = buffers.take<float>(BLOCK * d);
        Listed listed;
        for (int64_t unit = begin, packed = -1; unit < end; unit++) {
            const int64_t head = unit / parts, part = unit % parts, b = head / a.heads, h = head % a.heads;
            const int64_t from = q_blocks * part / parts, to = q_blocks * (part + 1) / parts;
            const T* own_q = q + b * a.q_strides[0] + h * a.q_strides[1];
            const T* own_k = k + b * a.k_strides[0] + h * a.k_strides[1];
            const T* own_v = v + b * a.v_strides[0] + h * a.v_strides[1];
            const int32_t* own_rank = key_rank.data() + a.rank_row(head) * k_blocks * BLOCK;
            const int32_t* q_rank = a.query_rank == nullptr ? nullptr : a.query_rank + a.rank_row(head) * a.queries;
            if (packed != head) over_blocks(a.key_start, k_first, [&](int64_t, int64_t n, int64_t token, int64_t count) {
                pad(own_k + token * width, count, width, block, d);
                for (int64_t s = 0; s < steps; s++) Engine::columns(block + s * 32, d, keys + n * panels + s * PANEL);
                pad(own_v + token * width, count, width, block, d);
                for (int64_t s = 0; s < steps; s++) Engine::rows(block + s * 32, d, values + n * panels + s * PANEL);
            });
            packed = head;
            over_blocks(a.query_start, q_first, [&](int64_t tile, int64_t n, int64_t token, int64_t count) {
                if (n < from || n >= to) return;
                if (n == q_first[tile] || n == from)
                    listed.fill(a.by_query, a.group(head) * a.query_tiles + tile, a.key_rank != nullptr, a.key_start,
                                k_first);
                pad(own_q + token * width, count, width, block, d);
                Softmax softmax;
                listed.over(KEYS, [&](const Stretch& met, bool first) {
                    for (int64_t x = 0; x < met.count; x++) {
                        const Value* panel = keys + met.block[x] * panels;
                        Engine::product(block, d, [&](int64_t s) { return panel + s * PANEL; }, steps,
                                        scores + x * BLOCK, wide);
                    }
                    for (int64_t row = 0; row < count; row++) {
                        const int32_t rank = q_rank == nullptr ? 0 : q_rank[token + row];
                        const float shrink = softmax.meet<PRECISE>(row, met, factor, rank, own_rank,
                                                                   scores + row * wide, weights + row * wide);
                        if (!first && shrink != 1.0f)
                            for (int64_t c = 0; c < d; c += LANES)
                                store(sums + row * d + c, load(sums + row * d + c) * shrink);
                    }
                    for (int64_t s = 0; s < steps; s++)
                        Engine::product(weights, wide,
                                        [&](int64_t x) { return values + met.block[x] * panels + s * PANEL; },
                                        met.count, sums + s * 32, d, !first);
                });
                for (int64_t row = 0; row < count; row++) {
                    const int64_t at = head * a.queries + token + row;
                    const float inverse = 1.0f / softmax.total[row];
                    level[at] = softmax.level(row);
                    for (int64_t c = 0; c < width; c += LANES)
                        store(out + at * width + c, softmax.blind(row) ? Lanes{} : load(sums + row * d + c) * inverse);
                }
            });
        }
    });
}

// Weights and slopes (gradients of the scores before they are scaled) of a block of keys and a stretch of queries, from
// transposed scores and gradients of the weights, (32 keys x queries) each. Of the keys the first `count` are there.
struct Slopes {
    float factor, scale;
    const float *base, *along;    // of queries by their place: base 2 level; sum of gradient times output
    const int32_t* query_rank;    // likewise
    const int32_t* key_rank;      // of the block's keys; null = nothing is compared
    int64_t wide, count;

    template <class Engine, class Value>
    void find(const Stretch& met, const float* scores, const float* to_weights, Value* weights, Value* slopes,
              Value* panels, int64_t panel_stride) const {
        for (int64_t row = 0; row < BLOCK; row += 2)
            for (int64_t i = 0; i < met.count * BLOCK; i += LANES) {
                const int64_t x = i / BLOCK, place = met.block[x] * BLOCK + i % BLOCK;
                Lanes slope[2];
                for (int64_t s = 0; s < 2; s++) {
                    const int64_t at = (row + s) * wide + i;
                    Lanes w = power_of_two<std::is_same<Value, float>::value>(load(scores + at) * factor -
                                                                             load(base + place));
                    slope[s] = w * (load(to_weights + at) - load(along + place)) * scale;
                    if (row + s >= count) {
                        w = slope[s] = Lanes{};
                    } else if (key_rank != nullptr && met.compared[x]) {
                        const IntLanes seen = less_or_equal(every(key_rank[row + s]), ranks(query_rank + place));
                        w = select(seen, w, Lanes{});
                        slope[s] = select(seen, slope[s], Lanes{});
                    }
                    store(weights + at, w);
                    store(slopes + at, slope[s]);
                }
                Engine::put(panels + x * panel_stride, row, i % BLOCK, slope[0], slope[1]);
            }
    }
};

// Gradients of q (B, H, N, D), k and v (B, H, M, D); out and level as `attention` gave them.
template <class Engine, class T>
static void attention_backward(const Attention& a, const T* q, const T* k, const T* v, const T* out,
                               const float* level, const T* grad, T* grad_q, T* grad_k, T* grad_v) {
    using Value = typename Engine::Value;
    const int64_t width = a.width, d = padded(width), steps = d / 32, panels = steps * PANEL, wide = QUERIES * BLOCK;
    const int64_t n = a.queries;
    const float factor = a.scale * LOG2_E;
    const auto q_first = blocks_of(a.query_start, a.query_tiles), k_first = blocks_of(a.key_start, a.key_tiles);
    const int64_t q_blocks = q_first.back(), tall = q_blocks * BLOCK;
    const std::vector<Strip> strips = strips_of(a.key_start, a.key_tiles);
    // Every part has sums of its own for the queries. How many there are does not depend on the threads, for bits do.
    const int64_t heads = a.batch * a.heads, parts = a.parts(WORKERS, strips.size());
    Buffers shared;
    float* all_sums = parts > 1 ? shared.take<float>(heads * parts * tall * d) : nullptr;
    std::vector<int32_t> query_rank(a.rank_rows * tall);
    for (int64_t row = 0; row < a.rank_rows; row++)
        spread_ranks(a.query_rank == nullptr ? nullptr : a.query_rank + row * n, a.query_start, q_first, 0,
                     query_rank.data() + row * tall);
    // The gradient of a head's queries, from sums over keys that lie transposed in panels.
    auto write_queries = [&](int64_t head, const float* sums) {
        over_blocks(a.query_start, q_first, [&](int64_t, int64_t i, int64_t token, int64_t count) {
            for (int64_t c = 0; c < width; c += LANES)
                for (int64_t part = 0; part < count; part += LANES) {
                    Lanes r[16];
                    const float* from = sums + i * panels + c / 32 * PANEL + c % 32 * 32 + part;
                    for (int64_t e = 0; e < 16; e++) r[e] = load(from + e * 32);
                    transpose(r);
                    for (int64_t e = 0; e < 16 && part + e < count; e++)
                        store(grad_q + (head * n + token + part + e) * width + c, r[e]);
                }
        });
    };
    share(heads * parts, a.threads, [&](int64_t begin, int64_t end) {
        Engine engine;
        Buffers buffers;
        Value *q_columns = buffers.take<Value>(tall * d), *q_rows = buffers.take<Value>(tall * d);
        Value *g_columns = buffers.take<Value>(tall * d), *g_rows = buffers.take<Value>(tall * d);
        Value *k_blocks = buffers.take<Value>(STRIP * BLOCK * d), *v_blocks = buffers.take<Value>(STRIP * BLOCK * d);
        Value *k_turned = buffers.take<Value>(STRIP * BLOCK * d), *block = buffers.take<Value>(BLOCK * d);
        Value *weights = buffers.take<Value>(BLOCK * wide), *slopes = buffers.take<Value>(BLOCK * wide);
        Value* slope_panels = buffers.take<Value>(QUERIES * STRIP * PANEL);
        float *scores = buffers.take<float>(BLOCK * wide), *to_weights = buffers.take<float>(BLOCK * wide);
        float *k_sums = buffers.take<float>(STRIP * BLOCK * d), *v_sums = buffers.take<float>(STRIP * BLOCK * d);
        float *own_sums = parts > 1 ? nullptr : buffers.take<float>(tall * d), *base = buffers.take<float>(tall);
        float* along = buffers.take<float>(tall);
        Listed listed;
        for (int64_t unit = begin, packed = -1; unit < end; unit++) {
            const int64_t head = unit / parts, part = unit % parts, b = head / a.heads, h = head % a.heads;
            float* q_sums = parts > 1 ? all_sums + unit * tall * d : own_sums;
            const T* own_q = q + b * a.q_strides[0] + h * a.q_strides[1];
            const T* own_k = k + b * a.k_strides[0] + h * a.k_strides[1];
            const T* own_v = v + b * a.v_strides[0] + h * a.v_strides[1];
            const T *g = grad + head * n * width, *o = out + head * n * width;
            const int32_t* own_rank = query_rank.data() + a.rank_row(head) * tall;
            const int32_t* key_rank = a.key_rank == nullptr ? nullptr : a.key_rank + a.rank_row(head) * a.keys;
            memset(q_sums, 0, tall * d * sizeof(float));
            if (packed != head) over_blocks(a.query_start, q_first, [&](int64_t, int64_t i, int64_t token, int64_t count) {
                pad(own_q + token * width, count, width, block, d);
                for (int64_t s = 0; s < steps; s++) {
                    Engine::columns(block + s * 32, d, q_columns + i * panels + s * PANEL);
                    Engine::rows(block + s * 32, d, q_rows + i * panels + s * PANEL);
                }
                pad(g + token * width, count, width, block, d);
                for (int64_t s = 0; s < steps; s++) {
                    Engine::columns(block + s * 32, d, g_columns + i * panels + s * PANEL);
                    Engine::rows(block + s * 32, d, g_rows + i * panels + s * PANEL);
                }
                for (int64_t row = 0; row < BLOCK; row++) {
                    const bool there = row < count && level[head * n + token + row] != -INFINITY;
                    base[i * BLOCK + row] = there ? level[head * n + token + row] * LOG2_E : INFINITY;
                    Lanes total{};
                    for (int64_t c = 0; there && c < width; c += LANES)
                        total += load(g + (token + row) * width + c) * load(o + (token + row) * width + c);
                    along[i * BLOCK + row] = sum(total);
                }
            });
            packed = head;
            const int64_t begin_strip = strips.size() * part / parts, end_strip = strips.size() * (part + 1) / parts;
            for (int64_t place = begin_strip, tile = -1; place < end_strip; place++) {
                if (tile != strips[place].tile)
                    listed.fill(a.by_key, a.group(head) * a.key_tiles + strips[place].tile, a.key_rank != nullptr,
                                a.query_start, q_first);
                tile = strips[place].tile;
                const int64_t last = a.key_start[tile + 1], token = strips[place].token;
                const int64_t length = last - token < STRIP * BLOCK ? last - token : STRIP * BLOCK;
                const int64_t strip = (length + BLOCK - 1) / BLOCK;
                for (int64_t j = 0; j < strip; j++) {
                    const int64_t first = token + j * BLOCK, count = last - first < BLOCK ? last - first : BLOCK;
                    Value* own = k_blocks + j * BLOCK * d;
                    pad(own_k + first * width, count, width, own, d);
                    for (int64_t s = 0; s < steps; s++)
                        Engine::turn(own + s * 32, d, k_turned + s * 32 * STRIP * BLOCK + j * BLOCK, STRIP * BLOCK);
                    pad(own_v + first * width, count, width, v_blocks + j * BLOCK * d, d);
                }
                memset(k_sums, 0, STRIP * BLOCK * d * sizeof(float));
                memset(v_sums, 0, STRIP * BLOCK * d * sizeof(float));
                listed.over(QUERIES, [&](const Stretch& met, bool first) {
                    for (int64_t j = 0; j < strip; j++) {
                        const Value *own_keys = k_blocks + j * BLOCK * d, *own_values = v_blocks + j * BLOCK * d;
                        for (int64_t x = 0; x < met.count; x++) {
                            const Value* to_q = q_columns + met.block[x] * panels;
                            const Value* to_g = g_columns + met.block[x] * panels;
                            Engine::product(own_keys, d, [&](int64_t s) { return to_q + s * PANEL; }, steps,
                                            scores + x * BLOCK, wide);
                            Engine::product(own_values, d, [&](int64_t s) { return to_g + s * PANEL; }, steps,
                                            to_weights + x * BLOCK, wide);
                        }
                        const int64_t key = token + j * BLOCK;
                        const Slopes found{factor, a.scale, base, along, own_rank,
                                           key_rank == nullptr ? nullptr : key_rank + key, wide, last - key};
                        found.find<Engine>(met, scores, to_weights, weights, slopes, slope_panels + j * PANEL,
                                           STRIP * PANEL);
                        for (int64_t s = 0; s < steps; s++) {
                            const int64_t to = j * BLOCK * d + s * 32;
                            Engine::product(weights, wide,
                                            [&](int64_t x) { return g_rows + met.block[x] * panels + s * PANEL; },
                                            met.count, v_sums + to, d, !first);
                            Engine::product(slopes, wide,
                                            [&](int64_t x) { return q_rows + met.block[x] * panels + s * PANEL; },
                                            met.count, k_sums + to, d, !first);
                        }
                    }
                    // Transposed: (channels x keys) (keys x queries).
                    for (int64_t x = 0; x < met.count; x++)
                        for (int64_t s = 0; s < steps; s++)
                            Engine::product(k_turned + s * 32 * STRIP * BLOCK, STRIP * BLOCK,
                                            [&](int64_t j) { return slope_panels + (x * STRIP + j) * PANEL; },
                                            strip, q_sums + met.block[x] * panels + s * PANEL, 32, true);
                });
                for (int64_t row = 0; row < length; row++)
                    for (int64_t c = 0; c < width; c += LANES) {
                        const int64_t to = (head * a.keys + token + row) * width + c;
                        store(grad_k + to, load(k_sums + row * d + c));
                        store(grad_v + to, load(v_sums + row * d + c));
                    }
            }
            if (parts == 1) write_queries(head, q_sums);
        }
    });
    if (parts > 1)
        share(heads, a.threads, [&](int64_t begin, int64_t end) {
            for (int64_t head = begin; head < end; head++) {
                float* sums = all_sums + head * parts * tall * d;
                for (int64_t part = 1; part < parts; part++)
                    for (int64_t i = 0; i < tall * d; i += LANES)
                        store(sums + i, load(sums + i) + load(sums + part * tall * d + i));
                write_queries(head, sums);
            }
        });
}
