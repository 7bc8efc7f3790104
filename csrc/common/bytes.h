// Flags of a byte each, eight at a time, and values that are moved and not looked at. Included by
// .inc files only.
#pragma once

#include <cstdint>
#include <cstring>

namespace synops::CPU_CAPABILITY {

// The high bit of every byte that is not zero (a bool tensor made by a view may hold any byte).
inline uint64_t set_bytes(uint64_t word) {
  constexpr uint64_t kLow = 0x7f7f7f7f7f7f7f7full;
  return (((word & kLow) + kLow) | word) & ~kLow;
}

inline uint64_t load_bytes(const uint8_t* p) {
  uint64_t word;
  std::memcpy(&word, p, 8);
  return word;
}

// How many of n are not zero.
inline int64_t count_set(const uint8_t* p, int64_t n) {
  int64_t total = 0, i = 0;
  for (; i + 8 <= n; i += 8) total += __builtin_popcountll(set_bytes(load_bytes(p + i)));
  for (; i < n; ++i) total += p[i] != 0;
  return total;
}

// f with an unsigned integer as wide as a value.
template <class F>
void visit_bytes(int64_t bytes, F&& f) {
  bytes == 8 ? f(uint64_t{}) : bytes == 4 ? f(uint32_t{}) : f(uint16_t{});
}

}  // namespace synops::CPU_CAPABILITY
