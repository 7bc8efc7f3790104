// What the sparse kernels work on: a dense matrix in either layout, and the two forms of a weight.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/dtype.h"

namespace synops {

// Element (b, k) lies at data[b * ld + k], or, feature-major, at data[k * ld + b].
struct Matrix {
  DType dtype;
  void* data;
  int64_t ld;
  int64_t rows;  // batch rows, of this block
  bool feature_major = false;
};

// Batch rows [begin, begin + width) of it, as far as there are any.
inline Matrix block_of(const Matrix& m, int64_t begin, int64_t width) {
  const size_t offset = static_cast<size_t>(begin * (m.feature_major ? 1 : m.ld));
  return {m.dtype, static_cast<char*>(m.data) + offset * bytes_of(m.dtype), m.ld,
          std::min(width, m.rows - begin), m.feature_major};
}

// Compressed rows, columns ascending: entries of row n are [crow[n], crow[n + 1]).
struct Csr {
  const int32_t* crow;  // (rows + 1,)
  const int32_t* col;   // (nnz,)
  int64_t rows;
  int64_t cols;
  int64_t nnz;
};

// The same entries tile by tile of the columns, 16 bits each: a run (t, n) holds those of row n in
// tile t, [ptr[t * rows + n], ptr[t * rows + n + 1]). While all rows pass over a tile, its part of
// the slab stays in L1. With one tile the order is that of Csr.
struct Tiled {
  const int32_t* ptr;     // (tiles * rows + 1,)
  const uint16_t* index;  // (nnz,), column inside its tile
  int64_t rows;
  int64_t cols;
  int64_t tiles;
  int64_t nnz;

  int64_t tile() const;
  int64_t first(int64_t t, int64_t n) const { return ptr[t * rows + n]; }
};

// Columns of a tile (a multiple of 16, never 0) when `cols` columns are split into `tiles`.
inline int64_t tile_of(int64_t cols, int64_t tiles) {
  return ((std::max<int64_t>(1, cols) + tiles - 1) / tiles + 15) / 16 * 16;
}
inline int64_t Tiled::tile() const { return tile_of(cols, tiles); }

// How many tiles a weight gets: the narrowest in which a row has enough entries on average, since
// each run costs its sums' way through L2; 2^16 columns at most. 128 columns fill L1 in slabs of
// four vectors, 256 half of them stay (python/synops/_reference/sparse/pattern.py has the same
// rule). From 128 x 1024 x 1024: 128 columns win at density .2, 256 at .1 (461 us against 490, and
// 555 without tiles), none at .05.
struct TileRule {
  int64_t columns, entries;
};
constexpr TileRule kTiles[] = {{128, 20}, {256, 15}};
constexpr int64_t kWidestTile = 65536;

inline int64_t tiles_of(int64_t rows, int64_t cols, int64_t nnz) {
  for (const auto [columns, entries] : kTiles)
    if (cols > columns && nnz * columns / entries >= rows * cols)
      return (cols + columns - 1) / columns;
  return cols > kWidestTile ? (cols + kWidestTile - 1) / kWidestTile : 1;
}

// Rows whose column lists are equal, `rows` at a time and `step` apart: rows c * rows * step + j +
// r * step for r < rows. rows = 1: no such structure.
struct RowBlocks {
  int64_t rows = 1;
  int64_t step = 1;
};

// out = activation(sum + bias)
enum class Activation : int { kNone, kRelu, kGelu };

struct Epilogue {
  const void* bias = nullptr;  // in the type of the output
  Activation activation = Activation::kNone;
};

}  // namespace synops
