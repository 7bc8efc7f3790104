// stdp: the raw-pointer kernels (bodies in stdp.inc).
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace synops {

// The neurons of one side in one step, all arrays (samples, neurons) in the arithmetic type.
struct StdpSide {
  const void* spikes;
  int64_t samples, neurons;
  void *trace, *slow;  // moved on by a step; slow: null without triplets
  double decay, slow_decay;
  double pair, triple;  // amplitudes
  const void* scale;    // (samples,)
  bool nearest;         // a spike sets a trace; otherwise it is added
  bool included;        // the other side's spikes of this step see this one's
  void *seen, *drive;   // the trace that they see; spikes times their amplitude
};

// The columns that depression touches in a step, ascending: `count`, or kEvery. Entries of column
// k are [ptr[k], ptr[k + 1]) of sample and value; with one sample ptr and sample are not read.
struct StdpEvents {
  static constexpr int64_t kEvery = -1;
  int64_t count;
  const int32_t *column, *ptr, *sample;
  const void* value;
};

// Some steps of a call, on rows of a weight (rows, columns), or on entries where crow is not null.
struct StdpSteps {
  int64_t rows, columns, samples, steps;
  void *weight, *eligibility;
  const int32_t *crow, *col;
  const void *potentiate, *depressed;  // (steps, samples, rows): drive and trace of the rows
  const void *trace, *depress;         // (steps, samples, columns): trace and drive of the columns
  const void* touched;                 // (steps, columns): not 0 where depression touches
  const StdpEvents* events;            // of each step; null: every step goes over all columns
  const void *lr, *reward;             // (rows,); (steps,) or null
  const void *lower, *upper;           // (columns,)
  bool uniform;                        // all bounds are those of column 0
  double decay;                        // of the eligibility
  bool soft;
};

// A row of the other side with its factor.
struct StdpTerm {
  const void* row;
  double by;
};

struct StdpKernels {
  // Whether all of n numbers are finite.
  bool (*finite)(DType dtype, const void* x, int64_t n);
  void (*side)(DType dtype, const StdpSide& s);
  // touched[j] = whether any of the samples of drive (samples, n) is not 0, as a 0 or 1; the places
  // of those that are not 0 to `column`, and how many there are.
  int64_t (*touch)(DType dtype, const void* drive, int64_t samples, int64_t n, void* touched,
                   int32_t* column);
  // All steps of rows [begin, end); `dtype` of the weight. terms: room for 2 * samples; sums:
  // zeros, (columns,), and zeros again afterwards. False when an entry is not finite.
  bool (*rows)(DType dtype, const StdpSteps& s, int64_t begin, int64_t end, StdpTerm* terms,
               void* sums);
};

SYNOPS_KERNELS(StdpKernels, stdp)

}  // namespace synops
