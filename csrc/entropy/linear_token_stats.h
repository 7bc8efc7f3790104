// linear_token_stats: the raw-pointer kernels (bodies in linear_token_stats.inc).
//
// Arithmetic is in A, float32 (float64 for float64). Operands are packed: tokens in panels of
// `width`, rows of the weight in groups of `group`; a tile is a few groups, see panel_product.h.
// What is packed ends with `slack` more elements, which stores run into.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace synops {

// Running sums of a row over a part of the vocabulary, with x = (logit - max) log2(e) / T:
// max, sum 2^x, sum 2^x x, sum 2^x x^2, sum 4^x, sum 4^x x.
constexpr int kMoments = 6;
// What the gradient of a logit is made of, for each token (see logit_gradient).
constexpr int kCoefficients = 8;

// Row-major, ld elements between rows.
struct HeadRows {
  DType dtype;
  const void* data;
  int64_t ld;
};

struct HeadPanels {
  const void* data;  // (panels, depth, width)
  int64_t depth;
  int64_t tokens;
};

struct HeadTile {
  const void* data;  // (groups, depth, group)
  const void* bias;  // (groups * group,), of A
  int64_t first;     // row of the weight
  int64_t rows;
  const void* next;  // the rows of the next tile where they are, or null
  int64_t row_bytes;
};

struct LinearTokenStatsKernels {
  int64_t (*width)(DType dtype);
  int64_t (*group)(DType dtype);
  int64_t (*slack)(DType dtype);
  // Whether bfloat16 is multiplied in pairs here: a word of the depth is two elements.
  bool (*pairs)();

  // Rows turned, `depth` words of each: (count / width, depth, width), (count / group, depth,
  // group).
  void (*pack_panels)(const HeadRows& rows, bool pairs, int64_t count, int64_t depth, void* out);
  void (*pack_groups)(const HeadRows& rows, bool pairs, int64_t count, int64_t depth, void* out);
  // `count` columns of `depth` rows, as they are: likewise.
  void (*column_panels)(const HeadRows& rows, int64_t count, int64_t depth, void* out);
  void (*column_groups)(const HeadRows& rows, int64_t count, int64_t depth, void* out);

  // Adds the logits of a tile to the moments (kMoments, ld) of the tokens in panels [begin, end);
  // `all`: of the first three or of all. picked[token] = the logit of the label where it is of this
  // tile; labels may be null.
  void (*forward)(DType dtype, bool pairs, const HeadTile& tile, const HeadPanels& hidden,
                  int64_t begin, int64_t end, double temperature, bool all, const int64_t* labels,
                  void* moments, int64_t ld, void* picked);
  // Gradients of the logits of a tile: grad[panel][row][token], panels `stride` elements apart;
  // there is room for whole groups of rows.
  // coefficients (kCoefficients, ld).
  void (*logit_gradient)(DType dtype, bool pairs, const HeadTile& tile, const HeadPanels& hidden,
                         int64_t begin, int64_t end, double temperature, const int64_t* labels,
                         const void* coefficients, int64_t ld, void* grad, int64_t stride);
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

SYNOPS_KERNELS(LinearTokenStatsKernels, linear_token_stats)

}  // namespace synops
