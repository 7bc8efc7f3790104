// What ends every update of a weight: the clamp to its bounds, entries that are left alone, and
// whether a number that is not finite came out. Included by .inc files only.
#pragma once

#include <algorithm>
#include <limits>

#include "common/vec.h"

namespace synops::CPU_CAPABILITY {

// lower <= v <= upper, lane by lane; a NaN stays one.
template <class A>
inline Vec<A> clamped(const Vec<A>& v, const Vec<A>& lower, const Vec<A>& upper) {
  return at::vec::clamp(v, lower, upper);
}

// `now` in the lanes whose flag is set, `before` in the others; `count` flags are read.
template <class A>
inline Vec<A> where_set(const uint8_t* flags, int64_t count, const Vec<A>& now,
                        const Vec<A>& before) {
  constexpr int L = kLanes<A>;
  A set[L] = {};
  for (int64_t l = 0; l < count; ++l) set[l] = flags[l] != 0 ? A(1) : A(0);
  return Vec<A>::blendv(before, now, Vec<A>::loadu(set) != Vec<A>(A(0)));
}

// Whether all numbers seen so far are finite once they are rounded to T. Two additions a vector (in
// other units than the multiply-adds around them): v - v is 0, or NaN for ever. Half precision
// overflows at its own largest number.
template <class T>
class Finite {
  using A = Acc<T>;

 public:
  void see(const Vec<A>& v) {
    if constexpr (std::is_same_v<T, A>)
      zero_ = zero_ + (v - v);
    else  // counts the others
      zero_ = zero_ + Vec<A>::blendv(Vec<A>(A(1)), Vec<A>(A(0)), v.abs() < Vec<A>(kLimit));
  }
  void see(const Finite& other) { zero_ = zero_ + other.zero_; }
  bool all() const {
    A lanes[kLanes<A>];
    zero_.store(lanes);
    return std::all_of(lanes, lanes + kLanes<A>, [](A v) { return v == A(0); });
  }

 private:
  // The smallest number that is rounded to infinity.
  static constexpr A kLimit = std::is_same_v<T, c10::Half> ? A(65520) : A(0x1.FFp127f);
  Vec<A> zero_{A(0)};
};

}  // namespace synops::CPU_CAPABILITY
