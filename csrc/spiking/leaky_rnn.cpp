// leaky_rnn and leaky_rnn_ (CPU): checks, outputs and threads; kernel in leaky_rnn.inc.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "spiking/leaky_rnn_layer.h"

namespace synops {
namespace {

// (T, R, N) with the neurons of a row side by side, or one number for all of them.
Tensor input_of(const Tensor& input, const char* op) {
  dtype_of(input, op, "input");
  const bool one = input.dim() == 3 && input.stride(2) == 0 && input.is_cpu();
  return one ? input : series_of(input, input.scalar_type(), 3, op, "input");
}

// Writes `states`, `drive` if there is one, and returns a copy of the last state.
Tensor run(const char* op, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
           const OptionalTensor& h0, const Tensor& rate, LeakyRule rule, bool zero_diagonal,
           void* states, void* drive) {
  const DType dtype = dtype_of(x, op, "input");
  const ScalarType type = state_type(dtype);
  const int64_t steps = x.size(0), rows = x.size(1), n = x.size(2), step = rows * n;
  const LeakyLayer layer(weight, rate, type, n, op);
  Tensor held;
  const char* start = static_cast<const char*>(state_of(h0, type, rows, n, held, op, "h0"));
  const Tensor h = empty({rows, n}, type);
  Scratch packed(layer.packed_bytes(n)), offsets(layer.padded * layer.bytes);
  std::memset(offsets.data(), 0, layer.padded * layer.bytes);
  if (bias.has_value()) NeuronParameter(*bias, type, n, op, "bias").fill(0, n, offsets.data());

  const LeakyRnnKernels& kernels = leaky_rnn_kernels();
  if (steps * step > 0) {
    split(layer.panels, threads_for(n * n), [&](int64_t begin, int64_t end) {
      kernels.pack_turned(layer.wide, layer.weight(), n, zero_diagonal, begin, end, packed.data());
    });
    const char* const in = static_cast<const char*>(x.const_data_ptr());
    const int64_t bytes = static_cast<int64_t>(bytes_of(dtype));
    LeakyLayer::for_rows(rows, steps * step * n, [&](int64_t first, int64_t count) {
      const auto from = [&](auto* p) {
        return p == nullptr ? nullptr : p + first * n * layer.bytes;
      };
      kernels.forward(dtype, {{steps, count, n, step, rule, packed.data(), layer.rate(),
                               layer.keep(), from(start)},
                              offsets.data(),
                              in + first * x.stride(1) * bytes,
                              x.stride(0),
                              x.stride(1),
                              x.stride(2) == 0 ? 0 : 1,
                              from(static_cast<char*>(states)),
                              from(static_cast<char*>(drive))});
    });
  }
  const void* last =
      steps > 0 ? static_cast<char*>(states) + (steps - 1) * step * layer.bytes : start;
  if (step > 0 && last == nullptr)
    std::memset(h.mutable_data_ptr(), 0, step * layer.bytes);
  else if (step > 0)
    std::memcpy(h.mutable_data_ptr(), last, step * layer.bytes);
  return h;
}

std::tuple<Tensor, Tensor, Tensor> leaky_rnn(const Tensor& input, const Tensor& weight,
                                             const OptionalTensor& bias, const OptionalTensor& h0,
                                             const Tensor& rate, int64_t activation, double slope,
                                             bool inner, bool zero_diagonal, bool save) {
  constexpr const char* op = "leaky_rnn";
  const LeakyRule rule = leaky_rule_of(activation, slope, inner, op);
  const Tensor x = input_of(input, op);
  const ScalarType type = state_type(dtype_of(x, op, "input"));
  const auto series = [&] { return empty_series(x.size(0), x.size(1), x.size(2), type); };
  const Tensor states = series(), drive = save ? series() : empty({0}, type);
  const Tensor h = run(op, x, weight, bias, h0, rate, rule, zero_diagonal,
                       states.mutable_data_ptr(), save ? drive.mutable_data_ptr() : nullptr);
  return {states, h, drive};
}

Tensor leaky_rnn_(Tensor states, const Tensor& input, const Tensor& weight,
                  const OptionalTensor& bias, const OptionalTensor& h0, const Tensor& rate,
                  int64_t activation, double slope, bool inner, bool zero_diagonal) {
  constexpr const char* op = "leaky_rnn_";
  const LeakyRule rule = leaky_rule_of(activation, slope, inner, op);
  const Tensor x = input_of(input, op);
  check_tensor(states, state_type(dtype_of(x, op, "input")), 3, op, "states");
  check_size(states.size(0), x.size(0), op, "states", "steps");
  check_step(states, x.size(1), x.size(2), op, "states");
  STD_TORCH_CHECK(states.is_contiguous(), op, ": states must be contiguous");
  return run(op, x, weight, bias, h0, rate, rule, zero_diagonal, states.mutable_data_ptr(),
             nullptr);
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("leaky_rnn", TORCH_BOX(&synops::leaky_rnn));
  m.impl("leaky_rnn_", TORCH_BOX(&synops::leaky_rnn_));
}
