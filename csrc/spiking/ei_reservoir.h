// ei_reservoir: the raw-pointer kernels (bodies in ei_reservoir.inc). All arrays are in the
// arithmetic type and by place (interleaved.h).
#pragma once

#include "common/dtype.h"
#include "common/isa.h"
#include "spiking/interleaved.h"

namespace synops {

// Rates from the sums of a step, and by how much they move each row's inhibition.
struct EiUpdate {
  int64_t count;  // places, a multiple of kGroup
  const void *gain, *threshold, *leak;
  const void* target;  // or null: inhibition stays
  double delta;
  const void* now;
  void* next;  // sums, which become rates
  void* by;    // delta (rate - target); unused without a target
};

struct EiKernels {
  // next[p] = excitatory row p times z minus its inhibitory row times z, for the places of groups
  // [g0, g1). by: what every inhibitory weight of a row is moved by first, to 0 at least; or null.
  void (*sums)(DType dtype, const Interleaved& excitatory, const Interleaved& inhibitory,
               const void* by, const void* z, void* next, int64_t g0, int64_t g1);
  void (*update)(DType dtype, const EiUpdate& u);
  // The move by itself.
  void (*move)(DType dtype, const Interleaved& inhibitory, const void* by);
};

SYNOPS_KERNELS(EiKernels, ei)

}  // namespace synops
