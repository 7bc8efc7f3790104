// Products of a few rows with a panel of columns, sums in registers: what a head is made of.
// Included by .inc files only.
//
// One operand comes in panels of kWidth columns, a vector load each, the other in groups of kRows
// rows, an element broadcast to a vector. A sum is one chain of multiply-adds over the depth, so it
// has the same bits whichever group or panel it is in. One Zen 4 core makes 100 of its 115 GF/s.
//
// bfloat16 with AVX512_BF16 is multiplied in pairs: a word is two neighbours of a row, and packing
// moves words of 32 bits without looking at them.
//
// In a namespace of its own: other kernel files have a kWidth, too, and sanitize/run.sh compiles
// all in one.
#pragma once

#include <algorithm>

#include "common/pairs.h"
#include "entropy/linear_token_stats.h"

namespace synops::CPU_CAPABILITY::head {

// Sums and operands fit the registers: 28 of 32, or 12 of 16 (and there, vectors of the portable
// set are two registers each).
#if defined(CPU_CAPABILITY_AVX512)
constexpr int kRows = 14, kColumns = 2;
#elif defined(CPU_CAPABILITY_AVX2)
constexpr int kRows = 6, kColumns = 2;
#else
constexpr int kRows = 6, kColumns = 1;
#endif
template <class A>
constexpr int kWidth = kColumns * kLanes<A>;
// Vectors that a group of rows takes while it is turned.
template <class A>
constexpr int kGroupVectors = (kRows + kLanes<A> - 1) / kLanes<A>;

// f with the number of vectors that `tokens` fill.
template <class A, class F>
inline void for_vectors(int64_t tokens, F&& f) {
  if (kColumns == 1 || tokens > kLanes<A>)
    f(std::integral_constant<int, kColumns>{});
  else
    f(std::integral_constant<int, 1>{});
}

template <class A, int C>
inline void clear(Vec<A> (&sum)[kRows][C]) {
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int c = 0; c < C; ++c) sum[r][c] = Vec<A>(A(0));
}

// f(const T* data) for some rows.
template <class F>
void visit_rows(const HeadRows& rows, F&& f) {
  visit_dtype(rows.dtype, [&](auto t) { f(static_cast<const decltype(t)*>(rows.data)); });
}

// out[i / S][k][i % S] = word k of row i, for `count` rows and zeros up to a multiple of S.
// Vectors are stored whole, kVectors for each k: what they write too much is overwritten next, but
// for a vector behind the last.
template <class A, int S, int kVectors, bool kPairs, class T>
void pack_rows(const T* rows, int64_t ld, int64_t count, int64_t depth, A* out) {
  constexpr int L = kLanes<A>, kElements = kWord<kPairs>;
  for (int64_t first = 0; first < count; first += S, out += depth * S) {
    const T* row = rows + first * ld;
    int64_t k = 0;
    if (first + S <= count)
      for (; k + L <= depth; k += L) {
        Vec<A> v[kVectors][L];
#pragma GCC unroll 2
        for (int b = 0; b < kVectors; ++b) {
#pragma GCC unroll 16
          for (int i = 0; i < L; ++i) {
            const T* at = row + (b * L + i) * ld;
            if (b * L + i < S) {
              // more streams than the hardware prefetcher follows
              __builtin_prefetch(at + (k + 8 * L) * kElements);
              v[b][i] = load_words<A, kPairs>(at, k, kElements * (k + L));
            } else {
              v[b][i] = Vec<A>(A(0));
            }
          }
          transpose_lanes<A>(v[b]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i)
#pragma GCC unroll 2
          for (int b = 0; b < kVectors; ++b) v[b][i].store(out + (k + i) * S + b * L);
      }
    for (; k < depth; k += L) {
      const int64_t words = std::min<int64_t>(L, depth - k);
      Vec<A> v[kVectors][L];
      for (int b = 0; b < kVectors; ++b) {
        for (int i = 0; i < L; ++i) {
          const int64_t at = b * L + i;
          v[b][i] = at < S && first + at < count
                        ? load_words<A, kPairs>(row + at * ld, k, kElements * depth)
                        : Vec<A>(A(0));
        }
        transpose_lanes<A>(v[b]);
      }
      for (int64_t i = 0; i < words; ++i)
        for (int b = 0; b < kVectors; ++b) v[b][i].store(out + (k + i) * S + b * L);
    }
  }
}

// out[i / S][k][i % S] = element i of row k, or of rows 2k and 2k + 1 in a word, for `count`
// elements and zeros up to a multiple of S, of `rows` rows; vectors as above.
template <class A, int S, int kVectors, bool kPairs, class T>
void pack_columns(const T* data, int64_t ld, int64_t count, int64_t rows, A* out) {
  constexpr int L = kLanes<A>;
  const int64_t depth = words_of<kPairs>(rows);
  for (int64_t first = 0; first < count; first += S, out += depth * S)
    for (int64_t k = 0; k < depth; ++k) {
      const T* row = data + k * kWord<kPairs> * ld + first;
      const T* second = kWord<kPairs> * k + 1 < rows ? row + ld : nullptr;
      for (int b = 0; b < kVectors; ++b) {
        const int64_t words = std::clamp<int64_t>(count - first - b * L, 0, L);
        load_rows<A, kPairs>(row + b * L, second == nullptr ? nullptr : second + b * L, words)
            .store(out + k * S + b * L);
      }
    }
}

// What to fetch into L2 while something else is multiplied: a line each step of the depth.
struct Ahead {
  const char* line = nullptr;
  int64_t step = 0;
};

// sum[r][c] += sum_k rows[k * KS + r * RS] * panel[k * kWidth + lanes of vector c]; words of pairs
// are two multiply-adds a lane.
template <bool kPairs, int KS, int RS, class A, int C>
inline void multiply(const A* rows, const A* panel, int64_t depth, Vec<A> (&sum)[kRows][C],
                     Ahead ahead = {}) {
  for (int64_t k = 0; k < depth; ++k, rows += KS, panel += kWidth<A>, ahead.line += ahead.step) {
    __builtin_prefetch(ahead.line, 0, 2);
    Vec<A> v[C];
#pragma GCC unroll 2
    for (int c = 0; c < C; ++c) v[c] = Vec<A>::loadu(panel + c * kLanes<A>);
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
      const Vec<A> b(rows[r * RS]);
#pragma GCC unroll 2
      for (int c = 0; c < C; ++c) sum[r][c] = multiply_add<kPairs>(b, v[c], sum[r][c]);
    }
  }
}

}  // namespace synops::CPU_CAPABILITY::head
