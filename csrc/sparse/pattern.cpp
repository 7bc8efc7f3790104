// pattern (CPU): checks and outputs of the ops behind synops.sparse.Pattern; kernels in
// pattern.inc.
#include "sparse/pattern.h"

#include <tuple>

#include "sparse/ops.h"
#include "sparse/sorted.h"

namespace synops {
namespace {

// f(first row, last row) over threads, at least 64k elements of the dense matrix each.
template <class F>
void split_rows(int64_t rows, int64_t cols, F&& f) {
  torch::stable::parallel_for(0, rows, std::max<int64_t>(1, 65536 / std::max<int64_t>(1, cols)), f);
}

uint16_t* index_data(Tensor& t) {
  return reinterpret_cast<uint16_t*>(t.mutable_data_ptr<int16_t>());
}

std::tuple<Tensor, Tensor> by_rows(const Csr& w) {
  const int64_t tiles = tiles_of(w.rows, w.cols, w.nnz);
  Tensor ptr = empty({tiles * w.rows + 1}, ScalarType::Int);
  Tensor index = empty({w.nnz}, ScalarType::Short);
  pattern_kernels().by_rows(w, tiles, ptr.mutable_data_ptr<int32_t>(), index_data(index));
  return {ptr, index};
}

}  // namespace

std::tuple<Tensor, Tensor> pattern_from_mask(const Tensor& mask) {
  check_tensor(mask, ScalarType::Bool, 2, "pattern_from_mask", "mask");
  const int64_t rows = mask.size(0), cols = mask.size(1);
  STD_TORCH_CHECK(rows < kMaxIndex && cols < kMaxIndex,
                  "pattern_from_mask: sizes must fit in int32");
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
    STD_TORCH_CHECK(nnz < kMaxIndex, "pattern_from_mask: 2^31 - 1 True entries or more");
    c[n] = static_cast<int32_t>(nnz);
  }
  Tensor col = empty({nnz}, ScalarType::Int);
  int32_t* out = col.mutable_data_ptr<int32_t>();
  split_rows(rows, cols, [&](int64_t n0, int64_t n1) { k.fill(m, cols, n0, n1, c, out); });
  return {crow, col};
}

std::tuple<Tensor, Tensor> pattern_rows(const Tensor& crow, const Tensor& col,
                                        int64_t in_features) {
  return by_rows(csr_of(crow, col, in_features, "pattern_rows"));
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> pattern_plan(const Tensor& crow,
                                                                const Tensor& col,
                                                                int64_t in_features) {
  const Csr w = sorted_csr(crow, col, in_features, "pattern_plan");
  const auto [row_ptr, tile_col] = by_rows(w);
  const int64_t tiles = tiles_of(w.cols, w.rows, w.nnz);
  Tensor col_ptr = empty({tiles * w.cols + 1}, ScalarType::Int);
  Tensor tile_row = empty({w.nnz}, ScalarType::Short);
  Tensor perm = empty({w.nnz}, ScalarType::Int);
  pattern_kernels().by_columns(w, tiles, col_ptr.mutable_data_ptr<int32_t>(), index_data(tile_row),
                               perm.mutable_data_ptr<int32_t>());
  return {row_ptr, tile_col, col_ptr, tile_row, perm};
}

Tensor pattern_bits(const Tensor& crow, const Tensor& col, int64_t in_features) {
  STD_TORCH_CHECK(in_features >= 0, "pattern_bits: in_features must be at least 0");
  const Csr w = csr_of(crow, col, in_features, "pattern_bits");
  const int64_t words = (in_features + 63) / 64;
  Tensor out = empty({w.rows, words}, ScalarType::Long);
  uint64_t* bits = reinterpret_cast<uint64_t*>(out.mutable_data_ptr<int64_t>());
  split_rows(w.rows, w.cols,
             [&](int64_t n0, int64_t n1) { pattern_kernels().bits(w, n0, n1, words, bits); });
  return out;
}

Tensor pattern_blocks(const Tensor& crow, const Tensor& col) {
  const Csr w = csr_of(crow, col, kMaxIndex - 1, "pattern_blocks");
  Tensor out = empty({1}, ScalarType::Int);
  int32_t& rows = *out.mutable_data_ptr<int32_t>();
  rows = 1;
  for (const int64_t more : {8, 16, 32, 64, 128}) {
    if (w.rows == 0 || w.rows % more != 0 || !pattern_kernels().equal_rows(w, more)) break;
    rows = static_cast<int32_t>(more);
  }
  return out;
}

Tensor pattern_gather(const Tensor& weight, const Tensor& crow, const Tensor& col) {
  const char* op = "pattern_gather";
  const DType dtype = dtype_of(weight, op, "weight");
  check_tensor(weight, weight.scalar_type(), 2, op, "weight");
  const Csr w = csr_of(crow, col, weight.size(1), op);
  check_size(weight.size(0), w.rows, op, "weight", "size 0");
  const Tensor dense = dense_of(weight);
  Tensor values = empty({w.nnz}, weight.scalar_type());
  split_rows(w.rows, w.cols, [&](int64_t n0, int64_t n1) {
    pattern_kernels().gather(dtype, dense.data_ptr(), w, n0, n1, values.data_ptr());
  });
  return values;
}

Tensor pattern_scatter(const Tensor& values, const Tensor& crow, const Tensor& col,
                       int64_t in_features) {
  const char* op = "pattern_scatter";
  const DType dtype = dtype_of(values, op, "values");
  check_tensor(values, values.scalar_type(), 1, op, "values");
  STD_TORCH_CHECK(in_features >= 0, op, ": in_features must be at least 0");
  const Csr w = csr_of(crow, col, in_features, op);
  STD_TORCH_CHECK(values.size(0) >= w.nnz, op, ": values must hold at least ", w.nnz,
                  " elements, got ", values.size(0));
  const Tensor dense = dense_of(values);
  Tensor out = empty({w.rows, in_features}, values.scalar_type());
  split_rows(w.rows, in_features, [&](int64_t n0, int64_t n1) {
    pattern_kernels().scatter(dtype, dense.data_ptr(), w, n0, n1, out.data_ptr());
  });
  return out;
}

namespace {

// select (n,), bool, with `count` True entries.
const uint8_t* check_select(const Tensor& select, int64_t count, const char* op) {
  check_tensor(select, ScalarType::Bool, 1, op, "select");
  STD_TORCH_CHECK(select.is_contiguous(), op, ": select must be contiguous");
  const uint8_t* s = static_cast<const uint8_t*>(select.data_ptr());
  int32_t found = 0;
  pattern_kernels().count(s, select.size(0), 0, 1, &found);
  STD_TORCH_CHECK(select.size(0) <= kMaxIndex && found == count, op, ": select must have ", count,
                  " True entries, got ", found);
  return s;
}

std::tuple<Tensor, Tensor> pattern_split(const Tensor& values, const Tensor& select,
                                         int64_t count) {
  const char* op = "pattern_split";
  const DType dtype = dtype_of(values, op, "values");
  check_tensor(values, values.scalar_type(), 1, op, "values");
  const uint8_t* s = check_select(select, count, op);
  const int64_t n = select.size(0);
  STD_TORCH_CHECK(values.size(0) >= n, op, ": values must hold at least ", n, " elements, got ",
                  values.size(0));
  const Tensor dense = dense_of(values);
  Tensor selected = empty({count}, values.scalar_type());
  Tensor rest = empty({n - count}, values.scalar_type());
  pattern_kernels().split(bytes_of(dtype), dense.data_ptr(), s, n, count, selected.data_ptr(),
                          rest.data_ptr());
  return {selected, rest};
}

Tensor pattern_merge(const Tensor& selected, const Tensor& rest, const Tensor& select) {
  const char* op = "pattern_merge";
  const DType dtype = dtype_of(selected, op, "selected");
  check_tensor(selected, selected.scalar_type(), 1, op, "selected");
  check_tensor(rest, selected.scalar_type(), 1, op, "rest");
  const uint8_t* s = check_select(select, selected.size(0), op);
  const int64_t n = select.size(0);
  check_size(rest.size(0), n - selected.size(0), op, "rest", "size 0");
  const Tensor one = dense_of(selected), other = dense_of(rest);
  Tensor values = empty({n}, selected.scalar_type());
  pattern_kernels().merge(bytes_of(dtype), one.data_ptr(), other.data_ptr(), s, n, selected.size(0),
                          values.data_ptr());
  return values;
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("pattern_from_mask", TORCH_BOX(&synops::pattern_from_mask));
  m.impl("pattern_plan", TORCH_BOX(&synops::pattern_plan));
  m.impl("pattern_bits", TORCH_BOX(&synops::pattern_bits));
  m.impl("pattern_blocks", TORCH_BOX(&synops::pattern_blocks));
  m.impl("pattern_split", TORCH_BOX(&synops::pattern_split));
  m.impl("pattern_merge", TORCH_BOX(&synops::pattern_merge));
  m.impl("pattern_gather", TORCH_BOX(&synops::pattern_gather));
  m.impl("pattern_scatter", TORCH_BOX(&synops::pattern_scatter));
}
