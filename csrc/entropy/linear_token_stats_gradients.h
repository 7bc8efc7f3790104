// The products of the backward of linear_token_stats (bodies in linear_token_stats_gradients.inc).
// Widths, groups and slack are those of linear_token_stats.h.
#pragma once

#include "entropy/linear_token_stats.h"

namespace synops {

struct HeadGradientKernels {
  // `count` columns of `depth` rows, as they are: (count / width, depth, width), (count / group,
  // depth, group).
  void (*column_panels)(const HeadRows& rows, int64_t count, int64_t depth, void* out);
  void (*column_groups)(const HeadRows& rows, int64_t count, int64_t depth, void* out);

  // out[row, columns] = sum over tokens of grad * hidden, for column panels [begin, end); out
  // (rows, features) in dtype.
  void (*weight_gradient)(DType dtype, const void* grad, int64_t stride, int64_t rows,
                          const HeadPanels& columns, int64_t begin, int64_t end, int64_t features,
                          void* out);
  // out[row] = sum over tokens of grad, in dtype.
  void (*bias_gradient)(DType dtype, const void* grad, int64_t stride, int64_t rows, int64_t tokens,
                        void* out);
  // sums[panel][column][token] (+)= sum over `rows` of grad * weight, for panels [begin, end) and
  // `count` columns from `first` on; sums (panels, features, width).
  void (*hidden_gradient)(DType dtype, const void* grad, int64_t stride, int64_t rows,
                          const void* groups, int64_t first, int64_t count, int64_t features,
                          int64_t begin, int64_t end, bool accumulate, void* sums);
  // Rows of `out` (tokens, features) from such sums.
  void (*write_panels)(DType dtype, const void* sums, int64_t features, int64_t tokens,
                       int64_t begin, int64_t end, void* out);
};

SYNOPS_KERNELS(HeadGradientKernels, linear_token_stats_gradients)

}  // namespace synops
