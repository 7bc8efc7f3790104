// alif (CPU): the ops; checks and threads in neurons.cpp.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "spiking/neuron_ops.h"

namespace synops {
namespace {

SecondState adaptation(const OptionalTensor& a0, const Tensor& rho, const Tensor& beta_a) {
  return {&a0, &rho, &beta_a, "a0", "rho", "beta_a"};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> alif(
    const Tensor& input, const OptionalTensor& v0, const OptionalTensor& a0, const Tensor& beta,
    const Tensor& threshold, const Tensor& rho, const Tensor& beta_a, int64_t reset, bool delayed,
    bool inclusive, bool detach_reset, int64_t surrogate, double slope, int64_t spikes,
    int64_t save, bool save_second, bool record) {
  const NeuronRule rule{reset, delayed, inclusive, detach_reset, surrogate, slope};
  NeuronOutputs out =
      run_neurons("alif", Neuron::kAlif, input, v0, beta, threshold, adaptation(a0, rho, beta_a),
                  rule, spikes, save, save_second, record);
  return {out.spikes, out.v, out.w, out.membrane, out.second, out.trajectory};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> alif_backward(
    const OptionalTensor& grad_spikes, const OptionalTensor& grad_v, const OptionalTensor& grad_w,
    const OptionalTensor& grad_trajectory, const Tensor& membrane, const OptionalTensor& second,
    const OptionalTensor& v0, const OptionalTensor& a0, const Tensor& beta, const Tensor& threshold,
    const Tensor& rho, const Tensor& beta_a, int64_t reset, bool delayed, bool inclusive,
    bool detach_reset, int64_t surrogate, double slope, int64_t half, bool need_input, bool need_v0,
    bool need_a0, bool need_beta, bool need_threshold, bool need_rho, bool need_beta_a) {
  const NeuronRule rule{reset, delayed, inclusive, detach_reset, surrogate, slope};
  NeuronGradientOutputs out = run_neurons_backward(
      "alif_backward", Neuron::kAlif, {grad_spikes, grad_v, grad_trajectory, &grad_w},
      {membrane, &second}, v0, beta, threshold, adaptation(a0, rho, beta_a), rule, half,
      {need_input, need_v0, need_beta, need_threshold, need_a0, need_rho, need_beta_a});
  return {out.input, out.v0, out.w0, out.beta, out.threshold, out.decay, out.strength};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("alif", TORCH_BOX(&synops::alif));
  m.impl("alif_backward", TORCH_BOX(&synops::alif_backward));
}
