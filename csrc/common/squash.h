// What squashes a sum into a rate: tanh and the logistic function, a vector at a time. Included by
// .inc files only.
#pragma once

#include "common/exponential.h"
#include "common/vec.h"

namespace synops::CPU_CAPABILITY {

// tanh(x); NaN stays. float32: x P(x^2) / Q(x^2), both of degree 4 with positive coefficients, so
// that nothing cancels: minimax of the relative error on [0, 9.011], 2.1e-8, and 3 ulps with the
// rounding. 12 instructions and a division; Sleef's tanh within 1 ulp takes three times as long.
template <class A>
inline Vec<A> tanh_of(const Vec<A>& v) {
  if constexpr (std::is_same_v<A, double>) {
    return v.tanh();
  } else {
    const Vec<A> end(9.011f), one(1.f);  // there tanh is 1 - 3e-8
    const Vec<A> x = at::vec::clamp(v, end.neg(), end), y = x * x;
    Vec<A> p = at::vec::fmadd(Vec<A>(1.33351587e-08f), y, Vec<A>(2.05950647e-05f));
    Vec<A> q = at::vec::fmadd(Vec<A>(7.76859467e-07f), y, Vec<A>(3.28424339e-04f));
    p = at::vec::fmadd(p, y, Vec<A>(3.49473791e-03f));
    q = at::vec::fmadd(q, y, Vec<A>(2.58737488e-02f));
    p = at::vec::fmadd(p, y, Vec<A>(1.33803101e-01f));
    q = at::vec::fmadd(q, y, Vec<A>(4.67136255e-01f));
    p = at::vec::fmadd(p, y, one);
    q = at::vec::fmadd(q, y, one);
    return at::vec::clamp(x * p / q, one.neg(), one);
  }
}

// 1 / (1 + exp(-x)); NaN stays. float32: relative error below 3e-7 + |x| 6e-8, also where it is
// small.
template <class A>
inline Vec<A> logistic_of(const Vec<A>& x) {
  const Vec<A> one(A(1)), zero(A(0));
  if constexpr (std::is_same_v<A, double>) {
    return one / (one + x.neg().exp());
  } else {
    Vec<A> y = x.abs().neg() * Vec<A>(static_cast<float>(kLog2E));
    const Vec<A> e = exp2_at_most_1<A>(y);
    return Vec<A>::blendv(one, e, x < zero) / (one + e);
  }
}

}  // namespace synops::CPU_CAPABILITY
