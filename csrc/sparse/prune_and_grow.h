// prune_and_grow: the raw-pointer kernels (bodies in prune_and_grow.inc).
#pragma once

#include <cstdint>

#include "common/isa.h"
#include "sparse/formats.h"

namespace synops {

// A change of the entries of a weight. Edges, of row n [first[n], first[n + 1]), have columns that
// ascend inside each row.
struct Rewiring {
  Csr old;
  const uint8_t* prune;  // (nnz,): which entries leave, any byte but 0
  const int32_t* edges;  // their columns
  const int64_t* first;
};

struct RewiringKernels {
  // counts[n] = entries of rows [n0, n1) that stay.
  void (*count)(const Rewiring& r, int64_t n0, int64_t n1, int32_t* counts);
  // Columns of the new rows [n0, n1), which begin at crow, and where they were among the old
  // entries, -1 for a new one. False when an edge is an entry that stays.
  bool (*merge)(const Rewiring& r, int64_t n0, int64_t n1, const int32_t* crow, int32_t* col,
                int32_t* origin);
  // out[j] = values[origin[j]] of `bytes` each, 0 where origin is negative. False when one is not
  // below size; nothing outside is read.
  bool (*carry)(int64_t bytes, const void* values, int64_t size, const int32_t* origin, int64_t n,
                void* out);
};

SYNOPS_KERNELS(RewiringKernels, rewiring)

}  // namespace synops
