// Tiles of attention scores: packing, products and masks. Lengths of products are in words
// (common/pairs.h). Included by .inc files only.
#pragma once

#include <cmath>
#include <limits>

#include "common/exponential.h"
#include "common/tile_product.h"
#include "entropy/attention_with_stats.h"

namespace synops::CPU_CAPABILITY {

template <class A>
constexpr A kNever = -std::numeric_limits<A>::infinity();

// Rows as left operands: out[i * ld + k] = word k of row i, zeros from size to ld, a multiple of
// the lanes.
template <bool kPairs, class T, class A = Acc<T>>
inline void copy_rows(const T* rows, int64_t row, int64_t size, int64_t count, A* out, int64_t ld) {
  for (int64_t i = 0; i < count; ++i)
    for (int64_t k = 0; k < ld; k += kLanes<A>)
      load_words<A, kPairs>(rows + i * row, k, size).store(out + i * ld + k);
}

// Rows as right operands: the numbers of a row side by side, or the words of two rows, the last one
// with zeros.
template <bool kPairs, class T, class A = Acc<T>>
inline void stack_rows(const T* rows, int64_t row, int64_t size, int64_t count, A* out,
                       int64_t ld) {
  if constexpr (kPairs) {
    for (int64_t i = 0; i < count; i += 2)
      pair_rows(rows + i * row, i + 1 < count ? rows + (i + 1) * row : nullptr, size,
                out + i / 2 * ld, ld);
  } else {
    copy_rows<false>(rows, row, size, count, out, ld);
  }
}

// Keys [j0, j1) turned, panel by panel; zeros behind the last.
template <bool kPairs, class T, class A = Acc<T>>
void turn_panels(const T* rows, int64_t ld, int64_t size, int64_t j0, int64_t j1, A* panels) {
  constexpr int L = kLanes<A>;
  const int64_t n = words_of<kPairs>(size);
  for (int64_t j = j0; j < pad_to(j1, kPadKeys); j += L) {
    A* out = panels + j / kPanel<A> * kPanel<A> * n + j % kPanel<A>;
    for (int64_t k = 0; k < n; k += L) {
      Vec<A> v[L];
      for (int i = 0; i < L; ++i)
        v[i] = j + i < j1 ? load_words<A, kPairs>(rows + (j + i) * ld, k, size) : Vec<A>(A(0));
      transpose_lanes<A>(v);
      for (int64_t i = 0; i < std::min<int64_t>(L, n - k); ++i)
        v[i].store(out + (k + i) * kPanel<A>);
    }
  }
}

// scores[r * ld + c] = scale q[r] . key c for `columns`, whole panels, relative to the first key of
// `panels`; n words.
template <bool kPairs, class A>
inline void score_panels(int64_t rows, const A* q, int64_t ldq, int64_t n, const A* panels,
                         Range columns, A scale, A* scores, int64_t ld) {
  for (int64_t c = columns.begin; c < columns.end; c += kPanel<A>)
    group_product<kPairs, false, kTileVectors>(rows, n, q, ldq, 1, panels + c * n, kPanel<A>,
                                               scores + c, ld, scale);
}

// The panels of [first_key, ...) that hold keys of `keys`, relative to first_key.
template <class A>
inline Range panels_of(Range keys, int64_t first_key) {
  const int64_t begin = std::clamp<int64_t>(keys.begin - first_key, 0, kBlockKeys);
  const int64_t end = std::clamp<int64_t>(keys.end - first_key, 0, kBlockKeys);
  if (begin >= end) return {0, 0};
  return {begin / kPanel<A> * kPanel<A>, pad_to(end, kPanel<A>)};
}

template <class A, class M>
inline void add_mask(const M* mask, int64_t stride, int64_t count, A* scores) {
  if (stride == 1) {
    for (int64_t j = 0; j < count; ++j) scores[j] += static_cast<A>(mask[j]);
  } else {
    for (int64_t j = 0; j < count; ++j) scores[j] += static_cast<A>(mask[j * stride]);
  }
}

// -inf where row i must not look, what the mask adds elsewhere; scores of `columns` from first_key.
template <class A>
inline void mask_row(const Attention& a, int64_t b, int64_t h, int64_t i, int64_t first_key,
                     Range columns, A* scores) {
  const Range keys = a.keys_of(i);
  const int64_t begin = std::clamp(keys.begin - first_key, columns.begin, columns.end);
  const int64_t end = std::clamp(keys.end - first_key, begin, columns.end);
  std::fill(scores + columns.begin, scores + begin, kNever<A>);
  std::fill(scores + end, scores + columns.end, kNever<A>);
  const AttentionMask& m = a.mask;
  if (m.data == nullptr || begin == end) return;
  const int64_t at = b * m.batch + h * m.head + i * m.row + (first_key + begin) * m.key;
  if (!m.boolean) {
    visit_dtype(m.dtype, [&](auto t) {
      const auto* mask = static_cast<const decltype(t)*>(m.data) + at;
      add_mask(mask, m.key, end - begin, scores + begin);
    });
    return;
  }
  const uint8_t* keep = static_cast<const uint8_t*>(m.data) + at;
  A* s = scores + begin;
  if (m.key == 1) {
    for (int64_t j = 0; j < end - begin; ++j) s[j] = keep[j] != 0 ? s[j] : kNever<A>;
  } else {
    for (int64_t j = 0; j < end - begin; ++j) s[j] = keep[j * m.key] != 0 ? s[j] : kNever<A>;
  }
}

template <class A>
inline A sum_of(const Vec<A>& v) {
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<A, float>) return _mm512_reduce_add_ps(v);
#endif
  A lanes[kLanes<A>];
  v.store(lanes);
  for (int width = kLanes<A> / 2; width > 0; width /= 2)
    for (int k = 0; k < width; ++k) lanes[k] += lanes[k + width];
  return lanes[0];
}

// NaN, or not, where one lane is: the sums show it anyway.
template <class A>
inline A largest_of(const Vec<A>& v) {
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<A, float>) return _mm512_reduce_max_ps(v);
#endif
  A lanes[kLanes<A>];
  v.store(lanes);
  for (int width = kLanes<A> / 2; width > 0; width /= 2)
    for (int k = 0; k < width; ++k) lanes[k] = std::max(lanes[k], lanes[k + width]);
  return lanes[0];
}

}  // namespace synops::CPU_CAPABILITY
