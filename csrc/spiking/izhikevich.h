// izhikevich: the raw-pointer kernels of a step (bodies in izhikevich.inc).
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace synops {

// Of a range of post-synaptic neurons. A target is an uint16 counted from the first of its range,
// and what is scattered into has as many elements: no target can leave it.
constexpr int64_t kMostTargets = int64_t{1} << 16;
constexpr int64_t kMostRanges = 256;
// Spikes of a step are bits, 64 neurons a word; ranges begin at whole words.
constexpr int64_t kSpikeWord = 64;

// Neurons of a range but the last.
inline int64_t range_width(int64_t neurons, int64_t ranges) {
  return std::max<int64_t>(1, (neurons + kSpikeWord * ranges - 1) / (kSpikeWord * ranges)) *
         kSpikeWord;
}

// Neurons [first, first + count) of a reservoir; the arrays begin at the first.
struct IzhikevichNeurons {
  int64_t first, count;
  void *v, *u, *current, *rise;  // rise null: exponential synapses
  const void *drive, *a, *b, *c, *d;
  double dt, decay, rise_decay, transfer;
};

// What spikes reach. Packed: neuron i has a run of synapses in each of `ranges` ranges of targets,
// [start[r], start[r + 1]) with r = i ranges + p in the p-th. A run is its weights and after them
// its targets, at packed_at(). Dense: neuron i has `row` weights. What is added is `own` ranges, or
// targets, from the `first` on.
struct IzhikevichSynapses {
  bool dense;
  const void* data;
  DType type;  // of the weights: that of the state, or bfloat16
  const int32_t* start;
  int64_t ranges, row, first, own;
};

// In bytes from the beginning: a run begins where its weights are aligned, wherever it ends.
template <size_t Weight>
constexpr int64_t packed_at(int64_t start, int64_t run) {
  constexpr int64_t w = Weight, target = sizeof(uint16_t);
  return (start * (w + target) + run * (w - target) + w - 1) & -w;
}
// All of it, in elements of 2 bytes, for weights of `words` such.
constexpr int64_t packed_words(int64_t synapses, int64_t runs, int64_t words) {
  return synapses * (words + 1) + runs * (words - 1);
}

struct IzhikevichKernels {
  // One step: states, `words` of spikes, and those that fired, ascending, in `spikes`; how many.
  int64_t (*update)(DType dtype, const IzhikevichNeurons& n, uint64_t* words, int32_t* spikes);
  // Adds the weights of `count` spikes to `to`, spike by spike; packed: that of each range has
  // kMostTargets elements, one after the other.
  void (*scatter)(DType dtype, const IzhikevichSynapses& s, const int32_t* spikes, int64_t count,
                  void* to);
  // drive = bias + x weight, weight (inputs, .) with rows `row` apart; weight null: bias + x.
  // Inputs that are 0 are left out.
  void (*drive)(DType dtype, int64_t count, const void* bias, const void* x, int64_t inputs,
                const void* weight, int64_t row, void* drive);
  // trace = decay trace, and 1 more for each of the spikes, counted from `first`.
  void (*trace)(DType dtype, int64_t count, double decay, const int32_t* spikes, int64_t fired,
                int64_t first, void* trace);
  // z = weight trace for (outputs, count); then weight += rate gate (target - z) trace. target
  // null: no learning; gate null: 1.
  void (*readout)(DType dtype, int64_t count, int64_t outputs, const void* trace,
                  const void* target, const void* gate, double rate, void* weight, void* z);
};

SYNOPS_KERNELS(IzhikevichKernels, izhikevich)

}  // namespace synops
