// pattern: the raw-pointer kernels that index a mask (bodies in pattern.inc).
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace synops {

// Columns of a tile of a Compressed, and how many tiles `rows` rows with `nnz` entries get: one,
// unless a row has kTileEntries entries in a tile on average
// (python/synops/_reference/sparse/pattern.py has the same rule).
constexpr int64_t kTile = 192;
constexpr int64_t kTileEntries = 15;

inline int64_t tiles_of(int64_t rows, int64_t cols, int64_t nnz) {
  const int64_t tiles = (cols + kTile - 1) / kTile;
  return tiles > 1 && nnz >= kTileEntries * rows * tiles ? tiles : 1;
}

struct PatternKernels {
  // counts[n] = True entries of row n of mask (rows n0 <= n < n1, row-major, `cols` wide).
  void (*count)(const uint8_t* mask, int64_t cols, int64_t n0, int64_t n1, int32_t* counts);
  // Their columns, row by row, row n from col[crow[n]] on.
  void (*fill)(const uint8_t* mask, int64_t cols, int64_t n0, int64_t n1, const int32_t* crow,
               int32_t* col);
  // Tile pointers (tiles + 1, rows) of sorted rows.
  void (*tile)(const int32_t* crow, const int32_t* col, int64_t rows, int64_t tiles, int32_t* ptr);
  // CSC of a CSR matrix: ccol (cols + 1), and per entry its row and its CSR position.
  void (*transpose)(const int32_t* crow, const int32_t* col, int64_t rows, int64_t cols,
                    int32_t* ccol, int32_t* row, int32_t* perm);
  // -1, or the first entry that is not above the one before it in its row, or is out of range.
  int64_t (*first_unsorted)(const int32_t* crow, const int32_t* col, int64_t rows, int64_t cols);
  // values[j] = weight[row of j, col[j]] and its adjoint, which writes every element of out once.
  void (*gather)(DType dtype, const void* weight, int64_t cols, const int32_t* begin,
                 const int32_t* end, const int32_t* col, int64_t n0, int64_t n1, void* values);
  void (*scatter)(DType dtype, const void* values, int64_t cols, const int32_t* begin,
                  const int32_t* end, const int32_t* col, int64_t n0, int64_t n1, void* out);
};

SYNOPS_KERNELS(PatternKernels, pattern)

}  // namespace synops
