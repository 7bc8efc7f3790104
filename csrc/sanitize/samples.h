// Random weights and matrices in guarded memory, and what the sums over them must be.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "common/arrays.h"
#include "sanitize/exact.h"
#include "sparse/pattern.h"
#include "sparse/product.h"

namespace synops::sanitize {

// What is being checked, for the message of a failure.
inline char context[256] = "";

template <class... Args>
void say(const char* format, Args... args) {
  std::snprintf(context, sizeof context, format, args...);
}

inline void require(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "%s\n", context);
  fail(what);
}

inline std::mt19937& rng() {
  static std::mt19937 engine(0);
  return engine;
}
inline double uniform() { return std::uniform_real_distribution<double>(-1, 1)(rng()); }

template <class T>
constexpr DType dtype() {
  if constexpr (std::is_same_v<T, double>) return DType::kFloat64;
  if constexpr (std::is_same_v<T, c10::BFloat16>) return DType::kBFloat16;
  if constexpr (std::is_same_v<T, c10::Half>) return DType::kFloat16;
  return DType::kFloat32;
}
template <class T>
using Acc = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class F>
void for_dtypes(F&& f) {
  f(float{});
  f(double{});
  f(c10::BFloat16{});
  f(c10::Half{});
}

inline const char* name_of(DType dtype) {
  static const char* const names[] = {"float32", "float64", "bfloat16", "float16"};
  return names[static_cast<int>(dtype)];
}

template <class T>
Exact<T> random(int64_t n) {
  Exact<T> out(n);
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(uniform());
  return out;
}

// A matrix whose rows (of columns, when feature-major) are `gap` elements further apart than
// needed.
template <class T>
struct Dense {
  Dense(int64_t rows, int64_t cols, bool feature_major = false, int64_t gap = 0)
      : rows(rows),
        cols(cols),
        inner(feature_major ? rows : cols),
        outer(feature_major ? cols : rows),
        ld(inner + gap),
        feature_major(feature_major),
        memory(inner == 0 || outer == 0 ? 0 : (outer - 1) * ld + inner) {}
  static Dense random(int64_t rows, int64_t cols, bool feature_major = false, int64_t gap = 0) {
    Dense out(rows, cols, feature_major, gap);
    for (int64_t b = 0; b < rows; ++b)
      for (int64_t k = 0; k < cols; ++k) out.at(b, k) = static_cast<T>(uniform());
    return out;
  }
  T& at(int64_t b, int64_t k) const { return memory[feature_major ? k * ld + b : b * ld + k]; }
  Matrix view() const { return {dtype<T>(), memory.get(), ld, rows, feature_major}; }
  void require_gaps() const {
    for (int64_t i = 0; i < memory.size(); ++i)
      if (i % ld >= inner) {
        const auto* p = reinterpret_cast<const unsigned char*>(&memory[i]);
        for (size_t byte = 0; byte < sizeof(T); ++byte)
          require(p[byte] == 0xff, "written between rows");
      }
  }

  int64_t rows, cols, inner, outer, ld;
  bool feature_major;
  Exact<T> memory;
};

// A sum and how far from it a result may lie: every one of its terms is rounded at most as often as
// there are terms, and the result once to T.
struct Sum {
  double value = 0, magnitude = 0;
  int64_t terms = 0;

  void add(double term) {
    value += term;
    magnitude += std::abs(term);
    ++terms;
  }
  template <class T>
  void require_near(T got, const char* what) const {
    const double eps_acc = std::numeric_limits<Acc<T>>::epsilon();
    const bool half = dtype<T>() == DType::kFloat16;
    const double eps = half ? 0x1p-10 : sizeof(T) == 2 ? 0x1p-7 : eps_acc;
    const double least = half ? 0x1p-24 : 0;  // of float16: its small numbers are multiples of it
    const double error = std::abs(static_cast<double>(got) - value);
    if (error <= eps_acc * (terms + 8.0) * magnitude + eps * std::abs(value) + least) return;
    std::fprintf(stderr, "%s: %s: got %.9g, want %.9g\n", context, what, static_cast<double>(got),
                 value);
    fail(what);
  }
};

inline double activated(double v, Activation activation) {
  if (activation == Activation::kRelu) return std::max(v, 0.0);
  return activation == Activation::kGelu ? v * 0.5 * (1 + std::erf(v / std::sqrt(2.0))) : v;
}

// A weight in all its forms, made by the kernels of one instruction set (they are checked in
// pattern.cpp). tiles = 0: as many as the rule says.
struct Sample {
  Sample(int64_t rows, int64_t cols, double density, RowBlocks blocks = {}, int64_t tiles = 0,
         Isa isa = active_isa())
      : mask(rows * cols), crow(rows + 1), blocks(blocks) {
    for (int64_t n = 0; n < rows; ++n)
      for (int64_t k = 0; k < cols; ++k) {
        const int64_t first = n / (blocks.rows * blocks.step) * blocks.rows * blocks.step;
        const int64_t of_block = first + (n - first) % blocks.step;
        const bool kept = of_block == n ? (uniform() + 1) / 2 < density : mask[of_block * cols + k];
        mask[n * cols + k] =
            static_cast<uint8_t>(kept ? 1 + rng()() % 255 : 0);  // any byte is true
      }
    const PatternKernels& k = pattern_kernels(isa);
    Exact<int32_t> counts(rows);
    k.count(mask.get(), cols, 0, rows, counts.get());
    crow[0] = 0;
    for (int64_t n = 0; n < rows; ++n) crow[n + 1] = crow[n] + counts[n];
    const int64_t nnz = crow[rows];
    col = Exact<int32_t>(nnz);
    k.fill(mask.get(), cols, 0, rows, crow.get(), col.get());
    csr = {crow.get(), col.get(), rows, cols, nnz};
    const int64_t of_rows = tiles > 0 ? tiles : tiles_of(rows, cols, nnz);
    const int64_t of_cols = tiles > 0 ? tiles : tiles_of(cols, rows, nnz);
    ptr = Exact<int32_t>(of_rows * rows + 1), col_ptr = Exact<int32_t>(of_cols * cols + 1);
    index = Exact<uint16_t>(nnz), row = Exact<uint16_t>(nnz), perm = Exact<int32_t>(nnz);
    k.by_rows(csr, of_rows, ptr.get(), index.get());
    k.by_columns(csr, of_cols, col_ptr.get(), row.get(), perm.get());
    by_rows = {ptr.get(), index.get(), rows, cols, of_rows, nnz};
    by_columns = {col_ptr.get(), row.get(), cols, rows, of_cols, nnz};
    words = (cols + 63) / 64;
    bits = Exact<uint64_t>(rows * words);
    k.bits(csr, 0, rows, words, bits.get());
  }

  Weight weight(bool with_bits) const {
    return {csr, by_rows, blocks, with_bits ? bits.get() : nullptr};
  }
  // f(row, column, position in CSR order)
  template <class F>
  void for_entries(F&& f) const {
    for (int64_t n = 0; n < csr.rows; ++n)
      for (int64_t j = csr.crow[n]; j < csr.crow[n + 1]; ++j) f(n, int64_t{csr.col[j]}, j);
  }
  // (batch, rows): what the product with x must be, before the activation.
  template <class T, class V>
  std::vector<Sum> products(const Dense<T>& x, const Exact<V>& values, const Exact<T>* bias) const {
    std::vector<Sum> want(x.rows * csr.rows);
    for (int64_t b = 0; b < x.rows; ++b) {
      for_entries([&](int64_t n, int64_t k, int64_t j) {
        want[b * csr.rows + n].add(static_cast<double>(values[j]) *
                                   static_cast<double>(x.at(b, k)));
      });
      for (int64_t n = 0; bias != nullptr && n < csr.rows; ++n)
        want[b * csr.rows + n].add(static_cast<double>((*bias)[n]));
    }
    return want;
  }
  // (nnz,): likewise the gradient of the values.
  template <class T>
  std::vector<Sum> outer_sums(const Dense<T>& g, const Dense<T>& x) const {
    std::vector<Sum> want(csr.nnz);
    for_entries([&](int64_t n, int64_t k, int64_t j) {
      for (int64_t b = 0; b < x.rows; ++b)
        want[j].add(static_cast<double>(g.at(b, n)) * static_cast<double>(x.at(b, k)));
    });
    return want;
  }

  Exact<uint8_t> mask;
  Exact<int32_t> crow, col{0}, ptr{0}, col_ptr{0}, perm{0};
  Exact<uint16_t> index{0}, row{0};
  Exact<uint64_t> bits{0};
  RowBlocks blocks;
  Csr csr;
  Tiled by_rows, by_columns;
  int64_t words;
};

// Rows [n0, n1) of out must be the activated sums, those outside untouched.
template <class T>
void require_output(const Dense<T>& out, const std::vector<Sum>& want, Activation activation,
                    int64_t n0, int64_t n1, const char* what) {
  for (int64_t b = 0; b < out.rows; ++b)
    for (int64_t n = 0; n < out.cols; ++n) {
      if (n < n0 || n >= n1) {
        require(std::isnan(static_cast<double>(out.at(b, n))), "written outside the rows");
        continue;
      }
      Sum w = want[b * out.cols + n];
      w.value = activated(w.value, activation);
      w.require_near(out.at(b, n), what);
    }
  out.require_gaps();
}

}  // namespace synops::sanitize
