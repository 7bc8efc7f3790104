// esn: the raw-pointer kernels (bodies in esn.inc). All arrays are in the arithmetic type.
#pragma once

#include "common/dtype.h"
#include "common/isa.h"
#include "sparse/formats.h"
#include "spiking/interleaved.h"

namespace synops {

// As numbered in python/synops/spiking/_esn.py.
enum class Squash : int64_t { kTanh, kRelu, kIdentity };

// A step of a block of sequences, feature-major: rows of `width` elements, one or two vectors.
struct EsnSlabs {
  Tiled w;
  const void* values;        // in the order of w
  const void* input_weight;  // (rows, inputs)
  int64_t inputs;
  const void *bias, *leak;  // (rows,)
  Squash squash;
  int64_t width;
  const void *state, *input;  // slabs
  void* next;                 // a slab
};

struct EsnKernels {
  // next[p] = bias[p] + row p of w times z, for the places of groups [g0, g1).
  void (*sums)(DType dtype, const Interleaved& w, const void* z, const void* bias, void* next,
               int64_t g0, int64_t g1);
  // next = (1 - leak) z + leak squash(next), for `count` places, a multiple of kGroup.
  void (*update)(DType dtype, Squash squash, const void* leak, const void* z, void* next,
                 int64_t count);
  void (*slab_step)(DType dtype, const EsnSlabs& s);
};

SYNOPS_KERNELS(EsnKernels, esn)

}  // namespace synops
