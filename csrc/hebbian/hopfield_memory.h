// What forward and backward of hopfield_retrieve share on tensors: arguments, checked, and how
// attention's kernels are told of rows of a head.
#pragma once

#include <cmath>
#include <vector>

#include "entropy/attention_ops.h"
#include "hebbian/hopfield_retrieve.h"

namespace synops {

class HopfieldMemory {
 public:
  HopfieldMemory(const char* op, const Tensor& state_in, const Tensor& patterns_in,
                 const std::optional<Tensor>& values_in, const Tensor& beta_in, int64_t steps)
      : dtype(dtype_of(state_in, op, "state")), type(state_in.scalar_type()), steps(steps) {
    check_tensor(state_in, type, 4, op, "state");
    check_tensor(patterns_in, type, 4, op, "patterns");
    check_tensor(beta_in, sum_type(), 1, op, "beta");
    STD_TORCH_CHECK(steps >= 1, op, ": steps must be at least 1, got ", steps);
    state_ = dense_of(state_in), patterns_ = unit_rows(patterns_in);
    batch = state_in.size(0), heads = state_in.size(1), rows = state_in.size(2);
    stored_batch = patterns_in.size(0), stored_heads = patterns_in.size(1);
    patterns = patterns_in.size(2), size = state_in.size(3), out_size = size;
    check_size(patterns_in.size(3), size, op, "patterns", "size 3");
    STD_TORCH_CHECK(patterns >= 1 && size >= 1, op, ": patterns must hold a number");
    STD_TORCH_CHECK((stored_batch == 1 || stored_batch == batch) &&
                        (stored_heads == 1 || stored_heads == heads),
                    op, ": patterns must broadcast with the batch and heads of state");
    if (values_in.has_value()) {
      check_tensor(*values_in, type, 4, op, "values");
      values_ = unit_rows(*values_in), out_size = values_in->size(3);
      for (int64_t d = 0; d < 3; ++d)
        check_size(values_in->size(d), patterns_in.size(d), op, "values", "a side");
      STD_TORCH_CHECK(out_size >= 1, op, ": values must hold a number");
    }
    updates = values_ ? steps - 1 : steps;
    STD_TORCH_CHECK(beta_in.size(0) == 1 || beta_in.size(0) == heads, op, ": beta must have 1 or ",
                    heads, " numbers, got ", beta_in.size(0));
    const Tensor beta = dense_of(beta_in);
    for (int64_t h = 0; h < beta.size(0); ++h) {
      beta_.push_back(number(beta.const_data_ptr(), h));
      STD_TORCH_CHECK(std::isfinite(beta_[h]) && beta_[h] > 0, op,
                      ": beta must be finite and above 0, got ", beta_[h]);
    }
  }

  ScalarType sum_type() const {
    return dtype == DType::kFloat64 ? ScalarType::Double : ScalarType::Float;
  }
  int64_t bytes() const { return static_cast<int64_t>(bytes_of(dtype)); }
  int64_t acc_bytes() const { return static_cast<int64_t>(acc_bytes_of(dtype)); }
  int64_t plane() const { return batch * heads * rows; }  // rows of all heads
  double beta_of(int64_t h) const { return beta_[beta_.size() == 1 ? 0 : h]; }
  bool projects() const { return values_.has_value(); }
  const char* state_row(int64_t row) const {
    return static_cast<const char*>(state_.const_data_ptr()) + row * size * bytes();
  }

  // Number i of an array in the type of sums.
  double number(const void* p, int64_t i) const {
    return dtype == DType::kFloat64 ? static_cast<const double*>(p)[i]
                                    : static_cast<double>(static_cast<const float*>(p)[i]);
  }
  void put(void* p, int64_t i, double value) const {
    if (dtype == DType::kFloat64)
      static_cast<double*>(p)[i] = value;
    else
      static_cast<float*>(p)[i] = static_cast<float>(value);
  }

  // Which of the stored heads (b, h) reads.
  int64_t stored_b(int64_t b) const { return stored_batch == 1 ? 0 : b; }
  int64_t stored_h(int64_t h) const { return stored_heads == 1 ? 0 : h; }

  // All patterns, and what they are associated with, for packing.
  Attention stored(bool project) const {
    Attention a = rows_of_head(0, 0, nullptr, 0, project);
    a.batch = stored_batch, a.heads = a.kv_heads = stored_heads;
    a.key = head_rows(patterns_), a.value = head_rows(project ? *values_ : patterns_);
    return a;
  }

  // `count` rows of head (b, h) side by side at `query`, on its patterns; to its values if
  // `project`. A head by itself: (0, 0).
  Attention rows_of_head(int64_t b, int64_t h, const void* query, int64_t count,
                         bool project) const {
    const auto at_head = [&](const Tensor& t) {
      AttentionRows from = head_rows(t);
      from.data =
          static_cast<const char*>(from.data) + from.at(stored_b(b), stored_h(h), 0) * bytes();
      from.batch = from.head = 0;
      return from;
    };
    Attention a{dtype,
                1,
                1,
                1,
                count,
                patterns,
                size,
                project ? out_size : size,
                {query, 0, 0, size},
                at_head(patterns_),
                at_head(project ? *values_ : patterns_),
                {},
                false,
                -1,
                beta_of(h)};
    return a;
  }

  const DType dtype;
  const ScalarType type;
  const int64_t steps;
  int64_t updates;  // steps to patterns: all, or all but the last
  int64_t batch, heads, rows, stored_batch, stored_heads, patterns, size, out_size;

 private:
  Tensor state_, patterns_;
  std::optional<Tensor> values_;
  std::vector<double> beta_;
};

std::tuple<Tensor, Tensor, Tensor, Tensor> hopfield_retrieve_backward(
    const std::optional<Tensor>& grad_output, const std::optional<Tensor>& grad_lse,
    const std::optional<Tensor>& grad_entropy, const std::optional<Tensor>& grad_half_norm,
    const Tensor& state, const Tensor& patterns, const std::optional<Tensor>& values,
    const Tensor& beta, const Tensor& output, const Tensor& lse, const Tensor& entropy,
    const Tensor& iterations, const Tensor& states, bool need_state, bool need_patterns,
    bool need_values, bool need_beta);

}  // namespace synops
