// leaky_rnn_backward (CPU): checks, outputs and threads; kernels in leaky_rnn_backward.inc.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/arrays.h"
#include "spiking/leaky_rnn_layer.h"

namespace synops {
namespace {

// Rows that the product for the weight takes at a time: 256 of 500 columns are .5 MB, which stay in
// L2 while they are multiplied with each other.
constexpr int64_t kDepth = 256;

// The gradient of the weight (N, N): sums over all rows of of_drive x the state before, each of
// them a chain in the order of time.
class WeightGradient {
 public:
  WeightGradient(const LeakyLayer& layer, int64_t work)
      : layer_(layer),
        threads_(threads_for(work)),
        groups_((layer.neurons + kLeakyColumns - 1) / kLeakyColumns),
        sums_(groups_ * kLeakyColumns * layer.padded * layer.bytes),
        right_(layer.packed_bytes(kDepth)),
        left_(groups_ * kLeakyColumns * kDepth * layer.bytes) {
    std::memset(sums_.data(), 0, groups_ * kLeakyColumns * layer.padded * layer.bytes);
  }

  // `rows` dense rows of both.
  void add(const char* of_drive, const char* before, int64_t rows) {
    const int64_t n = layer_.neurons;
    for (int64_t first = 0; first < rows; first += kDepth) {
      const int64_t depth = std::min(kDepth, rows - first), at = first * n * layer_.bytes;
      split(layer_.panels, threads_, [&](int64_t begin, int64_t end) {
        kernels_.pack(layer_.wide, before + at, depth, n, false, begin, end, right_.data());
      });
      split(groups_, threads_, [&](int64_t begin, int64_t end) {
        void* room =
            static_cast<char*>(left_.data()) + begin * kLeakyColumns * kDepth * layer_.bytes;
        kernels_.outer(layer_.wide, of_drive + at, depth, n, right_.data(), begin, end, room,
                       sums_.data());
      });
    }
  }

  void write(bool zero_diagonal, char* out) const {
    const int64_t n = layer_.neurons, bytes = layer_.bytes;
    for (int64_t i = 0; i < n; ++i) {
      std::memcpy(out + i * n * bytes,
                  static_cast<const char*>(sums_.data()) + i * layer_.padded * bytes, n * bytes);
      if (zero_diagonal) std::memset(out + (i * n + i) * bytes, 0, bytes);
    }
  }

 private:
  const LeakyLayer& layer_;
  const LeakyRnnGradientKernels& kernels_ = leaky_rnn_gradient_kernels();
  const int64_t threads_, groups_;
  Scratch sums_, right_, left_;
};

// out (N,), or their sum, from sums of groups (groups, 2, padded), in float64 and always in this
// order.
template <class A>
void add_groups(const A* sums, int64_t groups, int64_t padded, int64_t n, bool single, A* out) {
  double all = 0;
  for (int64_t i = 0; i < n; ++i) {
    double sum = 0;
    for (int64_t g = 0; g < groups; ++g) sum += static_cast<double>(sums[g * 2 * padded + i]);
    if (!single) out[i] = static_cast<A>(sum);
    all += sum;
  }
  if (single) *out = static_cast<A>(all);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> leaky_rnn_backward(
    const OptionalTensor& grad_states, const OptionalTensor& grad_h, const Tensor& states,
    const Tensor& drive, const Tensor& weight, const OptionalTensor& h0, const Tensor& rate,
    int64_t activation, double slope, bool inner, bool zero_diagonal, int64_t half, bool need_input,
    bool need_weight, bool need_bias, bool need_h0, bool need_rate) {
  constexpr const char* op = "leaky_rnn_backward";
  const LeakyRule rule = leaky_rule_of(activation, slope, inner, op);
  const DType wide = dtype_of(states, op, "states");
  STD_TORCH_CHECK(!is_half(wide), op, ": states must be float32 or float64");
  STD_TORCH_CHECK(half >= 0 && half <= 2 && (half == 0 || wide == DType::kFloat32), op,
                  ": half must be 0, 1 or 2, got ", half);
  const ScalarType type = states.scalar_type();
  const ScalarType input_type = half == 0   ? type
                                : half == 1 ? ScalarType::BFloat16
                                            : ScalarType::Half;
  check_tensor(states, type, 3, op, "states");
  const Tensor of = dense_of(states);
  const int64_t steps = of.size(0), rows = of.size(1), n = of.size(2), step = rows * n;
  const LeakyLayer layer(weight, rate, type, n, op);
  Tensor driven, incoming, start, last;
  if (inner || need_rate) {
    check_tensor(drive, type, 3, op, "drive");
    check_size(drive.size(0), steps, op, "drive", "steps");
    check_step(drive, rows, n, op, "drive");
    driven = dense_of(drive);
  }
  if (grad_states.has_value()) {
    incoming = series_of(*grad_states, type, 3, op, "grad_states");
    check_size(incoming.size(0), steps, op, "grad_states", "steps");
    check_step(incoming, rows, n, op, "grad_states");
  }
  const char* const h = static_cast<const char*>(state_of(h0, type, rows, n, start, op, "h0"));
  const char* const of_last =
      static_cast<const char*>(state_of(grad_h, type, rows, n, last, op, "grad_h"));

  const Tensor of_drive = empty_series(steps, rows, n, type);
  const bool single = rate.dim() == 0;
  const Tensor of_weight = need_weight ? empty({n, n}, type) : empty({0}, type);
  const Tensor of_bias = empty({need_bias ? n : 0}, type);
  const Tensor of_h0 = need_h0 ? empty({rows, n}, type) : empty({0}, type);
  const Tensor of_rate = !need_rate ? empty({0}, type)
                         : single   ? empty({}, type)
                                    : empty({n}, type);

  const int64_t bytes = layer.bytes, padded = layer.padded, work = steps * step * n;
  const int64_t group = leaky_group(rows), groups = (rows + group - 1) / group;
  Scratch carried(rows * padded * bytes), sums(groups * 2 * padded * bytes);
  char *const of_h = static_cast<char*>(carried.data()), *const added =
                                                             static_cast<char*>(sums.data());
  std::memset(of_h, 0, rows * padded * bytes);
  std::memset(added, 0, groups * 2 * padded * bytes);
  for (int64_t r = 0; of_last != nullptr && n > 0 && r < rows; ++r)
    std::memcpy(of_h + r * padded * bytes, of_last + r * n * bytes, n * bytes);
  char* const out = static_cast<char*>(of_drive.mutable_data_ptr());
  const char* const from = static_cast<const char*>(of.const_data_ptr());
  const LeakyRnnGradientKernels& kernels = leaky_rnn_gradient_kernels();
  if (work > 0) {
    Scratch packed(layer.packed_bytes(n));
    split(layer.panels, threads_for(n * n), [&](int64_t begin, int64_t end) {
      kernels.pack(wide, layer.weight(), n, n, zero_diagonal, begin, end, packed.data());
    });
    LeakyLayer::for_rows(rows, work, [&](int64_t first, int64_t count) {
      const int64_t at = first * n * bytes;
      kernels.backward(
          wide,
          {{steps, count, n, step, rule, packed.data(), layer.rate(), layer.keep(),
            h == nullptr ? nullptr : h + at},
           from + at,
           inner || need_rate ? static_cast<const char*>(driven.const_data_ptr()) + at : nullptr,
           grad_states.has_value() ? static_cast<const char*>(incoming.const_data_ptr()) +
                                         first * incoming.stride(1) * bytes
                                   : nullptr,
           grad_states.has_value() ? incoming.stride(0) : 0,
           grad_states.has_value() ? incoming.stride(1) : 0,
           out + at,
           of_h + first * padded * bytes,
           need_h0,
           group,
           added + first / group * 2 * padded * bytes});
    });
  }
  if (need_weight && n > 0) {
    WeightGradient gradient(layer, work);
    if (h != nullptr && steps > 0) gradient.add(out, h, rows);
    if (steps > 1) gradient.add(out + step * bytes, from, (steps - 1) * rows);
    gradient.write(zero_diagonal, static_cast<char*>(of_weight.mutable_data_ptr()));
  }
  const auto reduce = [&](auto a, const Tensor& to, int64_t which, bool one) {
    using A = decltype(a);
    add_groups(static_cast<const A*>(sums.data()) + which * padded, groups, padded, n, one,
               static_cast<A*>(to.mutable_data_ptr()));
  };
  const auto both = [&](auto a) {
    if (need_bias) reduce(a, of_bias, 0, false);
    if (need_rate) reduce(a, of_rate, 1, single);
  };
  wide == DType::kFloat64 ? both(double{}) : both(float{});
  for (int64_t r = 0; need_h0 && n > 0 && r < rows; ++r)
    std::memcpy(static_cast<char*>(of_h0.mutable_data_ptr()) + r * n * bytes,
                of_h + r * padded * bytes, n * bytes);
  if (!need_input) return {empty({0}, input_type), of_weight, of_bias, of_h0, of_rate};
  if (half == 0) return {of_drive, of_weight, of_bias, of_h0, of_rate};
  const Tensor of_input = empty_series(steps, rows, n, input_type);
  array_kernels().narrow(half == 1 ? DType::kBFloat16 : DType::kFloat16, out, steps * step,
                         of_input.mutable_data_ptr());
  return {of_input, of_weight, of_bias, of_h0, of_rate};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("leaky_rnn_backward", TORCH_BOX(&synops::leaky_rnn_backward));
}
