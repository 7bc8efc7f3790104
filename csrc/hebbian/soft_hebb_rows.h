// Rows of the weight of soft_hebb in the arithmetic type. Included by .inc files only.
#pragma once

#include <algorithm>

#include "common/vec.h"
#include "hebbian/soft_hebb.h"

namespace synops::CPU_CAPABILITY::soft {

template <class A>
inline A lane_sum(const Vec<A>& v) {
  A lanes[kLanes<A>];
  v.store(lanes);
  for (int width = kLanes<A> / 2; width > 0; width /= 2)
    for (int k = 0; k < width; ++k) lanes[k] += lanes[k + width];
  return lanes[0];
}

// Columns [first, first + count) of a row in the arithmetic type: where they are, or in `room`.
template <class T>
inline const Acc<T>* entries(const SoftWeight& w, int64_t row, int64_t first, int64_t count,
                             Acc<T>* room) {
  using A = Acc<T>;
  const int64_t at = row * w.in + first;
  const T* const p = static_cast<const T*>(w.data) + at;
  if constexpr (std::is_same_v<T, A>)
    if (w.mask == nullptr) return p;
  for (int64_t k = 0; k < count; k += kLanes<A>) {
    const int64_t width = std::min<int64_t>(kLanes<A>, count - k);
    store<A>(load<A>(p + k, width), room + k, width);
  }
  if (w.mask != nullptr)
    for (int64_t k = 0; k < count; ++k)
      if (w.mask[at + k] == 0) room[k] = A(0);
  return room;
}

}  // namespace synops::CPU_CAPABILITY::soft
