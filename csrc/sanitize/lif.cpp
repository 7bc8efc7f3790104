// The kernels of lif.inc and lif_backward.inc against plain loops.
#include "spiking/lif.h"

#include <cmath>
#include <vector>

#include "sanitize/checks.h"
#include "sanitize/samples.h"

namespace synops::sanitize {
namespace {

double surrogate_at(Surrogate surrogate, double k, double d) {
  const double a = std::abs(d) * k;
  switch (surrogate) {
    case Surrogate::kAtan:
      return k / 2 / (1 + std::pow(1.57079632679489661923 * a, 2));
    case Surrogate::kSigmoid:
      return k * std::exp(-a) / std::pow(1 + std::exp(-a), 2);
    case Surrogate::kBoxcar:
      return a < 0.5 ? k : 0;
    case Surrogate::kTriangle:
      return std::max(0.0, 1 - a);
    case Surrogate::kQuadraticGate:
      return k * std::max(0.0, 1 - a);
    default:
      return 1 / std::pow(1 + a, 2);
  }
}

template <class A>
void require_close(A got, double want, double size, const char* what) {
  const double tolerance = sizeof(A) == 8 ? 1e-12 : sizeof(A) == 4 ? 2e-5 : 2e-2;
  const double off = std::abs(static_cast<double>(got) - want);
  if (!(off <= tolerance * (size + std::abs(want))))
    std::fprintf(stderr, "%s: %g, not %g\n", what, static_cast<double>(got), want);
  require(off <= tolerance * (size + std::abs(want)), what);
}

// One neuron: the spikes and membranes of the kernel are taken as they are where a rounding may
// decide, so only the arithmetic of each step is checked, and the way back from there.
template <class T>
void check_rule(Isa isa, int64_t steps, int64_t count, Firing firing, bool attached,
                Surrogate surrogate, bool all) {
  using A = Acc<T>;
  const double slope = 2.5;
  const Dense<T> x = Dense<T>::random(steps, count, false, 3);
  const Exact<A> v0 = random<A>(count), grad_v = random<A>(count);
  const Exact<A> beta(count), threshold(count), v(count);
  for (int64_t i = 0; i < count; ++i) {
    beta[i] = static_cast<A>(0.5 + 0.4 * uniform());
    threshold[i] = static_cast<A>(0.5 + 0.3 * uniform());
  }
  const Dense<T> spikes(steps, count, false, 1), of_input(steps, count, false, 2);
  const Dense<A> membrane(steps, count, false, 1), shown(steps, count, false, 2);
  const auto at = [](const auto& m) { return Series{m.memory.get(), m.ld}; };
  const auto from = [](const auto& m) { return ConstSeries{m.memory.get(), m.ld}; };
  const Series none{nullptr, 0};
  lif_kernels(isa).forward(dtype<T>(), {steps, count, firing, from(x), all ? v0.get() : nullptr,
                                        beta.get(), threshold.get(), at(spikes), at(membrane),
                                        all ? at(shown) : none, v.get(), all});
  const auto fires = [&](double u, int64_t i) {
    return firing.inclusive ? u >= threshold[i] : u > threshold[i];
  };
  for (int64_t i = 0; i < count; ++i) {
    double state = all ? v0[i] : 0;
    for (int64_t t = 0; t < steps; ++t) {
      const bool before = firing.late && fires(state, i);
      if (before && firing.reset == Reset::kZero) state = 0;
      double u = beta[i] * state + static_cast<double>(x.at(t, i));
      if (before && firing.reset == Reset::kSubtract) u -= threshold[i];
      require_close(membrane.at(t, i), u, 4, "membrane");
      u = membrane.at(t, i);
      const bool fired = fires(u, i);
      require(static_cast<double>(spikes.at(t, i)) == (fired ? 1 : 0), "spikes");
      state = u;
      if (fired && !firing.late) {
        if (firing.reset == Reset::kSubtract) state = u - threshold[i];
        if (firing.reset == Reset::kZero) state = 0;
      }
      if (all) require_close(shown.at(t, i), state, 4, "trajectory");
      if (all) state = shown.at(t, i);
    }
    require_close(v[i], state, 4, "state");
  }
  if (all) shown.require_gaps();
  spikes.require_gaps();
  membrane.require_gaps();

  const Dense<T> of_spikes = Dense<T>::random(steps, count, false, 2);
  const Dense<A> of_shown = Dense<A>::random(steps, count, false, 1);
  const Exact<A> of_v0(count), of_beta(count), of_threshold(count);
  lif_gradient_kernels(isa).backward(
      dtype<T>(),
      {steps, count, firing, attached, surrogate, slope, from(of_spikes),
       all ? from(of_shown) : ConstSeries{nullptr, 0}, from(membrane), all ? grad_v.get() : nullptr,
       all ? v0.get() : nullptr, beta.get(), threshold.get(), at(of_input), of_v0.get(),
       all ? of_beta.get() : nullptr, all ? of_threshold.get() : nullptr, all});
  for (int64_t i = 0; i < count; ++i) {
    double ahead = 0, b = 0, h = 0, size = 8;
    const auto back = [&](double u, double of_spike, double of_state) {
      const bool fired = fires(u, i);
      const double leaked = beta[i] * ahead;
      double kept = u, through = leaked + of_state;
      if (firing.reset == Reset::kSubtract) {
        const double of_reset = firing.late ? ahead : through;
        of_spike -= attached ? threshold[i] * of_reset : 0;
        kept -= fired && !firing.late ? threshold[i] : 0;
        h -= fired ? of_reset : 0;
      } else if (firing.reset == Reset::kZero) {
        const double of_reset = firing.late ? leaked : through;
        of_spike -= attached ? u * of_reset : 0;
        kept = fired ? 0 : u;
        through = (fired ? 0 : of_reset) + (firing.late ? of_state : 0);
      }
      const double of_step = of_spike * surrogate_at(surrogate, slope, u - threshold[i]);
      b += ahead * kept;
      h -= of_step;
      size = std::max(size, 4 * std::abs(ahead * kept) + 4 * std::abs(of_step));
      return of_step + through;
    };
    for (int64_t t = steps; t-- > 0;) {
      const double of_state =
          all ? (t + 1 == steps ? static_cast<double>(grad_v[i]) : 0) + of_shown.at(t, i) : 0;
      ahead = back(membrane.at(t, i), static_cast<double>(of_spikes.at(t, i)), of_state);
      require_close(of_input.at(t, i), ahead, size, "gradient of the input");
    }
    const double start = all ? v0[i] : 0;
    double of_start = beta[i] * ahead;
    if (steps == 0)
      of_start = all ? grad_v[i] : 0;
    else if (firing.late)
      of_start = back(start, 0, 0);
    else
      b += ahead * start;
    require_close(of_v0[i], of_start, size, "gradient of v0");
    if (all) require_close(of_beta[i], b, steps * size, "gradient of beta");
    if (all) require_close(of_threshold[i], h, steps * size, "gradient of the threshold");
  }
  of_input.require_gaps();
}

}  // namespace

void check_lif(Isa isa) {
  // Less than a vector, one, one and a bit; the largest tile. No step, one, several.
  int64_t turn = 0;
  for (const int64_t count : {1, 7, 16, 33, 1024})
    for (const int64_t steps : {0, 1, 5})
      for (const Reset reset : {Reset::kSubtract, Reset::kZero, Reset::kNone})
        for_dtypes([&](auto t) {
          using T = decltype(t);
          const bool late = turn % 2 == 1 && reset != Reset::kNone;
          const Surrogate surrogate = static_cast<Surrogate>(turn % 7);
          say("lif: %s, %ld x %ld, reset %d, late %d, surrogate %d", name_of(dtype<T>()),
              static_cast<long>(steps), static_cast<long>(count), static_cast<int>(reset), late,
              static_cast<int>(surrogate));
          const Firing firing{reset, late, turn % 3 == 0};
          check_rule<T>(isa, steps, count, firing, turn % 5 < 2, surrogate, turn % 11 < 8);
          turn += 1 + turn % 4 / 3;  // not in step with the types
        });
}

}  // namespace synops::sanitize
