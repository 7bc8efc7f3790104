// delta_rule: the raw-pointer kernels (bodies in delta_rule.inc).
//
// A fast weight of one head is walked in slices of columns, which need nothing of each other. Both
// scans are sums over rows only, so a slice stays in L1 and in the order of its memory; what would
// be a sum over columns is the same scan on the transposed weight. Elements are A, float32
// (float64).
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace synops {

// What belongs to step t begins at `at` + t * `step` elements. Null: there is none.
struct Line {
  const void* at = nullptr;
  int64_t step = 0;
};
struct OutLine {
  void* at = nullptr;
  int64_t step = 0;
};

// The steps 0, 1, ... of W (rows, columns):
//   pre_t = base_t - decay_t W^T before_t
//   W     = decay_t W + gain_t left_t value_t^T, where value_t null is pre_t
//   post_t = scale W^T after_t
struct FastWeightSteps {
  int64_t steps, rows, columns;
  void* state;               // (rows, width), zeros behind the columns; in and out
  Line left, before, after;  // (rows,)
  Line base, value;          // (columns,); base may be pre
  Line gain, decay;          // numbers; null: 1
  OutLine pre, post;         // pre null: not wanted
  double scale;
  void* scaled;  // (2, rows): the gain goes with left, so that the turned scan has the same bits;
                 // or null: with the value
};

// The steps T - 1, T - 2, ... of the gradient X (rows, columns) of the weight after step t:
//   X     = X + scale source_t beside_t^T
//   g     = X^T read_t,  out_t = gain_t g,  dot_t = sum of g * other_t
//   X     = decay_t (X - left_t value_t^T), where value_t null is out_t; left null: decay_t X
struct FastWeightGradient {
  int64_t steps, rows, columns;
  void* state;
  Line left, source, read;    // (rows,)
  Line value, beside, other;  // (columns,); other null: no dot
  Line gain, decay;
  OutLine out, dot;
  double scale;
};

struct FastWeightKernels {
  int64_t (*lanes)(DType wide);
  int64_t (*most_vectors)();  // of a slice, whose width is a number of whole vectors
  void (*steps)(DType wide, const FastWeightSteps& s);
  void (*gradient)(DType wide, const FastWeightGradient& s);
  // out[t] = sum of a_t * b_t - sum of c_t * d_t, of `first` and `second` elements.
  void (*differences)(DType wide, int64_t steps, int64_t first, Line a, Line b, int64_t second,
                      Line c, Line d, double* out);
};

SYNOPS_KERNELS(FastWeightKernels, fast_weight)

}  // namespace synops
