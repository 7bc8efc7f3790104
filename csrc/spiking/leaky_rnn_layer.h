// The layer of leaky_rnn as forward and backward read it: checked, what belongs to neurons padded.
#pragma once

#include <cmath>
#include <cstring>

#include "common/scratch.h"
#include "spiking/leaky_rnn.h"
#include "spiking/neuron_rows.h"

namespace synops {

// As numbered in python/synops/spiking/_leaky_rnn.py.
inline LeakyRule leaky_rule_of(int64_t activation, double slope, bool inner, const char* op) {
  STD_TORCH_CHECK(activation >= 0 && activation <= 3, op, ": activation must be 0 to 3, got ",
                  activation);
  STD_TORCH_CHECK(slope >= 0 && std::isfinite(slope), op,
                  ": slope must be finite and not negative, got ", slope);
  switch (activation) {
    case 0:
      return {LeakyActivation::kSlope, 1, inner};
    case 1:
      return {LeakyActivation::kRelu, 0, inner};
    case 2:
      return {LeakyActivation::kSlope, slope, inner};
    default:
      return {LeakyActivation::kTanh, 0, inner};
  }
}

class LeakyLayer {
 public:
  LeakyLayer(const Tensor& weight, const Tensor& rate, ScalarType type, int64_t neurons,
             const char* op)
      : type(type),
        wide(type == ScalarType::Double ? DType::kFloat64 : DType::kFloat32),
        bytes(static_cast<int64_t>(bytes_of(wide))),
        neurons(neurons),
        panel(leaky_rnn_kernels().panel(wide)),
        panels((neurons + panel - 1) / panel),
        padded(panels * panel),
        room_(2 * padded * bytes) {
    check_tensor(weight, type, 2, op, "weight");
    check_size(weight.size(0), neurons, op, "weight", "size 0");
    check_size(weight.size(1), neurons, op, "weight", "size 1");
    weight_ = dense_of(weight);
    const NeuronParameter by(rate, type, neurons, op, "rate");
    std::memset(room_.data(), 0, 2 * padded * bytes);
    by.fill(0, neurons, room_.data());
    wide == DType::kFloat64 ? complement<double>() : complement<float>();
  }

  const void* weight() const { return weight_.const_data_ptr(); }
  const void* rate() const { return room_.data(); }
  const void* keep() const { return static_cast<char*>(room_.data()) + padded * bytes; }
  int64_t packed_bytes(int64_t depth) const { return padded * depth * bytes; }

  // f(first row, rows) over threads: groups of rows, whose sums are kept together.
  template <class F>
  static void for_rows(int64_t rows, int64_t work, F&& f) {
    const int64_t group = leaky_group(rows);
    split((rows + group - 1) / group, threads_for(work), [&](int64_t begin, int64_t end) {
      const int64_t first = begin * group;
      f(first, std::min(rows, end * group) - first);
    });
  }

  const ScalarType type;
  const DType wide;
  const int64_t bytes, neurons, panel, panels, padded;

 private:
  template <class A>
  void complement() {
    A* const rate = static_cast<A*>(room_.data());
    for (int64_t i = 0; i < neurons; ++i) rate[padded + i] = 1 - rate[i];
  }

  Tensor weight_;
  Scratch room_;
};

}  // namespace synops
