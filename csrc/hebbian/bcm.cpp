// bcm on tensors (local_ops.h does the work), in place and not.
#include "hebbian/local_ops.h"

namespace synops {
namespace {

std::tuple<Tensor, Tensor> bcm_(const Tensor& weight, const Tensor& theta, const Tensor& pre,
                                const OptionalTensor& post, double theta_rate, double lr,
                                const OptionalTensor& rate, double decay,
                                const OptionalTensor& modulator, const OptionalTensor& gain_pre,
                                const OptionalTensor& gain_post, double lower, double upper,
                                const OptionalTensor& sign, bool check_sign,
                                const OptionalTensor& mask, const OptionalTensor& crow,
                                const OptionalTensor& col, bool mean) {
  const Threshold slide{theta, theta, theta_rate};
  const LocalResult r = local_rule("bcm_", LocalRule::kBcm, weight, weight, pre, post, &slide,
                                   {lr, rate, decay, modulator, gain_pre, gain_post, lower, upper,
                                    sign, check_sign, mask, crow, col, mean});
  return {r.post, r.report};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> bcm(
    const Tensor& weight, const Tensor& theta, const Tensor& pre, const OptionalTensor& post,
    double theta_rate, double lr, const OptionalTensor& rate, double decay,
    const OptionalTensor& modulator, const OptionalTensor& gain_pre,
    const OptionalTensor& gain_post, double lower, double upper, const OptionalTensor& sign,
    bool check_sign, const OptionalTensor& mask, const OptionalTensor& crow,
    const OptionalTensor& col, bool mean) {
  const Tensor out = new_like(weight);
  const Tensor next = new_like(theta);
  const Threshold slide{dense_of(theta), next, theta_rate};
  const LocalResult r = local_rule("bcm", LocalRule::kBcm, weight, out, pre, post, &slide,
                                   {lr, rate, decay, modulator, gain_pre, gain_post, lower, upper,
                                    sign, check_sign, mask, crow, col, mean});
  return {out, next, r.post, r.report};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("bcm", TORCH_BOX(&synops::bcm));
  m.impl("bcm_", TORCH_BOX(&synops::bcm_));
}
