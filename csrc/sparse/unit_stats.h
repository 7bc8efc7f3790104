// unit_stats: the raw-pointer kernels (bodies in unit_stats.inc).
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace synops {

// Rows that are summed in one piece, whatever the number of threads.
constexpr int64_t kUnitRows = 1024;
// Units that are summed side by side: their sums are to stay in L1.
constexpr int64_t kUnitSpan = 256;
// What a piece says of a unit: sums of |x|, [x > 0] and x, and of squared distances to its mean.
constexpr int64_t kUnitSums = 4;

// (rows, units), its rows `ld` elements apart.
struct UnitMatrix {
  DType dtype;
  const void* data;
  int64_t ld, rows, units;

  int64_t pieces() const { return (rows + kUnitRows - 1) / kUnitRows; }
};

struct UnitKernels {
  // Writes the sums of units [u0, u1) over one piece to sums[(piece * kUnitSums + i) * units + u].
  // u1 - u0 is at most kUnitSpan.
  void (*sum)(const UnitMatrix& x, int64_t piece, int64_t u0, int64_t u1, double* sums);
  // Of at least one row: mean |x|, fraction above 0, mean and population variance, in the
  // arithmetic type.
  void (*finish)(const UnitMatrix& x, const double* sums, void* const* out);
};

SYNOPS_KERNELS(UnitKernels, unit)

}  // namespace synops
