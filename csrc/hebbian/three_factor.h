// three_factor: the raw-pointer kernels (bodies in three_factor.inc).
#pragma once

#include "hebbian/outer_update.h"
#include "sparse/formats.h"

namespace synops {

// A step: e <- decay e + post x pre, w <- clamp(keep w + sum over traces of gate e). Arrays are in
// the arithmetic type. Either one trace that adds up `terms` samples, or a trace for each sample.
struct ThreeFactorStep {
  PlasticWeight w;         // with a Pattern: one row of its values
  const void* trace_from;  // (traces, rows, cols), or (traces, nnz)
  void* trace_to;
  int64_t traces, terms;
  int64_t trace_size;  // elements between traces
  double decay, keep;
  const void* gate;  // (traces, rows): 0 leaves the row's weights alone where keep is 1
  // Dense, as outer_update packs it: of one trace, panels of `terms` samples. Else a plain row for
  // each sample, pre_stride and post_stride apart.
  const void *pre, *post;
  int64_t pre_stride, post_stride;
  const void* columns;  // (cols, 4): pre, lower, upper, 0 of a Pattern with bounds and one sample
};

struct ThreeFactorKernels {
  // Rows of groups [g0, g1) of a dense weight; false if a number is not finite.
  bool (*dense)(const ThreeFactorStep& s, int64_t g0, int64_t g1);
  // Rows [r0, r1) of a Pattern; bits of Found. A row with a column outside is left alone.
  int (*entries)(const ThreeFactorStep& s, const Csr& csr, int64_t r0, int64_t r1);
};

enum Found : int { kNotFinite = 1, kOutside = 2 };

SYNOPS_KERNELS(ThreeFactorKernels, three_factor)

}  // namespace synops
