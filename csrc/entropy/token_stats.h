// token_stats: the raw-pointer kernels (bodies in token_stats.inc and
// token_stats_backward.inc).
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "common/dtype.h"
#include "common/isa.h"

namespace synops {

// Sums over logits x of p = 2^y with y = (x - max) * scale * log2(e): whatever the offset of the
// logits, nothing cancels. Double, because pieces of a row are added up in it.
struct Moments {
  double max = -std::numeric_limits<double>::infinity();  // of x; -inf: none that counts
  double p = 0, py = 0, pyy = 0, pp = 0, ppy = 0;

  // Carries the sums over to another maximum, at least as large.
  void move_to(double to, double scale) {
    if (p != 0) {
      const double d = (max - to) * scale * 1.442695040888963407359, f = std::exp2(d);
      ppy = f * f * (ppy + d * pp);
      pp = f * f * pp;
      pyy = f * (pyy + 2 * d * py + d * d * p);
      py = f * (py + d * p);
      p = f * p;
    }
    max = to;
  }

  void add(Moments other, double scale) {
    other.max > max ? move_to(other.max, scale) : other.move_to(max, scale);
    p += other.p;
    py += other.py;
    pyy += other.pyy;
    pp += other.pp;
    ppy += other.ppy;
  }
};

// Where the statistics go, a number a row in the arithmetic type; null where not asked for.
struct TokenOutputs {
  void *logprob, *entropy, *varentropy, *lse, *max_prob, *collision, *plogp2, *max_logit;
};

// Labels of rows: an index, or `ignored`. Null: none.
struct Labels {
  const int64_t* data;
  int64_t ignored;
};

// What the gradient is made of, a number a row in the arithmetic type; null: 0.
struct TokenSaved {
  const void *max_logit, *max_prob, *entropy, *varentropy, *collision;
  const void *of_logprob, *of_entropy, *of_varentropy, *of_lse, *of_collision;
};

// A piece of rows of logits: elements [begin, end) of rows [row, row + count), the first of which
// lies at data, the next ones `step` elements apart.
struct Piece {
  void* data;
  int64_t step, row, count, begin, end;
};

struct TokenStatsKernels {
  // Of n logits. `all`: beyond p and py, too.
  void (*moments)(DType dtype, const void* logits, int64_t n, double scale, bool all, Moments* out);
  // Writes the statistics of one row from its sums; `labels` and `out` are of that row.
  void (*finish)(DType dtype, const void* logits, const Moments& sums, double scale,
                 const Labels& labels, int64_t row, const TokenOutputs& out);
  // Both for `count` rows `step` elements apart, of at most kShortRow logits; the first is `row`.
  void (*short_rows)(DType dtype, const void* logits, int64_t step, int64_t n, int64_t count,
                     double scale, bool all, const Labels& labels, int64_t row,
                     const TokenOutputs& out);
};

struct TokenStatsGradientKernels {
  // Writes the gradients of a piece to the same piece of `grad`, which may be the logits. Labels
  // that have no probability are ignored ones.
  void (*backward)(DType dtype, const Piece& logits, double scale, const Labels& labels,
                   const TokenSaved& saved, const Piece& grad);
};

constexpr int64_t kShortRow = 256;

SYNOPS_KERNELS(TokenStatsKernels, token_stats)
SYNOPS_KERNELS(TokenStatsGradientKernels, token_stats_gradient)

}  // namespace synops
