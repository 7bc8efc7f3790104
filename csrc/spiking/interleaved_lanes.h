// A group of rows of an interleaved weight times the vector. Included by .inc files only.
//
// A sum is made of two, of the even and the odd entries: a chain of multiply-adds has latency 4.
#pragma once

#include "common/look_up.h"
#include "common/vec.h"
#include "spiking/interleaved.h"

namespace synops::CPU_CAPABILITY {

// Weights that are read.
template <class A>
struct Fixed {
  const A* values;
  A one(int64_t at, int64_t) const { return values[at]; }
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
  __m128 four(int64_t at, int64_t) const { return _mm_loadu_ps(values + at); }
#endif
};

// Weights that are moved by a number a row, down to 0 at most, before they are read; NaN stays.
template <class A>
struct Moving {
  A* values;
  const A* by;  // (kGroup,)
  A one(int64_t at, int64_t i) const {
    const A w = values[at] + by[i];
    return values[at] = w < A(0) ? A(0) : w;
  }
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
  __m128 four(int64_t at, int64_t i) const {
    const __m128 moved = _mm_add_ps(_mm_loadu_ps(values + at), _mm_loadu_ps(by + i));
    const __m128 w = _mm_max_ps(_mm_setzero_ps(), moved);  // of two, the second where one is NaN
    _mm_storeu_ps(values + at, w);
    return w;
  }
#endif
};

// sum[i] += the products of row i of a group of kGroup.
template <class A, class I, class W>
inline void group_dot(int64_t begin, int64_t end, const I* index, const W& weight, const A* z,
                      A* sum) {
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
  if constexpr (std::is_same_v<A, float>) {
    // .25 ns an entry: 4 elements of z are loaded one by one, .65 cycles each; the gather
    // instructions take 1.9 (Zen 4), scalar multiply-adds 1.2.
    __m128 even[2] = {_mm_loadu_ps(sum), _mm_loadu_ps(sum + 4)}, odd[2] = {};
    const auto add = [&](int64_t e, __m128* to) {
      const int64_t at = e * kGroup;
      to[0] = _mm_fmadd_ps(look_up(z, index + at), weight.four(at, 0), to[0]);
      to[1] = _mm_fmadd_ps(look_up(z, index + at + 4), weight.four(at + 4, 4), to[1]);
    };
    int64_t e = begin;
    for (; e + 2 <= end; e += 2) {
      add(e, even);
      add(e + 1, odd);
    }
    if (e < end) add(e, even);
    _mm_storeu_ps(sum, _mm_add_ps(even[0], odd[0]));
    _mm_storeu_ps(sum + 4, _mm_add_ps(even[1], odd[1]));
    return;
  }
#endif
  A even[kGroup], odd[kGroup] = {};
  std::copy_n(sum, kGroup, even);
  const auto add = [&](int64_t e, A* to) {
    for (int64_t i = 0; i < kGroup; ++i) {
      const int64_t at = e * kGroup + i;
      to[i] += weight.one(at, i) * z[index[at]];
    }
  };
  int64_t e = begin;
  for (; e + 2 <= end; e += 2) {
    add(e, even);
    add(e + 1, odd);
  }
  if (e < end) add(e, even);
  for (int64_t i = 0; i < kGroup; ++i) sum[i] = even[i] + odd[i];
}

// The same of a group of kShared rows with equal columns: an element of z for all of them.
template <class A, class I>
inline void shared_dot(int64_t begin, int64_t end, const I* index, const A* values, const A* z,
                       A* sum) {
  constexpr int L = kLanes<A>, V = kShared / L;
  Vec<A> even[V], odd[V];
#pragma GCC unroll 8
  for (int q = 0; q < V; ++q) even[q] = Vec<A>::loadu(sum + q * L), odd[q] = Vec<A>(A(0));
  const auto add = [&](int64_t e, Vec<A>* to) {
    const Vec<A> x(z[index[e]]);
#pragma GCC unroll 8
    for (int q = 0; q < V; ++q)
      to[q] = at::vec::fmadd(Vec<A>::loadu(values + e * kShared + q * L), x, to[q]);
  };
  int64_t e = begin;
  for (; e + 2 <= end; e += 2) {
    add(e, even);
    add(e + 1, odd);
  }
  if (e < end) add(e, even);
#pragma GCC unroll 8
  for (int q = 0; q < V; ++q) (even[q] + odd[q]).store(sum + q * L);
}

// f with a value of the type of the indices.
template <class F>
auto visit_index(const Interleaved& w, F&& f) {
  return w.wide ? f(int32_t{}) : f(uint16_t{});
}

}  // namespace synops::CPU_CAPABILITY
