// The gradients of the product on raw pointers, by the layout that fits the batch; kernels in
// sparse_linear.inc, slab.inc, few_rows.inc and row_blocks.inc.
#include <atomic>
#include <cstring>
#include <optional>

#include "common/arrays.h"
#include "common/scratch.h"
#include "sparse/compressed.h"
#include "sparse/few_rows.h"
#include "sparse/product.h"
#include "sparse/row_blocks_product.h"
#include "sparse/slab_product.h"

namespace synops {
namespace {

// Adds up the gradients of the values (in the order of w) and of the bias, block of batch rows by
// block; both in the arithmetic type.
class ValueGradient {
 public:
  ValueGradient(const Kernels& k, const Tiled& w, const Matrix& g, const Matrix& x, void* grad,
                void* grad_bias, int64_t most, bool near)
      : k_(k),
        w_(w),
        dtype_(g.dtype),
        g_(k, g, w.rows, most, near),
        x_(k, x, w.cols, most, near),
        grad_(grad),
        grad_bias_(grad_bias),
        threads_(threads_for(g.rows * (w.nnz + w.cols + w.rows))),
        parts_(threads_ == 1 ? 1 : 2 * threads_),
        x_slab_(x_.bytes()) {}

  // With the slab of the block of g.
  void add(int64_t block, const Slab& g) {
    if (grad_ != nullptr) pack(x_, block, x_slab_.data());
    const Slab x = x_.slab(block, x_slab_.data());
    split_parts([&](int64_t part) {
      const int64_t n0 = part_begin(w_.rows, part, parts_);
      const int64_t n1 = part_begin(w_.rows, part + 1, parts_);
      if (grad_ != nullptr) k_.linear.sddmm(dtype_, w_, g, x, grad_, n0, n1, block > 0);
      if (grad_bias_ != nullptr)
        k_.slab.row_sums(dtype_, g.data, g.width, g.ld, grad_bias_, n0, n1, block > 0);
    });
  }

  void add_all() {
    Scratch g_slab(g_.bytes());
    for (int64_t block = 0; block < g_.count(); ++block) {
      pack(g_, block, g_slab.data());
      add(block, g_.slab(block, g_slab.data()));
    }
  }

 private:
  template <class F>
  void split_parts(F&& f) {
    split_group(1, parts_, threads_, [&](int64_t, int64_t part) { f(part); });
  }

  void pack(const Blocks& blocks, int64_t block, void* slab) {
    split_parts([&](int64_t part) { blocks.pack(block, part, parts_, slab); });
  }

  const Kernels& k_;
  const Tiled& w_;
  const DType dtype_;
  const Blocks g_, x_;
  void *grad_, *grad_bias_;
  const int64_t threads_, parts_;
  Scratch x_slab_;
};

// out[j] = values[perm[j]] in the arithmetic type; false when an index is outside [0, nnz).
bool permuted(DType dtype, const void* values, const int32_t* perm, int64_t nnz, void* out) {
  std::atomic<bool> good = true;
  split(nnz, threads_for(4 * nnz), [&](int64_t begin, int64_t end) {
    if (!array_kernels().permute(dtype, values, nnz, perm + begin, end - begin,
                                 static_cast<char*>(out) + begin * acc_bytes_of(dtype)))
      good = false;
  });
  return good;
}

// What gradients() makes room for.
struct Room {
  const void* by_column;  // values in the order of a.columns, arithmetic type
  void* sums;             // gradient of the values in the order of the tiles, of few rows in CSR's
  void* bias_sums;
};

void few_rows_gradients(const Gradients& a, const Room& room) {
  const Csr& w = a.w.csr;
  const FewRowsKernels& k = few_rows_kernels();
  const int64_t threads = threads_for(a.g.rows * w.nnz);
  if (a.grad_input.data != nullptr && a.g.rows > 0)
    split(w.cols, threads, [&](int64_t n0, int64_t n1) {
      k.spmv_tiled(a.columns, room.by_column, a.g, {}, a.grad_input, n0, n1);
    });
  if (room.sums == nullptr && room.bias_sums == nullptr) return;
  if (a.g.rows == 0 && room.sums != nullptr)
    std::memset(room.sums, 0, w.nnz * acc_bytes_of(a.g.dtype));
  split(w.rows, threads,
        [&](int64_t n0, int64_t n1) { k.outer(w, a.g, a.x, room.sums, room.bias_sums, n0, n1); });
}

void slab_gradients(const Kernels& k, const Gradients& a, const Room& room) {
  const Tiled &w = a.w.rows, &columns = a.columns;
  const bool products = a.grad_input.data != nullptr && w.cols > 0;
  const bool sums = room.sums != nullptr || room.bias_sums != nullptr;
  // Of one width for all, or packed.
  const int64_t of_g = near_vectors(k, a.g, w);
  const bool near = of_g > 0 && (!products || near_vectors(k, a.g, columns) == of_g) &&
                    (room.sums == nullptr || near_vectors(k, a.x, w) == of_g);
  const int64_t most = near ? of_g : slab_vectors(w);
  const int64_t most_columns = near ? of_g : slab_vectors(columns);
  std::optional<ValueGradient> sum;
  if (sums) sum.emplace(k, w, a.g, a.x, room.sums, room.bias_sums, most, near);
  // Both products want the same slabs of g: packed once, 18 us of 330 at density .01.
  const bool shared = products && sums && most == most_columns;
  if (products)
    slab_product(k, columns, room.by_column, a.g, {}, a.grad_input, most_columns, near,
                 [&](int64_t block, const Slab& slab) {
                   if (shared) sum->add(block, slab);
                 });
  if (sums && !shared) sum->add_all();
}

}  // namespace

bool gradients(const Gradients& a) {
  // A matrix without columns has no memory, and may have more rows than anyone can loop over.
  if (a.grad_input.data == nullptr && a.grad_values == nullptr && a.grad_bias == nullptr)
    return true;
  if (row_blocks_pay(a.w, a.g)) return row_blocks_gradients(a);
  const DType dtype = a.g.dtype;
  const Tiled& w = a.w.rows;
  const Csr& csr = a.w.csr;
  const bool few = a.g.rows < kFewRows, half = is_half(dtype);
  const bool products = a.grad_input.data != nullptr;
  if (products && !inside(a.columns)) return false;
  if (a.grad_values != nullptr && !(few ? inside(csr) : inside(w))) return false;
  // Sums are made in the arithmetic type and, but of few rows, in the order of the tiles.
  const bool apart = a.grad_values != nullptr && (half || (!few && w.tiles > 1));
  const bool bias_apart = a.grad_bias != nullptr && half;
  const size_t row_bytes = Scratch::round_up(csr.rows * sizeof(float));
  Scratch scratch((products ? value_bytes(a.columns, dtype) : 0) +
                  (apart ? value_bytes(w, dtype) : 0) + row_bytes);
  void* by_column = products ? scratch.take(value_bytes(a.columns, dtype)) : nullptr;
  if (products && !permuted(dtype, a.values, a.perm, csr.nnz, by_column)) return false;
  const Room room{by_column, apart ? scratch.take(value_bytes(w, dtype)) : a.grad_values,
                  bias_apart ? scratch.take(row_bytes) : a.grad_bias};
  const Kernels k(dtype, a.g.rows);
  few ? few_rows_gradients(a, room) : slab_gradients(k, a, room);
  if (apart && few) array_kernels().narrow(dtype, room.sums, csr.nnz, a.grad_values);
  if (apart && !few)
    split_tiles(w, [&](int64_t t0, int64_t t1, int32_t* at) {
      k.slab.restore(dtype, room.sums, csr.crow, w, t0, t1, at, a.grad_values);
    });
  if (bias_apart) array_kernels().narrow(dtype, room.bias_sums, csr.rows, a.grad_bias);
  return true;
}

}  // namespace synops
