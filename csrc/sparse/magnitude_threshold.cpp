// magnitude_threshold (CPU): a bracket from a sample, one pass that counts against it, and a
// selection among the few per cent inside; kernels in magnitude_threshold.inc.
//
// The threshold is one of the magnitudes, so it does not depend on the order of anything.
#include "sparse/magnitude_threshold.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "common/scramble.h"
#include "common/scratch.h"
#include "common/split.h"
#include "common/tensor.h"

namespace synops {
namespace {

constexpr int64_t kPiece = 65536;  // numbers that one thread sifts at a time
// 4 standard deviations of the quantiles of 8192 bracket 3 % of all; they are chosen from in .1 ms,
// which is more than the rest for less than 32 times as many numbers.
constexpr int64_t kSample = 8192, kSparse = 32;
constexpr int64_t kBelowAll = kNaN - 1, kAboveAll = std::numeric_limits<int64_t>::max();

// Whether its memory is n numbers without gaps, in whatever order.
bool is_dense(const Tensor& t) {
  std::vector<std::pair<int64_t, int64_t>> sides;
  for (int64_t d = 0; d < t.dim(); ++d)
    if (t.size(d) != 1) sides.emplace_back(t.stride(d), t.size(d));
  std::sort(sides.begin(), sides.end());
  int64_t next = 1;
  for (const auto& [stride, size] : sides) {
    if (stride != next) return false;
    next *= size;
  }
  return true;
}

// Numbers of several tensors, in a row.
class Numbers {
 public:
  Numbers(const std::vector<Tensor>& tensors, const char* op) {
    STD_TORCH_CHECK(!tensors.empty(), op, ": tensors must not be empty");
    dtype = dtype_of(tensors[0], op, "tensors");
    for (const Tensor& t : tensors) {
      STD_TORCH_CHECK(t.is_cpu(), op, ": tensors must be on the CPU");
      STD_TORCH_CHECK(dtype_of(t, op, "tensors") == dtype, op, ": tensors must have one dtype");
      if (t.numel() == 0) continue;
      held_.push_back(is_dense(t) ? t : torch::stable::contiguous(t));
      first_.push_back(size);
      size += t.numel();
      for (int64_t begin = 0; begin < t.numel(); begin += kPiece)
        pieces_.push_back({at(held_.back(), begin), std::min(kPiece, t.numel() - begin)});
    }
  }

  int64_t key(int64_t i) const {
    const auto after = std::upper_bound(first_.begin(), first_.end(), i);
    const size_t which = static_cast<size_t>(after - first_.begin() - 1);
    return magnitude_kernels().key(dtype, held_[which].const_data_ptr(), i - first_[which]);
  }

  // Counts all against a bracket; the keys strictly inside it, in any order.
  std::vector<int64_t> sift(int64_t low, int64_t high, Census* census) const {
    const int64_t count = static_cast<int64_t>(pieces_.size());
    std::vector<std::vector<int64_t>> inside(pieces_.size());
    std::vector<Census> counts(pieces_.size());
    split(count, threads_for(size / 4), [&](int64_t begin, int64_t end) {
      Scratch room((kPiece + kSlack) * sizeof(int64_t));
      int64_t* keys = static_cast<int64_t*>(room.data());
      for (int64_t i = begin; i < end; ++i) {
        const auto [data, n] = pieces_[i];
        const int64_t found = magnitude_kernels().sift(dtype, data, n, low, high, &counts[i], keys);
        inside[i].assign(keys, keys + found);
      }
    });
    std::vector<int64_t> all;
    for (int64_t i = 0; i < count; ++i) {
      census->above += counts[i].above;
      census->at_high += counts[i].at_high;
      census->at_low += counts[i].at_low;
      all.insert(all.end(), inside[i].begin(), inside[i].end());
    }
    return all;
  }

  DType dtype;
  int64_t size = 0;

 private:
  struct Span {
    const void* data;
    int64_t n;
  };
  const void* at(const Tensor& t, int64_t i) const {
    return static_cast<const char*>(t.const_data_ptr()) + i * static_cast<int64_t>(bytes_of(dtype));
  }
  std::vector<Tensor> held_;
  std::vector<int64_t> first_;  // number of each tensor
  std::vector<Span> pieces_;
};

int64_t nth_largest(std::vector<int64_t>& keys, int64_t n) {
  std::nth_element(keys.begin(), keys.begin() + n, keys.end(), std::greater<>());
  return keys[n];
}

// Keys between which the n-th largest lies, in all likelihood.
std::pair<int64_t, int64_t> bracket(const Numbers& numbers, int64_t n) {
  if (numbers.size <= 4 * kSample) return {kBelowAll, kAboveAll};
  const int64_t sampled = std::min(kSample, numbers.size / kSparse);
  std::vector<int64_t> sample(sampled);
  for (int64_t i = 0; i < sampled; ++i)
    sample[i] = numbers.key(scrambled(i) % static_cast<uint64_t>(numbers.size));
  const double share = static_cast<double>(n) / static_cast<double>(numbers.size);
  const double margin = 4 * std::sqrt(static_cast<double>(sampled) * share * (1 - share)) + 2;
  const int64_t first = static_cast<int64_t>(static_cast<double>(sampled) * share - margin);
  const int64_t last = static_cast<int64_t>(static_cast<double>(sampled) * share + margin);
  return {last < sampled ? nth_largest(sample, last) : kBelowAll,
          first >= 0 ? nth_largest(sample, first) : kAboveAll};
}

// Key of the n-th largest, counted from 0.
int64_t select(const Numbers& numbers, int64_t n) {
  const auto [low, high] = bracket(numbers, n);
  Census census;
  std::vector<int64_t> inside = numbers.sift(low, high, &census);
  int64_t rest = n - census.above;
  Census unused;
  if (rest < 0) {  // the sample was unlucky: all that lie on that side
    inside = numbers.sift(high, kAboveAll, &unused);
    return nth_largest(inside, n);
  }
  if (rest < census.at_high) return high;
  rest -= census.at_high;
  if (rest < static_cast<int64_t>(inside.size())) return nth_largest(inside, rest);
  rest -= static_cast<int64_t>(inside.size());
  if (rest < census.at_low) return low;
  inside = numbers.sift(kBelowAll, low, &unused);
  return nth_largest(inside, rest - census.at_low);
}

Tensor magnitude_threshold(const std::vector<Tensor>& tensors, int64_t keep, bool strict) {
  constexpr const char* op = "magnitude_threshold";
  const Numbers numbers(tensors, op);
  STD_TORCH_CHECK(keep >= 0 && keep <= numbers.size, op, ": keep must lie in [0, ", numbers.size,
                  "], got ", keep);
  const Tensor out = empty({}, tensors[0].scalar_type());
  const MagnitudeKernels& k = magnitude_kernels();
  if (strict ? keep == numbers.size : keep == 0) {
    torch::stable::fill_(out, strict ? -std::numeric_limits<double>::infinity()
                                     : std::numeric_limits<double>::infinity());
    return out;
  }
  k.number(numbers.dtype, select(numbers, strict ? keep : keep - 1), out.mutable_data_ptr());
  return out;
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("magnitude_threshold", TORCH_BOX(&synops::magnitude_threshold));
}
