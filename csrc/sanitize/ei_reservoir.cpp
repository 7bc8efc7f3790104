// The kernels of ei_reservoir.inc against plain loops.
#include "spiking/ei_reservoir.h"

#include <cmath>
#include <vector>

#include "sanitize/checks.h"
#include "sanitize/samples.h"

namespace synops::sanitize {
namespace {

// Two steps from a state by place, the second after the inhibition was moved, and a move.
template <class A>
void check_steps(Isa isa, const Sample& e, const Sample& i, int64_t inputs, bool moves) {
  const int64_t rows = e.csr.rows;
  Scratch order(places_bytes(rows));
  const Places places = places_of(rows, inputs, i.csr.crow, e.csr.crow, {}, order);
  const InterleavedSize of_e = interleaved_size(places, e.csr.crow, inputs, sizeof(A));
  const InterleavedSize of_i = interleaved_size(places, i.csr.crow, 0, sizeof(A));
  Scratch for_e(of_e.bytes), for_i(of_i.bytes);
  const Exact<A> e_values = random<A>(e.csr.nnz), i_values = random<A>(i.csr.nnz);
  const Exact<A> dense = random<A>(rows * inputs);
  for (int64_t j = 0; j < i.csr.nnz; ++j) i_values[j] = std::abs(i_values[j]);
  const Interleaved excitatory =
      interleave<A>(places, e.csr, 0, e_values.get(), dense.get(), inputs, of_e, for_e);
  const Interleaved inhibitory = interleave<A>(places, i.csr, e.csr.cols, i_values.get(),
                                               static_cast<const A*>(nullptr), 0, of_i, for_i);
  const int64_t count = places.count();
  const Exact<A> gain = random<A>(count), threshold = random<A>(count), leak = random<A>(count);
  const Exact<A> target = random<A>(count), by(count), z(places.size()), next(places.size());
  for (int64_t p = 0; p < places.size(); ++p) z[p] = static_cast<A>(uniform());
  z[places.zero()] = A(0);
  const EiKernels& kernels = ei_kernels(isa);
  const double eps = std::numeric_limits<A>::epsilon();
  for (int step = 0; step < 2; ++step) {
    const bool moved = step == 1 && moves;
    std::vector<Sum> sums(rows);
    e.for_entries([&](int64_t n, int64_t k, int64_t j) {
      sums[n].add(static_cast<double>(e_values[j]) * z[places.place_of[k]]);
    });
    for (int64_t n = 0; n < rows; ++n)
      for (int64_t k = 0; k < inputs; ++k)
        sums[n].add(static_cast<double>(dense[n * inputs + k]) * z[count + k]);
    i.for_entries([&](int64_t n, int64_t k, int64_t j) {
      if (moved) i_values[j] = std::max(A(0), i_values[j] + by[places.place_of[n]]);
      sums[n].add(-static_cast<double>(i_values[j]) * z[places.place_of[e.csr.cols + k]]);
    });
    const int64_t half = places.groups / 2;
    const A* const shift = moved ? by.get() : nullptr;
    kernels.sums(dtype<A>(), excitatory, inhibitory, shift, z.get(), next.get(), 0, half);
    kernels.sums(dtype<A>(), excitatory, inhibitory, shift, z.get(), next.get(), half,
                 places.groups);
    for (int64_t n = 0; n < rows; ++n) sums[n].require_near(next[places.place_of[n]], "sum");
    std::vector<double> want(rows);
    for (int64_t p = 0; p < rows; ++p) {
      const double v = static_cast<double>(gain[p]) * (static_cast<double>(next[p]) - threshold[p]);
      want[p] = (1 - static_cast<double>(leak[p])) * z[p] + leak[p] / (1 + std::exp(-v));
    }
    kernels.update(dtype<A>(),
                   {count, gain.get(), threshold.get(), leak.get(), moves ? target.get() : nullptr,
                    0.25, z.get(), next.get(), moves ? by.get() : nullptr});
    for (int64_t p = 0; p < rows; ++p) {
      require(std::abs(static_cast<double>(next[p]) - want[p]) <= 32 * eps * (1 + std::abs(z[p])),
              "rate");
      if (moves) require(by[p] == A(0.25) * (next[p] - target[p]), "move");
    }
    for (int64_t p = 0; p < count; ++p) z[p] = next[p];
  }
  if (!moves) return;
  kernels.move(dtype<A>(), inhibitory, by.get());
  const A* const values = static_cast<const A*>(inhibitory.values);
  i.for_entries([&](int64_t n, int64_t, int64_t j) {
    const int64_t p = places.place_of[n];
    const int64_t at = inhibitory.begin[p / kGroup] + j - i.csr.crow[n];
    require(values[at * kGroup + p % kGroup] == std::max(A(0), i_values[j] + by[p]), "moved");
  });
}

}  // namespace

void check_ei_reservoir(Isa isa) {
  int64_t turn = 0;
  for (const int64_t rows : {1, 8, 21, 50})
    for (const double density : {0.0, 0.3, 1.0}) {
      const int64_t units = turn % 4 == 3 ? rows : rows * 3 / 4;
      const Sample e(rows, units, density, {}, 1, isa), i(rows, rows - units, density, {}, 1, isa);
      say("ei_reservoir: %ld units, %ld excitatory, density %g", static_cast<long>(rows),
          static_cast<long>(units), density);
      check_steps<float>(isa, e, i, turn % 3, turn % 5 != 4);
      check_steps<double>(isa, e, i, turn % 3, turn % 5 != 3);
      ++turn;
    }
}

}  // namespace synops::sanitize
