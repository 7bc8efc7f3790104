// lif, alif and cuba_lif on tensors: what their ops hand over (bodies in neurons.cpp).
#pragma once

#include <torch/csrc/stable/tensor.h>

#include "spiking/neuron_rows.h"
#include "spiking/neurons.h"

namespace synops {

// As the ops have them, unchecked.
struct NeuronRule {
  int64_t reset;
  bool delayed, inclusive, detach_reset;
  int64_t surrogate;
  double slope;
};

// Beside the membrane: absent (null) where the neuron has none. With their names in the schema.
struct SecondState {
  const OptionalTensor* start = nullptr;
  const Tensor *decay = nullptr, *strength = nullptr;
  const char *start_name = "", *decay_name = "", *strength_name = "";
};

struct NeuronOutputs {
  Tensor spikes, v, w, membrane, second, trajectory;
};
NeuronOutputs run_neurons(const char* op, Neuron neuron, const Tensor& input,
                          const OptionalTensor& v0, const Tensor& beta, const Tensor& threshold,
                          const SecondState& second, const NeuronRule& rule, int64_t spikes,
                          int64_t save, bool save_second, bool record);

// Gradients that come in, and what the forward saved.
struct NeuronGradients {
  const OptionalTensor &spikes, &v, &trajectory;
  const OptionalTensor* w = nullptr;
};
struct NeuronSaved {
  const Tensor& membrane;
  const OptionalTensor* second = nullptr;
};
struct NeuronNeeds {
  bool input, v0, beta, threshold, w0 = false, decay = false, strength = false;
};
struct NeuronGradientOutputs {
  Tensor input, v0, w0, beta, threshold, decay, strength;
};
NeuronGradientOutputs run_neurons_backward(const char* op, Neuron neuron,
                                           const NeuronGradients& grads, const NeuronSaved& saved,
                                           const OptionalTensor& v0, const Tensor& beta,
                                           const Tensor& threshold, const SecondState& second,
                                           const NeuronRule& rule, int64_t half,
                                           const NeuronNeeds& needs);

}  // namespace synops
