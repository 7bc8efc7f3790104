// token_stats (CPU): checks, outputs and threads; kernels in token_stats.inc.
//
// Long rows are split into pieces whose sums are added up in order, so one row uses all threads and
// no result depends on how many there are.
#include <torch/csrc/stable/library.h>

#include <array>
#include <tuple>

#include "common/scratch.h"
#include "entropy/logit_rows.h"

namespace synops {
namespace {

// The bits of the statistics, in the order of python/synops/entropy/_stats.py.
enum Stat : int64_t {
  kLogprob = 1,
  kEntropy = 2,
  kVarentropy = 4,
  kCollision = 32,
  kPlogp2 = 64,
};

using Outputs = std::array<Tensor, 8>;

Outputs compute(const Tensor& logits, const std::optional<Tensor>& labels, double temperature,
                int64_t ignore_index, int64_t stats) {
  constexpr const char* op = "token_stats";
  const LogitRows rows(logits, op);
  STD_TORCH_CHECK(temperature > 0, op, ": temperature must be positive, got ", temperature);
  Tensor held;
  const Labels y = labels_of(labels, ignore_index, rows, held, op);
  const double scale = 1 / temperature;
  const ScalarType type = rows.stats_type();
  // lse, the largest probability and the largest logit always: the gradients want them.
  const bool asked[] = {y.data != nullptr && (stats & kLogprob) != 0,
                        (stats & kEntropy) != 0,
                        (stats & kVarentropy) != 0,
                        true,
                        true,
                        (stats & kCollision) != 0,
                        (stats & kPlogp2) != 0,
                        true};
  Outputs out;
  void* to[8];
  for (int i = 0; i < 8; ++i) {
    out[i] = asked[i] ? empty({logits.size(0), rows.inner}, type) : empty({0, 0}, type);
    to[i] = asked[i] ? out[i].mutable_data_ptr() : nullptr;
  }
  const TokenOutputs outputs{to[0], to[1], to[2], to[3], to[4], to[5], to[6], to[7]};
  const bool all = (stats & (kVarentropy | kCollision | kPlogp2)) != 0;
  const TokenStatsKernels& k = token_stats_kernels();
  const int64_t n = rows.vocabulary;
  const int64_t threads = threads_for(16 * rows.count * n);
  if (n <= kShortRow) {
    by_rows(rows, threads, [&](int64_t row, int64_t count) {
      k.short_rows(rows.dtype, rows.at(row), rows.tensor.stride(1), n, count, scale, all, y, row,
                   outputs);
    });
    return out;
  }
  const int64_t pieces = (n + kPiece - 1) / kPiece;
  Scratch room(static_cast<size_t>(rows.count * pieces) * sizeof(Moments));
  Moments* sums = static_cast<Moments*>(room.data());
  split(rows.count * pieces, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t from = i % pieces * kPiece;
      k.moments(rows.dtype, rows.at(i / pieces, from), std::min(kPiece, n - from), scale, all,
                sums + i);
    }
  });
  for (int64_t row = 0; row < rows.count; ++row) {
    Moments* sum = sums + row * pieces;
    for (int64_t i = 1; i < pieces; ++i) sum->add(sum[i], scale);
    k.finish(rows.dtype, rows.at(row), *sum, scale, y, row, outputs);
  }
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> token_stats(
    const Tensor& logits, const std::optional<Tensor>& labels, double temperature,
    int64_t ignore_index, int64_t stats) {
  const Outputs out = compute(logits, labels, temperature, ignore_index, stats);
  return {out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7]};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("token_stats", TORCH_BOX(&synops::token_stats));
}
