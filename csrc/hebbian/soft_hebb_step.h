// A call of soft_hebb once it is checked: the forward, the competition, the update
// (soft_hebb_step.cpp).
#pragma once

#include "hebbian/soft_hebb.h"

namespace synops {

// Everything of a call, checked. A: the arithmetic type.
template <class A>
struct SoftStep {
  PlasticWeight w;
  SoftWeight read;  // the weight that the forward reads
  DType wide;
  int64_t samples, out, in;
  const A *x, *rate;  // rate: one, or one a row, or null
  int64_t rate_step;
  double lr, power, temperature, decay, scale;  // scale: 1 / samples of a mean
  SoftVariant variant;
  bool amax;
  const A *modulator, *gain_post;

  // u (out, samples) and the squared norms of rows; null: not wanted.
  void project(A* u, A* squares) const;
  // lr and the distance of norms from 1: the rate of each row.
  void rates(const A* squares, A* of_rows) const;
  // y and, summed over samples, its product with u; false where u is not finite.
  bool compete(const A* u, const A* gain, A* y, A* overlap) const;
  // From packed input; squares null: rates are lr. 0, kPostNotFinite or kOverflow.
  int64_t update(const A* pre, const A* u, const A* squares) const;
  // y as the update takes it: itself, or turned into `room`.
  const void* post(const A* y, void* room) const;
  // From y, which it may change, and from y as the update takes it; rate and keep are room.
  int64_t update_amax(const A* pre, A* y, const void* by, const A* overlap, A* rate, A* keep) const;
};

}  // namespace synops
