// grow_topk of scores that exist (CPU): a bracket around the k-th best from a sample, one pass that
// collects what may be among them, and a selection among the per cent in doubt; kernels in
// grow_topk_dense.inc.
//
// What is found stays in the order of positions, so the result is, too, and needs no sort.
#include "sparse/grow_topk_dense.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "common/scramble.h"
#include "common/scratch.h"
#include "common/split.h"
#include "sparse/sorted.h"

namespace synops {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Scores {
  DType dtype;
  const char* data;
  int64_t row_bytes;
  const Csr& w;
  const uint8_t* pruned;  // by entry; the others are no candidates

  const char* row(int64_t n) const { return data + n * row_bytes; }
  bool absent(int64_t n, int64_t c) const {
    const int32_t *begin = w.col + w.crow[n], *end = w.col + w.crow[n + 1];
    const int32_t* at = std::lower_bound(begin, end, static_cast<int32_t>(c));
    return at == end || *at != c || pruned[at - w.col] != 0;
  }
};

// Of locals: a byte that is stored might be part of anything else.
inline void mark(const int32_t* __restrict col, const uint8_t* __restrict pruned, int64_t n,
                 uint8_t* __restrict present) {
  for (int64_t j = 0; j < n; ++j) present[col[j]] = pruned[j] == 0;
}

// Candidates in rows [first, first + ends.size()), A being the arithmetic type.
template <class A>
struct Found {
  // All that scores at least `least` in rows [n0, n1).
  Found(const Scores& s, int64_t n0, int64_t n1, double least) : first(n0), ends(n1 - n0) {
    const Csr& w = s.w;
    Scratch marks(w.cols + kFilterSlack);
    uint8_t* present = static_cast<uint8_t*>(marks.data());
    for (int64_t n = n0; n < n1; ++n) {
      reserve(size + w.cols + kFilterSlack);
      std::fill_n(present, w.cols + kFilterSlack, 0);
      mark(w.col + w.crow[n], s.pruned + w.crow[n], w.crow[n + 1] - w.crow[n], present);
      size += grow_dense_kernels().filter(s.dtype, s.row(n), w.cols, present, least, col + size,
                                          magnitude + size);
      ends[n - n0] = size;
    }
  }
  void reserve(int64_t least) {
    if (least <= room) return;
    room = 2 * least + 4096;
    auto larger = std::make_unique<Scratch>(room * (sizeof(A) + sizeof(int32_t)));
    A* to = static_cast<A*>(larger->data());
    int32_t* to_col = reinterpret_cast<int32_t*>(to + room);
    std::copy_n(magnitude, size, to);
    std::copy_n(col, size, to_col);
    memory = std::move(larger), magnitude = to, col = to_col;
  }

  int64_t first, size = 0, room = 0;
  std::vector<int64_t> ends;
  A* magnitude = nullptr;
  int32_t* col = nullptr;
  std::unique_ptr<Scratch> memory;
};

template <class A>
std::vector<Found<A>> search(const Scores& s, double least) {
  std::vector<Found<A>> parts;
  std::mutex mutex;
  split(s.w.rows, threads_for(s.w.rows * s.w.cols / 4), [&](int64_t begin, int64_t end) {
    Found<A> found(s, begin, end, least);
    const std::lock_guard<std::mutex> lock(mutex);
    parts.push_back(std::move(found));
  });
  std::sort(parts.begin(), parts.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  return parts;
}

// Magnitudes between which the k-th best lies, in all likelihood: 4 standard deviations below,
// where too few are found at first, and 2 above, where there is more to select from.
std::pair<double, double> bracket(const Scores& s, int64_t k) {
  constexpr int64_t kSample = 4096, kTogether = 4;  // neighbours, which cost one cache miss
  const Csr& w = s.w;
  const int64_t total = w.rows * w.cols;
  if (total <= 4 * kSample) return {-kInfinity, kInfinity};
  struct Place {
    int64_t row, col;
  };
  const auto place = [&](int64_t i) -> Place {
    const uint64_t bits = scrambled(i / kTogether);
    const int64_t c = static_cast<int64_t>((bits & 0xffffffff) * w.cols >> 32) + i % kTogether;
    return {static_cast<int64_t>((bits >> 32) * w.rows >> 32), c % w.cols};
  };
  std::vector<double> all(kSample);
  for (int64_t i = 0; i < kSample; ++i) {
    const Place at = place(i);
    all[i] = grow_dense_kernels().magnitude(s.dtype, s.row(at.row), at.col);
  }
  const double mean = kSample * (static_cast<double>(k) / static_cast<double>(total));
  const int64_t last = static_cast<int64_t>(mean + 4 * std::sqrt(mean)) + 4;
  const int64_t first = static_cast<int64_t>(mean - 2 * std::sqrt(mean)) - 1;
  // Only the upper ones of the sample are asked whether they are absent.
  double cut = -kInfinity;
  if (2 * last < kSample) {
    std::vector<double> order = all;
    std::nth_element(order.begin(), order.begin() + 2 * last, order.end(), std::greater<>());
    cut = order[2 * last];
  }
  std::vector<double> absent;
  for (int64_t i = 0; i < kSample; ++i) {
    if (all[i] < cut) continue;
    const auto [n, c] = place(i);
    if (s.absent(n, c)) absent.push_back(all[i]);
  }
  std::sort(absent.begin(), absent.end(), std::greater<>());
  const int64_t size = static_cast<int64_t>(absent.size());
  return {last < size ? absent[last] : cut, first >= 0 && first < size ? absent[first] : kInfinity};
}

// The k-th best magnitude, and how many of that magnitude are among the best k.
template <class A>
std::pair<A, int64_t> least_of_best(const std::vector<Found<A>>& parts, int64_t size, double high,
                                    int64_t k) {
  Scratch room(size * sizeof(A));
  A* some = static_cast<A*>(room.data());
  const A bound = static_cast<A>(high);
  const auto collect = [&](bool above) {
    int64_t count = 0;
    for (const Found<A>& f : parts)
      for (int64_t i = 0; i < f.size; ++i) {
        some[count] = f.magnitude[i];
        count += (f.magnitude[i] > bound) == above;
      }
    return count;
  };
  int64_t count = collect(false);
  int64_t better = size - count;
  if (better >= k) {  // the sample was unlucky
    count = collect(true);
    better = 0;
  }
  const int64_t rest = k - better;
  std::nth_element(some, some + rest - 1, some + count, std::greater<>());
  const A least = some[rest - 1];
  return {least, std::count(some, some + rest, least)};
}

template <class A>
std::tuple<Tensor, Tensor> best(const Scores& s, int64_t k, ScalarType type) {
  Tensor index = empty({k}, ScalarType::Long), magnitude = empty({k}, type);
  if (k == 0) return {index, magnitude};
  const auto [low, high] = bracket(s, k);
  std::vector<Found<A>> parts = search<A>(s, low);
  const auto size_of = [&] {
    int64_t size = 0;
    for (const Found<A>& f : parts) size += f.size;
    return size;
  };
  if (size_of() < k) parts = search<A>(s, -kInfinity);  // the sample was unlucky
  auto [least, equal] = least_of_best(parts, size_of(), high, k);
  int64_t* to = index.mutable_data_ptr<int64_t>();
  A* score = static_cast<A*>(magnitude.mutable_data_ptr());
  int64_t o = 0;
  for (const Found<A>& f : parts)
    for (int64_t i = 0, n = f.first; n < f.first + static_cast<int64_t>(f.ends.size()); ++n)
      for (const int64_t end = f.ends[n - f.first]; i < end; ++i) {
        if (o == k) break;
        to[o] = n * s.w.cols + f.col[i];
        score[o] = f.magnitude[i];
        const bool tie = f.magnitude[i] == least;
        o += (f.magnitude[i] > least) | (tie & (equal > 0));
        equal -= tie;
      }
  return {index, magnitude};
}

std::tuple<Tensor, Tensor> grow_topk_dense(const Tensor& scores, const Tensor& crow,
                                           const Tensor& col, const Tensor& pruned, int64_t k) {
  constexpr const char* op = "grow_topk_dense";
  const DType dtype = dtype_of(scores, op, "scores");
  check_tensor(scores, scores.scalar_type(), 2, op, "scores");
  const Csr w = sorted_csr(crow, col, scores.size(1), op);
  check_size(scores.size(0), w.rows, op, "scores", "size 0");
  check_tensor(pruned, ScalarType::Bool, 1, op, "pruned");
  check_size(pruned.size(0), w.nnz, op, "pruned", "size 0");
  const Tensor leaves = dense_of(pruned), held = rows_of(scores);
  const uint8_t* leave = static_cast<const uint8_t*>(leaves.const_data_ptr());
  int32_t gone = 0;
  pattern_kernels().count(leave, w.nnz, 0, 1, &gone);
  const int64_t absent = w.rows * w.cols - w.nnz + gone;
  STD_TORCH_CHECK(k >= 0 && k <= absent, op, ": k must lie in [0, ", absent,
                  "], the number of absent edges, got ", k);
  const Scores s{dtype, static_cast<const char*>(held.const_data_ptr()),
                 held.stride(0) * static_cast<int64_t>(bytes_of(dtype)), w, leave};
  return dtype == DType::kFloat64 ? best<double>(s, k, ScalarType::Double)
                                  : best<float>(s, k, ScalarType::Float);
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("grow_topk_dense", TORCH_BOX(&synops::grow_topk_dense));
}
