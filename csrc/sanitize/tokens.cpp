// The kernels of token_stats.inc and token_stats_backward.inc against plain loops.
#include <algorithm>
#include <cmath>
#include <vector>

#include "entropy/token_stats.h"
#include "sanitize/checks.h"
#include "sanitize/samples.h"

namespace synops::sanitize {
namespace {

constexpr double kNone = -std::numeric_limits<double>::infinity();
constexpr int64_t kIgnored = -100;

void require_close(double got, double want, double tolerance, const char* what) {
  const bool good = got == want || std::abs(got - want) <= tolerance * (1 + std::abs(want));
  if (!good) std::fprintf(stderr, "%s: %g, not %g\n", what, got, want);
  require(good, what);
}

// What a row of logits must give, in double.
struct Row {
  double max = kNone, sum = 0, log_sum = 0;
  double logprob = kNone, entropy = 0, varentropy = 0, collision = 0, plogp2 = 0;
  std::vector<double> p, log_p;

  Row(const std::vector<double>& x, double scale, int64_t label) {
    for (double v : x) max = std::max(max, v);
    for (double v : x) sum += v == kNone ? 0 : std::exp((v - max) * scale);
    log_sum = sum > 0 ? std::log(sum) : 0;
    for (double v : x) {
      log_p.push_back(v == kNone ? 0 : (v - max) * scale - log_sum);
      p.push_back(v == kNone ? 0 : std::exp(log_p.back()));
      entropy -= p.back() * log_p.back();
      collision += p.back() * p.back();
      plogp2 += p.back() * p.back() * log_p.back();
    }
    for (size_t k = 0; k < x.size(); ++k)
      varentropy += p[k] * (log_p[k] + entropy) * (log_p[k] + entropy);
    if (label >= 0 && x[label] != kNone) logprob = log_p[label];
    if (label == kIgnored) logprob = 0;
  }
};

template <class T>
void check_dtype(Isa isa, int64_t rows, int64_t n, double scale) {
  const TokenStatsKernels& k = token_stats_kernels(isa);
  using A = Acc<T>;
  const double tolerance = sizeof(A) == 8 ? 1e-12 : 2e-5;
  const Dense<T> x(rows, n, false, 3);
  const Exact<int64_t> labels(rows);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < n; ++i) x.at(r, i) = static_cast<T>(uniform() * 4 + 20);
    labels[r] = r % 4 == 3 ? kIgnored : r % n;
    if (r % 5 == 1)  // half of it masked, or all
      for (int64_t i = 0; i < n; i += r % 2 + 1) x.at(r, i) = static_cast<T>(kNone);
  }
  std::vector<Row> want;
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<double> row;
    for (int64_t i = 0; i < n; ++i) row.push_back(static_cast<double>(x.at(r, i)));
    want.emplace_back(row, scale, labels[r]);
  }
  const Labels y{labels.get(), kIgnored};
  std::vector<Exact<A>> columns;
  for (int i = 0; i < 8; ++i) columns.emplace_back(rows);
  const TokenOutputs out{columns[0].get(), columns[1].get(), columns[2].get(), columns[3].get(),
                         columns[4].get(), columns[5].get(), columns[6].get(), columns[7].get()};
  const auto row = [&](int64_t r) { return static_cast<void*>(&x.at(r, 0)); };
  if (n <= kShortRow) {
    k.short_rows(dtype<T>(), row(0), x.ld, n, rows, scale, true, y, 0, out);
  } else {
    for (int64_t r = 0; r < rows; ++r) {
      Moments whole, piece;  // in two pieces
      const int64_t middle = n / 3;
      k.moments(dtype<T>(), row(r), middle, scale, true, &whole);
      k.moments(dtype<T>(), &x.at(r, middle), n - middle, scale, true, &piece);
      whole.add(piece, scale);
      k.finish(dtype<T>(), row(r), whole, scale, y, r, out);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    const Row& w = want[r];
    const double lse = w.max == kNone ? kNone : w.max * scale + w.log_sum;
    const double all[] = {w.logprob,   w.entropy, w.varentropy, lse, w.sum > 0 ? 1 / w.sum : 0,
                          w.collision, w.plogp2,  w.max};
    for (int i = 0; i < 8; ++i) require_close(columns[i][r], all[i], tolerance, "statistics");
  }
  // Every gradient at once, and entropy and logprob alone; beside the logits, then over them.
  const Exact<A> g = random<A>(rows), v = random<A>(rows);
  for (const bool all : {true, false}) {
    const TokenSaved saved{columns[7].get(), columns[4].get(),
                           columns[1].get(), columns[2].get(),
                           columns[5].get(), g.get(),
                           g.get(),          all ? v.get() : nullptr,
                           v.get(),          all ? g.get() : nullptr};
    const Dense<T> grad(rows, n, false, 1);
    const Exact<int64_t> counted(rows);
    for (int64_t r = 0; r < rows; ++r) counted[r] = want[r].logprob == kNone ? kIgnored : labels[r];
    const int64_t middle = n / 2;
    const auto run = [&](void* to, int64_t step) {
      for (const auto& [from, end] : {std::pair{middle, n}, std::pair{int64_t{0}, middle}})
        if (from < end)
          token_stats_gradient_kernels(isa).backward(dtype<T>(), {row(0), x.ld, 0, rows, from, end},
                                                     scale, {counted.get(), kIgnored}, saved,
                                                     {to, step, 0, rows, from, end});
    };
    run(grad.memory.get(), grad.ld);
    grad.require_gaps();
    const double eps = sizeof(T) == 2 ? 0x1p-7 : tolerance;
    for (int64_t r = 0; r < rows; ++r) {
      const Row& w = want[r];
      const bool counts = labels[r] >= 0 && w.logprob != kNone;
      const double of_logprob = counts ? g[r] : 0, of_v = all ? v[r] : 0, of_c = all ? g[r] : 0;
      for (int64_t i = 0; i < n; ++i) {
        const double u = w.log_p[i] + w.entropy, p = w.p[i];
        const double slope = v[r] - of_logprob - g[r] * u + of_v * (u * u + 2 * u - w.varentropy) +
                             2 * of_c * (p - w.collision);
        const double add = counts && labels[r] == i ? of_logprob : 0;
        require_close(grad.at(r, i), scale * (p * slope + add), 4 * eps, "gradient");
      }
    }
    if (!all) {
      run(row(0), x.ld);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < n; ++i) require(x.at(r, i) == grad.at(r, i), "gradient in place");
    }
  }
}

}  // namespace

void check_tokens(Isa isa) {
  // Lanes, the longest row that is turned, blocks and pieces of a row: on and past their edges.
  for (const int64_t n : {1, 2, 15, 16, 17, 64, 65, 256, 257, 2049, 4500})
    for (const int64_t rows : {1, 18})
      for_dtypes([&](auto t) {
        using T = decltype(t);
        say("token_stats: %s, %ld x %ld", name_of(dtype<T>()), static_cast<long>(rows),
            static_cast<long>(n));
        check_dtype<T>(isa, rows, n, 0.7);
      });
}

}  // namespace synops::sanitize
