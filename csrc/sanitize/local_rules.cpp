// The kernels of outer_update.inc, local_rule.inc and sampled_update.inc against plain loops.
#include <cmath>
#include <vector>

#include "hebbian/local_rule.h"
#include "sanitize/checks.h"
#include "sanitize/samples.h"

namespace synops::sanitize {
namespace {

template <class A>
struct Case {
  Case(int64_t rows, int64_t cols, int64_t batch, LocalRule rule)
      : rows(rows),
        cols(cols),
        batch(batch),
        rule(rule),
        x(batch * cols),
        y(batch * rows),
        rate(rows),
        gain(rows),
        gain_pre(cols),
        modulator(batch),
        theta(rows),
        square(rows),
        lower(cols),
        upper(cols) {
    for (const Exact<A>* t : {&x, &y, &rate, &gain, &gain_pre, &modulator, &theta})
      for (int64_t i = 0; i < t->size(); ++i) (*t)[i] = static_cast<A>(uniform());
    for (int64_t j = 0; j < cols; ++j) lower[j] = A(-0.5), upper[j] = A(0.75);
  }
  RuleFactors factors() const {
    return {rule,
            0.9,
            rate.get(),
            modulator.get(),
            gain.get(),
            theta.get(),
            rule == LocalRule::kBcm ? square.get() : nullptr};
  }
  // What a weight becomes.
  double after(double w, int64_t i, int64_t j, const std::vector<double>& post) const {
    double keep = 0.9, sum = 0;
    for (int64_t b = 0; b < batch; ++b) {
      const double v = post[b * rows + i] * gain[i], p = double(rate[i]) * modulator[b] * v;
      if (rule == LocalRule::kOja) keep -= p * v;
      sum += (rule == LocalRule::kBcm ? p * (v - theta[i]) : p) * x[b * cols + j] * gain_pre[j];
    }
    return std::min(std::max(keep * w + sum, -0.5), 0.75);
  }
  int64_t rows, cols, batch;
  LocalRule rule;
  Exact<A> x, y, rate, gain, gain_pre, modulator, theta, square, lower, upper;
};

template <class T>
void require_weight(T got, double want, int64_t terms) {
  const double eps = std::numeric_limits<Acc<T>>::epsilon() * (terms + 16) * 4;
  const double half = sizeof(T) == 2 ? (std::is_same_v<T, c10::Half> ? 1e-3 : 8e-3) : 0;
  require(std::abs(static_cast<double>(got) - want) <= eps + half, "weight");
}

// Given post, and post of the same pass; with a mask and without.
template <class T>
void check_dense(Isa isa, const Case<Acc<T>>& c, bool masked) {
  using A = Acc<T>;
  const OuterUpdateKernels& update = outer_update_kernels(isa);
  const LocalRuleKernels& rules = local_rule_kernels(isa);
  const DType type = dtype<T>();
  const int64_t panel = update.panel(type), group = update.group;
  const int64_t panels = (c.cols + panel - 1) / panel, groups = (c.rows + group - 1) / group;
  const Exact<T> from(c.rows * c.cols), to(c.rows * c.cols);
  const Exact<uint8_t> mask(c.rows * c.cols);
  for (int64_t i = 0; i < from.size(); ++i) {
    from[i] = static_cast<T>(static_cast<float>(uniform()));
    mask[i] = !masked || uniform() > 0;
  }
  const PlasticWeight w{
      type,     c.rows, c.cols,        from.get(),    c.cols,
      to.get(), c.cols, c.lower.get(), c.upper.get(), masked ? mask.get() : nullptr};
  const Exact<A> input(panels * panel * c.batch), pre(input.size());
  require(
      update.pack_pre(type, c.x.get(), c.cols, c.batch, c.cols, nullptr, 0, panels, input.get()),
      "finite");
  update.pack_pre(type, c.x.get(), c.cols, c.batch, c.cols, c.gain_pre.get(), 0, panels, pre.get());
  const auto check = [&](const std::vector<double>& y) {
    for (int64_t i = 0; i < c.rows; ++i)
      for (int64_t j = 0; j < c.cols; ++j) {
        const int64_t at = i * c.cols + j;
        const double old = static_cast<double>(from[at]);
        require_weight<T>(to[at], mask[at] ? c.after(old, i, j, y) : old, c.batch + c.cols);
      }
  };
  const Exact<A> post(groups * group * c.batch), keep(c.rows);
  require(rules.factors(type, c.factors(), c.y.get(), c.batch, c.rows, 0, groups, post.get(),
                        keep.get()),
          "finite");
  const int64_t half = groups / 2;
  const OuterFactors f{c.batch, pre.get(), post.get(), keep.get()};
  require(update.update(w, f, 0, half) && update.update(w, f, half, groups), "finite");
  std::vector<double> y(c.batch * c.rows);
  for (size_t i = 0; i < y.size(); ++i) y[i] = c.y[i];
  check(y);
  const Exact<A> out(c.batch * c.rows);
  require(rules.learn(w, c.factors(), c.batch, input.get(), pre.get(), 0, c.rows, out.get()),
          "finite");
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t i = 0; i < c.rows; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < c.cols; ++j)
        if (mask[i * c.cols + j])
          sum += static_cast<double>(from[i * c.cols + j]) * c.x[b * c.cols + j];
      require_weight<A>(out[b * c.rows + i], sum, c.cols);
      y[b * c.rows + i] = out[b * c.rows + i];
    }
  check(y);
}

template <class T>
void check_sampled(Isa isa, const Case<Acc<T>>& c) {
  using A = Acc<T>;
  const SampledUpdateKernels& kernels = sampled_update_kernels(isa);
  const DType type = dtype<T>();
  const int64_t width = kernels.padded(type, c.batch);
  std::vector<int32_t> pointers{0}, columns;
  for (int64_t i = 0; i < c.rows; ++i) {
    for (int64_t j = 0; j < c.cols; ++j)
      if (uniform() > 0) columns.push_back(static_cast<int32_t>(j));
    pointers.push_back(static_cast<int32_t>(columns.size()));
  }
  const int64_t nnz = static_cast<int64_t>(columns.size());
  const Exact<int32_t> crow(c.rows + 1), col(nnz);
  std::copy(pointers.begin(), pointers.end(), &crow[0]);
  std::copy(columns.begin(), columns.end(), col.get());
  const Exact<T> from(nnz), to(nnz);
  for (int64_t p = 0; p < nnz; ++p) from[p] = static_cast<T>(static_cast<float>(uniform()));
  const PlasticWeight w{type,     c.rows, c.cols,        from.get(),    0,
                        to.get(), 0,      c.lower.get(), c.upper.get(), nullptr};
  const Entries e{crow.get(), col.get()};
  const Exact<A> pre(c.cols * width), post(c.rows * width), keep(c.rows);
  require(kernels.turn(type, c.x.get(), c.batch, c.cols, nullptr, 0, c.cols, pre.get()), "finite");
  kernels.forward(w, e, c.batch, pre.get(), 0, c.rows, post.get());
  std::vector<double> y(c.batch * c.rows);
  for (int64_t i = 0; i < c.rows; ++i)
    for (int64_t b = 0; b < c.batch; ++b) {
      double sum = 0;
      for (int32_t p = crow[i]; p < crow[i + 1]; ++p)
        sum += static_cast<double>(from[p]) * c.x[b * c.cols + col[p]];
      require_weight<A>(post[i * width + b], sum, c.cols);
      y[b * c.rows + i] = post[i * width + b];
    }
  kernels.turn(type, c.x.get(), c.batch, c.cols, c.gain_pre.get(), 0, c.cols, pre.get());
  kernels.factors(type, c.factors(), c.batch, 0, c.rows, post.get(), keep.get());
  require(kernels.update(w, e, c.batch, pre.get(), post.get(), keep.get(), 0, c.rows), "finite");
  for (int64_t i = 0; i < c.rows; ++i)
    for (int32_t p = crow[i]; p < crow[i + 1]; ++p)
      require_weight<T>(to[p], c.after(static_cast<double>(from[p]), i, col[p], y), c.batch);
}

}  // namespace

void check_local_rules(Isa isa) {
  int64_t turn = 0;
  for (const auto& [rows, cols, batch] :
       {std::tuple{1, 1, 1}, {7, 37, 1}, {13, 70, 2}, {31, 130, 5}, {4, 200, 33}})
    for (const LocalRule rule : {LocalRule::kHebb, LocalRule::kOja, LocalRule::kBcm})
      for_dtypes([&](auto t) {
        using T = decltype(t);
        say("local rule %d: %d rows, %d columns, %d samples, %s", static_cast<int>(rule), rows,
            cols, batch, name_of(dtype<T>()));
        const Case<Acc<T>> c(rows, cols, batch, rule);
        check_dense<T>(isa, c, ++turn % 2 == 0);
        check_sampled<T>(isa, c);
      });
}

}  // namespace synops::sanitize
