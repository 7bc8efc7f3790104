// Elements of an array by their indices, four at a time. Included by .inc files only.
#pragma once

#include <cstring>

#include "common/vec.h"

namespace synops::CPU_CAPABILITY {

#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
// x[index[0 .. 4)], by two loads of indices and four of x.
inline __m128 look_up(const float* x, const uint16_t* index) {
  uint64_t i;
  std::memcpy(&i, index, 8);
  __m128 v = _mm_load_ss(x + (i & 0xffff));
  v = _mm_insert_ps(v, _mm_load_ss(x + ((i >> 16) & 0xffff)), 0x10);
  v = _mm_insert_ps(v, _mm_load_ss(x + ((i >> 32) & 0xffff)), 0x20);
  return _mm_insert_ps(v, _mm_load_ss(x + (i >> 48)), 0x30);
}

inline __m128 look_up(const float* x, const int32_t* index) {
  uint64_t i[2];
  std::memcpy(i, index, 16);
  __m128 v = _mm_load_ss(x + (i[0] & 0xffffffff));
  v = _mm_insert_ps(v, _mm_load_ss(x + (i[0] >> 32)), 0x10);
  v = _mm_insert_ps(v, _mm_load_ss(x + (i[1] & 0xffffffff)), 0x20);
  return _mm_insert_ps(v, _mm_load_ss(x + (i[1] >> 32)), 0x30);
}
#endif

// x[index[0 .. count)], and 0 in the lanes behind.
template <class A>
inline Vec<A> gathered(const A* x, const int32_t* index, int64_t count) {
  constexpr int L = kLanes<A>;
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<A, float>)
    if (count == L) {
      const __m256 low = _mm256_set_m128(look_up(x, index + 4), look_up(x, index));
      const __m256 high = _mm256_set_m128(look_up(x, index + 12), look_up(x, index + 8));
      return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
    }
#elif defined(CPU_CAPABILITY_AVX2)
  if constexpr (std::is_same_v<A, float>)
    if (count == L) return _mm256_set_m128(look_up(x, index + 4), look_up(x, index));
#endif
  A lanes[L] = {};
  for (int64_t l = 0; l < count; ++l) lanes[l] = x[index[l]];
  return Vec<A>::loadu(lanes);
}

}  // namespace synops::CPU_CAPABILITY
