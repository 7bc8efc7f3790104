// The kernels of esn.inc, and the weight that they read, against plain loops.
#include "spiking/esn.h"

#include <cmath>
#include <vector>

#include "sanitize/checks.h"
#include "sanitize/samples.h"
#include "sparse/slab.h"

namespace synops::sanitize {
namespace {

double squashed(Squash squash, double v) {
  if (squash == Squash::kTanh) return std::tanh(v);
  return squash == Squash::kRelu ? std::max(v, 0.0) : v;
}

template <class A>
void require_state(A got, const Sum& sum, Squash squash, double leak, double x) {
  const double want = (1 - leak) * x + leak * squashed(squash, sum.value);
  const double eps = std::numeric_limits<A>::epsilon();
  const double error = std::abs(static_cast<double>(got) - want);
  require(error <= eps * ((sum.terms + 8.0) * sum.magnitude + 8 * std::abs(x) + 8), "state");
}

// A step from the states x, for each of the sequences u; dense: the input weight, row by row.
template <class A>
struct Step {
  Step(const Sample& s, int64_t batch, int64_t inputs)
      : values(random<A>(s.csr.nnz)),
        dense(random<A>(s.csr.rows * inputs)),
        bias(random<A>(s.csr.rows)),
        leak(random<A>(s.csr.rows)),
        x(Dense<A>::random(batch, s.csr.rows)),
        u(Dense<A>::random(batch, inputs)),
        sums(batch * s.csr.rows) {
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t n = 0; n < s.csr.rows; ++n) {
        Sum& sum = sums[b * s.csr.rows + n];
        sum.add(bias[n]);
        for (int64_t k = 0; k < inputs; ++k)
          sum.add(static_cast<double>(dense[n * inputs + k]) * u.at(b, k));
      }
      s.for_entries([&](int64_t n, int64_t k, int64_t j) {
        sums[b * s.csr.rows + n].add(static_cast<double>(values[j]) * x.at(b, k));
      });
    }
  }
  Exact<A> values, dense, bias, leak;
  Dense<A> x, u;
  std::vector<Sum> sums;
};

// One sequence, by groups of rows; the weight lies in a buffer of exactly its size.
template <class A>
void check_alone(Isa isa, const Sample& s, int64_t inputs, Squash squash) {
  const Step<A> step(s, 1, inputs);
  const int64_t rows = s.csr.rows;
  Scratch order(places_bytes(rows));
  const Places places = places_of(rows, inputs, s.csr.crow, nullptr, s.blocks, order);
  const InterleavedSize size = interleaved_size(places, s.csr.crow, inputs, sizeof(A));
  Scratch packed(size.bytes);
  const Interleaved w =
      interleave<A>(places, s.csr, 0, step.values.get(), step.dense.get(), inputs, size, packed);
  const Exact<A> bias(places.count()), leak(places.count()), next(places.size());
  const Exact<A> z(places.size());
  for (int64_t p = 0; p < places.count(); ++p) {
    const bool held = p < rows;
    bias[p] = held ? step.bias[places.row_of[p]] : A(0);
    leak[p] = held ? step.leak[places.row_of[p]] : A(0);
    z[p] = held ? step.x.at(0, places.row_of[p]) : A(0);
  }
  for (int64_t k = 0; k < inputs; ++k) z[places.count() + k] = step.u.at(0, k);
  z[places.zero()] = A(0);
  const EsnKernels& kernels = esn_kernels(isa);
  const int64_t half = places.groups / 2;
  kernels.sums(dtype<A>(), w, z.get(), bias.get(), next.get(), 0, half);
  kernels.sums(dtype<A>(), w, z.get(), bias.get(), next.get(), half, places.groups);
  kernels.update(dtype<A>(), squash, leak.get(), z.get(), next.get(), places.count());
  for (int64_t p = 0; p < rows; ++p) {
    const int64_t n = places.row_of[p];
    require(places.place_of[n] == p, "places");
    require_state(next[p], step.sums[n], squash, step.leak[n], step.x.at(0, n));
  }
}

// `vectors` of sequences, feature-major.
template <class A>
void check_together(Isa isa, const Sample& s, int64_t inputs, Squash squash, int64_t vectors) {
  const SlabKernels& slabs = slab_kernels(isa);
  const int64_t width = vectors * slabs.lanes(dtype<A>()), rows = s.csr.rows;
  const Step<A> step(s, width, inputs);
  const Exact<A> values(s.csr.nnz), state(rows * width), input(inputs * width), next(rows * width);
  const Exact<int32_t> at(rows);
  slabs.arrange(dtype<A>(), step.values.get(), s.csr.crow, s.by_rows, 0, s.by_rows.tiles, at.get(),
                values.get());
  slabs.pack(step.x.view(), 0, rows, state.get(), width);
  slabs.pack(step.u.view(), 0, inputs, input.get(), width);
  esn_kernels(isa).slab_step(
      dtype<A>(), {s.by_rows, values.get(), step.dense.get(), inputs, step.bias.get(),
                   step.leak.get(), squash, width, state.get(), input.get(), next.get()});
  for (int64_t n = 0; n < rows; ++n)
    for (int64_t b = 0; b < width; ++b)
      require_state(next[n * width + b], step.sums[b * rows + n], squash, step.leak[n],
                    step.x.at(b, n));
}

}  // namespace

void check_esn(Isa isa) {
  struct Case {
    int64_t rows;
    double density;
    RowBlocks blocks;
    int64_t tiles;
  };
  int64_t turn = 0;
  for (const Case& c :
       {Case{1, 1, {}, 0}, Case{23, 0.3, {}, 0}, Case{40, 0, {}, 0}, Case{70, 0.4, {}, 3},
        Case{64, 0.3, {16, 1}, 0}, Case{64, 0.3, {32, 2}, 2}}) {
    const Sample s(c.rows, c.rows, c.density, c.blocks, c.tiles, isa);
    for (const Squash squash : {Squash::kTanh, Squash::kRelu, Squash::kIdentity}) {
      const int64_t inputs = turn++ % 3;
      say("esn: %ld rows, %ld inputs, squash %d", static_cast<long>(c.rows),
          static_cast<long>(inputs), static_cast<int>(squash));
      check_alone<float>(isa, s, inputs, squash);
      check_alone<double>(isa, s, inputs, squash);
      check_together<float>(isa, s, inputs, squash, 1 + turn % 2);
      check_together<double>(isa, s, inputs, squash, 2 - turn % 2);
    }
  }
}

}  // namespace synops::sanitize
