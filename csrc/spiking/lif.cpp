// lif (CPU): the ops; checks and threads in neurons.cpp.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "spiking/neuron_ops.h"

namespace synops {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> lif(const Tensor& input, const OptionalTensor& v0,
                                               const Tensor& beta, const Tensor& threshold,
                                               int64_t reset, bool delayed, bool inclusive,
                                               bool detach_reset, int64_t surrogate, double slope,
                                               int64_t spikes, int64_t save, bool record) {
  const NeuronRule rule{reset, delayed, inclusive, detach_reset, surrogate, slope};
  NeuronOutputs out = run_neurons("lif", Neuron::kLif, input, v0, beta, threshold, {}, rule, spikes,
                                  save, false, record);
  return {out.spikes, out.v, out.membrane, out.trajectory};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> lif_backward(
    const OptionalTensor& grad_spikes, const OptionalTensor& grad_v,
    const OptionalTensor& grad_trajectory, const Tensor& membrane, const OptionalTensor& v0,
    const Tensor& beta, const Tensor& threshold, int64_t reset, bool delayed, bool inclusive,
    bool detach_reset, int64_t surrogate, double slope, int64_t half, bool need_input, bool need_v0,
    bool need_beta, bool need_threshold) {
  const NeuronRule rule{reset, delayed, inclusive, detach_reset, surrogate, slope};
  NeuronGradientOutputs out = run_neurons_backward(
      "lif_backward", Neuron::kLif, {grad_spikes, grad_v, grad_trajectory}, {membrane}, v0, beta,
      threshold, {}, rule, half, {need_input, need_v0, need_beta, need_threshold});
  return {out.input, out.v0, out.beta, out.threshold};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("lif", TORCH_BOX(&synops::lif));
  m.impl("lif_backward", TORCH_BOX(&synops::lif_backward));
}
