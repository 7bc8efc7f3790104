// ei_reservoir (CPU): checks, threads and the loop over time; the kernels of a step are in
// ei_reservoir.inc.
#include "spiking/ei_reservoir.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "sparse/compressed.h"
#include "spiking/reservoir.h"

namespace synops {
namespace {

constexpr const char* kOp = "ei_reservoir";

struct Network {
  DType dtype;
  Csr excitatory, inhibitory;
  int64_t steps, sequences, rows, inputs, washout;
  const void *values, *input_weight, *gain, *threshold, *leak;
  const void *target, *delta;  // null: inhibition stays
  const char* input;
  int64_t input_step, input_next;  // elements between steps, between sequences
  char *rates, *state, *inhibition;
  int64_t inhibition_next;  // elements between sequences
};

// The values of an interleaved weight back in CSR order.
template <class A>
void take_back(const Places& p, const Csr& w, const Interleaved& from, A* to) {
  const A* values = static_cast<const A*>(from.values);
  for (int64_t at = 0; at < p.rows; ++at) {
    const int64_t n = p.row_of[at], begin = from.begin[at / kGroup];
    for (int64_t j = w.crow[n]; j < w.crow[n + 1]; ++j)
      to[j] = values[(begin + j - w.crow[n]) * kGroup + at % kGroup];
  }
}

template <class A>
void run(const Network& r) {
  Scratch order(places_bytes(r.rows));
  const Places places =
      places_of(r.rows, r.inputs, r.inhibitory.crow, r.excitatory.crow, {}, order);
  STD_TORCH_CHECK(places.size() <= kMaxIndex, kOp, ": sizes must fit in int32");
  const InterleavedSize of_e = interleaved_size(places, r.excitatory.crow, r.inputs, sizeof(A));
  const InterleavedSize of_i = interleaved_size(places, r.inhibitory.crow, 0, sizeof(A));
  const size_t by_place = Scratch::round_up(places.count() * sizeof(A));
  Scratch packed(of_e.bytes + 4 * by_place);
  const Interleaved excitatory =
      interleave<A>(places, r.excitatory, 0, static_cast<const A*>(r.values),
                    static_cast<const A*>(r.input_weight), r.inputs, of_e, packed);
  const auto parameter = [&](const void* from) -> const A* {
    if (from == nullptr) return nullptr;
    A* to = static_cast<A*>(packed.take(by_place));
    to_places<A>(places, static_cast<const A*>(from), A(0), to);
    return to;
  };
  const A *gain = parameter(r.gain), *threshold = parameter(r.threshold), *leak = parameter(r.leak),
          *target = parameter(r.target);
  const A* const delta = static_cast<const A*>(r.delta);
  const bool in_order = places.in_order();
  const EiKernels& kernels = ei_kernels();
  const int64_t entries = r.excitatory.nnz + r.inhibitory.nnz + r.rows * r.inputs;
  split(r.sequences, threads_for(r.sequences * r.steps * entries), [&](int64_t from, int64_t to) {
    const size_t bytes = Scratch::round_up(places.size() * sizeof(A));
    for (int64_t b = from; b < to; ++b) {
      Scratch room(of_i.bytes + 2 * bytes + by_place);
      A* const inhibition = reinterpret_cast<A*>(r.inhibition) + b * r.inhibition_next;
      const Interleaved inhibitory = interleave<A>(places, r.inhibitory, r.excitatory.cols,
                                                   inhibition, nullptr, 0, of_i, room);
      A *now = static_cast<A*>(room.take(bytes)), *next = static_cast<A*>(room.take(bytes));
      A* const by = static_cast<A*>(room.take(by_place));
      now[places.zero()] = next[places.zero()] = A(0);
      A* const state = reinterpret_cast<A*>(r.state) + b * r.rows;
      to_places<A>(places, state, A(0), now);
      for (int64_t t = 0; t < r.steps; ++t) {
        std::copy_n(reinterpret_cast<const A*>(r.input) + t * r.input_step + b * r.input_next,
                    r.inputs, now + places.count());
        const bool moves = target != nullptr && t > 0;
        kernels.sums(r.dtype, excitatory, inhibitory, moves ? by : nullptr, now, next, 0,
                     places.groups);
        const double rate = target == nullptr ? 0 : static_cast<double>(delta[t]);
        kernels.update(r.dtype,
                       {places.count(), gain, threshold, leak, target, rate, now, next, by});
        std::swap(now, next);
        if (t >= r.washout)
          from_places<A>(
              places, in_order, now,
              reinterpret_cast<A*>(r.rates) + ((t - r.washout) * r.sequences + b) * r.rows);
      }
      from_places<A>(places, in_order, now, state);
      if (target == nullptr) continue;
      kernels.move(r.dtype, inhibitory, by);
      take_back<A>(places, r.inhibitory, inhibitory, inhibition);
    }
  });
}

void ei_reservoir_(const Tensor& rates, const Tensor& state, const Tensor& i_values,
                   const Tensor& input, const Tensor& input_weight, const Tensor& e_values,
                   const Tensor& gain, const Tensor& threshold, const Tensor& leak,
                   const OptionalTensor& target, const OptionalTensor& delta, const Tensor& e_crow,
                   const Tensor& e_col, const Tensor& i_crow, const Tensor& i_col, int64_t units,
                   int64_t washout) {
  const DType dtype = reservoir_dtype(input, kOp);
  const ScalarType type = input.scalar_type();
  const Tensor u = series_of(input, type, 3, kOp, "input");
  const int64_t steps = u.size(0), sequences = u.size(1), inputs = u.size(2);
  check_index(e_crow, 1, kOp, "e_crow");
  const int64_t rows = e_crow.size(0) - 1;
  const Tensor in =
      dense_matrix(input_weight, type, std::max<int64_t>(rows, 0), inputs, kOp, "input_weight");
  STD_TORCH_CHECK(units >= 0 && units <= rows, kOp, ": excitatory must lie in [0, ", rows,
                  "], got ", units);
  const Csr e = csr_of(e_crow, e_col, units, kOp), i = csr_of(i_crow, i_col, rows - units, kOp);
  check_size(i.rows, rows, kOp, "i_crow", "rows");
  const Tensor v = dense_values(e_values, type, e.nnz, kOp, "e_values");
  const Tensor c = dense_vector(gain, type, rows, kOp, "gain");
  const Tensor theta = dense_vector(threshold, type, rows, kOp, "threshold");
  const Tensor by = dense_vector(leak, type, rows, kOp, "leak");
  STD_TORCH_CHECK(target.has_value() == delta.has_value(), kOp,
                  ": target and delta belong together");
  Tensor rho, schedule;
  if (target.has_value()) {
    rho = dense_vector(*target, type, rows, kOp, "target");
    schedule = dense_vector(*delta, type, steps, kOp, "delta");
  }
  const bool shared = i_values.dim() == 2 && i_values.size(0) == 1 && !target.has_value();
  check_result(i_values, type, kOp, "i_values", shared ? 1 : sequences, i.nnz);
  check_result(rates, type, kOp, "rates", recorded_steps(steps, washout, kOp), sequences, rows);
  check_result(state, type, kOp, "state", sequences, rows);
  if (rows == 0 || sequences == 0 || steps == 0) return;
  const auto data = [](const Tensor& t) { return static_cast<char*>(t.mutable_data_ptr()); };
  const Network r{dtype,
                  e,
                  i,
                  steps,
                  sequences,
                  rows,
                  inputs,
                  std::min(washout, steps),
                  v.const_data_ptr(),
                  in.const_data_ptr(),
                  c.const_data_ptr(),
                  theta.const_data_ptr(),
                  by.const_data_ptr(),
                  target.has_value() ? rho.const_data_ptr() : nullptr,
                  target.has_value() ? schedule.const_data_ptr() : nullptr,
                  static_cast<const char*>(u.const_data_ptr()),
                  u.stride(0),
                  u.stride(1),
                  data(rates),
                  data(state),
                  data(i_values),
                  shared ? 0 : i.nnz};
  dtype == DType::kFloat64 ? run<double>(r) : run<float>(r);
}

std::tuple<Tensor, Tensor, Tensor> ei_reservoir(
    const Tensor& input, const OptionalTensor& state, const Tensor& i_values,
    const Tensor& input_weight, const Tensor& e_values, const Tensor& gain, const Tensor& threshold,
    const Tensor& leak, const OptionalTensor& target, const OptionalTensor& delta,
    const Tensor& e_crow, const Tensor& e_col, const Tensor& i_crow, const Tensor& i_col,
    int64_t units, int64_t washout) {
  reservoir_dtype(input, kOp);
  const ScalarType type = input.scalar_type();
  check_tensor(input, type, 3, kOp, "input");
  check_index(e_crow, 1, kOp, "e_crow");
  check_tensor(i_values, type, 2, kOp, "i_values");
  const int64_t rows = e_crow.size(0) - 1, sequences = input.size(1), count = i_values.size(1);
  STD_TORCH_CHECK(rows >= 0, kOp, ": e_crow must not be empty");
  STD_TORCH_CHECK(i_values.size(0) == 1 || i_values.size(0) == sequences, kOp,
                  ": i_values must have 1 or ", sequences, " rows, got ", i_values.size(0));
  const Tensor last = state_copy(state, type, sequences, rows, kOp);
  const Tensor rates =
      empty_series(recorded_steps(input.size(0), washout, kOp), sequences, rows, type);
  const Tensor given = dense_of(i_values);
  const bool moves = target.has_value();
  const Tensor moved = moves ? empty({sequences, count}, type) : empty({0}, type);
  const size_t bytes = static_cast<size_t>(count) * i_values.element_size();
  for (int64_t b = 0; moves && bytes > 0 && b < sequences; ++b)
    std::memcpy(
        static_cast<char*>(moved.mutable_data_ptr()) + b * bytes,
        static_cast<const char*>(given.const_data_ptr()) + (given.size(0) == 1 ? 0 : b * bytes),
        bytes);
  ei_reservoir_(rates, last, moves ? moved : given, input, input_weight, e_values, gain, threshold,
                leak, target, delta, e_crow, e_col, i_crow, i_col, units, washout);
  return {rates, last, moved};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("ei_reservoir", TORCH_BOX(&synops::ei_reservoir));
  m.impl("ei_reservoir_", TORCH_BOX(&synops::ei_reservoir_));
}
