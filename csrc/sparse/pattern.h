// pattern: the raw-pointer kernels that index a mask (bodies in pattern.inc).
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "sparse/formats.h"

namespace synops {

struct PatternKernels {
  // counts[n] = True entries of row n of mask (rows n0 <= n < n1, row-major, `cols` wide).
  void (*count)(const uint8_t* mask, int64_t cols, int64_t n0, int64_t n1, int32_t* counts);
  // Their columns, row by row, row n from col[crow[n]] on.
  void (*fill)(const uint8_t* mask, int64_t cols, int64_t n0, int64_t n1, const int32_t* crow,
               int32_t* col);
  // The same entries tile by tile: ptr (tiles * rows + 1) and index (nnz), see Tiled.
  void (*by_rows)(const Csr& w, int64_t tiles, int32_t* ptr, uint16_t* index);
  // The transpose tile by tile of the rows: ptr (tiles * cols + 1), and for each entry its row
  // inside the tile and its CSR position.
  void (*by_columns)(const Csr& w, int64_t tiles, int32_t* ptr, uint16_t* index, int32_t* perm);
  // A bit for each element of the dense matrix, `words` 64-bit words a row.
  void (*bits)(const Csr& w, int64_t n0, int64_t n1, int64_t words, uint64_t* out);
  // True when rows c * count .. c * count + count - 1 have equal columns, for every c.
  bool (*equal_rows)(const Csr& w, int64_t count);
  // Values where `select` is set, in order, into one array, and the others into another; and back.
  // n values of `bytes` each, `count` of them selected.
  void (*split)(int64_t bytes, const void* values, const uint8_t* select, int64_t n, int64_t count,
                void* selected, void* rest);
  void (*merge)(int64_t bytes, const void* selected, const void* rest, const uint8_t* select,
                int64_t n, int64_t count, void* values);
  // -1, or the first entry that is not above the one before it in its row, or is out of range.
  int64_t (*first_unsorted)(const Csr& w);
  // values[j] = weight[row of j, col[j]] and its adjoint, which writes every element of out once.
  void (*gather)(DType dtype, const void* weight, const Csr& w, int64_t n0, int64_t n1,
                 void* values);
  void (*scatter)(DType dtype, const void* values, const Csr& w, int64_t n0, int64_t n1, void* out);
};

SYNOPS_KERNELS(PatternKernels, pattern)

}  // namespace synops
