// attention_with_stats: what its raw-pointer kernels work on (bodies in attention_with_stats.inc,
// attention_with_stats_backward.inc and attention_few_rows.inc).
//
// Work is cut into blocks of rows (queries) and of keys whose sizes depend neither on the processor
// nor on the number of threads; so does the room that a block needs.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace synops {

// Keys of a block: with head size 64, K and V of it are 128 KB of the L2, and the sums of a group
// of rows stay in registers for all of it. Rows of a block: 16 groups of 6 use them again.
constexpr int64_t kBlockKeys = 256, kBlockRows = 96, kGroupRows = 6;
// Rows for which keys are not worth turning: 16 heads of 512 bfloat16 keys take 240 us for 4 rows
// unturned, 226 for 9 turned. Keys of a part of a head then: 8 threads can share one of 8192.
constexpr int64_t kUnturnedRows = 4, kPartKeys = 1024;
// A multiple of every set's lanes and panels: what lengths are rounded up to.
constexpr int64_t kPadSize = 16, kPadKeys = 64;

inline int64_t pad_to(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
inline int64_t blocks_of(int64_t n, int64_t block) { return (n + block - 1) / block; }

// (batch, heads, rows, size) with a last stride of 1; the others in elements.
struct AttentionRows {
  const void* data = nullptr;
  int64_t batch = 0, head = 0, row = 0;
  int64_t at(int64_t b, int64_t h, int64_t i) const { return b * batch + h * head + i * row; }
};

// (batch, heads, rows, keys) by strides, 0 where broadcast: bool, or numbers to be added.
struct AttentionMask {
  const void* data = nullptr;
  bool boolean = false;
  DType dtype = DType::kFloat32;
  int64_t batch = 0, head = 0, row = 0, key = 0;
};

struct Range {
  int64_t begin = 0, end = 0;
  bool empty() const { return begin >= end; }
};

struct Attention {
  DType dtype;
  int64_t batch, heads, kv_heads, rows, keys, size, value_size;
  AttentionRows query, key, value;
  AttentionMask mask;
  bool causal;
  int64_t window;  // -1: none; else at most rows + keys
  double scale;

  // Of the keys that row i may see, before the mask; inside [0, keys] also where there are none.
  Range keys_of(int64_t i) const {
    const int64_t begin = window < 0 ? 0 : std::clamp<int64_t>(i - window + 1, 0, keys);
    const int64_t end = causal ? i + 1 : window < 0 ? keys : i + window;
    return {begin, std::max(begin, std::min(keys, end))};
  }
  // Of any row of [i0, i1): both ends of keys_of ascend.
  Range keys_of(int64_t i0, int64_t i1) const { return {keys_of(i0).begin, keys_of(i1 - 1).end}; }
  // Of the rows that may see any key of [j0, j1).
  Range rows_of(int64_t j0, int64_t j1) const {
    const int64_t first = causal ? j0 : window < 0 ? 0 : j0 - window + 1;
    const int64_t begin = std::clamp<int64_t>(first, 0, rows);
    const int64_t end = window < 0 ? rows : std::min(rows, j1 - 1 + window);
    return {begin, std::max(begin, end)};
  }
  int64_t acc_bytes() const { return static_cast<int64_t>(acc_bytes_of(dtype)); }
};

// Rows (keys, ld) of a key head as they are multiplied from: the tensor itself or a copy.
struct PackedRows {
  const void* data = nullptr;
  int64_t ld = 0;
};

// Results of rows of one head in the arithmetic type, (rows,) each; null: not asked for. out: in
// the element type, (rows, value_size).
struct AttentionOutput {
  void* out;
  void *lse, *entropy, *varentropy, *max_prob;
};

// What the gradient of one head is made from; null where it does not arrive, or is 0.
struct AttentionGrads {
  AttentionRows grad_output, output;  // at the head already: batch and head are 0
  const void *lse, *entropy, *varentropy;
  const void *grad_lse, *grad_entropy, *grad_varentropy;
};

struct AttentionKernels {
  // Whether rows of such a tensor can be multiplied from without a copy.
  bool (*direct)(DType dtype, int64_t size);
  // Keys [j0, j1), j0 a multiple of kPadKeys: turned, panel by panel, zeros behind the last.
  void (*pack_panels)(DType dtype, const void* rows, int64_t ld, int64_t size, int64_t j0,
                      int64_t j1, void* panels);
  // Rows [j0, j1), padded with zeros to a multiple of kPadSize.
  void (*pack_rows)(DType dtype, const void* rows, int64_t ld, int64_t size, int64_t j0, int64_t j1,
                    void* packed);
  // Rows [i0, i1), at most kBlockRows, of head (b, h). key_panels null: keys are turned on the way.
  // room: forward_room(a) bytes.
  void (*forward)(const Attention& a, const void* key_panels, const PackedRows& value, int64_t b,
                  int64_t h, int64_t i0, int64_t i1, const AttentionOutput& o, void* room);
  // received[j0, j1), at most kBlockKeys from a multiple of it, of head (b, h). Same room.
  void (*received)(const Attention& a, const void* key_panels, const void* lse, int64_t b,
                   int64_t h, int64_t j0, int64_t j1, void* received, void* room);
};

struct AttentionFewKernels {
  // What keys [j0, j1), j0 a multiple of kBlockKeys, give to all rows, at most kUnturnedRows, of
  // head (b, h): to a part of few_part(a) bytes. room: few_room(a) bytes.
  void (*pass)(const Attention& a, int64_t b, int64_t h, int64_t j0, int64_t j1, bool entropy,
               bool varentropy, void* part, void* room);
  // Results of a head from its parts, which are changed.
  void (*finish)(const Attention& a, void* parts, int64_t count, const AttentionOutput& o);
};

struct AttentionGradientKernels {
  // Adds what rows [i0, i1) of head (b, h) give to grad_key and grad_value (keys, padded size), and
  // writes their grad_query (rows, size), in the element type; null: not needed. room:
  // backward_room(a) bytes. value_panels and key are read for grad_query and grad_key only.
  void (*backward)(const Attention& a, const AttentionGrads& g, const void* key_panels,
                   const PackedRows& key, const void* value_panels, int64_t b, int64_t h,
                   int64_t i0, int64_t i1, void* grad_query, void* grad_key, void* grad_value,
                   void* room);
  // out[j, :size] = sum of parts[c][j] over `count` parts that lie `apart` elements from each
  // other.
  void (*add_parts)(DType dtype, const void* parts, int64_t count, int64_t apart, int64_t size,
                    int64_t j0, int64_t j1, void* out);
};

// Sums, three vectors and the maximum of a row.
inline int64_t running_size(const Attention& a, int64_t rows) {
  return rows * (pad_to(a.value_size, kPadSize) + 3 * kPadSize) + pad_to(rows, kPadSize);
}

inline int64_t forward_room(const Attention& a) {
  const int64_t size = pad_to(a.size, kPadSize);
  return (kBlockRows * size + (kGroupRows + size) * kBlockKeys + running_size(a, kBlockRows)) *
         a.acc_bytes();
}

inline int64_t few_part(const Attention& a) { return running_size(a, a.rows) * a.acc_bytes(); }

inline int64_t few_room(const Attention& a) {
  const int64_t sides = a.rows * pad_to(a.size, kPadSize);
  return (sides + (kUnturnedRows + pad_to(a.value_size, kPadSize)) * kBlockKeys) * a.acc_bytes();
}

// Between rows of scores in the backward, which reads columns of them: a power of two would have
// all of a column in 4 of the 64 sets of the L1.
constexpr int64_t kScoresLd = kBlockKeys + 16;

inline int64_t backward_room(const Attention& a) {
  const int64_t sides = 2 * pad_to(a.size, kPadSize) + pad_to(a.value_size, kPadSize);
  return kBlockRows * (sides + 2 * kScoresLd + kPadSize) * a.acc_bytes();
}

SYNOPS_KERNELS(AttentionKernels, attention)
SYNOPS_KERNELS(AttentionFewKernels, attention_few)
SYNOPS_KERNELS(AttentionGradientKernels, attention_gradient)

}  // namespace synops
