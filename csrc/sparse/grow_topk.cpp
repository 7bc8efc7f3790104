// grow_topk (CPU): the best absent edges of a pattern, block by block of their scores; kernels in
// grow_topk.inc.
//
// Each thread keeps the best k of what it saw. Their order is total (of equal scores the lower
// position), so neither the blocks' order nor the number of threads shows in the result.
#include "sparse/grow_topk.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <mutex>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/scramble.h"
#include "common/scratch.h"
#include "common/split.h"
#include "sparse/best.h"
#include "sparse/sorted.h"

namespace synops {
namespace {

// In the order of python/synops/sparse/_grow_topk.py.
enum Score : int64_t { kGrad, kCosine, kPearson, kRandom };

// (samples, columns) of the dtype and number of samples of another, its rows apart.
struct Side {
  Side(const Tensor& t, ScalarType type, int64_t samples, int64_t columns, int64_t score,
       const char* op, const char* name)
      : held(check(t, type, samples, columns, op, name)) {
    x = {dtype_of(held, op, name),
         held.const_data_ptr(),
         held.stride(0),
         samples,
         columns,
         nullptr,
         nullptr};
    if (score == kGrad) return;
    mean.resize(columns), inverse.resize(columns);
    split(columns, threads_for(2 * samples * columns), [&](int64_t c0, int64_t c1) {
      grow_kernels().moments(x, score == kPearson, c0, c1, mean.data(), inverse.data());
    });
    x.shift = mean.data(), x.factor = inverse.data();
  }
  static Tensor check(const Tensor& t, ScalarType type, int64_t samples, int64_t columns,
                      const char* op, const char* name) {
    check_tensor(t, type, 2, op, name);
    check_size(t.size(0), samples, op, name, "size 0");
    check_size(t.size(1), columns, op, name, "size 1");
    return rows_of(t);
  }
  int64_t groups(int64_t width) const { return (x.columns + width - 1) / width; }
  void pack(int64_t width, void* out) const {
    split(groups(width), threads_for(x.samples * x.columns),
          [&](int64_t begin, int64_t end) { grow_kernels().pack(x, width, begin, end, out); });
  }

  Tensor held;
  Columns x;
  std::vector<double> mean, inverse;
};

// Blocks of scores of absent edges. fill(panel, o0, o1, i0, i1, scores) computes one.
template <class F>
class Blocks {
 public:
  Blocks(DType dtype, const Csr& pattern, F fill)
      : dtype_(dtype), w_(pattern), fill_(std::move(fill)), width_(k_.panel(dtype)) {}

  // The best k of all. A threshold from a sample leaves little more than k candidates to choose
  // from; without one, 4 k at a time.
  Best best(int64_t k, int64_t work) const {
    Best all = best_above(k, work, likely(k));
    if (all.size() < k) all = best_above(k, work, kNone);  // the sample was unlucky
    all.thin();
    return all;
  }

 private:
  static constexpr double kNone = -std::numeric_limits<double>::infinity();

  int64_t panels() const { return (w_.rows + width_ - 1) / width_; }
  int64_t across() const { return (w_.cols + kBlockInputs - 1) / kBlockInputs; }
  size_t bytes() const { return kBlockInputs * width_ * acc_bytes_of(dtype_); }

  // Appends what scores at least best.least() in a block. `next`: of each output of the panel the
  // first entry at or behind the block; then behind its last.
  void visit(int64_t panel, int64_t block, int32_t* next, void* scores, Best* best) const {
    const int64_t o0 = panel * width_, o1 = std::min(w_.rows, o0 + width_);
    const int64_t i0 = block * kBlockInputs, i1 = std::min(w_.cols, i0 + kBlockInputs);
    fill_(panel, o0, o1, i0, i1, scores);
    for (int64_t o = o0; o < o1; ++o)
      for (int32_t& j = next[o - o0]; j < w_.crow[o + 1] && w_.col[j] < i1; ++j)
        k_.strike(dtype_, scores, o - o0, w_.col[j] - i0);
    best->keep(k_.filter(dtype_, scores, best->least(), w_.cols, o0, o1, i0, i1,
                         best->room((i1 - i0) * (o1 - o0))));
  }

  Best best_above(int64_t k, int64_t work, double least) const {
    std::vector<std::pair<int64_t, Best>> parts;
    std::mutex mutex;
    split(panels(), threads_for(work), [&](int64_t begin, int64_t end) {
      Scratch room(bytes());
      Best best(k, least);
      std::vector<int32_t> next(width_);
      for (int64_t p = begin; p < end; ++p) {
        std::copy(w_.crow + p * width_, w_.crow + std::min(w_.rows, (p + 1) * width_),
                  next.begin());
        for (int64_t b = 0; b < across(); ++b) visit(p, b, next.data(), room.data(), &best);
      }
      const std::lock_guard<std::mutex> lock(mutex);
      parts.emplace_back(begin, std::move(best));
    });
    std::sort(parts.begin(), parts.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
    Best all(k, least);
    for (const auto& [begin, best] : parts) all.add(best);
    return all;
  }

  // What the k-th best scores, or somewhat less: from one block in kSparse.
  double likely(int64_t k) const {
    const int64_t count = panels() * across(), absent = w_.rows * w_.cols - w_.nnz;
    const int64_t sampled = std::max(kLeastSample, count / kSparse);
    if (count < 3 * sampled || k == 0) return kNone;
    Best sample(std::numeric_limits<int64_t>::max() / 8, kNone);
    Scratch room(bytes());
    std::vector<int32_t> next(width_);
    for (int64_t i = 0; i < sampled; ++i) {
      const int64_t at = static_cast<int64_t>(scrambled(i) % static_cast<uint64_t>(count));
      const int64_t p = at / across(), b = at % across(), o0 = p * width_;
      for (int64_t o = o0; o < std::min(w_.rows, o0 + width_); ++o)
        next[o - o0] = static_cast<int32_t>(
            std::lower_bound(w_.col + w_.crow[o], w_.col + w_.crow[o + 1], b * kBlockInputs) -
            w_.col);
      visit(p, b, next.data(), room.data(), &sample);
    }
    // A quarter more: blocks are not alike, their units have norms of their own.
    const double share = 1.25 * static_cast<double>(k) / static_cast<double>(absent);
    const int64_t rank = static_cast<int64_t>(share * static_cast<double>(sample.size())) + 64;
    if (rank >= sample.size()) return kNone;
    std::vector<double> scores;
    for (const Candidate& c : sample) scores.push_back(c.score);
    std::nth_element(scores.begin(), scores.begin() + rank, scores.end(), std::greater<>());
    return scores[rank];
  }

  static constexpr int64_t kSparse = 20, kLeastSample = 8;
  const GrowKernels& k_ = grow_kernels();
  DType dtype_;
  const Csr& w_;
  F fill_;
  int64_t width_;
};

// In ascending order. Of one output they came in that order: they are counted and put in place.
std::tuple<Tensor, Tensor> results(const Best& best, const Csr& w, int64_t k, bool wide) {
  std::vector<int64_t> place(w.rows + 1);
  for (const Candidate& c : best) ++place[c.index / w.cols + 1];
  for (int64_t o = 0; o < w.rows; ++o) place[o + 1] += place[o];
  Tensor index = empty({k}, ScalarType::Long);
  Tensor score = empty({k}, wide ? ScalarType::Double : ScalarType::Float);
  int64_t* to = index.mutable_data_ptr<int64_t>();
  const auto put = [&](auto* scores) {
    for (const Candidate& c : best) {
      const int64_t at = place[c.index / w.cols]++;
      to[at] = c.index;
      scores[at] = static_cast<std::remove_pointer_t<decltype(scores)>>(c.score);
    }
  };
  wide ? put(score.mutable_data_ptr<double>()) : put(score.mutable_data_ptr<float>());
  return {index, score};
}

std::tuple<Tensor, Tensor> grow_topk(const std::optional<Tensor>& grad_output,
                                     const std::optional<Tensor>& input, const Tensor& crow,
                                     const Tensor& col, int64_t in_features, int64_t k,
                                     int64_t score, int64_t seed) {
  constexpr const char* op = "grow_topk";
  const Csr w = sorted_csr(crow, col, in_features, op);
  STD_TORCH_CHECK(k >= 0 && k <= w.rows * w.cols - w.nnz, op, ": k must lie in [0, ",
                  w.rows * w.cols - w.nnz, "], the number of absent edges, got ", k);
  STD_TORCH_CHECK(score >= kGrad && score <= kRandom, op, ": no such score: ", score);
  const GrowKernels& kernels = grow_kernels();
  if (score == kRandom) {
    const auto fill = [&](int64_t, int64_t o0, int64_t o1, int64_t i0, int64_t i1, void* scores) {
      kernels.noise(DType::kFloat32, static_cast<uint64_t>(seed), w.cols, o0, o1, i0, i1, scores);
    };
    return results(Blocks(DType::kFloat32, w, fill).best(k, w.rows * w.cols), w, k, false);
  }
  STD_TORCH_CHECK(grad_output.has_value() && input.has_value(), op,
                  ": grad_output and input are missing");
  STD_TORCH_CHECK(input->dim() == 2, op, ": input must have 2 dimensions, got ", input->dim());
  const ScalarType type = input->scalar_type();
  const int64_t samples = input->size(0);
  const Side post(*grad_output, type, samples, w.rows, score, op, "grad_output");
  const Side pre(*input, type, samples, w.cols, score, op, "input");
  const DType dtype = post.x.dtype;
  const int64_t width = kernels.panel(dtype), group = kernels.group();
  const int64_t bytes = static_cast<int64_t>(acc_bytes_of(dtype)) * samples;
  Scratch panels(post.groups(width) * width * bytes), groups(pre.groups(group) * group * bytes);
  post.pack(width, panels.data());
  pre.pack(group, groups.data());
  const auto fill = [&](int64_t p, int64_t, int64_t, int64_t i0, int64_t i1, void* scores) {
    kernels.scores(dtype, static_cast<char*>(panels.data()) + p * width * bytes, groups.data(),
                   samples, i0, i1, score == kGrad, scores);
  };
  return results(Blocks(dtype, w, fill).best(k, w.rows * w.cols * samples), w, k,
                 dtype == DType::kFloat64);
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) { m.impl("grow_topk", TORCH_BOX(&synops::grow_topk)); }
