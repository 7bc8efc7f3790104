// cuba_lif (CPU): the ops; checks and threads in neurons.cpp.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "spiking/neuron_ops.h"

namespace synops {
namespace {

SecondState current(const OptionalTensor& i0, const Tensor& alpha) {
  return {&i0, &alpha, nullptr, "i0", "alpha"};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> cuba_lif(
    const Tensor& input, const OptionalTensor& v0, const OptionalTensor& i0, const Tensor& beta,
    const Tensor& threshold, const Tensor& alpha, int64_t reset, bool delayed, bool inclusive,
    bool detach_reset, int64_t surrogate, double slope, int64_t spikes, int64_t save,
    bool save_second, bool record) {
  const NeuronRule rule{reset, delayed, inclusive, detach_reset, surrogate, slope};
  NeuronOutputs out = run_neurons("cuba_lif", Neuron::kCubaLif, input, v0, beta, threshold,
                                  current(i0, alpha), rule, spikes, save, save_second, record);
  return {out.spikes, out.v, out.w, out.membrane, out.second, out.trajectory};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> cuba_lif_backward(
    const OptionalTensor& grad_spikes, const OptionalTensor& grad_v, const OptionalTensor& grad_w,
    const OptionalTensor& grad_trajectory, const Tensor& membrane, const OptionalTensor& second,
    const OptionalTensor& v0, const OptionalTensor& i0, const Tensor& beta, const Tensor& threshold,
    const Tensor& alpha, int64_t reset, bool delayed, bool inclusive, bool detach_reset,
    int64_t surrogate, double slope, int64_t half, bool need_input, bool need_v0, bool need_i0,
    bool need_beta, bool need_threshold, bool need_alpha) {
  const NeuronRule rule{reset, delayed, inclusive, detach_reset, surrogate, slope};
  NeuronGradientOutputs out = run_neurons_backward(
      "cuba_lif_backward", Neuron::kCubaLif, {grad_spikes, grad_v, grad_trajectory, &grad_w},
      {membrane, &second}, v0, beta, threshold, current(i0, alpha), rule, half,
      {need_input, need_v0, need_beta, need_threshold, need_i0, need_alpha});
  return {out.input, out.v0, out.w0, out.beta, out.threshold, out.decay};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("cuba_lif", TORCH_BOX(&synops::cuba_lif));
  m.impl("cuba_lif_backward", TORCH_BOX(&synops::cuba_lif_backward));
}
