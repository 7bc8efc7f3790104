// How spiking neurons fire and reset, and how their series lie in memory.
#pragma once

#include <cstdint>

namespace synops {

// As numbered in python/synops/spiking/_neurons.py.
enum class Reset : int64_t { kSubtract, kZero, kNone };
enum class Surrogate : int64_t {
  kFastSigmoid,
  kAtan,
  kSigmoid,
  kSuperspike,
  kBoxcar,
  kTriangle,
  kQuadraticGate
};

// How neurons fire and reset. late: a spike resets the membrane in the next step, and the state is
// the membrane itself.
struct Firing {
  Reset reset;
  bool late, inclusive;
};

// Element i of step t lies at data + (t * step + i) elements; null: none.
struct Series {
  void* data;
  int64_t step;
};
struct ConstSeries {
  const void* data;
  int64_t step;
};

// The most neurons of a call with numbers of their own: states, parameters and sums of them stay in
// L1, and a step reads a page of float32.
constexpr int64_t kLifTile = 1024;

}  // namespace synops
