// The softmax of rows whose keys pass in blocks: a running maximum, sums and moments beside it.
// Included by .inc files only.
//
// Moments of x = s - m (m the running maximum, x <= 0) are kept as one vector a row, so that a
// block of keys costs no sum over lanes:
//
//     l = sum e^x, a = sum e^x x, b = sum e^x x^2        entropy = log l - a / l
//
// which is right at any offset of the scores and never negative (lse - sum p s is neither).
#pragma once

#include "entropy/attention_tile.h"

namespace synops::CPU_CAPABILITY {
namespace attention {

// Of rows while their keys pass.
template <class A>
struct Running {
  A *sum, *l, *a, *b, *top;  // of p v, rows of ldv; a vector a row, and a number
  int64_t ldv;

  // In `room`, of running_size(a, rows); with `clear` nothing has passed, without it is as it was
  // left.
  Running(A* room, int64_t rows, int64_t ldv, bool clear) : sum(room), ldv(ldv) {
    l = sum + rows * ldv, a = l + rows * kLanes<A>, b = a + rows * kLanes<A>;
    top = b + rows * kLanes<A>;
    if (!clear) return;
    std::fill(sum, top, A(0));
    std::fill(top, top + rows, kNever<A>);
  }
};

// The maximum of the row rose from `before` to `now`.
template <class A>
inline void rescale(A before, A now, const Running<A>& w, int64_t i) {
  constexpr int L = kLanes<A>;
  const A delta = before - now, factor = std::exp(delta);
  const Vec<A> d(static_cast<A>(delta * kLog2E)), f(factor);
  const Vec<A> l = Vec<A>::loadu(w.l + i * L), a = Vec<A>::loadu(w.a + i * L);
  const Vec<A> b = Vec<A>::loadu(w.b + i * L);
  (f * at::vec::fmadd(d, at::vec::fmadd(d, l, a + a), b)).store(w.b + i * L);
  (f * at::vec::fmadd(d, l, a)).store(w.a + i * L);
  (f * l).store(w.l + i * L);
  for (int64_t c = 0; c < w.ldv; c += L)
    (f * Vec<A>::loadu(w.sum + i * w.ldv + c)).store(w.sum + i * w.ldv + c);
}

// Row i of the block: scores of `columns` to powers, moments (0: l; 1: and a; 2: and b) added.
template <bool kPairs, int kMoments, class A>
inline void soften(const Running<A>& w, int64_t i, Range columns, A* s) {
  constexpr int L = kLanes<A>;
  Vec<A> most[2] = {Vec<A>(kNever<A>), Vec<A>(kNever<A>)};
  for (int64_t c = columns.begin; c < columns.end; c += 2 * L)
    for (int k = 0; k < 2; ++k) most[k] = at::vec::maximum(most[k], Vec<A>::loadu(s + c + k * L));
  const A highest = largest_of(at::vec::maximum(most[0], most[1]));
  if (highest > w.top[i]) {
    if (w.top[i] != kNever<A>) rescale(w.top[i], highest, w, i);
    w.top[i] = highest;
  }
  // A row that has seen nothing yet: -inf - 0 is a power of 0, -inf - -inf is not.
  const Vec<A> top(w.top[i] == kNever<A> ? A(0) : w.top[i]), log2e(static_cast<A>(kLog2E));
  Vec<A> l = Vec<A>::loadu(w.l + i * L), a = Vec<A>::loadu(w.a + i * L);
  Vec<A> b = Vec<A>::loadu(w.b + i * L);
  for (int64_t c = columns.begin; c < columns.end; c += 2 * L) {
    Vec<A> p[2];
#pragma GCC unroll 2
    for (int k = 0; k < 2; ++k) {
      Vec<A> y = (Vec<A>::loadu(s + c + k * L) - top) * log2e;
      p[k] = exp2_at_most_1<A>(y);
      l = l + p[k];
      if constexpr (kMoments == 1) a = at::vec::fmadd(p[k], y, a);
      if constexpr (kMoments == 2) {
        const Vec<A> first = p[k] * y;
        a = a + first;
        b = at::vec::fmadd(first, y, b);
      }
    }
    store_row<kPairs>(p[0], p[1], s, c);
  }
  l.store(w.l + i * L);
  if constexpr (kMoments >= 1) a.store(w.a + i * L);
  if constexpr (kMoments >= 2) b.store(w.b + i * L);
}

template <class A>
inline void put(void* to, int64_t i, A value) {
  if (to != nullptr) static_cast<A*>(to)[i] = value;
}

// Row i of the block, row `at` of the results.
template <class T, class A = Acc<T>>
inline void finish(const Running<A>& w, int64_t i, int64_t at, int64_t value_size,
                   const AttentionOutput& o) {
  constexpr int L = kLanes<A>;
  const A l = sum_of(Vec<A>::loadu(w.l + i * L));
  const bool none = w.top[i] == kNever<A> && l == 0;  // a NaN keeps the maximum, too
  const A inverse = none ? A(0) : 1 / l, log_l = none ? A(0) : std::log(l);
  for (int64_t c = 0; c < value_size; c += L)
    store(Vec<A>::loadu(w.sum + i * w.ldv + c) * Vec<A>(inverse),
          static_cast<T*>(o.out) + at * value_size + c, std::min<int64_t>(L, value_size - c));
  put(o.lse, at, none ? kNever<A> : w.top[i] == kNever<A> ? log_l : w.top[i] + log_l);
  put(o.max_prob, at, inverse);
  if (o.entropy == nullptr) return;
  const A mean = static_cast<A>(kLn2) * sum_of(Vec<A>::loadu(w.a + i * L)) * inverse;
  const A entropy = log_l - mean;
  put(o.entropy, at, entropy < 0 ? A(0) : entropy);
  if (o.varentropy == nullptr) return;
  const A square = static_cast<A>(kLn2 * kLn2) * sum_of(Vec<A>::loadu(w.b + i * L)) * inverse;
  const A varentropy = square - mean * mean;
  put(o.varentropy, at, varentropy < 0 ? A(0) : varentropy);
}

}  // namespace attention
}  // namespace synops::CPU_CAPABILITY
