// three_factor (CPU): checks, factors and threads; the kernels are in three_factor.inc.
#include "hebbian/three_factor.h"

#include <tuple>

#include "hebbian/all_parts.h"
#include "hebbian/local_rule.h"
#include "hebbian/plasticity.h"
#include "sparse/compressed.h"

namespace synops {
namespace {

constexpr const char* kOp = "three_factor";

// What the op is given beside the weight and the trace; names as in its schema.
struct Given {
  const Tensor &pre, &post;
  double trace_decay, lr;
  const OptionalTensor& rate;
  double decay;
  const OptionalTensor &modulator, &gain_pre, &gain_post;
  double lower, upper;
  const OptionalTensor& sign;
  bool check_sign;
  const OptionalTensor &mask, &crow, &col;
  bool mean;
};

// Sizes and layout of a call, checked.
struct Layout {
  DType dtype;
  ScalarType acc;
  int64_t batch, rows, cols, weights;  // weights: of one trace
  bool per_sample;
  std::optional<Csr> csr;
};

Layout checked(const Tensor& weight, const Tensor& trace, const Given& g) {
  Layout l{};
  l.dtype = dtype_of(weight, kOp, "weight");
  l.acc = arithmetic_type(l.dtype);
  check_tensor(g.pre, l.acc, 2, kOp, "pre");
  check_tensor(g.post, l.acc, 2, kOp, "post");
  l.batch = g.pre.size(0), l.rows = g.post.size(1), l.cols = g.pre.size(1);
  check_size(g.post.size(0), l.batch, kOp, "post", "size 0");
  const bool sparse = g.crow.has_value();
  STD_TORCH_CHECK(sparse == g.col.has_value(), kOp, ": crow and col go together");
  check_tensor(weight, weight.scalar_type(), sparse ? 1 : 2, kOp, "weight");
  if (sparse) {
    l.csr = csr_unchecked(*g.crow, *g.col, l.cols, kOp);
    check_size(l.csr->rows, l.rows, kOp, "crow", "size 0, less 1,");
    STD_TORCH_CHECK(weight.size(0) >= l.csr->nnz, kOp, ": weight must hold at least ", l.csr->nnz,
                    " elements, got ", weight.size(0));
    STD_TORCH_CHECK(!g.mask.has_value(), kOp, ": mask needs a dense weight");
    STD_TORCH_CHECK(weight.is_contiguous(), kOp, ": weight must be contiguous");
    l.weights = weight.size(0);
  } else {
    check_size(weight.size(0), l.rows, kOp, "weight", "size 0");
    check_size(weight.size(1), l.cols, kOp, "weight", "size 1");
    STD_TORCH_CHECK(
        (weight.stride(1) == 1 || l.cols <= 1) && (weight.stride(0) >= l.cols || l.rows <= 1), kOp,
        ": elements of a row of weight must lie side by side");
    l.weights = l.rows * l.cols;
  }
  const int64_t one = sparse ? 1 : 2;
  l.per_sample = trace.dim() == one + 1;
  check_tensor(trace, l.acc, one + l.per_sample, kOp, "eligibility");
  STD_TORCH_CHECK(trace.is_contiguous(), kOp, ": eligibility must be contiguous");
  if (l.per_sample) check_size(trace.size(0), l.batch, kOp, "eligibility", "size 0");
  for (int64_t d = 0; d < one; ++d)
    check_size(trace.size(d + l.per_sample), weight.size(d), kOp, "eligibility", "a size");
  if (g.mask.has_value()) {
    check_tensor(*g.mask, ScalarType::Bool, 2, kOp, "mask");
    check_size(g.mask->size(0), l.rows, kOp, "mask", "size 0");
    check_size(g.mask->size(1), l.cols, kOp, "mask", "size 1");
  }
  STD_TORCH_CHECK(g.trace_decay >= 0 && g.trace_decay <= 1, kOp,
                  ": trace_decay must lie in [0, 1], got ", g.trace_decay);
  STD_TORCH_CHECK(g.decay >= 0 && g.decay <= 1, kOp, ": decay must lie in [0, 1], got ", g.decay);
  STD_TORCH_CHECK(g.lower <= g.upper, kOp, ": lower must not exceed upper");
  return l;
}

// (traces, rows): lr rate_i M, divided by the samples where each has its trace; false if one is not
// finite.
template <class A>
bool fill_gates(const Layout& l, const Given& g, int64_t traces, A* gate) {
  const double scale = g.mean && l.per_sample ? 1.0 / std::max<int64_t>(1, l.batch) : 1.0;
  const OptionalTensor rate = optional_factor(g.rate, l.acc, l.rows, kOp, "rate");
  for (int64_t s = 0; s < traces; ++s)
    fill_factor(rate, g.lr * scale, l.rows, l.dtype, gate + s * l.rows);
  if (g.modulator.has_value()) {
    const Tensor& m = *g.modulator;
    const int64_t dim = m.dim();
    STD_TORCH_CHECK(dim <= 2, kOp, ": modulator must have at most 2 dimensions, got ", dim);
    check_tensor(m, l.acc, dim, kOp, "modulator");
    if (dim == 2) check_size(m.size(0), l.batch, kOp, "modulator", "size 0");
    STD_TORCH_CHECK(dim < 2 || l.per_sample || l.batch <= 1, kOp,
                    ": modulator (B, out) needs a trace for each sample");
    const int64_t last = dim == 0 ? 1 : m.size(dim - 1);
    STD_TORCH_CHECK(dim == 0 || last == l.rows || (dim == 2 && last == 1), kOp,
                    ": last size of modulator must be ", l.rows, ", got ", last);
    const Tensor dense = dense_of(m);
    const A* const p = static_cast<const A*>(dense.const_data_ptr());
    const int64_t of_sample = dim == 2 ? last : 0, of_row = dim == 0 || last == 1 ? 0 : 1;
    for (int64_t s = 0; s < std::min(traces, dim == 2 ? l.batch : traces); ++s)
      for (int64_t i = 0; i < l.rows; ++i) gate[s * l.rows + i] *= p[s * of_sample + i * of_row];
  }
  return all_finite(gate, traces * l.rows);
}

// (B, rows): post times gain, divided by the samples of a trace.
template <class A>
void fill_post(const Layout& l, const A* post, const A* gain, bool mean, A* out) {
  const A scale =
      mean && !l.per_sample ? A(1) / static_cast<A>(std::max<int64_t>(1, l.batch)) : A(1);
  for (int64_t b = 0; b < l.batch; ++b)
    for (int64_t i = 0; i < l.rows; ++i) {
      const A y = post[b * l.rows + i] * scale;
      out[b * l.rows + i] = gain == nullptr ? y : y * gain[i];
    }
}

// First row of part k of `parts` that have about equally many entries.
int64_t row_of_part(const Csr& w, int64_t k, int64_t parts) {
  if (k == parts) return w.rows;
  return std::lower_bound(w.crow, w.crow + w.rows, w.nnz * k / parts) - w.crow;
}

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

// Whether no weight is against its sign.
bool signs_hold(const Layout& l, const PlasticWeight& w, const void* sign) {
  if (!l.csr.has_value()) return synops::signs_hold(w, sign);
  STD_TORCH_CHECK(inside(*l.csr), kOp, ": col must lie in [0, ", l.cols, ")");
  const Entries entries{l.csr->crow, l.csr->col};
  return all_parts(l.rows, l.csr->nnz, [&](int64_t r0, int64_t r1) {
    return sampled_update_kernels().signs_hold(w, entries, sign, r0, r1);
  });
}

// From one weight and trace to others, or in place: the report.
template <class A>
int64_t run_as(const Layout& l, const Given& g, const Tensor& weight, const Tensor& trace,
               const Tensor& to, const Tensor& trace_to) {
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
                  room(panel_floats(l.rows, samples, group)) + 6 * room(l.cols) +
                  (none ? room(l.weights) : 0));
  const auto take = [&](int64_t n) { return static_cast<A*>(scratch.take(n * sizeof(A))); };
  A *const gate = take(traces * l.rows), *const y = take(samples * l.rows);
  A* const x = take(samples * row);

  int64_t report = 0;
  bool good = true;
  if (together)
    good = pack_pre(l.dtype, in, l.batch, l.cols, data_of(gain_pre), x);
  else
    for (int64_t b = 0; b < l.batch; ++b)
      good &= pack_pre(l.dtype, in + b * l.cols, 1, l.cols, data_of(gain_pre), x + b * row);
  if (!good) report |= kPreNotFinite;
  if (!all_finite(out, l.batch * l.rows)) report |= kPostNotFinite;
  if (!fill_gates(l, g, traces, gate)) report |= kFactorNotFinite;
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
  if (report == 0 && sign.has_value() && g.check_sign && !signs_hold(l, s.w, data_of(sign)))
    report = kSignBroken;
  if (report != 0 || l.weights == 0) return report;

  fill_post(l, out, static_cast<const A*>(data_of(gain_post)), g.mean, y);
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

Tensor run(const Layout& l, const Given& g, const Tensor& weight, const Tensor& trace,
           const Tensor& to, const Tensor& trace_to) {
  return scalar_report(l.dtype == DType::kFloat64
                           ? run_as<double>(l, g, weight, trace, to, trace_to)
                           : run_as<float>(l, g, weight, trace, to, trace_to));
}

// A copy to write to, of the same shape and dense.
Tensor like(const Tensor& t) {
  return t.dim() == 1   ? empty({t.size(0)}, t.scalar_type())
         : t.dim() == 2 ? empty({t.size(0), t.size(1)}, t.scalar_type())
                        : empty({t.size(0), t.size(1), t.size(2)}, t.scalar_type());
}

void copy(const Tensor& from, const Tensor& to) {
  std::memcpy(to.mutable_data_ptr(), from.const_data_ptr(),
              static_cast<size_t>(to.numel()) * to.element_size());
}

// What lies behind the first `count` elements of each row: room of a Pattern, never looked at.
void copy_rest(const Tensor& from, int64_t count, int64_t rows, const Tensor& to) {
  const size_t element = to.element_size();
  const size_t size = rows == 0 ? 0 : to.numel() / rows * element, at = count * element;
  for (int64_t i = 0; i < rows && at < size; ++i)
    std::memcpy(static_cast<char*>(to.mutable_data_ptr()) + i * size + at,
                static_cast<const char*>(from.const_data_ptr()) + i * size + at, size - at);
}

Tensor three_factor_(const Tensor& weight, const Tensor& eligibility, const Tensor& pre,
                     const Tensor& post, double trace_decay, double lr, const OptionalTensor& rate,
                     double decay, const OptionalTensor& modulator, const OptionalTensor& gain_pre,
                     const OptionalTensor& gain_post, double lower, double upper,
                     const OptionalTensor& sign, bool check_sign, const OptionalTensor& mask,
                     const OptionalTensor& crow, const OptionalTensor& col, bool mean) {
  const Given g{pre,   post,  trace_decay, lr,         rate, decay, modulator, gain_pre, gain_post,
                lower, upper, sign,        check_sign, mask, crow,  col,       mean};
  const Layout l = checked(weight, eligibility, g);
  return run(l, g, weight, eligibility, weight, eligibility);
}

std::tuple<Tensor, Tensor, Tensor> three_factor(
    const Tensor& weight, const Tensor& eligibility, const Tensor& pre, const Tensor& post,
    double trace_decay, double lr, const OptionalTensor& rate, double decay,
    const OptionalTensor& modulator, const OptionalTensor& gain_pre,
    const OptionalTensor& gain_post, double lower, double upper, const OptionalTensor& sign,
    bool check_sign, const OptionalTensor& mask, const OptionalTensor& crow,
    const OptionalTensor& col, bool mean) {
  const Given g{pre,   post,  trace_decay, lr,         rate, decay, modulator, gain_pre, gain_post,
                lower, upper, sign,        check_sign, mask, crow,  col,       mean};
  const Tensor from = dense_of(weight), trace = dense_of(eligibility);
  const Layout l = checked(from, trace, g);
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
