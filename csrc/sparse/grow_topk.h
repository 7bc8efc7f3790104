// grow_topk: the raw-pointer kernels (bodies in grow_topk.inc).
//
// A block of scores is kBlockInputs inputs by one panel of outputs, outputs side by side.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace synops {

constexpr int64_t kBlockInputs = 96;  // 16 groups of 6: a panel's chunk stays in L2 for all of them
constexpr int64_t kChunk = 256;       // samples: of a panel 64 KB

// An edge and its score.
struct Candidate {
  double score;
  int64_t index;  // output * inputs + input
};

// Columns of a matrix (samples, columns) as they are multiplied: (x - shift) * factor.
struct Columns {
  DType dtype;
  const void* data;
  int64_t ld, samples, columns;
  const double *shift, *factor;  // null: 0 and 1
};

struct GrowKernels {
  int64_t (*panel)(DType dtype);  // outputs
  int64_t (*group)();             // inputs
  // Mean, and 1 / norm of what is left without it (0 where nothing is), of columns [c0, c1);
  // `centred`: else the mean is 0.
  void (*moments)(const Columns& x, bool centred, int64_t c0, int64_t c1, double* mean,
                  double* inverse);
  // Column groups [g0, g1) of `width` columns each: column c of group g, sample k, at
  // (g * samples + k) * width + c; zeros behind the last column.
  void (*pack)(const Columns& x, int64_t width, int64_t g0, int64_t g1, void* out);
  // Scores of one panel and the groups of inputs [i0, i1), i1 - i0 <= kBlockInputs and i0 a
  // multiple of it: dot products, `absolute` or not; a NaN is -inf. Score of input i at (i - i0) *
  // panel.
  void (*scores)(DType dtype, const void* panel, const void* groups, int64_t samples, int64_t i0,
                 int64_t i1, bool absolute, void* scores);
  // The same from random bits of (seed, index), uniform in [0, 1), for outputs [o0, o1).
  void (*noise)(DType dtype, uint64_t seed, int64_t inputs, int64_t o0, int64_t o1, int64_t i0,
                int64_t i1, void* scores);
  // Writes a NaN for input i of output o of the panel: never a candidate.
  void (*strike)(DType dtype, void* scores, int64_t o, int64_t i);
  // Appends what scores at least `least`; room for all of the block. Returns how many.
  int64_t (*filter)(DType dtype, const void* scores, double least, int64_t inputs, int64_t o0,
                    int64_t o1, int64_t i0, int64_t i1, Candidate* out);
};

SYNOPS_KERNELS(GrowKernels, grow)

}  // namespace synops
