// Element types as they cross from the op files to the raw-pointer kernels.
#pragma once

#include <cstddef>

namespace synops {
enum class DType : int { kFloat32, kFloat64, kBFloat16, kFloat16 };

inline size_t bytes_of(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}
// Of the arithmetic type: float64 for float64, float32 for the rest.
inline size_t acc_bytes_of(DType dtype) { return dtype == DType::kFloat64 ? 8 : 4; }
inline bool is_half(DType dtype) { return bytes_of(dtype) == 2; }

}  // namespace synops
