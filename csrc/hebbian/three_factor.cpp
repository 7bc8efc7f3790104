// three_factor (CPU): checks, factors and threads; the kernels are in three_factor.inc.
#include "hebbian/three_factor.h"

#include <tuple>

#include "hebbian/three_factor_call.h"

namespace synops {
namespace {

constexpr const char* kOp = "three_factor";

int64_t run_dense(const ThreeFactorStep& s) {
  const int64_t group = outer_update_kernels().group;
  const int64_t work = s.w.rows * s.w.cols * (s.traces + s.terms);
  const bool finite = all_parts(
      (s.w.rows + group - 1) / group, work,
      [&](int64_t begin, int64_t end) { return three_factor_kernels().dense(s, begin, end); });
  return finite ? 0 : kOverflow;
}

int64_t run_entries(const ThreeFactorStep& s, const Csr& csr) {
  const ThreeFactorKernels& kernels = three_factor_kernels();
  const int64_t parts = threads_for(csr.nnz * (s.traces + s.terms));
  std::atomic<int> found{0};
  split(parts, parts, [&](int64_t begin, int64_t end) {
    found.fetch_or(
        kernels.entries(s, csr, row_of_part(csr, begin, parts), row_of_part(csr, end, parts)));
  });
  STD_TORCH_CHECK((found.load() & kOutside) == 0, kOp, ": col must lie in [0, ", csr.cols, ")");
  return found.load() == 0 ? 0 : kOverflow;
}

// From one weight and trace to others, or in place: the report.
template <class A>
int64_t run_as(const ThreeFactorLayout& l, const ThreeFactorGiven& g, const Tensor& weight,
               const Tensor& trace, const Tensor& to, const Tensor& trace_to) {
  const Tensor pre = dense_of(g.pre), post = dense_of(g.post);
  const OptionalTensor gain_pre = optional_vector(g.gain_pre, l.acc, l.cols, kOp, "gain_pre");
  const OptionalTensor gain_post = optional_vector(g.gain_post, l.acc, l.rows, kOp, "gain_post");
  const OptionalTensor sign = optional_vector(g.sign, l.acc, l.cols, kOp, "sign");
  OptionalTensor mask;
  if (g.mask.has_value()) mask = dense_of(*g.mask);
  const A *const in = pre.const_data_ptr<A>(), *const out = post.const_data_ptr<A>();
  const bool sparse = l.csr.has_value(), together = !sparse && !l.per_sample;
  const OuterUpdateKernels& kernels = outer_update_kernels();
  const int64_t panel = kernels.panel(l.dtype), group = kernels.group;
  // Without samples, one that is 0 and its gate, too, on a trace that is thrown away.
  const bool none = l.per_sample && l.batch == 0;
  const int64_t samples = none ? 1 : l.batch;
  const int64_t traces = l.per_sample ? samples : 1, terms = l.per_sample ? 1 : l.batch;
  const int64_t row = panel_floats(l.cols, 1, panel);
  const auto room = [](int64_t n) { return Scratch::round_up(n * sizeof(A)); };
  Scratch scratch(room(traces * l.rows) + room(samples * l.rows) + room(samples * row) +
                  room(panel_floats(l.rows, samples, group)) + 6 * room(l.cols) + room(l.rows) +
                  (none ? room(l.weights) : 0));
  const auto take = [&](int64_t n) { return static_cast<A*>(scratch.take(n * sizeof(A))); };
  A *const gate = take(traces * l.rows), *const y = take(samples * l.rows);
  A *const x = take(samples * row), *const rates = take(l.rows);

  int64_t report = 0;
  bool good = true;
  if (together)
    good = pack_pre(l.dtype, in, l.batch, l.cols, data_of(gain_pre), x);
  else
    for (int64_t b = 0; b < l.batch; ++b)
      good &= pack_pre(l.dtype, in + b * l.cols, 1, l.cols, data_of(gain_pre), x + b * row);
  if (!good) report |= kPreNotFinite;
  if (!all_finite(out, l.batch * l.rows)) report |= kPostNotFinite;
  fill_rates(l, g, rates);
  const ThirdFactor factor = third_factor(l, g);
  fill_gates(factor, 0, none ? 0 : traces, l.rows, rates, gate);
  if (!all_finite(none ? rates : gate, traces * l.rows)) report |= kFactorNotFinite;
  if (!finite(gain_pre) || !finite(gain_post) || !finite(sign)) report |= kArgumentNotFinite;

  ThreeFactorStep s{};
  s.w = {l.dtype,
         l.rows,
         l.cols,
         weight.const_data_ptr(),
         sparse ? 0 : weight.stride(0),
         to.mutable_data_ptr(),
         sparse ? 0 : to.stride(0),
         nullptr,
         nullptr,
         static_cast<const uint8_t*>(data_of(mask))};
  if (report == 0 && sign.has_value() && g.check_sign && !signs_hold(l, kOp, s.w, data_of(sign)))
    report = kSignBroken;
  if (report != 0 || l.weights == 0) return report;

  fill_post(l, out, static_cast<const A*>(data_of(gain_post)), g.mean, l.batch, y);
  s.post = y, s.post_stride = l.rows;
  if (together && l.batch != 1) {
    A* const packed = take(panel_floats(l.rows, l.batch, group));
    pack_post(l.dtype, y, l.batch, l.rows, packed);
    s.post = packed;
  }
  s.pre = x, s.pre_stride = row;
  if (sign.has_value() || std::isfinite(g.lower) || std::isfinite(g.upper)) {
    A *const lower = take(l.cols), *const upper = take(l.cols);
    fill_bounds(g.lower, g.upper, sign, l.cols, l.dtype, lower, upper);
    s.w.lower = lower, s.w.upper = upper;
    if (sparse && traces == 1 && terms == 1) {
      A* const columns = take(4 * l.cols);
      for (int64_t j = 0; j < l.cols; ++j) {
        A* const c = columns + 4 * j;
        c[0] = none ? A(0) : x[j], c[1] = lower[j], c[2] = upper[j], c[3] = A(0);
      }
      s.columns = columns;
    }
  }
  s.trace_from = trace.const_data_ptr(), s.trace_to = trace_to.mutable_data_ptr();
  if (none) {
    std::fill_n(gate, l.rows, A(0));
    std::fill_n(y, l.rows, A(0));
    std::fill_n(x, row, A(0));
    A* const thrown_away = take(l.weights);
    std::fill_n(thrown_away, l.weights, A(0));
    s.trace_from = s.trace_to = thrown_away;
  }
  s.traces = traces, s.terms = terms, s.trace_size = l.weights;
  s.decay = g.trace_decay, s.keep = 1 - g.decay;
  s.gate = gate;
  return sparse ? run_entries(s, *l.csr) : run_dense(s);
}

Tensor run(const ThreeFactorLayout& l, const ThreeFactorGiven& g, const Tensor& weight,
           const Tensor& trace, const Tensor& to, const Tensor& trace_to) {
  return scalar_report(l.dtype == DType::kFloat64
                           ? run_as<double>(l, g, weight, trace, to, trace_to)
                           : run_as<float>(l, g, weight, trace, to, trace_to));
}

Tensor three_factor_(const Tensor& weight, const Tensor& eligibility, const Tensor& pre,
                     const Tensor& post, double trace_decay, double lr, const OptionalTensor& rate,
                     double decay, const OptionalTensor& modulator, const OptionalTensor& gain_pre,
                     const OptionalTensor& gain_post, double lower, double upper,
                     const OptionalTensor& sign, bool check_sign, const OptionalTensor& mask,
                     const OptionalTensor& crow, const OptionalTensor& col, bool mean) {
  const ThreeFactorGiven g{kOp,   pre,        post,     trace_decay, lr,    rate,
                           decay, modulator,  gain_pre, gain_post,   lower, upper,
                           sign,  check_sign, mask,     crow,        col,   mean};
  const ThreeFactorLayout l = three_factor_layout(weight, eligibility, g, 0);
  return run(l, g, weight, eligibility, weight, eligibility);
}

std::tuple<Tensor, Tensor, Tensor> three_factor(
    const Tensor& weight, const Tensor& eligibility, const Tensor& pre, const Tensor& post,
    double trace_decay, double lr, const OptionalTensor& rate, double decay,
    const OptionalTensor& modulator, const OptionalTensor& gain_pre,
    const OptionalTensor& gain_post, double lower, double upper, const OptionalTensor& sign,
    bool check_sign, const OptionalTensor& mask, const OptionalTensor& crow,
    const OptionalTensor& col, bool mean) {
  const ThreeFactorGiven g{kOp,   pre,        post,     trace_decay, lr,    rate,
                           decay, modulator,  gain_pre, gain_post,   lower, upper,
                           sign,  check_sign, mask,     crow,        col,   mean};
  const Tensor from = dense_of(weight), trace = dense_of(eligibility);
  const ThreeFactorLayout l = three_factor_layout(from, trace, g, 0);
  const Tensor to = like(from), trace_to = like(trace);
  const Tensor report = run(l, g, from, trace, to, trace_to);
  const int64_t found = *static_cast<const int64_t*>(report.const_data_ptr());
  if (found != 0 && found != kOverflow) {
    copy(from, to);
    copy(trace, trace_to);
  } else if (l.csr.has_value()) {
    copy_rest(from, l.csr->nnz, 1, to);
    copy_rest(trace, l.csr->nnz, l.per_sample ? l.batch : 1, trace_to);
  }
  return {to, trace_to, report};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("three_factor", TORCH_BOX(&synops::three_factor));
  m.impl("three_factor_", TORCH_BOX(&synops::three_factor_));
}
