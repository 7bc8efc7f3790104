// What stands for the derivative of a spike, a vector of neurons at a time. Included by .inc files
// only. Formulas and sources: python/synops/spiking/_lif.py
#pragma once

#include "common/exponential.h"
#include "spiking/lif.h"

namespace synops::CPU_CAPABILITY {

// The kinds that compute something else; the others differ by a factor.
enum class Curve { kFastSigmoid, kAtan, kSigmoid, kBoxcar, kTriangle };

template <class A, Curve C>
class SurrogateCurve {
 public:
  explicit SurrogateCurve(double slope, double height)
      : slope_(static_cast<A>(of(slope))), height_(static_cast<A>(height)) {}

  // At d = membrane - threshold.
  Vec<A> operator()(const Vec<A>& d) const {
    const Vec<A> one(A(1));
    if constexpr (C == Curve::kFastSigmoid) {
      const Vec<A> a = at::vec::fmadd(d.abs(), slope_, one);
      return one / (a * a);
    } else if constexpr (C == Curve::kAtan) {
      const Vec<A> z = d * slope_;
      return height_ / at::vec::fmadd(z, z, one);
    } else if constexpr (C == Curve::kSigmoid) {
      Vec<A> y = d.abs() * slope_;
      const Vec<A> e = exp2_at_most_1(y), a = one + e;
      return height_ * e / (a * a);
    } else if constexpr (C == Curve::kBoxcar) {
      return (d.abs() < slope_) & height_;
    } else {
      return height_ * at::vec::clamp_min(one - d.abs() * slope_, Vec<A>(A(0)));
    }
  }

 private:
  // The number that multiplies d, or that |d| is compared with.
  static double of(double slope) {
    if (C == Curve::kAtan) return slope * 1.57079632679489661923;
    if (C == Curve::kSigmoid) return -slope * kLog2E;
    return C == Curve::kBoxcar ? 0.5 / slope : slope;
  }

  Vec<A> slope_, height_;
};

// Calls f with the curve.
template <class A, class F>
void visit_surrogate(Surrogate surrogate, double slope, F&& f) {
  switch (surrogate) {
    case Surrogate::kAtan:
      return f(SurrogateCurve<A, Curve::kAtan>(slope, slope / 2));
    case Surrogate::kSigmoid:
      return f(SurrogateCurve<A, Curve::kSigmoid>(slope, slope));
    case Surrogate::kBoxcar:
      return f(SurrogateCurve<A, Curve::kBoxcar>(slope, slope));
    case Surrogate::kTriangle:
      return f(SurrogateCurve<A, Curve::kTriangle>(slope, 1));
    case Surrogate::kQuadraticGate:
      return f(SurrogateCurve<A, Curve::kTriangle>(slope, slope));
    default:
      return f(SurrogateCurve<A, Curve::kFastSigmoid>(slope, 1));
  }
}

}  // namespace synops::CPU_CAPABILITY
