// The gradient of a parameter of neurons, () or (P,), made of one for each neuron of each row.
#pragma once

#include <algorithm>

#include "common/scratch.h"
#include "common/tensor.h"

namespace synops {

// The gradient of a parameter from those of each of its neurons: columns are added up over the
// rows, and for a single number along the columns, in float64 and always in this order.
template <class A>
inline void add_up(const A* of_neurons, int64_t rows, int64_t neurons, bool single, A* out) {
  Scratch room(neurons * sizeof(double));
  double* sums = static_cast<double*>(room.data());
  std::fill(sums, sums + neurons, 0.0);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t n = 0; n < neurons; ++n) sums[n] += of_neurons[r * neurons + n];
  if (single) {
    double sum = 0;
    for (int64_t n = 0; n < neurons; ++n) sum += sums[n];
    *out = static_cast<A>(sum);
    return;
  }
  for (int64_t n = 0; n < neurons; ++n) out[n] = static_cast<A>(sums[n]);
}

// The gradient of a parameter, and room for it neuron by neuron.
class ParameterGradient {
 public:
  ParameterGradient(bool needed, bool single, int64_t rows, int64_t neurons, ScalarType type)
      : needed_(needed), single_(single), rows_(rows), neurons_(neurons), type_(type) {
    if (needed) of_neurons_ = empty({rows, neurons}, type);
    out_ = !needed ? empty({0}, type) : single ? empty({}, type) : empty({neurons}, type);
  }
  char* data() const {
    return needed_ ? static_cast<char*>(of_neurons_.mutable_data_ptr()) : nullptr;
  }
  Tensor finish() const {
    if (needed_ && type_ == ScalarType::Double) add<double>();
    if (needed_ && type_ != ScalarType::Double) add<float>();
    return out_;
  }

 private:
  template <class A>
  void add() const {
    add_up(static_cast<const A*>(of_neurons_.const_data_ptr()), rows_, neurons_, single_,
           static_cast<A*>(out_.mutable_data_ptr()));
  }

  bool needed_, single_;
  int64_t rows_, neurons_;
  ScalarType type_;
  Tensor of_neurons_, out_;
};

}  // namespace synops
