// pattern (CPU): checks and outputs of the ops behind synops.sparse.Pattern; kernels in
// pattern.inc.
#include "sparse/pattern.h"

#include <limits>
#include <tuple>

#include "sparse/compressed.h"
#include "sparse/ops.h"

namespace synops {
namespace {

constexpr int64_t kMax = std::numeric_limits<int32_t>::max();

// f(first row, last row) over threads, at least 64k elements of the dense matrix each.
template <class F>
void split_rows(int64_t rows, int64_t cols, F&& f) {
  torch::stable::parallel_for(0, rows, std::max<int64_t>(1, 65536 / std::max<int64_t>(1, cols)), f);
}

void check_csr(const Tensor& crow, const Tensor& col, int64_t in_features, const char* op) {
  check_index(crow, 1, op, "crow");
  check_index(col, 1, op, "col");
  const int64_t rows = crow.size(0) - 1, nnz = col.size(0);
  STD_TORCH_CHECK(rows >= 0 && rows < kMax && nnz < kMax && in_features >= 0 && in_features < kMax,
                  op, ": sizes must fit in int32, and crow must have out_features + 1 elements");
  const int32_t* c = crow.const_data_ptr<int32_t>();
  const int32_t* i = col.const_data_ptr<int32_t>();
  STD_TORCH_CHECK(c[0] == 0 && c[rows] == nnz && array_kernels().not_above(c, c + 1, rows), op,
                  ": crow must ascend from 0 to nnz = ", nnz);
  const int64_t bad = pattern_kernels().first_unsorted(c, i, rows, in_features);
  STD_TORCH_CHECK(bad < 0, op, ": col must ascend strictly inside each row and lie in [0, ",
                  in_features, "), got ", bad < 0 ? 0 : i[bad], " at position ", bad);
}

Tensor tile_pointers(const int32_t* crow, const int32_t* col, int64_t rows, int64_t cols,
                     int64_t nnz) {
  const int64_t tiles = tiles_of(rows, cols, nnz);
  Tensor ptr = empty({tiles + 1, rows}, ScalarType::Int);
  pattern_kernels().tile(crow, col, rows, tiles, ptr.mutable_data_ptr<int32_t>());
  return ptr;
}

}  // namespace

std::tuple<Tensor, Tensor> pattern_from_mask(const Tensor& mask) {
  check_tensor(mask, ScalarType::Bool, 2, "pattern_from_mask", "mask");
  const int64_t rows = mask.size(0), cols = mask.size(1);
  STD_TORCH_CHECK(rows < kMax && cols < kMax, "pattern_from_mask: sizes must fit in int32");
  const Tensor dense = dense_of(mask);
  const uint8_t* m = static_cast<const uint8_t*>(dense.data_ptr());
  const PatternKernels& k = pattern_kernels();
  Tensor crow = empty({rows + 1}, ScalarType::Int);
  int32_t* c = crow.mutable_data_ptr<int32_t>();
  split_rows(rows, cols, [&](int64_t n0, int64_t n1) { k.count(m, cols, n0, n1, c + 1); });
  int64_t nnz = 0;
  c[0] = 0;
  for (int64_t n = 1; n <= rows; ++n) {
    nnz += c[n];
    STD_TORCH_CHECK(nnz < kMax, "pattern_from_mask: 2^31 - 1 True entries or more");
    c[n] = static_cast<int32_t>(nnz);
  }
  Tensor col = empty({nnz}, ScalarType::Int);
  int32_t* out = col.mutable_data_ptr<int32_t>();
  split_rows(rows, cols, [&](int64_t n0, int64_t n1) { k.fill(m, cols, n0, n1, c, out); });
  return {crow, col};
}

Tensor pattern_rows(const Tensor& crow, const Tensor& col, int64_t in_features) {
  return tile_pointers(crow.const_data_ptr<int32_t>(), col.const_data_ptr<int32_t>(),
                       crow.size(0) - 1, in_features, col.size(0));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> pattern_plan(const Tensor& crow, const Tensor& col,
                                                        int64_t in_features) {
  check_csr(crow, col, in_features, "pattern_plan");
  const int64_t rows = crow.size(0) - 1, nnz = col.size(0);
  const PatternKernels& k = pattern_kernels();
  const int32_t* c = crow.const_data_ptr<int32_t>();
  const int32_t* i = col.const_data_ptr<int32_t>();
  Tensor row_ptr = tile_pointers(c, i, rows, in_features, nnz);
  Tensor ccol = empty({in_features + 1}, ScalarType::Int);
  Tensor row = empty({nnz}, ScalarType::Int);
  Tensor perm = empty({nnz}, ScalarType::Int);
  int32_t* cc = ccol.mutable_data_ptr<int32_t>();
  int32_t* r = row.mutable_data_ptr<int32_t>();
  k.transpose(c, i, rows, in_features, cc, r, perm.mutable_data_ptr<int32_t>());
  Tensor col_ptr = tile_pointers(cc, r, in_features, rows, nnz);
  return {row_ptr, col_ptr, row, perm};
}

Tensor pattern_gather(const Tensor& weight, const Tensor& row_ptr, const Tensor& col) {
  const char* op = "pattern_gather";
  const DType dtype = dtype_of(weight, op, "weight");
  check_tensor(weight, weight.scalar_type(), 2, op, "weight");
  const int64_t cols = weight.size(1);
  const Compressed w = compressed_of(row_ptr, col, cols, op, "row_ptr", "col");
  check_size(weight.size(0), w.rows, op, "weight", "size 0");
  const Tensor dense = dense_of(weight);
  Tensor values = empty({w.nnz}, weight.scalar_type());
  split_rows(w.rows, cols, [&](int64_t n0, int64_t n1) {
    pattern_kernels().gather(dtype, dense.data_ptr(), cols, w.ptr, w.end(), w.index, n0, n1,
                             values.data_ptr());
  });
  return values;
}

Tensor pattern_scatter(const Tensor& values, const Tensor& row_ptr, const Tensor& col,
                       int64_t in_features) {
  const char* op = "pattern_scatter";
  const DType dtype = dtype_of(values, op, "values");
  check_tensor(values, values.scalar_type(), 1, op, "values");
  STD_TORCH_CHECK(in_features >= 0, op, ": in_features must be at least 0");
  const Compressed w = compressed_of(row_ptr, col, in_features, op, "row_ptr", "col");
  STD_TORCH_CHECK(values.size(0) >= w.nnz, op, ": values must hold at least ", w.nnz,
                  " elements, got ", values.size(0));
  const Tensor dense = dense_of(values);
  Tensor out = empty({w.rows, in_features}, values.scalar_type());
  split_rows(w.rows, in_features, [&](int64_t n0, int64_t n1) {
    pattern_kernels().scatter(dtype, dense.data_ptr(), in_features, w.ptr, w.end(), w.index, n0, n1,
                              out.data_ptr());
  });
  return out;
}

}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("pattern_from_mask", TORCH_BOX(&synops::pattern_from_mask));
  m.impl("pattern_plan", TORCH_BOX(&synops::pattern_plan));
  m.impl("pattern_gather", TORCH_BOX(&synops::pattern_gather));
  m.impl("pattern_scatter", TORCH_BOX(&synops::pattern_scatter));
}
