// The sparse products of a weight with row blocks: working memory and the split over threads;
// kernels in row_blocks.inc and slab.inc.
//
// A group of batch blocks is packed, and every panel of the weight passes over it: panels over
// threads, but batch blocks over threads for the input gradient, which adds to shared rows.
#include "sparse/row_blocks_product.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "common/arrays.h"
#include "common/scratch.h"
#include "common/split.h"
#include "sparse/row_blocks.h"
#include "sparse/slab.h"

namespace synops {
namespace {

// Batch rows from which a panel pays: fewer leave most of a slab empty.
constexpr int64_t kLeastBatch = 8;
// Slabs that a panel passes over stay in L2.
constexpr int64_t kGroupBytes = 512 << 10;
// Panels that pass over a slab together: their rows of the output share lines and pages.
constexpr int64_t kTogether = 4;

// The widest set whose vectors a block fills, and no wider than the batch needs.
std::optional<Isa> isa_for(DType dtype, int64_t block_rows, int64_t batch) {
  for (int isa = static_cast<int>(active_isa()); isa >= 0; --isa) {
    const RowBlockKernels& k = row_blocks_kernels(static_cast<Isa>(isa));
    const bool padded = isa > static_cast<int>(Isa::kAvx2) && batch <= k.width(dtype) / 2;
    if (block_rows % k.lanes(dtype) == 0 && !padded) return static_cast<Isa>(isa);
  }
  return std::nullopt;
}

// The panels of a weight and its batch blocks, a group of them at a time.
class Blocked {
 public:
  Blocked(const Weight& w, DType dtype, int64_t batch, int64_t slab_rows, Isa isa)
      : k(row_blocks_kernels(isa)),
        slab(slab_kernels(isa)),
        dtype(dtype),
        width(k.width(dtype)),
        acc_bytes(acc_bytes_of(dtype)),
        blocks((batch + width - 1) / width),
        w_(w),
        batch_(batch),
        lanes_(k.lanes(dtype)) {
    const int64_t slab_bytes = std::max<int64_t>(1, slab_rows * width * acc_bytes);
    group = std::clamp<int64_t>(kGroupBytes / slab_bytes, 1, blocks);
    for (int64_t n = 0; n < w.csr.rows; n += w.blocks.rows * w.blocks.step)
      for (int64_t j = 0; j < w.blocks.step; ++j) most_ = std::max(most_, length(n + j));
  }

  int64_t panels() const { return w_.csr.rows / lanes_; }

  Panel panel(int64_t i) const {
    const auto [rows, step] = w_.blocks;
    const int64_t of_block = rows / lanes_;
    const int64_t block = i / of_block, first = block / step * rows * step + block % step;
    return {w_.csr.col + w_.csr.crow[first], w_.csr.crow, length(first),
            first + i % of_block * lanes_ * step, step};
  }

  // f(panels, columns of their values, count of them) for those from `begin` to `end`, together.
  template <class F>
  void for_panels(int64_t begin, int64_t end, F&& f) const {
    Scratch room(kTogether * panel_bytes());
    void* w[kTogether];
    for (void*& data : w) data = room.take(panel_bytes());
    Panel p[kTogether];
    for (int64_t i = begin; i < end; i += kTogether) {
      const int64_t count = std::min(kTogether, end - i);
      for (int64_t c = 0; c < count; ++c) p[c] = panel(i + c);
      f(p, w, count);
    }
  }

  // Bytes of the values of any panel, and of a slab of `rows` features, which is read in whole
  // vectors of features where it is written out.
  size_t panel_bytes() const { return Scratch::round_up(most_ * lanes_ * acc_bytes); }
  size_t slab_bytes(int64_t rows) const {
    return Scratch::round_up((rows + lanes_ - 1) / lanes_ * lanes_ * width * acc_bytes);
  }

  Matrix block(const Matrix& m, int64_t i) const { return block_of(m, i * width, width); }

  // f(first block, blocks) for every group.
  template <class F>
  void for_groups(F&& f) const {
    for (int64_t first = 0; first < blocks; first += group)
      f(first, std::min(group, blocks - first));
  }

  // The slabs of a group, `rows` features each.
  void pack(const Matrix& m, int64_t rows, int64_t first, int64_t count, char* slabs) const {
    split(count, threads_for(count * rows * width), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        slab.pack(block(m, first + i), 0, rows, slabs + i * slab_bytes(rows), width);
    });
  }

  int64_t threads() const { return threads_for(batch_ * w_.csr.nnz); }

  const RowBlockKernels& k;
  const SlabKernels& slab;
  const DType dtype;
  const int64_t width, acc_bytes, blocks;
  int64_t group;

 private:
  int64_t length(int64_t n) const { return w_.csr.crow[n + 1] - w_.csr.crow[n]; }

  const Weight& w_;
  const int64_t batch_, lanes_;
  int64_t most_ = 0;
};

// The columns that are read: those of the first row of each block.
bool columns_inside(const Weight& w) {
  const auto [rows, step] = w.blocks;
  bool good = true;
  for (int64_t n = 0; n < w.csr.rows; n += rows * step)
    good = good &&
           array_kernels().in_range(w.csr.col + w.csr.crow[n], w.csr.crow[n + step] - w.csr.crow[n],
                                    0, static_cast<int32_t>(w.csr.cols));
  return good;
}

}  // namespace

bool row_blocks_pay(const Weight& w, const Matrix& x) {
  return w.blocks.rows > 1 && x.rows >= kLeastBatch &&
         isa_for(x.dtype, w.blocks.rows, x.rows).has_value();
}

bool row_blocks_product(const Weight& w, const void* values, const Matrix& x, const Epilogue& e,
                        const Matrix& out) {
  if (!columns_inside(w)) return false;
  const int64_t in = w.csr.cols;
  const Blocked b(w, x.dtype, x.rows, in, *isa_for(x.dtype, w.blocks.rows, x.rows));
  Scratch slabs(b.group * b.slab_bytes(in));
  b.for_groups([&](int64_t first, int64_t count) {
    char* data = static_cast<char*>(slabs.data());
    b.pack(x, in, first, count, data);
    split(b.panels(), b.threads(), [&](int64_t begin, int64_t end) {
      b.for_panels(begin, end, [&](const Panel* p, void** w, int64_t panels) {
        for (int64_t i = 0; i < panels; ++i) b.k.gather(b.dtype, values, p[i], w[i]);
        for (int64_t c = 0; c < count; ++c)
          for (int64_t i = 0; i < panels; ++i)
            b.k.forward(p[i], w[i], data + c * b.slab_bytes(in), e, b.block(out, first + c));
      });
    });
  });
  return true;
}

bool row_blocks_gradients(const Gradients& a) {
  if (!columns_inside(a.w)) return false;
  const int64_t in = a.w.csr.cols, out = a.w.csr.rows, nnz = a.w.csr.nnz;
  const Blocked b(a.w, a.g.dtype, a.g.rows, out + 2 * in,
                  *isa_for(a.g.dtype, a.w.blocks.rows, a.g.rows));
  const bool half = is_half(b.dtype), products = a.grad_input.data != nullptr;
  const size_t g_bytes = b.group * b.slab_bytes(out), x_bytes = b.group * b.slab_bytes(in);
  const size_t sum_bytes = Scratch::round_up(nnz * b.acc_bytes);
  const size_t bias_bytes = Scratch::round_up(out * b.acc_bytes);
  Scratch room(g_bytes + x_bytes + (half ? sum_bytes + bias_bytes : 0));
  char* g = static_cast<char*>(room.take(g_bytes));
  char* x = static_cast<char*>(room.take(x_bytes));
  void* sums = half && a.grad_values != nullptr ? room.take(sum_bytes) : a.grad_values;
  void* bias = half && a.grad_bias != nullptr ? room.take(bias_bytes) : a.grad_bias;
  b.for_groups([&](int64_t first, int64_t count) {
    b.pack(a.g, out, first, count, g);
    if (bias != nullptr)
      for (int64_t c = 0; c < count; ++c)
        b.slab.row_sums(b.dtype, g + c * b.slab_bytes(out), b.width, b.width, bias, 0, out,
                        first + c > 0);
    if (products)
      split(count, b.threads(), [&](int64_t begin, int64_t end) {
        char* grad = x;
        std::memset(grad + begin * b.slab_bytes(in), 0, (end - begin) * b.slab_bytes(in));
        b.for_panels(0, b.panels(), [&](const Panel* p, void** w, int64_t panels) {
          for (int64_t i = 0; i < panels; ++i) b.k.gather(b.dtype, a.values, p[i], w[i]);
          for (int64_t c = begin; c < end; ++c)
            for (int64_t i = 0; i < panels; ++i)
              b.k.input_gradient(b.dtype, p[i], w[i], g + c * b.slab_bytes(out),
                                 grad + c * b.slab_bytes(in));
        });
        for (int64_t c = begin; c < end; ++c)
          b.slab.write(grad + c * b.slab_bytes(in), b.width, {}, b.block(a.grad_input, first + c),
                       0, in);
      });
    if (sums == nullptr) return;
    b.pack(a.x, in, first, count, x);
    split(b.panels(), b.threads(), [&](int64_t begin, int64_t end) {
      b.for_panels(begin, end, [&](const Panel* p, void** w, int64_t panels) {
        for (int64_t c = 0; c < count; ++c)
          for (int64_t i = 0; i < panels; ++i)
            b.k.value_gradient(b.dtype, p[i], x + c * b.slab_bytes(in), g + c * b.slab_bytes(out),
                               c > 0, w[i]);
        for (int64_t i = 0; i < panels; ++i) b.k.scatter(b.dtype, w[i], p[i], first > 0, sums);
      });
    });
  });
  if (half && a.grad_values != nullptr) array_kernels().narrow(b.dtype, sums, nnz, a.grad_values);
  if (half && a.grad_bias != nullptr) array_kernels().narrow(b.dtype, bias, out, a.grad_bias);
  return true;
}

}  // namespace synops
