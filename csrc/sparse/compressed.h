// The forms of a weight as an op receives them, checked on every call so that no index can leave
// its buffer whatever the caller passed.
#pragma once

#include <algorithm>
#include <limits>

#include "common/arrays.h"
#include "common/tensor.h"
#include "sparse/formats.h"

namespace synops {

constexpr int64_t kMaxIndex = std::numeric_limits<int32_t>::max();

// Whether every index lies inside what it points into. The kernels do not look; each product checks
// the form that it goes by, once.
inline bool inside(const Csr& w) {
  return array_kernels().in_range(w.col, w.nnz, 0, static_cast<int32_t>(w.cols));
}

inline bool inside(const Tiled& w) {
  if (w.rows == 0) return true;
  // Every tile is whole but the last ones, which the last column cuts.
  const int64_t tile = w.tile(), whole = std::min(w.tiles, w.cols / tile);
  const ArrayKernels& arrays = array_kernels();
  bool good = arrays.highest(w.index, w.first(whole, 0)) < tile;
  for (int64_t t = whole; good && t < w.tiles; ++t) {
    const int64_t begin = w.first(t, 0), count = w.first(t + 1, 0) - begin;
    good = arrays.highest(w.index + begin, count) < std::max<int64_t>(0, w.cols - t * tile);
  }
  return good;
}

// (n + 1,), ascending from 0 to nnz.
inline void check_pointers(const Tensor& ptr, int64_t nnz, const char* op, const char* name) {
  const int32_t* p = ptr.const_data_ptr<int32_t>();
  const int64_t n = ptr.size(0) - 1;
  STD_TORCH_CHECK(n >= 0 && p[0] == 0 && p[n] == nnz && array_kernels().not_above(p, p + 1, n), op,
                  ": ", name, " must ascend from 0 to nnz = ", nnz);
}

// crow (rows + 1,) and col (nnz,), both int32; columns are not looked at.
inline Csr csr_unchecked(const Tensor& crow, const Tensor& col, int64_t cols, const char* op) {
  check_index(crow, 1, op, "crow");
  check_index(col, 1, op, "col");
  const int64_t rows = crow.size(0) - 1, nnz = col.size(0);
  STD_TORCH_CHECK(cols >= 0 && cols <= kMaxIndex && nnz <= kMaxIndex, op,
                  ": sizes must fit in int32");
  check_pointers(crow, nnz, op, "crow");
  return {crow.const_data_ptr<int32_t>(), col.const_data_ptr<int32_t>(), rows, cols, nnz};
}

// The same with 0 <= col < cols.
inline Csr csr_of(const Tensor& crow, const Tensor& col, int64_t cols, const char* op) {
  const Csr w = csr_unchecked(crow, col, cols, op);
  STD_TORCH_CHECK(inside(w), op, ": col must lie in [0, ", cols, ")");
  return w;
}

// ptr (tiles * rows + 1,), int32, and index (nnz,), int16 read as unsigned and not looked at.
inline Tiled tiled_unchecked(const Tensor& ptr, const Tensor& index, int64_t rows, int64_t cols,
                             const char* op, const char* ptr_name, const char* index_name) {
  check_index(ptr, 1, op, ptr_name);
  check_tensor(index, ScalarType::Short, 1, op, index_name);
  STD_TORCH_CHECK(index.is_contiguous(), op, ": ", index_name, " must be contiguous");
  const int64_t nnz = index.size(0), runs = ptr.size(0) - 1;
  STD_TORCH_CHECK(rows <= kMaxIndex && cols <= kMaxIndex && nnz <= kMaxIndex, op,
                  ": sizes must fit in int32");
  const int64_t tiles = rows == 0 ? 1 : runs / rows;
  STD_TORCH_CHECK(runs >= 0 && tiles >= 1 && tiles * rows == runs, op, ": ", ptr_name,
                  " must have a multiple of ", rows, " elements and one more, got ", ptr.size(0));
  check_pointers(ptr, nnz, op, ptr_name);
  const Tiled w{ptr.const_data_ptr<int32_t>(),
                reinterpret_cast<const uint16_t*>(index.const_data_ptr<int16_t>()),
                rows,
                cols,
                tiles,
                nnz};
  STD_TORCH_CHECK(w.tile() <= kWidestTile, op, ": ", ptr_name, " must have tiles of at most ",
                  kWidestTile, " columns, got ", w.tile());
  return w;
}

// crow says where the values of w lie: each row has as many entries in it as in w. room: an element
// a row, unused with one tile.
inline void check_agree(const int32_t* crow, const Tiled& w, int32_t* room, const char* op) {
  const int32_t* p = w.ptr;
  int32_t bad = 0;
  if (w.tiles == 1) {
    for (int64_t n = 0; n < w.rows; ++n) bad |= crow[n] ^ p[n];
  } else {
    std::fill_n(room, w.rows, 0);
    for (int64_t t = 0; t < w.tiles; ++t)
      for (int64_t n = 0; n < w.rows; ++n) room[n] += p[t * w.rows + n + 1] - p[t * w.rows + n];
    for (int64_t n = 0; n < w.rows; ++n) bad |= room[n] ^ (crow[n + 1] - crow[n]);
  }
  STD_TORCH_CHECK(bad == 0, op, ": crow and row_ptr must have the same entries in each row");
}

// Whole blocks of rows of equal length. That their columns are equal is the caller's word: those of
// the first row are used.
inline void check_blocks(const Csr& w, const RowBlocks& b, const char* op) {
  if (b.rows == 1 && b.step == 1) return;
  STD_TORCH_CHECK(b.rows >= 1 && b.rows <= kMaxIndex && b.step >= 1 && b.step <= kMaxIndex &&
                      w.rows % (b.rows * b.step) == 0,
                  op, ": block_rows and block_step must divide ", w.rows, " rows, got ", b.rows,
                  " and ", b.step);
  int32_t bad = 0;
  for (int64_t first = 0; first < w.rows; first += b.rows * b.step)
    for (int64_t n = first; n < first + b.rows * b.step; ++n) {
      const int64_t of_block = first + (n - first) % b.step;
      bad |= (w.crow[n + 1] - w.crow[n]) ^ (w.crow[of_block + 1] - w.crow[of_block]);
    }
  STD_TORCH_CHECK(bad == 0, op, ": the rows of a block must have equally many entries");
}

}  // namespace synops
