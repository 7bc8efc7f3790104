// unit_stats (CPU): pieces of rows by groups of columns, each summed by itself, added up in order;
// kernels in unit_stats.inc.
//
// A piece has 1024 rows whatever the number of threads, and a column is never split.
#include "sparse/unit_stats.h"

#include <limits>
#include <tuple>

#include "common/scratch.h"
#include "common/split.h"
#include "common/tensor.h"

namespace synops {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> unit_stats(const Tensor& input) {
  constexpr const char* op = "unit_stats";
  STD_TORCH_CHECK(input.is_cpu(), op, ": input must be on the CPU");
  STD_TORCH_CHECK(input.dim() == 2, op, ": input must have 2 dimensions, got ", input.dim());
  const DType dtype = dtype_of(input, op, "input");
  const int64_t rows = input.size(0), units = input.size(1);
  const ScalarType type = dtype == DType::kFloat64 ? ScalarType::Double : ScalarType::Float;
  Tensor out[kUnitSums] = {empty({units}, type), empty({units}, type), empty({units}, type),
                           empty({units}, type)};
  if (rows == 0)
    for (Tensor& t : out) torch::stable::fill_(t, std::numeric_limits<double>::quiet_NaN());
  if (rows > 0 && units > 0) {
    const Tensor held = rows_of(input);
    const UnitMatrix x = {dtype, held.const_data_ptr(), held.stride(0), rows, units};
    const UnitKernels& k = unit_kernels();
    const Scratch room(x.pieces() * kUnitSums * units * sizeof(double));
    double* sums = static_cast<double*>(room.data());
    const int64_t groups = (units + kUnitSpan - 1) / kUnitSpan;
    split(x.pieces() * groups, threads_for(rows * units), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t u = i % groups * kUnitSpan;
        k.sum(x, i / groups, u, std::min(units, u + kUnitSpan), sums);
      }
    });
    void* results[kUnitSums];
    for (int64_t i = 0; i < kUnitSums; ++i) results[i] = out[i].mutable_data_ptr();
    k.finish(x, sums, results);
  }
  return {out[0], out[1], out[2], out[3]};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) { m.impl("unit_stats", TORCH_BOX(&synops::unit_stats)); }
