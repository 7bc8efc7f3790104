// three_factor_sequence (CPU): checks, factors and threads; the kernels are in
// three_factor_sequence.inc.
#include "hebbian/three_factor_sequence.h"

#include <tuple>

#include "hebbian/three_factor_call.h"

namespace synops {
namespace {

constexpr const char* kOp = "three_factor_sequence";
// Numbers of pre that are packed at a time, 2 MB: they stay in the L2 or near it.
constexpr int64_t kPacked = 1 << 19;

// The factors of some steps, packed for the kernels.
template <class A>
class Packed {
 public:
  // Of at most `steps` steps.
  Packed(const ThreeFactorLayout& l, int64_t steps, int64_t samples, int64_t traces)
      : l_(l),
        rows_(l.rows),
        n_(steps * samples),
        pre_(pre_size(n_)),
        post_(post_size(n_)),
        gate_(post_size(steps * traces)),
        scratch_((pre_ + post_ + gate_ + rows_ * (n_ + steps * traces)) * sizeof(A) + 5 * 64) {
    x = take(pre_), y = take(post_), gates = take(gate_);
    plain_post = take(rows_ * n_), plain_gates = take(rows_ * steps * traces);
  }

  void pack_zeros() {
    std::fill_n(x, pre_, A(0));
    std::fill_n(y, post_, A(0));
  }
  void pack_pre(const A* pre, int64_t n, const OptionalTensor& gain) {
    if (!l_.csr.has_value())
      synops::pack_pre(l_.dtype, pre, n, l_.cols, data_of(gain), x);
    else
      turn(pre, n, l_.cols, data_of(gain), x);
  }
  void pack_rows(const A* plain, int64_t n, A* out) {
    if (!l_.csr.has_value())
      synops::pack_post(l_.dtype, plain, n, rows_, out);
    else
      turn(plain, n, rows_, nullptr, out);
  }
  int64_t width(int64_t n) const { return sampled_update_kernels().padded(l_.dtype, n); }

  A *x, *y, *gates, *plain_post, *plain_gates;

 private:
  void turn(const A* from, int64_t n, int64_t units, const void* gain, A* to) {
    all_parts(units, units * n, [&](int64_t begin, int64_t end) {
      return sampled_update_kernels().turn(l_.dtype, from, n, units, gain, begin, end, to);
    });
  }
  int64_t pre_size(int64_t n) const {
    return l_.csr.has_value() ? l_.cols * width(n)
                              : panel_floats(l_.cols, n, outer_update_kernels().panel(l_.dtype));
  }
  int64_t post_size(int64_t n) const {
    return l_.csr.has_value() ? l_.rows * width(n)
                              : panel_floats(l_.rows, n, outer_update_kernels().group);
  }
  A* take(int64_t n) { return static_cast<A*>(scratch_.take(n * sizeof(A))); }

  const ThreeFactorLayout& l_;
  int64_t rows_, n_, pre_, post_, gate_;
  Scratch scratch_;
};

int64_t run_kernels(const ThreeFactorSteps& steps, const std::optional<Csr>& csr) {
  const ThreeFactorSequenceKernels& kernels = three_factor_sequence_kernels();
  const int64_t held = steps.how == Samples::kEach
                           ? kernels.tile_traces(steps.w.dtype, steps.samples) * sizeof(double)
                           : 0;
  const int64_t times = steps.steps * (steps.samples + 1);
  std::atomic<bool> all{true};
  const auto run = [&](auto&& kernel) {
    Scratch scratch(held);
    ThreeFactorSteps mine = steps;
    mine.traces = scratch.data();
    if (!kernel(mine)) all.store(false, std::memory_order_relaxed);
  };
  if (csr.has_value()) {
    const int64_t parts = threads_for(csr->nnz * times);
    split(parts, parts, [&](int64_t begin, int64_t end) {
      run([&](const ThreeFactorSteps& s) {
        return kernels.entries(s, *csr, row_of_part(*csr, begin, parts),
                               row_of_part(*csr, end, parts));
      });
    });
  } else {
    const int64_t group = outer_update_kernels().group, groups = (steps.w.rows + group - 1) / group;
    split(groups, threads_for(steps.w.rows * steps.w.cols * times),
          [&](int64_t begin, int64_t end) {
            run([&](const ThreeFactorSteps& s) { return kernels.dense(s, begin, end); });
          });
  }
  return all.load() ? 0 : kOverflow;
}

// From one weight and trace to others, or in place: the report.
template <class A>
int64_t run_as(const ThreeFactorLayout& l, const ThreeFactorGiven& g, const Tensor& weight,
               const Tensor& trace, const Tensor& to, const Tensor& trace_to) {
  const int64_t steps = g.pre.size(0);
  const ThirdFactor factor = third_factor(l, g, steps);
  const OptionalTensor gain_pre = optional_vector(g.gain_pre, l.acc, l.cols, kOp, "gain_pre");
  const OptionalTensor gain_post = optional_vector(g.gain_post, l.acc, l.rows, kOp, "gain_post");
  const OptionalTensor sign = optional_vector(g.sign, l.acc, l.cols, kOp, "sign");
  if (l.csr.has_value())
    STD_TORCH_CHECK(inside(*l.csr), kOp, ": col must lie in [0, ", l.cols, ")");
  const Tensor pre = dense_of(g.pre), post = dense_of(g.post);
  OptionalTensor mask;
  if (g.mask.has_value()) mask = dense_of(*g.mask);
  const A *const in = pre.const_data_ptr<A>(), *const out = post.const_data_ptr<A>();

  // Without samples, one that is 0; its gate, too, on a trace that is thrown away.
  const bool none = l.batch == 0, thrown = none && l.per_sample;
  const int64_t samples = none ? 1 : l.batch, traces = l.per_sample ? samples : 1;
  const bool varies = factor.of_step != 0;
  const int64_t row = std::max(l.cols, l.rows) * samples;
  const int64_t most = std::clamp<int64_t>(kPacked / std::max<int64_t>(1, row), 1, steps);
  Packed<A> packed(l, most, samples, traces);
  const auto room = [](int64_t n) { return Scratch::round_up(n * sizeof(A)); };
  Scratch scratch(room(l.rows) + 2 * room(l.cols) + (thrown ? room(l.weights) : 0));
  const auto take = [&](int64_t n) { return static_cast<A*>(scratch.take(n * sizeof(A))); };
  A *const rates = take(l.rows), *const lower = take(l.cols), *const upper = take(l.cols);
  fill_rates(l, g, rates);
  const auto fill = [&](int64_t t) {
    fill_gates(factor, t, thrown ? 0 : traces, l.rows, rates, packed.plain_gates);
  };

  const auto finite_numbers = [&](const A* p, int64_t n) {
    return all_parts(n, n, [&](int64_t begin, int64_t end) {
      return three_factor_sequence_kernels().finite(l.dtype, p + begin, end - begin);
    });
  };
  int64_t report = 0;
  if (!finite_numbers(in, pre.numel())) report |= kPreNotFinite;
  if (!finite_numbers(out, post.numel())) report |= kPostNotFinite;
  if (!finite_numbers(rates, l.rows)) report |= kFactorNotFinite;
  for (int64_t t = 0; t < (varies ? steps : 1) && !thrown; ++t) {
    fill(t);
    if (!finite_numbers(packed.plain_gates, traces * l.rows)) report |= kFactorNotFinite;
  }
  if (!finite(gain_pre) || !finite(gain_post) || !finite(sign)) report |= kArgumentNotFinite;

  const bool sparse = l.csr.has_value();
  ThreeFactorSteps s{};
  s.w = {l.dtype,
         l.rows,
         l.cols,
         weight.const_data_ptr(),
         sparse ? 0 : weight.stride(0),
         to.mutable_data_ptr(),
         sparse ? 0 : to.stride(0),
         lower,
         upper,
         static_cast<const uint8_t*>(data_of(mask))};
  if (report == 0 && sign.has_value() && g.check_sign && !signs_hold(l, kOp, s.w, data_of(sign)))
    report = kSignBroken;
  if (report != 0 || l.weights == 0) return report;

  fill_bounds(g.lower, g.upper, sign, l.cols, l.dtype, lower, upper);
  s.trace_from = trace.const_data_ptr(), s.trace_to = trace_to.mutable_data_ptr();
  if (thrown) {
    s.trace_to = take(l.weights);
    std::fill_n(static_cast<A*>(s.trace_to), l.weights, A(0));
    s.trace_from = s.trace_to;
    std::fill_n(packed.plain_gates, most * l.rows, A(0));
  }
  // A shared trace adds up its one sample of zeros as it would none.
  s.how = samples == 1 && (thrown || !none) ? Samples::kOne
          : l.per_sample                    ? Samples::kEach
                                            : Samples::kShared;
  s.samples = samples, s.trace_size = l.weights;
  s.decay = g.trace_decay, s.keep = 1 - g.decay;
  s.pre = packed.x, s.post = packed.y, s.gate = packed.gates;
  s.gate_varies = varies && !thrown;
  s.bounded = sign.has_value() || std::isfinite(g.lower) || std::isfinite(g.upper);
  if (none) packed.pack_zeros();
  for (int64_t t = 0; t < steps; t += s.steps) {
    s.steps = std::min(most, steps - t);
    const int64_t n = s.steps * samples;
    if (!none) {
      packed.pack_pre(in + t * samples * l.cols, n, gain_pre);
      fill_post(l, out + t * samples * l.rows, static_cast<const A*>(data_of(gain_post)), g.mean, n,
                packed.plain_post);
      packed.pack_rows(packed.plain_post, n, packed.y);
    }
    const int64_t gated = s.gate_varies ? s.steps : 1;
    for (int64_t k = 0; k < gated && !thrown; ++k)
      fill_gates(factor, t + k, traces, l.rows, rates, packed.plain_gates + k * traces * l.rows);
    packed.pack_rows(packed.plain_gates, gated * traces, packed.gates);
    s.width = packed.width(n), s.gate_width = packed.width(gated * traces);
    report |= run_kernels(s, l.csr);
    s.w.from = s.w.to, s.w.from_stride = s.w.to_stride;
    s.trace_from = s.trace_to;
  }
  return report;
}

Tensor run(const ThreeFactorLayout& l, const ThreeFactorGiven& g, const Tensor& weight,
           const Tensor& trace, const Tensor& to, const Tensor& trace_to) {
  if (g.pre.size(0) == 0) return scalar_report(0);
  return scalar_report(l.dtype == DType::kFloat64
                           ? run_as<double>(l, g, weight, trace, to, trace_to)
                           : run_as<float>(l, g, weight, trace, to, trace_to));
}

Tensor three_factor_sequence_(const Tensor& weight, const Tensor& eligibility, const Tensor& pre,
                              const Tensor& post, double trace_decay, double lr,
                              const OptionalTensor& rate, double decay,
                              const OptionalTensor& modulator, const OptionalTensor& gain_pre,
                              const OptionalTensor& gain_post, double lower, double upper,
                              const OptionalTensor& sign, bool check_sign,
                              const OptionalTensor& mask, const OptionalTensor& crow,
                              const OptionalTensor& col, bool mean) {
  const ThreeFactorGiven g{kOp,   pre,        post,     trace_decay, lr,    rate,
                           decay, modulator,  gain_pre, gain_post,   lower, upper,
                           sign,  check_sign, mask,     crow,        col,   mean};
  const ThreeFactorLayout l = three_factor_layout(weight, eligibility, g, 1);
  return run(l, g, weight, eligibility, weight, eligibility);
}

std::tuple<Tensor, Tensor, Tensor> three_factor_sequence(
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
  const ThreeFactorLayout l = three_factor_layout(from, trace, g, 1);
  const Tensor to = like(from), trace_to = like(trace);
  const Tensor report = run(l, g, from, trace, to, trace_to);
  const int64_t found = *static_cast<const int64_t*>(report.const_data_ptr());
  if (pre.size(0) == 0 || (found != 0 && found != kOverflow)) {
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
  m.impl("three_factor_sequence", TORCH_BOX(&synops::three_factor_sequence));
  m.impl("three_factor_sequence_", TORCH_BOX(&synops::three_factor_sequence_));
}
