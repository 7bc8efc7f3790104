// What op files share on top of torch's stable ABI: checks that make a raw op memory-safe whatever
// it is called with, and element types. Public functions raise the typed errors; these are
// RuntimeErrors.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <optional>

#include "common/dtype.h"

namespace synops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline DType dtype_of(const Tensor& t, const char* op, const char* name) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::Double:
      return DType::kFloat64;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    case ScalarType::Half:
      return DType::kFloat16;
    default:
      STD_TORCH_CHECK(false, op, ": ", name, " must be a floating point tensor");
  }
}

inline void check_tensor(const Tensor& t, ScalarType type, int64_t dim, const char* op,
                         const char* name) {
  STD_TORCH_CHECK(t.is_cpu(), op, ": ", name, " must be on the CPU");
  STD_TORCH_CHECK(t.scalar_type() == type, op, ": ", name, " has the wrong dtype");
  STD_TORCH_CHECK(t.dim() == dim, op, ": ", name, " must have ", dim, " dimensions, got ", t.dim());
}

// Index tensors are never copied behind the caller's back.
inline void check_index(const Tensor& t, int64_t dim, const char* op, const char* name) {
  check_tensor(t, ScalarType::Int, dim, op, name);
  STD_TORCH_CHECK(t.is_contiguous(), op, ": ", name, " must be contiguous");
}

// Itself, or a contiguous copy.
inline Tensor dense_of(const Tensor& t) {
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

inline void check_size(int64_t got, int64_t want, const char* op, const char* name,
                       const char* axis) {
  STD_TORCH_CHECK(got == want, op, ": ", axis, " of ", name, " must be ", want, ", got ", got);
}

// A CPU tensor with undefined contents. torch::stable::new_empty goes through the dispatcher with
// boxed arguments, 0.6 us more a call.
inline Tensor empty_strided(int64_t dim, const int64_t* size, const int64_t* strides,
                            ScalarType type) {
  AtenTensorHandle out;
  const AOTITorchError error = aoti_torch_empty_strided(
      dim, size, strides, static_cast<int32_t>(type), aoti_torch_device_type_cpu(), 0, &out);
  STD_TORCH_CHECK(error == AOTI_TORCH_SUCCESS, "out of memory");
  return Tensor(out);
}

inline Tensor empty(std::initializer_list<int64_t> size, ScalarType type) {
  int64_t strides[4];
  int64_t next = 1;
  const int64_t dim = static_cast<int64_t>(size.size());
  for (int64_t d = dim - 1; d >= 0; --d) {
    strides[d] = next;
    next *= std::max<int64_t>(1, size.begin()[d]);
  }
  return empty_strided(dim, size.begin(), strides, type);
}

// (batch, features), row-major, or feature-major: its memory is (features, batch).
inline Tensor empty_matrix(int64_t rows, int64_t cols, ScalarType type, bool feature_major) {
  const int64_t size[] = {rows, cols};
  const int64_t strides[] = {feature_major ? 1 : std::max<int64_t>(1, cols),
                             feature_major ? std::max<int64_t>(1, rows) : 1};
  return empty_strided(2, size, strides, type);
}

// A row-major matrix whose rows may be strided (a slice of a wider one); copies other layouts.
inline Tensor rows_of(const Tensor& t) {
  const bool dense_rows = t.stride(1) == 1 || t.size(1) <= 1;
  const bool apart = t.stride(0) >= t.size(1) || t.size(0) <= 1;
  return dense_rows && apart ? t : torch::stable::contiguous(t);
}

}  // namespace synops
