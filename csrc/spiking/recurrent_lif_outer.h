// The gradient of the weight of recurrent_lif: the sum over steps and rows of (gradient of the
// membranes) times (spikes of the step before), from lists of the latter.
#pragma once

#include <cstring>
#include <vector>

#include "spiking/recurrent_lif_weight.h"

namespace synops {

// Rows of a block: those of a panel (512 bytes each) fill half of the L2.
constexpr int64_t kOuterRows = 1024;

// Who spiked before a step. Row q of all is row q % rows of step q / rows.
struct SpikesBefore {
  int64_t rows, neurons;
  const char* membrane;
  int64_t stride_t, stride_r;  // of it, in bytes
  const void* threshold;       // of all neurons of a row
  bool inclusive;
  const char* first;  // (rows, neurons), before the first step; null: none
};

// What is in a block of rows, sorted by neuron.
class SortedEvents {
 public:
  SortedEvents(const SpikesBefore& s, DType wide, int64_t q0, int64_t q1, int64_t threads) {
    const int64_t n = s.neurons, size = static_cast<int64_t>(bytes_of(wide)), count = q1 - q0;
    const bool first = q0 < s.rows;
    Scratch room(count * n * sizeof(int32_t)), values(first ? count * n * size : 0);
    int32_t* const index = static_cast<int32_t*>(room.data());
    char* const value = first ? static_cast<char*>(values.data()) : nullptr;
    std::vector<int64_t> counts(count, 0);
    const RecurrentLifKernels& kernels = recurrent_lif_kernels();
    split(count, threads, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t before = q0 + r - s.rows;
        int32_t* const to = index + r * n;
        if (first)
          counts[r] = kernels.list(wide, s.first + (q0 + r) * n * size, 0, nullptr, n, n, to,
                                   value + r * n * size);
        else
          counts[r] = kernels.list_fired(
              wide, s.membrane + before / s.rows * s.stride_t + before % s.rows * s.stride_r,
              s.threshold, s.inclusive, n, to);
      }
    });
    ptr_.assign(n + 1, 0);
    for (int64_t r = 0; r < count; ++r)
      for (int64_t e = 0; e < counts[r]; ++e) ++ptr_[index[r * n + e] + 1];
    for (int64_t j = 0; j < n; ++j) ptr_[j + 1] += ptr_[j];
    row_.resize(ptr_[n]), value_.resize(first ? ptr_[n] * size : 0);
    std::vector<int64_t> next(ptr_.begin(), ptr_.end() - 1);
    for (int64_t r = 0; r < count; ++r)
      for (int64_t e = 0; e < counts[r]; ++e) {
        const int64_t to = next[index[r * n + e]]++;
        row_[to] = static_cast<int32_t>(r);
        if (first) std::memcpy(&value_[to * size], value + (r * n + e) * size, size);
      }
    events_ = {n, ptr_.data(), row_.data(), first ? value_.data() : nullptr};
  }
  const Events& events() const { return events_; }

 private:
  std::vector<int64_t> ptr_;
  std::vector<int32_t> row_;
  std::vector<char> value_;
  Events events_;
};

// f(first row, last row + 1) for the blocks of all rows before which somebody may have spiked.
template <class F>
void for_outer_blocks(const SpikesBefore& s, int64_t steps, F&& f) {
  const int64_t all = steps * s.rows;
  int64_t q = s.first == nullptr ? s.rows : 0;
  while (q < all) {
    const int64_t end = std::min(q + kOuterRows, q < s.rows ? s.rows : all);
    f(q, end);
    q = end;
  }
}

// (P, P), or (nnz,) of a Pattern. grad: (steps * rows, P).
inline Tensor weight_gradient(const SpikesBefore& s, RecurrentWeight& weight, const char* grad,
                              int64_t steps, ScalarType type) {
  const RecurrentLifKernels& kernels = recurrent_lif_kernels();
  const DType wide = weight.wide();
  const int64_t n = s.neurons, row = n * static_cast<int64_t>(weight.bytes());
  const int64_t threads = threads_for(steps * s.rows * weight.entries() / 16);
  const int64_t size = weight.dense() ? weight.panel_bytes() : weight.entries() * weight.bytes();
  Scratch sums(size);
  char* const sum = static_cast<char*>(sums.data());
  std::memset(sum, 0, size);
  if (weight.dense()) {
    const int64_t panel = n * weight.width() * static_cast<int64_t>(weight.bytes());
    for_outer_blocks(s, steps, [&](int64_t q0, int64_t q1) {
      const SortedEvents sorted(s, wide, q0, q1, threads);
      split(weight.panels(), threads, [&](int64_t begin, int64_t end) {
        Scratch room((q1 - q0) * weight.width() * weight.bytes());
        for (int64_t p = begin; p < end; ++p)
          kernels.add_outer(wide, sorted.events(), grad + q0 * row, q1 - q0, p, sum + p * panel,
                            room.data());
      });
    });
    const Tensor out = empty({n, n}, type);
    split(weight.panels(), threads, [&](int64_t begin, int64_t end) {
      kernels.unpack(wide, sum, n, begin, end, out.mutable_data_ptr());
    });
    return out;
  }
  weight.pack(true, nullptr, 1);
  for_outer_blocks(s, steps, [&](int64_t q0, int64_t q1) {
    const SortedEvents sorted(s, wide, q0, q1, threads);
    split(n, threads, [&](int64_t begin, int64_t end) {
      recurrent_entries_kernels().add_entries(wide, sorted.events(), grad + q0 * row, begin, end,
                                              weight.by_columns(), sum);
    });
  });
  const Tensor out = empty({weight.entries()}, type);
  char* const to = static_cast<char*>(out.mutable_data_ptr());
  const int64_t bytes = static_cast<int64_t>(weight.bytes());
  for (int64_t k = 0; k < weight.entries(); ++k)
    std::memcpy(to + weight.position()[k] * bytes, sum + k * bytes, bytes);
  return out;
}

}  // namespace synops
