// The parameters of neurons on tensors, and where a kernel finds those of a tile.
#pragma once

#include <optional>

#include "common/scratch.h"
#include "spiking/neuron_ops.h"

namespace synops {

// One that the neuron may lack.
class MaybeParameter {
 public:
  MaybeParameter(const Tensor* t, ScalarType type, int64_t neurons, const char* op,
                 const char* name) {
    if (t != nullptr) of_.emplace(*t, type, neurons, op, name);
  }
  bool single() const { return !of_ || of_->single; }
  // For `count` neurons from the i-th on, in the next part of the room.
  Values values(int64_t i, int64_t count, Scratch& room) const {
    if (!of_) return {nullptr, true};
    const int64_t size = of_->single ? kVector / of_->bytes : count;
    void* to = room.take(padded(size) * of_->bytes);
    of_->fill(i, size, to);
    return {to, of_->single};
  }

 private:
  static constexpr int64_t kVector = 64;  // bytes of the widest
  std::optional<NeuronParameter> of_;
};

struct NeuronParameters {
  NeuronParameters(const char* op, ScalarType type, int64_t neurons, const Tensor& beta,
                   const Tensor& threshold, const SecondState& second)
      : beta(&beta, type, neurons, op, "beta"),
        threshold(&threshold, type, neurons, op, "threshold"),
        decay(second.decay, type, neurons, op, second.decay_name),
        strength(second.strength, type, neurons, op, second.strength_name),
        bytes_(type == ScalarType::Double ? 8 : 4) {}

  int64_t bytes() const { return bytes_; }
  // Bytes that the values of a tile take.
  size_t room(int64_t count) const { return 4 * (padded(count) + 16) * bytes_; }

  MaybeParameter beta, threshold, decay, strength;

 private:
  int64_t bytes_;
};

}  // namespace synops
