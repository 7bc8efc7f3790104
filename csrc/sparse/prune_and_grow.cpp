// prune_and_grow (CPU): which entries a weight has after some left and others came, and its values
// in their new order; kernels in prune_and_grow.inc.
//
// Rows are counted first, so that each knows where it begins whatever thread merges it.
#include "sparse/prune_and_grow.h"

#include <tuple>
#include <vector>

#include "common/split.h"
#include "sparse/sorted.h"

namespace synops {
namespace {

// Edges row by row.
struct Edges {
  // Positions that ascend from 0 to rows * cols.
  Edges(const int64_t* edges, int64_t count, const Csr& w, const char* op)
      : first(w.rows + 1), col(count) {
    int64_t j = 0, before = -1;
    bool descends = false;
    for (int64_t n = 0; n < w.rows; ++n) {
      first[n] = j;
      const int64_t begin = n * w.cols, end = begin + w.cols;
      for (; j < count && edges[j] < end; ++j) {
        descends |= edges[j] <= before;
        before = edges[j];
        col[j] = static_cast<int32_t>(before - begin);
      }
    }
    first[w.rows] = j;
    STD_TORCH_CHECK(j == count && !descends, op,
                    ": edges must ascend strictly and lie in [0, out * in) = [0, ", w.rows * w.cols,
                    ")");
  }

  std::vector<int64_t> first;
  std::vector<int32_t> col;
};

std::tuple<Tensor, Tensor, Tensor> prune_and_grow(const Tensor& crow, const Tensor& col,
                                                  int64_t in_features, const Tensor& prune,
                                                  const Tensor& edges) {
  constexpr const char* op = "prune_and_grow";
  const Csr w = sorted_csr(crow, col, in_features, op);
  check_tensor(prune, ScalarType::Bool, 1, op, "prune");
  check_size(prune.size(0), w.nnz, op, "prune", "size 0");
  check_tensor(edges, ScalarType::Long, 1, op, "edges");
  STD_TORCH_CHECK(edges.is_contiguous(), op, ": edges must be contiguous");
  const Tensor leaves = dense_of(prune);
  const Edges come(edges.const_data_ptr<int64_t>(), edges.size(0), w, op);
  const std::vector<int64_t>& first = come.first;
  const Rewiring r{w, static_cast<const uint8_t*>(leaves.const_data_ptr()), come.col.data(),
                   first.data()};
  const RewiringKernels& k = rewiring_kernels();
  const int64_t threads = threads_for(w.nnz + edges.size(0));

  Tensor new_crow = empty({w.rows + 1}, ScalarType::Int);
  int32_t* c = new_crow.mutable_data_ptr<int32_t>();
  split(w.rows, threads, [&](int64_t n0, int64_t n1) { k.count(r, n0, n1, c + 1); });
  int64_t nnz = c[0] = 0;
  for (int64_t n = 0; n < w.rows; ++n) {
    nnz += c[n + 1] + first[n + 1] - first[n];
    STD_TORCH_CHECK(nnz < kMaxIndex, op, ": 2^31 - 1 entries or more");
    c[n + 1] = static_cast<int32_t>(nnz);
  }
  Tensor new_col = empty({nnz}, ScalarType::Int), origin = empty({nnz}, ScalarType::Int);
  int32_t* to = new_col.mutable_data_ptr<int32_t>();
  int32_t* from = origin.mutable_data_ptr<int32_t>();
  std::vector<char> clashes(w.rows);  // a place for each piece, where it begins
  split(w.rows, threads, [&](int64_t n0, int64_t n1) {
    if (n0 < n1) clashes[n0] = !k.merge(r, n0, n1, c, to, from);
  });
  STD_TORCH_CHECK(std::find(clashes.begin(), clashes.end(), 1) == clashes.end(), op,
                  ": edges must be no entries that stay");
  return {new_crow, new_col, origin};
}

Tensor prune_and_grow_carry(const Tensor& values, const Tensor& origin) {
  constexpr const char* op = "prune_and_grow_carry";
  const int64_t bytes = static_cast<int64_t>(bytes_of(dtype_of(values, op, "values")));
  check_tensor(values, values.scalar_type(), 1, op, "values");
  check_index(origin, 1, op, "origin");
  const int64_t size = values.size(0), nnz = origin.size(0);
  STD_TORCH_CHECK(nnz <= size, op, ": origin must have at most ", size, " elements, got ", nnz);
  const Tensor dense = dense_of(values);
  Tensor out = empty({size}, values.scalar_type());
  const int32_t* from = origin.const_data_ptr<int32_t>();
  char* to = static_cast<char*>(out.mutable_data_ptr());
  constexpr int64_t kPiece = 16384;
  std::vector<char> outside((nnz + kPiece - 1) / kPiece);
  split(static_cast<int64_t>(outside.size()), threads_for(nnz), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t j = i * kPiece, n = std::min(kPiece, nnz - j);
      outside[i] = !rewiring_kernels().carry(bytes, dense.const_data_ptr(), size, from + j, n,
                                             to + j * bytes);
    }
  });
  STD_TORCH_CHECK(std::find(outside.begin(), outside.end(), 1) == outside.end(), op,
                  ": origin must be below the number of values, ", size);
  std::fill(to + nnz * bytes, to + size * bytes, 0);
  return out;
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("prune_and_grow", TORCH_BOX(&synops::prune_and_grow));
  m.impl("prune_and_grow_carry", TORCH_BOX(&synops::prune_and_grow_carry));
}
