// The kernels of three_factor.inc against the formula, in double.
#include "hebbian/three_factor.h"

#include <cmath>

#include "sanitize/checks.h"
#include "sanitize/samples.h"

namespace synops::sanitize {
namespace {

// A weight and its traces, with what a step multiplies them by. Dense where `s` is null.
template <class T>
struct Plastic {
  using A = Acc<T>;
  Plastic(const Sample* s, int64_t rows, int64_t cols, int64_t traces, int64_t terms)
      : rows(rows),
        cols(cols),
        traces(traces),
        terms(terms),
        size(s == nullptr ? rows * cols : s->csr.nnz),
        weight(random<T>(size)),
        trace(random<A>(traces * size)),
        pre(random<A>(traces * terms * cols)),
        post(random<A>(traces * terms * rows)),
        gate(random<A>(traces * rows)),
        lower(cols),
        upper(cols),
        mask(rows * cols) {
    for (int64_t j = 0; j < cols; ++j) lower[j] = A(j % 3 == 0 ? 0 : -1), upper[j] = A(.5);
    for (int64_t p = 0; p < rows * cols; ++p) mask[p] = p % 5 != 0;
    for (int64_t t = 0; t < traces; ++t) gate[t * rows] = A(0);  // the first row is idle
  }

  // Entry p of row i and column j after the step.
  void require_entry(int64_t i, int64_t j, int64_t p, double keep, bool bounded, bool masked,
                     const Exact<T>& to, const Exact<A>& trace_to) const {
    double w = keep * static_cast<double>(weight[p]), size_of = std::abs(w);
    const bool left = masked && mask[p] == 0;
    bool idle = keep == 1;
    for (int64_t t = 0; t < traces; ++t) {
      double e = kDecay * trace[t * size + p], of_sum = std::abs(e);
      for (int64_t k = t * terms; k < (t + 1) * terms; ++k) {
        e += static_cast<double>(post[k * rows + i]) * pre[k * cols + j];
        of_sum += std::abs(post[k * rows + i] * pre[k * cols + j]);
      }
      if (left) e = trace[t * size + p];
      near(trace_to[t * size + p], e, of_sum * (terms + 4), "trace");
      w += gate[t * rows + i] * e;
      size_of += std::abs(gate[t * rows + i]) * of_sum * (terms + 4);
      idle &= gate[t * rows + i] == A(0);
    }
    if (bounded) w = std::min(std::max<double>(w, lower[j]), static_cast<double>(upper[j]));
    if (left || idle) w = static_cast<double>(weight[p]);
    near(static_cast<double>(to[p]), w, size_of + 1, "weight");
  }
  static void near(double got, double want, double scale, const char* what) {
    const double eps = std::numeric_limits<A>::epsilon();
    const double of_type = std::is_same_v<T, A> || what[0] == 't' ? 0 : 1.0 / 128;
    require(std::abs(got - want) <= 4 * eps * scale + of_type * (std::abs(want) + 1e-3), what);
  }

  static constexpr double kDecay = .75;
  int64_t rows, cols, traces, terms, size;
  Exact<T> weight;
  Exact<A> trace, pre, post, gate, lower, upper;
  Exact<uint8_t> mask;
};

template <class T>
ThreeFactorStep step_of(const Plastic<T>& p, double keep, bool bounded, const Exact<T>& to,
                        const Exact<Acc<T>>& trace_to) {
  ThreeFactorStep s{};
  s.w = {dtype<T>(),
         p.rows,
         p.cols,
         p.weight.get(),
         p.cols,
         to.get(),
         p.cols,
         bounded ? p.lower.get() : nullptr,
         bounded ? p.upper.get() : nullptr,
         nullptr};
  s.trace_from = p.trace.get(), s.trace_to = trace_to.get();
  s.traces = p.traces, s.terms = p.terms, s.trace_size = p.size;
  s.decay = p.kDecay, s.keep = keep, s.gate = p.gate.get();
  s.post = p.post.get(), s.post_stride = p.rows;
  return s;
}

// Rows of x (n, size) as `count` of `width` elements each, zeros behind.
template <class A>
Exact<A> panels(const Exact<A>& x, int64_t n, int64_t size, int64_t width) {
  const int64_t count = (size + width - 1) / width;
  Exact<A> out(count * n * width);
  for (int64_t p = 0; p < count; ++p)
    for (int64_t b = 0; b < n; ++b)
      for (int64_t l = 0; l < width; ++l) {
        const int64_t j = p * width + l;
        out[(p * n + b) * width + l] = j < size ? x[b * size + j] : A(0);
      }
  return out;
}

// Samples beside each other, each as panels of one.
template <class A>
Exact<A> padded(const Exact<A>& x, int64_t n, int64_t size, int64_t row) {
  Exact<A> out(n * row);
  for (int64_t b = 0; b < n; ++b)
    for (int64_t j = 0; j < row; ++j) out[b * row + j] = j < size ? x[b * size + j] : A(0);
  return out;
}

template <class T>
void check_dense(Isa isa, int64_t rows, int64_t cols, int64_t traces, int64_t terms, bool bounded,
                 bool masked, double keep) {
  using A = Acc<T>;
  const Plastic<T> p(nullptr, rows, cols, traces, terms);
  const Exact<T> to(p.size);
  const Exact<A> trace_to(traces * p.size);
  ThreeFactorStep s = step_of(p, keep, bounded, to, trace_to);
  if (masked) s.w.mask = p.mask.get();
  const OuterUpdateKernels& outer = outer_update_kernels(isa);
  const int64_t panel = outer.panel(dtype<T>()), row = panel_floats(cols, 1, panel);
  const auto pre =
      terms == 1 ? padded(p.pre, traces, cols, row) : panels(p.pre, terms, cols, panel);
  const auto post = panels(p.post, terms, rows, outer.group);
  s.pre = pre.get(), s.pre_stride = row;
  if (terms != 1) s.post = post.get();
  const int64_t groups = (rows + outer.group - 1) / outer.group;
  const ThreeFactorKernels& kernels = three_factor_kernels(isa);
  require(kernels.dense(s, 0, groups / 2), "finite");
  require(kernels.dense(s, groups / 2, groups), "finite");
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j)
      p.require_entry(i, j, i * cols + j, keep, bounded, masked, to, trace_to);
}

template <class T>
void check_entries(Isa isa, const Sample& sample, int64_t traces, int64_t terms, bool bounded,
                   double keep) {
  using A = Acc<T>;
  const Csr& csr = sample.csr;
  const Plastic<T> p(&sample, csr.rows, csr.cols, traces, terms);
  const Exact<T> to(p.size);
  const Exact<A> trace_to(traces * p.size), columns(4 * csr.cols);
  for (int64_t j = 0; j < csr.cols; ++j) {
    columns[4 * j] = p.pre[j], columns[4 * j + 1] = p.lower[j];
    columns[4 * j + 2] = p.upper[j], columns[4 * j + 3] = A(0);
  }
  ThreeFactorStep s = step_of(p, keep, bounded, to, trace_to);
  s.pre = p.pre.get(), s.pre_stride = csr.cols;
  s.columns = columns.get();
  const ThreeFactorKernels& kernels = three_factor_kernels(isa);
  require(kernels.entries(s, csr, 0, csr.rows / 2) == 0, "finite");
  require(kernels.entries(s, csr, csr.rows / 2, csr.rows) == 0, "finite");
  sample.for_entries([&](int64_t i, int64_t j, int64_t at) {
    p.require_entry(i, j, at, keep, bounded, false, to, trace_to);
  });
  Csr outside = csr;
  outside.cols = csr.nnz == 0 ? 0 : csr.col[csr.nnz - 1];
  require(csr.nnz == 0 || (kernels.entries(s, outside, 0, csr.rows) & kOutside) != 0, "outside");
}

}  // namespace

void check_three_factor(Isa isa) {
  for_dtypes([&](auto t) {
    using T = decltype(t);
    int64_t turn = 0;
    for (const int64_t rows : {1, 13})
      for (const int64_t cols : {1, 37, 130})
        for (const auto [traces, terms] : {std::pair{1, 1}, {1, 3}, {2, 1}}) {
          ++turn;
          say("three_factor: %s, %ld x %ld, %d traces of %d", name_of(dtype<T>()),
              static_cast<long>(rows), static_cast<long>(cols), traces, terms);
          check_dense<T>(isa, rows, cols, traces, terms, turn % 2, turn % 3 == 0,
                         turn % 4 < 2 ? 1 : .5);
          check_dense<T>(isa, rows, cols, traces, terms, turn % 2 == 0, turn % 3 == 1,
                         turn % 4 < 2 ? 1 : .5);
          const Sample s(rows, cols, .4, {}, 0, isa);
          check_entries<T>(isa, s, traces, terms, turn % 2, turn % 4 < 2 ? 1 : .5);
          check_entries<T>(isa, s, traces, terms, turn % 2 == 0, turn % 4 < 2 ? 1 : .5);
        }
  });
}

}  // namespace synops::sanitize
