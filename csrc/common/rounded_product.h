// Products that are rounded before they are added to something. Included by .inc files only.
#pragma once

#include "common/vec.h"

namespace synops::CPU_CAPABILITY {

// a * b, rounded: the compiler would make one multiply-add of it and a sum that follows.
template <class A>
inline Vec<A> rounded_product(const Vec<A>& a, const Vec<A>& b) {
  Vec<A> product = a * b;
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<A, float>) {
    __m512 p = product;
    asm("" : "+v"(p));
    return p;
  } else {
    __m512d p = product;
    asm("" : "+v"(p));
    return p;
  }
#elif defined(CPU_CAPABILITY_AVX2)
  if constexpr (std::is_same_v<A, float>) {
    __m256 p = product;
    asm("" : "+x"(p));
    return p;
  } else {
    __m256d p = product;
    asm("" : "+x"(p));
    return p;
  }
#else
#if !defined(__x86_64__)  // which has no multiply-add there
  asm("" : "+m"(product));
#endif
  return product;
#endif
}

}  // namespace synops::CPU_CAPABILITY
