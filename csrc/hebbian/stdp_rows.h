// Rows of a weight through many steps of stdp. Included by stdp.inc only.
//
// An entry is changed by the spikes of its row and of its column alone, so a row goes through all
// steps while it lies in L1, and the weight passes memory once for all of them. What a step costs a
// row is its own spikes (a multiply-add for each column and sample: 16 columns in 2 cycles) and
// those of the columns, which rows that do not fire themselves take four at a time. In a single
// step the floor is the caches: a line read and written for each touched entry, some 20 us for the
// 21,000 of 1024 x 1024 at 2 %, which lie in L3.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/inline.h"
#include "common/vec.h"
#include "hebbian/bounds.h"
#include "hebbian/stdp.h"

namespace synops::CPU_CAPABILITY {
namespace {

// The steps of one row, as a type to hold what is constant over them.
template <class T, bool kSoft, bool kTraced>
class RowSteps {
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

 public:
  RowSteps(const StdpSteps& s, StdpTerm* terms, void* sums)
      : s_(s), pot_(terms), dep_(terms + s.samples), sums_(static_cast<A*>(sums)) {}

  bool run(int64_t begin, int64_t end) {
    int64_t o = begin;
    if (s_.crow == nullptr && fits_together())
      for (; o + kTogether <= end; o += kTogether) together(o, end);
    for (; o < end; ++o) {
      T* const w = row_of(o);
      if (count_ == 0) continue;
      for (int64_t t = 0; t < s_.steps; ++t) step(w, o, t);
    }
    return good_ && finite_.all() && off_ == A(0);
  }

 private:
  // Rows that take the events of a step side by side. One by one each row ends in a branch that is
  // not foreseen, and waits for its own entries: 1024 x 1024 at 2 %, 20 us against 50.
  static constexpr int kTogether = 4;

  // One step needs no cache to keep the rows; over many they must not push each other out of L1.
  bool fits_together() const {
    constexpr int64_t kMost = 24 << 10;
    return !kTraced && (s_.steps == 1 || kTogether * s_.columns * int64_t{sizeof(T)} <= kMost);
  }

  // All steps of rows o, o + 1, .. o + kTogether - 1.
  void together(int64_t o, int64_t end) {
    T* const w = static_cast<T*>(s_.weight) + o * s_.columns;
    const int64_t ahead = o + 2 * kTogether <= end ? kTogether * s_.columns : 0;
    for (int64_t t = 0; t < s_.steps; ++t) {
      const int64_t count = s_.events[t].count;
      if (count != StdpEvents::kEvery && silent(o, t)) {
        if (count != 0) by_events<kTogether>(w, o, t, t == 0 ? ahead : 0);
      } else {
        for (int r = 0; r < kTogether; ++r) step(row_of(o + r), o + r, t);
      }
    }
  }

  // Whether none of these rows fires in step t.
  bool silent(int64_t o, int64_t t) const {
    const A* drive = static_cast<const A*>(s_.potentiate) + t * s_.samples * s_.rows + o;
    bool none = true;
    for (int64_t b = 0; b < s_.samples; ++b, drive += s_.rows)
      for (int r = 0; r < kTogether; ++r) none &= drive[r] == A(0);
    return none;
  }

  // The entries of row o, which first_ and count_ tell from here on.
  T* row_of(int64_t o) {
    first_ = s_.crow == nullptr ? o * s_.columns : s_.crow[o];
    count_ = s_.crow == nullptr ? s_.columns : s_.crow[o + 1] - first_;
    return static_cast<T*>(s_.weight) + first_;
  }

  // Rows of the columns' arrays `from`, with the factors of row o that are not 0.
  int64_t collect(const void* factors, const void* from, int64_t o, int64_t t, A lr,
                  StdpTerm* terms) const {
    int64_t n = 0;
    for (int64_t b = 0; b < s_.samples; ++b) {
      const int64_t at = t * s_.samples + b;
      const A by = static_cast<const A*>(factors)[at * s_.rows + o];
      if (by != A(0)) terms[n++] = {static_cast<const A*>(from) + at * s_.columns, by * lr};
    }
    return n;
  }

  void step(T* w, int64_t o, int64_t t) {
    const A lr = static_cast<const A*>(s_.lr)[o];
    // With an eligibility it is the eligibility that the rate multiplies.
    const A of_terms = kTraced ? A(1) : lr;
    pots_ = collect(s_.potentiate, s_.trace, o, t, of_terms, pot_);
    if (!kTraced && pots_ == 0 && s_.events[t].count != StdpEvents::kEvery) {
      if (s_.events[t].count != 0) by_events<1>(w, o, t, 0);
      return;
    }
    const A gain = kTraced ? lr * static_cast<const A*>(s_.reward)[t] : A(1);
    const StdpEvents& e = s_.events[t];
    const bool summed = !kTraced && s_.samples > 1 && e.count != StdpEvents::kEvery;
    if (summed) {  // samples that fire are few: their sum, in place of a row for each
      for_events<1>(o, t,
                    [&](int64_t j, const A* by, const A* value) { sums_[j] = by[0] * value[0]; });
      dep_[0] = {sums_, A(1)}, deps_ = 1;
    } else {
      deps_ = collect(s_.depressed, s_.depress, o, t, of_terms, dep_);
    }
    s_.crow == nullptr ? all_columns(w, t, gain) : by_entries(w, t, gain);
    if (summed)
      for (int64_t k = 0; k < e.count; ++k) sums_[e.column[k]] = A(0);
  }

  static A changed(A w, A pot, A dep, A lower, A upper) {
    const A v = kSoft ? w + (pot * (upper - w) - dep * (w - lower)) : (w + pot) - dep;
    return std::min(std::max(v, lower), upper);
  }

  // f(column, by, value) for the columns that fire in a step: by[r] value[r] is what depresses
  // that column of row o + r.
  template <int R, class F>
  SYNOPS_INLINE void for_events(int64_t o, int64_t t, const F& f) const {
    const StdpEvents e = s_.events[t];
    const int64_t rows = s_.rows;
    const A* const lr = static_cast<const A*>(s_.lr) + o;
    const A* const trace = static_cast<const A*>(s_.depressed) + t * s_.samples * rows + o;
    const A* const values = static_cast<const A*>(e.value);
    A by[R], value[R];
    if (s_.samples == 1) {
      for (int r = 0; r < R; ++r) by[r] = trace[r] * lr[r];
      for (int64_t k = 0; k < e.count; ++k) {
        for (int r = 0; r < R; ++r) value[r] = values[k];
        f(int64_t{e.column[k]}, by, value);
      }
      return;
    }
    for (int r = 0; r < R; ++r) by[r] = lr[r];
    for (int64_t k = 0; k < e.count; ++k) {
      for (int r = 0; r < R; ++r) value[r] = A(0);
      for (int64_t i = e.ptr[k]; i < e.ptr[k + 1]; ++i)
        for (int r = 0; r < R; ++r)
          value[r] = plus_product(value[r], trace[e.sample[i] * rows + r], values[i]);
      f(int64_t{e.column[k]}, by, value);
    }
  }

  // A step in which none of R rows fires. The lines that the same columns touch `ahead` elements
  // on are fetched meanwhile: they lie apart, and no hardware sees them coming.
  template <int R>
  void by_events(T* w, int64_t o, int64_t t, int64_t ahead) {
    const int64_t columns = s_.columns;
    const A *const lower = static_cast<const A*>(s_.lower), *const upper =
                                                                static_cast<const A*>(s_.upper);
    A off[R] = {};  // v - v is 0, or NaN for ever
    const auto run = [&](const auto& bounds) SYNOPS_INLINE_LAMBDA {
      for_events<R>(o, t, [&](int64_t j, const A* by, const A* value) SYNOPS_INLINE_LAMBDA {
        const auto [least, most] = bounds(j);
        for (int r = 0; r < R; ++r) {
          T* const at = w + r * columns + j;
          __builtin_prefetch(at + ahead, 0, 2);
          const A old = static_cast<A>(*at);
          A v = kSoft ? plus_product(old, -(by[r] * value[r]), old - least)
                      : plus_product(old, -by[r], value[r]);
          v = std::min(std::max(v, least), most);
          *at = static_cast<T>(v);
          const A now = static_cast<A>(*at);
          off[r] += now - now;
        }
      });
    };
    if (s_.uniform) {
      const std::pair<A, A> all(lower[0], upper[0]);
      run([&](int64_t) { return all; });
    } else {
      run([&](int64_t j) { return std::pair<A, A>(lower[j], upper[j]); });
    }
    for (int r = 0; r < R; ++r) off_ += off[r];
  }

  // x + y z, rounded in one way whatever stands around it: what R rows take together has the bits
  // of what each takes alone.
  static A plus_product(A x, A y, A z) {
#if defined(__FP_FAST_FMAF) && defined(__FP_FAST_FMA)
    return std::fma(y, z, x);
#else
    return x + y * z;
#endif
  }

  // All columns of a row; without a batch there is one term at most on each side.
  void all_columns(T* w, int64_t t, A gain) {
    if (kTraced || pots_ > 1 || deps_ > 1 || pots_ + deps_ == 0)
      whole<kMany, kMany>(w, t, gain);
    else if (pots_ == 0)
      whole<0, 1>(w, t, gain);
    else
      deps_ == 0 ? whole<1, 0>(w, t, gain) : whole<1, 1>(w, t, gain);
  }

  static constexpr int kMany = -1;

  template <int kPots, int kDeps>
  void whole(T* w, int64_t t, A gain) {
    constexpr bool kRowFires = kPots > 0;
    const int64_t count = count_, pots = kPots == kMany ? pots_ : kPots,
                  deps = kDeps == kMany ? deps_ : kDeps;
    const A* const touched = static_cast<const A*>(s_.touched) + t * s_.columns;
    A* const e = kTraced ? static_cast<A*>(s_.eligibility) + first_ : nullptr;
    const A *const lowers = static_cast<const A*>(s_.lower), *const uppers =
                                                                 static_cast<const A*>(s_.upper);
    const StdpTerm *const pot = pot_, *const dep = dep_;
    const StdpTerm one_pot = kPots == 1 ? pot[0] : StdpTerm{},
                   one_dep = kDeps == 1 ? dep[0] : StdpTerm{};
    const Vec<A> zero(A(0)), decay(static_cast<A>(s_.decay)), by(gain);
    const Vec<A> least(lowers[0]), most(uppers[0]);
    const bool uniform = s_.uniform, all = kTraced || kRowFires || pots > 0;
    Finite<T> finite;
    const auto columns = [&](int64_t j, int64_t n) SYNOPS_INLINE_LAMBDA {
      const Vec<A> old = load<A>(w + j, n);
      const Vec<A> lower = uniform ? least : load<A>(lowers + j, n);
      const Vec<A> upper = uniform ? most : load<A>(uppers + j, n);
      Vec<A> v = kSoft || kTraced ? zero : old, less = zero;
      const auto raise = [&](const StdpTerm& x) SYNOPS_INLINE_LAMBDA {
        v = at::vec::fmadd(row(x, j, n), times(x), v);
      };
      const auto lessen = [&](const StdpTerm& x) SYNOPS_INLINE_LAMBDA {
        if constexpr (kSoft)
          less = at::vec::fmadd(row(x, j, n), times(x), less);
        else
          v = at::vec::fnmadd(row(x, j, n), times(x), v);
      };
      if constexpr (kPots == 1) raise(one_pot);
      if constexpr (kPots == kMany)
        for (int64_t i = 0; i < pots; ++i) raise(pot[i]);
      if constexpr (kDeps == 1) lessen(one_dep);
      if constexpr (kDeps == kMany)
        for (int64_t i = 0; i < deps; ++i) lessen(dep[i]);
      if constexpr (kSoft) v = v * (upper - old) - less * (old - lower);
      if constexpr (kTraced) {
        v = at::vec::fmadd(load<A>(e + j, n), decay, v);
        store<A>(v, e + j, n);
        v = v * by;
      }
      if constexpr (kSoft || kTraced) v = old + v;
      v = clamped(v, lower, upper);
      if (!all) {
        const Vec<A> kept = load<A>(touched + j, n) == zero;
        finite.see(Vec<A>::blendv(v, zero, kept));
        v = Vec<A>::blendv(v, old, kept);
      } else {
        finite.see(v);
      }
      store<A>(v, w + j, n);
    };
    int64_t j = 0;
    for (; j + L <= count; j += L) columns(j, L);
    if (j < count) columns(j, count - j);
    finite_.see(finite);
  }

  // The entries of a compressed row.
  void by_entries(T* w, int64_t t, A gain) {
    const A* const touched = static_cast<const A*>(s_.touched) + t * s_.columns;
    A* const e = kTraced ? static_cast<A*>(s_.eligibility) + first_ : nullptr;
    const int32_t* const col = s_.col + first_;
    for (int64_t p = 0; p < count_; ++p) {
      const int64_t j = col[p];
      if (!kTraced && pots_ == 0 && touched[j] == A(0)) continue;
      A pot(0), dep(0);
      for (int64_t i = 0; i < pots_; ++i)
        pot += static_cast<A>(pot_[i].by) * static_cast<const A*>(pot_[i].row)[j];
      for (int64_t i = 0; i < deps_; ++i)
        dep += static_cast<A>(dep_[i].by) * static_cast<const A*>(dep_[i].row)[j];
      const A old = static_cast<A>(w[p]);
      const A lower = static_cast<const A*>(s_.lower)[j],
              upper = static_cast<const A*>(s_.upper)[j];
      if constexpr (!kTraced) {
        w[p] = static_cast<T>(changed(old, pot, dep, lower, upper));
      } else {
        const A change = kSoft ? pot * (upper - old) - dep * (old - lower) : pot - dep;
        e[p] = e[p] * static_cast<A>(s_.decay) + change;
        w[p] = static_cast<T>(std::min(std::max(old + e[p] * gain, lower), upper));
      }
      good_ &= std::isfinite(static_cast<A>(w[p]));
    }
  }

  static Vec<A> row(const StdpTerm& term, int64_t j, int64_t n) {
    return load<A>(static_cast<const A*>(term.row) + j, n);
  }
  static Vec<A> times(const StdpTerm& term) { return Vec<A>(static_cast<A>(term.by)); }

  const StdpSteps& s_;
  StdpTerm *pot_, *dep_;
  A* sums_;
  int64_t pots_ = 0, deps_ = 0, first_ = 0, count_ = 0;
  Finite<T> finite_;
  A off_ = A(0);
  bool good_ = true;
};

}  // namespace
}  // namespace synops::CPU_CAPABILITY
