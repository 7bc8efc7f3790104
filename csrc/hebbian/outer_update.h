// The update that the local rules share: W <- clamp(keep_i W + sum_b post[b,i] pre[b,j]), dense.
//
// A rule puts all its factors (learning rate, 1 / batch, modulator, gains) into post and pre, and
// decay and the like into keep; one pass over W does the rest. Bodies: outer_update.inc.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace synops {

// The weight, and what bounds it. `from` and `to` are one, or do not overlap.
struct PlasticWeight {
  DType dtype;  // of the weight; all other arrays are in its arithmetic type
  int64_t rows, cols;
  const void* from;
  int64_t from_stride;  // elements between rows
  void* to;
  int64_t to_stride;
  const void *lower, *upper;  // (cols,), or null: no bounds
  const uint8_t* mask;        // (rows, cols), or null; where 0, the entry stays as it is
};

// pre in panels of `panel` columns, post in groups of `group` rows: what a block of sums reads lies
// side by side, zeros behind the end. With a batch of one, both are plain vectors.
struct OuterFactors {
  int64_t batch;
  const void* pre;   // [cols / panel][batch][panel]
  const void* post;  // [rows / group][batch][group]
  const void* keep;  // (rows,)
};

struct OuterUpdateKernels {
  int64_t (*panel)(DType dtype);
  int64_t group;
  // Panels [p0, p1) of x (batch, cols), rows `stride` apart, times gain (cols,) or null; false if a
  // number is not finite.
  bool (*pack_pre)(DType dtype, const void* x, int64_t stride, int64_t batch, int64_t cols,
                   const void* gain, int64_t p0, int64_t p1, void* out);
  // Groups [g0, g1) of y (batch, rows), likewise.
  bool (*pack_post)(DType dtype, const void* y, int64_t stride, int64_t batch, int64_t rows,
                    int64_t g0, int64_t g1, void* out);
  // Rows of groups [g0, g1); false if a weight is not finite.
  bool (*update)(const PlasticWeight& w, const OuterFactors& f, int64_t g0, int64_t g1);
  // Whether no weight of rows [r0, r1) has the sign against `sign` (cols,): 0 allows both.
  bool (*signs_hold)(const PlasticWeight& w, const void* sign, int64_t r0, int64_t r1);
};

SYNOPS_KERNELS(OuterUpdateKernels, outer_update)

// Bits of a report (python/synops/hebbian/_plasticity.py).
enum Report : int64_t {
  kPreNotFinite = 1,
  kPostNotFinite = 2,
  kFactorNotFinite = 4,    // modulator, rate, error
  kArgumentNotFinite = 8,  // another argument
  kSignBroken = 16,        // by the weight that came in
  kShared = 32,            // what is written in place shares memory with what is read
  kOverflow = 256,
};

inline int64_t panel_floats(int64_t cols, int64_t batch, int64_t panel) {
  return (cols + panel - 1) / panel * panel * batch;
}

// All rows of packed factors, over torch's threads: 0 or kOverflow.
int64_t outer_update(const PlasticWeight& w, const OuterFactors& f);
// x (batch, cols) times gain, packed into `out`, of panel_floats; false if one is not finite.
bool pack_pre(DType dtype, const void* x, int64_t batch, int64_t cols, const void* gain, void* out);
// y (batch, rows) packed into `out`, of panel_floats with the group for the panel.
bool pack_post(DType dtype, const void* y, int64_t batch, int64_t rows, void* out);
bool signs_hold(const PlasticWeight& w, const void* sign);

}  // namespace synops
