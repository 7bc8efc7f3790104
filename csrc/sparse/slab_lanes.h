// Packing and writing in registers, tile by tile of lanes x lanes. Included by .inc files only.
#pragma once

#include <algorithm>

#include "common/vec.h"
#include "sparse/formats.h"

namespace synops::CPU_CAPABILITY {

template <class T>
void pack_rows(const Matrix& x, int64_t k0, int64_t k1, Acc<T>* slab, int64_t width) {
  using A = Acc<T>;
  constexpr int L = kLanes<A>;
  const T* data = static_cast<const T*>(x.data);
  for (int64_t b = 0; b < width; b += L) {
    const int rows = static_cast<int>(std::clamp<int64_t>(x.rows - b, 0, L));
    for (int64_t k = k0; k < k1; k += L) {
      const int cols = static_cast<int>(std::min<int64_t>(L, k1 - k));
      A* out = slab + k * width + b;
      const T* in = data + b * x.ld + k;
      Vec<A> v[L];
      if (rows == L && cols == L) {
        if (k + 3 * L <= k1)  // more streams than the hardware prefetcher follows
#pragma GCC unroll 16
          for (int i = 0; i < L; ++i) __builtin_prefetch(in + i * x.ld + 2 * L);
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) v[i] = load<A>(in + i * x.ld);
      } else {
        for (int i = 0; i < L; ++i) v[i] = i < rows ? load<A>(in + i * x.ld, cols) : Vec<A>(A(0));
      }
      transpose_lanes<A>(v);
      if (cols == L) {
#pragma GCC unroll 16
        for (int j = 0; j < L; ++j) v[j].store(out + j * width);
      } else {
        for (int j = 0; j < cols; ++j) v[j].store(out + j * width);
      }
    }
  }
}

template <class T>
void pack_columns(const Matrix& x, int64_t k0, int64_t k1, Acc<T>* slab, int64_t width) {
  using A = Acc<T>;
  constexpr int L = kLanes<A>;
  const T* data = static_cast<const T*>(x.data);
  for (int64_t k = k0; k < k1; ++k)
    for (int64_t b = 0; b < width; b += L) {
      const int64_t count = std::clamp<int64_t>(x.rows - b, 0, L);
      const Vec<A> v = count > 0 ? load<A>(data + k * x.ld + b, count) : Vec<A>(A(0));
      v.store(slab + k * width + b);
    }
}

template <class A>
inline Vec<A> activate(const Vec<A>& v, Activation activation) {
  switch (activation) {
    case Activation::kRelu:
      return at::vec::maximum(v, Vec<A>(A(0)));  // a NaN stays one
    case Activation::kGelu:
      return v * Vec<A>(A(0.5)) * (Vec<A>(A(1)) + (v * Vec<A>(A(0.70710678118654752440))).erf());
    default:
      return v;
  }
}

// partial[i][0 .. width) for `count` (at most kLanes) columns -> out[b, n .. n + count)
template <class T>
inline void write_rows(const Acc<T>* partial, int64_t width, const Epilogue& e, const Matrix& out,
                       int64_t n, int count, bool ahead) {
  using A = Acc<T>;
  constexpr int L = kLanes<A>;
  const T* bias = static_cast<const T*>(e.bias);
  if (out.feature_major) {
    for (int i = 0; i < count; ++i) {
      const Vec<A> shift(bias == nullptr ? A(0) : static_cast<A>(bias[n + i]));
      T* o = static_cast<T*>(out.data) + (n + i) * out.ld;
      for (int64_t b = 0; b < out.rows; b += L)
        store<A>(activate<A>(Vec<A>::loadu(partial + i * width + b) + shift, e.activation), o + b,
                 std::min<int64_t>(L, out.rows - b));
    }
    return;
  }
  const Vec<A> shift = bias == nullptr ? Vec<A>(A(0)) : load<A>(bias + n, count);
  for (int64_t b = 0; b < out.rows; b += L) {
    const int rows = static_cast<int>(std::min<int64_t>(L, out.rows - b));
    T* o = static_cast<T*>(out.data) + b * out.ld + n;
    Vec<A> v[L];
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) v[i] = Vec<A>::loadu(partial + i * width + b);
    transpose_lanes<A>(v);
    if (e.activation != Activation::kNone)
      for (int i = 0; i < rows; ++i)
        store<A>(activate<A>(v[i] + shift, e.activation), o + i * out.ld, count);
    else if (rows == L && count == L) {
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) store<A>(v[i] + shift, o + i * out.ld);
      if (ahead)  // its lines all fall into one L1 set when rows are 4 KB apart
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) __builtin_prefetch(o + i * out.ld + L, 1);
    } else {
      for (int i = 0; i < rows; ++i) store<A>(v[i] + shift, o + i * out.ld, count);
    }
  }
}

}  // namespace synops::CPU_CAPABILITY
