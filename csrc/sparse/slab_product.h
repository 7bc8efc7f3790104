// The product by slabs: batch blocks turned feature-major, multiplied, and handed on.
//
// Split: a group of batch blocks, one per thread, is packed and then multiplied, each block by all
// its rows or by chunks of them. Neither the blocks nor the order of any sum depends on the number
// of threads.
#pragma once

#include <algorithm>

#include "common/scratch.h"
#include "common/split.h"
#include "sparse/slab.h"
#include "sparse/sparse_linear.h"

namespace synops {

// Slab widths in vectors: see the speed note in sparse_linear.inc.
inline int64_t slab_vectors(const Tiled& w) { return w.tiles > 1 ? 4 : 2; }

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
inline int64_t near_vectors(const Kernels& k, const Matrix& m, const Tiled& w) {
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
  Matrix block(const Matrix& m, int64_t i) const { return block_of(m, i * width_, width_); }
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

inline size_t value_bytes(const Tiled& w, DType dtype) {
  return Scratch::round_up(w.nnz * acc_bytes_of(dtype));
}

// f(first tile, last tile, room for a number a row), tiles over threads.
template <class F>
void split_tiles(const Tiled& w, F&& f) {
  split(w.tiles, threads_for(4 * w.nnz), [&](int64_t t0, int64_t t1) {
    Scratch at(w.rows * sizeof(int32_t));
    f(t0, t1, static_cast<int32_t*>(at.data()));
  });
}

}  // namespace synops
