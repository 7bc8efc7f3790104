// The kernels of magnitude_threshold.inc against plain loops.
#include <algorithm>
#include <cmath>
#include <vector>

#include "sanitize/checks.h"
#include "sanitize/samples.h"
#include "sparse/magnitude_threshold.h"

namespace synops::sanitize {
namespace {

template <class T>
double magnitude_of(const MagnitudeKernels& k, int64_t key) {
  T x;
  k.number(dtype<T>(), key, &x);
  return static_cast<double>(x);
}

template <class T>
void check_dtype(const MagnitudeKernels& k, int64_t n) {
  const Exact<T> x(n);
  std::vector<double> magnitudes;
  for (int64_t i = 0; i < n; ++i) {
    x[i] = static_cast<T>(i % 7 == 3    ? std::numeric_limits<double>::quiet_NaN()
                          : i % 11 == 5 ? -std::numeric_limits<double>::infinity()
                                        : std::round(uniform() * 8) / 4);
    const double v = std::abs(static_cast<double>(x[i]));
    magnitudes.push_back(std::isnan(v) ? -std::numeric_limits<double>::infinity() : v);
    require(magnitude_of<T>(k, k.key(dtype<T>(), x.get(), i)) == magnitudes.back(), "key");
  }
  const auto key_of = [&](double v) {
    const T t = static_cast<T>(v);
    return k.key(dtype<T>(), &t, 0);
  };
  // A bracket with something in it, one without, one number, all.
  const int64_t ends[][2] = {{key_of(0.5), key_of(1.5)},
                             {key_of(0.25), key_of(0.5)},
                             {key_of(1), key_of(1)},
                             {kNaN - 1, std::numeric_limits<int64_t>::max()}};
  for (const auto& [low, high] : ends) {
    Census got, want;
    const Exact<int64_t> inside(n + kSlack);
    const int64_t found = k.sift(dtype<T>(), x.get(), n, low, high, &got, inside.get());
    int64_t at = 0;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t key = k.key(dtype<T>(), x.get(), i);
      want.above += key > high;
      want.at_high += key == high;
      want.at_low += key == low && low != high;
      if (key <= low || key >= high) continue;
      require(at < found && inside[at] == key, "keys inside a bracket");
      ++at;
    }
    require(at == found, "how many keys are inside a bracket");
    require(got.above == want.above && got.at_high == want.at_high && got.at_low == want.at_low,
            "keys outside a bracket");
  }
}

}  // namespace

void check_magnitudes(Isa isa) {
  for (const int64_t n : {1, 63, 64, 65, 200})  // groups of 64
    for_dtypes([&](auto t) {
      using T = decltype(t);
      say("magnitude_threshold: %s, %ld", name_of(dtype<T>()), static_cast<long>(n));
      check_dtype<T>(magnitude_kernels(isa), n);
    });
}

}  // namespace synops::sanitize
