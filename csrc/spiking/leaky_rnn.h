// leaky_rnn: the raw-pointer kernels (bodies in leaky_rnn.inc and leaky_rnn_backward.inc).
//
// Arithmetic is in A, float32 (float64 for float64). What belongs to neurons is padded: N rounded
// up to whole panels, zeros behind N. A packed weight is (panels, N, panel): a panel is `panel`
// columns of the right operand of a product, see common/tile_product.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace synops {

// f(v) = v above 0 and slope * v below it (1: the identity), 0 below it, or tanh.
enum class LeakyActivation { kSlope, kRelu, kTanh };
struct LeakyRule {
  LeakyActivation activation;
  double slope;  // below 0, also of what is not kSlope
  bool inner;    // f around the drive, and not around the new state
};

// `rows` rows of all steps, each a sequence of its own. Rows of states are N apart, steps
// `step` elements.
struct LeakyRows {
  int64_t steps, rows, neurons, step;
  LeakyRule rule;
  const void *weight, *rate, *keep;  // packed; 1 / tau and 1 - 1 / tau
  const void* h0;                    // (rows, N), null: 0
};

struct LeakyForward {
  LeakyRows of;
  const void* bias;
  const void* input;
  int64_t input_step, input_row, input_column;  // of T; column 0 or 1: one number for all neurons
  void *states, *drive;                         // drive null: not wanted
};

// Rows that one thread takes at least, and whose sums over rows and time are kept together: as
// many whatever the number of threads, tiles of a product, and less where there are few.
inline int64_t leaky_group(int64_t rows) {
  return rows > 8 ? 6 : std::max<int64_t>(1, (rows + 1) / 2);
}

// Columns of the left operand of outer() in a tile.
constexpr int64_t kLeakyColumns = 6;

struct LeakyBackward {
  LeakyRows of;
  const void *states, *drive;  // drive null: neither its activation nor of_rate is wanted
  const void* grad_states;     // null: 0
  int64_t grad_step, grad_row;
  void* of_drive;  // (steps, rows, N), before the activation, as states
  void* of_h;      // (rows, padded): in, of the last state; out, of h0
  bool need_h0;    // otherwise of_h is not carried past the first step
  int64_t group;   // rows of a group
  void* sums;      // (groups, 2, padded): += of_drive, of the rate
};

struct LeakyRnnKernels {
  int64_t (*panel)(DType wide);
  // Panels [begin, end) of the right operand W^T, W (n, n) row-major.
  void (*pack_turned)(DType wide, const void* weight, int64_t n, bool zero_diagonal, int64_t begin,
                      int64_t end, void* out);
  void (*forward)(DType input, const LeakyForward& f);
};

struct LeakyRnnGradientKernels {
  // Panels [begin, end) of the right operand W, (depth, n) row-major.
  void (*pack)(DType wide, const void* weight, int64_t depth, int64_t n, bool zero_diagonal,
               int64_t begin, int64_t end, void* out);
  void (*backward)(DType wide, const LeakyBackward& b);
  // sums[i][j] += sum over `depth` rows of left[.][i] right[.][j], for the groups [begin, end) of
  // kLeakyColumns columns i; left (depth, n) row-major, right as packed by pack(), sums (n rounded
  // up to groups, padded). `room`: (end - begin) * kLeakyColumns * depth.
  void (*outer)(DType wide, const void* left, int64_t depth, int64_t n, const void* right,
                int64_t begin, int64_t end, void* room, void* sums);
};

SYNOPS_KERNELS(LeakyRnnKernels, leaky_rnn)
SYNOPS_KERNELS(LeakyRnnGradientKernels, leaky_rnn_gradient)

}  // namespace synops
