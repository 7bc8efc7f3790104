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

// Of a row's numbers, the share above which it is multiplied as a whole: 1024 neurons in 32 or 128
// rows break even at .48, one row at .9.
constexpr double kWholeAbove = 0.5;

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
    if (!dense_) {
      sort_by_columns();
      const Compressed by_rows{rows_.crow, rows_.col, held_.const_data_ptr()};
      listed_ = transposed ? columns_ : by_rows, gathered_ = columns_;
      return false;
    }
    panels_ = room;
    const RecurrentLifKernels& kernels = recurrent_lif_kernels();
    std::vector<char> finite(panels(), 0);
    split(panels(), threads, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p)
        finite[p] = kernels.pack(wide_, held_.const_data_ptr(), n_, transposed, p, p + 1, room);
    });
    return std::all_of(finite.begin(), finite.end(), [](char f) { return f != 0; });
  }

  // With the values of a Pattern, whole rows are for the matrix itself only.
  void multiply(const Product& product, int64_t threads) const {
    if (dense_) {
      const RecurrentLifKernels& kernels = recurrent_lif_kernels();
      return split(panels(), threads, [&](int64_t begin, int64_t end) {
        kernels.multiply(wide_, product, panels_, begin, end);
      });
    }
    const int64_t* const count = product.left.count;
    const auto whole = std::count_if(count, count + product.rows, [](int64_t c) { return c < 0; });
    const RecurrentEntriesKernels& kernels = recurrent_entries_kernels();
    if (whole < product.rows) kernels.scatter(wide_, product, listed_);
    if (whole == 0) return;
    Scratch room(static_cast<size_t>(64 * n_) * bytes());
    kernels.gather(wide_, product, gathered_, room.data());
  }

  // The largest share of a row's numbers that is better listed, in the backward of a batch of so
  // many rows. Of a Pattern an entry costs .7 ns listed, and for a whole vector of rows 1.
  double listed(int64_t rows) const {
    return dense_ ? kWholeAbove : 0.02 + 1 / static_cast<double>(std::max<int64_t>(1, rows));
  }

  // The entries by columns, and where each is in the values.
  const Compressed& by_columns() const { return columns_; }
  const std::vector<int32_t>& position() const { return position_; }

 private:
  void sort_by_columns() {
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
    columns_ = {ptr_.data(), index_.data(), values_.data()};
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
  Compressed columns_{}, listed_{}, gathered_{};
};

// The most rows that go through all steps together: what they add up and a panel fit the L2.
constexpr int64_t kRowTile = 64;

// How the rows of a batch are split: in tiles over threads; or, where there are fewer rows than
// threads and a step is worth it, one after another with the panels of each product split.
struct RecurrentSplit {
  int64_t rows, tiles, row_threads, panel_threads;

  RecurrentSplit(int64_t steps, int64_t rows, int64_t entries) : rows(rows) {
    const int64_t step = rows * entries / 16;  // multiply-adds, at a rate of 6 %
    row_threads = std::clamp<int64_t>(threads_for(steps * step), 1, std::max<int64_t>(1, rows));
    panel_threads = threads_for(step);
    (row_threads < panel_threads ? row_threads : panel_threads) = 1;
    const int64_t round = kRowTile * row_threads;  // tiles are even: as many for each thread
    tiles = (rows + round - 1) / round * row_threads;
  }
  // f(first row, last row + 1)
  template <class F>
  void run(F&& f) const {
    split(tiles, row_threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) f(rows * i / tiles, rows * (i + 1) / tiles);
    });
  }
};

}  // namespace synops
