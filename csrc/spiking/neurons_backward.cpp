// lif, alif and cuba_lif (CPU) backward: checks, outputs and threads; kernel in
// neurons_backward.inc.
#include "common/scratch.h"
#include "spiking/lif_arguments.h"
#include "spiking/neuron_ops.h"
#include "spiking/neuron_parameters.h"
#include "spiking/parameter_gradient.h"

namespace synops {

NeuronGradientOutputs run_neurons_backward(const char* op, Neuron neuron,
                                           const NeuronGradients& grads, const NeuronSaved& given,
                                           const OptionalTensor& v0, const Tensor& beta,
                                           const Tensor& threshold, const SecondState& second,
                                           const NeuronRule& rule, int64_t half,
                                           const NeuronNeeds& needs) {
  // float16: distances from the threshold
  const Saved saved =
      given.membrane.scalar_type() == ScalarType::Half ? Saved::kHalf : Saved::kFull;
  const DType wide_type = dtype_of(beta, op, "beta");
  STD_TORCH_CHECK(!is_half(wide_type), op, ": beta must be float32 or float64");
  STD_TORCH_CHECK(half >= 0 && half <= 2 && (half == 0 || wide_type == DType::kFloat32), op,
                  ": half must be 0, 1 or 2, got ", half);
  STD_TORCH_CHECK(saved == Saved::kFull || wide_type == DType::kFloat32, op,
                  ": membrane must be float64");
  const DType dtype = half == 0 ? wide_type : half == 1 ? DType::kBFloat16 : DType::kFloat16;
  const ScalarType type = beta.scalar_type();
  const ScalarType input_type = half == 0   ? type
                                : half == 1 ? ScalarType::BFloat16
                                            : ScalarType::Half;
  const Firing firing = firing_of(rule.reset, rule.delayed, rule.inclusive, op);
  const Surrogate curve = surrogate_of(rule.surrogate, rule.slope, op);
  const Tensor u =
      series_of(given.membrane, saved == Saved::kHalf ? ScalarType::Half : type, 3, op, "membrane");
  const int64_t steps = u.size(0), rows = u.size(1), neurons = u.size(2);
  const bool two = neuron != Neuron::kLif;
  NeuronTiles tiles(rows, neurons, kLifTile);
  tiles.see(u);
  const auto incoming = [&](const OptionalTensor& t, ScalarType of, Tensor& to, const char* name) {
    if (!t.has_value()) return;
    to = series_of(*t, of, 3, op, name);
    check_size(to.size(0), steps, op, name, "steps");
    check_step(to, rows, neurons, op, name);
    tiles.see(to);
  };
  Tensor spikes, trajectory, states, of_v, of_w, start, start_second;
  incoming(grads.spikes, input_type, spikes, "grad_spikes");
  incoming(grads.trajectory, type, trajectory, "grad_trajectory");
  if (two) incoming(*given.second, type, states, "second");
  const bool has_second = two && given.second->has_value();
  const bool of_parameters = needs.beta || needs.decay || needs.strength;
  const bool reads_membrane = firing.reset == Reset::kZero && !rule.detach_reset;
  if (neuron == Neuron::kAlif)
    STD_TORCH_CHECK(has_second || !(of_parameters || reads_membrane), op,
                    ": the adaptation was not saved for this gradient");
  if (neuron == Neuron::kCubaLif)
    STD_TORCH_CHECK(has_second || !needs.decay, op,
                    ": the current was not saved for this gradient");
  const void* last = state_of(grads.v, type, rows, neurons, of_v, op, "grad_v");
  const void* last_second =
      two ? state_of(*grads.w, type, rows, neurons, of_w, op, "grad_w") : nullptr;
  const void* first_v = state_of(v0, type, rows, neurons, start, op, "v0");
  const void* first_w =
      two ? state_of(*second.start, type, rows, neurons, start_second, op, second.start_name)
          : nullptr;
  const NeuronParameters values(op, type, neurons, beta, threshold, second);

  NeuronGradientOutputs out;
  const auto state_gradient = [&](bool needed) {
    return needed ? empty({rows, neurons}, type) : empty({0}, type);
  };
  out.input = needs.input ? empty_series(steps, rows, neurons, input_type) : empty({0}, input_type);
  out.v0 = state_gradient(needs.v0);
  out.w0 = state_gradient(needs.w0);
  const auto of_parameter = [&](bool needed, const MaybeParameter& p) {
    return ParameterGradient(needed, p.single(), rows, neurons, type);
  };
  const ParameterGradient of_beta = of_parameter(needs.beta, values.beta);
  const ParameterGradient of_threshold = of_parameter(needs.threshold, values.threshold);
  const ParameterGradient of_decay = of_parameter(needs.decay, values.decay);
  const ParameterGradient of_strength = of_parameter(needs.strength, values.strength);

  const int64_t step = rows * neurons, all = steps * step;
  const int64_t bytes = static_cast<int64_t>(bytes_of(dtype)), wide = values.bytes();
  const auto data = [](bool needed, const Tensor& t) {
    return needed ? static_cast<char*>(t.mutable_data_ptr()) : nullptr;
  };
  char* const to_input = data(needs.input, out.input);
  char *const to_v0 = data(needs.v0, out.v0), *const to_w0 = data(needs.w0, out.w0);
  char *const to_beta = of_beta.data(), *const to_threshold = of_threshold.data();
  char *const to_decay = of_decay.data(), *const to_strength = of_strength.data();
  const NeuronGradientKernels& kernels = neuron_gradient_kernels();
  tiles.run(threads_for(16 * all), [&](int64_t row, int64_t first, int64_t count) {
    const int64_t i = tiles.index(row, first);
    Scratch room(kBackwardRoom * padded(count) * wide + values.room(count));
    void* const sums = room.take(kBackwardRoom * padded(count) * wide);
    const auto series = [&](bool there, const Tensor& t, int64_t size) {
      if (!there) return ConstSeries{nullptr, 0};
      const char* p = static_cast<const char*>(t.const_data_ptr());
      return ConstSeries{p + (row * t.stride(1) + first) * size, t.stride(0)};
    };
    const auto state = [&](const void* p) -> const void* {
      return p == nullptr ? nullptr : static_cast<const char*>(p) + i * wide;
    };
    const auto to = [&](char* p, int64_t size) { return p == nullptr ? nullptr : p + i * size; };
    kernels.backward(dtype, {steps,
                             count,
                             neuron,
                             firing,
                             !rule.detach_reset,
                             curve,
                             rule.slope,
                             series(grads.spikes.has_value(), spikes, bytes),
                             series(grads.trajectory.has_value(), trajectory, wide),
                             saved,
                             series(true, u, saved == Saved::kHalf ? 2 : wide),
                             series(has_second, states, wide),
                             state(last),
                             state(last_second),
                             state(first_v),
                             state(first_w),
                             values.beta.values(i, count, room),
                             values.threshold.values(i, count, room),
                             values.decay.values(i, count, room),
                             values.strength.values(i, count, room),
                             {to(to_input, bytes), step},
                             to(to_v0, wide),
                             to(to_w0, wide),
                             to(to_beta, wide),
                             to(to_threshold, wide),
                             to(to_decay, wide),
                             to(to_strength, wide),
                             sums,
                             all * bytes >= kStreamedBytes});
  });
  out.beta = of_beta.finish();
  out.threshold = of_threshold.finish();
  out.decay = of_decay.finish();
  out.strength = of_strength.finish();
  return out;
}

}  // namespace synops
