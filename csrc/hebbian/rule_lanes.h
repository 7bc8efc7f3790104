// The factors of hebb, oja and bcm, a unit at a time (local_rule.h has the formulas). Included by
// .inc files only.
#pragma once

#include <cmath>

#include "common/vec.h"
#include "hebbian/local_rule.h"

namespace synops::CPU_CAPABILITY {

// y: activities of `count` <= N units from i on, those of a sample `stride` apart; post, `step`
// apart, may be y. Whether they are finite.
template <int N, class A>
inline bool rule_factors(const RuleFactors& r, int64_t batch, int64_t i, int64_t count, const A* y,
                         int64_t stride, A* post, int64_t step, A* keep) {
  const A *rate = static_cast<const A*>(r.rate) + i, *gain = static_cast<const A*>(r.gain);
  const A *modulator = static_cast<const A*>(r.modulator), *theta = static_cast<const A*>(r.theta);
  A by[N] = {}, scale[N] = {}, level[N] = {}, square[N] = {}, away[N] = {}, zero[N] = {};
  for (int64_t n = 0; n < count; ++n) {
    by[n] = rate[n];
    scale[n] = gain == nullptr ? A(1) : gain[i + n];
    level[n] = theta == nullptr ? A(0) : theta[i + n];
  }
  for (int64_t b = 0; b < batch; ++b, y += stride, post += step) {
    const A m = modulator == nullptr ? A(1) : modulator[b];
    for (int64_t n = 0; n < count; ++n) {
      zero[n] += y[n] * A(0);  // NaN once one is not finite
      const A v = y[n] * scale[n];
      const A p = by[n] * m * v;
      square[n] += v * v;
      away[n] += p * v;
      post[n] = r.rule == LocalRule::kBcm ? p * (v - level[n]) : p;
    }
  }
  bool finite = true;
  for (int64_t n = 0; n < count; ++n) {
    finite &= zero[n] == A(0);
    keep[n] = A(r.kept) - (r.rule == LocalRule::kOja ? away[n] : A(0));
    if (r.square != nullptr) static_cast<A*>(r.square)[i + n] = square[n];
  }
  return finite;
}

}  // namespace synops::CPU_CAPABILITY
