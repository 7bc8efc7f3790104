// The numbers by which the ops are told how neurons fire, checked.
#pragma once

#include <cmath>

#include "common/tensor.h"
#include "spiking/lif.h"

namespace synops {

inline Firing firing_of(int64_t reset, bool late, bool inclusive, const char* op) {
  STD_TORCH_CHECK(reset >= 0 && reset <= 2, op, ": reset must be 0, 1 or 2, got ", reset);
  const Reset kind = static_cast<Reset>(reset);
  return {kind, late && kind != Reset::kNone, inclusive};
}

inline Surrogate surrogate_of(int64_t surrogate, double slope, const char* op) {
  STD_TORCH_CHECK(surrogate >= 0 && surrogate <= 6, op, ": surrogate must be 0 to 6, got ",
                  surrogate);
  STD_TORCH_CHECK(slope > 0 && std::isfinite(slope), op, ": slope must be positive, got ", slope);
  return static_cast<Surrogate>(surrogate);
}

}  // namespace synops
