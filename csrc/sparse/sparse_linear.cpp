// sparse_linear (CPU): checks, working memory and the split over threads; kernels in
// sparse_linear.inc.
//
// Split: a group of batch blocks, one per thread, is packed and then multiplied, each block by all
// its rows or by chunks of them. Neither the blocks nor the order of any sum depends on the number of
// threads.
#include <algorithm>
#include <cstring>
#include <tuple>

#include "common/arrays.h"
#include "common/scratch.h"
#include "common/tensor.h"
#include "sparse/compressed.h"
#include "sparse/ops.h"
#include "sparse/product.h"

namespace synops {
namespace {

// Below this many rows a slab does not pay: a vector of batch rows would be mostly padding.
constexpr int64_t kFewRows = 4;
// Work items (multiply-adds) that are worth a second thread; a fork costs 1 to 10 us.
constexpr int64_t kGrain = 1 << 16;

int64_t threads_for(int64_t work) {
  return std::clamp<int64_t>(work / kGrain, 1, torch::stable::get_num_threads());
}

// f(begin, end) over [0, n) in at most `parts` pieces.
template <class F>
void split(int64_t n, int64_t parts, F&& f) {
  if (parts <= 1 || n <= 1) return f(int64_t{0}, n);
  torch::stable::parallel_for(0, n, (n + parts - 1) / parts, f);
}

// f(block, part) for every block of a group and every one of `parts` parts of it.
template <class F>
void split_group(int64_t blocks, int64_t parts, int64_t threads, F&& f) {
  split(blocks * parts, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i / parts, i % parts);
  });
}

int64_t part_begin(int64_t n, int64_t part, int64_t parts, int64_t align) {
  return std::min(n, (n * part / parts + align - 1) / align * align);
}

Matrix block_of(const Matrix& m, int64_t begin, int64_t width) {
  const size_t offset = static_cast<size_t>(begin * m.ld) * bytes_of(m.dtype);
  return {m.dtype, static_cast<char*>(m.data) + offset, m.ld, std::min(width, m.rows - begin)};
}

}  // namespace

void product(const Compressed& w, const void* values, const Matrix& x, int64_t in,
             const void* bias, const Matrix& out) {
  if (out.rows == 0 || w.rows == 0) return;
  const SparseLinearKernels& k = sparse_linear_kernels();
  const int64_t nnz = w.nnz;
  const int64_t threads = threads_for(out.rows * nnz + out.rows * (in + w.rows));
  if (out.rows < kFewRows) {
    split(w.rows, threads, [&](int64_t n0, int64_t n1) { k.spmv(w, values, x, bias, out, n0, n1); });
    return;
  }
  const int64_t width = k.width(x.dtype, out.rows, w.tiles > 1 ? 4 : 2);
  const int64_t blocks = (out.rows + width - 1) / width;
  const int64_t group = std::min(blocks, threads);
  const int64_t parts = group == threads ? 1 : (threads + group - 1) / group * 2;
  const size_t row_bytes = static_cast<size_t>(width) * acc_bytes_of(x.dtype);
  const size_t slab_bytes = Scratch::round_up(in * row_bytes);
  const size_t partial_bytes = Scratch::round_up((w.rows + 16 * parts) * row_bytes);
  Scratch scratch(group * (slab_bytes + partial_bytes));
  char* slabs = static_cast<char*>(scratch.take(group * slab_bytes));
  char* partials = static_cast<char*>(scratch.take(group * partial_bytes));
  for (int64_t first = 0; first < blocks; first += group) {
    const int64_t count = std::min(group, blocks - first);
    split_group(count, parts, threads, [&](int64_t block, int64_t part) {
      k.pack(block_of(x, (first + block) * width, width), part_begin(in, part, parts, 16),
             part_begin(in, part + 1, parts, 16), slabs + block * slab_bytes, width);
    });
    split_group(count, parts, threads, [&](int64_t block, int64_t part) {
      const int64_t n0 = part_begin(w.rows, part, parts, 16);
      const int64_t n1 = part_begin(w.rows, part + 1, parts, 16);
      k.spmm(w, values, slabs + block * slab_bytes, width, bias,
             block_of(out, (first + block) * width, width), n0, n1,
             partials + block * partial_bytes + n0 * row_bytes);
    });
  }
}

void value_gradient(const Compressed& w, const Matrix& g, const Matrix& x, int64_t in, void* grad,
                    void* grad_bias) {
  const SparseLinearKernels& k = sparse_linear_kernels();
  const int64_t threads = threads_for(g.rows * w.nnz + g.rows * (in + w.rows));
  if (g.rows < kFewRows) {
    if (g.rows == 0 && grad != nullptr) std::memset(grad, 0, w.nnz * acc_bytes_of(g.dtype));
    split(w.rows, threads,
          [&](int64_t n0, int64_t n1) { k.outer(w, g, x, grad, grad_bias, n0, n1); });
    return;
  }
  const int64_t width = k.width(g.dtype, g.rows, 2);
  const int64_t blocks = (g.rows + width - 1) / width;
  const size_t row_bytes = static_cast<size_t>(width) * acc_bytes_of(g.dtype);
  const size_t g_bytes = Scratch::round_up(w.rows * row_bytes);
  Scratch scratch(g_bytes + Scratch::round_up(in * row_bytes));
  void* g_slab = scratch.take(g_bytes);
  void* x_slab = scratch.take(in * row_bytes);
  const int64_t parts = threads == 1 ? 1 : 2 * threads;
  for (int64_t block = 0; block < blocks; ++block) {
    split_group(1, parts, threads, [&](int64_t, int64_t part) {
      k.pack(block_of(g, block * width, width), part_begin(w.rows, part, parts, 16),
             part_begin(w.rows, part + 1, parts, 16), g_slab, width);
      if (grad != nullptr)
        k.pack(block_of(x, block * width, width), part_begin(in, part, parts, 16),
               part_begin(in, part + 1, parts, 16), x_slab, width);
    });
    split_group(1, parts, threads, [&](int64_t, int64_t part) {
      const int64_t n0 = part_begin(w.rows, part, parts, 16);
      const int64_t n1 = part_begin(w.rows, part + 1, parts, 16);
      if (grad != nullptr)
        k.sddmm(g.dtype, w, g_slab, x_slab, width, grad, n0, n1, block > 0);
      if (grad_bias != nullptr)
        k.row_sums(g.dtype, g_slab, width, grad_bias, n0, n1, block > 0);
    });
  }
}

namespace {

Matrix matrix_of(const Tensor& t, DType dtype) {
  return {dtype, t.data_ptr(), t.stride(0), t.size(0)};
}

// values in the arithmetic type: themselves, or a copy in `room`.
const void* widened(const Tensor& values, DType dtype, int64_t nnz, void* room) {
  if (!is_half(dtype)) return values.data_ptr();
  array_kernels().widen(dtype, values.data_ptr(), nullptr, nnz, room);
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
  const Tensor x = rows_of(input);
  Tensor out = empty({input.size(0), w.rows}, input.scalar_type());
  Scratch room(is_half(dtype) ? w.nnz * sizeof(float) : 0);
  const void* v = widened(values, dtype, w.nnz, room.take(0));
  product(w, v, matrix_of(x, dtype), input.size(1), bias.has_value() ? bias->data_ptr() : nullptr,
          matrix_of(out, dtype));
  return out;
}

std::tuple<Tensor, Tensor, Tensor> sparse_linear_backward(
    const Tensor& grad, const Tensor& input, const Tensor& values, const Tensor& row_ptr,
    const Tensor& col, const Tensor& col_ptr, const Tensor& row, const Tensor& perm,
    bool need_input, bool need_values, bool need_bias) {
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
  check_tensor(values, grad.scalar_type(), 1, op, "values");
  STD_TORCH_CHECK(values.size(0) >= nnz, op, ": values must hold at least ", nnz,
                  " elements, got ", values.size(0));
  const Tensor g = rows_of(grad);
  const ArrayKernels& arrays = array_kernels();

  Tensor grad_input = empty(
      {need_input ? input.size(0) : 0, need_input ? input.size(1) : 0}, input.scalar_type());
  if (need_input) {
    const Compressed wt = compressed_of(col_ptr, row, w.rows, op, "col_ptr", "row");
    check_size(wt.rows, input.size(1), op, "col_ptr", "size 1");
    check_tensor(perm, ScalarType::Int, 1, op, "perm");
    check_size(perm.size(0), nnz, op, "perm", "size 0");
    check_size(row.size(0), nnz, op, "row", "size 0");
    const int32_t* order = perm.const_data_ptr<int32_t>();
    STD_TORCH_CHECK(arrays.in_range(order, nnz, 0, static_cast<int32_t>(nnz)), op,
                    ": perm must lie in [0, nnz)");
    Scratch room(nnz * acc_bytes_of(dtype));
    void* v = room.take(0);
    arrays.widen(dtype, values.data_ptr(), order, nnz, v);
    product(wt, v, matrix_of(g, dtype), w.rows, nullptr, matrix_of(grad_input, dtype));
  }

  Tensor grad_values = empty({need_values ? values.size(0) : 0}, grad.scalar_type());
  Tensor grad_bias = empty({need_bias ? w.rows : 0}, grad.scalar_type());
  if (need_values || need_bias) {
    const Tensor x = rows_of(input);
    const bool half = is_half(dtype);
    Scratch room(half ? (nnz + w.rows + 32) * sizeof(float) : 0);
    void* v = !need_values ? nullptr
              : half       ? room.take(nnz * sizeof(float))
                           : grad_values.data_ptr();
    void* b = !need_bias ? nullptr : half ? room.take(0) : grad_bias.data_ptr();
    value_gradient(w, matrix_of(g, dtype), matrix_of(x, dtype), input.size(1), v, b);
    if (half && need_values) arrays.narrow(dtype, v, nnz, grad_values.data_ptr());
    if (half && need_bias) arrays.narrow(dtype, b, w.rows, grad_bias.data_ptr());
    if (need_values && values.size(0) > nnz) {
      Tensor tail = torch::stable::narrow(grad_values, 0, nnz, values.size(0) - nnz);
      torch::stable::zero_(tail);
    }
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
