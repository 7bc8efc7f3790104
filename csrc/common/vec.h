// What the kernels share on top of at::vec: element types, loads with conversion, tile transposes
// and sums over lanes. Included by .inc files only, so it is compiled once per instruction set.
#pragma once

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/dtype.h"

namespace synops::CPU_CAPABILITY {

// Arithmetic is float32, except float64 for float64.
template <class T>
using Acc = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class A>
using Vec = at::vec::Vectorized<A>;

template <class A>
constexpr int kLanes = Vec<A>::size();

// Calls f with a value of the C++ type of `dtype`.
template <class F>
auto visit_dtype(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kFloat64: return f(double{});
    case DType::kBFloat16: return f(c10::BFloat16{});
    case DType::kFloat16: return f(c10::Half{});
    default: return f(float{});
  }
}

// One vector of A from count <= kLanes elements of T; the other lanes are 0.
template <class A, class T>
inline Vec<A> load(const T* p, int64_t count = kLanes<A>) {
  if constexpr (std::is_same_v<T, A>) {
    return count == kLanes<A> ? Vec<A>::loadu(p) : Vec<A>::loadu(p, count);
  } else {
    Vec<A> out;
    if (count == kLanes<A>) {
      at::vec::load_to_float<T>(p, out);
    } else {
      T padded[kLanes<A>] = {};
      std::memcpy(padded, p, count * sizeof(T));
      at::vec::load_to_float<T>(padded, out);
    }
    return out;
  }
}

template <class A, class T>
inline void store(const Vec<A>& v, T* p, int64_t count = kLanes<A>) {
  if constexpr (std::is_same_v<T, A>) {
    count == kLanes<A> ? v.store(p) : v.store(p, count);
  } else {
    // convert_from_float packs two vectors of float into one of T; only the first half is ours.
    T packed[2 * kLanes<A>];
    at::vec::convert_from_float<T>(v, v).store(packed);
    std::memcpy(p, packed, count * sizeof(T));
  }
}

// dst[j][i] = src[i][j] for i < rows, j < cols, both at most kLanes.
template <class A>
inline void transpose_tile(const A* src, int64_t ld_src, A* dst, int64_t ld_dst, int rows, int cols) {
  constexpr int L = kLanes<A>;
  if constexpr (std::is_same_v<A, float> && L >= 8) {
    if (rows == L && cols == L) {
      at::vec::transpose_mxn<float, L, L>(src, ld_src, dst, ld_dst);
      return;
    }
  }
  for (int j = 0; j < cols; ++j)
    for (int i = 0; i < rows; ++i) dst[j * ld_dst + i] = src[i * ld_src + j];
}

// out[i] = sum over lanes of v[i], for kLanes vectors. The tree adds halves, so the order of the
// additions is fixed and every lane is added once.
template <class A>
inline Vec<A> sum_lanes(Vec<A>* v) {
  constexpr int L = kLanes<A>;
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<A, float>) {
    // 30 shuffles and 15 additions, against 64 shuffles and 15 additions for a full transpose.
    // Pairs of vectors, then pairs of pairs, inside each 128-bit quarter; then across quarters.
    __m512 a[8], b[4], c[2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i)
      a[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]),
                           _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m512d x = _mm512_castps_pd(a[2 * i]), y = _mm512_castps_pd(a[2 * i + 1]);
      b[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                           _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i)
      c[i] = _mm512_add_ps(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x88),
                           _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(c[0], c[1], 0x88),
                         _mm512_shuffle_f32x4(c[0], c[1], 0xdd));
  }
#elif defined(CPU_CAPABILITY_AVX2)
  if constexpr (std::is_same_v<A, float>) {
    __m256 a[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) a[i] = _mm256_hadd_ps(v[2 * i], v[2 * i + 1]);
    const __m256 lo = _mm256_hadd_ps(a[0], a[1]);
    const __m256 hi = _mm256_hadd_ps(a[2], a[3]);
    return _mm256_add_ps(_mm256_permute2f128_ps(lo, hi, 0x20), _mm256_permute2f128_ps(lo, hi, 0x31));
  }
#endif
  A in[L], out[L];
  for (int i = 0; i < L; ++i) {
    v[i].store(in);
    for (int width = L / 2; width > 0; width /= 2)
      for (int k = 0; k < width; ++k) in[k] += in[k + width];
    out[i] = in[0];
  }
  return Vec<A>::loadu(out);
}

}  // namespace synops::CPU_CAPABILITY
