// What the kernels of spiking neurons share, a vector of neurons at a time. Included by .inc files
// only.
#pragma once

#include <cstdint>

#include "common/rounded_product.h"
#include "common/vec.h"

namespace synops::CPU_CAPABILITY {

// All bits where a membrane fires.
template <class A>
inline Vec<A> fires(const Vec<A>& u, const Vec<A>& threshold, bool inclusive) {
  return inclusive ? u >= threshold : u > threshold;
}

// u, and 0 where it fired.
template <class A>
inline Vec<A> zeroed(const Vec<A>& u, const Vec<A>& fired) {
  return Vec<A>::blendv(u, Vec<A>(A(0)), fired);
}

// Stores a vector of A as T, past the caches if `stream`: then nothing is read into them for it
// (8 bytes a neuron and step instead of 12), and p lies at a multiple of what is stored.
template <class A, class T>
inline void store_series(const Vec<A>& v, T* p, int64_t width, bool stream) {
#if defined(CPU_CAPABILITY_AVX512)
  if (stream && width == kLanes<A>) {
    if constexpr (std::is_same_v<T, float>) return _mm512_stream_ps(p, v);
    if constexpr (std::is_same_v<T, double>) return _mm512_stream_pd(p, v);
  }
#elif defined(CPU_CAPABILITY_AVX2)
  if (stream && width == kLanes<A>) {
    if constexpr (std::is_same_v<T, float>) return _mm256_stream_ps(p, v);
    if constexpr (std::is_same_v<T, double>) return _mm256_stream_pd(p, v);
  }
#endif
  static_cast<void>(stream);
  if (width == kLanes<A>) return store<A>(v, p);
  store<A>(v, p, width);
}

// Whether every whole vector of a series lies at a multiple of its size.
template <class T>
inline bool streams(const void* data, int64_t step) {
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
  const int64_t bytes = sizeof(Vec<T>);
  return reinterpret_cast<uintptr_t>(data) % bytes == 0 &&
         step * static_cast<int64_t>(sizeof(T)) % bytes == 0;
#else
  return false;
#endif
}

// Before another thread reads what was streamed.
inline void end_of_streams() {
#if defined(__x86_64__)
  asm volatile("sfence" ::: "memory");
#endif
}

// f(first, width) for the vectors of `count` neurons, the whole ones with a width that the compiler
// knows.
template <class A, class F>
inline void for_vectors(int64_t count, F&& f) {
  int64_t k = 0;
  for (; k + kLanes<A> <= count; k += kLanes<A>) f(k, std::integral_constant<int64_t, kLanes<A>>{});
  if (k < count) f(k, count - k);
}

// A vector of an array that may be absent: 0.
template <class A>
inline Vec<A> load_or_zero(const void* p, int64_t k, int64_t width) {
  return p == nullptr ? Vec<A>(A(0)) : load<A>(static_cast<const A*>(p) + k, width);
}

}  // namespace synops::CPU_CAPABILITY
