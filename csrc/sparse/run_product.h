// One row of a compressed weight, or a run of its entries, times a slab. Included by .inc files
// only.
#pragma once

#include "common/vec.h"

namespace synops::CPU_CAPABILITY {

// Entries [j, end) of one run onto acc: V vectors of batch rows.
//
// A chain of multiply-adds has latency 4: with fewer than 4 vectors, several entries go side by
// side into S sums of their own.
template <class A, int V, class I, int S = V >= 4 ? 1 : 4 / V>
inline void run_product(const I* index, const A* values, int64_t j, int64_t end, const A* slab,
                        int64_t ld, Vec<A>* acc) {
  constexpr int L = kLanes<A>;
  Vec<A> side[S][V];
#pragma GCC unroll 8
  for (int s = 0; s < S; ++s)
#pragma GCC unroll 8
    for (int q = 0; q < V; ++q) side[s][q] = s == 0 ? acc[q] : Vec<A>(A(0));
  for (; j + S <= end; j += S)
#pragma GCC unroll 8
    for (int s = 0; s < S; ++s) {
      const Vec<A> w(values[j + s]);
      const A* x = slab + index[j + s] * ld;
#pragma GCC unroll 8
      for (int q = 0; q < V; ++q)
        side[s][q] = at::vec::fmadd(w, Vec<A>::loadu(x + q * L), side[s][q]);
    }
  for (; j < end; ++j) {
    const Vec<A> w(values[j]);
    const A* x = slab + index[j] * ld;
#pragma GCC unroll 8
    for (int q = 0; q < V; ++q)
      side[0][q] = at::vec::fmadd(w, Vec<A>::loadu(x + q * L), side[0][q]);
  }
#pragma GCC unroll 8
  for (int q = 0; q < V; ++q) {
    Vec<A> sum = side[0][q];
#pragma GCC unroll 8
    for (int s = 1; s < S; ++s) sum = sum + side[s][q];
    acc[q] = sum;
  }
}

}  // namespace synops::CPU_CAPABILITY
