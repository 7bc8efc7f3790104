// Rows of logits, their labels, and how threads share them, as token_stats and its gradient see
// them.
#pragma once

#include <algorithm>
#include <optional>

#include "common/split.h"
#include "common/tensor.h"
#include "entropy/token_stats.h"

namespace synops {

constexpr int64_t kPiece = 32768;  // logits of a row that one thread reads at a time
constexpr int64_t kRows = 256;     // short rows, likewise

// Logits (B, T, V), whose rows may lie anywhere; each is contiguous.
struct LogitRows {
  LogitRows(const Tensor& t, const char* op) : dtype(dtype_of(t, op, "logits")) {
    STD_TORCH_CHECK(t.is_cpu(), op, ": logits must be on the CPU");
    STD_TORCH_CHECK(t.dim() == 3, op, ": logits must have 3 dimensions, got ", t.dim());
    tensor = t.stride(2) == 1 || t.size(2) <= 1 ? t : torch::stable::contiguous(t);
    inner = t.size(1);
    count = t.size(0) * inner;
    vocabulary = t.size(2);
    data = static_cast<char*>(const_cast<void*>(tensor.data_ptr()));
  }
  int64_t offset(int64_t row) const {
    return row / inner * tensor.stride(0) + row % inner * tensor.stride(1);
  }
  char* at(int64_t row, int64_t k = 0) const {
    return data + (offset(row) + k) * static_cast<int64_t>(bytes_of(dtype));
  }
  // Rows from `row` on, at most `most`, that are a constant step apart.
  int64_t run(int64_t row, int64_t most) const {
    const bool even = tensor.stride(0) == inner * tensor.stride(1);
    return std::min(most, even ? count - row : inner - row % inner);
  }

  ScalarType stats_type() const {
    return dtype == DType::kFloat64 ? ScalarType::Double : ScalarType::Float;
  }

  DType dtype;
  Tensor tensor;
  int64_t inner, count, vocabulary;
  char* data;
};

// Labels in [0, vocabulary), or ignored. `held` keeps their memory.
inline Labels labels_of(const std::optional<Tensor>& labels, int64_t ignore_index,
                        const LogitRows& rows, Tensor& held, const char* op) {
  if (!labels.has_value()) return {nullptr, ignore_index};
  check_tensor(*labels, ScalarType::Long, 2, op, "labels");
  check_size(labels->size(0), rows.tensor.size(0), op, "labels", "size 0");
  check_size(labels->size(1), rows.inner, op, "labels", "size 1");
  held = dense_of(*labels);
  const int64_t* y = held.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < rows.count; ++i)
    STD_TORCH_CHECK((y[i] >= 0 && y[i] < rows.vocabulary) || y[i] == ignore_index, op,
                    ": labels must lie in [0, ", rows.vocabulary, "), got ", y[i]);
  return {y, ignore_index};
}

// f(row, count) for runs of at most kRows rows a constant step apart, over threads.
template <class F>
void by_rows(const LogitRows& rows, int64_t threads, F&& f) {
  split(rows.count, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end;) {
      const int64_t count = rows.run(row, std::min(end - row, kRows));
      f(row, count);
      row += count;
    }
  });
}

}  // namespace synops
