// What the reservoirs esn and ei_reservoir check and move on tensors: states by place, and series
// of (T, B, N).
#pragma once

#include <algorithm>
#include <cstring>

#include "common/tensor.h"
#include "spiking/interleaved.h"
#include "spiking/neuron_rows.h"

namespace synops {

// float32 or float64: reservoirs are given everything in the type of their state.
inline DType reservoir_dtype(const Tensor& input, const char* op) {
  const DType dtype = dtype_of(input, op, "input");
  STD_TORCH_CHECK(!is_half(dtype), op, ": input must be float32 or float64");
  return dtype;
}

// A dense tensor of one size, or two.
inline Tensor dense_vector(const Tensor& t, ScalarType type, int64_t size, const char* op,
                           const char* name) {
  check_tensor(t, type, 1, op, name);
  check_size(t.size(0), size, op, name, "size 0");
  return dense_of(t);
}
inline Tensor dense_matrix(const Tensor& t, ScalarType type, int64_t rows, int64_t cols,
                           const char* op, const char* name) {
  check_tensor(t, type, 2, op, name);
  check_size(t.size(0), rows, op, name, "size 0");
  check_size(t.size(1), cols, op, name, "size 1");
  return dense_of(t);
}

// Values of a weight, `count` of which are read.
inline Tensor dense_values(const Tensor& t, ScalarType type, int64_t count, const char* op,
                           const char* name) {
  check_tensor(t, type, 1, op, name);
  STD_TORCH_CHECK(t.size(0) >= count, op, ": ", name, " must hold at least ", count,
                  " elements, got ", t.size(0));
  return dense_of(t);
}

// What an op writes into: contiguous, of this shape.
template <class... Sizes>
void check_result(const Tensor& t, ScalarType type, const char* op, const char* name,
                  Sizes... sizes) {
  check_tensor(t, type, sizeof...(sizes), op, name);
  int64_t axis = 0;
  const auto check = [&](int64_t size) {
    check_size(t.size(axis), size, op, name, "a size");
    ++axis;
  };
  (check(sizes), ...);
  STD_TORCH_CHECK(t.is_contiguous(), op, ": ", name, " must be contiguous");
}

inline Tensor zeros(std::initializer_list<int64_t> size, ScalarType type) {
  const Tensor out = empty(size, type);
  std::memset(out.mutable_data_ptr(), 0, static_cast<size_t>(out.numel()) * out.element_size());
  return out;
}

// A copy of the state (sequences, rows) that a run begins with; zeros where there is none.
inline Tensor state_copy(const OptionalTensor& state, ScalarType type, int64_t sequences,
                         int64_t rows, const char* op) {
  if (!state.has_value()) return zeros({sequences, rows}, type);
  check_tensor(*state, type, 2, op, "state");
  check_step(*state, sequences, rows, op, "state");
  const Tensor from = dense_of(*state), out = empty({sequences, rows}, type);
  std::memcpy(out.mutable_data_ptr(), from.const_data_ptr(),
              static_cast<size_t>(out.numel()) * out.element_size());
  return out;
}

// Steps that are recorded of a run.
inline int64_t recorded_steps(int64_t steps, int64_t washout, const char* op) {
  STD_TORCH_CHECK(washout >= 0, op, ": washout must not be negative, got ", washout);
  return steps - std::min(steps, washout);
}

// from[0 .. rows), by row, to places and back; `rest` fills the places behind the last row.
template <class A>
void to_places(const Places& p, const A* from, A rest, A* to) {
  for (int64_t at = 0; at < p.rows; ++at) to[at] = from[p.row_of[at]];
  std::fill(to + p.rows, to + p.count(), rest);
}
template <class A>
void from_places(const Places& p, bool in_order, const A* from, A* to) {
  if (in_order) return void(std::copy_n(from, p.rows, to));
  for (int64_t at = 0; at < p.rows; ++at) to[p.row_of[at]] = from[at];
}

}  // namespace synops
