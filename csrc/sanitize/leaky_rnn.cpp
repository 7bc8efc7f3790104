// The kernels of leaky_rnn.inc and leaky_rnn_backward.inc against plain loops.
#include "spiking/leaky_rnn.h"

#include <cmath>
#include <vector>

#include "sanitize/checks.h"
#include "sanitize/samples.h"

namespace synops::sanitize {
namespace {

double apply(const LeakyRule& rule, double v) {
  if (rule.activation == LeakyActivation::kTanh) return std::tanh(v);
  return v > 0 ? v : rule.activation == LeakyActivation::kRelu ? 0 : rule.slope * v;
}
double derivative(const LeakyRule& rule, double y) {
  if (rule.activation == LeakyActivation::kTanh) return 1 - y * y;
  return y > 0 ? 1 : rule.slope;
}

template <class A>
void require_close(A got, double want, double size, const char* what) {
  const double tolerance = sizeof(A) == 8 ? 1e-12 : 2e-5;
  const double off = std::abs(static_cast<double>(got) - want);
  if (!(off <= tolerance * (size + std::abs(want))))
    std::fprintf(stderr, "%s: %g, not %g\n", what, static_cast<double>(got), want);
  require(off <= tolerance * (size + std::abs(want)), what);
}

// (rows, n): of a state or of the drive, in the memory of all steps, `step` apart.
struct Shape {
  int64_t steps, rows, n;
  int64_t at(int64_t t, int64_t r, int64_t i) const { return (t * rows + r) * n + i; }
  int64_t size() const { return steps * rows * n; }
};

// Forward, where each step is compared with the step from what the kernel had before; then back.
template <class T>
void check_rule(Isa isa, const Shape& s, LeakyRule rule, bool all) {
  using A = Acc<T>;
  const LeakyRnnKernels& kernels = leaky_rnn_kernels(isa);
  const LeakyRnnGradientKernels& gradients = leaky_rnn_gradient_kernels(isa);
  const DType wide = dtype<A>();
  const int64_t n = s.n, panel = kernels.panel(wide), panels = (n + panel - 1) / panel;
  const int64_t padded = panels * panel, group = leaky_group(s.rows);
  const int64_t groups = (s.rows + group - 1) / group;
  const Exact<A> weight = random<A>(n * n), h0 = random<A>(s.rows * n);
  const Exact<A> rate(padded), keep(padded), bias(padded);
  for (int64_t i = 0; i < padded; ++i) {
    rate[i] = static_cast<A>(i < n ? 0.6 + 0.4 * uniform() : 0);
    keep[i] = 1 - rate[i], bias[i] = static_cast<A>(i < n ? uniform() : 0);
  }
  const auto used = [&](int64_t i, int64_t j) {
    return all && i == j ? 0 : static_cast<double>(weight[i * n + j]);
  };
  const Exact<A> turned(panels * n * panel), straight(panels * n * panel);
  kernels.pack_turned(wide, weight.get(), n, all, 0, panels, turned.get());
  gradients.pack(wide, weight.get(), n, n, all, 0, panels, straight.get());
  for (int64_t p = 0; p < panels; ++p)
    for (int64_t k = 0; k < n; ++k)
      for (int64_t c = 0; c < panel; ++c) {
        const int64_t i = p * panel + c, at = (p * n + k) * panel + c;
        require(turned[at] == (i < n ? used(i, k) : 0), "turned panels");
        require(straight[at] == (i < n ? used(k, i) : 0), "panels");
      }

  // One number for all neurons, or rows with a gap.
  const Dense<T> x = Dense<T>::random(s.steps * s.rows, all ? n : 1, false, all ? 3 : 0);
  const Exact<A> states(s.size()), drive(s.size());
  const LeakyRows of{s.steps,    s.rows,     n,
                     s.rows * n, rule,       turned.get(),
                     rate.get(), keep.get(), all ? h0.get() : nullptr};
  kernels.forward(dtype<T>(), {of, bias.get(), x.memory.get(), s.rows * x.ld, x.ld, all ? 1 : 0,
                               states.get(), all || rule.inner ? drive.get() : nullptr});
  const auto before = [&](int64_t t, int64_t r, int64_t i) {
    if (t > 0) return static_cast<double>(states[s.at(t - 1, r, i)]);
    return all ? static_cast<double>(h0[r * n + i]) : 0;
  };
  std::vector<double> drives(s.size());
  for (int64_t t = 0; t < s.steps; ++t)
    for (int64_t r = 0; r < s.rows; ++r)
      for (int64_t i = 0; i < n; ++i) {
        double z = bias[i] + static_cast<double>(x.at(t * s.rows + r, all ? i : 0));
        for (int64_t j = 0; j < n; ++j) z += used(i, j) * before(t, r, j);
        if (rule.inner) z = apply(rule, z);
        const double h = keep[i] * before(t, r, i) + rate[i] * z;
        require_close(states[s.at(t, r, i)], rule.inner ? h : apply(rule, h), n, "state");
        if (all || rule.inner) require_close(drive[s.at(t, r, i)], z, n, "drive");
        drives[s.at(t, r, i)] = z;
      }

  const Dense<A> incoming = Dense<A>::random(s.steps * s.rows, n, false, 2);
  const Exact<A> of_drive(s.size()), of_h(s.rows * padded), sums(groups * 2 * padded);
  std::vector<double> g(s.rows * n), leaked(s.rows * n), of_bias(groups * n), of_rate(groups * n);
  std::vector<double> size(groups * n, 1);
  for (int64_t i = 0; i < groups * 2 * padded; ++i) sums[i] = 0;
  for (int64_t r = 0; r < s.rows; ++r)
    for (int64_t i = 0; i < padded; ++i) {
      of_h[r * padded + i] = static_cast<A>(i < n ? uniform() : 0);
      if (i < n) g[r * n + i] = of_h[r * padded + i];
    }
  LeakyRows back = of;
  back.weight = straight.get();
  gradients.backward(wide, {back, states.get(), all || rule.inner ? drive.get() : nullptr,
                            all ? incoming.memory.get() : nullptr, s.rows * incoming.ld,
                            incoming.ld, of_drive.get(), of_h.get(), all, group, sums.get()});
  for (int64_t t = s.steps; t-- > 0;) {
    for (int64_t r = 0; r < s.rows; ++r)
      for (int64_t i = 0; i < n; ++i) {
        const int64_t at = s.at(t, r, i), sum = r / group * n + i;
        double of_state = g[r * n + i] + (all ? incoming.at(t * s.rows + r, i) : 0);
        if (!rule.inner) of_state *= derivative(rule, states[at]);
        double of_z = rate[i] * of_state;
        if (rule.inner) of_z *= derivative(rule, drive[at]);
        of_rate[sum] += of_state * (drives[at] - before(t, r, i));
        of_bias[sum] += of_z;
        size[sum] += std::abs(of_state * (drives[at] - before(t, r, i))) * n;
        require_close(of_drive[at], of_z, 20.0 * n, "gradient of the drive");
        leaked[r * n + i] = keep[i] * of_state;
      }
    for (int64_t r = 0; r < s.rows; ++r)
      for (int64_t j = 0; j < n; ++j) {
        double sum = leaked[r * n + j];
        for (int64_t i = 0; i < n; ++i)
          sum += used(i, j) * static_cast<double>(of_drive[s.at(t, r, i)]);
        g[r * n + j] = t > 0 || all ? sum : leaked[r * n + j];
      }
  }
  for (int64_t r = 0; r < s.rows; ++r)
    for (int64_t i = 0; i < n; ++i)
      require_close(of_h[r * padded + i], g[r * n + i], 20.0 * n, "gradient of h0");
  for (int64_t part = 0; part < groups; ++part)
    for (int64_t i = 0; i < n; ++i) {
      const double scale = 20 * size[part * n + i];
      require_close(sums[2 * part * padded + i], of_bias[part * n + i], scale, "sum of the bias");
      if (all || rule.inner)
        require_close(sums[(2 * part + 1) * padded + i], of_rate[part * n + i], scale,
                      "sum of the rate");
    }
}

// sums += left^T right, some groups of it.
template <class A>
void check_outer(Isa isa, int64_t depth, int64_t n) {
  const LeakyRnnGradientKernels& kernels = leaky_rnn_gradient_kernels(isa);
  const DType wide = dtype<A>();
  const int64_t panel = leaky_rnn_kernels(isa).panel(wide), panels = (n + panel - 1) / panel;
  const int64_t padded = panels * panel, groups = (n + kLeakyColumns - 1) / kLeakyColumns;
  const Exact<A> left = random<A>(depth * n), right = random<A>(depth * n);
  const Exact<A> packed(panels * depth * panel), sums(groups * kLeakyColumns * padded);
  for (int64_t i = 0; i < sums.size(); ++i) sums[i] = 1;
  for (int64_t p = 0; p < panels; ++p)
    kernels.pack(wide, right.get(), depth, n, false, p, p + 1, packed.get());
  for (int64_t group = 0; group < groups; ++group) {
    const Exact<A> room(kLeakyColumns * depth);
    kernels.outer(wide, left.get(), depth, n, packed.get(), group, group + 1, room.get(),
                  sums.get());
  }
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double want = 1;
      for (int64_t k = 0; k < depth; ++k)
        want += static_cast<double>(left[k * n + i]) * static_cast<double>(right[k * n + j]);
      require_close(sums[i * padded + j], want, depth, "product over rows");
    }
}

}  // namespace

void check_leaky_rnn(Isa isa) {
  // Less than a vector, a bit more than one, a panel of AVX-512, a bit more; no row, one, a group,
  // more. No step, one, several.
  int64_t turn = 0;
  for (const int64_t n : {1, 7, 17, 64, 70})
    for (const int64_t rows : {0, 1, 6, 8})
      for (const int64_t steps : {0, 1, 3})
        for_dtypes([&](auto t) {
          using T = decltype(t);
          const LeakyActivation kinds[] = {LeakyActivation::kSlope, LeakyActivation::kRelu,
                                           LeakyActivation::kTanh};
          const LeakyRule rule{kinds[turn % 3], turn % 3 == 0 ? 0.1 : 0, turn % 7 < 3};
          const bool all = turn % 5 < 3;
          say("leaky_rnn: %s, %ld x %ld x %ld, activation %ld, inner %d, all %d",
              name_of(dtype<T>()), static_cast<long>(steps), static_cast<long>(rows),
              static_cast<long>(n), static_cast<long>(turn % 3), rule.inner, all);
          check_rule<T>(isa, {steps, rows, n}, rule, all);
          turn += 1 + turn % 4 / 3;  // not in step with the types
        });
  for (const int64_t n : {1, 6, 17, 70})
    for (const int64_t depth : {1, 19}) {
      say("leaky_rnn: products over %ld rows of %ld", static_cast<long>(depth),
          static_cast<long>(n));
      check_outer<float>(isa, depth, n);
      check_outer<double>(isa, depth, n);
    }
}

}  // namespace synops::sanitize
