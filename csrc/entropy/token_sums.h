// Sums over rows of logits, and the statistics that follow from them. Included by .inc files only.
#pragma once

#include <algorithm>

#include "common/exponential.h"
#include "entropy/token_stats.h"

namespace synops::CPU_CAPABILITY {
namespace {

template <class A>
constexpr A kNone = -std::numeric_limits<A>::infinity();

// Vectors of sums, and what they do to a logit.
template <class A, bool All>
struct Sums {
  Vec<A> p{A(0)}, py{A(0)}, pyy{A(0)}, pp{A(0)}, ppy{A(0)};

  void add(Vec<A> y) {
    const Vec<A> power = exp2_at_most_1<A>(y);
    p = p + power;
    py = at::vec::fmadd(power, y, py);
    if constexpr (All) {
      const Vec<A> moment = power * y;
      pyy = at::vec::fmadd(moment, y, pyy);
      pp = at::vec::fmadd(power, power, pp);
      ppy = at::vec::fmadd(power, moment, ppy);
    }
  }
};

template <class A>
double sum_of(const Vec<A>& v) {
  return at::vec::vec_reduce_all<A>([](Vec<A> a, Vec<A> b) { return a + b; }, v);
}

// One vector of logits; from `count` on they are -inf.
template <class A, class T>
inline Vec<A> logits_of(const T* x, int64_t count) {
  return Vec<A>::set(Vec<A>(kNone<A>), load<A>(x, count), count);
}

// The largest of them; NaN is not seen.
template <class A, class T>
A max_of(const T* x, int64_t n) {
  constexpr int L = kLanes<A>;
  Vec<A> most[4] = {Vec<A>(kNone<A>), Vec<A>(kNone<A>), Vec<A>(kNone<A>), Vec<A>(kNone<A>)};
  int64_t k = 0;
  for (; k + 4 * L <= n; k += 4 * L)
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) most[q] = at::vec::clamp_min(most[q], load<A>(x + k + q * L));
  for (; k < n; k += L)
    most[0] = at::vec::clamp_min(most[0], logits_of<A>(x + k, std::min<int64_t>(L, n - k)));
  A lanes[L];
  at::vec::clamp_min(at::vec::clamp_min(most[0], most[1]), at::vec::clamp_min(most[2], most[3]))
      .store(lanes);
  return *std::max_element(lanes, lanes + L);
}

// What a row's sums say, all in vectors: a row a lane. Writes `count` of them from row `row` on.
template <class A>
struct Rows {
  Vec<A> max, p, py, pyy, pp, ppy;
  Vec<A> label{A(0)};    // logit of the label
  Vec<A> counted{A(0)};  // 0 where there is none or it is ignored

  void write(double scale, int64_t row, int64_t count, const TokenOutputs& out) const {
    const Vec<A> zero(A(0)), none(kNone<A>), ln2(static_cast<A>(kLn2)), one(A(1));
    const Vec<A> empty = p == zero;  // every logit is -inf
    const Vec<A> inverse = one / Vec<A>::blendv(p, one, empty);
    const Vec<A> log_sum = Vec<A>::blendv(p, one, empty).log();
    const Vec<A> mean = py * inverse * ln2;
    const auto put = [&](void* to, const Vec<A>& v) {
      if (to != nullptr) store<A>(v, static_cast<A*>(to) + row, count);
    };
    const auto or_zero = [&](const Vec<A>& v) { return Vec<A>::blendv(v, zero, empty); };
    const Vec<A> by(static_cast<A>(scale));
    const Vec<A> logprob = Vec<A>::blendv((label - max) * by - log_sum, none, label == none);
    put(out.logprob, Vec<A>::blendv(logprob, zero, counted == zero));
    // clamp_min leaves NaN alone
    put(out.entropy, at::vec::clamp_min(log_sum - mean, zero));
    put(out.varentropy, at::vec::clamp_min(pyy * inverse * ln2 * ln2 - mean * mean, zero));
    put(out.lse, max * by + log_sum);
    put(out.max_prob, or_zero(inverse));
    put(out.collision, or_zero(pp * inverse * inverse));
    put(out.plogp2, or_zero((ppy * ln2 - log_sum * pp) * inverse * inverse));
    put(out.max_logit, max);
  }
};

template <class F>
void with(bool all, F&& f) {
  all ? f(std::true_type{}) : f(std::false_type{});
}

}  // namespace
}  // namespace synops::CPU_CAPABILITY
