// The kernels of soft_hebb.inc and soft_hebb_amax.inc against plain loops.
#include "hebbian/soft_hebb.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "sanitize/checks.h"
#include "sanitize/samples.h"

namespace synops::sanitize {
namespace {

template <class A>
void require_close(A got, double want, double size, const char* what) {
  const double tolerance = sizeof(A) == 8 ? 1e-12 : 2e-5;
  require(std::abs(static_cast<double>(got) - want) <= tolerance * (size + std::abs(want)), what);
}

// A weight with a mask or without; what it reads as.
template <class T>
struct Weight {
  int64_t out, in;
  Exact<T> data;
  Exact<uint8_t> flags;
  bool masked;
  Weight(int64_t rows, int64_t cols, bool some)
      : out(rows), in(cols), data(random<T>(rows * cols)), flags(rows * cols), masked(some) {
    for (int64_t k = 0; k < rows * cols; ++k) flags[k] = uniform() > -0.3 ? 1 : 0;
  }
  bool used(int64_t k) const { return !masked || flags[k] != 0; }
  double at(int64_t k) const { return used(k) ? static_cast<double>(data[k]) : 0; }
  SoftWeight raw() const {
    return {dtype<T>(), data.get(), masked ? flags.get() : nullptr, out, in};
  }
};

template <class T>
void check_forward(Isa isa, const Weight<T>& w, int64_t samples) {
  using A = Acc<T>;
  const SoftHebbKernels& k = soft_hebb_kernels(isa);
  const Exact<A> x = random<A>(samples * w.in), room(w.in), squares(w.out), u(w.out * samples);
  const auto same = [&](const A* got, int64_t apart, const char* what) {
    for (int64_t i = 0; i < w.out; ++i) {
      double square = 0;
      for (int64_t j = 0; j < w.in; ++j) square += w.at(i * w.in + j) * w.at(i * w.in + j);
      require_close(squares[i], square, w.in, "squares");
      for (int64_t b = 0; b < samples; ++b) {
        double sum = 0;
        for (int64_t j = 0; j < w.in; ++j)
          sum += w.at(i * w.in + j) * static_cast<double>(x[b * w.in + j]);
        require_close(got[i * apart + b], sum, w.in, what);
      }
    }
  };
  k.project(w.raw(), x.get(), samples, 0, w.out, room.get(), u.get(), squares.get());
  same(u.get(), samples, "u");
  if (samples == 0) return;
  const int64_t panel = k.panel(dtype<A>()), panels = (samples + panel - 1) / panel;
  const Exact<A> packed(panels * panel * w.in), sums(w.out * panels * panel);
  const Exact<A> tile(6 * kSoftDepth);
  k.pack(dtype<A>(), x.get(), samples, w.in, 0, panels, packed.get());
  k.project_panels(w.raw(), packed.get(), 0, panels, panels * panel, 0, w.out, tile.get(),
                   sums.get(), squares.get());
  same(sums.get(), panels * panel, "u by panels");
}

template <class A>
void check_competition(Isa isa, int64_t out, int64_t samples, SoftVariant variant, bool scaled) {
  const SoftHebbKernels& k = soft_hebb_kernels(isa);
  const int64_t groups = (samples + kSoftSamples - 1) / kSoftSamples;
  const Exact<A> u = random<A>(out * samples), modulator = random<A>(samples);
  const Exact<A> gain = random<A>(out), y(out * samples), overlap(groups * out);
  const SoftCompetition c{variant,
                          0.5,
                          out,
                          samples,
                          u.get(),
                          scaled ? modulator.get() : nullptr,
                          scaled ? gain.get() : nullptr,
                          y.get(),
                          overlap.get()};
  for (int64_t g = 0; g < groups; ++g) require(k.compete(dtype<A>(), c, g), "finite");
  std::vector<double> dot(groups * out);
  for (int64_t b = 0; b < samples; ++b) {
    int64_t winner = 0;
    double sum = 0;
    const auto at = [&](int64_t i) { return static_cast<double>(u[i * samples + b]); };
    for (int64_t i = 1; i < out; ++i)
      if (at(i) > at(winner)) winner = i;
    for (int64_t i = 0; i < out; ++i) sum += std::exp((at(i) - at(winner)) / 0.5);
    for (int64_t i = 0; i < out; ++i) {
      double want = std::exp((at(i) - at(winner)) / 0.5) / sum;
      if (variant == SoftVariant::kHard) want = i == winner ? 1 : 0;
      if (variant == SoftVariant::kSigned && i != winner) want = -want;
      if (scaled) want *= static_cast<double>(modulator[b]) * static_cast<double>(gain[i]);
      require_close(y[i * samples + b], want, 1, "y");
      dot[b / kSoftSamples * out + i] += want * at(i);
    }
  }
  for (int64_t i = 0; i < groups * out; ++i) require_close(overlap[i], dot[i], 64, "overlap");
  const int64_t rows = outer_update_kernels(isa).group, parts = (out + rows - 1) / rows;
  const Exact<A> turned(parts * rows * samples);
  k.turn(dtype<A>(), y.get(), samples, out, 0, parts, turned.get());
  for (int64_t i = 0; i < parts * rows; ++i)
    for (int64_t b = 0; b < samples; ++b)
      require(turned[(i / rows * samples + b) * rows + i % rows] ==
                  (i < out ? y[i * samples + b] : A(0)),
              "turned");
  if (out * samples > 0) {
    u[out * samples - 1] = std::numeric_limits<A>::infinity();
    require(!k.compete(dtype<A>(), c, groups - 1), "not finite");
  }
}

template <class T>
void check_amax(Isa isa, const Weight<T>& w) {
  using A = Acc<T>;
  const SoftHebbAmaxKernels& k = soft_hebb_amax_kernels(isa);
  const Exact<A> x = random<A>(w.in), y = random<A>(w.out), overlap = random<A>(w.out);
  const Exact<A> changes(w.out * w.in), wide(w.out * w.in);
  k.widen(w.raw(), 0, w.out, wide.get());
  double most = 0;
  for (int64_t i = 0; i < w.out; ++i)
    for (int64_t j = 0; j < w.in; ++j) {
      const int64_t at = i * w.in + j;
      require(wide[at] == static_cast<A>(w.at(at)), "widened");
      const double change = static_cast<double>(y[i]) * static_cast<double>(x[j]) -
                            static_cast<double>(overlap[i]) * w.at(at);
      changes[at] = static_cast<A>(change);
      if (w.used(at)) most = std::max(most, std::abs(change));
    }
  const SoftChanges one{w.raw(), x.get(), y.get(), overlap.get(), nullptr};
  const SoftChanges many{w.raw(), nullptr, nullptr, nullptr, changes.get()};
  require_close(static_cast<A>(k.largest(one, 0, w.out)), most, 1, "largest of one");
  require_close(static_cast<A>(k.largest(many, 0, w.out)), most, 1, "largest of many");
  const Exact<T> to(w.out * w.in);
  const PlasticWeight into{
      dtype<T>(), w.out, w.in,    w.data.get(), w.in,
      to.get(),   w.in,  nullptr, nullptr,      w.masked ? w.flags.get() : nullptr};
  require(k.apply(into, changes.get(), 0.5, y.get(), 0, w.out), "finite");
  for (int64_t at = 0; at < w.out * w.in; ++at) {
    const double before = static_cast<double>(w.data[at]);
    const double now = 0.5 * before + static_cast<double>(y[at / w.in]) * changes[at];
    if (!w.used(at)) require(static_cast<double>(to[at]) == before, "left alone");
    if (w.used(at) && sizeof(T) >= 4) require_close(static_cast<A>(to[at]), now, 1, "applied");
  }
}

}  // namespace

void check_soft_hebb(Isa isa) {
  // Less than a vector, a bit more, more than a tile; less and more than a block of the depth.
  int64_t turn = 0;
  for (const int64_t out : {1, 5, 13})
    for (const int64_t in : {1, 17, 70, 530})
      for (const int64_t samples : {0, 1, 3, 7, 65}) {
        ++turn;
        for_dtypes([&](auto t) {
          using T = decltype(t);
          say("soft_hebb: %s, %ld x %ld, %ld samples", name_of(dtype<T>()), static_cast<long>(out),
              static_cast<long>(in), static_cast<long>(samples));
          const Weight<T> w(out, in, turn % 2 == 0);
          check_forward<T>(isa, w, samples);
          if (samples == 1) check_amax<T>(isa, w);
        });
      }
  for (const int64_t out : {1, 6, 19})
    for (const int64_t samples : {1, 5, 16, 64, 70, 130})
      for (const SoftVariant variant :
           {SoftVariant::kSoft, SoftVariant::kSigned, SoftVariant::kHard}) {
        say("soft_hebb: %ld units compete for %ld samples", static_cast<long>(out),
            static_cast<long>(samples));
        check_competition<float>(isa, out, samples, variant, samples % 2 == 0);
        check_competition<double>(isa, out, samples, variant, samples % 2 == 1);
      }
}

}  // namespace synops::sanitize
