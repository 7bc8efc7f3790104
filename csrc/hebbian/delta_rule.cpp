// delta_rule (CPU): fast weights over a sequence; checks and threads, kernels in delta_rule.inc.
//
// "oja" is the delta rule with key and value exchanged, on the transposed weight; there its readout
// would be a sum over columns, so that a second pass over the weight itself follows, for which the
// errors of the first are known.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "hebbian/fast_weight.h"

namespace synops {
namespace {

// Where there are no rows or columns nothing is walked.
void fill(const OptionalTensor& from, const Tensor& to) {
  if (to.numel() == 0) return;
  from.has_value() ? static_cast<void>(torch::stable::copy_(const_cast<Tensor&>(to), *from))
                   : static_cast<void>(torch::stable::zero_(const_cast<Tensor&>(to)));
}

std::tuple<Tensor, Tensor, Tensor> delta_rule(const Tensor& query, const Tensor& key,
                                              const Tensor& value, const OptionalTensor& beta,
                                              const OptionalTensor& decay,
                                              const OptionalTensor& state, double scale,
                                              int64_t rule, bool save) {
  const FastWeight w(query, key, value, beta, decay, scale, rule, "delta_rule");
  w.check_state(state, "state");
  const Tensor output = w.series(w.values), last = w.state();
  const bool keep = w.corrects() && (save || w.oja());
  const Tensor error = keep ? w.series(w.error_size()) : empty({0}, w.type);
  if (w.keys == 0 || w.values == 0 || w.steps == 0) {
    fill({}, output);
    fill(state, last);
    if (keep) fill({}, error);
    return {output, last, error};
  }
  const HeadLines q = w.lines(query), k = w.lines(key), v = w.lines(value), b = w.lines(beta);
  const HeadLines a = w.lines(decay), o = w.lines(output);
  const HeadLines e = w.lines(keep ? OptionalTensor(error) : OptionalTensor());
  const FastWeightKernels& kernels = fast_weight_kernels();
  const bool oja = w.oja(), corrects = w.corrects();
  const HeadLines &left = oja ? v : k, &learned = oja ? k : v;
  w.for_slices(oja, state, oja ? OptionalTensor() : OptionalTensor(last),
               [&](int64_t head, int64_t first, int64_t columns, void* slice) {
                 const Line of = w.part(learned.of(head), first);
                 kernels.steps(w.wide, {.steps = w.steps,
                                        .rows = oja ? w.values : w.keys,
                                        .columns = columns,
                                        .state = slice,
                                        .left = left.of(head),
                                        .before = corrects ? left.of(head) : Line{},
                                        .after = oja ? Line{} : q.of(head),
                                        .base = of,
                                        .value = corrects ? Line{} : of,
                                        .gain = b.of(head),
                                        .decay = a.of(head),
                                        .pre = w.part(e.out(head), first),
                                        .post = w.part(o.out(head), first),
                                        .scale = scale,
                                        .scaled = nullptr});
               });
  if (oja)
    w.for_slices(false, state, last,
                 [&](int64_t head, int64_t first, int64_t columns, void* slice) {
                   const Scratch scaled(2 * w.keys * w.bytes);
                   kernels.steps(w.wide, {.steps = w.steps,
                                          .rows = w.keys,
                                          .columns = columns,
                                          .state = slice,
                                          .left = e.of(head),
                                          .before = {},
                                          .after = q.of(head),
                                          .base = {},
                                          .value = w.part(v.of(head), first),
                                          .gain = b.of(head),
                                          .decay = a.of(head),
                                          .pre = {},
                                          .post = w.part(o.out(head), first),
                                          .scale = scale,
                                          .scaled = scaled.data()});
                 });
  return {output, last, error};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) { m.impl("delta_rule", TORCH_BOX(&synops::delta_rule)); }
