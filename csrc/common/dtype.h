// Element types as they cross from the op files to the raw-pointer kernels.
#pragma once

namespace synops {
enum class DType : int { kFloat32, kFloat64, kBFloat16, kFloat16 };
}  // namespace synops
