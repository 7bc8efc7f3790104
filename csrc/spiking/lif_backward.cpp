// lif_backward (CPU): checks, outputs and threads; kernel in lif_backward.inc.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "spiking/lif_arguments.h"
#include "spiking/neuron_rows.h"
#include "spiking/parameter_gradient.h"

namespace synops {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> lif_backward(
    const OptionalTensor& grad_spikes, const OptionalTensor& grad_v,
    const OptionalTensor& grad_trajectory, const Tensor& membrane, const OptionalTensor& v0,
    const Tensor& beta, const Tensor& threshold, int64_t reset, bool delayed, bool inclusive,
    bool detach_reset, int64_t surrogate, double slope, int64_t half, bool need_input, bool need_v0,
    bool need_beta, bool need_threshold) {
  constexpr const char* op = "lif_backward";
  const DType wide_type = dtype_of(membrane, op, "membrane");
  STD_TORCH_CHECK(!is_half(wide_type), op, ": membrane must be float32 or float64");
  STD_TORCH_CHECK(half >= 0 && half <= 2 && (half == 0 || wide_type == DType::kFloat32), op,
                  ": half must be 0, 1 or 2, got ", half);
  const DType dtype = half == 0 ? wide_type : half == 1 ? DType::kBFloat16 : DType::kFloat16;
  const ScalarType type = membrane.scalar_type();
  const ScalarType input_type = half == 0   ? type
                                : half == 1 ? ScalarType::BFloat16
                                            : ScalarType::Half;
  const Firing firing = firing_of(reset, delayed, inclusive, op);
  const Surrogate curve = surrogate_of(surrogate, slope, op);
  const Tensor u = series_of(membrane, type, 3, op, "membrane");
  const int64_t steps = u.size(0), rows = u.size(1), neurons = u.size(2);
  NeuronTiles tiles(rows, neurons, kLifTile);
  tiles.see(u);
  const auto incoming = [&](const OptionalTensor& t, ScalarType of, Tensor& to, const char* name) {
    if (!t.has_value()) return;
    to = series_of(*t, of, 3, op, name);
    check_size(to.size(0), steps, op, name, "steps");
    check_step(to, rows, neurons, op, name);
    tiles.see(to);
  };
  Tensor spikes, trajectory, of_v, start;
  incoming(grad_spikes, input_type, spikes, "grad_spikes");
  incoming(grad_trajectory, type, trajectory, "grad_trajectory");
  const void* last = state_of(grad_v, type, rows, neurons, of_v, op, "grad_v");
  const void* first_v = state_of(v0, type, rows, neurons, start, op, "v0");
  const NeuronParameter by(beta, type, neurons, op, "beta");
  const NeuronParameter at(threshold, type, neurons, op, "threshold");

  const Tensor of_input =
      need_input ? empty_series(steps, rows, neurons, input_type) : empty({0}, input_type);
  const Tensor of_v0 = need_v0 ? empty({rows, neurons}, type) : empty({0}, type);
  const ParameterGradient of_beta(need_beta, by.single, rows, neurons, type);
  const ParameterGradient of_threshold(need_threshold, at.single, rows, neurons, type);

  const int64_t step = rows * neurons, all = steps * step;
  const int64_t bytes = static_cast<int64_t>(bytes_of(dtype)), wide = by.bytes;
  char* const to_input = need_input ? static_cast<char*>(of_input.mutable_data_ptr()) : nullptr;
  char* const to_v0 = need_v0 ? static_cast<char*>(of_v0.mutable_data_ptr()) : nullptr;
  char *const to_beta = of_beta.data(), *const to_threshold = of_threshold.data();
  const LifGradientKernels& kernels = lif_gradient_kernels();
  tiles.run(threads_for(16 * all), [&](int64_t row, int64_t first, int64_t count) {
    alignas(64) double betas[kLifTile], thresholds[kLifTile];  // of float32, half of them
    const int64_t i = tiles.index(row, first);
    by.fill(i, count, betas);
    at.fill(i, count, thresholds);
    const auto series = [&](const OptionalTensor& given, const Tensor& t, int64_t size) {
      if (!given.has_value()) return ConstSeries{nullptr, 0};
      const char* p = static_cast<const char*>(t.const_data_ptr());
      return ConstSeries{p + (row * t.stride(1) + first) * size, t.stride(0)};
    };
    const auto state = [&](const void* p) -> const void* {
      return p == nullptr ? nullptr : static_cast<const char*>(p) + i * wide;
    };
    const auto to = [&](char* p, int64_t size) { return p == nullptr ? nullptr : p + i * size; };
    kernels.backward(dtype, {steps,
                             count,
                             firing,
                             !detach_reset,
                             curve,
                             slope,
                             series(grad_spikes, spikes, bytes),
                             series(grad_trajectory, trajectory, wide),
                             series(membrane, u, wide),
                             state(last),
                             state(first_v),
                             betas,
                             thresholds,
                             {to(to_input, bytes), step},
                             to(to_v0, wide),
                             to(to_beta, wide),
                             to(to_threshold, wide),
                             all * bytes >= kStreamedBytes});
  });
  return {of_input, of_v0, of_beta.finish(), of_threshold.finish()};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("lif_backward", TORCH_BOX(&synops::lif_backward));
}
