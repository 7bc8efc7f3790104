// Products with a weight in panels of kPanel columns (common/tile_product.h), which stay in L2
// while the rows of a batch pass over them in groups. Included by .inc files only.
#pragma once

#include <algorithm>

#include "common/tile_product.h"

namespace synops::CPU_CAPABILITY {

// f(columns, a constant: vectors that hold them) for the columns of a panel.
template <class A, class F>
inline void with_vectors(int64_t columns, F&& f) {
  constexpr int L = kLanes<A>;
  if constexpr (kTileVectors == 4) {
    if (columns > 3 * L) return f(std::integral_constant<int, 4>{});
    if (columns > 2 * L) return f(std::integral_constant<int, 3>{});
  }
  if (columns > L) return f(std::integral_constant<int, 2>{});
  f(std::integral_constant<int, 1>{});
}

// How many of `rows` rows the next tile takes. Of the last 8 not 6 and 2, which read a panel twice
// for the work of 4 and 4 (8 rows, 500 columns: 76 GF/s and 82).
inline int64_t tile_rows(int64_t rows) { return rows == 8 ? 4 : std::min(kTileRows, rows); }

// out (panels, depth, kPanel): columns of (depth, n), zeros behind the last.
template <class A>
inline void pack_panels(const A* from, int64_t depth, int64_t n, int64_t begin, int64_t end,
                        A* out) {
  constexpr int64_t W = kPanel<A>, L = kLanes<A>;
  for (int64_t p = begin; p < end; ++p)
    for (int64_t k = 0; k < depth; ++k)
      for (int64_t c = 0; c < W; c += L) {
        const int64_t left = std::clamp<int64_t>(n - p * W - c, 0, L);
        const Vec<A> v = left > 0 ? load<A>(from + k * n + p * W + c, left) : Vec<A>(A(0));
        v.store(out + (p * depth + k) * W + c);
      }
}

// The same of a turned square: out[p][k][c] = from[p * kPanel + c][k].
template <class A>
inline void pack_turned_panels(const A* from, int64_t n, int64_t begin, int64_t end, A* out) {
  constexpr int64_t W = kPanel<A>, L = kLanes<A>;
  for (int64_t p = begin; p < end; ++p)
    for (int64_t c = 0; c < W; c += L)
      for (int64_t k = 0; k < n; k += L) {
        const int64_t wide = std::min(L, n - k);
        Vec<A> v[L];
        for (int64_t i = 0; i < L; ++i) {
          const int64_t row = p * W + c + i;
          v[i] = row < n ? load<A>(from + row * n + k, wide) : Vec<A>(A(0));
        }
        transpose_lanes<A>(v);
        for (int64_t i = 0; i < wide; ++i) v[i].store(out + (p * n + k + i) * W + c);
      }
}

// Zeros where the column of a square is its row.
template <class A>
inline void clear_diagonal(int64_t n, int64_t begin, int64_t end, A* packed) {
  constexpr int64_t W = kPanel<A>;
  for (int64_t p = begin; p < end; ++p)
    for (int64_t k = p * W; k < std::min(n, (p + 1) * W); ++k)
      packed[(p * n + k) * W + k - p * W] = 0;
}

}  // namespace synops::CPU_CAPABILITY
