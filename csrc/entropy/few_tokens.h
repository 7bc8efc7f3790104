// Logits of few tokens: rows of the weight are turned in registers and multiplied there.
// Included by .inc files only.
//
// A block of kLanes rows by kLanes words is read once, and a token takes a multiply-add for each
// word of a vector: 64 shuffles for 256 words, which a Zen 4 core does faster than memory gives it
// the words. Packing a tile for tokens that fill no vector takes stores, broadcasts and idle lanes
// on top: 48 ms in place of 25 for one token (151936 x 896, float32). Sums are the chains of
// panel_product.h, so a token has the same bits in a batch of any size.
#pragma once

#include "entropy/panel_product.h"

namespace synops::CPU_CAPABILITY::head {

struct MultiplyAdd {
  template <class A>
  Vec<A> operator()(A word, const Vec<A>& row, const Vec<A>& sum) const {
    return at::vec::fmadd(Vec<A>(word), row, sum);
  }
};

// sums[t] += words [k, k + words) of kLanes rows, turned, times those of token t. The rows behind
// these are fetched into L2, each `ahead` elements on: a few lines ahead, or all in the order of
// memory, or two blocks beside each other take a fifth longer or more.
template <class A, bool kPairs, class T, class M>
__attribute__((always_inline)) inline void add_block(const T* const* rows, int64_t ahead, int64_t k,
                                                     int64_t words, const HeadPanels& hidden,
                                                     M multiply_add, A (*sums)[kLanes<A>]) {
  constexpr int L = kLanes<A>;
  Vec<A> v[L];
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) {
    __builtin_prefetch(rows[i] + ahead + (kPairs ? 2 * k : k), 0, 2);
    v[i] = load_words<A, kPairs>(rows[i], k, words);
  }
  transpose_lanes<A>(v);
  const A* word = static_cast<const A*>(hidden.data) + k;
  for (int64_t t = 0; t < hidden.tokens; ++t, word += hidden.depth) {
    Vec<A> sum = Vec<A>::loadu(sums[t]);
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i)
      if (i < words) sum = multiply_add(word[i], v[i], sum);
    sum.store(sums[t]);
  }
}

// logits[row][token] of at most kLanes tokens; nothing is packed, see HeadTile and HeadPanels.
template <class A, bool kPairs, class T, class M>
__attribute__((always_inline)) inline void turn_and_multiply(const HeadTile& tile,
                                                             const HeadPanels& hidden, A* logits,
                                                             M multiply_add) {
  constexpr int L = kLanes<A>;
  const int64_t depth = hidden.depth, ld = tile.row_bytes / static_cast<int64_t>(sizeof(T));
  for (int64_t first = 0; first < tile.rows; first += L) {
    const T* rows[L];  // lanes without a row repeat the last one
    for (int i = 0; i < L; ++i)
      rows[i] = static_cast<const T*>(tile.data) + std::min(first + i, tile.rows - 1) * ld;
    alignas(64) A sums[L][L] = {};
    int64_t k = 0;
    for (; k + L <= depth; k += L)
      add_block<A, kPairs>(rows, L * ld, k, L, hidden, multiply_add, sums);
    if (k < depth) add_block<A, kPairs>(rows, L * ld, k, depth - k, hidden, multiply_add, sums);
    Vec<A> v[L];
    for (int t = 0; t < L; ++t) v[t] = Vec<A>::loadu(sums[t]);
    transpose_lanes<A>(v);
    const A* bias = static_cast<const A*>(tile.bias) + first;
    for (int64_t i = 0; i < std::min<int64_t>(L, tile.rows - first); ++i)
      (v[i] + Vec<A>(bias[i])).store(logits + (first + i) * kWidth<A>);
  }
}

#if defined(CPU_CAPABILITY_AVX512)
struct PairMultiplyAdd {
  __attribute__((target("avx512bf16"))) Vec<float> operator()(float word, const Vec<float>& row,
                                                              const Vec<float>& sum) const {
    return _mm512_dpbf16_ps(sum, (__m512bh)(__m512)row, (__m512bh)_mm512_set1_ps(word));
  }
};

// The bodies above are compiled into this one, where the instruction may be.
__attribute__((target("avx512bf16"))) inline void turn_and_multiply_pairs(const HeadTile& tile,
                                                                          const HeadPanels& hidden,
                                                                          float* logits) {
  turn_and_multiply<float, true, c10::BFloat16>(tile, hidden, logits, PairMultiplyAdd());
}
#endif

template <class A>
void logits_of_few(DType dtype, bool pairs, const HeadTile& tile, const HeadPanels& hidden,
                   A* logits) {
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<A, float>)
    if (pairs) return turn_and_multiply_pairs(tile, hidden, logits);
#endif
  visit_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    if constexpr (std::is_same_v<Acc<T>, A>)
      turn_and_multiply<A, false, T>(tile, hidden, logits, MultiplyAdd());
  });
}

}  // namespace synops::CPU_CAPABILITY::head
