// The kernels of three_factor_sequence.inc against a loop over the formula, in double.
#include "hebbian/three_factor_sequence.h"

#include <cmath>
#include <vector>

#include "hebbian/local_rule.h"
#include "sanitize/checks.h"
#include "sanitize/samples.h"

namespace synops::sanitize {
namespace {

constexpr double kTraceDecay = .75;

// A weight, dense where `s` is null, its traces, and what all steps multiply them by.
template <class T>
struct Run {
  using A = Acc<T>;
  Run(const Sample* s, int64_t rows, int64_t cols, int64_t steps, int64_t samples, Samples how,
      bool varies)
      : rows(rows),
        cols(cols),
        steps(steps),
        samples(samples),
        traces(how == Samples::kEach ? samples : 1),
        size(s == nullptr ? rows * cols : s->csr.nnz),
        how(how),
        varies(varies),
        weight(random<T>(size)),
        trace(random<A>(traces * size)),
        pre(random<A>(steps * samples * cols)),
        post(random<A>(steps * samples * rows)),
        gate(random<A>((varies ? steps : 1) * traces * rows)),
        lower(cols),
        upper(cols),
        mask(rows * cols) {
    for (int64_t j = 0; j < cols; ++j) lower[j] = A(j % 3 == 0 ? 0 : -1), upper[j] = A(.5);
    for (int64_t p = 0; p < rows * cols; ++p) mask[p] = p % 5 != 0;
    for (int64_t t = 0; t < gate.size() / rows; ++t) gate[t * rows] = A(0);  // an idle row
  }

  // Entry p of row i and column j after the last step.
  void require_entry(int64_t i, int64_t j, int64_t p, double keep, bool bounded, bool masked,
                     const Exact<T>& to, const Exact<A>& trace_to) const {
    if (masked && mask[p] == 0) {
      require(to[p] == weight[p] && trace_to[p] == trace[p], "left alone");
      return;
    }
    double w = static_cast<double>(weight[p]);
    std::vector<double> e(traces);
    for (int64_t k = 0; k < traces; ++k) e[k] = static_cast<double>(trace[k * size + p]);
    for (int64_t t = 0; t < steps; ++t) {
      double change = 0;
      bool live = keep != 1;
      for (int64_t k = 0; k < traces; ++k) e[k] *= kTraceDecay;
      for (int64_t k = 0; k < samples; ++k)
        e[traces == 1 ? 0 : k] += static_cast<double>(post[(t * samples + k) * rows + i]) *
                                  pre[(t * samples + k) * cols + j];
      for (int64_t k = 0; k < traces; ++k) {
        const double g = gate[((varies ? t : 0) * traces + k) * rows + i];
        change += g * e[k];
        live |= g != 0;
      }
      if (!live) continue;
      w = keep * w + change;
      if (bounded) w = std::min(std::max<double>(w, lower[j]), static_cast<double>(upper[j]));
      w = static_cast<double>(static_cast<T>(w));
    }
    // sums of at most 4 samples below 1, whose traces add up to four times that
    const double eps = std::numeric_limits<A>::epsilon() * 64 * steps * samples;
    const double of_type = std::is_same_v<T, A> ? 0 : 1.0 / 128;
    for (int64_t k = 0; k < traces; ++k)
      require(std::abs(trace_to[k * size + p] - e[k]) <= eps, "trace");
    require(std::abs(static_cast<double>(to[p]) - w) <= eps + of_type * steps * (std::abs(w) + 1),
            "weight");
  }

  int64_t rows, cols, steps, samples, traces, size;
  Samples how;
  bool varies;
  Exact<T> weight;
  Exact<A> trace, pre, post, gate, lower, upper;
  Exact<uint8_t> mask;
};

template <class T>
ThreeFactorSteps steps_of(const Run<T>& r, double keep, bool bounded, const Exact<T>& to,
                          const Exact<Acc<T>>& trace_to) {
  ThreeFactorSteps s{};
  s.w = {dtype<T>(), r.rows, r.cols,        r.weight.get(), r.cols,
         to.get(),   r.cols, r.lower.get(), r.upper.get(),  nullptr};
  s.trace_from = r.trace.get(), s.trace_to = trace_to.get();
  s.how = r.how, s.steps = r.steps, s.samples = r.samples, s.trace_size = r.size;
  s.decay = kTraceDecay, s.keep = keep;
  s.gate_varies = r.varies, s.bounded = bounded;
  return s;
}

template <class T>
void check_dense(Isa isa, const Run<T>& r, bool bounded, bool masked, double keep) {
  using A = Acc<T>;
  const Exact<T> to(r.size);
  const Exact<A> trace_to(r.traces * r.size);
  ThreeFactorSteps s = steps_of(r, keep, bounded, to, trace_to);
  if (masked) s.w.mask = r.mask.get();
  const Exact<A> lowest(r.cols), highest(r.cols);
  for (int64_t j = 0; j < r.cols; ++j) {
    highest[j] = std::numeric_limits<A>::infinity();
    lowest[j] = -highest[j];
  }
  if (!bounded) s.w.lower = lowest.get(), s.w.upper = highest.get();
  const OuterUpdateKernels& outer = outer_update_kernels(isa);
  const int64_t panel = outer.panel(s.w.dtype), n = r.steps * r.samples;
  const int64_t groups = (r.rows + outer.group - 1) / outer.group, gated = r.gate.size() / r.rows;
  const Exact<A> pre(panel_floats(r.cols, n, panel)), post(panel_floats(r.rows, n, outer.group));
  const Exact<A> gate(panel_floats(r.rows, gated, outer.group));
  outer.pack_pre(s.w.dtype, r.pre.get(), r.cols, n, r.cols, nullptr, 0,
                 (r.cols + panel - 1) / panel, pre.get());
  outer.pack_post(s.w.dtype, r.post.get(), r.rows, n, r.rows, 0, groups, post.get());
  outer.pack_post(s.w.dtype, r.gate.get(), r.rows, gated, r.rows, 0, groups, gate.get());
  s.pre = pre.get(), s.post = post.get(), s.gate = gate.get();
  const ThreeFactorSequenceKernels& kernels = three_factor_sequence_kernels(isa);
  const Exact<A> held(kernels.tile_traces(s.w.dtype, r.samples));
  s.traces = held.get();
  require(kernels.dense(s, 0, groups / 2), "finite");
  require(kernels.dense(s, groups / 2, groups), "finite");
  for (int64_t i = 0; i < r.rows; ++i)
    for (int64_t j = 0; j < r.cols; ++j)
      r.require_entry(i, j, i * r.cols + j, keep, bounded, masked, to, trace_to);
}

template <class T>
void check_entries(Isa isa, const Sample& sample, const Run<T>& r, double keep) {
  using A = Acc<T>;
  const Exact<T> to(r.size);
  const Exact<A> trace_to(r.traces * r.size);
  ThreeFactorSteps s = steps_of(r, keep, true, to, trace_to);
  const SampledUpdateKernels& sampled = sampled_update_kernels(isa);
  const int64_t n = r.steps * r.samples, gated = r.gate.size() / r.rows;
  s.width = sampled.padded(s.w.dtype, n), s.gate_width = sampled.padded(s.w.dtype, gated);
  const Exact<A> pre(r.cols * s.width), post(r.rows * s.width), gate(r.rows * s.gate_width);
  sampled.turn(s.w.dtype, r.pre.get(), n, r.cols, nullptr, 0, r.cols, pre.get());
  sampled.turn(s.w.dtype, r.post.get(), n, r.rows, nullptr, 0, r.rows, post.get());
  sampled.turn(s.w.dtype, r.gate.get(), gated, r.rows, nullptr, 0, r.rows, gate.get());
  s.pre = pre.get(), s.post = post.get(), s.gate = gate.get();
  const ThreeFactorSequenceKernels& kernels = three_factor_sequence_kernels(isa);
  const Exact<A> held(kernels.tile_traces(s.w.dtype, r.samples));
  s.traces = held.get();
  require(kernels.entries(s, sample.csr, 0, r.rows / 2), "finite");
  require(kernels.entries(s, sample.csr, r.rows / 2, r.rows), "finite");
  sample.for_entries([&](int64_t i, int64_t j, int64_t at) {
    r.require_entry(i, j, at, keep, true, false, to, trace_to);
  });
}

}  // namespace

void check_three_factor_sequence(Isa isa) {
  for_dtypes([&](auto t) {
    using T = decltype(t);
    const ThreeFactorSequenceKernels& kernels = three_factor_sequence_kernels(isa);
    for (const int64_t n : {0, 1, 37}) {
      const Exact<Acc<T>> x = random<Acc<T>>(n);
      require(kernels.finite(dtype<T>(), x.get(), n), "finite");
      if (n == 0) continue;
      x[n - 1] = std::numeric_limits<Acc<T>>::infinity();
      require(!kernels.finite(dtype<T>(), x.get(), n), "infinite");
    }
    int64_t turn = 0;
    for (const int64_t rows : {1, 13})
      for (const int64_t cols : {1, 37, 130})
        for (const auto [how, samples] :
             {std::pair{Samples::kOne, 1}, {Samples::kShared, 3}, {Samples::kEach, 2}})
          for (const int64_t steps : {1, 19}) {
            ++turn;
            say("three_factor_sequence: %s, %ld x %ld, %ld steps of %d", name_of(dtype<T>()),
                static_cast<long>(rows), static_cast<long>(cols), static_cast<long>(steps),
                samples);
            const double keep = turn % 4 < 2 ? 1 : .5;
            const bool varies = turn % 3 != 0;
            const Run<T> dense(nullptr, rows, cols, steps, samples, how, varies);
            check_dense<T>(isa, dense, turn % 2, turn % 5 < 2 && how != Samples::kEach, keep);
            const Sample s(rows, cols, .4, {}, 0, isa);
            check_entries<T>(isa, s, Run<T>(&s, rows, cols, steps, samples, how, varies), keep);
          }
  });
}

}  // namespace synops::sanitize
