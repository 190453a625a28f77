// Norm, shift, gain and gate of a token stream, with parameters looked up by the token's noise level.
#pragma once

#include "lanes.h"

// Where the tokens of every row of parameters lie, cut into pieces of work whose size does not depend on the number of
// threads. Filled in by Python (`sora2.kernels.cpu.plan`), once per batch.
struct Plan {
    int64_t tokens, width, columns;  // parameters per row
    int64_t segments, tasks, slots, splits;
    const int32_t* task_chunk;    // (tasks + 1): its range of chunks
    const int32_t* task_segment;  // (tasks)
    const int32_t* chunk_token;   // (chunks + 1): its range in `order`
    const int32_t* chunk_row;     // (chunks): the row of parameters that its tokens share
    const int32_t* chunk_slot;    // (chunks): -1 where it holds all tokens of the row, else where its sum waits
    const int32_t* order;         // (tokens): tokens by segment and row
    const int32_t* split_slot;    // (splits + 1): slots of a row that several chunks share
    const int32_t* split_row;     // (splits)
    const int32_t* split_segment; // (splits)
    const float* const* rows;     // (segments): (U, columns, width)
};

struct Buffer {
    std::unique_ptr<float[]> data;
    explicit Buffer(int64_t size) : data(new float[size > 0 ? size : 1]) {}
    float* operator+(int64_t offset) const { return data.get() + offset; }
};

// Calls token(t, parameters) for the tokens of a range of tasks; parameters are COUNT rows of `width`, level + table.
// After the last token of a chunk, and of a task, calls chunk_end(chunk, segment) and task_end(task, segment).
template <int COUNT, class Token, class ChunkEnd, class TaskEnd>
static inline void walk(const Plan& plan, int64_t first_task, int64_t last_task, int64_t column, const float* table,
                        int64_t table_columns, Token token, ChunkEnd chunk_end, TaskEnd task_end) {
    const int64_t width = plan.width;
    Buffer parameters(COUNT * width);
    for (int64_t task = first_task; task < last_task; task++) {
        const int64_t segment = plan.task_segment[task];
        for (int64_t chunk = plan.task_chunk[task]; chunk < plan.task_chunk[task + 1]; chunk++) {
            const float* row = plan.rows[segment] + (plan.chunk_row[chunk] * plan.columns + column) * width;
            if (table != nullptr) {
                const float* own = table + (segment * table_columns + column) * width;
                over(COUNT * width, [&](int64_t i, auto part) {
                    store(parameters + i, load(row + i, part) + load(own + i, part), part);
                });
            } else {
                memcpy(parameters + 0, row, COUNT * width * sizeof(float));
            }
            for (int64_t i = plan.chunk_token[chunk]; i < plan.chunk_token[chunk + 1]; i++)
                token(plan.order[i], parameters + 0, i == plan.chunk_token[chunk]);
            chunk_end(chunk, segment);
        }
        task_end(task, segment);
    }
}

struct Moments {
    float mean, rstd;
};

template <class T>
static inline Moments moments(const T* x, int64_t width, float eps) {
    Lanes total{};
    over(width, [&](int64_t i, auto part) { total += load(x + i, part); });
    const float mean = sum(total) / width;
    Lanes squares{};
    over(width, [&](int64_t i, auto part) {
        Lanes centred = inside(load(x + i, part) - mean, part);
        squares += centred * centred;
    });
    return {mean, 1.0f / std::sqrt(sum(squares) / width + eps)};
}

// GATED: first added = x + gate * update. Parameters in order: [gate,] shift, gain.
template <class T, bool GATED>
static void norm_modulate(const Plan& plan, int64_t column, const float* table, int64_t table_columns, const T* x,
                          const T* update, T* added, T* out, float* statistics, float eps, int64_t threads) {
    const int64_t width = plan.width;
    share(plan.tasks, threads, [&](int64_t first, int64_t last) {
        walk<2 + GATED>(
            plan, first, last, column, table, table_columns,
            [&](int64_t t, const float* p, bool) {
                const T* row = x + t * width;
                const float *shift = p + GATED * width, *gain = shift + width;
                if (GATED) {
                    T* sum_row = added + t * width;
                    const T* u = update + t * width;
                    over(width, [&](int64_t i, auto part) {
                        store(sum_row + i, load(row + i, part) + load(p + i, part) * load(u + i, part), part);
                    });
                    row = sum_row;
                }
                const Moments m = moments(row, width, eps);
                statistics[2 * t] = m.mean;
                statistics[2 * t + 1] = m.rstd;
                T* to = out + t * width;
                over(width, [&](int64_t i, auto part) {
                    Lanes normed = (load(row + i, part) - m.mean) * m.rstd;
                    store(to + i, normed * load(gain + i, part) + load(shift + i, part), part);
                });
            },
            [](int64_t, int64_t) {}, [](int64_t, int64_t) {});
    });
}

template <class T>
static void gated_add(const Plan& plan, int64_t column, const float* table, int64_t table_columns, const T* x,
                      const T* update, T* out, int64_t threads) {
    const int64_t width = plan.width;
    share(plan.tasks, threads, [&](int64_t first, int64_t last) {
        walk<1>(
            plan, first, last, column, table, table_columns,
            [&](int64_t t, const float* gate, bool) {
                const T *row = x + t * width, *u = update + t * width;
                T* to = out + t * width;
                over(width, [&](int64_t i, auto part) {
                    store(to + i, load(row + i, part) + load(gate + i, part) * load(u + i, part), part);
                });
            },
            [](int64_t, int64_t) {}, [](int64_t, int64_t) {});
    });
}

// Sums of COUNT parameters' gradients: per chunk, then to the rows of levels and, per task, to the table.
template <int COUNT>
struct Sums {
    const Plan& plan;
    int64_t column;
    float* const* rows;  // (segments): (U, columns, width), gradients of the levels; null: not wanted
    bool add;            // to what `rows` holds, or over it
    Buffer slots, tasks;

    Sums(const Plan& p, int64_t first_column, float* const* to, bool adds)
        : plan(p), column(first_column), rows(to), add(adds), slots(p.slots * COUNT * p.width),
          tasks(p.tasks * COUNT * p.width) {}

    void put(float* to, const float* from, bool adds) const {
        over(COUNT * plan.width, [&](int64_t i, auto part) {
            Lanes v = load(from + i, part);
            store(to + i, adds ? load(to + i, part) + v : v, part);
        });
    }

    float* row(int64_t segment, int64_t index) const {
        return rows[segment] + (index * plan.columns + column) * plan.width;
    }

    void end_chunk(int64_t chunk, int64_t segment, const float* sums) const {
        const int64_t slot = plan.chunk_slot[chunk];
        if (slot >= 0)
            put(slots + slot * COUNT * plan.width, sums, false);
        else if (rows != nullptr)
            put(row(segment, plan.chunk_row[chunk]), sums, add);
    }

    // After all tasks: rows that several chunks share, and the table (segments, table_columns, width), in fixed order.
    void finish(float* table, int64_t table_columns) const {
        const int64_t size = COUNT * plan.width;
        for (int64_t k = 0; rows != nullptr && k < plan.splits; k++) {
            float* to = row(plan.split_segment[k], plan.split_row[k]);
            for (int64_t slot = plan.split_slot[k]; slot < plan.split_slot[k + 1]; slot++)
                put(to, slots + slot * size, add || slot > plan.split_slot[k]);
        }
        for (int64_t task = 0; table != nullptr && task < plan.tasks; task++) {
            const int64_t segment = plan.task_segment[task];
            put(table + (segment * table_columns + column) * plan.width, tasks + task * size, true);
        }
    }
};

// Backward of `norm_modulate`, x being what was normed. `through` is the gradient that reaches x on its way past the
// norm, null where there is none. GATED: also of added = x + gate * update; `grad_x` is the gradient of both then.
template <class T, bool GATED>
static void norm_modulate_backward(const Plan& plan, int64_t column, const float* table, int64_t table_columns,
                                   const T* grad, const T* through, const T* x, const float* statistics,
                                   const T* update, T* grad_x, T* grad_update, float* const* grad_rows, bool add,
                                   float* grad_table, int64_t threads) {
    constexpr int COUNT = 2 + GATED;
    const int64_t width = plan.width;
    Sums<COUNT> sums(plan, column, grad_rows, add);
    share(plan.tasks, threads, [&](int64_t first, int64_t last) {
        Buffer chunk_sums(COUNT * width), task_sums(COUNT * width);
        bool task_begins = true;
        walk<COUNT>(
            plan, first, last, column, table, table_columns,
            [&](int64_t t, const float* p, bool begins) {
                const float* gain = p + (1 + GATED) * width;
                float *to_gate = chunk_sums + 0, *to_shift = chunk_sums + GATED * width, *to_gain = to_shift + width;
                const T *g = grad + t * width, *row = x + t * width;
                const float mean = statistics[2 * t], rstd = statistics[2 * t + 1];
                Lanes scaled_total{}, along_total{};
                over(width, [&](int64_t i, auto part) {
                    Lanes gi = load(g + i, part), normed = (load(row + i, part) - mean) * rstd;
                    Lanes scaled = gi * load(gain + i, part);
                    scaled_total += scaled;
                    along_total += inside(scaled * normed, part);
                    Lanes to_gain_i = gi * normed;
                    store(to_shift + i, begins ? gi : load(to_shift + i, part) + gi, part);
                    store(to_gain + i, begins ? to_gain_i : load(to_gain + i, part) + to_gain_i, part);
                });
                const float average = sum(scaled_total) / width, along = sum(along_total) / width;
                T* to = grad_x + t * width;
                over(width, [&](int64_t i, auto part) {
                    Lanes normed = (load(row + i, part) - mean) * rstd;
                    Lanes v = (load(g + i, part) * load(gain + i, part) - average - normed * along) * rstd;
                    if (through != nullptr) v += load(through + t * width + i, part);
                    store(to + i, v, part);
                    if (GATED) {
                        store(grad_update + t * width + i, v * load(p + i, part), part);
                        Lanes gate_i = v * load(update + t * width + i, part);
                        store(to_gate + i, begins ? gate_i : load(to_gate + i, part) + gate_i, part);
                    }
                });
            },
            [&](int64_t chunk, int64_t segment) {
                sums.end_chunk(chunk, segment, chunk_sums + 0);
                sums.put(task_sums + 0, chunk_sums + 0, !task_begins);
                task_begins = false;
            },
            [&](int64_t task, int64_t) {
                sums.put(sums.tasks + task * COUNT * width, task_sums + 0, false);
                task_begins = true;
            });
    });
    sums.finish(grad_table, table_columns);
}

// Backward of `gated_add`; the gradient of x is `grad` itself.
template <class T>
static void gated_add_backward(const Plan& plan, int64_t column, const float* table, int64_t table_columns,
                               const T* grad, const T* update, T* grad_update, float* const* grad_rows, bool add,
                               float* grad_table, int64_t threads) {
    const int64_t width = plan.width;
    Sums<1> sums(plan, column, grad_rows, add);
    share(plan.tasks, threads, [&](int64_t first, int64_t last) {
        Buffer chunk_sums(width), task_sums(width);
        bool task_begins = true;
        walk<1>(
            plan, first, last, column, table, table_columns,
            [&](int64_t t, const float* gate, bool begins) {
                const T *g = grad + t * width, *u = update + t * width;
                T* to = grad_update + t * width;
                over(width, [&](int64_t i, auto part) {
                    Lanes gi = load(g + i, part), gate_i = gi * load(u + i, part);
                    store(to + i, gi * load(gate + i, part), part);
                    store(chunk_sums + i, begins ? gate_i : load(chunk_sums + i, part) + gate_i, part);
                });
            },
            [&](int64_t chunk, int64_t segment) {
                sums.end_chunk(chunk, segment, chunk_sums + 0);
                sums.put(task_sums + 0, chunk_sums + 0, !task_begins);
                task_begins = false;
            },
            [&](int64_t task, int64_t) {
                sums.put(sums.tasks + task * width, task_sums + 0, false);
                task_begins = true;
            });
    });
    sums.finish(grad_table, table_columns);
}
