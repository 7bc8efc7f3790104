// Products of small blocks whose sums stay in registers. Lengths of products are in words
// (pairs.h). Included by .inc files only.
#pragma once

#include "common/pairs.h"

namespace synops::CPU_CAPABILITY {

// Of the sums that a product keeps in registers: 6 x 4 vectors of 32 registers (AVX-512), 6 x 2 of
// 16. 24 multiply-adds to 10 loads, so that operands may lie in the L2.
#if defined(CPU_CAPABILITY_AVX512)
constexpr int kTileVectors = 4;
#else
constexpr int kTileVectors = 2;
#endif
template <class A>
constexpr int64_t kPanel = kTileVectors * kLanes<A>;  // columns of a right operand
constexpr int64_t kTileRows = 6;                      // rows of a left one

// sum[r][v] += a b, from 0 unless kAdd, where it begins with what it holds: n words; a[r, k] at
// r * row + k * step, rows of b ldb apart.
template <bool kPairs, bool kAdd, int R, int C, class A, class B>
inline void tile_sums(int64_t n, const A* a, int64_t row, int64_t step, const B* b, int64_t ldb,
                      Vec<A> (&sum)[R][C]) {
  constexpr int L = kLanes<A>;
  if constexpr (!kAdd)
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < C; ++v) sum[r][v] = Vec<A>(A(0));
  for (int64_t k = 0; k < n; ++k) {
    Vec<A> right[C];
#pragma GCC unroll 4
    for (int v = 0; v < C; ++v) right[v] = load<A>(b + k * ldb + v * L);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const Vec<A> left(a[r * row + k * step]);
#pragma GCC unroll 4
      for (int v = 0; v < C; ++v) sum[r][v] = multiply_add<kPairs>(left, right[v], sum[r][v]);
    }
  }
}

// c (R x C vectors) += a b, or, without kAdd, c = scale a b; rows of c ldc apart.
template <bool kPairs, bool kAdd, int R, int C, class A, class B>
inline void tile_product(int64_t n, const A* a, int64_t row, int64_t step, const B* b, int64_t ldb,
                         A* c, int64_t ldc, A scale) {
  constexpr int L = kLanes<A>;
  Vec<A> sum[R][C];
  if constexpr (kAdd)
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < C; ++v) sum[r][v] = Vec<A>::loadu(c + r * ldc + v * L);
  tile_sums<kPairs, kAdd>(n, a, row, step, b, ldb, sum);
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < C; ++v)
      (kAdd ? sum[r][v] : sum[r][v] * Vec<A>(scale)).store(c + r * ldc + v * L);
}

// The same for C vectors and at most kTileRows rows.
template <bool kPairs, bool kAdd, int C, class A, class B>
inline void group_product(int64_t rows, int64_t n, const A* a, int64_t row, int64_t step,
                          const B* b, int64_t ldb, A* c, int64_t ldc, A scale) {
  const auto some = [&](auto count) {
    tile_product<kPairs, kAdd, decltype(count)::value, C>(n, a, row, step, b, ldb, c, ldc, scale);
    rows -= count, a += count * row, c += count * ldc;
  };
  if (rows == 6) return some(std::integral_constant<int, 6>{});
  if (rows >= 4) some(std::integral_constant<int, 4>{});
  if (rows >= 2) some(std::integral_constant<int, 2>{});
  if (rows >= 1) some(std::integral_constant<int, 1>{});
}

// c += a b for `size` columns, which are rounded up to vectors.
template <bool kPairs, class A, class B>
inline void wide_product(int64_t rows, int64_t size, int64_t n, const A* a, int64_t row,
                         int64_t step, const B* b, int64_t ldb, A* c, int64_t ldc) {
  constexpr int L = kLanes<A>;
  int64_t at = 0;
  const auto some = [&](auto vectors) {
    group_product<kPairs, true, decltype(vectors)::value>(rows, n, a, row, step, b + at, ldb,
                                                          c + at, ldc, A(1));
    at += vectors * L;
  };
  while (at + (kTileVectors - 1) * L < size) some(std::integral_constant<int, kTileVectors>{});
  if constexpr (kTileVectors == 4)
    while (at + L < size) some(std::integral_constant<int, 2>{});
  while (at < size) some(std::integral_constant<int, 1>{});
}

}  // namespace synops::CPU_CAPABILITY
