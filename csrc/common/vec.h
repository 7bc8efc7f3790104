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
    case DType::kFloat64:
      return f(double{});
    case DType::kBFloat16:
      return f(c10::BFloat16{});
    case DType::kFloat16:
      return f(c10::Half{});
    default:
      return f(float{});
  }
}

// The same for its arithmetic type.
template <class F>
auto visit_acc(DType dtype, F&& f) {
  return dtype == DType::kFloat64 ? f(double{}) : f(float{});
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

// Transposes kLanes vectors in place: lane j of v[i] becomes lane i of v[j].
template <class A>
inline void transpose_lanes(Vec<A>* v) {
  constexpr int L = kLanes<A>;
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<A, float>) {
    // Pairs, then quadruples inside each 128-bit quarter; then the quarters, twice: 64 shuffles.
    __m512 a[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
      a[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
      a[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
      const __m512d x = _mm512_castps_pd(a[i]), y = _mm512_castps_pd(a[i + 1]);
      const __m512d z = _mm512_castps_pd(a[i + 2]), w = _mm512_castps_pd(a[i + 3]);
      v[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, z));
      v[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, z));
      v[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(y, w));
      v[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(y, w));
    }
    // v[4 g + c] holds columns c, 4 + c, 8 + c, 12 + c of rows 4 g .. 4 g + 3, a quarter each.
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const __m512 even01 = _mm512_shuffle_f32x4(v[c], v[4 + c], 0x88);
      const __m512 odd01 = _mm512_shuffle_f32x4(v[c], v[4 + c], 0xdd);
      const __m512 even23 = _mm512_shuffle_f32x4(v[8 + c], v[12 + c], 0x88);
      const __m512 odd23 = _mm512_shuffle_f32x4(v[8 + c], v[12 + c], 0xdd);
      a[c] = _mm512_shuffle_f32x4(even01, even23, 0x88);
      a[8 + c] = _mm512_shuffle_f32x4(even01, even23, 0xdd);
      a[4 + c] = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
      a[12 + c] = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) v[i] = a[i];
    return;
  }
#elif defined(CPU_CAPABILITY_AVX2)
  if constexpr (std::is_same_v<A, float>) {
    __m256 a[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
      a[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
      a[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
      v[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
      v[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
      v[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
      v[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m256 low = v[i], high = v[i + 4];
      v[i] = _mm256_permute2f128_ps(low, high, 0x20);
      v[i + 4] = _mm256_permute2f128_ps(low, high, 0x31);
    }
    return;
  }
#endif
  A in[L * L], out[L * L];
  for (int i = 0; i < L; ++i) v[i].store(in + i * L);
  for (int i = 0; i < L; ++i)
    for (int j = 0; j < L; ++j) out[j * L + i] = in[i * L + j];
  for (int i = 0; i < L; ++i) v[i] = Vec<A>::loadu(out + i * L);
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
    return _mm256_add_ps(_mm256_permute2f128_ps(lo, hi, 0x20),
                         _mm256_permute2f128_ps(lo, hi, 0x31));
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
