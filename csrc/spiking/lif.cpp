// lif (CPU): checks, outputs and threads; kernel in lif.inc.
#include "spiking/lif.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "spiking/lif_arguments.h"
#include "spiking/neuron_rows.h"

namespace synops {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> lif(const Tensor& input, const OptionalTensor& v0,
                                               const Tensor& beta, const Tensor& threshold,
                                               int64_t reset, bool delayed, bool inclusive,
                                               bool /*detach_reset*/, int64_t surrogate,
                                               double slope, bool save, bool record) {
  constexpr const char* op = "lif";
  const DType dtype = dtype_of(input, op, "input");
  const ScalarType type = state_type(dtype);
  const Firing firing = firing_of(reset, delayed, inclusive, op);
  surrogate_of(surrogate, slope, op);
  const Tensor x = series_of(input, input.scalar_type(), 3, op, "input");
  const int64_t steps = x.size(0), rows = x.size(1), neurons = x.size(2);
  Tensor held;
  const char* start = static_cast<const char*>(state_of(v0, type, rows, neurons, held, op, "v0"));
  const NeuronParameter by(beta, type, neurons, op, "beta");
  const NeuronParameter at(threshold, type, neurons, op, "threshold");

  const Tensor spikes = empty_series(steps, rows, neurons, input.scalar_type());
  const Tensor v = empty({rows, neurons}, type);
  const Tensor membrane = save ? empty_series(steps, rows, neurons, type) : empty({0}, type);
  const Tensor trajectory = record ? empty_series(steps, rows, neurons, type) : empty({0}, type);

  NeuronTiles tiles(rows, neurons, kLifTile);
  tiles.see(x);
  const int64_t step = rows * neurons, all = steps * step;
  const int64_t bytes = static_cast<int64_t>(bytes_of(dtype)), wide = by.bytes;
  const char* in = static_cast<const char*>(x.const_data_ptr());
  const auto data = [](const Tensor& t) { return static_cast<char*>(t.mutable_data_ptr()); };
  char *const to_spikes = data(spikes), *const to_v = data(v);
  char* const to_membrane = save ? data(membrane) : nullptr;
  char* const to_trajectory = record ? data(trajectory) : nullptr;
  const LifKernels& kernels = lif_kernels();
  tiles.run(threads_for(8 * all), [&](int64_t row, int64_t first, int64_t count) {
    alignas(64) double betas[kLifTile], thresholds[kLifTile];  // of float32, half of them
    const int64_t i = tiles.index(row, first);
    by.fill(i, count, betas);
    at.fill(i, count, thresholds);
    const auto from = [&](char* p, int64_t size) { return p == nullptr ? nullptr : p + i * size; };
    kernels.forward(dtype, {steps,
                            count,
                            firing,
                            {in + (row * x.stride(1) + first) * bytes, x.stride(0)},
                            start == nullptr ? nullptr : start + i * wide,
                            betas,
                            thresholds,
                            {from(to_spikes, bytes), step},
                            {from(to_membrane, wide), step},
                            {from(to_trajectory, wide), step},
                            from(to_v, wide),
                            all * bytes >= kStreamedBytes});
  });
  return {spikes, v, membrane, trajectory};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) { m.impl("lif", TORCH_BOX(&synops::lif)); }
