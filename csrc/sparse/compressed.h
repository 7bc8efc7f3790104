// Compressed rows as an op receives them, checked on every call so that no index can leave its
// buffer whatever the caller passed.
#pragma once

#include <limits>

#include "common/arrays.h"
#include "common/tensor.h"
#include "sparse/sparse_linear.h"

namespace synops {

// ptr (tiles + 1, rows) and index (nnz,) with 0 <= index < bound, both int32.
inline Compressed compressed_of(const Tensor& ptr, const Tensor& index, int64_t bound,
                                const char* op, const char* ptr_name, const char* index_name) {
  check_index(ptr, 2, op, ptr_name);
  check_index(index, 1, op, index_name);
  const int64_t rows = ptr.size(1), tiles = ptr.size(0) - 1, nnz = index.size(0);
  STD_TORCH_CHECK(tiles >= 1, op, ": ", ptr_name, " must have at least 2 rows");
  STD_TORCH_CHECK(
      bound <= std::numeric_limits<int32_t>::max() && nnz <= std::numeric_limits<int32_t>::max(),
      op, ": sizes must fit in int32");
  const int32_t* p = ptr.const_data_ptr<int32_t>();
  const int32_t* i = index.const_data_ptr<int32_t>();
  const ArrayKernels& arrays = array_kernels();
  // Row n spans p[0][n] .. p[tiles][n]; the next row starts there, the first at 0, the last ends at
  // nnz, and inside a row the tile pointers ascend: every entry belongs to exactly one tile.
  bool good = arrays.not_above(p, p + rows, tiles * rows);
  if (rows > 0) {
    const int32_t* last = p + tiles * rows;
    good = good && p[0] == 0 && last[rows - 1] == nnz && arrays.equal(p + 1, last, rows - 1);
  } else {
    good = nnz == 0;
  }
  STD_TORCH_CHECK(good, op, ": ", ptr_name, " must ascend from 0 to nnz = ", nnz);
  STD_TORCH_CHECK(arrays.in_range(i, nnz, 0, static_cast<int32_t>(bound)), op, ": ", index_name,
                  " must lie in [0, ", bound, ")");
  return {p, i, rows, tiles, nnz};
}

}  // namespace synops
