// hebb on tensors (local_ops.h does the work), in place and not.
#include "hebbian/local_ops.h"

namespace synops {
namespace {

std::tuple<Tensor, Tensor> hebb_(const Tensor& weight, const Tensor& pre,
                                 const OptionalTensor& post, double lr, const OptionalTensor& rate,
                                 double decay, const OptionalTensor& modulator,
                                 const OptionalTensor& gain_pre, const OptionalTensor& gain_post,
                                 double lower, double upper, const OptionalTensor& sign,
                                 bool check_sign, const OptionalTensor& mask,
                                 const OptionalTensor& crow, const OptionalTensor& col, bool mean) {
  const LocalResult r = local_rule("hebb_", LocalRule::kHebb, weight, weight, pre, post, nullptr,
                                   {lr, rate, decay, modulator, gain_pre, gain_post, lower, upper,
                                    sign, check_sign, mask, crow, col, mean});
  return {r.post, r.report};
}

std::tuple<Tensor, Tensor, Tensor> hebb(
    const Tensor& weight, const Tensor& pre, const OptionalTensor& post, double lr,
    const OptionalTensor& rate, double decay, const OptionalTensor& modulator,
    const OptionalTensor& gain_pre, const OptionalTensor& gain_post, double lower, double upper,
    const OptionalTensor& sign, bool check_sign, const OptionalTensor& mask,
    const OptionalTensor& crow, const OptionalTensor& col, bool mean) {
  const Tensor out = new_like(weight);
  const LocalResult r = local_rule("hebb", LocalRule::kHebb, weight, out, pre, post, nullptr,
                                   {lr, rate, decay, modulator, gain_pre, gain_post, lower, upper,
                                    sign, check_sign, mask, crow, col, mean});
  return {out, r.post, r.report};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("hebb", TORCH_BOX(&synops::hebb));
  m.impl("hebb_", TORCH_BOX(&synops::hebb_));
}
