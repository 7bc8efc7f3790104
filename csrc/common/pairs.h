// bfloat16 in pairs: a word of 32 bits is two numbers, and vdpbf16ps adds both products of two
// words to a lane of float32, twice the multiply-adds of a vector of float32. Included by .inc
// files only.
//
// Products are exact and sums rounded as float32; numbers below 1e-38 count as 0. Processors that
// lack the instruction, and the other types, have one number in a word (pairs: false), so that a
// kernel is written once, in words.
#pragma once

#include <algorithm>

#include "common/vec.h"

namespace synops::CPU_CAPABILITY {

inline bool has_pairs() {
#if defined(CPU_CAPABILITY_AVX512)
  static const bool has = __builtin_cpu_supports("avx512bf16");
  return has;
#else
  return false;
#endif
}

// f(a value of the C++ type of `dtype`, whether it is multiplied in pairs: a type).
template <class F>
auto visit_words(DType dtype, F&& f) {
  return visit_dtype(dtype, [&](auto t) {
#if defined(CPU_CAPABILITY_AVX512)
    if constexpr (std::is_same_v<decltype(t), c10::BFloat16>)
      if (has_pairs()) return f(t, std::true_type{});
#endif
    return f(t, std::false_type{});
  });
}

// Numbers of a word, and words of n numbers.
template <bool kPairs>
constexpr int64_t kWord = kPairs ? 2 : 1;
template <bool kPairs>
constexpr int64_t words_of(int64_t n) {
  return kPairs ? (n + 1) / 2 : n;
}

// sum + a b, lane by lane, over both numbers of a word. By the assembler: an intrinsic would have
// to be called in functions for AVX512_BF16 only, and the loop around it written twice.
template <bool kPairs, class A>
inline Vec<A> multiply_add(const Vec<A>& a, const Vec<A>& b, const Vec<A>& sum) {
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (kPairs) {
    __m512 out = sum;
    asm("vdpbf16ps %2, %1, %0" : "+v"(out) : "v"(__m512(a)), "v"(__m512(b)));
    return out;
  }
#endif
  return at::vec::fmadd(a, b, sum);
}

#if defined(CPU_CAPABILITY_AVX512)
// 32 numbers rounded to nearest: those of `low`, then those of `high`.
inline __m512i rounded(const Vec<float>& low, const Vec<float>& high) {
  __m512i out;
  asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(out) : "v"(__m512(high)), "v"(__m512(low)));
  return out;
}

// Lane by lane the word of both numbers.
inline void store_pairs(const Vec<float>& first, const Vec<float>& second, float* out) {
  alignas(64) static constexpr uint16_t kSides[] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                    21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                    11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i words = _mm512_permutexvar_epi16(_mm512_load_si512(kSides), rounded(first, second));
  _mm512_storeu_si512(out, words);
}
#endif

// `low` and `high` to 2 kLanes numbers of a row that begins at `row`, from number c on: whole, or
// rounded, so that a row of pairs takes half the room.
template <bool kPairs, class A>
inline void store_row(const Vec<A>& low, const Vec<A>& high, A* row, int64_t c) {
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (kPairs) return _mm512_storeu_si512(row + c / 2, rounded(low, high));
#endif
  low.store(row + c);
  high.store(row + c + kLanes<A>);
}

// Words [k, k + kLanes) of a row of `size` numbers, zeros behind them.
template <class A, bool kPairs, class T>
inline Vec<A> load_words(const T* row, int64_t k, int64_t size) {
  if constexpr (kPairs) {
    const int64_t count = std::clamp<int64_t>(size - 2 * k, 0, 2 * kLanes<A>);
    if (count == 2 * kLanes<A>) return Vec<A>::loadu(row + 2 * k);
    float words[kLanes<A>] = {};
    std::memcpy(words, row + 2 * k, count * sizeof(T));
    return Vec<A>::loadu(words);
  } else {
    const int64_t count = std::clamp<int64_t>(size - k, 0, kLanes<A>);
    return count > 0 ? load<A>(row + k, count) : Vec<A>(A(0));
  }
}

// out[d] = word of number d of two rows, zeros from size to ld; `second` null: zeros.
template <class T>
inline void pair_rows(const T* first, const T* second, int64_t size, float* out, int64_t ld) {
  static_assert(sizeof(T) == 2);
  const auto* low = reinterpret_cast<const uint16_t*>(first);
  const auto* high = reinterpret_cast<const uint16_t*>(second);
  const auto put = [&](int64_t d, uint32_t word) { std::memcpy(out + d, &word, sizeof(word)); };
  if (second == nullptr)
    for (int64_t d = 0; d < size; ++d) put(d, low[d]);
  else
    for (int64_t d = 0; d < size; ++d) put(d, low[d] | static_cast<uint32_t>(high[d]) << 16);
  std::fill(out + size, out + ld, 0.f);
}

}  // namespace synops::CPU_CAPABILITY
