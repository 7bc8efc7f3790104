// Numbers without a pattern: for samples, and for random scores.
#pragma once

#include <cstdint>

namespace synops {

// splitmix64.
inline uint64_t scrambled(uint64_t i) {
  i += 0x9e3779b97f4a7c15u;
  i = (i ^ (i >> 30)) * 0xbf58476d1ce4e5b9u;
  i = (i ^ (i >> 27)) * 0x94d049bb133111ebu;
  return i ^ (i >> 31);
}

}  // namespace synops
