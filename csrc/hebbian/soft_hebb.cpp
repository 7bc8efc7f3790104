// soft_hebb and soft_hebb_ (CPU): checks; what runs is in soft_hebb_step.cpp.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <tuple>

#include "hebbian/plasticity.h"
#include "hebbian/soft_hebb_step.h"

namespace synops {
namespace {

// The arguments after the weight, in the order of the schema.
struct Rest {
  const Tensor& pre;
  const OptionalTensor& u;
  double temperature;
  int64_t variant;
  double power;
  bool amax;
  double lr;
  const OptionalTensor& rate;
  double decay;
  const OptionalTensor &modulator, &gain_pre, &gain_post;
  double lower, upper;
  const OptionalTensor& sign;
  bool check_sign;
  const OptionalTensor& mask;
  bool mean;
};

// Reads `from` and, unless a number is not finite, writes `to`, of the same shape and dtype.
template <class A>
std::tuple<Tensor, int64_t> run_as(const char* op, const Tensor& from, const Tensor& to,
                                   const Rest& r) {
  const DType dtype = dtype_of(from, op, "weight");
  const DType wide = sizeof(A) == 8 ? DType::kFloat64 : DType::kFloat32;
  const ScalarType type = arithmetic_type(dtype);
  const int64_t out = from.size(0), in = from.size(1);
  check_tensor(r.pre, type, 2, op, "pre");
  check_size(r.pre.size(1), in, op, "pre", "size 1");
  const int64_t samples = r.pre.size(0);
  STD_TORCH_CHECK(out < (1 << 24), op, ": weight must have less than 2^24 rows, got ", out);
  STD_TORCH_CHECK(r.temperature > 0 && std::isfinite(r.temperature), op,
                  ": temperature must be positive, got ", r.temperature);
  STD_TORCH_CHECK(r.variant >= 0 && r.variant <= 2, op, ": variant must be 0, 1 or 2, got ",
                  r.variant);
  STD_TORCH_CHECK(std::isfinite(r.power) && std::isfinite(r.decay) && std::isfinite(r.lr), op,
                  ": power, decay and lr must be finite");
  STD_TORCH_CHECK(r.lower <= r.upper, op, ": lower must be at most upper");
  const Tensor x = dense_of(r.pre);
  const OptionalTensor rate = optional_factor(r.rate, type, out, op, "rate");
  const OptionalTensor modulator = optional_vector(r.modulator, type, samples, op, "modulator");
  const OptionalTensor gain_pre = optional_vector(r.gain_pre, type, in, op, "gain_pre");
  const OptionalTensor gain_post = optional_vector(r.gain_post, type, out, op, "gain_post");
  const OptionalTensor sign = optional_vector(r.sign, type, in, op, "sign");
  OptionalTensor mask;
  if (r.mask.has_value()) {
    check_tensor(*r.mask, ScalarType::Bool, 2, op, "mask");
    check_size(r.mask->size(0), out, op, "mask", "size 0");
    check_size(r.mask->size(1), in, op, "mask", "size 1");
    mask = dense_of(*r.mask);
  }
  Tensor u, made = empty({0}, type);
  if (r.u.has_value()) {
    check_tensor(*r.u, type, 2, op, "u");
    check_size(r.u->size(0), samples, op, "u", "size 0");
    check_size(r.u->size(1), out, op, "u", "size 1");
    u = dense_of(torch::stable::transpose(*r.u, 0, 1));
  } else {
    made = u = empty_matrix(samples, out, type, true);
  }
  if (out == 0 || in == 0) {
    torch::stable::fill_(made, 0);
    return {made, 0};
  }

  const size_t of_inputs = Scratch::round_up(in * sizeof(A));
  const bool bounded = sign.has_value() || std::isfinite(r.lower) || std::isfinite(r.upper);
  Scratch bounds(2 * of_inputs);
  void* const lower = bounded ? bounds.take(of_inputs) : nullptr;
  void* const upper = bounded ? bounds.take(of_inputs) : nullptr;
  if (bounded) fill_bounds(r.lower, r.upper, sign, in, dtype, lower, upper);
  const auto* const flags = static_cast<const uint8_t*>(data_of(mask));
  const PlasticWeight w{dtype, out,   in,   from.const_data_ptr(), in, to.mutable_data_ptr(), in,
                        lower, upper, flags};
  const auto numbers = [](const OptionalTensor& t) { return static_cast<const A*>(data_of(t)); };
  const SoftStep<A> step{w,
                         {dtype, from.const_data_ptr(), flags, out, in},
                         wide,
                         samples,
                         out,
                         in,
                         static_cast<const A*>(x.const_data_ptr()),
                         numbers(rate),
                         rate.has_value() && rate->dim() == 1 ? 1 : 0,
                         r.lr,
                         r.power,
                         r.temperature,
                         r.decay,
                         r.mean ? 1.0 / static_cast<double>(std::max<int64_t>(1, samples)) : 1.0,
                         static_cast<SoftVariant>(r.variant),
                         r.amax,
                         numbers(modulator),
                         numbers(gain_post)};

  Scratch packed(panel_floats(in, samples, outer_update_kernels().panel(dtype)) * sizeof(A));
  int64_t report = 0;
  if (!pack_pre(dtype, x.const_data_ptr(), samples, in, data_of(gain_pre), packed.data()))
    report |= kPreNotFinite;
  if (!finite(modulator) || !finite(rate)) report |= kFactorNotFinite;
  if (!finite(gain_pre) || !finite(gain_post) || !finite(sign)) report |= kArgumentNotFinite;
  if (sign.has_value() && r.check_sign && !signs_hold(w, data_of(sign))) report |= kSignBroken;
  if (report != 0) {
    torch::stable::fill_(made, 0);
    return {made, report};
  }
  Scratch norms(out * sizeof(A));
  A* const squares = r.power >= 0 ? static_cast<A*>(norms.data()) : nullptr;
  step.project(r.u.has_value() ? nullptr : static_cast<A*>(u.mutable_data_ptr()), squares);
  report = step.update(static_cast<const A*>(packed.data()),
                       static_cast<const A*>(u.const_data_ptr()), squares);
  return {made, report};
}

std::tuple<Tensor, Tensor> run(const char* op, const Tensor& from, const Tensor& to,
                               const Rest& r) {
  const DType dtype = dtype_of(from, op, "weight");
  check_tensor(from, from.scalar_type(), 2, op, "weight");
  const auto [u, report] =
      dtype == DType::kFloat64 ? run_as<double>(op, from, to, r) : run_as<float>(op, from, to, r);
  return {u, scalar_report(report)};
}

std::tuple<Tensor, Tensor, Tensor> soft_hebb(
    const Tensor& weight, const Tensor& pre, const OptionalTensor& u, double temperature,
    int64_t variant, double power, bool amax, double lr, const OptionalTensor& rate, double decay,
    const OptionalTensor& modulator, const OptionalTensor& gain_pre,
    const OptionalTensor& gain_post, double lower, double upper, const OptionalTensor& sign,
    bool check_sign, const OptionalTensor& mask, bool mean) {
  constexpr const char* op = "soft_hebb";
  check_tensor(weight, weight.scalar_type(), 2, op, "weight");
  const Tensor from = dense_of(weight);
  Tensor to = empty({from.size(0), from.size(1)}, weight.scalar_type());
  const auto [made, report] =
      run(op, from, to,
          {pre, u, temperature, variant, power, amax, lr, rate, decay, modulator, gain_pre,
           gain_post, lower, upper, sign, check_sign, mask, mean});
  if ((*static_cast<const int64_t*>(report.const_data_ptr()) & ~kOverflow) != 0)
    torch::stable::copy_(to, from);
  return {to, made, report};
}

std::tuple<Tensor, Tensor> soft_hebb_(
    const Tensor& weight, const Tensor& pre, const OptionalTensor& u, double temperature,
    int64_t variant, double power, bool amax, double lr, const OptionalTensor& rate, double decay,
    const OptionalTensor& modulator, const OptionalTensor& gain_pre,
    const OptionalTensor& gain_post, double lower, double upper, const OptionalTensor& sign,
    bool check_sign, const OptionalTensor& mask, bool mean) {
  constexpr const char* op = "soft_hebb_";
  STD_TORCH_CHECK(weight.is_contiguous(), op, ": weight must be contiguous");
  return run(op, weight, weight,
             {pre, u, temperature, variant, power, amax, lr, rate, decay, modulator, gain_pre,
              gain_post, lower, upper, sign, check_sign, mask, mean});
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("soft_hebb", TORCH_BOX(&synops::soft_hebb));
  m.impl("soft_hebb_", TORCH_BOX(&synops::soft_hebb_));
}
