// The kernels of neurons.inc and neurons_backward.inc against plain loops.
#include <cmath>
#include <vector>

#include "sanitize/checks.h"
#include "sanitize/samples.h"
#include "spiking/neurons.h"

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

// What a call is about.
struct Case {
  int64_t steps, count;
  Neuron neuron;
  Firing firing;
  bool attached;
  Surrogate surrogate;
  SpikeForm form;
  Saved saved;
  bool all, single;  // all that is optional; one number for each parameter
};

// A parameter in memory of exactly the right size.
template <class A>
struct Parameter {
  Parameter(int64_t count, bool single, double low)
      : single(single), memory(single ? 64 / sizeof(A) : count) {
    for (int64_t i = 0; i < memory.size(); ++i)
      memory[i] = single && i > 0 ? memory[0] : static_cast<A>(low + 0.2 * (1 + uniform()));
  }
  double operator[](int64_t i) const { return memory[single ? 0 : i]; }
  Values values() const { return {memory.get(), single}; }

  bool single;
  Exact<A> memory;
};

// One neuron after the other: membranes and second states of the kernel are taken as they are, so
// only the arithmetic of each step is checked, and the way back from there. Membranes are moved off
// the threshold by their size, so that no rounding decides.
template <class T>
void check_case(Isa isa, const Case& c) {
  using A = Acc<T>;
  const double slope = 2.5;
  const auto [steps, count, neuron, firing, attached, surrogate, form, saved, all, single] = c;
  const bool alif = neuron == Neuron::kAlif, cuba = neuron == Neuron::kCubaLif;
  const bool half = saved == Saved::kHalf;
  const Dense<T> x = Dense<T>::random(steps, count, false, 3);
  const Exact<A> v0 = random<A>(count), w0 = random<A>(count), grad_v = random<A>(count),
                 grad_w = random<A>(count);
  const Parameter<A> beta(count, single, 0.5), threshold(count, single, 0.4),
      decay(count, single, 0.5), strength(count, single, 0.1);
  const Exact<A> v(count), w(count);
  const int64_t bytes = form == SpikeForm::kBits ? (count + 7) / 8 : count;
  const Dense<T> spikes(steps, count, false, 1), of_input(steps, count, false, 2);
  const Dense<char> packed(steps, bytes, false, 1);
  const Dense<A> membrane(steps, count, false, 1), shown(steps, count, false, 2),
      second(steps, count, false, 1);
  const Dense<c10::Half> halves(steps, count, false, 1);
  const Exact<A> room(std::max(kForwardRoom, kBackwardRoom) * padded(count));
  const auto at = [](const auto& m) { return Series{m.memory.get(), m.ld}; };
  const auto from = [](const auto& m) { return ConstSeries{m.memory.get(), m.ld}; };
  const Series none{nullptr, 0};
  const ConstSeries nothing{nullptr, 0};
  neuron_kernels(isa).forward(dtype<T>(), {steps,
                                           count,
                                           neuron,
                                           firing,
                                           from(x),
                                           all ? v0.get() : nullptr,
                                           all ? w0.get() : nullptr,
                                           beta.values(),
                                           threshold.values(),
                                           decay.values(),
                                           strength.values(),
                                           form,
                                           form == SpikeForm::kInput ? at(spikes) : at(packed),
                                           saved,
                                           half ? at(halves) : at(membrane),
                                           at(second),
                                           all ? at(shown) : none,
                                           v.get(),
                                           w.get(),
                                           room.get(),
                                           all});
  const auto spike_at = [&](int64_t t, int64_t i) {
    if (form == SpikeForm::kInput) return static_cast<double>(spikes.at(t, i)) != 0;
    if (form == SpikeForm::kBytes) return packed.at(t, i) != 0;
    return (packed.at(t, i / 8) >> (i % 8) & 1) != 0;
  };
  const auto bar = [&](double second, int64_t i) {
    return threshold[i] + (alif ? strength[i] * second : 0);
  };
  const auto fires = [&](double d) { return firing.inclusive ? d >= 0 : d > 0; };
  const double precision = half ? 1e-3 : 0;
  for (int64_t i = 0; i < count; ++i) {
    double state = all ? v0[i] : 0, other = all ? w0[i] : 0;
    bool before = firing.late && fires(state - bar(other, i));
    for (int64_t t = 0; t < steps; ++t) {
      double drive = static_cast<double>(x.at(t, i));
      if (cuba) drive = other = decay[i] * other + drive;
      if (alif && firing.late) other = decay[i] * other + before;
      if (before && firing.reset == Reset::kZero) state = 0;
      double u = beta[i] * state + drive;
      if (before && firing.reset == Reset::kSubtract) u -= threshold[i];
      if (neuron != Neuron::kLif) require_close(second.at(t, i), other, 4, "second state");
      if (neuron != Neuron::kLif) other = second.at(t, i);
      const double got = half ? static_cast<double>(halves.at(t, i)) + bar(other, i)
                              : membrane.at(t, i) + (alif ? bar(other, i) : 0);
      require(std::abs(got - u) <= precision * (1 + std::abs(u)) + 1e-4, "membrane");
      const double d = half   ? static_cast<double>(halves.at(t, i))
                       : alif ? static_cast<double>(membrane.at(t, i))
                              : membrane.at(t, i) - threshold[i];
      const bool fired = spike_at(t, i);
      require(fired == fires(d), "spikes");
      if (!half) u = got;
      state = u;
      if (fired && !firing.late) {
        if (firing.reset == Reset::kSubtract) state = u - threshold[i];
        if (firing.reset == Reset::kZero) state = 0;
      }
      if (all) require_close(shown.at(t, i), state, 8, "trajectory");
      if (all) state = shown.at(t, i);
      before = firing.late && fired;
      if (alif && !firing.late) other = decay[i] * other + fired;
    }
    require_close(v[i], state, 8, "state");
    if (neuron != Neuron::kLif) require_close(w[i], other, 8, "second state after");
  }
  if (all) shown.require_gaps();
  if (form == SpikeForm::kInput) spikes.require_gaps();
  packed.require_gaps();
  membrane.require_gaps();
  halves.require_gaps();

  const Dense<T> of_spikes = Dense<T>::random(steps, count, false, 2);
  const Dense<A> of_shown = Dense<A>::random(steps, count, false, 1);
  const Exact<A> of_v0(count), of_w0(count), of_beta(count), of_threshold(count), of_decay(count),
      of_strength(count);
  const auto wanted = [&](const Exact<A>& e) { return all ? e.get() : nullptr; };
  neuron_gradient_kernels(isa).backward(dtype<T>(),
                                        {steps,
                                         count,
                                         neuron,
                                         firing,
                                         attached,
                                         surrogate,
                                         slope,
                                         from(of_spikes),
                                         all ? from(of_shown) : nothing,
                                         saved,
                                         half ? from(halves) : from(membrane),
                                         neuron == Neuron::kLif ? nothing : from(second),
                                         wanted(grad_v),
                                         wanted(grad_w),
                                         wanted(v0),
                                         wanted(w0),
                                         beta.values(),
                                         threshold.values(),
                                         decay.values(),
                                         strength.values(),
                                         at(of_input),
                                         of_v0.get(),
                                         of_w0.get(),
                                         wanted(of_beta),
                                         wanted(of_threshold),
                                         wanted(of_decay),
                                         wanted(of_strength),
                                         room.get(),
                                         all});
  for (int64_t i = 0; i < count; ++i) {
    const double last_w = all ? grad_w[i] : 0;
    double ahead = 0, next = alif && !firing.late ? last_w : 0, size = 8;
    double b = 0, h = 0, r = 0, g = 0;
    const auto back = [&](double u, double d, double other, double of_spike, double of_state) {
      const bool fired = fires(d);
      const double leaked = beta[i] * ahead;
      double kept = u, through = leaked + of_state;
      if (alif) of_spike += next;
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
      const double of_step = of_spike * surrogate_at(surrogate, slope, d);
      b += ahead * kept;
      h -= of_step;
      size = std::max(size, 4 * std::abs(ahead * kept) + 4 * std::abs(of_step));
      if (alif) {
        g -= of_step * other;
        r += next * other;
        next = decay[i] * next - strength[i] * of_step;
      }
      return of_step + through;
    };
    for (int64_t t = steps; t-- > 0;) {
      const bool last = t + 1 == steps;
      const double of_state =
          all ? (last ? static_cast<double>(grad_v[i]) : 0) + of_shown.at(t, i) : 0;
      const double other = neuron == Neuron::kLif ? 0 : second.at(t, i), at_ = bar(other, i);
      const double kept = half ? static_cast<double>(halves.at(t, i)) : membrane.at(t, i);
      const double d = half || alif ? kept : kept - at_;
      ahead = back(d + at_, d, other, static_cast<double>(of_spikes.at(t, i)), of_state);
      if (cuba) {
        r += next * other;
        next = ahead + decay[i] * next;
      }
      if (last && (cuba || (alif && firing.late))) next += last_w;
      size = std::max(size, 4 * std::abs(next));
      require_close(of_input.at(t, i), cuba ? next : ahead, size, "gradient of the input");
    }
    const double start = all ? v0[i] : 0, other = all ? w0[i] : 0;
    if (cuba) {
      r += next * other;
      next = decay[i] * next;
    }
    double of_start = beta[i] * ahead;
    if (steps == 0) {
      of_start = all ? grad_v[i] : 0;
      next = last_w;
    } else if (firing.late) {
      of_start = back(start, start - bar(other, i), other, 0, 0);
    } else {
      b += ahead * start;
    }
    require_close(of_v0[i], of_start, size, "gradient of v0");
    if (neuron != Neuron::kLif) require_close(of_w0[i], next, size, "gradient of w0");
    if (!all) continue;
    require_close(of_beta[i], b, (1 + steps) * size, "gradient of beta");
    require_close(of_threshold[i], h, (1 + steps) * size, "gradient of the threshold");
    if (alif || cuba) require_close(of_decay[i], r, (1 + steps) * size, "gradient of the decay");
    if (alif) require_close(of_strength[i], g, (1 + steps) * size, "gradient of the strength");
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
          Case c{steps,
                 count,
                 static_cast<Neuron>(turn / 4 % 3),
                 {reset, late, turn % 3 == 0},
                 turn % 5 < 2,
                 static_cast<Surrogate>(turn % 7),
                 static_cast<SpikeForm>(turn / 3 % 3),
                 static_cast<Saved>(1 + turn / 7 % 2),
                 turn % 11 < 8,
                 turn / 5 % 2 == 0};
          if (sizeof(T) == 8) c.saved = Saved::kFull;
          say("neurons %d: %s, %ld x %ld, reset %d, late %d, surrogate %d, form %d, saved %d",
              static_cast<int>(c.neuron), name_of(dtype<T>()), static_cast<long>(steps),
              static_cast<long>(count), static_cast<int>(reset), late,
              static_cast<int>(c.surrogate), static_cast<int>(c.form), static_cast<int>(c.saved));
          check_case<T>(isa, c);
          turn += 1 + turn % 4 / 3;  // not in step with the types
        });
}

}  // namespace synops::sanitize
