// three_factor_sequence: the raw-pointer kernels (bodies in three_factor_sequence.inc).
#pragma once

#include "hebbian/outer_update.h"
#include "sparse/formats.h"

namespace synops {

// How the samples of a step meet a synapse.
enum class Samples {
  kOne,     // one, with its trace
  kShared,  // several that one trace adds up
  kEach,    // a trace for each
};

// Steps of three_factor.h, all in one pass. Arrays are in the arithmetic type; with n the samples
// of all steps, step by step, pre and post are
//   dense:     as outer_update packs a batch of n
//   a Pattern: as sampled_update turns a batch of n, by column and by row, `width` numbers each
// and gates, in the same way (`gate_width`), of as many samples as there are traces in all steps,
// or, where gate_varies is not set, in one.
struct ThreeFactorSteps {
  PlasticWeight w;         // with a Pattern: one row of its values; always with bounds
  const void* trace_from;  // (traces, rows, cols), or (traces, nnz)
  void* trace_to;
  Samples how;
  int64_t steps, samples;
  int64_t trace_size;  // elements between traces
  double decay, keep;
  const void *pre, *post, *gate;
  bool gate_varies;
  bool bounded;  // a bound is finite; there are bounds in either case
  int64_t width, gate_width;
  void* traces;  // of kEach: room for those of a tile, tile_traces(samples) numbers
};

struct ThreeFactorSequenceKernels {
  bool (*finite)(DType dtype, const void* x, int64_t n);
  int64_t (*tile_traces)(DType dtype, int64_t samples);
  // Rows of groups [g0, g1) of a dense weight; false if a number is not finite in the end (what is
  // not finite once will not be finite again).
  bool (*dense)(const ThreeFactorSteps& s, int64_t g0, int64_t g1);
  // Rows [r0, r1) of a Pattern, whose columns lie inside.
  bool (*entries)(const ThreeFactorSteps& s, const Csr& csr, int64_t r0, int64_t r1);
};

SYNOPS_KERNELS(ThreeFactorSequenceKernels, three_factor_sequence)

}  // namespace synops
