// The sparse products on raw pointers: working memory and the split over threads; kernels in
// sparse_linear.inc.
//
// Split: a group of batch blocks, one per thread, is packed and then multiplied, each block by all
// its rows or by chunks of them. Neither the blocks nor the order of any sum depends on the number
// of threads.
#include "sparse/product.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>

#include "common/scratch.h"

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

// Parts begin at multiples of 16, the most lanes there are: a tile is never split.
int64_t part_begin(int64_t n, int64_t part, int64_t parts) {
  return std::min(n, (n * part / parts + 15) / 16 * 16);
}

Matrix block_of(const Matrix& m, int64_t begin, int64_t width) {
  const size_t offset = static_cast<size_t>(begin * m.ld) * bytes_of(m.dtype);
  return {m.dtype, static_cast<char*>(m.data) + offset, m.ld, std::min(width, m.rows - begin)};
}

// Slab widths in vectors: see the speed note in sparse_linear.inc.
int64_t slab_vectors(const Compressed& w) { return w.tiles > 1 ? 4 : 2; }

// The product by slabs. after(block, slab) sees every packed block of x before it is overwritten.
template <class After>
void slab_product(const Compressed& w, const void* values, const Matrix& x, int64_t in,
                  const void* bias, const Matrix& out, After&& after) {
  const SparseLinearKernels& k = sparse_linear_kernels();
  const int64_t threads = threads_for(x.rows * (w.nnz + in + w.rows));
  const int64_t width = k.width(x.dtype, x.rows, slab_vectors(w));
  const int64_t blocks = (x.rows + width - 1) / width;
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
      k.pack(block_of(x, (first + block) * width, width), part_begin(in, part, parts),
             part_begin(in, part + 1, parts), slabs + block * slab_bytes, width);
    });
    split_group(count, parts, threads, [&](int64_t block, int64_t part) {
      const int64_t n0 = part_begin(w.rows, part, parts);
      k.spmm(w, values, slabs + block * slab_bytes, width, bias,
             block_of(out, (first + block) * width, width), n0, part_begin(w.rows, part + 1, parts),
             partials + block * partial_bytes + n0 * row_bytes);
    });
    for (int64_t block = 0; block < count; ++block)
      after(first + block, slabs + block * slab_bytes);
  }
}

// Adds up grad and grad_bias, block of batch rows by block.
class ValueGradient {
 public:
  ValueGradient(const Compressed& w, const Matrix& g, const Matrix& x, int64_t in, void* grad,
                void* grad_bias)
      : w_(w),
        g_(g),
        x_(x),
        in_(in),
        grad_(grad),
        grad_bias_(grad_bias),
        width_(k_.width(g.dtype, g.rows, slab_vectors(w))),
        threads_(threads_for(g.rows * (w.nnz + in + w.rows))),
        parts_(threads_ == 1 ? 1 : 2 * threads_),
        x_slab_(in * row_bytes()) {}

  // With the slab of the block of g.
  void add(int64_t block, const void* g_slab) {
    void* x_slab = x_slab_.data();
    if (grad_ != nullptr) pack(x_, in_, block, x_slab);
    split_parts([&](int64_t part) {
      const int64_t n0 = part_begin(w_.rows, part, parts_);
      const int64_t n1 = part_begin(w_.rows, part + 1, parts_);
      if (grad_ != nullptr)
        k_.sddmm(g_.dtype, w_, g_slab, x_slab, width_, grad_, n0, n1, block > 0);
      if (grad_bias_ != nullptr)
        k_.row_sums(g_.dtype, g_slab, width_, grad_bias_, n0, n1, block > 0);
    });
  }

  void add_all() {
    Scratch g_slab(w_.rows * row_bytes());
    for (int64_t block = 0; block * width_ < g_.rows; ++block) {
      pack(g_, w_.rows, block, g_slab.data());
      add(block, g_slab.data());
    }
  }

 private:
  size_t row_bytes() const { return static_cast<size_t>(width_) * acc_bytes_of(g_.dtype); }

  template <class F>
  void split_parts(F&& f) {
    split_group(1, parts_, threads_, [&](int64_t, int64_t part) { f(part); });
  }

  void pack(const Matrix& m, int64_t columns, int64_t block, void* slab) {
    split_parts([&](int64_t part) {
      k_.pack(block_of(m, block * width_, width_), part_begin(columns, part, parts_),
              part_begin(columns, part + 1, parts_), slab, width_);
    });
  }

  const SparseLinearKernels& k_ = sparse_linear_kernels();
  const Compressed& w_;
  const Matrix &g_, &x_;
  const int64_t in_;
  void *grad_, *grad_bias_;
  const int64_t width_, threads_, parts_;
  Scratch x_slab_;
};

}  // namespace

void product(const Compressed& w, const void* values, const Matrix& x, int64_t in, const void* bias,
             const Matrix& out) {
  if (x.rows == 0 || w.rows == 0) return;
  if (x.rows >= kFewRows) {
    slab_product(w, values, x, in, bias, out, [](int64_t, const void*) {});
    return;
  }
  split(w.rows, threads_for(x.rows * w.nnz), [&](int64_t n0, int64_t n1) {
    sparse_linear_kernels().spmv(w, values, x, bias, out, n0, n1);
  });
}

void gradients(const Gradients& a) {
  const int64_t out = a.w.rows, in = a.wt.rows;
  const bool sums = a.grad_values != nullptr || a.grad_bias != nullptr;
  const bool products = a.grad_input.data != nullptr;
  if (a.g.rows < kFewRows) {
    if (products) product(a.wt, a.values, a.g, out, nullptr, a.grad_input);
    if (a.g.rows == 0 && a.grad_values != nullptr)
      std::memset(a.grad_values, 0, a.w.nnz * acc_bytes_of(a.g.dtype));
    if (!sums) return;
    split(out, threads_for(a.g.rows * a.w.nnz), [&](int64_t n0, int64_t n1) {
      sparse_linear_kernels().outer(a.w, a.g, a.x, a.grad_values, a.grad_bias, n0, n1);
    });
    return;
  }
  if (!sums) {
    if (products) product(a.wt, a.values, a.g, out, nullptr, a.grad_input);
    return;
  }
  ValueGradient value_gradient(a.w, a.g, a.x, in, a.grad_values, a.grad_bias);
  if (products && slab_vectors(a.wt) == slab_vectors(a.w) && in > 0) {
    // Both products want the same slabs of g: packed once, 18 us of 330 at density .01.
    slab_product(a.wt, a.values, a.g, out, nullptr, a.grad_input,
                 [&](int64_t block, const void* slab) { value_gradient.add(block, slab); });
    return;
  }
  if (products) product(a.wt, a.values, a.g, out, nullptr, a.grad_input);
  value_gradient.add_all();
}

}  // namespace synops
