// Rows and tiles of a weight that are updated (outer_update.inc says how fast). Included by .inc
// files only.
#pragma once

#include "common/inline.h"
#include "common/tile_product.h"
#include "hebbian/bounds.h"
#include "hebbian/outer_update.h"

namespace synops::CPU_CAPABILITY {

// Bytes that a pass over a weight fetches ahead, into the L2: the L1 has room for 2 KB at most
// beside what is in use, and 16.8M weights took 12 % longer.
constexpr int64_t kFetched = 16384;
// Panels that a tile fetches ahead, to the L2; to the L1 its own weights, while their sums are
// made.
constexpr int64_t kPanelsFetched = 8;

// A row of the weight, and how an entry ends.
template <class T, bool kBounded, bool kMasked>
struct Row {
  using A = Acc<T>;
  const T* from;
  T* to;
  const A *lower, *upper;
  const uint8_t* flags;

  Row(const PlasticWeight& w, int64_t i)
      : from(static_cast<const T*>(w.from) + i * w.from_stride),
        to(static_cast<T*>(w.to) + i * w.to_stride),
        lower(static_cast<const A*>(w.lower)),
        upper(static_cast<const A*>(w.upper)),
        flags(kMasked ? w.mask + i * w.cols : nullptr) {}

  // keep w + sum for `count` weights from column j on. Inlined, or a vector takes 19 cycles for 6.
  SYNOPS_INLINE void finish(int64_t j, int64_t count, const Vec<A>& keep, const Vec<A>& sum,
                            Finite<T>& finite) const {
    const Vec<A> before = load<A>(from + j, count);
    Vec<A> now = at::vec::fmadd(keep, before, sum);
    if constexpr (kBounded)
      now = clamped<A>(now, load<A>(lower + j, count), load<A>(upper + j, count));
    if constexpr (kMasked) {
      finite.see(where_set<A>(flags + j, count, now, Vec<A>(A(0))));
      now = where_set<A>(flags + j, count, now, before);
    } else {
      finite.see(now);
    }
    store<A>(now, to + j, count);
  }
};

// One sample; weights `ahead` elements further on are fetched meanwhile. Four sums of what is not
// finite: one would be a chain of additions.
template <class T, bool kBounded, bool kMasked>
void update_row(const PlasticWeight& w, int64_t i, Acc<T> keep, Acc<T> post, const Acc<T>* pre,
                int64_t ahead, Finite<T>& finite) {
  using A = Acc<T>;
  constexpr int L = kLanes<A>;
  const Row<T, kBounded, kMasked> row(w, i);
  const T* const next = row.from + ahead;
  const Vec<A> by(keep), y(post);
  const int64_t cols = w.cols;
  Finite<T> seen[4];
  int64_t j = 0;
  for (; j + 4 * L <= cols; j += 4 * L)
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      __builtin_prefetch(next + j + v * L, 1, 2);
      row.finish(j + v * L, L, by, y * Vec<A>::loadu(pre + j + v * L), seen[v]);
    }
  for (; j + L <= cols; j += L) row.finish(j, L, by, y * Vec<A>::loadu(pre + j), seen[0]);
  if (j < cols) row.finish(j, cols - j, by, y * Vec<A>::loadu(pre + j), seen[1]);
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) finite.see(seen[v]);
}

// R rows and C vectors of columns, the last of which may be cut; samples of post are `step` apart,
// those of pre a panel.
template <class T, bool kBounded, bool kMasked, int R, int C>
void update_tile(const PlasticWeight& w, int64_t batch, int64_t i, int64_t j, const Acc<T>* post,
                 int64_t step, const Acc<T>* pre, const Acc<T>* keep, Finite<T>& finite) {
  using A = Acc<T>;
  constexpr int L = kLanes<A>;
  const int64_t cols = w.cols;
  const bool whole = j + C * L <= cols;
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < C; ++v) {
      const T* const weight = static_cast<const T*>(w.from) + (i + r) * w.from_stride + j + v * L;
      __builtin_prefetch(weight, 1);
      __builtin_prefetch(weight + kPanelsFetched * kPanel<A>, 1, 2);
    }
  Vec<A> sum[R][C];
  tile_sums<false, false>(batch, post, 1, step, pre, kPanel<A>, sum);
  Finite<T> seen[C];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    const Row<T, kBounded, kMasked> row(w, i + r);
    const Vec<A> by(keep[r]);
#pragma GCC unroll 4
    for (int v = 0; v < C; ++v) {
      const int64_t at = j + v * L;
      if (whole)
        row.finish(at, L, by, sum[r][v], seen[v]);
      else if (at < cols)
        row.finish(at, std::min<int64_t>(L, cols - at), by, sum[r][v], seen[v]);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < C; ++v) finite.see(seen[v]);
}

template <class T, bool kBounded, bool kMasked, int C>
void update_group(const PlasticWeight& w, int64_t batch, int64_t i, int64_t j, const Acc<T>* post,
                  const Acc<T>* pre, const Acc<T>* keep, Finite<T>& finite) {
  int64_t rows = std::min(kTileRows, w.rows - i);
  const auto some = [&](auto count) {
    update_tile<T, kBounded, kMasked, decltype(count)::value, C>(w, batch, i, j, post, kTileRows,
                                                                 pre, keep + i, finite);
    rows -= count, i += count, post += count;
  };
  if (rows == 6) return some(std::integral_constant<int, 6>{});
  if (rows >= 4) some(std::integral_constant<int, 4>{});
  if (rows >= 2) some(std::integral_constant<int, 2>{});
  if (rows >= 1) some(std::integral_constant<int, 1>{});
}

// f(a value of the weight's type, whether it has bounds, whether it has a mask).
template <class F>
auto visit_weight(const PlasticWeight& w, F&& f) {
  return visit_dtype(w.dtype, [&](auto t) {
    const auto bounded = [&](auto b) {
      return w.mask == nullptr ? f(t, b, std::false_type{}) : f(t, b, std::true_type{});
    };
    return w.lower == nullptr ? bounded(std::false_type{}) : bounded(std::true_type{});
  });
}

}  // namespace synops::CPU_CAPABILITY
