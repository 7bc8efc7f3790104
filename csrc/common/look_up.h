// Elements of an array by their indices, four to a vector. Included by .inc files only.
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

}  // namespace synops::CPU_CAPABILITY
