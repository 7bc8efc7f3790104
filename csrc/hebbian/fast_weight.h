// A call of delta_rule on tensors, checked: which of key and value indexes the rows of the weight
// that is walked, where heads begin, and slices of the weight as items for threads.
#pragma once

#include <cmath>
#include <cstring>

#include "common/scratch.h"
#include "common/split.h"
#include "common/tensor.h"
#include "hebbian/delta_rule.h"

namespace synops {

using OptionalTensor = std::optional<Tensor>;

// As numbered in python/synops/hebbian/_delta_rule.py.
enum class FastWeightRule : int64_t { kDelta, kHebb, kOja };

// (B, H, T, D) or (B, H, T) as the kernels read it. Holds a copy where D is strided.
class HeadLines {
 public:
  HeadLines() = default;
  HeadLines(const OptionalTensor& t, int64_t bytes) : bytes_(bytes) {
    if (!t.has_value()) return;
    held_ =
        t->dim() == 4 && t->size(3) > 1 && t->stride(3) != 1 ? torch::stable::contiguous(*t) : *t;
    heads_ = held_.size(1);
    data_ = static_cast<char*>(held_.numel() == 0 ? nullptr : held_.mutable_data_ptr());
    batch_step_ = held_.stride(0), head_step_ = held_.stride(1), step_ = held_.stride(2);
  }
  Line of(int64_t head) const {
    const OutLine line = out(head);
    return {line.at, line.step};
  }
  OutLine out(int64_t head) const {
    if (data_ == nullptr) return {};
    const int64_t at = head / heads_ * batch_step_ + head % heads_ * head_step_;
    return {data_ + at * bytes_, step_};
  }
  bool there() const { return data_ != nullptr; }

 private:
  Tensor held_;
  int64_t bytes_ = 0, heads_ = 1, batch_step_ = 0, head_step_ = 0, step_ = 0;
  char* data_ = nullptr;
};

class FastWeight {
 public:
  FastWeight(const Tensor& query, const Tensor& key, const Tensor& value,
             const OptionalTensor& beta, const OptionalTensor& decay, double scale, int64_t rule,
             const char* op)
      : op(op),
        type(query.scalar_type()),
        wide(dtype_of(query, op, "query")),
        bytes(static_cast<int64_t>(bytes_of(wide))),
        scale(scale),
        rule(static_cast<FastWeightRule>(rule)) {
    STD_TORCH_CHECK(!is_half(wide), op, ": query must be float32 or float64");
    STD_TORCH_CHECK(rule >= 0 && rule <= 2, op, ": rule must be 0, 1 or 2, got ", rule);
    check_tensor(query, type, 4, op, "query");
    check_tensor(value, type, 4, op, "value");
    batch = query.size(0), heads = query.size(1), steps = query.size(2), keys = query.size(3);
    values = value.size(3);
    check(key, 4, keys, "key");
    check(value, 4, values, "value");
    check_numbers(beta, "beta");
    check_numbers(decay, "decay");
  }

  // (B, H, T, size) or (B, H, T).
  void check(const Tensor& t, int64_t dim, int64_t size, const char* name) const {
    check_tensor(t, type, dim, op, name);
    check_size(t.size(0), batch, op, name, "batch");
    check_size(t.size(1), heads, op, name, "heads");
    check_size(t.size(2), steps, op, name, "steps");
    if (dim == 4) check_size(t.size(3), size, op, name, "size");
  }
  void check_numbers(const OptionalTensor& t, const char* name) const {
    if (t.has_value()) check(*t, 3, 0, name);
  }
  void check_series(const OptionalTensor& t, int64_t size, const char* name) const {
    if (t.has_value()) check(*t, 4, size, name);
  }
  void check_state(const OptionalTensor& t, const char* name) const {
    if (!t.has_value()) return;
    check_tensor(*t, type, 4, op, name);
    const int64_t sizes[] = {batch, heads, keys, values};
    const char* const axes[] = {"batch", "heads", "rows", "columns"};
    for (int i = 0; i < 4; ++i) check_size(t->size(i), sizes[i], op, name, axes[i]);
  }

  HeadLines lines(const OptionalTensor& t) const { return HeadLines(t, bytes); }
  Tensor series(int64_t size) const { return empty({batch, heads, steps, size}, type); }
  Tensor state() const { return empty({batch, heads, keys, values}, type); }

  bool oja() const { return rule == FastWeightRule::kOja; }
  // Whether what is written depends on the weight.
  bool corrects() const { return rule != FastWeightRule::kHebb; }
  // The error is of the size of what is learned: values, of "oja" keys.
  int64_t error_size() const { return oja() ? keys : values; }

  // f(head, first column, columns, slice) for every slice of the weight of every head, which is
  // (keys, values) or, `turned`, (values, keys): it begins as `from` (null: 0) and is written to
  // `to` (null: not), both (B, H, keys, values).
  template <class F>
  void for_slices(bool turned, const OptionalTensor& from, const OptionalTensor& to, F&& f) const {
    const int64_t rows = turned ? values : keys, columns = turned ? keys : values;
    const int64_t lanes = fast_weight_kernels().lanes(wide), width = lanes * vectors(columns);
    const int64_t slices = (columns + width - 1) / width, items = batch * heads * slices;
    if (items == 0 || rows == 0) return;
    split(items, threads_for(batch * heads * steps * rows * columns),
          [&](int64_t begin, int64_t end) {
            Scratch room(rows * width * bytes);
            for (int64_t item = begin; item < end; ++item) {
              const int64_t head = item / slices, first = item % slices * width;
              const int64_t count = std::min(width, columns - first);
              const int64_t wide_by = (count + lanes - 1) / lanes * lanes;
              std::memset(room.data(), 0, rows * wide_by * bytes);
              if (from.has_value())
                move(*from, true, turned, head, first, count, wide_by, room.data());
              f(head, first, count, room.data());
              if (to.has_value())
                move(*to, false, turned, head, first, count, wide_by, room.data());
            }
          });
  }

  // Elements `first` and later of a line.
  Line part(Line line, int64_t first) const {
    return {line.at == nullptr ? nullptr : static_cast<const char*>(line.at) + first * bytes,
            line.step};
  }
  OutLine part(OutLine line, int64_t first) const {
    return {line.at == nullptr ? nullptr : static_cast<char*>(line.at) + first * bytes, line.step};
  }

  const char* op;
  const ScalarType type;
  const DType wide;
  const int64_t bytes;
  const double scale;
  const FastWeightRule rule;
  int64_t batch, heads, steps, keys, values;

 private:
  // Vectors of a slice: as many sums as registers hold, fewer where there are few heads to share
  // out. Nothing of it goes by the number of threads: the sums over rows differ with it.
  int64_t vectors(int64_t columns) const {
    const int64_t most = fast_weight_kernels().most_vectors();
    const int64_t lanes = fast_weight_kernels().lanes(wide);
    const int64_t needed = std::max<int64_t>(1, (columns + lanes - 1) / lanes);
    return std::min(batch * heads < 2 ? std::max<int64_t>(1, most / 2) : most, needed);
  }

  void move(const Tensor& state, bool in, bool turned, int64_t head, int64_t first, int64_t count,
            int64_t width, void* slice) const {
    const int64_t rows = turned ? values : keys;
    const int64_t by_row = state.stride(turned ? 3 : 2), by_column = state.stride(turned ? 2 : 3);
    const int64_t at = head / heads * state.stride(0) + head % heads * state.stride(1);
    const auto as = [&](auto* p, auto* s) {
      p += at + first * by_column;
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < count; ++j) {
          auto &outside = p[i * by_row + j * by_column], &inside = s[i * width + j];
          in ? inside = outside : outside = inside;
        }
    };
    void* const data = state.mutable_data_ptr();
    wide == DType::kFloat64 ? as(static_cast<double*>(data), static_cast<double*>(slice))
                            : as(static_cast<float*>(data), static_cast<float*>(slice));
  }
};

}  // namespace synops
