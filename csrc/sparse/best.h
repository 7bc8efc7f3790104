// The best of many scored edges, a few times as many of them kept as are wanted.
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "sparse/grow_topk.h"

namespace synops {

// Candidates, of which the best k are kept.
class Best {
 public:
  Best(int64_t k, double least) : k_(k), least_(least) {}
  // What a further candidate has to score.
  double least() const { return least_; }
  int64_t size() const { return size_; }
  // Room for n more, of which `count` are then kept.
  Candidate* room(int64_t n) {
    if (static_cast<int64_t>(kept_.size()) < size_ + n) kept_.resize(2 * (size_ + n));
    return kept_.data() + size_;
  }
  void keep(int64_t count) {
    size_ += count;
    if (size_ >= 4 * k_ + 4096) thin();
  }
  void add(const Best& other) {
    std::copy_n(other.kept_.data(), other.size_, room(other.size_));
    size_ += other.size_;
  }
  // Leaves the best k, in the order in which they came.
  void thin() {
    if (size_ <= k_) return;
    if (k_ == 0) {
      size_ = 0;
      return;
    }
    std::vector<double> scores(size_);
    for (int64_t i = 0; i < size_; ++i) scores[i] = kept_[i].score;
    std::nth_element(scores.begin(), scores.begin() + (k_ - 1), scores.end(), std::greater<>());
    least_ = scores[k_ - 1];
    std::vector<int64_t> equal;
    int64_t above = 0;
    for (int64_t i = 0; i < size_; ++i) {
      above += kept_[i].score > least_;
      if (kept_[i].score == least_) equal.push_back(kept_[i].index);
    }
    std::nth_element(equal.begin(), equal.begin() + (k_ - above - 1), equal.end());
    const int64_t last = equal[k_ - above - 1];
    int64_t to = 0;
    for (int64_t i = 0; i < size_; ++i) {
      const Candidate& c = kept_[i];
      if (c.score > least_ || (c.score == least_ && c.index <= last)) kept_[to++] = c;
    }
    size_ = to;
  }
  const Candidate* begin() const { return kept_.data(); }
  const Candidate* end() const { return kept_.data() + size_; }

 private:
  int64_t k_, size_ = 0;
  double least_;
  std::vector<Candidate> kept_;
};

}  // namespace synops
