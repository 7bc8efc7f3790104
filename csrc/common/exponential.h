// Powers of two of numbers that are at most 0: what a softmax centred at its maximum is made of.
// Included by .inc files only.
//
// Kernels work in units of log2: y = (x - max) * log2(e), so that the power takes no reduction by
// ln 2 and moments are multiplied by kLn2 once, at the end.
#pragma once

#include "common/vec.h"

namespace synops::CPU_CAPABILITY {

constexpr double kLn2 = 0.693147180559945309417;
constexpr double kLog2E = 1.442695040888963407359;

// 2^y for y <= 0 (or NaN, which stays), and y raised to where the power is exactly 0: so that
// neither 2^y * y nor any power of y times it is NaN where y was -inf. 2^0 is exactly 1. Below
// -126 the power may be 0 already. Relative error at most 1.5e-7 in float32: a minimax polynomial
// of degree 5 (9e-8) and its rounding.
template <class A>
inline Vec<A> exp2_at_most_1(Vec<A>& y) {
  if constexpr (std::is_same_v<A, double>) {
    y = at::vec::clamp_min(y, Vec<A>(-1100.0));
    return y.exp2();
  } else {
#if defined(CPU_CAPABILITY_AVX512)
    y = _mm512_max_ps(_mm512_set1_ps(-150.f), y);  // of two, the second where one is NaN
    const Vec<A> whole = _mm512_roundscale_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    y = at::vec::clamp_min(y, Vec<A>(-127.f));
    const Vec<A> whole = y.round();
#endif
    const Vec<A> f = y - whole;
    Vec<A> p = at::vec::fmadd(Vec<A>(1.326472877e-3f), f, Vec<A>(9.671513183e-3f));
    p = at::vec::fmadd(p, f, Vec<A>(5.550733744e-2f));
    p = at::vec::fmadd(p, f, Vec<A>(2.402224208e-1f));
    p = at::vec::fmadd(p, f, Vec<A>(6.931469776e-1f));
    p = at::vec::fmadd(p, f, Vec<A>(1.f));
#if defined(CPU_CAPABILITY_AVX512)
    return _mm512_scalef_ps(p, whole);
#else
    // The exponent's bits; -127 makes them those of 0.
    const auto bits = at::vec::convert_to_int_of_same_size<float>(whole);
    const at::vec::Vectorized<int32_t> shift(23);
    return p * at::vec::cast<float>((bits + at::vec::Vectorized<int32_t>(127)) << shift) + (y - y);
#endif
  }
}

}  // namespace synops::CPU_CAPABILITY
