// Rows and tiles of a weight that are updated (outer_update.inc says how fast). Included by .inc
// files only.
#pragma once

#include "common/tile_product.h"
#include "hebbian/bounds.h"
#include "hebbian/outer_update.h"

namespace synops::CPU_CAPABILITY {

// keep w + sum for `count` weights of row i from column j on.
template <class T, bool kBounded>
inline void finish(const PlasticWeight& w, int64_t i, int64_t j, int64_t count,
                   const Vec<Acc<T>>& keep, const Vec<Acc<T>>& sum, Finite<T>& finite) {
  using A = Acc<T>;
  const Vec<A> before = load<A>(static_cast<const T*>(w.from) + i * w.from_stride + j, count);
  Vec<A> now = at::vec::fmadd(keep, before, sum);
  if constexpr (kBounded)
    now = clamped<A>(now, load<A>(static_cast<const A*>(w.lower) + j, count),
                     load<A>(static_cast<const A*>(w.upper) + j, count));
  if (w.mask != nullptr) {
    const uint8_t* const flags = w.mask + i * w.cols + j;
    finite.see(where_set<A>(flags, count, now, Vec<A>(A(0))));
    now = where_set<A>(flags, count, now, before);
  } else {
    finite.see(now);
  }
  store<A>(now, static_cast<T*>(w.to) + i * w.to_stride + j, count);
}

// One sample.
template <class T, bool kBounded>
void update_row(const PlasticWeight& w, int64_t i, Acc<T> keep, Acc<T> post, const Acc<T>* pre,
                Finite<T>& finite) {
  using A = Acc<T>;
  constexpr int L = kLanes<A>;
  const Vec<A> by(keep), y(post);
  int64_t j = 0;
  for (; j + L <= w.cols; j += L)
    finish<T, kBounded>(w, i, j, L, by, y * Vec<A>::loadu(pre + j), finite);
  if (j < w.cols) finish<T, kBounded>(w, i, j, w.cols - j, by, y * Vec<A>::loadu(pre + j), finite);
}

// R rows and C vectors of columns, the last of which may be cut; samples of post are `step` apart,
// those of pre a panel.
template <class T, bool kBounded, int R, int C>
void update_tile(const PlasticWeight& w, int64_t batch, int64_t i, int64_t j, const Acc<T>* post,
                 int64_t step, const Acc<T>* pre, const Acc<T>* keep, Finite<T>& finite) {
  using A = Acc<T>;
  constexpr int L = kLanes<A>;
  const bool more = j + 2 * kPanel<A> <= w.cols;
  Vec<A> sum[R][C];
  tile_sums<false, false>(batch, post, 1, step, pre, kPanel<A>, sum);
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    const Vec<A> by(keep[r]);
    const T* const next = static_cast<const T*>(w.from) + (i + r) * w.from_stride + j + kPanel<A>;
#pragma GCC unroll 4
    for (int v = 0; v < C; ++v) {
      const int64_t count = std::min<int64_t>(L, w.cols - j - v * L);
      if (more) __builtin_prefetch(next + v * L, 1);
      if (count > 0) finish<T, kBounded>(w, i + r, j + v * L, count, by, sum[r][v], finite);
    }
  }
}

template <class T, bool kBounded, int C>
void update_group(const PlasticWeight& w, int64_t batch, int64_t i, int64_t j, const Acc<T>* post,
                  const Acc<T>* pre, const Acc<T>* keep, Finite<T>& finite) {
  int64_t rows = std::min(kTileRows, w.rows - i);
  const auto some = [&](auto count) {
    update_tile<T, kBounded, decltype(count)::value, C>(w, batch, i, j, post, kTileRows, pre,
                                                        keep + i, finite);
    rows -= count, i += count, post += count;
  };
  if (rows == 6) return some(std::integral_constant<int, 6>{});
  if (rows >= 4) some(std::integral_constant<int, 4>{});
  if (rows >= 2) some(std::integral_constant<int, 2>{});
  if (rows >= 1) some(std::integral_constant<int, 1>{});
}

}  // namespace synops::CPU_CAPABILITY
