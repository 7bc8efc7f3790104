// The kernels of unit_stats.inc against plain sums, which in double would be further off than
// theirs.
#include <cmath>

#include "sanitize/checks.h"
#include "sanitize/samples.h"
#include "sparse/unit_stats.h"

namespace synops::sanitize {
namespace {

void require_close(double got, double want, double scale, double eps, const char* what) {
  if (std::abs(got - want) <= 16 * eps * scale) return;
  std::fprintf(stderr, "%s: %s: got %.9g, want %.9g\n", context, what, got, want);
  fail(what);
}

template <class T>
void check_shape(const UnitKernels& k, int64_t rows, int64_t units, int64_t gap) {
  using A = Acc<T>;
  const auto x = Dense<T>::random(rows, units, false, gap);
  const UnitMatrix m = {dtype<T>(), x.memory.get(), x.ld, rows, units};
  const Exact<double> sums(m.pieces() * kUnitSums * units);
  for (int64_t piece = 0; piece < m.pieces(); ++piece)
    for (int64_t u = 0; u < units; u += kUnitSpan)
      k.sum(m, piece, u, std::min(units, u + kUnitSpan), sums.get());
  const Exact<A> magnitude(units), positive(units), mean(units), variance(units);
  void* const out[] = {magnitude.get(), positive.get(), mean.get(), variance.get()};
  k.finish(m, sums.get(), out);
  const double eps = std::numeric_limits<A>::epsilon(), n = static_cast<double>(rows);
  for (int64_t u = 0; u < units; ++u) {
    long double total = 0, size = 0, above = 0, squares = 0;
    for (int64_t b = 0; b < rows; ++b) {
      const long double v = static_cast<double>(x.at(b, u));
      total += v, size += std::abs(v), above += v > 0;
    }
    for (int64_t b = 0; b < rows; ++b) {
      const long double d = static_cast<double>(x.at(b, u)) - total / n;
      squares += d * d;
    }
    const auto per_row = [n](long double sum) { return static_cast<double>(sum / n); };
    require_close(magnitude[u], per_row(size), per_row(size), eps, "mean magnitude");
    require_close(positive[u], per_row(above), 1, eps, "fraction above 0");
    require_close(mean[u], per_row(total), per_row(size), eps, "mean");
    require_close(variance[u], per_row(squares), per_row(squares), eps, "variance");
  }
}

}  // namespace

void check_units(Isa isa) {
  // Blocks of 32 rows, pieces of 1024; one vector with lanes to spare, and each number of vectors.
  for (const int64_t rows : {1, 31, 32, 33, 1025})
    for (const int64_t units : {1, 3, 16, 21, 50, 260})
      for_dtypes([&](auto t) {
        using T = decltype(t);
        say("unit_stats: %s, %ld x %ld", name_of(dtype<T>()), static_cast<long>(rows),
            static_cast<long>(units));
        check_shape<T>(unit_kernels(isa), rows, units, units % 2 == 0 ? 5 : 0);
      });
}

}  // namespace synops::sanitize
