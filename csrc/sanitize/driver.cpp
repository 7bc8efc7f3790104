// Runs the raw-pointer kernels on buffers of exactly the right size, so that AddressSanitizer sees
// every element read or written outside, and compares with plain loops. Built and run by run.sh,
// once per instruction set; no Python in the process.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <utility>
#include <vector>

// clang-format off
#include "common/arrays.inc"
#include "sparse/pattern.inc"
#include "sparse/sparse_linear.inc"
// clang-format on

namespace synops {
namespace {

namespace isa = CPU_CAPABILITY;
std::mt19937 rng(0);

double uniform() { return std::uniform_real_distribution<double>(-1, 1)(rng); }

void require(bool good, const char* what, int64_t b, int64_t in, int64_t out, double density) {
  if (good) return;
  std::fprintf(stderr, "wrong: %s at batch %ld, in %ld, out %ld, density %g\n", what, b, in, out,
               density);
  std::exit(1);
}

// A heap block of exactly n elements: one past the end is poisoned. Null when empty, as a tensor's.
template <class T>
struct Exact {
  explicit Exact(int64_t n) : data(n == 0 ? nullptr : new T[n]) {}
  T& operator[](int64_t i) { return data[i]; }
  T* get() { return data.get(); }
  std::unique_ptr<T[]> data;
};

struct Indexed {
  Indexed(int64_t rows, int64_t cols, double density)
      : mask(rows * cols), crow(rows + 1), tiles(0), nnz(0) {
    for (int64_t i = 0; i < rows * cols; ++i) mask[i] = (uniform() + 1) / 2 < density;
    Exact<int32_t> counts(rows);
    isa::pattern_table.count(mask.get(), cols, 0, rows, counts.get());
    crow[0] = 0;
    for (int64_t n = 0; n < rows; ++n) crow[n + 1] = crow[n] + counts[n];
    nnz = crow[rows];
    tiles = tiles_of(rows, cols, nnz);
    col = std::make_unique<Exact<int32_t>>(nnz);
    isa::pattern_table.fill(mask.get(), cols, 0, rows, crow.get(), col->get());
    ptr = std::make_unique<Exact<int32_t>>((tiles + 1) * rows);
    isa::pattern_table.tile(crow.get(), col->get(), rows, tiles, ptr->get());
  }
  Exact<uint8_t> mask;
  Exact<int32_t> crow;
  std::unique_ptr<Exact<int32_t>> col, ptr;
  int64_t tiles, nnz;
};

template <class T>
DType dtype() {
  if constexpr (std::is_same_v<T, double>) return DType::kFloat64;
  if constexpr (std::is_same_v<T, c10::BFloat16>) return DType::kBFloat16;
  if constexpr (std::is_same_v<T, c10::Half>) return DType::kFloat16;
  return DType::kFloat32;
}

template <class T>
void products(int64_t batch, int64_t in, int64_t out, double density) {
  using A = isa::Acc<T>;
  const auto& k = isa::sparse_linear_table;
  const double tolerance = sizeof(T) == 2 ? 0.05 * std::sqrt(in + 1.0) : 1e-4;
  Indexed w(out, in, density);
  const Compressed rows{w.ptr->get(), w.col->get(), out, w.tiles, w.nnz};
  Exact<A> values(w.nnz), grad(w.nnz);
  Exact<T> x(batch * in), g(batch * out), y(batch * out), bias(out);
  for (int64_t j = 0; j < w.nnz; ++j) values[j] = static_cast<A>(uniform());
  for (int64_t i = 0; i < batch * in; ++i) x[i] = static_cast<T>(uniform());
  for (int64_t i = 0; i < batch * out; ++i) g[i] = static_cast<T>(uniform());
  for (int64_t i = 0; i < out; ++i) bias[i] = static_cast<T>(uniform());

  const auto check = [&](const char* what) {
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t n = 0; n < out; ++n) {
        double want = static_cast<double>(bias[n]);
        for (int32_t j = w.crow[n]; j < w.crow[n + 1]; ++j)
          want += values[j] * static_cast<double>(x[b * in + (*w.col)[j]]);
        const double got = static_cast<double>(y[b * out + n]);
        require(std::abs(got - want) <= tolerance, what, batch, in, out, density);
        y[b * out + n] = static_cast<T>(NAN);
      }
  };
  const Matrix mx{dtype<T>(), x.get(), in, batch}, my{dtype<T>(), y.get(), out, batch},
      mg{dtype<T>(), g.get(), out, batch};
  k.spmv(rows, values.get(), mx, bias.get(), my, 0, out);
  check("spmv");
  for (int64_t most : {1, 2, 4}) {
    const int64_t width = k.width(dtype<T>(), batch, most);
    if (width < batch) continue;  // one block is enough here
    Exact<A> slab(in * width), g_slab(out * width), partial((out + 16) * width);
    k.pack(mx, 0, in, slab.get(), width);
    k.pack(mg, 0, out, g_slab.get(), width);
    k.spmm(rows, values.get(), slab.get(), width, bias.get(), my, 0, out, partial.get());
    check("spmm");
    k.sddmm(dtype<T>(), rows, g_slab.get(), slab.get(), width, grad.get(), 0, out, false);
    Exact<A> sums(out);
    k.row_sums(dtype<T>(), g_slab.get(), width, sums.get(), 0, out, false);
    for (int64_t n = 0; n < out; ++n) {
      double total = 0;
      for (int64_t b = 0; b < batch; ++b) total += static_cast<double>(g[b * out + n]);
      require(std::abs(total - sums[n]) <= 1e-3, "row_sums", batch, in, out, density);
      for (int32_t j = w.crow[n]; j < w.crow[n + 1]; ++j) {
        double want = 0;
        for (int64_t b = 0; b < batch; ++b)
          want +=
              static_cast<double>(g[b * out + n]) * static_cast<double>(x[b * in + (*w.col)[j]]);
        require(std::abs(grad[j] - want) <= 1e-3, "sddmm", batch, in, out, density);
      }
    }
  }
  Exact<A> grad_bias(out);
  k.outer(rows, mg, mx, grad.get(), grad_bias.get(), 0, out);
}

template <class T>
void dense_and_back(int64_t in, int64_t out, double density) {
  const auto& k = isa::pattern_table;
  Indexed w(out, in, density);
  Exact<int32_t> ccol(in + 1), row(w.nnz), perm(w.nnz);
  k.transpose(w.crow.get(), w.col->get(), out, in, ccol.get(), row.get(), perm.get());
  for (int64_t c = 0; c < in; ++c)
    for (int32_t j = ccol[c]; j < ccol[c + 1]; ++j)
      require((*w.col)[perm[j]] == c && w.mask[row[j] * in + c], "transpose", 0, in, out, density);
  require(k.first_unsorted(w.crow.get(), w.col->get(), out, in) == -1, "sorted", 0, in, out,
          density);
  Exact<T> weight(out * in), values(w.nnz), back(out * in);
  for (int64_t i = 0; i < out * in; ++i) weight[i] = static_cast<T>(uniform());
  const int32_t* end = w.crow.get() + 1;
  k.gather(dtype<T>(), weight.get(), in, w.crow.get(), end, w.col->get(), 0, out, values.get());
  k.scatter(dtype<T>(), values.get(), in, w.crow.get(), end, w.col->get(), 0, out, back.get());
  for (int64_t i = 0; i < out * in; ++i)
    require(static_cast<double>(back[i]) == (w.mask[i] ? static_cast<double>(weight[i]) : 0.0),
            "scatter", 0, in, out, density);
  Exact<isa::Acc<T>> wide(w.nnz);
  require(isa::array_table.permute(dtype<T>(), values.get(), perm.get(), w.nnz, wide.get()),
          "permute", 0, in, out, density);
  for (int32_t bad : {-1, static_cast<int32_t>(w.nnz)}) {
    if (w.nnz == 0) break;
    const int32_t good = std::exchange(perm[0], bad);
    require(!isa::array_table.permute(dtype<T>(), values.get(), perm.get(), w.nnz, wide.get()),
            "permute out of range", 0, in, out, density);
    perm[0] = good;
  }
  isa::array_table.widen(dtype<T>(), values.get(), w.nnz, wide.get());
  isa::array_table.narrow(dtype<T>(), wide.get(), w.nnz, values.get());
  require(isa::array_table.in_range(perm.get(), w.nnz, 0, static_cast<int32_t>(w.nnz)), "range", 0,
          in, out, density);
}

template <class T>
void all() {
  // 1: no full vector; 15, 17, 33: around the lanes; 193 and 400: two and three tiles.
  for (double density : {0.0, 0.02, 0.5, 1.0})
    for (int64_t in : {1, 15, 17, 193, 400})
      for (int64_t out : {1, 16, 33}) {
        dense_and_back<T>(in, out, density);
        for (int64_t batch : {1, 3, 16, 31, 64}) products<T>(batch, in, out, density);
      }
}

}  // namespace
}  // namespace synops

int main() {
  synops::all<float>();
  synops::all<double>();
  synops::all<c10::BFloat16>();
  synops::all<c10::Half>();
  std::puts("sanitize: ok");
}
