// The kernels of hopfield_retrieve.inc against plain loops. (Its products are attention's.)
#include "hebbian/hopfield_retrieve.h"
#include "sanitize/checks.h"
#include "sanitize/samples.h"

namespace synops::sanitize {
namespace {

template <class T>
void check_dtype(int64_t size, Isa isa) {
  const HopfieldKernels& k = hopfield_kernels(isa);
  const Exact<T> before = random<T>(size), after = random<T>(size);
  Exact<T> grad = random<T>(size);
  double norm = 0, apart = 0, dot = 0;
  std::vector<double> want(size);
  for (int64_t i = 0; i < size; ++i) {
    const double x = static_cast<double>(before[i]), y = static_cast<double>(after[i]);
    const double g = static_cast<double>(grad[i]);
    norm += x * x / 2, apart += (y - x) * (y - x), dot += x * g;
    want[i] = g + 0.5 * x;
  }
  const double far = sizeof(T) == 8 ? 1e-12 : 1e-5;
  const auto near = [&](double got, double exact, double off, const char* what) {
    require(std::abs(got - exact) <= off * (1 + std::abs(exact)), what);
  };
  double half_norm = -1, change = -1;
  k.step(dtype<T>(), before.get(), after.get(), size, &half_norm, &change);
  near(half_norm, norm, far, "half the squared norm");
  near(change, std::sqrt(apart), far, "the change");
  k.step(dtype<T>(), before.get(), nullptr, size, &half_norm, &change);
  near(half_norm, norm, far, "half the squared norm alone");
  near(change, 0, 0, "no change");
  near(k.pass(dtype<T>(), before.get(), size, 0.5, grad.get()), dot, far, "the product");
  for (int64_t i = 0; i < size; ++i)
    near(static_cast<double>(grad[i]), want[i], sizeof(T) == 2 ? 1e-2 : far, "the gradient");
}

}  // namespace

void check_hopfield(Isa isa) {
  // Around vectors of 2 to 16 numbers.
  for (const int64_t size : {1, 2, 3, 7, 8, 15, 16, 17, 64, 100})
    for_dtypes([&](auto t) {
      using T = decltype(t);
      say("hopfield: %s, size %ld", name_of(dtype<T>()), static_cast<long>(size));
      check_dtype<T>(size, isa);
    });
}

}  // namespace synops::sanitize
