// The sparse products on raw pointers: working memory and the split over threads; kernels in
// sparse_linear.inc and slab.inc.
//
// Split: a group of batch blocks, one per thread, is packed and then multiplied, each block by all
// its rows or by chunks of them. Neither the blocks nor the order of any sum depends on the number
// of threads.
#include "sparse/product.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>

#include "common/arrays.h"
#include "common/scratch.h"
#include "sparse/compressed.h"
#include "sparse/few_rows.h"
#include "sparse/row_blocks_product.h"
#include "sparse/slab.h"
#include "sparse/sparse_linear.h"
#include "sparse/split.h"

namespace synops {
namespace {

// Slab widths in vectors: see the speed note in sparse_linear.inc.
int64_t slab_vectors(const Tiled& w) { return w.tiles > 1 ? 4 : 2; }

// The kernels for a batch: eight rows of float32 fill half a vector of AVX-512, and a whole one of
// AVX2 at twice the rate.
struct Kernels {
  Kernels(DType dtype, int64_t batch) : Kernels(isa_for(dtype, batch)) {}
  static Isa isa_for(DType dtype, int64_t batch) {
    const bool half = dtype != DType::kFloat64 && batch <= 8;
    return half && active_isa() == Isa::kAvx512 ? Isa::kAvx2 : active_isa();
  }
  const SlabKernels& slab;
  const SparseLinearKernels& linear;

 private:
  explicit Kernels(Isa isa) : slab(slab_kernels(isa)), linear(sparse_linear_kernels(isa)) {}
};

// A feature-major operand is a slab as it is when a slab would be as wide as its batch: a narrower
// one would use a piece of every page and of every set of the L1 cache. Eight vectors in one pass
// are as good as two in four, but too wide for a tile. Its vectors, or 0.
int64_t near_vectors(const Kernels& k, const Matrix& m, const Tiled& w) {
  const int64_t lanes = k.slab.lanes(m.dtype), vectors = m.rows / lanes;
  const bool whole = m.ld == m.rows && vectors * lanes == m.rows && (vectors & (vectors - 1)) == 0;
  const bool fits = vectors <= (w.tiles > 1 ? 4 : 8);
  return m.feature_major && !is_half(m.dtype) && whole && fits ? vectors : 0;
}

// The batch blocks of a matrix of `cols` columns, and their slabs of at most `most` vectors; near:
// the matrix is its own, only slab.
class Blocks {
 public:
  Blocks(const Kernels& k, const Matrix& m, int64_t cols, int64_t most, bool near)
      : k_(k),
        m_(m),
        cols_(cols),
        lanes_(k.slab.lanes(m.dtype)),
        most_(most),
        near_(near),
        width_(width_of(m.rows)),
        count_((m.rows + width_ - 1) / width_) {}
  int64_t count() const { return count_; }
  int64_t width() const { return width_; }
  int64_t width(int64_t i) const { return width_of(std::min(width_, m_.rows - i * width_)); }
  // Bytes of a slab; 0 when the matrix is one already.
  size_t bytes() const { return near_ ? 0 : Scratch::round_up(cols_ * row_bytes()); }
  size_t row_bytes() const { return static_cast<size_t>(width_) * acc_bytes_of(m_.dtype); }
  Matrix block(const Matrix& m, int64_t i) const {
    const int64_t begin = i * width_;
    const size_t offset = static_cast<size_t>(begin * (m.feature_major ? 1 : m.ld));
    return {m.dtype, static_cast<char*>(m.data) + offset * bytes_of(m.dtype), m.ld,
            std::min(width_, m.rows - begin), m.feature_major};
  }
  // Columns of part `part` of the slab of block i.
  void pack(int64_t i, int64_t part, int64_t parts, void* slab) const {
    if (near_) return;
    k_.slab.pack(block(m_, i), part_begin(cols_, part, parts), part_begin(cols_, part + 1, parts),
                 slab, width(i));
  }
  Slab slab(int64_t i, const void* packed) const {
    const int64_t w = width(i);
    return near_ ? Slab{block(m_, i).data, m_.ld, w} : Slab{packed, w, w};
  }

 private:
  int64_t width_of(int64_t rows) const {
    int64_t vectors = 1;
    while (vectors < most_ && vectors * lanes_ < rows) vectors *= 2;
    return vectors * lanes_;
  }

  const Kernels& k_;
  const Matrix m_;
  const int64_t cols_, lanes_, most_;
  const bool near_;
  const int64_t width_, count_;
};

// The product by slabs of at most `most` vectors; values in the arithmetic type, in the order of w.
// after(block, slab) sees every slab of x before it is overwritten.
template <class After>
void slab_product(const Kernels& k, const Tiled& w, const void* values, const Matrix& x,
                  const Epilogue& e, const Matrix& out, int64_t most, bool near, After&& after) {
  const Blocks blocks(k, x, w.cols, most, near);
  const int64_t threads = threads_for(x.rows * (w.nnz + w.cols + w.rows));
  const int64_t group = std::min(blocks.count(), threads);
  const int64_t parts = group == threads ? 1 : (threads + group - 1) / group * 2;
  const size_t partial_bytes =
      Scratch::round_up(partial_rows(w, w.rows / parts + 32) * blocks.row_bytes());
  Scratch scratch(group * (blocks.bytes() + parts * partial_bytes));
  char* slabs = static_cast<char*>(scratch.take(group * blocks.bytes()));
  char* partials = static_cast<char*>(scratch.take(group * parts * partial_bytes));
  for (int64_t first = 0; first < blocks.count(); first += group) {
    const int64_t count = std::min(group, blocks.count() - first);
    split_group(count, parts, threads, [&](int64_t i, int64_t part) {
      blocks.pack(first + i, part, parts, slabs + i * blocks.bytes());
    });
    split_group(count, parts, threads, [&](int64_t i, int64_t part) {
      k.linear.spmm(w, values, blocks.slab(first + i, slabs + i * blocks.bytes()), e,
                    blocks.block(out, first + i), part_begin(w.rows, part, parts),
                    part_begin(w.rows, part + 1, parts),
                    partials + (i * parts + part) * partial_bytes);
    });
    for (int64_t i = 0; i < count; ++i)
      after(first + i, blocks.slab(first + i, slabs + i * blocks.bytes()));
  }
}

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

size_t value_bytes(const Tiled& w, DType dtype) {
  return Scratch::round_up(w.nnz * acc_bytes_of(dtype));
}

bool few_rows_product(const Weight& w, const void* values, const Matrix& x, const Epilogue& e,
                      const Matrix& out) {
  const FewRowsKernels& k = few_rows_kernels();
  // 16 bits an index, where one tile keeps CSR order, save a quarter of the bytes.
  const bool tiled = w.rows.tiles == 1;
  if (tiled && !inside(w.rows)) return false;
  std::atomic<bool> good = true;
  split(w.csr.rows, threads_for(x.rows * w.csr.nnz), [&](int64_t n0, int64_t n1) {
    const bool bits = w.bits != nullptr && x.dtype == DType::kFloat32 && k.spmv_bits != nullptr;
    if (bits && k.spmv_bits(w.csr, w.bits, (w.csr.cols + 63) / 64, values, x, e, out, n0, n1))
      return;
    if (tiled)
      k.spmv_tiled(w.rows, values, x, e, out, n0, n1);
    else if (!k.spmv(w.csr, values, x, e, out, n0, n1))
      good = false;
  });
  return good;
}

// In CSR order, for a batch of one vector: a run of a tile is too short for so little work an
// entry, and the values would have to be rearranged. (Several tiles at a time, so that the slab
// stays in L1, reads pieces of rows all over the pages of memory: twice as slow at 4096 x 4096.)
bool csr_product(const Kernels& k, const Weight& w, const void* values, const Matrix& x,
                 const Epilogue& e, const Matrix& out) {
  const Blocks blocks(k, x, w.csr.cols, 1, false);
  const int64_t threads = threads_for(x.rows * (w.csr.nnz + w.csr.cols + w.csr.rows));
  const int64_t parts = threads == 1 ? 1 : 2 * threads;
  Scratch slab(blocks.bytes());
  std::atomic<bool> good = true;
  split_group(1, parts, threads,
              [&](int64_t, int64_t part) { blocks.pack(0, part, parts, slab.data()); });
  split_group(1, parts, threads, [&](int64_t, int64_t part) {
    const int64_t n0 = part_begin(w.csr.rows, part, parts);
    const int64_t n1 = part_begin(w.csr.rows, part + 1, parts);
    if (!k.linear.spmm_csr(w.csr, values, blocks.slab(0, slab.data()), e, out, n0, n1))
      good = false;
  });
  return good;
}

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

// f(first tile, last tile, room for a number a row), tiles over threads.
template <class F>
void split_tiles(const Tiled& w, F&& f) {
  split(w.tiles, threads_for(4 * w.nnz), [&](int64_t t0, int64_t t1) {
    Scratch at(w.rows * sizeof(int32_t));
    f(t0, t1, static_cast<int32_t*>(at.data()));
  });
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

bool product(const Weight& w, const void* values, const Matrix& x, const Epilogue& e,
             const Matrix& out) {
  if (x.rows == 0 || w.csr.rows == 0) return true;
  if (row_blocks_pay(w, x)) return row_blocks_product(w, values, x, e, out);
  const Kernels k(x.dtype, x.rows);
  const bool few = x.rows < kFewRows;
  const bool in_csr = few || w.rows.tiles == 1 || x.rows <= k.slab.lanes(x.dtype);
  const bool as_is = in_csr && !is_half(x.dtype);
  Scratch room(as_is ? 0 : value_bytes(w.rows, x.dtype));
  if (!as_is && in_csr) {
    array_kernels().widen(x.dtype, values, w.csr.nnz, room.data());
    values = room.data();
  } else if (!as_is) {
    split_tiles(w.rows, [&](int64_t t0, int64_t t1, int32_t* at) {
      k.slab.arrange(x.dtype, values, w.csr.crow, w.rows, t0, t1, at, room.data());
    });
    values = room.data();
  }
  if (few) return few_rows_product(w, values, x, e, out);
  if (in_csr && w.rows.tiles > 1) return csr_product(k, w, values, x, e, out);
  if (!inside(w.rows)) return false;
  const int64_t near = near_vectors(k, x, w.rows);
  slab_product(k, w.rows, values, x, e, out, near > 0 ? near : slab_vectors(w.rows), near > 0,
               [](int64_t, const Slab&) {});
  return true;
}

bool gradients(const Gradients& a) {
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
