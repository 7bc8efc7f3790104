// izhikevich (CPU): synapses in the order that spikes read them in, and the neurons of set bits.
#include <torch/csrc/stable/library.h>

#include <cstring>
#include <tuple>

#include "common/scratch.h"
#include "sparse/compressed.h"
#include "spiking/izhikevich.h"
#include "spiking/neuron_rows.h"

namespace synops {
namespace {

constexpr int64_t kDense = 1, kPacked = 3;

// Counts, then places: rows in order, so that targets ascend in every run.
template <class T, class F>
void pack(const Csr& w, int64_t ranges, int32_t* start, char* data, F&& of) {
  const int64_t n = w.rows, runs = ranges * n, width = range_width(n, ranges);
  std::fill_n(start, runs + 1, 0);
  for (int64_t i = 0; i < n; ++i) {
    int32_t* const counts = start + i / width + 1;
    for (int32_t j = w.crow[i]; j < w.crow[i + 1]; ++j) ++counts[w.col[j] * ranges];
  }
  for (int64_t k = 0; k < runs; ++k) start[k + 1] += start[k];
  Scratch room(static_cast<size_t>(runs) * sizeof(int32_t));
  int32_t* const next = static_cast<int32_t*>(room.data());
  std::copy_n(start, runs, next);
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t target = static_cast<uint16_t>(i % width);
    for (int32_t j = w.crow[i]; j < w.crow[i + 1]; ++j) {
      const int64_t run = w.col[j] * ranges + i / width, k = next[run]++ - start[run];
      T* const weights = reinterpret_cast<T*>(data + packed_at<sizeof(T)>(start[run], run));
      uint16_t* const targets =
          reinterpret_cast<uint16_t*>(weights + (start[run + 1] - start[run]));
      weights[k] = of(j);
      targets[k] = target;
    }
  }
}

template <class T, class F>
void lay_out(const Csr& w, int64_t ranges, int64_t layout, const Tensor& start,
             const Tensor& target, const Tensor& weight, F&& of) {
  if (layout == kPacked) {
    pack<T>(w, ranges, static_cast<int32_t*>(start.mutable_data_ptr()),
            static_cast<char*>(target.mutable_data_ptr()), of);
    return;
  }
  T* const to = static_cast<T*>(weight.mutable_data_ptr());
  std::fill_n(to, w.rows * w.rows, T(0));
  for (int64_t i = 0; i < w.rows; ++i)
    for (int32_t j = w.crow[i]; j < w.crow[i + 1]; ++j) to[w.col[j] * w.rows + i] = of(j);
}

std::tuple<Tensor, Tensor, Tensor> izhikevich_synapses(const Tensor& values, const Tensor& crow,
                                                       const Tensor& col, int64_t ranges,
                                                       int64_t layout) {
  constexpr const char* op = "izhikevich_synapses";
  const DType dtype = dtype_of(values, op, "values");
  check_tensor(values, values.scalar_type(), 1, op, "values");
  STD_TORCH_CHECK(crow.dim() == 1 && crow.size(0) > 0, op, ": crow must have shape (N + 1,)");
  const int64_t n = crow.size(0) - 1;
  const Csr w = csr_of(crow, col, n, op);
  STD_TORCH_CHECK(values.size(0) >= w.nnz, op, ": values must have ", w.nnz, " elements, got ",
                  values.size(0));
  STD_TORCH_CHECK(layout == kPacked || layout == kDense, op,
                  ": layout must be 1 or 3 on the CPU, got ", layout);
  STD_TORCH_CHECK(ranges >= 1 && ranges <= kMostRanges && range_width(n, ranges) <= kMostTargets &&
                      ranges * n < kMaxIndex,
                  op, ": ranges must be 1 to 256, of 65536 neurons at most, got ", ranges, " for ",
                  n);
  const bool dense = layout == kDense;
  STD_TORCH_CHECK(!dense || n <= kMostTargets, op, ": too many neurons for dense weights");
  const bool half = dtype == DType::kBFloat16;
  const ScalarType type = half ? ScalarType::BFloat16 : state_type(dtype);
  const Tensor start = empty({dense ? 0 : ranges * n + 1}, ScalarType::Int);
  const Tensor weight = dense ? empty({n, n}, type) : empty({0}, type);
  const int64_t words = packed_words(w.nnz, ranges * n, weight.element_size() / 2);
  const Tensor target = empty({dense ? 0 : words}, ScalarType::Short);
  // Runs lie anywhere, and each would need a page of 4 KB of its own.
  for (const Tensor& t : {target, weight}) in_huge_pages(t);
  torch::stable::fill_(target, 0);  // between runs
  const Tensor held = dense_of(values);
  const void* const from = held.const_data_ptr();
  const auto fill = [&](auto t) {
    using T = decltype(t);
    const T* const p = static_cast<const T*>(from);
    lay_out<T>(w, ranges, layout, start, target, weight, [p](int64_t j) { return p[j]; });
  };
  if (dtype == DType::kFloat64) {
    fill(double{});
  } else if (half) {
    fill(c10::BFloat16{});
  } else if (dtype == DType::kFloat16) {
    const c10::Half* const p = static_cast<const c10::Half*>(from);
    lay_out<float>(w, ranges, layout, start, target, weight,
                   [p](int64_t j) { return static_cast<float>(p[j]); });
  } else {
    fill(float{});
  }
  return {start, target, weight};
}

Tensor izhikevich_indices(const Tensor& bits, int64_t neurons) {
  constexpr const char* op = "izhikevich_indices";
  STD_TORCH_CHECK(bits.dim() >= 1, op, ": bits must have shape (..., words)");
  check_tensor(bits, ScalarType::Long, bits.dim(), op, "bits");
  const int64_t words = bits.size(bits.dim() - 1);
  STD_TORCH_CHECK(
      neurons >= 0 && neurons <= kMaxIndex && words == (neurons + kSpikeWord - 1) / kSpikeWord, op,
      ": bits must have ", (neurons + kSpikeWord - 1) / kSpikeWord, " words, got ", words);
  const Tensor held = dense_of(bits);
  const int64_t* const p = held.const_data_ptr<int64_t>();
  const int64_t all = held.numel();
  const uint64_t last =
      neurons % kSpikeWord == 0 ? ~uint64_t{0} : (uint64_t{1} << neurons % kSpikeWord) - 1;
  const auto word = [&](int64_t i) {
    return static_cast<uint64_t>(p[i]) & (i % words + 1 == words ? last : ~uint64_t{0});
  };
  int64_t count = 0;
  for (int64_t i = 0; i < all; ++i) count += __builtin_popcountll(word(i));
  const Tensor out = empty({count}, ScalarType::Int);
  int32_t* to = static_cast<int32_t*>(out.mutable_data_ptr());
  for (int64_t i = 0; i < all; ++i)
    for (uint64_t set = word(i); set != 0; set &= set - 1)
      *to++ = static_cast<int32_t>(i % words * kSpikeWord + __builtin_ctzll(set));
  return out;
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("izhikevich_synapses", TORCH_BOX(&synops::izhikevich_synapses));
  m.impl("izhikevich_indices", TORCH_BOX(&synops::izhikevich_indices));
}
