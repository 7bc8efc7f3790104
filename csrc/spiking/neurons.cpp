// lif, alif and cuba_lif (CPU) forward: checks, outputs and threads; kernel in neurons.inc.
#include "common/scratch.h"
#include "spiking/lif_arguments.h"
#include "spiking/neuron_ops.h"
#include "spiking/neuron_parameters.h"

namespace synops {

NeuronOutputs run_neurons(const char* op, Neuron neuron, const Tensor& input,
                          const OptionalTensor& v0, const Tensor& beta, const Tensor& threshold,
                          const SecondState& second, const NeuronRule& rule, int64_t spikes,
                          int64_t save, bool save_second, bool record) {
  const DType dtype = dtype_of(input, op, "input");
  const ScalarType type = state_type(dtype);
  const Firing firing = firing_of(rule.reset, rule.delayed, rule.inclusive, op);
  surrogate_of(rule.surrogate, rule.slope, op);
  STD_TORCH_CHECK(spikes >= 0 && spikes <= 2, op, ": spikes must be 0, 1 or 2, got ", spikes);
  STD_TORCH_CHECK(save >= 0 && save <= (type == ScalarType::Double ? 1 : 2), op,
                  ": save must be 0, 1 or, but for float64, 2, got ", save);
  const SpikeForm form = static_cast<SpikeForm>(spikes);
  const Saved saved = static_cast<Saved>(save);
  const Tensor x = series_of(input, input.scalar_type(), 3, op, "input");
  const int64_t steps = x.size(0), rows = x.size(1), neurons = x.size(2);
  const bool two = neuron != Neuron::kLif;
  save_second = save_second && two;
  Tensor held, held_second;
  const void* start = state_of(v0, type, rows, neurons, held, op, "v0");
  const void* start_second =
      two ? state_of(*second.start, type, rows, neurons, held_second, op, second.start_name)
          : nullptr;
  const NeuronParameters given(op, type, neurons, beta, threshold, second);

  NeuronOutputs out;
  const auto series = [&](bool wanted, ScalarType of) {
    return wanted ? empty_series(steps, rows, neurons, of) : empty({0}, of);
  };
  const int64_t bits = (neurons + 7) / 8;
  out.spikes = form == SpikeForm::kBits    ? empty_series(steps, rows, bits, ScalarType::Byte)
               : form == SpikeForm::kBytes ? series(true, ScalarType::Byte)
                                           : series(true, input.scalar_type());
  out.v = empty({rows, neurons}, type);
  if (two) out.w = empty({rows, neurons}, type);
  const ScalarType membrane_type = saved == Saved::kHalf ? ScalarType::Half : type;
  out.membrane = series(saved != Saved::kNothing, membrane_type);
  if (two) out.second = series(save_second, type);
  out.trajectory = series(record, type);

  NeuronTiles tiles(rows, neurons, kLifTile);
  tiles.see(x);
  if (form == SpikeForm::kBits && neurons % 8 != 0) tiles.row_by_row();
  const int64_t step = rows * neurons, all = steps * step;
  const int64_t bytes = static_cast<int64_t>(bytes_of(dtype)), wide = given.bytes();
  const char* in = static_cast<const char*>(x.const_data_ptr());
  const auto data = [](const Tensor& t) { return static_cast<char*>(t.mutable_data_ptr()); };
  char *const to_spikes = data(out.spikes), *const to_v = data(out.v);
  char* const to_w = two ? data(out.w) : nullptr;
  char* const to_membrane = saved == Saved::kNothing ? nullptr : data(out.membrane);
  char* const to_second = save_second ? data(out.second) : nullptr;
  char* const to_trajectory = record ? data(out.trajectory) : nullptr;
  const NeuronKernels& kernels = neuron_kernels();
  tiles.run(threads_for(8 * all), [&](int64_t row, int64_t first, int64_t count) {
    const int64_t i = tiles.index(row, first);
    Scratch room(kForwardRoom * padded(count) * wide + given.room(count));
    void* const states = room.take(kForwardRoom * padded(count) * wide);
    const auto to = [&](char* p, int64_t size) { return p == nullptr ? nullptr : p + i * size; };
    const auto from = [&](const void* p) -> const void* {
      return p == nullptr ? nullptr : static_cast<const char*>(p) + i * wide;
    };
    const auto spikes_at = [&]() -> Series {
      if (form == SpikeForm::kInput) return {to(to_spikes, bytes), step};
      if (form == SpikeForm::kBytes) return {to(to_spikes, 1), step};
      // a row begins at a byte; rows in one have multiples of 8 neurons each
      const bool whole = neurons % 8 == 0;
      return {to_spikes + (whole ? i / 8 : row * bits + first / 8), rows * bits};
    };
    kernels.forward(dtype, {steps,
                            count,
                            neuron,
                            firing,
                            {in + (row * x.stride(1) + first) * bytes, x.stride(0)},
                            from(start),
                            from(start_second),
                            given.beta.values(i, count, room),
                            given.threshold.values(i, count, room),
                            given.decay.values(i, count, room),
                            given.strength.values(i, count, room),
                            form,
                            spikes_at(),
                            saved,
                            {to(to_membrane, saved == Saved::kHalf ? 2 : wide), step},
                            {to(to_second, wide), step},
                            {to(to_trajectory, wide), step},
                            to(to_v, wide),
                            to(to_w, wide),
                            states,
                            all * bytes >= kStreamedBytes});
  });
  return out;
}

}  // namespace synops
