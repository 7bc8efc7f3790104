// lif: the raw-pointer kernels (bodies in lif.inc and lif_backward.inc).
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace synops {

// As numbered in python/synops/spiking/_neurons.py.
enum class Reset : int64_t { kSubtract, kZero, kNone };
enum class Surrogate : int64_t {
  kFastSigmoid,
  kAtan,
  kSigmoid,
  kSuperspike,
  kBoxcar,
  kTriangle,
  kQuadraticGate
};

// How neurons fire and reset. late: a spike resets the membrane in the next step, and the state is
// the membrane itself.
struct Firing {
  Reset reset;
  bool late, inclusive;
};

// Element i of step t lies at data + (t * step + i) elements; null: none.
struct Series {
  void* data;
  int64_t step;
};
struct ConstSeries {
  const void* data;
  int64_t step;
};

// The most neurons of a call: states, parameters and sums of them stay in L1, and a step reads a
// page of float32.
constexpr int64_t kLifTile = 1024;

// `count` neurons over `steps`. States and what belongs to them are in the arithmetic type, one a
// neuron; input and spikes in their own.
struct LifForward {
  int64_t steps, count;
  Firing firing;
  ConstSeries input;
  const void *v0, *beta, *threshold;  // v0 null: 0
  Series spikes, membrane, trajectory;
  void* v;
  bool stream;  // past the caches, where the addresses allow
};

struct LifBackward {
  int64_t steps, count;
  Firing firing;
  bool attached;  // a gradient flows through the spike in the reset
  Surrogate surrogate;
  double slope;
  ConstSeries grad_spikes, grad_trajectory, membrane;
  const void *grad_v, *v0, *beta, *threshold;  // null: 0
  Series grad_input;
  void *grad_v0, *grad_beta, *grad_threshold;  // null: not wanted
  bool stream;
};

struct LifKernels {
  void (*forward)(DType dtype, const LifForward& f);
};
struct LifGradientKernels {
  void (*backward)(DType dtype, const LifBackward& b);
};

SYNOPS_KERNELS(LifKernels, lif)
SYNOPS_KERNELS(LifGradientKernels, lif_gradient)

}  // namespace synops
