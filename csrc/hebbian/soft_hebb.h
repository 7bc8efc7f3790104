// soft_hebb: the raw-pointer kernels (bodies in soft_hebb.inc).
//
// Arithmetic is in A, float32 (float64 for float64). What belongs to units and samples is
// (out, B), units outermost: a softmax over units then takes a sample a lane.
#pragma once

#include <cstdint>

#include "hebbian/outer_update.h"

namespace synops {

// As numbered in python/synops/hebbian/_soft_hebb.py.
enum class SoftVariant : int64_t { kSoft, kSigned, kHard };

// (out, in), rows side by side; where `mask` is 0 an entry is not read and counts as 0.
struct SoftWeight {
  DType dtype;
  const void* data;
  const uint8_t* mask;  // null: all
  int64_t out, in;
};

// Samples that `compete` takes at a time.
constexpr int64_t kSoftSamples = 64;
// Inputs, of all panels of samples, that stay in L2 while rows of the weight pass.
constexpr int64_t kSoftDepth = 512;

struct SoftCompetition {
  SoftVariant variant;
  double temperature;
  int64_t out, samples;
  const void* u;                 // (out, samples)
  const void *modulator, *gain;  // (samples,), (out,), null: 1
  void* y;                       // as u
  void* overlap;                 // (groups of samples, out): sums of y u over a group
};

struct SoftHebbKernels {
  // u[i][b] and, unless null, squares[i]: for rows [begin, end) of the weight and `samples` rows
  // of x, each `in` long; `room`: in.
  void (*project)(const SoftWeight& w, const void* x, int64_t samples, int64_t begin, int64_t end,
                  void* room, void* u, void* squares);
  int64_t (*panel)(DType wide);
  // Panels of samples [begin, end), `in` deep, zeros behind the last sample.
  void (*pack)(DType wide, const void* x, int64_t samples, int64_t in, int64_t begin, int64_t end,
               void* out);
  // As project, from panels [first, last); rows of `sums` (out, padded samples). `room`: rows of
  // a tile, kSoftDepth each.
  void (*project_panels)(const SoftWeight& w, const void* panels, int64_t first, int64_t last,
                         int64_t padded, int64_t begin, int64_t end, void* room, void* sums,
                         void* squares);
  // Samples [group * kSoftSamples, ...) of y and their row of overlap; false where u is not finite
  // (y is not to be used then).
  bool (*compete)(DType wide, const SoftCompetition& c, int64_t group);
  // Groups [g0, g1) of y as OuterFactors has them (outer_update.h).
  void (*turn)(DType wide, const void* y, int64_t samples, int64_t out, int64_t g0, int64_t g1,
               void* groups);
};

// The changes of rows: by one sample, y[i] x[j] - overlap[i] w[i][j], or by many, as they were
// written to `changes`.
struct SoftChanges {
  SoftWeight w;
  const void *x, *y, *overlap;  // null: by many
  const void* changes;          // in the arithmetic type
};

// normalize="amax".
struct SoftHebbAmaxKernels {
  // The largest magnitude in rows [begin, end).
  double (*largest)(const SoftChanges& c, int64_t begin, int64_t end);
  // to = keep w + rate[i] changes, clamped, for these rows; false if a weight is not finite.
  bool (*apply)(const PlasticWeight& w, const void* changes, double keep, const void* rate,
                int64_t begin, int64_t end);
  // Rows of the weight in the arithmetic type, 0 where it is masked.
  void (*widen)(const SoftWeight& w, int64_t begin, int64_t end, void* out);
};

SYNOPS_KERNELS(SoftHebbKernels, soft_hebb)
SYNOPS_KERNELS(SoftHebbAmaxKernels, soft_hebb_amax)

}  // namespace synops
