// The kernels of few_rows.inc against plain loops.
#include "sparse/few_rows.h"

#include <algorithm>

#include "sanitize/checks.h"
#include "sanitize/samples.h"

namespace synops::sanitize {
namespace {

// The values in the order of w: entry i of it lies at CSR position at(i).
template <class T>
Exact<Acc<T>> widened(const Exact<T>& values, const std::vector<int64_t>& order) {
  Exact<Acc<T>> out(values.size());
  for (int64_t i = 0; i < values.size(); ++i) out[i] = static_cast<Acc<T>>(values[order[i]]);
  return out;
}

// CSR position of each entry in the order of the tiles.
std::vector<int64_t> order_of(const Sample& w) {
  std::vector<int64_t> at(w.crow.get(), w.crow.get() + w.csr.rows), order;
  for (int64_t t = 0; t < w.by_rows.tiles; ++t)
    for (int64_t n = 0; n < w.csr.rows; ++n)
      for (int64_t i = w.by_rows.first(t, n); i < w.by_rows.first(t, n + 1); ++i)
        order.push_back(at[n]++);
  return order;
}

template <class T>
void check_bits(const FewRowsKernels& k, const Sample& w, const Dense<T>& x, const Epilogue& e,
                const Exact<Acc<T>>& values, const std::vector<Sum>& want, int64_t n0, int64_t n1) {
  if (dtype<T>() != DType::kFloat32 || k.spmv_bits == nullptr) return;
  const Dense<T> y(x.rows, w.csr.rows, false, 3);
  require(k.spmv_bits(w.csr, w.bits.get(), w.words, values.get(), x.view(), e, y.view(), n0, n1),
          "spmv_bits refuses");
  require_output(y, want, e.activation, n0, n1, "spmv_bits");
  if (n0 == n1 || w.csr.cols == 0) return;
  // A bit more than there are entries, or fewer.
  w.bits[n0 * w.words] ^= 1;
  require(!k.spmv_bits(w.csr, w.bits.get(), w.words, values.get(), x.view(), e, y.view(), n0, n1),
          "spmv_bits takes any bits");
  w.bits[n0 * w.words] ^= 1;
}

template <class T>
void check_dtype(const FewRowsKernels& k, const Sample& w, int64_t batch) {
  using A = Acc<T>;
  const int64_t out = w.csr.rows;
  const auto values = random<T>(w.csr.nnz), bias = random<T>(out);
  auto x = Dense<T>::random(batch, w.csr.cols, false, 1);
  const auto g = Dense<T>::random(batch, out, false, 2);
  const Exact<A> tiled = widened(values, order_of(w)), wide(w.csr.nnz);
  for (int64_t j = 0; j < w.csr.nnz; ++j) wide[j] = static_cast<A>(values[j]);
  const int64_t middle = std::min<int64_t>(out, 5);
  const int64_t ranges[][2] = {{middle, out}, {0, middle}};
  // Columns without an entry are not part of any sum, whatever they hold.
  std::vector<bool> used(w.csr.cols);
  w.for_entries([&](int64_t, int64_t c, int64_t) { used[c] = true; });
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t c = 0; c < w.csr.cols; ++c)
      if (!used[c]) x.at(b, c) = static_cast<T>(NAN);
  const auto want = w.products(x, values, &bias);
  for (const bool turned : {false, true})
    for (const Activation activation : {Activation::kNone, Activation::kRelu, Activation::kGelu})
      for (const auto& [n0, n1] : ranges) {
        const Epilogue e{bias.get(), activation};
        const Dense<T> y(batch, out, turned, 3), z(batch, out, turned, 3);
        require(k.spmv(w.csr, wide.get(), x.view(), e, y.view(), n0, n1), "spmv refuses");
        require_output(y, want, activation, n0, n1, "spmv");
        k.spmv_tiled(w.by_rows, tiled.get(), x.view(), e, z.view(), n0, n1);
        require_output(z, want, activation, n0, n1, "spmv_tiled");
        check_bits(k, w, x, e, wide, want, n0, n1);
      }
  if (w.csr.nnz > 0)
    for (const int32_t bad : {-1, static_cast<int32_t>(w.csr.cols), INT32_MIN}) {
      const int32_t good = std::exchange(w.col[w.csr.nnz / 2], bad);
      const Dense<T> y(batch, out);
      require(!k.spmv(w.csr, wide.get(), x.view(), {}, y.view(), 0, out), "spmv takes any column");
      w.col[w.csr.nnz / 2] = good;
    }
  const auto sums = w.outer_sums(g, x);
  for (const int which : {1, 2, 3}) {
    const Exact<A> grad((which & 1) != 0 ? w.csr.nnz : 0), grad_bias((which & 2) != 0 ? out : 0);
    for (const auto& [n0, n1] : ranges)
      k.outer(w.csr, g.view(), x.view(), grad.get(), grad_bias.get(), n0, n1);
    for (int64_t j = 0; j < grad.size() && batch > 0; ++j) sums[j].require_near(grad[j], "outer");
    for (int64_t n = 0; n < grad_bias.size(); ++n) {
      Sum total;
      for (int64_t b = 0; b < batch; ++b) total.add(static_cast<double>(g.at(b, n)));
      total.require_near(grad_bias[n], "outer: bias");
    }
  }
}

}  // namespace

void check_few_rows(Isa isa) {
  const FewRowsKernels& k = few_rows_kernels(isa);
  const auto check = [&](int64_t in, int64_t out, double density, int64_t tiles) {
    const Sample w(out, in, density, {}, tiles);
    for (const int64_t batch : {0, 1, 2, 3})
      for_dtypes([&](auto t) {
        using T = decltype(t);
        say("few rows: %s, batch %ld, in %ld, out %ld, density %g, %ld tiles", name_of(dtype<T>()),
            static_cast<long>(batch), static_cast<long>(in), static_cast<long>(out), density,
            static_cast<long>(w.by_rows.tiles));
        check_dtype<T>(k, w, batch);
      });
  };
  // 4 and 16 entries at a time; 16 and 64: columns of a piece and of a word of bits.
  for (const double density : {0.0, 0.1, 0.6, 1.0})
    for (const int64_t in : {0, 1, 15, 16, 17, 63, 64, 65, 100, 200})
      for (const int64_t out : {1, 9}) check(in, out, density, 0);
  check(40, 7, 0.5, 5);
  check(70000, 3, 0.002, 0);
}

}  // namespace synops::sanitize
