// stdp: rows of a weight through some steps, by events and over all columns, dense and compressed,
// against plain loops.
#include "hebbian/stdp.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "sanitize/checks.h"
#include "sanitize/samples.h"

namespace synops::sanitize {
namespace {

// What changes an entry in a step: (steps, samples, units), a part of it zeros.
template <class A>
Exact<A> sparse(int64_t n, double rate) {
  Exact<A> out(n);
  for (int64_t i = 0; i < n; ++i)
    out[i] = (uniform() + 1) / 2 < rate ? static_cast<A>(uniform()) : A(0);
  return out;
}

// The traces of one side, moved on by a step.
template <class A>
void check_side(Isa isa, int64_t samples, int64_t n, bool nearest, bool included, bool triplets) {
  const int64_t count = samples * n;
  const auto spikes = sparse<A>(count, 0.3), trace = random<A>(count), slow = random<A>(count);
  const auto scale = random<A>(samples);
  const Exact<A> now(count), later(count), seen(count), drive(count);
  for (int64_t i = 0; i < count; ++i) now[i] = trace[i], later[i] = slow[i];
  stdp_kernels(isa).side(
      dtype<A>(), {spikes.get(), samples, n, now.get(), triplets ? later.get() : nullptr, 0.5, 0.25,
                   0.7, 0.3, scale.get(), nearest, included, seen.get(), drive.get()});
  for (int64_t i = 0; i < count; ++i) {
    const double s = spikes[i], faded = trace[i] * 0.5, before = slow[i] * 0.25;
    const auto after = [&](double v) { return nearest ? (s == 0 ? v : s) : v + s; };
    const double amplitude = triplets ? 0.7 + 0.3 * before : 0.7;
    const auto near = [](double got, double want) { return std::abs(got - want) < 1e-6; };
    require(near(now[i], after(faded)), "trace");
    require(near(later[i], triplets ? after(before) : slow[i]), "slow trace");
    require(near(seen[i], included ? after(faded) : faded), "seen");
    require(near(drive[i], s * amplitude * scale[i / n]), "drive");
  }
}

// The events of each step, as stdp.cpp makes them.
template <class A>
struct Events {
  Events(Isa isa, const Exact<A>& drive, int64_t steps, int64_t samples, int64_t columns)
      : touched(steps * columns), column(steps * columns), each(steps) {
    for (int64_t t = 0; t < steps; ++t) {
      const A* const d = drive.get() + t * samples * columns;
      int32_t* const at = column.get() + t * columns;
      const int64_t count =
          stdp_kernels(isa).touch(dtype<A>(), d, samples, columns, touched.get() + t * columns, at);
      auto& ptr = ptrs.emplace_back(count + 1);
      std::vector<int32_t> samples_of;
      std::vector<A> values_of;
      for (int64_t k = 0; k < count; ++k) {
        ptr[k] = static_cast<int32_t>(values_of.size());
        for (int64_t b = 0; b < samples; ++b)
          if (d[b * columns + at[k]] != A(0))
            samples_of.push_back(static_cast<int32_t>(b)),
                values_of.push_back(d[b * columns + at[k]]);
      }
      const auto size = static_cast<int64_t>(values_of.size());
      ptr[count] = static_cast<int32_t>(size);
      auto& sample = of_sample.emplace_back(size);
      auto& value = of_value.emplace_back(size);
      for (int64_t i = 0; i < size; ++i) sample[i] = samples_of[i], value[i] = values_of[i];
      each[t] = {count, at, ptr.get(), sample.get(), value.get()};
      for (int64_t j = 0, k = 0; j < columns; ++j) {
        bool any = false;
        for (int64_t b = 0; b < samples; ++b) any = any || d[b * columns + j] != A(0);
        require(touched[t * columns + j] == A(any), "touched");
        if (any) require(k < count && at[k++] == j, "columns");
      }
    }
  }
  Exact<A> touched;
  Exact<int32_t> column;
  std::vector<Exact<int32_t>> ptrs, of_sample;
  std::vector<Exact<A>> of_value;
  std::vector<StdpEvents> each;
};

struct Shape {
  int64_t rows, columns, samples;
  double rate;
};

template <class T>
void check_rows(Isa isa, const Shape& x, bool compressed, bool soft, bool traced, bool by_events) {
  using A = Acc<T>;
  constexpr int64_t kSteps = 3;
  const Sample pattern(x.rows, x.columns, 0.5);
  const int64_t entries = compressed ? pattern.csr.nnz : x.rows * x.columns;
  const int64_t of_rows = kSteps * x.samples * x.rows, of_columns = kSteps * x.samples * x.columns;
  const auto weight = random<T>(entries);
  const auto kept = random<A>(entries);
  const auto potentiate = sparse<A>(of_rows, x.rate), depressed = random<A>(of_rows);
  const auto depress = sparse<A>(of_columns, x.rate), trace = random<A>(of_columns);
  const auto lr = random<A>(x.rows), reward = random<A>(kSteps);
  const Exact<A> lower(x.columns), upper(x.columns), e(entries);
  const Exact<T> w(entries);
  for (int64_t j = 0; j < x.columns; ++j) lower[j] = A(-0.9), upper[j] = A(0.9);
  for (int64_t i = 0; i < entries; ++i) w[i] = weight[i], e[i] = kept[i];
  Events<A> events(isa, depress, kSteps, x.samples, x.columns);
  if (!by_events)
    for (auto& of_step : events.each) of_step.count = StdpEvents::kEvery;
  if (compressed)
    for (auto& of_step : events.each) of_step.count = of_step.count == 0 ? 0 : StdpEvents::kEvery;
  const Exact<StdpTerm> terms(2 * x.samples);
  const Exact<A> sums(x.columns);
  for (int64_t j = 0; j < x.columns; ++j) sums[j] = A(0);
  const StdpSteps s{x.rows,
                    x.columns,
                    x.samples,
                    kSteps,
                    w.get(),
                    traced ? e.get() : nullptr,
                    compressed ? pattern.csr.crow : nullptr,
                    compressed ? pattern.csr.col : nullptr,
                    potentiate.get(),
                    depressed.get(),
                    trace.get(),
                    depress.get(),
                    events.touched.get(),
                    events.each.data(),
                    lr.get(),
                    reward.get(),
                    lower.get(),
                    upper.get(),
                    x.columns % 2 == 1,
                    0.5,
                    soft};
  const int64_t bounds[] = {0, x.rows / 2, x.rows};  // in two parts, as threads have them
  for (int part = 0; part < 2; ++part)
    require(stdp_kernels(isa).rows(dtype<T>(), s, bounds[part], bounds[part + 1], terms.get(),
                                   sums.get()),
            "finite");
  for (int64_t j = 0; j < x.columns; ++j) require(sums[j] == A(0), "sums");
  const auto entry = [&](int64_t o, int64_t j, int64_t p) {
    double v = static_cast<double>(weight[p]), held = kept[p];
    for (int64_t t = 0; t < kSteps; ++t) {
      double up = 0, down = 0;
      bool touched = traced;
      for (int64_t b = 0; b < x.samples; ++b) {
        const int64_t of_row = (t * x.samples + b) * x.rows + o;
        const int64_t of_column = (t * x.samples + b) * x.columns + j;
        up += double{potentiate[of_row]} * trace[of_column];
        down += double{depressed[of_row]} * depress[of_column];
        touched = touched || potentiate[of_row] != A(0) || depress[of_column] != A(0);
      }
      if (!touched) continue;
      if (soft) up *= upper[j] - v, down *= v - lower[j];
      held = held * 0.5 + up - down;
      v += lr[o] * (traced ? reward[t] * held : up - down);
      v = static_cast<double>(static_cast<T>(std::clamp<double>(v, lower[j], upper[j])));
    }
    const double ulp = sizeof(T) == 2 ? 0.02 : 1e-5;  // of half precision: a rounding a step
    if (std::abs(static_cast<double>(w[p]) - v) > ulp) {
      std::fprintf(stderr, "got %g, want %g\n", static_cast<double>(w[p]), v);
      require(false, "weight");
    }
    if (traced) require(std::abs(e[p] - held) < 1e-2, "eligibility");
  };
  if (compressed) return pattern.for_entries(entry);
  for (int64_t o = 0; o < x.rows; ++o)
    for (int64_t j = 0; j < x.columns; ++j) entry(o, j, o * x.columns + j);
}

}  // namespace

void check_stdp(Isa isa) {
  for (const int64_t n : {1, 7, 16, 45})
    for (int flags = 0; flags < 8; ++flags) {
      say("stdp: traces of %ld, %d", static_cast<long>(n), flags);
      check_side<float>(isa, 2, n, flags & 1, flags & 2, flags & 4);
      check_side<double>(isa, 2, n, flags & 1, flags & 2, flags & 4);
    }
  for (const Shape& x :
       {Shape{1, 1, 1, 1.0}, Shape{9, 33, 1, 0.1}, Shape{5, 70, 3, 0.1}, Shape{4, 17, 2, 0.6},
        Shape{6, 48, 1, 0}, Shape{17, 70, 1, 0.1}, Shape{18, 45, 2, 0.05}})
    for (int flags = 0; flags < 16; ++flags) {
      const bool compressed = flags & 1, soft = flags & 2, traced = flags & 4, events = flags & 8;
      say("stdp: %ld x %ld, %ld samples, rate %g, %d", static_cast<long>(x.rows),
          static_cast<long>(x.columns), static_cast<long>(x.samples), x.rate, flags);
      for_dtypes(
          [&](auto t) { check_rows<decltype(t)>(isa, x, compressed, soft, traced, events); });
    }
}

}  // namespace synops::sanitize
