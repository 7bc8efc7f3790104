// linear_token_stats: the raw-pointer kernels (bodies in linear_token_stats.inc).
//
// Arithmetic is in A, float32 (float64 for float64). Operands are packed: tokens in panels of
// `width`, rows of the weight in groups of `group`; a tile is a few groups, see panel_product.h.
// What is packed ends with `slack` more elements, which stores run into. For `few` tokens or less
// nothing is packed, see few_tokens.h.
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
  const void* data;  // (panels, depth, width); of few tokens (tokens, depth)
  int64_t depth;
  int64_t tokens;
};

struct HeadTile {
  const void* data;  // (groups, depth, group); for few tokens the rows as they are
  bool packed;
  const void* bias;  // (groups * group,), of A
  int64_t first;     // row of the weight
  int64_t rows;
  const void* next;   // the rows of the next tile where they are, or null
  int64_t row_bytes;  // between rows where they are
};

struct LinearTokenStatsKernels {
  int64_t (*width)(DType dtype);
  int64_t (*group)(DType dtype);
  int64_t (*slack)(DType dtype);
  int64_t (*few)(DType dtype);
  // Whether bfloat16 is multiplied in pairs here: a word of the depth is two elements.
  bool (*pairs)();

  // Rows turned, `depth` words of each: (count / width, depth, width), (count / group, depth,
  // group).
  void (*pack_panels)(const HeadRows& rows, bool pairs, int64_t count, int64_t depth, void* out);
  void (*pack_groups)(const HeadRows& rows, bool pairs, int64_t count, int64_t depth, void* out);
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
};

SYNOPS_KERNELS(LinearTokenStatsKernels, linear_token_stats)

}  // namespace synops
