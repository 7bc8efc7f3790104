// recurrent_lif (CPU): checks, outputs, threads and the loop over time; products in
// recurrent_lif.inc, neurons by the kernel of lif.
#include "spiking/recurrent_lif.h"

#include <torch/csrc/stable/library.h>

#include <cstring>
#include <tuple>

#include "spiking/lif_arguments.h"
#include "spiking/neuron_rows.h"
#include "spiking/neurons.h"
#include "spiking/recurrent_lif_weight.h"

namespace synops {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> recurrent_lif(
    const Tensor& input, const Tensor& weight, const OptionalTensor& spikes0,
    const OptionalTensor& v0, const Tensor& beta, const Tensor& threshold,
    const OptionalTensor& crow, const OptionalTensor& col, int64_t reset, bool delayed,
    bool inclusive, bool /*detach_reset*/, int64_t surrogate, double slope, bool save,
    bool record) {
  constexpr const char* op = "recurrent_lif";
  const DType dtype = dtype_of(input, op, "input");
  const ScalarType type = state_type(dtype);
  const Firing firing = firing_of(reset, delayed, inclusive, op);
  surrogate_of(surrogate, slope, op);
  const Tensor x = series_of(input, input.scalar_type(), 3, op, "input");
  const int64_t steps = x.size(0), rows = x.size(1), n = x.size(2), step = rows * n;
  RecurrentWeight matrix(weight, crow, col, n, type, op);
  Tensor held_spikes, held_v;
  const char* first_spikes =
      static_cast<const char*>(state_of(spikes0, type, rows, n, held_spikes, op, "spikes0"));
  const char* first_v = static_cast<const char*>(state_of(v0, type, rows, n, held_v, op, "v0"));
  const NeuronParameter by(beta, type, n, op, "beta");
  const NeuronParameter at(threshold, type, n, op, "threshold");

  const Tensor spikes = empty_series(steps, rows, n, input.scalar_type());
  const Tensor v = empty({rows, n}, type);
  const Tensor membrane = save ? empty_series(steps, rows, n, type) : empty({0}, type);
  const Tensor trajectory = record ? empty_series(steps, rows, n, type) : empty({0}, type);
  const int64_t size = static_cast<int64_t>(bytes_of(dtype)), wide = by.bytes;
  const auto data = [](const Tensor& t) { return static_cast<char*>(t.mutable_data_ptr()); };
  if (first_v == nullptr)
    std::memset(data(v), 0, step * wide);
  else
    std::memcpy(data(v), first_v, step * wide);
  if (steps == 0 || step == 0) return {spikes, v, membrane, trajectory};

  const RecurrentSplit tiles(steps, rows, matrix.entries());
  Scratch shared(Scratch::round_up(matrix.dense() ? matrix.panel_bytes() : 0) +
                 2 * Scratch::round_up(n * wide));
  const bool finite = matrix.pack(true, shared.take(matrix.dense() ? matrix.panel_bytes() : 0),
                                  threads_for(matrix.entries()));
  void *const betas = shared.take(n * wide), *const thresholds = shared.take(n * wide);
  by.fill(0, n, betas);
  at.fill(0, n, thresholds);

  const ArrayKernels& arrays = array_kernels();
  const NeuronKernels& neurons = neuron_kernels();
  const RecurrentLifKernels& kernels = recurrent_lif_kernels();
  const DType state = matrix.wide();
  const int64_t ld = matrix.ld();
  // Sums of spikes have the same bits either way, but for weights that 0 does not make 0.
  const int64_t most = finite ? static_cast<int64_t>(kWholeAbove * static_cast<double>(n)) : n;
  tiles.run([&](int64_t r0, int64_t r1) {
    const int64_t count = r1 - r0;
    Scratch room(Scratch::round_up(count * ld * wide) + 2 * Scratch::round_up(count * n * wide) +
                 Scratch::round_up(count * n * sizeof(int32_t)) +
                 Scratch::round_up(count * sizeof(int64_t)) +
                 Scratch::round_up(kForwardRoom * kLifTile * wide));
    char* const current = static_cast<char*>(room.take(count * ld * wide));
    char* const fired = static_cast<char*>(room.take(count * n * wide));  // of half precision
    char* const values = static_cast<char*>(room.take(count * n * wide));
    const Lists lists{n, static_cast<int32_t*>(room.take(count * n * sizeof(int32_t))), nullptr,
                      static_cast<int64_t*>(room.take(count * sizeof(int64_t)))};
    void* const of_neurons = room.take(kForwardRoom * kLifTile * wide);
    std::memset(current, 0, count * ld * wide);  // also what is behind the last column
    Product product{count, lists, nullptr, 1, current, ld};
    const auto look = [&](const char* row, int64_t r, char* value) {
      lists.count[r] = kernels.list(state, row, 0, nullptr, n, most, lists.index + r * n, value);
    };
    for (int64_t r = 0; r < count; ++r) lists.count[r] = 0;
    if (first_spikes != nullptr) {
      product.whole = first_spikes + r0 * n * wide, product.left.value = values;
      for (int64_t r = 0; r < count; ++r)
        look(first_spikes + (r0 + r) * n * wide, r, values + r * n * wide);
    }
    for (int64_t t = 0; t < steps; ++t) {
      const char* const in = static_cast<const char*>(x.const_data_ptr());
      for (int64_t r = 0; r < count; ++r)
        arrays.widen(dtype, in + (t * x.stride(0) + (r0 + r) * x.stride(1)) * size, n,
                     current + r * ld * wide);
      matrix.multiply(product, tiles.panel_threads);
      const int64_t first = t * step + r0 * n;  // of the rows, in a series
      char* const whole = is_half(dtype) ? fired : data(spikes) + first * wide;
      for (int64_t r = 0; r < count; ++r) {
        const auto in_series = [&](bool wanted, const Tensor& s, int64_t k) {
          return Series{wanted ? data(s) + (first + r * n + k) * wide : nullptr, 0};
        };
        for (int64_t k = 0; k < n; k += kLifTile) {
          char* const v_at = data(v) + ((r0 + r) * n + k) * wide;
          neurons.forward(state,
                          {.steps = 1,
                           .count = std::min(kLifTile, n - k),
                           .firing = firing,
                           .input = {current + (r * ld + k) * wide, 0},
                           .v0 = v_at,
                           .beta = {static_cast<const char*>(betas) + k * wide, false},
                           .threshold = {static_cast<const char*>(thresholds) + k * wide, false},
                           .spikes = {whole + (r * n + k) * wide, 0},
                           .saved = Saved::kFull,
                           .membrane = in_series(save, membrane, k),
                           .trajectory = in_series(record, trajectory, k),
                           .v = v_at,
                           .room = of_neurons});
        }
        if (is_half(dtype))
          arrays.narrow(dtype, fired + r * n * wide, n, data(spikes) + (first + r * n) * size);
        if (t + 1 < steps) look(whole + r * n * wide, r, nullptr);
      }
      product.whole = whole, product.left.value = nullptr;
    }
  });
  return {spikes, v, membrane, trajectory};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("recurrent_lif", TORCH_BOX(&synops::recurrent_lif));
}
