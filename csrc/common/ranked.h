// Scores as they are ranked: a NaN below all numbers. Included by .inc files only.
#pragma once

#include <limits>

#include "common/vec.h"

namespace synops::CPU_CAPABILITY {

// |v| or v; a NaN is -inf.
template <class A>
inline Vec<A> ranked(const Vec<A>& v, bool absolute) {
  const Vec<A> size = absolute ? v.abs() : v;
  return Vec<A>::blendv(size, Vec<A>(-std::numeric_limits<A>::infinity()), size.isnan());
}

// Bit j: whether lane j of v is at least `least`, which no NaN is.
template <class A>
inline uint32_t at_least(const Vec<A>& v, A least) {
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<A, float>)
    return _mm512_cmp_ps_mask(v, _mm512_set1_ps(least), _CMP_GE_OQ);
  else
    return _mm512_cmp_pd_mask(v, _mm512_set1_pd(least), _CMP_GE_OQ);
#elif defined(CPU_CAPABILITY_AVX2)
  if constexpr (std::is_same_v<A, float>)
    return _mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_set1_ps(least), _CMP_GE_OQ));
  else
    return _mm256_movemask_pd(_mm256_cmp_pd(v, _mm256_set1_pd(least), _CMP_GE_OQ));
#else
  A lanes[kLanes<A>];
  v.store(lanes);
  uint32_t bits = 0;
  for (int j = 0; j < kLanes<A>; ++j) bits |= static_cast<uint32_t>(lanes[j] >= least) << j;
  return bits;
#endif
}

}  // namespace synops::CPU_CAPABILITY
