// hebb, oja and bcm: what they multiply the weight and the samples by, and the raw-pointer kernels
// around outer_update.h that are theirs alone: the forward in the same pass, and weights on a
// Pattern. Bodies: local_rule.inc, sampled_update.inc.
#pragma once

#include "hebbian/outer_update.h"

namespace synops {

enum class LocalRule { kHebb, kOja, kBcm };

// With y the activity of unit i times its gain, r its rate and m the modulator of sample b:
//   hebb: post = r m y            keep = kept
//   oja:  post = r m y            keep = kept - sum_b r m y^2
//   bcm:  post = r m y (y - theta) keep = kept, and square = sum_b y^2
struct RuleFactors {
  LocalRule rule;
  double kept;            // 1 - decay
  const void* rate;       // (rows,)
  const void* modulator;  // (batch,), or null
  const void* gain;       // (rows,), or null
  const void* theta;      // (rows,), of bcm
  void* square;           // (rows,), of bcm
};

// Entries of a Pattern. The weight's rows and cols are those of the pattern, its strides unused.
struct Entries {
  const int32_t* crow;
  const int32_t* col;
};

struct LocalRuleKernels {
  // post and keep from y (batch, rows), for groups [g0, g1); false if an activity is not finite.
  bool (*factors)(DType dtype, const RuleFactors& r, const void* y, int64_t batch, int64_t rows,
                  int64_t g0, int64_t g1, void* post, void* keep);
  // y (batch, rows) = input W^T, and then the update of the row with pre: rows [r0, r1). input and
  // pre in panels; false if a weight or an activity is not finite.
  bool (*learn)(const PlasticWeight& w, const RuleFactors& r, int64_t batch, const void* input,
                const void* pre, int64_t r0, int64_t r1, void* y);
};

SYNOPS_KERNELS(LocalRuleKernels, local_rule)

struct SampledUpdateKernels {
  // Samples of a column or row side by side, padded to this many: [cols][padded(batch)].
  int64_t (*padded)(DType dtype, int64_t batch);
  // x (batch, cols) times gain as [cols][padded], for columns [j0, j1).
  bool (*turn)(DType dtype, const void* x, int64_t batch, int64_t cols, const void* gain,
               int64_t j0, int64_t j1, void* out);
  // post and keep by row, from y (batch, rows) as [rows][padded], in its place.
  void (*factors)(DType dtype, const RuleFactors& r, int64_t batch, int64_t r0, int64_t r1,
                  void* post, void* keep);
  // The update of rows [r0, r1).
  bool (*update)(const PlasticWeight& w, const Entries& e, int64_t batch, const void* pre,
                 const void* post, const void* keep, int64_t r0, int64_t r1);
  // y = input W^T as [rows][padded].
  void (*forward)(const PlasticWeight& w, const Entries& e, int64_t batch, const void* input,
                  int64_t r0, int64_t r1, void* y);
  bool (*signs_hold)(const PlasticWeight& w, const Entries& e, const void* sign, int64_t r0,
                     int64_t r1);
};

SYNOPS_KERNELS(SampledUpdateKernels, sampled_update)

}  // namespace synops
