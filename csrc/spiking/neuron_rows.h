// Neurons as the ops on tensors see them: (T, R, P), time, rows and neurons of a row.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <optional>

#include "common/split.h"
#include "common/tensor.h"

namespace synops {

using OptionalTensor = std::optional<Tensor>;

inline ScalarType state_type(DType dtype) {
  return dtype == DType::kFloat64 ? ScalarType::Double : ScalarType::Float;
}

// What is as large as the caches is written past them.
constexpr int64_t kStreamedBytes = int64_t{8} << 20;

// Asks for pages of 2 MB where whole ones lie in the tensor; it may be refused.
inline void in_huge_pages(const Tensor& t) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t{2} << 20;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(t.mutable_data_ptr());
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage;
  const uintptr_t end = (begin + static_cast<size_t>(t.numel()) * t.element_size()) / kPage * kPage;
  if (end > first) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
#else
  static_cast<void>(t);
#endif
}

// (T, R, P) with undefined contents, in huge pages where there are such: fresh memory costs a fault
// for each of its pages, and with 4 KB each the faults take longer than the kernel (glibc's default
// allocator, 100 x 128 x 1024 float32: 33.5 ms with them, 12.6 without).
inline Tensor empty_series(int64_t steps, int64_t rows, int64_t neurons, ScalarType type) {
  const Tensor out = empty({steps, rows, neurons}, type);
  if (static_cast<int64_t>(out.numel() * out.element_size()) >= kStreamedBytes) in_huge_pages(out);
  return out;
}

// (T, R, P), or (R, P) without time, with the neurons of a row side by side; a copy of what is not.
inline Tensor series_of(const Tensor& t, ScalarType type, int64_t dim, const char* op,
                        const char* name) {
  check_tensor(t, type, dim, op, name);
  return t.stride(dim - 1) == 1 || t.size(dim - 1) <= 1 ? t : torch::stable::contiguous(t);
}

// Sizes of a tensor are those of a step, (R, P).
inline void check_step(const Tensor& t, int64_t rows, int64_t neurons, const char* op,
                       const char* name) {
  check_size(t.size(t.dim() - 2), rows, op, name, "rows");
  check_size(t.size(t.dim() - 1), neurons, op, name, "neurons");
}

// A state (R, P), dense; null where there is none. `held` keeps its memory.
inline const void* state_of(const OptionalTensor& t, ScalarType type, int64_t rows, int64_t neurons,
                            Tensor& held, const char* op, const char* name) {
  if (!t.has_value()) return nullptr;
  check_tensor(*t, type, 2, op, name);
  check_step(*t, rows, neurons, op, name);
  held = dense_of(*t);
  return held.const_data_ptr();
}

// () or (P,): a number for all neurons, or one for each of a row.
struct NeuronParameter {
  NeuronParameter(const Tensor& t, ScalarType type, int64_t neurons, const char* op,
                  const char* name)
      : single(t.dim() == 0), bytes(type == ScalarType::Double ? 8 : 4) {
    check_tensor(t, type, single ? 0 : 1, op, name);
    if (!single) check_size(t.size(0), neurons, op, name, "size 0");
    held = dense_of(t);
    data = held.const_data_ptr();
    period = neurons;
  }
  // Those of `count` neurons from the i-th on, where rows follow one another.
  void fill(int64_t i, int64_t count, void* to) const {
    if (bytes == 8)
      fill_as<double>(i, count, static_cast<double*>(to));
    else
      fill_as<float>(i, count, static_cast<float*>(to));
  }
  template <class A>
  void fill_as(int64_t i, int64_t count, A* to) const {
    const A* from = static_cast<const A*>(data);
    if (single) return void(std::fill_n(to, count, *from));
    for (int64_t at = i % period; count > 0; at = 0) {
      const int64_t n = std::min(count, period - at);
      std::copy_n(from + at, n, to);
      to += n;
      count -= n;
    }
  }

  bool single;
  int64_t bytes, period;
  Tensor held;
  const void* data;
};

// Tiles of neurons that lie side by side in every series, each for one call of a kernel.
class NeuronTiles {
 public:
  // `most`: of a tile.
  NeuronTiles(int64_t rows, int64_t neurons, int64_t most)
      : rows_(neurons == 0 ? 0 : rows), neurons_(neurons), most_(most) {}

  // Whether the rows of (T, R, P) are one; else it is walked row by row.
  void see(const Tensor& t) {
    if (t.stride(1) != t.size(2) && t.size(1) > 1) dense_ = false;
  }

  // Each row by itself: where what is written has none that follow one another.
  void row_by_row() { dense_ = false; }

  // f(row, first of the row, count) over threads.
  template <class F>
  void run(int64_t threads, F&& f) const {
    const int64_t rows = dense_ ? std::min<int64_t>(rows_, 1) : rows_;
    const int64_t length = dense_ ? rows_ * neurons_ : neurons_;
    // a share for each of 16 threads, down to four lines of float32
    const int64_t width = std::clamp<int64_t>((length * rows / 16 + 63) / 64 * 64, 64, most_);
    const int64_t tiles = (length + width - 1) / width;
    split(rows * tiles, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i % tiles * width;
        f(i / tiles, first, std::min(width, length - first));
      }
    });
  }
  // Where the neurons of a tile begin, counted over all rows.
  int64_t index(int64_t row, int64_t first) const {
    return dense_ ? first : row * neurons_ + first;
  }

 private:
  int64_t rows_, neurons_, most_;
  bool dense_ = true;
};

}  // namespace synops
