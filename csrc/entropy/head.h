// A language-model head as linear_token_stats and its gradients read it: checked, and its tokens
// packed once. A tile of the weight is packed by whoever needs it. Few tokens are not worth it:
// they and the weight are read as they are (few_tokens.h).
#pragma once

#include <cmath>
#include <memory>
#include <optional>
#include <tuple>

#include "common/arrays.h"
#include "common/scratch.h"
#include "common/split.h"
#include "common/tensor.h"
#include "entropy/linear_token_stats.h"

namespace synops {

// Which statistics: bits of python/synops/entropy/_stats.py.
enum StatBit : int64_t {
  kLogprob = 1,
  kEntropy = 2,
  kVarentropy = 4,
  kLse = 8,
  kMaxProb = 16,
  kCollision = 32,
  kPlogp2 = 64,
};

// Rows of `saved`, (kSaved, tokens): what the backward needs of a row of logits.
enum Saved : int64_t { kMax, kLogSum, kSavedEntropy, kSavedVarentropy, kSavedCollision, kPicked };
constexpr int64_t kSaved = 6;

class Head {
 public:
  Head(const Tensor& hidden, const Tensor& weight, const std::optional<Tensor>& labels,
       const std::optional<Tensor>& bias, double temperature, const char* op)
      : dtype(dtype_of(hidden, op, "hidden")),
        acc_bytes(static_cast<int64_t>(acc_bytes_of(dtype))),
        temperature(temperature),
        k(linear_token_stats_kernels()),
        width(k.width(dtype)),
        type_(hidden.scalar_type()) {
    check_tensor(hidden, type_, 2, op, "hidden");
    check_tensor(weight, type_, 2, op, "weight");
    check_size(weight.size(1), hidden.size(1), op, "weight", "size 1");
    STD_TORCH_CHECK(std::isfinite(temperature) && temperature > 0, op,
                    ": temperature must be finite and above 0, got ", temperature);
    tokens = hidden.size(0), features = hidden.size(1), vocabulary = weight.size(0);
    if (labels.has_value()) {
      check_tensor(*labels, ScalarType::Long, 1, op, "labels");
      check_size(labels->size(0), tokens, op, "labels", "size 0");
      labels_ = dense_of(*labels);
    }
    if (bias.has_value()) {
      check_tensor(*bias, type_, 1, op, "bias");
      check_size(bias->size(0), vocabulary, op, "bias", "size 0");
      bias_ = dense_of(*bias);
    }
    hidden_ = rows_of(hidden), weight_ = rows_of(weight);
    pairs = dtype == DType::kBFloat16 && features % 2 == 0 && k.pairs();
    depth = pairs ? features / 2 : features;
    panels = (tokens + width - 1) / width;
    few = tokens <= k.few(dtype);
    const int64_t group = k.group(dtype);
    const int64_t bytes = std::max<int64_t>(1, group * depth * acc_bytes);
    tile_rows = group * std::clamp<int64_t>(kTileBytes / bytes, 1, kMostGroups);
    tiles = (vocabulary + tile_rows - 1) / tile_rows;
  }

  // At least one of what a driver divides by or steps through.
  int64_t padded() const { return panels * width; }
  int64_t work() const { return tokens * std::max<int64_t>(1, features) * vocabulary; }
  const int64_t* labels() const {
    return labels_.has_value() ? static_cast<const int64_t*>(labels_->data_ptr()) : nullptr;
  }
  int64_t label(int64_t token) const { return labels()[token]; }

  HeadRows hidden_rows(int64_t first) const { return rows(*hidden_, first, 0); }
  HeadRows weight_rows(int64_t first, int64_t column = 0) const {
    return rows(*weight_, first, column);
  }

  // Bytes of `count` rows or columns, packed `depth` deep in panels or groups.
  int64_t packed_bytes(int64_t count, int64_t of, int64_t deep) const {
    return ((count + of - 1) / of * of * deep + k.slack(dtype)) * acc_bytes;
  }
  int64_t hidden_bytes() const { return packed_bytes(tokens, width, depth); }
  // A tile with its bias.
  int64_t tile_bytes() const {
    return static_cast<int64_t>(Scratch::round_up(packed_bytes(tile_rows, k.group(dtype), depth))) +
           tile_rows * acc_bytes;
  }

  HeadPanels pack_hidden(void* out) const {
    if (few) {
      for (int64_t i = 0; i < tokens; ++i) {
        const void* row = hidden_rows(i).data;
        char* to = static_cast<char*>(out) + i * depth * acc_bytes;
        if (pairs)
          std::memcpy(to, row, depth * acc_bytes);
        else
          array_kernels().widen(dtype, row, features, to);
      }
      return {out, depth, tokens};
    }
    split(panels, threads_for(tokens * features), [&](int64_t begin, int64_t end) {
      // Panels are stored exactly: no thread writes into another's.
      k.pack_panels(hidden_rows(begin * width), pairs,
                    std::min(end * width, tokens) - begin * width, depth,
                    static_cast<char*>(out) + begin * width * depth * acc_bytes);
    });
    return {out, depth, tokens};
  }

  HeadTile pack_tile(int64_t tile, void* out) const {
    const int64_t first = tile * tile_rows, count = std::min(tile_rows, vocabulary - first);
    char* bias =
        static_cast<char*>(out) + Scratch::round_up(packed_bytes(tile_rows, k.group(dtype), depth));
    const HeadRows rows = weight_rows(first);
    if (!few) k.pack_groups(rows, pairs, count, depth, out);
    std::memset(bias, 0, tile_rows * acc_bytes);
    if (bias_.has_value())
      array_kernels().widen(dtype,
                            static_cast<const char*>(bias_->data_ptr()) +
                                first * static_cast<int64_t>(bytes_of(dtype)),
                            count, bias);
    const HeadRows next = weight_rows(first + count);
    return {few ? rows.data : out,
            !few,
            bias,
            first,
            count,
            first + count < vocabulary ? next.data : nullptr,
            rows.ld * static_cast<int64_t>(bytes_of(dtype))};
  }

  const DType dtype;
  const int64_t acc_bytes;
  const double temperature;
  const LinearTokenStatsKernels& k;
  const int64_t width;
  int64_t tokens, features, vocabulary, depth, panels, tile_rows, tiles;
  bool pairs, few;

 private:
  // A tile and a panel share L2, 1 MB on a Zen 4 core; 8 groups of logits share L1 with them.
  static constexpr int64_t kTileBytes = 480 << 10, kMostGroups = 8;

  HeadRows rows(const Tensor& t, int64_t first, int64_t column) const {
    const int64_t at = first * t.stride(0) + column;
    return {dtype,
            static_cast<const char*>(t.data_ptr()) + at * static_cast<int64_t>(bytes_of(dtype)),
            t.stride(0)};
  }

  const ScalarType type_;
  std::optional<Tensor> hidden_, weight_, labels_, bias_;
};

// The gradients of hidden, weight and bias; 0-size where not needed.
std::tuple<Tensor, Tensor, Tensor> linear_token_stats_backward(
    const Tensor& hidden, const Tensor& weight, const std::optional<Tensor>& labels,
    const std::optional<Tensor>& bias, const Tensor& saved,
    const std::optional<Tensor>& grad_logprob, const std::optional<Tensor>& grad_entropy,
    const std::optional<Tensor>& grad_varentropy, const std::optional<Tensor>& grad_lse,
    const std::optional<Tensor>& grad_collision, double temperature, bool need_hidden,
    bool need_weight, bool need_bias);

}  // namespace synops
