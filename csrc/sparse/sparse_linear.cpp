// sparse_linear (CPU): the op on tensors, its checks and element types; the products are in
// product.cpp, their kernels in sparse_linear.inc.
#include <tuple>

#include "common/arrays.h"
#include "common/scratch.h"
#include "common/tensor.h"
#include "sparse/compressed.h"
#include "sparse/ops.h"
#include "sparse/product.h"

namespace synops {
namespace {

Matrix matrix_of(const Tensor& t, DType dtype) {
  return {dtype, t.data_ptr(), t.stride(0), t.size(0)};
}

// values in the arithmetic type: themselves, or a copy in `room`.
const void* widened(const Tensor& values, DType dtype, int64_t nnz, void* room) {
  if (!is_half(dtype)) return values.data_ptr();
  array_kernels().widen(dtype, values.data_ptr(), nnz, room);
  return room;
}

}  // namespace

Tensor sparse_linear_rows(const Tensor& input, const Tensor& values,
                          const std::optional<Tensor>& bias, const Tensor& row_ptr,
                          const Tensor& col) {
  const char* op = "sparse_linear";
  const DType dtype = dtype_of(input, op, "input");
  STD_TORCH_CHECK(input.is_cpu() && input.dim() == 2, op, ": input must be a CPU matrix");
  const Compressed w = compressed_of(row_ptr, col, input.size(1), op, "row_ptr", "col");
  check_tensor(values, input.scalar_type(), 1, op, "values");
  STD_TORCH_CHECK(values.size(0) >= w.nnz, op, ": values must hold at least ", w.nnz,
                  " elements, got ", values.size(0));
  if (bias.has_value()) {
    check_tensor(*bias, input.scalar_type(), 1, op, "bias");
    check_size(bias->size(0), w.rows, op, "bias", "size 0");
  }
  const Tensor x = rows_of(input), dense = dense_of(values);
  std::optional<Tensor> shift;
  if (bias.has_value()) shift = dense_of(*bias);
  Tensor out = empty({input.size(0), w.rows}, input.scalar_type());
  Scratch room(is_half(dtype) ? w.nnz * sizeof(float) : 0);
  const void* v = widened(dense, dtype, w.nnz, room.take(0));
  product(w, v, matrix_of(x, dtype), input.size(1), shift.has_value() ? shift->data_ptr() : nullptr,
          matrix_of(out, dtype));
  return out;
}

std::tuple<Tensor, Tensor, Tensor> sparse_linear_backward(const Tensor& grad, const Tensor& input,
                                                          const Tensor& values,
                                                          const Tensor& row_ptr, const Tensor& col,
                                                          const Tensor& col_ptr, const Tensor& row,
                                                          const Tensor& perm, bool need_input,
                                                          bool need_values, bool need_bias) {
  const char* op = "sparse_linear_backward";
  const DType dtype = dtype_of(grad, op, "grad");
  STD_TORCH_CHECK(grad.is_cpu() && grad.dim() == 2, op, ": grad must be a CPU matrix");
  STD_TORCH_CHECK(input.is_cpu() && input.dim() == 2, op, ": input must be a CPU matrix");
  STD_TORCH_CHECK(input.scalar_type() == grad.scalar_type(), op,
                  ": grad and input must have the same dtype");
  const Compressed w = compressed_of(row_ptr, col, input.size(1), op, "row_ptr", "col");
  const int64_t nnz = w.nnz;
  check_size(grad.size(0), input.size(0), op, "grad", "size 0");
  check_size(grad.size(1), w.rows, op, "grad", "size 1");
  STD_TORCH_CHECK(values.dim() == 1, op, ": values must have 1 dimension, got ", values.dim());
  STD_TORCH_CHECK(values.size(0) >= nnz, op, ": values must hold at least ", nnz, " elements, got ",
                  values.size(0));
  const Tensor g = rows_of(grad);
  const ArrayKernels& arrays = array_kernels();

  Tensor grad_input =
      empty({need_input ? input.size(0) : 0, need_input ? input.size(1) : 0}, input.scalar_type());
  Tensor grad_values = empty({need_values ? values.size(0) : 0}, grad.scalar_type());
  Tensor grad_bias = empty({need_bias ? w.rows : 0}, grad.scalar_type());
  const bool half = is_half(dtype);
  const size_t values_bytes = Scratch::round_up(nnz * acc_bytes_of(dtype));
  const size_t bias_bytes = Scratch::round_up(w.rows * acc_bytes_of(dtype));
  Scratch room(values_bytes * (need_input + half) + bias_bytes);
  Gradients a{.w = w, .wt = {nullptr, nullptr, input.size(1), 1, nnz}, .g = matrix_of(g, dtype)};
  if (need_input) {
    check_tensor(values, grad.scalar_type(), 1, op, "values");  // read here only
    check_index(perm, 1, op, "perm");
    check_size(perm.size(0), nnz, op, "perm", "size 0");
    a.wt = compressed_of(col_ptr, row, w.rows, op, "col_ptr", "row");
    check_size(a.wt.rows, input.size(1), op, "col_ptr", "size 1");
    check_size(a.wt.nnz, nnz, op, "row", "size 0");
    void* in_csc_order = room.take(values_bytes);
    STD_TORCH_CHECK(arrays.permute(dtype, dense_of(values).data_ptr(),
                                   perm.const_data_ptr<int32_t>(), nnz, in_csc_order),
                    op, ": perm must lie in [0, nnz)");
    a.values = in_csc_order;
    a.grad_input = matrix_of(grad_input, dtype);
  }
  const Tensor x = need_values ? rows_of(input) : input;
  a.x = matrix_of(x, dtype);
  if (need_values) a.grad_values = half ? room.take(values_bytes) : grad_values.data_ptr();
  if (need_bias) a.grad_bias = half ? room.take(bias_bytes) : grad_bias.data_ptr();
  gradients(a);
  if (half && need_values) arrays.narrow(dtype, a.grad_values, nnz, grad_values.data_ptr());
  if (half && need_bias) arrays.narrow(dtype, a.grad_bias, w.rows, grad_bias.data_ptr());
  if (need_values && values.size(0) > nnz) {
    Tensor tail = torch::stable::narrow(grad_values, 0, nnz, values.size(0) - nnz);
    torch::stable::zero_(tail);
  }
  return {grad_input, grad_values, grad_bias};
}

namespace {

Tensor sparse_linear(const Tensor& input, const Tensor& values, const std::optional<Tensor>& bias,
                     const Tensor& row_ptr, const Tensor& col, const Tensor&, const Tensor&,
                     const Tensor&) {
  return sparse_linear_rows(input, values, bias, row_ptr, col);  // the rest is for the backward
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("sparse_linear", TORCH_BOX(&synops::sparse_linear));
  m.impl("sparse_linear_backward", TORCH_BOX(&synops::sparse_linear_backward));
}
