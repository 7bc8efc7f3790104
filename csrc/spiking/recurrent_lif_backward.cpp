// recurrent_lif_backward (CPU): checks, outputs, threads and the loop back in time; products in
// recurrent_lif.inc, neurons by the gradient kernel of lif.
//
// With d_t the gradient of the membranes of step t, that of the spikes before is d_t W. Where the
// surrogate is 0 and nothing else comes in, d_t is b d_(t+1), bit for bit, b being beta: so with
// one beta, and q_t = d_t W, it is q_t = b q_(t+1) + (d_t - b d_(t+1)) W, a product with the few
// neurons that are near the threshold or spiked. d_t itself is 0 nowhere.
#include <torch/csrc/stable/library.h>

#include <cstring>
#include <tuple>

#include "spiking/lif_arguments.h"
#include "spiking/neuron_rows.h"
#include "spiking/neurons.h"
#include "spiking/parameter_gradient.h"
#include "spiking/recurrent_lif_outer.h"
#include "spiking/recurrent_lif_weight.h"

namespace synops {
namespace {

// (steps, rows, P) that comes in, or nothing.
struct Incoming {
  Incoming(const OptionalTensor& t, ScalarType type, int64_t steps, int64_t rows, int64_t neurons,
           const char* op, const char* name)
      : there(t.has_value()) {
    if (!there) return;
    held = series_of(*t, type, 3, op, name);
    check_size(held.size(0), steps, op, name, "steps");
    check_step(held, rows, neurons, op, name);
    size = static_cast<int64_t>(held.element_size());
  }
  const char* row(int64_t t, int64_t r) const {
    return static_cast<const char*>(held.const_data_ptr()) +
           (t * held.stride(0) + r * held.stride(1)) * size;
  }
  bool there;
  int64_t size = 0;
  Tensor held;
};

bool compact(Surrogate curve) {
  return curve == Surrogate::kBoxcar || curve == Surrogate::kTriangle ||
         curve == Surrogate::kQuadraticGate;
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Gradients recurrent_lif_backward(const OptionalTensor& grad_spikes, const OptionalTensor& grad_v,
                                 const OptionalTensor& grad_trajectory, const Tensor& membrane,
                                 const Tensor& weight, const OptionalTensor& spikes0,
                                 const OptionalTensor& v0, const Tensor& beta,
                                 const Tensor& threshold, const OptionalTensor& crow,
                                 const OptionalTensor& col, int64_t reset, bool delayed,
                                 bool inclusive, bool detach_reset, int64_t surrogate, double slope,
                                 int64_t half, bool need_input, bool need_weight, bool need_spikes,
                                 bool need_v0, bool need_beta, bool need_threshold) {
  constexpr const char* op = "recurrent_lif_backward";
  const DType state = dtype_of(membrane, op, "membrane");
  STD_TORCH_CHECK(!is_half(state), op, ": membrane must be float32 or float64");
  STD_TORCH_CHECK(half >= 0 && half <= 2 && (half == 0 || state == DType::kFloat32), op,
                  ": half must be 0, 1 or 2, got ", half);
  const DType dtype = half == 0 ? state : half == 1 ? DType::kBFloat16 : DType::kFloat16;
  const ScalarType type = membrane.scalar_type();
  const ScalarType input_type = half == 0   ? type
                                : half == 1 ? ScalarType::BFloat16
                                            : ScalarType::Half;
  const Firing firing = firing_of(reset, delayed, inclusive, op);
  const Surrogate curve = surrogate_of(surrogate, slope, op);
  STD_TORCH_CHECK(membrane.dim() == 3, op, ": membrane must have 3 dimensions");
  const int64_t steps = membrane.size(0), rows = membrane.size(1), n = membrane.size(2);
  const int64_t step = rows * n;
  const Incoming u(membrane, type, steps, rows, n, op, "membrane");
  const Incoming of_spikes(grad_spikes, input_type, steps, rows, n, op, "grad_spikes");
  const Incoming of_trajectory(grad_trajectory, type, steps, rows, n, op, "grad_trajectory");
  RecurrentWeight matrix(weight, crow, col, n, type, op);
  Tensor held_grad, held_spikes, held_v;
  const void* last = state_of(grad_v, type, rows, n, held_grad, op, "grad_v");
  const auto first_of = [&](const OptionalTensor& t, Tensor& held, const char* name) {
    return static_cast<const char*>(state_of(t, type, rows, n, held, op, name));
  };
  const char* const first_spikes = first_of(spikes0, held_spikes, "spikes0");
  const char* const first_v = first_of(v0, held_v, "v0");
  const NeuronParameter by(beta, type, n, op, "beta");
  const NeuronParameter at(threshold, type, n, op, "threshold");

  const auto data = [](const Tensor& t) { return static_cast<char*>(t.mutable_data_ptr()); };
  const int64_t wide = by.bytes, size = static_cast<int64_t>(bytes_of(dtype));
  const bool direct = need_input && half == 0;  // the gradients of the membranes are the input's
  const Tensor of_membranes = empty_series(steps, rows, n, type);
  const Tensor of_input = direct       ? of_membranes
                          : need_input ? empty_series(steps, rows, n, input_type)
                                       : empty({0}, input_type);
  const Tensor of_v = empty({rows, n}, type);  // of the state before the step that is at hand
  const Tensor of_first = need_spikes ? empty({rows, n}, type) : empty({0}, type);
  const ParameterGradient of_beta(need_beta, by.single, rows, n, type);
  const ParameterGradient of_threshold(need_threshold, at.single, rows, n, type);
  if (need_beta) std::memset(of_beta.data(), 0, step * wide);
  if (need_threshold) std::memset(of_threshold.data(), 0, step * wide);
  if (need_spikes) std::memset(data(of_first), 0, step * wide);
  if (last == nullptr)
    std::memset(data(of_v), 0, step * wide);
  else
    std::memcpy(data(of_v), last, step * wide);

  const bool changes = by.single && compact(curve) && n > 0;
  const RecurrentSplit tiles(16 * steps, rows, matrix.entries());
  Scratch shared(Scratch::round_up(matrix.dense() ? matrix.panel_bytes() : 0) +
                 2 * Scratch::round_up(n * wide));
  matrix.pack(false, shared.take(matrix.dense() ? matrix.panel_bytes() : 0),
              threads_for(matrix.entries()));
  char* const betas = static_cast<char*>(shared.take(n * wide));
  char* const thresholds = static_cast<char*>(shared.take(n * wide));
  by.fill(0, n, betas);
  at.fill(0, n, thresholds);

  const ArrayKernels& arrays = array_kernels();
  const NeuronKernels& resets = neuron_kernels();
  const NeuronGradientKernels& neurons = neuron_gradient_kernels();
  const RecurrentLifKernels& kernels = recurrent_lif_kernels();
  const int64_t ld = matrix.ld();
  const double decay = !changes                   ? 1
                       : state == DType::kFloat64 ? *reinterpret_cast<const double*>(betas)
                                                  : *reinterpret_cast<const float*>(betas);
  const int64_t most = static_cast<int64_t>(matrix.listed(rows) * static_cast<double>(n));
  tiles.run([&](int64_t r0, int64_t r1) {
    const int64_t count = r1 - r0;
    Scratch room(Scratch::round_up(count * ld * wide) + 4 * Scratch::round_up(n * wide) +
                 Scratch::round_up(count * n * wide) +
                 Scratch::round_up(count * n * sizeof(int32_t)) +
                 Scratch::round_up(count * sizeof(int64_t)) +
                 Scratch::round_up(kBackwardRoom * kLifTile * wide));
    char* const back = static_cast<char*>(room.take(count * ld * wide));  // d W of the step after
    char* const of_fired = static_cast<char*>(room.take(n * wide));
    char* const before = static_cast<char*>(room.take(n * wide));
    char* const by_beta = static_cast<char*>(room.take(n * wide));
    char* const by_threshold = static_cast<char*>(room.take(n * wide));
    char* const values = static_cast<char*>(room.take(count * n * wide));
    const Lists lists{n, static_cast<int32_t*>(room.take(count * n * sizeof(int32_t))), values,
                      static_cast<int64_t*>(room.take(count * sizeof(int64_t)))};
    void* const of_neurons = room.take(kBackwardRoom * kLifTile * wide);
    std::memset(back, 0, count * ld * wide);

    // The state that step t began with, as far as it is needed; null: 0.
    const auto state_before = [&](int64_t t, int64_t r) -> const char* {
      if (t == 0) return first_v == nullptr ? nullptr : first_v + r * n * wide;
      if (firing.late) return u.row(t - 1, r);
      if (!need_beta) return nullptr;
      for (int64_t k = 0; k < n; k += kLifTile)  // lif of the membrane alone: what the reset leaves
        resets.forward(state, {.steps = 1,
                               .count = std::min(kLifTile, n - k),
                               .firing = firing,
                               .input = {u.row(t - 1, r) + k * wide, 0},
                               .beta = {betas + k * wide, false},
                               .threshold = {thresholds + k * wide, false},
                               .spikes = {by_beta + k * wide, 0},
                               .v = before + k * wide,
                               .room = of_neurons});
      return before;
    };
    const auto one_step = [&](int64_t t, int64_t r, char* of_membrane) {
      const int64_t b = r0 + r;
      if (of_spikes.there)
        arrays.widen(dtype, of_spikes.row(t, b), n, of_fired);
      else
        std::memset(of_fired, 0, n * wide);
      if (t + 1 < steps) kernels.add(state, back + r * ld * wide, n, of_fired);
      char* const of_state = data(of_v) + b * n * wide;
      if (of_trajectory.there) kernels.add(state, of_trajectory.row(t, b), n, of_state);
      const char* const began = state_before(t, b);
      for (int64_t k = 0; k < n; k += kLifTile) {
        const auto in = [k, wide](const char* p) { return p == nullptr ? p : p + k * wide; };
        const auto to = [k, wide](bool needed, char* p) { return needed ? p + k * wide : nullptr; };
        neurons.backward(state, {.steps = 1,
                                 .count = std::min(kLifTile, n - k),
                                 .firing = firing,
                                 .attached = !detach_reset,
                                 .surrogate = curve,
                                 .slope = slope,
                                 .grad_spikes = {of_fired + k * wide, 0},
                                 .saved = Saved::kFull,
                                 .membrane = {u.row(t, b) + k * wide, 0},
                                 .grad_v = of_state + k * wide,
                                 .v0 = in(began),
                                 .beta = {betas + k * wide, false},
                                 .threshold = {thresholds + k * wide, false},
                                 .grad_input = {of_membrane + k * wide, 0},
                                 .grad_v0 = of_state + k * wide,
                                 .grad_beta = to(need_beta, by_beta),
                                 .grad_threshold = to(need_threshold, by_threshold),
                                 .room = of_neurons});
      }
      if (need_beta) kernels.add(state, by_beta, n, of_beta.data() + b * n * wide);
      if (need_threshold) kernels.add(state, by_threshold, n, of_threshold.data() + b * n * wide);
    };
    for (int64_t t = steps; t-- > 0;) {
      char* const whole = data(of_membranes) + (t * step + r0 * n) * wide;
      for (int64_t r = 0; r < count; ++r) {
        char* const now = whole + r * n * wide;
        one_step(t, r, now);
        lists.count[r] = -1;
        if (changes)
          lists.count[r] =
              kernels.list(state, now, decay, t + 1 < steps ? now + step * wide : nullptr, n, most,
                           lists.index + r * n, values + r * n * wide);
        if (lists.count[r] < 0) std::memset(back + r * ld * wide, 0, ld * wide);
      }
      if (t > 0 || need_spikes)
        matrix.multiply({count, lists, whole, decay, back, ld}, tiles.panel_threads);
      for (int64_t r = 0; r < count && need_input && half != 0; ++r)
        arrays.narrow(dtype, whole + r * n * wide, n,
                      data(of_input) + (t * step + (r0 + r) * n) * size);
    }
    for (int64_t r = 0; r < count && need_spikes; ++r)
      std::memcpy(data(of_first) + (r0 + r) * n * wide, back + r * ld * wide, n * wide);
  });

  Tensor of_weight = empty({0}, type);
  if (need_weight) {
    const int64_t of_t = u.held.stride(0) * wide, of_r = u.held.stride(1) * wide;
    const SpikesBefore spikes{
        rows,      n,           static_cast<const char*>(u.held.const_data_ptr()),
        of_t,      of_r,        thresholds,
        inclusive, first_spikes};
    of_weight = weight_gradient(spikes, matrix, data(of_membranes), steps, type);
  }
  return {of_input,         of_weight,
          of_first,         need_v0 ? of_v : empty({0}, type),
          of_beta.finish(), of_threshold.finish()};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("recurrent_lif_backward", TORCH_BOX(&synops::recurrent_lif_backward));
}
