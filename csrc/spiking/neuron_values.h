// How the kernels of neurons.h read and write a vector of neurons: parameters of one or of each,
// elements of a type that is known at run time, spikes as bytes and bits, membranes by half.
// Included by .inc files only.
#pragma once

#include "common/inline.h"
#include "spiking/neuron_lanes.h"
#include "spiking/neurons.h"

namespace synops::CPU_CAPABILITY {

// Steps that are fetched ahead, into L2: two pages of a tile on the way keep it busy (100 x 128 x
// 1024: bits 5.5 ms with the next step fetched into L1, whose misses are too few at a time, 3.7
// with this, and the plain sum of the input takes as long).
constexpr int64_t kAhead = 2;
inline void fetch_ahead(const void* p) { __builtin_prefetch(p, 0, 2); }

// A parameter: of one or of each.
template <class A>
class Each {
 public:
  explicit Each(const Values& of) : data_(static_cast<const A*>(of.data)), single_(of.single) {
    if (single_ && data_ != nullptr) one_ = Vec<A>::loadu(data_);
  }
  // Plain: known to be one number for all.
  template <bool Plain = false>
  Vec<A> at(int64_t k, int64_t width) const {
    if constexpr (Plain) return one_;
    return single_ ? one_ : load<A>(data_ + k, width);
  }

 private:
  const A* data_;
  bool single_;
  Vec<A> one_{A(0)};
};

// Elements of `dtype` from the k-th on. The branch is the same for a whole call: a body of its own
// for each type would be four times the code and not faster.
template <class A>
inline Vec<A> load_typed(const void* p, DType dtype, int64_t k, int64_t width) {
  if constexpr (std::is_same_v<A, float>) {
    if (dtype == DType::kBFloat16) return load<A>(static_cast<const c10::BFloat16*>(p) + k, width);
    if (dtype == DType::kFloat16) return load<A>(static_cast<const c10::Half*>(p) + k, width);
  }
  return load<A>(static_cast<const A*>(p) + k, width);
}

// As store, without the way through memory: 2.5 times as fast.
template <class T>
inline void store_narrow(const Vec<float>& v, T* p, int64_t width) {
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
  if (width == kLanes<float>) {
    constexpr bool kBrain = std::is_same_v<T, c10::BFloat16>;
    const auto narrow = [&] {
      if constexpr (kBrain) return at::vec::cvtfp32_bf16(v);
      if constexpr (!kBrain) return at::vec::cvtfp32_fp16(v);
    }();
    std::memcpy(p, &narrow, sizeof narrow);
    return;
  }
#endif
  store<float>(v, p, width);
}

template <class A>
inline void store_typed(const Vec<A>& v, void* p, DType dtype, int64_t k, int64_t width,
                        bool stream) {
  if constexpr (std::is_same_v<A, float>) {
    if (dtype == DType::kBFloat16)
      return store_narrow(v, static_cast<c10::BFloat16*>(p) + k, width);
    if (dtype == DType::kFloat16) return store_narrow(v, static_cast<c10::Half*>(p) + k, width);
  }
  store_series<A>(v, static_cast<A*>(p) + k, width, stream);
}

// Bit j: lane j of a mask.
template <class A>
inline uint32_t lane_bits(const Vec<A>& mask) {
  constexpr bool kFloat = std::is_same_v<A, float>;
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (kFloat) return _mm512_movepi32_mask(_mm512_castps_si512(mask));
  if constexpr (!kFloat) return _mm512_movepi64_mask(_mm512_castpd_si512(mask));
#elif defined(CPU_CAPABILITY_AVX2)
  if constexpr (kFloat) return _mm256_movemask_ps(mask);
  if constexpr (!kFloat) return _mm256_movemask_pd(mask);
#else
  std::conditional_t<kFloat, uint32_t, uint64_t> lanes[kLanes<A>];
  mask.store(reinterpret_cast<A*>(lanes));
  uint32_t bits = 0;
  for (int j = 0; j < kLanes<A>; ++j) bits |= static_cast<uint32_t>(lanes[j] & 1) << j;
  return bits;
#endif
}

// The bits of the neurons from the k-th on; two vectors of four lanes share a byte.
template <class A>
inline void store_bits(uint32_t bits, char* p, int64_t k, int64_t width) {
  if constexpr (kLanes<A> < 8) {
    char& byte = p[k / 8];
    byte = k % 8 == 0 ? static_cast<char>(bits) : static_cast<char>(byte | bits << (k % 8));
  } else {
    std::memcpy(p + k / 8, &bits, (width + 7) / 8);
  }
}

// A byte, 0 or 1, for each of `width` bits.
inline void store_bytes(uint32_t bits, char* p, int64_t width) {
  for (int64_t j = 0; j < width; j += 8, bits >>= 8) {
    uint64_t x = bits & 0xff;
    x = (x | x << 28) & 0x0000000f0000000f;
    x = (x | x << 14) & 0x0003000300030003;
    x = (x | x << 7) & 0x0101010101010101;
    std::memcpy(p + j, &x, std::min<int64_t>(8, width - j));
  }
}

// A distance from the threshold that float16 rounds to the same side of 0, where it fired or not:
// its smallest number instead of 0.
inline Vec<float> half_distance(const Vec<float>& d, const Vec<float>& fired, bool inclusive) {
  const Vec<float> least(0x1p-24f), most(-0x1p-24f);
  if (inclusive) return Vec<float>::blendv(at::vec::minimum(d, most), d, fired);
  return Vec<float>::blendv(d, at::vec::maximum(d, least), fired);
}

// As store_series.
inline void store_half(const Vec<float>& v, c10::Half* p, int64_t width, bool stream) {
#if defined(CPU_CAPABILITY_AVX512)
  if (width == kLanes<float>) {
    const __m256i half = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256i* const to = reinterpret_cast<__m256i*>(p);
    return stream ? _mm256_stream_si256(to, half) : _mm256_storeu_si256(to, half);
  }
#elif defined(CPU_CAPABILITY_AVX2)
  if (width == kLanes<float>) {
    const __m128i half = _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
    __m128i* const to = reinterpret_cast<__m128i*>(p);
    return stream ? _mm_stream_si128(to, half) : _mm_storeu_si128(to, half);
  }
#endif
  static_cast<void>(stream);
  store<float>(v, p, width);
}

// Whether store_half may stream a series.
template <class A>
inline bool streams_half(const void* data, int64_t step) {
  const int64_t bytes = kLanes<float> * 2;
  return std::is_same_v<A, float> && streams<A>(nullptr, 0) &&
         reinterpret_cast<uintptr_t>(data) % bytes == 0 && step * 2 % bytes == 0;
}

}  // namespace synops::CPU_CAPABILITY
