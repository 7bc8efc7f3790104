// What the local rules check on tensors: weights that are written in place, activities, factors,
// bounds. All but the weight comes in the arithmetic type.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <optional>

#include "common/scratch.h"
#include "common/tensor.h"
#include "hebbian/outer_update.h"

namespace synops {

using OptionalTensor = std::optional<Tensor>;

inline ScalarType arithmetic_type(DType dtype) {
  return dtype == DType::kFloat64 ? ScalarType::Double : ScalarType::Float;
}

// A dense tensor of this size, or an undefined one.
inline OptionalTensor optional_vector(const OptionalTensor& t, ScalarType type, int64_t size,
                                      const char* op, const char* name) {
  if (!t.has_value()) return std::nullopt;
  check_tensor(*t, type, 1, op, name);
  check_size(t->size(0), size, op, name, "size 0");
  return dense_of(*t);
}
// The same of size 1 or this one, of any dimension: a number for all, or one for each.
inline OptionalTensor optional_factor(const OptionalTensor& t, ScalarType type, int64_t size,
                                      const char* op, const char* name) {
  if (!t.has_value() || t->dim() == 1) return optional_vector(t, type, size, op, name);
  check_tensor(*t, type, 0, op, name);
  return t;
}
inline Tensor activity(const Tensor& t, ScalarType type, int64_t batch, int64_t units,
                       const char* op, const char* name) {
  check_tensor(t, type, 2, op, name);
  check_size(t.size(0), batch, op, name, "size 0");
  check_size(t.size(1), units, op, name, "size 1");
  return dense_of(t);
}
inline const void* data_of(const OptionalTensor& t) {
  return t.has_value() ? t->const_data_ptr() : nullptr;
}

template <class A>
bool all_finite(const A* p, int64_t n) {
  A zero = 0;
  for (int64_t i = 0; i < n; ++i) zero += p[i] * A(0);
  return zero == A(0);
}
inline bool finite(const OptionalTensor& t) {
  if (!t.has_value()) return true;
  return t->scalar_type() == ScalarType::Double
             ? all_finite(t->const_data_ptr<double>(), t->numel())
             : all_finite(t->const_data_ptr<float>(), t->numel());
}

// out[i] = factor * t[i], or * t, or factor, for n numbers.
inline void fill_factor(const OptionalTensor& t, double factor, int64_t n, DType dtype, void* out) {
  const auto fill = [&](auto* to) {
    using A = std::remove_pointer_t<decltype(to)>;
    const A* from = t.has_value() ? t->const_data_ptr<A>() : nullptr;
    const int64_t step = t.has_value() && t->dim() == 1;
    for (int64_t i = 0; i < n; ++i)
      to[i] = static_cast<A>(factor) * (from == nullptr ? A(1) : from[i * step]);
  };
  dtype == DType::kFloat64 ? fill(static_cast<double*>(out)) : fill(static_cast<float*>(out));
}

// Bounds of each column from those of all and Dale's sign: lower = max(lower, 0) where the sign is
// above 0, upper = min(upper, 0) where it is below.
inline void fill_bounds(double lower, double upper, const OptionalTensor& sign, int64_t cols,
                        DType dtype, void* lowers, void* uppers) {
  const auto fill = [&](auto* lo, auto* hi) {
    using A = std::remove_pointer_t<decltype(lo)>;
    const A* by = sign.has_value() ? sign->const_data_ptr<A>() : nullptr;
    for (int64_t j = 0; j < cols; ++j) {
      const A s = by == nullptr ? A(0) : by[j];
      lo[j] = static_cast<A>(s > 0 ? std::max(lower, 0.0) : lower);
      hi[j] = static_cast<A>(s < 0 ? std::min(upper, 0.0) : upper);
    }
  };
  dtype == DType::kFloat64 ? fill(static_cast<double*>(lowers), static_cast<double*>(uppers))
                           : fill(static_cast<float*>(lowers), static_cast<float*>(uppers));
}

// What is written in place: rows whose elements lie side by side and do not overlap.
inline void check_in_place(const Tensor& w, const char* op) {
  if (w.dim() == 1) {
    STD_TORCH_CHECK(w.is_contiguous(), op, ": weight must be contiguous");
    return;
  }
  const bool rows =
      (w.stride(1) == 1 || w.size(1) <= 1) && (w.stride(0) >= w.size(1) || w.size(0) <= 1);
  STD_TORCH_CHECK(rows, op, ": weight must have rows of contiguous elements");
}

// Bytes from the first element to the end of the last.
inline int64_t reach(const Tensor& t) {
  int64_t last = 0;
  for (int64_t d = 0; d < t.dim(); ++d) {
    if (t.size(d) == 0) return 0;
    last += (t.size(d) - 1) * t.stride(d);
  }
  return (last + 1) * t.element_size();
}
inline bool share_memory(const Tensor& a, const Tensor& b) {
  const auto* const p = static_cast<const char*>(a.const_data_ptr());
  const auto* const q = static_cast<const char*>(b.const_data_ptr());
  return p < q + reach(b) && q < p + reach(a);
}
// Whether `written` shares memory with one of the others.
inline bool shares_memory(const Tensor& written, std::initializer_list<const Tensor*> read,
                          std::initializer_list<const OptionalTensor*> optional) {
  return std::any_of(read.begin(), read.end(),
                     [&](const Tensor* t) { return share_memory(written, *t); }) ||
         std::any_of(optional.begin(), optional.end(), [&](const OptionalTensor* t) {
           return t->has_value() && share_memory(written, **t);
         });
}

inline Tensor scalar_report(int64_t bits) {
  const Tensor out = empty({}, ScalarType::Long);
  *out.mutable_data_ptr<int64_t>() = bits;
  return out;
}

}  // namespace synops
