// The forms of a weight as an op receives them, checked on every call so that no index can leave
// its buffer whatever the caller passed.
#pragma once

#include <limits>

#include "common/arrays.h"
#include "common/tensor.h"
#include "sparse/formats.h"

namespace synops {

constexpr int64_t kMaxIndex = std::numeric_limits<int32_t>::max();

// (n + 1,), ascending from 0 to nnz.
inline void check_pointers(const Tensor& ptr, int64_t nnz, const char* op, const char* name) {
  const int32_t* p = ptr.const_data_ptr<int32_t>();
  const int64_t n = ptr.size(0) - 1;
  STD_TORCH_CHECK(n >= 0 && p[0] == 0 && p[n] == nnz && array_kernels().not_above(p, p + 1, n), op,
                  ": ", name, " must ascend from 0 to nnz = ", nnz);
}

// crow (rows + 1,) and col (nnz,) with 0 <= col < cols, both int32.
inline Csr csr_of(const Tensor& crow, const Tensor& col, int64_t cols, const char* op) {
  check_index(crow, 1, op, "crow");
  check_index(col, 1, op, "col");
  const int64_t rows = crow.size(0) - 1, nnz = col.size(0);
  STD_TORCH_CHECK(cols <= kMaxIndex && nnz <= kMaxIndex, op, ": sizes must fit in int32");
  check_pointers(crow, nnz, op, "crow");
  const int32_t* i = col.const_data_ptr<int32_t>();
  STD_TORCH_CHECK(array_kernels().in_range(i, nnz, 0, static_cast<int32_t>(cols)), op,
                  ": col must lie in [0, ", cols, ")");
  return {crow.const_data_ptr<int32_t>(), i, rows, cols, nnz};
}

// ptr (tiles * rows + 1,), int32, and index (nnz,), int16 read as unsigned.
inline Tiled tiled_of(const Tensor& ptr, const Tensor& index, int64_t rows, int64_t cols,
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
  // Every tile is whole but the last ones, which the last column cuts.
  const int64_t tile = w.tile(), whole = std::min(tiles, cols / tile);
  const ArrayKernels& arrays = array_kernels();
  const int64_t split = rows == 0 ? 0 : w.first(whole, 0);
  bool good = tile <= kWidestTile && arrays.highest(w.index, split) < tile;
  for (int64_t t = whole; good && t < tiles && rows > 0; ++t) {
    const int64_t begin = w.first(t, 0), count = w.first(t + 1, 0) - begin;
    good = arrays.highest(w.index + begin, count) < std::max<int64_t>(0, cols - t * tile);
  }
  STD_TORCH_CHECK(good, op, ": ", index_name, " must lie inside its tile of ", tile, " of ", cols);
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

}  // namespace synops
