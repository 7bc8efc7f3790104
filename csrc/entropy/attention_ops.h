// What forward and backward of attention_with_stats share on tensors: checks, copies of keys and
// values that the kernels read, and the split of the work.
#pragma once

#include <atomic>
#include <cstring>
#include <optional>
#include <tuple>

#include "common/scratch.h"
#include "common/split.h"
#include "common/tensor.h"
#include "entropy/attention_with_stats.h"

namespace synops {

constexpr int64_t kMostSize = 256;

// The bits of a statistic in the op's argument, as python/synops/entropy/_stats.py numbers them.
constexpr int64_t kEntropy = 1 << 1, kVarentropy = 1 << 2, kMaxProb = 1 << 4, kReceived = 1 << 7;

// Itself, or a contiguous copy where its last dimension has gaps.
inline Tensor unit_rows(const Tensor& t) {
  return t.size(3) <= 1 || t.stride(3) == 1 ? t : torch::stable::contiguous(t);
}

inline AttentionRows head_rows(const Tensor& t) {
  return {t.const_data_ptr(), t.stride(0), t.stride(1), t.stride(2)};
}

// Checks everything; query, key and value with a last stride of 1.
Attention attention_of(const char* op, const Tensor& query, const Tensor& key, const Tensor& value,
                       const std::optional<Tensor>& attn_mask, bool is_causal, int64_t window,
                       double scale);

// f(item, room) for every item, `bytes` of room a thread. Threads take the next item when they are
// done with one: blocks of a causal attention differ 30-fold, and cores of a shared machine, too.
// An item writes its own results, so who takes it does not show.
template <class F>
void take_items(int64_t items, int64_t work, int64_t bytes, F&& f) {
  const int64_t threads = std::min(items, threads_for(work));
  std::atomic<int64_t> next = 0;
  split(threads, threads, [&](int64_t begin, int64_t end) {
    Scratch room(bytes);
    for (int64_t t = begin; t < end; ++t)
      for (int64_t i = next++; i < items; i = next++) f(i, room.data());
  });
}

// Keys or values of every key head, packed by blocks of keys in parallel.
class PackedHeads {
 public:
  enum class Form { kPanels, kRows, kNone };
  PackedHeads(const Attention& a, const AttentionRows& rows, int64_t size, Form form);
  const void* panels(int64_t b, int64_t kv_head) const { return at(b * a_.kv_heads + kv_head); }
  PackedRows rows(int64_t b, int64_t kv_head) const;

 private:
  void* at(int64_t head) const { return static_cast<char*>(packed_.data()) + head * head_bytes_; }
  const Attention& a_;
  const AttentionRows rows_;
  const bool direct_;  // read from where they are
  const int64_t size_, head_bytes_;
  Scratch packed_;
};

// What items give to the gradient of keys or values: each to a part of its own, `chunks` for a key
// head, which are added in order.
class GradientParts {
 public:
  GradientParts(const Attention& a, int64_t chunks, int64_t size, bool needed)
      : a_(a),
        chunks_(chunks),
        size_(size),
        bytes_(a.keys * pad_to(size, kPadSize) * a.acc_bytes()),
        parts_(needed ? a.batch * a.kv_heads * chunks * bytes_ : 0),
        needed_(needed) {}

  // Zeros.
  void* begin(int64_t item) const {
    if (!needed_) return nullptr;
    return std::memset(at(item), 0, bytes_);
  }

  void add_to(const Tensor& out) const {
    if (!needed_ || out.numel() == 0) return;
    const int64_t blocks = blocks_of(a_.keys, kBlockKeys), heads = a_.batch * a_.kv_heads;
    const int64_t out_bytes = a_.keys * size_ * static_cast<int64_t>(bytes_of(a_.dtype));
    char* to = static_cast<char*>(out.mutable_data_ptr());
    split(heads * blocks, threads_for(heads * a_.keys * size_), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t head = i / blocks, j = i % blocks * kBlockKeys;
        attention_gradient_kernels().add_parts(
            a_.dtype, at(head * chunks_), chunks_, bytes_ / a_.acc_bytes(), size_, j,
            std::min(a_.keys, j + kBlockKeys), to + head * out_bytes);
      }
    });
  }

 private:
  void* at(int64_t item) const { return static_cast<char*>(parts_.data()) + item * bytes_; }
  const Attention& a_;
  const int64_t chunks_, size_, bytes_;
  Scratch parts_;
  const bool needed_;
};

std::tuple<Tensor, Tensor, Tensor> attention_with_stats_backward(
    const std::optional<Tensor>& grad_output, const std::optional<Tensor>& grad_lse,
    const std::optional<Tensor>& grad_entropy, const std::optional<Tensor>& grad_varentropy,
    const Tensor& query, const Tensor& key, const Tensor& value,
    const std::optional<Tensor>& attn_mask, const Tensor& output, const Tensor& lse,
    const Tensor& entropy, const Tensor& varentropy, bool is_causal, int64_t window, double scale,
    bool need_query, bool need_key, bool need_value);

}  // namespace synops
