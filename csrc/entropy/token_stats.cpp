// token_stats (CPU): checks, outputs and threads; kernels in token_stats.inc.
//
// Long rows are split into pieces whose sums are added up in order, so one row uses all threads and
// no result depends on how many there are.
#include "entropy/token_stats.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <array>
#include <limits>
#include <tuple>

#include "common/scratch.h"
#include "common/split.h"
#include "common/tensor.h"

namespace synops {
namespace {

constexpr int64_t kPiece = 32768;  // logits of a row that one thread reads at a time
constexpr int64_t kRows = 256;     // short rows, likewise

// The bits of the statistics, in the order of python/synops/entropy/_stats.py.
enum Stat : int64_t {
  kLogprob = 1,
  kEntropy = 2,
  kVarentropy = 4,
  kCollision = 32,
  kPlogp2 = 64,
};

// Logits (B, T, V), whose rows may lie anywhere; each is contiguous.
struct Rows {
  Rows(const Tensor& t, const char* op) : dtype(dtype_of(t, op, "logits")) {
    STD_TORCH_CHECK(t.is_cpu(), op, ": logits must be on the CPU");
    STD_TORCH_CHECK(t.dim() == 3, op, ": logits must have 3 dimensions, got ", t.dim());
    tensor = t.stride(2) == 1 || t.size(2) <= 1 ? t : torch::stable::contiguous(t);
    inner = t.size(1);
    count = t.size(0) * inner;
    vocabulary = t.size(2);
    data = static_cast<char*>(const_cast<void*>(tensor.data_ptr()));
  }
  int64_t offset(int64_t row) const {
    return row / inner * tensor.stride(0) + row % inner * tensor.stride(1);
  }
  char* at(int64_t row, int64_t k = 0) const {
    return data + (offset(row) + k) * static_cast<int64_t>(bytes_of(dtype));
  }
  // Rows from `row` on, at most `most`, that are a constant step apart.
  int64_t run(int64_t row, int64_t most) const {
    const bool even = tensor.stride(0) == inner * tensor.stride(1);
    return std::min(most, even ? count - row : inner - row % inner);
  }

  ScalarType stats_type() const {
    return dtype == DType::kFloat64 ? ScalarType::Double : ScalarType::Float;
  }

  DType dtype;
  Tensor tensor;
  int64_t inner, count, vocabulary;
  char* data;
};

// Labels in [0, vocabulary), or ignored. `held` keeps their memory.
Labels labels_of(const std::optional<Tensor>& labels, int64_t ignore_index, const Rows& rows,
                 Tensor& held, const char* op) {
  if (!labels.has_value()) return {nullptr, ignore_index};
  check_tensor(*labels, ScalarType::Long, 2, op, "labels");
  check_size(labels->size(0), rows.tensor.size(0), op, "labels", "size 0");
  check_size(labels->size(1), rows.inner, op, "labels", "size 1");
  held = dense_of(*labels);
  const int64_t* y = held.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < rows.count; ++i)
    STD_TORCH_CHECK((y[i] >= 0 && y[i] < rows.vocabulary) || y[i] == ignore_index, op,
                    ": labels must lie in [0, ", rows.vocabulary, "), got ", y[i]);
  return {y, ignore_index};
}

bool is_minus_infinity(DType dtype, const void* logit) {
  switch (dtype) {
    case DType::kFloat64:
      return *static_cast<const double*>(logit) == -std::numeric_limits<double>::infinity();
    case DType::kFloat32:
      return *static_cast<const float*>(logit) == -std::numeric_limits<float>::infinity();
    default:
      return *static_cast<const uint16_t*>(logit) == (dtype == DType::kBFloat16 ? 0xff80 : 0xfc00);
  }
}

// f(row, count) for runs of at most kRows rows a constant step apart, over threads.
template <class F>
void by_rows(const Rows& rows, int64_t threads, F&& f) {
  split(rows.count, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end;) {
      const int64_t count = rows.run(row, std::min(end - row, kRows));
      f(row, count);
      row += count;
    }
  });
}

using Outputs = std::array<Tensor, 8>;

Outputs compute(const Tensor& logits, const std::optional<Tensor>& labels, double temperature,
                int64_t ignore_index, int64_t stats) {
  constexpr const char* op = "token_stats";
  const Rows rows(logits, op);
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

// A number a row, in a tensor (B, T) that may be absent.
class Column {
 public:
  Column(const std::optional<Tensor>& t, const Rows& rows, const char* op, const char* name) {
    if (!t.has_value()) return;
    check_tensor(*t, rows.stats_type(), 2, op, name);
    check_size(t->size(0), rows.tensor.size(0), op, name, "size 0");
    check_size(t->size(1), rows.inner, op, name, "size 1");
    held_ = dense_of(*t);
    data_ = held_.data_ptr();
  }
  const void* data() const { return data_; }

 private:
  Tensor held_;
  const void* data_ = nullptr;
};

struct Arguments {
  const std::optional<Tensor>&labels, &entropy, &varentropy, &collision;
  const Tensor &max_logit, &max_prob;
  const std::optional<Tensor>&of_logprob, &of_entropy, &of_varentropy, &of_lse, &of_collision;
  double temperature;
  int64_t ignore_index;
};

// Writes the gradient of `logits` to rows of `grad`, which may be the same.
void backward(const Rows& rows, const Arguments& a, const Rows& grad, const char* op) {
  STD_TORCH_CHECK(a.temperature > 0, op, ": temperature must be positive, got ", a.temperature);
  Tensor held;
  const Labels y = labels_of(a.labels, a.ignore_index, rows, held, op);
  const Column max_logit(a.max_logit, rows, op, "max_logit");
  const Column max_prob(a.max_prob, rows, op, "max_prob");
  const Column entropy(a.entropy, rows, op, "entropy");
  const Column varentropy(a.varentropy, rows, op, "varentropy");
  const Column collision(a.collision, rows, op, "collision");
  const Column of_logprob(a.of_logprob, rows, op, "grad_logprob");
  const Column of_entropy(a.of_entropy, rows, op, "grad_entropy");
  const Column of_varentropy(a.of_varentropy, rows, op, "grad_varentropy");
  const Column of_lse(a.of_lse, rows, op, "grad_lse");
  const Column of_collision(a.of_collision, rows, op, "grad_collision");
  const auto has = [](const Column& c) { return c.data() != nullptr; };
  STD_TORCH_CHECK(!has(of_logprob) || y.data != nullptr, op, ": grad_logprob needs labels");
  STD_TORCH_CHECK((!has(of_entropy) && !has(of_varentropy)) || has(entropy), op,
                  ": entropy is missing");
  STD_TORCH_CHECK(!has(of_varentropy) || has(varentropy), op, ": varentropy is missing");
  STD_TORCH_CHECK(!has(of_collision) || has(collision), op, ": collision is missing");
  const TokenSaved saved{max_logit.data(),   max_prob.data(),      entropy.data(),
                         varentropy.data(),  collision.data(),     of_logprob.data(),
                         of_entropy.data(),  of_varentropy.data(), of_lse.data(),
                         of_collision.data()};
  const double scale = 1 / a.temperature;
  const int64_t n = rows.vocabulary, step = rows.tensor.stride(1), to_step = grad.tensor.stride(1);
  // Labels that have no probability send no gradient. Seen to before anything is written over the
  // logits, which another piece of the row may be.
  Scratch room(y.data == nullptr ? 0 : static_cast<size_t>(rows.count) * sizeof(int64_t));
  const Labels counted{y.data == nullptr ? nullptr : static_cast<int64_t*>(room.data()), y.ignored};
  const auto count_labels = [&](int64_t row, int64_t count) {
    for (int64_t i = row; y.data != nullptr && i < row + count; ++i) {
      const bool kept =
          y.data[i] != y.ignored && !is_minus_infinity(rows.dtype, rows.at(i, y.data[i]));
      static_cast<int64_t*>(room.data())[i] = kept ? y.data[i] : y.ignored;
    }
  };
  const auto run = [&](int64_t row, int64_t count, int64_t from, int64_t to) {
    token_stats_kernels().backward(rows.dtype, {rows.at(row), step, row, count, from, to}, scale,
                                   counted, saved, {grad.at(row), to_step, row, count, from, to});
  };
  const int64_t threads = threads_for(16 * rows.count * n);
  if (n <= kShortRow)
    return by_rows(rows, threads, [&](int64_t row, int64_t count) {
      count_labels(row, count);
      run(row, count, 0, n);
    });
  count_labels(0, rows.count);
  const int64_t pieces = (n + kPiece - 1) / kPiece;
  split(rows.count * pieces, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t from = i % pieces * kPiece;
      run(i / pieces, 1, from, std::min(n, from + kPiece));
    }
  });
}

using Optional = std::optional<Tensor>;

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> token_stats(
    const Tensor& logits, const Optional& labels, double temperature, int64_t ignore_index,
    int64_t stats) {
  const Outputs out = compute(logits, labels, temperature, ignore_index, stats);
  return {out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7]};
}

Tensor token_stats_backward(const Tensor& logits, const Optional& labels, double temperature,
                            int64_t ignore_index, const Tensor& max_logit, const Tensor& max_prob,
                            const Optional& entropy, const Optional& varentropy,
                            const Optional& collision, const Optional& of_logprob,
                            const Optional& of_entropy, const Optional& of_varentropy,
                            const Optional& of_lse, const Optional& of_collision) {
  constexpr const char* op = "token_stats_backward";
  const Rows rows(logits, op);
  const Tensor grad = empty({logits.size(0), logits.size(1), logits.size(2)}, logits.scalar_type());
  backward(rows,
           {labels, entropy, varentropy, collision, max_logit, max_prob, of_logprob, of_entropy,
            of_varentropy, of_lse, of_collision, temperature, ignore_index},
           Rows(grad, op), op);
  return grad;
}

void token_stats_backward_(Tensor logits, const Optional& labels, double temperature,
                           int64_t ignore_index, const Tensor& max_logit, const Tensor& max_prob,
                           const Optional& entropy, const Optional& varentropy,
                           const Optional& collision, const Optional& of_logprob,
                           const Optional& of_entropy, const Optional& of_varentropy,
                           const Optional& of_lse, const Optional& of_collision) {
  constexpr const char* op = "token_stats_backward_";
  const Rows rows(logits, op);
  STD_TORCH_CHECK(rows.data == logits.data_ptr(), op, ": rows of logits must be contiguous");
  backward(rows,
           {labels, entropy, varentropy, collision, max_logit, max_prob, of_logprob, of_entropy,
            of_varentropy, of_lse, of_collision, temperature, ignore_index},
           rows, op);
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("token_stats", TORCH_BOX(&synops::token_stats));
  m.impl("token_stats_backward", TORCH_BOX(&synops::token_stats_backward));
  m.impl("token_stats_backward_", TORCH_BOX(&synops::token_stats_backward_));
}
