// The kernels of slab.inc and sparse_linear.inc against plain loops.
#include <algorithm>

#include "sanitize/checks.h"
#include "sanitize/samples.h"
#include "sparse/slab.h"
#include "sparse/sparse_linear.h"

namespace synops::sanitize {
namespace {

constexpr Activation kActivations[] = {Activation::kNone, Activation::kRelu, Activation::kGelu};

struct Kernels {
  explicit Kernels(Isa isa) : slab(slab_kernels(isa)), linear(sparse_linear_kernels(isa)) {}
  const SlabKernels& slab;
  const SparseLinearKernels& linear;
};

// x as a slab of `width` batch rows, `ld` apart.
template <class T>
Exact<Acc<T>> slab_of(const Dense<T>& x, int64_t width, int64_t ld) {
  Exact<Acc<T>> slab(x.cols == 0 ? 0 : (x.cols - 1) * ld + width);
  for (int64_t k = 0; k < x.cols; ++k)
    for (int64_t b = 0; b < width; ++b)
      slab[k * ld + b] = b < x.rows ? static_cast<Acc<T>>(x.at(b, k)) : Acc<T>(0);
  return slab;
}

template <class T>
void check_pack(const Kernels& k, int64_t batch, int64_t cols, int64_t width, bool turned) {
  const auto x = Dense<T>::random(batch, cols, turned, 3);
  const Exact<Acc<T>> slab(cols * width), want = slab_of(x, width, width);
  const int64_t middle = std::min<int64_t>(cols, 16);  // where threads may divide a slab
  k.slab.pack(x.view(), middle, cols, slab.get(), width);
  k.slab.pack(x.view(), 0, middle, slab.get(), width);
  for (int64_t i = 0; i < slab.size(); ++i) require(slab[i] == want[i], "pack");
}

template <class T>
void check_write(const Kernels& k, int64_t batch, int64_t cols, int64_t width, bool turned) {
  const int64_t lanes = k.slab.lanes(dtype<T>());
  const auto bias = random<T>(cols);
  for (const int64_t n0 : {int64_t{0}, std::min<int64_t>(cols, 16)})
    for (const Activation activation : kActivations) {
      const bool shift = (activation == Activation::kRelu) == (n0 == 0);
      const int64_t room = (cols - n0 + lanes - 1) / lanes * lanes;
      const Exact<Acc<T>> slab(room * width);
      const Dense<T> out(batch, cols, turned, 5);
      std::vector<Sum> want(batch * cols);
      for (int64_t n = n0; n < cols; ++n)
        for (int64_t b = 0; b < width; ++b) {
          slab[(n - n0) * width + b] = static_cast<Acc<T>>(uniform());
          if (b >= batch) continue;
          want[b * cols + n].add(slab[(n - n0) * width + b]);
          if (shift) want[b * cols + n].add(static_cast<double>(bias[n]));
        }
      k.slab.write(slab.get(), width, {shift ? bias.get() : nullptr, activation}, out.view(), n0,
                   cols);
      require_output(out, want, activation, n0, cols, "write");
    }
}

template <class A>
void check_row_sums(const Kernels& k, int64_t rows, int64_t width, int64_t ld) {
  const auto slab = random<A>(rows == 0 ? 0 : (rows - 1) * ld + width);
  const Exact<A> out(rows);
  std::vector<Sum> want(rows);
  for (const bool accumulate : {false, true}) {
    for (int64_t n = 0; n < rows; ++n)
      for (int64_t b = 0; b < width; ++b) want[n].add(slab[n * ld + b]);
    const int64_t middle = std::min<int64_t>(rows, 16);
    k.slab.row_sums(dtype<A>(), slab.get(), width, ld, out.get(), 0, middle, accumulate);
    k.slab.row_sums(dtype<A>(), slab.get(), width, ld, out.get(), middle, rows, accumulate);
    for (int64_t n = 0; n < rows; ++n) want[n].require_near(out[n], "row_sums");
  }
}

// f(first tile, last tile) in two parts, the later one first: as threads may go.
template <class F>
void for_tiles(const Tiled& w, F&& f) {
  f(w.tiles / 2, w.tiles);
  f(int64_t{0}, w.tiles / 2);
}

template <class T>
Exact<Acc<T>> arranged(const Kernels& k, const Sample& w, const Exact<T>& values) {
  Exact<Acc<T>> out(w.csr.nnz);
  const Exact<int32_t> at(w.csr.rows);
  for_tiles(w.by_rows, [&](int64_t t0, int64_t t1) {
    k.slab.arrange(dtype<T>(), values.get(), w.csr.crow, w.by_rows, t0, t1, at.get(), out.get());
  });
  return out;
}

template <class T>
void check_products(const Kernels& k, const Sample& w, int64_t batch, int64_t vectors) {
  using A = Acc<T>;
  const int64_t out = w.csr.rows, width = vectors * k.slab.lanes(dtype<T>());
  const auto values = random<T>(w.csr.nnz), bias = random<T>(out);
  const auto x = Dense<T>::random(batch, w.csr.cols), g = Dense<T>::random(batch, out);
  const Exact<A> in_tiles = arranged(k, w, values), wide(w.csr.nnz);
  for (int64_t j = 0; j < w.csr.nnz; ++j) wide[j] = static_cast<A>(values[j]);
  const auto want = w.products(x, values, &bias);
  const int64_t middle = std::min<int64_t>(out, 32);
  const int64_t ranges[][2] = {{0, middle}, {middle, out}, {0, out}};
  for (const int64_t gap : {0, 7}) {
    const int64_t ld = width + gap;
    const auto slab = slab_of(x, width, ld), g_slab = slab_of(g, width, ld);
    const Slab xs{slab.get(), ld, width}, gs{g_slab.get(), ld, width};
    for (const auto& [n0, n1] : ranges) {
      const Activation activation = kActivations[n1 % 3];
      const Epilogue e{bias.get(), activation};
      const Dense<T> y(batch, out, gap > 0, 2), z(batch, out, gap > 0, 2);
      const Exact<A> partial(partial_rows(w.by_rows, n1 - n0) * width);
      k.linear.spmm(w.by_rows, in_tiles.get(), xs, e, y.view(), n0, n1, partial.get());
      require_output(y, want, activation, n0, n1, "spmm");
      if (vectors > 1) continue;
      require(k.linear.spmm_csr(w.csr, wide.get(), xs, e, z.view(), n0, n1), "spmm_csr refuses");
      require_output(z, want, activation, n0, n1, "spmm_csr");
    }
    if (vectors == 1 && w.csr.nnz > 0)
      for (const int32_t bad : {-1, static_cast<int32_t>(w.csr.cols), INT32_MIN}) {
        const int32_t good = std::exchange(w.col[w.csr.nnz - 1], bad);
        const Dense<T> z(batch, out);
        require(!k.linear.spmm_csr(w.csr, wide.get(), xs, {}, z.view(), 0, out),
                "spmm_csr takes any column");
        w.col[w.csr.nnz - 1] = good;
      }
    const Exact<A> grad(w.csr.nnz);
    const Exact<T> back(w.csr.nnz);
    const Exact<int32_t> at(out);
    auto sums = w.outer_sums(g, x);
    for (const bool accumulate : {false, true}) {
      for (int i = 1; i >= 0; --i)
        k.linear.sddmm(dtype<T>(), w.by_rows, gs, xs, grad.get(), ranges[i][0], ranges[i][1],
                       accumulate);
      for_tiles(w.by_rows, [&](int64_t t0, int64_t t1) {
        k.slab.restore(dtype<T>(), grad.get(), w.csr.crow, w.by_rows, t0, t1, at.get(), back.get());
      });
      for (int64_t j = 0; j < w.csr.nnz; ++j) {
        Sum sum = sums[j];
        if (accumulate) sum.value *= 2, sum.magnitude *= 2;
        sum.require_near(back[j], "sddmm");
      }
    }
  }
}

template <class T>
void check_dtype(const Kernels& k) {
  const int64_t lanes = k.slab.lanes(dtype<T>());
  for (const int64_t vectors : {1, 2, 4, 8}) {
    const int64_t width = vectors * lanes;
    // 1: no full vector; 15 to 17, 33: around the lanes of any set.
    for (const int64_t cols : {0, 1, 16, 17, 40})
      for (const int64_t batch : {int64_t{1}, lanes, width - 1, width})
        for (const bool turned : {false, true}) {
          say("slab of %s, %ld lanes: batch %ld, %ld columns, width %ld%s", name_of(dtype<T>()),
              static_cast<long>(lanes), static_cast<long>(batch), static_cast<long>(cols),
              static_cast<long>(width), turned ? ", feature-major" : "");
          check_pack<T>(k, batch, cols, width, turned);
          check_write<T>(k, batch, cols, width, turned);
          check_row_sums<Acc<T>>(k, cols, width, width + (turned ? 3 : 0));
        }
  }
  const auto products = [&](int64_t in, int64_t out, double density, int64_t tiles) {
    const Sample w(out, in, density, {}, tiles);
    for (const int64_t vectors : {1, 2, 4, 8}) {
      const int64_t batch = vectors * lanes - (in + out) % lanes;
      say("%s, %ld lanes, %ld vectors: batch %ld, in %ld, out %ld, density %g, %ld tiles",
          name_of(dtype<T>()), static_cast<long>(lanes), static_cast<long>(vectors),
          static_cast<long>(batch), static_cast<long>(in), static_cast<long>(out), density,
          static_cast<long>(w.by_rows.tiles));
      check_products<T>(k, w, batch, vectors);
    }
  };
  // Runs of 0, 1, less than, exactly and more than a vector; tiles of 128 and 256 and their
  // neighbours; more tiles than columns (tiles without any).
  for (const double density : {0.05, 0.4, 1.0})
    for (const int64_t in : {1, 16, 129})
      for (const int64_t out : {1, 33}) products(in, out, density, 0);
  products(50, 40, 0, 0);
  products(257, 20, 0.06, 0);
  products(40, 20, 0.3, 5);
  products(129, 1100, 0.2, 0);   // more rows than wait for their last tile
  products(1030, 40, 0.01, 3);   // sparser than the rule would split
  products(70000, 2, 0.001, 0);  // more columns than 16 bits count
}

}  // namespace

void check_slabs(Isa isa) {
  const Kernels k(isa);
  for_dtypes([&](auto t) { check_dtype<decltype(t)>(k); });
}

}  // namespace synops::sanitize
