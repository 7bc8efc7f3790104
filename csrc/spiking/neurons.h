// Spiking neurons over time: the raw-pointer kernels of lif, alif and cuba_lif (bodies in
// neurons.inc and neurons_backward.inc).
#pragma once

#include "common/dtype.h"
#include "common/isa.h"
#include "spiking/lif.h"

namespace synops {

// What a neuron has beside its membrane, its second state: nothing, the adaptation of its
// threshold, or a synaptic current.
enum class Neuron : int { kLif, kAlif, kCubaLif };

// As numbered in python/synops/spiking/_neurons.py. Bytes are 0 or 1; bit i % 8 of byte i / 8 is
// neuron i of a row.
enum class SpikeForm : int64_t { kInput, kBytes, kBits };

// What the backward is left of a membrane. kFull: itself; of kAlif its distance from the threshold.
// kHalf: the distance in float16, moved off 0 where it would round to the wrong side of it, so that
// the backward finds the spikes of the forward.
enum class Saved : int64_t { kNothing, kFull, kHalf };

// A number for each neuron; or one for all, then data is a vector (64 bytes) of it.
struct Values {
  const void* data;
  bool single;
};

// Working memory of a call: so many numbers of the arithmetic type.
constexpr int64_t kForwardRoom = 3, kBackwardRoom = 6;  // a neuron
inline int64_t padded(int64_t count) { return (count + 15) / 16 * 16; }

// `count` neurons over `steps`. States and what belongs to them are in the arithmetic type, one a
// neuron; input and spikes in their own.
struct NeuronForward {
  int64_t steps, count;
  Neuron neuron;
  Firing firing;
  ConstSeries input;
  const void *v0, *w0;                      // null: 0
  Values beta, threshold, decay, strength;  // the last two: of the second state
  SpikeForm form;
  Series spikes;  // its step in bytes, except kInput
  Saved saved;
  Series membrane, second, trajectory;
  void *v, *w, *room;
  bool stream;  // past the caches, where the addresses allow
};

struct NeuronBackward {
  int64_t steps, count;
  Neuron neuron;
  Firing firing;
  bool attached;  // a gradient flows through the spike in the reset
  Surrogate surrogate;
  double slope;
  ConstSeries grad_spikes, grad_trajectory;
  Saved saved;
  ConstSeries membrane, second;
  const void *grad_v, *grad_w, *v0, *w0;  // null: 0
  Values beta, threshold, decay, strength;
  Series grad_input;
  void *grad_v0, *grad_w0;  // null: not wanted, as below
  void *grad_beta, *grad_threshold, *grad_decay, *grad_strength;
  void* room;
  bool stream;
};

struct NeuronKernels {
  void (*forward)(DType dtype, const NeuronForward& f);
};
struct NeuronGradientKernels {
  void (*backward)(DType dtype, const NeuronBackward& b);
};

SYNOPS_KERNELS(NeuronKernels, neuron)
SYNOPS_KERNELS(NeuronGradientKernels, neuron_gradient)

}  // namespace synops
