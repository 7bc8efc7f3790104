// sparse_linear (CPU): the op on tensors, its checks and element types; the products are in
// product.cpp, their kernels in sparse_linear.inc.
#include <tuple>

#include "common/scratch.h"
#include "common/tensor.h"
#include "sparse/compressed.h"
#include "sparse/ops.h"
#include "sparse/product.h"

namespace synops {
namespace {

// (batch, features) whose memory is (features, batch).
bool is_feature_major(const Tensor& t) {
  return t.size(0) > 1 && t.size(1) > 1 && t.stride(0) == 1 && t.stride(1) >= t.size(0);
}

// Row-major or feature-major as it is, any other layout copied; few rows row-major always.
Tensor laid_out(const Tensor& t) {
  return is_feature_major(t) && t.size(0) >= kFewRows ? t : rows_of(t);
}

Matrix matrix_of(const Tensor& t, DType dtype) {
  const bool turned = is_feature_major(t);
  return {dtype, t.data_ptr(), t.stride(turned ? 1 : 0), t.size(0), turned};
}

Weight weight_of(const PatternArgs& p, int64_t in, const char* op) {
  const Csr csr = csr_unchecked(p.crow, p.col, in, op);
  const Tiled rows =
      tiled_unchecked(p.row_ptr, p.tile_col, csr.rows, in, op, "row_ptr", "tile_col");
  check_size(rows.nnz, csr.nnz, op, "tile_col", "size 0");
  Scratch room(rows.tiles > 1 ? csr.rows * sizeof(int32_t) : 0);
  check_agree(csr.crow, rows, static_cast<int32_t*>(room.data()), op);
  const RowBlocks blocks{p.block_rows, p.block_step};
  check_blocks(csr, blocks, op);
  const bool has_bits = p.bits.numel() > 0;
  if (has_bits) {
    check_tensor(p.bits, ScalarType::Long, 2, op, "bits");
    STD_TORCH_CHECK(p.bits.is_contiguous(), op, ": bits must be contiguous");
    check_size(p.bits.size(0), csr.rows, op, "bits", "size 0");
    check_size(p.bits.size(1), (in + 63) / 64, op, "bits", "size 1");
  }
  return {csr, rows, blocks,
          has_bits ? reinterpret_cast<const uint64_t*>(p.bits.const_data_ptr<int64_t>()) : nullptr};
}

}  // namespace

Tensor sparse_product(const Tensor& input, const Tensor& values, const std::optional<Tensor>& bias,
                      const PatternArgs& p, int64_t activation, bool feature_major) {
  const char* op = "sparse_linear";
  const DType dtype = dtype_of(input, op, "input");
  STD_TORCH_CHECK(input.is_cpu() && input.dim() == 2, op, ": input must be a CPU matrix");
  const Weight w = weight_of(p, input.size(1), op);
  check_tensor(values, input.scalar_type(), 1, op, "values");
  STD_TORCH_CHECK(values.size(0) >= w.csr.nnz, op, ": values must hold at least ", w.csr.nnz,
                  " elements, got ", values.size(0));
  STD_TORCH_CHECK(activation >= 0 && activation <= 2, op, ": activation must be 0, 1 or 2, got ",
                  activation);
  if (bias.has_value()) {
    check_tensor(*bias, input.scalar_type(), 1, op, "bias");
    check_size(bias->size(0), w.csr.rows, op, "bias", "size 0");
  }
  const Tensor x = laid_out(input), dense = dense_of(values);
  std::optional<Tensor> shift;
  if (bias.has_value()) shift = dense_of(*bias);
  Tensor out = empty_matrix(input.size(0), w.csr.rows, input.scalar_type(), feature_major);
  const Epilogue e{shift.has_value() ? shift->data_ptr() : nullptr,
                   static_cast<Activation>(activation)};
  STD_TORCH_CHECK(product(w, dense.data_ptr(), matrix_of(x, dtype), e, matrix_of(out, dtype)), op,
                  ": col and tile_col must lie inside the ", w.csr.cols, " columns of input");
  return out;
}

std::tuple<Tensor, Tensor, Tensor> sparse_gradients(const Tensor& grad, const Tensor& input,
                                                    const Tensor& values, const PatternArgs& p,
                                                    bool need_input, bool need_values,
                                                    bool need_bias) {
  const char* op = "sparse_linear_backward";
  const DType dtype = dtype_of(grad, op, "grad");
  STD_TORCH_CHECK(grad.is_cpu() && grad.dim() == 2, op, ": grad must be a CPU matrix");
  STD_TORCH_CHECK(input.is_cpu() && input.dim() == 2, op, ": input must be a CPU matrix");
  STD_TORCH_CHECK(input.scalar_type() == grad.scalar_type(), op,
                  ": grad and input must have the same dtype");
  Gradients a{.w = weight_of(p, input.size(1), op)};
  const Csr& w = a.w.csr;
  check_size(grad.size(0), input.size(0), op, "grad", "size 0");
  check_size(grad.size(1), w.rows, op, "grad", "size 1");
  STD_TORCH_CHECK(values.dim() == 1, op, ": values must have 1 dimension, got ", values.dim());
  STD_TORCH_CHECK(values.size(0) >= w.nnz, op, ": values must hold at least ", w.nnz,
                  " elements, got ", values.size(0));
  const Tensor g = laid_out(grad), x = need_values ? laid_out(input) : input;

  Tensor grad_input = empty_matrix(need_input ? input.size(0) : 0, need_input ? w.cols : 0,
                                   input.scalar_type(), need_input && is_feature_major(input));
  Tensor grad_values = empty({need_values ? values.size(0) : 0}, grad.scalar_type());
  Tensor grad_bias = empty({need_bias ? w.rows : 0}, grad.scalar_type());
  std::optional<Tensor> dense;
  if (need_input) {
    check_tensor(values, grad.scalar_type(), 1, op, "values");  // read here only
    check_index(p.perm, 1, op, "perm");
    check_size(p.perm.size(0), w.nnz, op, "perm", "size 0");
    a.columns = tiled_unchecked(p.col_ptr, p.tile_row, w.cols, w.rows, op, "col_ptr", "tile_row");
    check_size(a.columns.nnz, w.nnz, op, "tile_row", "size 0");
    dense = dense_of(values);
    a.values = dense->data_ptr();
    a.perm = p.perm.const_data_ptr<int32_t>();
    a.grad_input = matrix_of(grad_input, dtype);
  }
  a.g = matrix_of(g, dtype);
  a.x = matrix_of(x, dtype);
  if (need_values && w.nnz > 0) a.grad_values = grad_values.data_ptr();
  if (need_bias) a.grad_bias = grad_bias.data_ptr();
  STD_TORCH_CHECK(gradients(a), op,
                  ": col, tile_col, tile_row and perm must lie inside what they index");
  if (need_values && values.size(0) > w.nnz) {
    Tensor tail = torch::stable::narrow(grad_values, 0, w.nnz, values.size(0) - w.nnz);
    torch::stable::zero_(tail);
  }
  return {grad_input, grad_values, grad_bias};
}

namespace {

Tensor sparse_linear(const Tensor& input, const Tensor& values, const std::optional<Tensor>& bias,
                     const Tensor& crow, const Tensor& col, const Tensor& row_ptr,
                     const Tensor& tile_col, const Tensor& col_ptr, const Tensor& tile_row,
                     const Tensor& perm, const Tensor& bits, int64_t block_rows, int64_t block_step,
                     int64_t activation, bool feature_major) {
  return sparse_product(
      input, values, bias,
      {crow, col, row_ptr, tile_col, col_ptr, tile_row, perm, bits, block_rows, block_step},
      activation, feature_major);
}

std::tuple<Tensor, Tensor, Tensor> sparse_linear_backward(
    const Tensor& grad, const Tensor& input, const Tensor& values, const Tensor& crow,
    const Tensor& col, const Tensor& row_ptr, const Tensor& tile_col, const Tensor& col_ptr,
    const Tensor& tile_row, const Tensor& perm, const Tensor& bits, int64_t block_rows,
    int64_t block_step, bool need_input, bool need_values, bool need_bias) {
  return sparse_gradients(
      grad, input, values,
      {crow, col, row_ptr, tile_col, col_ptr, tile_row, perm, bits, block_rows, block_step},
      need_input, need_values, need_bias);
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("sparse_linear", TORCH_BOX(&synops::sparse_linear));
  m.impl("sparse_linear_backward", TORCH_BOX(&synops::sparse_linear_backward));
}
