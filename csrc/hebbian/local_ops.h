// hebb, oja and bcm on tensors: one call, in place or not (local_ops.cpp).
#pragma once

#include "hebbian/local_rule.h"
#include "hebbian/plasticity.h"

namespace synops {

// Arguments that the rules have in common, as in python/synops/_schema.py.
struct LocalArguments {
  double lr;
  const OptionalTensor& rate;  // () or (out,)
  double decay;
  const OptionalTensor& modulator;  // () or (batch,)
  const OptionalTensor &gain_pre, &gain_post;
  double lower, upper;
  const OptionalTensor& sign;
  bool check_sign;
  const OptionalTensor &mask, &crow, &col;
  bool mean;
};

// bcm's sliding threshold, from and to, which may be one.
struct Threshold {
  Tensor from, to;
  double rate;  // 1 / tau
};

struct LocalResult {
  Tensor post;    // what was computed, or (0,)
  Tensor report;  // a scalar of Report bits
};

// `to`: the weight that is written, equal to `from` in place.
LocalResult local_rule(const char* op, LocalRule rule, const Tensor& from, const Tensor& to,
                       const Tensor& pre, const OptionalTensor& post, const Threshold* theta,
                       const LocalArguments& a);

// A tensor of the shape and type of `t`, contiguous; contents undefined.
Tensor new_like(const Tensor& t);

}  // namespace synops
