// The products of the backward of linear_token_stats (bodies in linear_token_stats_gradients.inc).
// Widths, groups and slack are those of linear_token_stats.h.
#pragma once

#include "entropy/linear_token_stats.h"

namespace synops {

// Gradients of logits come as logit_gradient has made them: `grad` for sums over tokens, `by_rows`
// for sums over rows. Where bfloat16 is multiplied in pairs, words are pairs of what is summed
// over; depth is in words.
struct HeadGradientKernels {
  // `count` columns of some rows, as they are: (count / width, depth, width), (count / group,
  // depth, group).
  void (*column_panels)(const HeadRows& data, int64_t count, int64_t rows, void* out);
  void (*column_groups)(const HeadRows& data, int64_t count, int64_t rows, void* out);

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
  void (*hidden_gradient)(DType dtype, const void* by_rows, int64_t stride, int64_t rows,
                          const void* groups, int64_t first, int64_t count, int64_t features,
                          int64_t begin, int64_t end, bool accumulate, void* sums);
  // The same for few tokens, rows of the weight as they are; sums (tokens, features).
  void (*few_hidden_gradient)(const HeadRows& weight, const void* by_rows, int64_t stride,
                              int64_t rows, int64_t tokens, int64_t features, bool accumulate,
                              void* sums);
  // Rows of `out` (tokens, features) from such sums.
  void (*write_panels)(DType dtype, const void* sums, int64_t features, int64_t tokens,
                       int64_t begin, int64_t end, void* out);
  // out[i] = sum over parts of sums[part][i], for i in [begin, end) of n.
  void (*write_parts)(DType dtype, const void* sums, int64_t parts, int64_t n, int64_t begin,
                      int64_t end, void* out);
};

SYNOPS_KERNELS(HeadGradientKernels, linear_token_stats_gradients)

}  // namespace synops
