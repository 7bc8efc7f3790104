// The forward product on raw pointers, by the layout that fits the batch; kernels in
// sparse_linear.inc, slab.inc, few_rows.inc and row_blocks.inc.
#include "sparse/product.h"

#include <atomic>

#include "common/arrays.h"
#include "common/scratch.h"
#include "sparse/compressed.h"
#include "sparse/few_rows.h"
#include "sparse/row_blocks_product.h"
#include "sparse/slab_product.h"

namespace synops {
namespace {

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

}  // namespace synops
