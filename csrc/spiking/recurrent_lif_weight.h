// The weight of recurrent_lif as its products read it: packed once a call.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "common/scratch.h"
#include "common/split.h"
#include "sparse/compressed.h"
#include "spiking/neuron_rows.h"
#include "spiking/recurrent_lif.h"

namespace synops {

// Of a row's numbers, the share above which it is multiplied as a whole. Below it the lists win
// also where a row has no others to share the panel with.
constexpr double kWholeAbove = 0.25;

// Checked; dense (P, P), or the values of a Pattern.
class RecurrentWeight {
 public:
  RecurrentWeight(const Tensor& weight, const OptionalTensor& crow, const OptionalTensor& col,
                  int64_t neurons, ScalarType type, const char* op)
      : n_(neurons), wide_(type == ScalarType::Double ? DType::kFloat64 : DType::kFloat32) {
    STD_TORCH_CHECK(crow.has_value() == col.has_value(), op, ": crow and col come together");
    dense_ = !crow.has_value();
    check_tensor(weight, type, dense_ ? 2 : 1, op, "weight");
    STD_TORCH_CHECK(n_ <= kMaxIndex, op, ": sizes must fit in int32");
    if (dense_) {
      check_size(weight.size(0), n_, op, "weight", "rows");
      check_size(weight.size(1), n_, op, "weight", "columns");
    } else {
      check_size(crow->size(0), n_ + 1, op, "crow", "size 0");
      rows_ = csr_of(*crow, *col, n_, op);
      check_size(weight.size(0), rows_.nnz, op, "weight", "size 0");
    }
    held_ = dense_of(weight);
  }

  bool dense() const { return dense_; }
  DType wide() const { return wide_; }
  int64_t entries() const { return dense_ ? n_ * n_ : rows_.nnz; }
  int64_t width() const { return recurrent_lif_kernels().width(wide_); }
  int64_t panels() const { return (n_ + width() - 1) / width(); }
  int64_t ld() const { return dense_ ? panels() * width() : n_; }  // of what a product adds to
  // Bytes of the panels of a matrix (n x n).
  size_t panel_bytes() const { return static_cast<size_t>(n_ * panels() * width()) * bytes(); }
  size_t bytes() const { return bytes_of(wide_); }

  // For products with the transpose (spikes), or with the matrix itself (gradients). `room`:
  // panel_bytes(), of a dense one. Whether all of a dense one's numbers are finite.
  bool pack(bool transposed, void* room, int64_t threads) {
    if (!dense_) return pack_entries(transposed), false;
    panels_ = room;
    const RecurrentLifKernels& kernels = recurrent_lif_kernels();
    std::vector<char> finite(panels(), 0);
    split(panels(), threads, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p)
        finite[p] = kernels.pack(wide_, held_.const_data_ptr(), n_, transposed, p, p + 1, room);
    });
    return std::all_of(finite.begin(), finite.end(), [](char f) { return f != 0; });
  }

  void multiply(const Product& product, int64_t threads) const {
    const RecurrentLifKernels& kernels = recurrent_lif_kernels();
    if (!dense_) return kernels.scatter(wide_, product, compressed_);
    split(panels(), threads, [&](int64_t begin, int64_t end) {
      kernels.multiply(wide_, product, panels_, begin, end);
    });
  }

  // The entries by columns, and where each is in the values.
  const Compressed& by_columns() const { return compressed_; }
  const std::vector<int32_t>& position() const { return position_; }

 private:
  void pack_entries(bool transposed) {
    if (!transposed) {
      compressed_ = {rows_.crow, rows_.col, held_.const_data_ptr()};
      return;
    }
    ptr_.assign(n_ + 1, 0), index_.resize(rows_.nnz), position_.resize(rows_.nnz);
    for (int64_t k = 0; k < rows_.nnz; ++k) ++ptr_[rows_.col[k] + 1];
    for (int64_t j = 0; j < n_; ++j) ptr_[j + 1] += ptr_[j];
    std::vector<int32_t> next(ptr_.begin(), ptr_.end() - 1);
    for (int64_t i = 0; i < n_; ++i)
      for (int32_t k = rows_.crow[i]; k < rows_.crow[i + 1]; ++k) {
        const int32_t to = next[rows_.col[k]]++;
        index_[to] = static_cast<int32_t>(i), position_[to] = k;
      }
    values_.resize(rows_.nnz * bytes());
    if (wide_ == DType::kFloat64)
      permute<double>();
    else
      permute<float>();
    compressed_ = {ptr_.data(), index_.data(), values_.data()};
  }
  template <class A>
  void permute() {
    const A* const from = static_cast<const A*>(held_.const_data_ptr());
    A* const to = reinterpret_cast<A*>(values_.data());
    for (int64_t k = 0; k < rows_.nnz; ++k) to[k] = from[position_[k]];
  }

  int64_t n_;
  DType wide_;
  bool dense_;
  Csr rows_{};
  Tensor held_;
  void* panels_ = nullptr;
  std::vector<int32_t> ptr_, index_, position_;
  std::vector<char> values_;
  Compressed compressed_{};
};

// How the rows of a batch are split: over threads as they are; or one after another, with the
// panels of a product split in each step, where there are fewer rows than threads and a step is
// worth it.
struct RecurrentThreads {
  int64_t rows, panels;
};

inline RecurrentThreads threads_of(int64_t steps, int64_t rows, int64_t entries) {
  const int64_t step = rows * entries / 16;  // multiply-adds, at a rate of 6 %
  const int64_t by_rows = std::min(rows, threads_for(steps * step)), inside = threads_for(step);
  return by_rows < inside ? RecurrentThreads{1, inside} : RecurrentThreads{by_rows, 1};
}

}  // namespace synops
