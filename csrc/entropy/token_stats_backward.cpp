// token_stats_backward and token_stats_backward_ (CPU): checks and threads; kernels in
// token_stats_backward.inc.
#include <torch/csrc/stable/library.h>

#include <limits>

#include "common/scratch.h"
#include "entropy/logit_rows.h"

namespace synops {
namespace {

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

// A number a row, in a tensor (B, T) that may be absent.
class Column {
 public:
  Column(const std::optional<Tensor>& t, const LogitRows& rows, const char* op, const char* name) {
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
void backward(const LogitRows& rows, const Arguments& a, const LogitRows& grad, const char* op) {
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
    token_stats_gradient_kernels().backward(rows.dtype, {rows.at(row), step, row, count, from, to},
                                            scale, counted, saved,
                                            {grad.at(row), to_step, row, count, from, to});
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

Tensor token_stats_backward(const Tensor& logits, const Optional& labels, double temperature,
                            int64_t ignore_index, const Tensor& max_logit, const Tensor& max_prob,
                            const Optional& entropy, const Optional& varentropy,
                            const Optional& collision, const Optional& of_logprob,
                            const Optional& of_entropy, const Optional& of_varentropy,
                            const Optional& of_lse, const Optional& of_collision) {
  constexpr const char* op = "token_stats_backward";
  const LogitRows rows(logits, op);
  const Tensor grad = empty({logits.size(0), logits.size(1), logits.size(2)}, logits.scalar_type());
  backward(rows,
           {labels, entropy, varentropy, collision, max_logit, max_prob, of_logprob, of_entropy,
            of_varentropy, of_lse, of_collision, temperature, ignore_index},
           LogitRows(grad, op), op);
  return grad;
}

void token_stats_backward_(Tensor logits, const Optional& labels, double temperature,
                           int64_t ignore_index, const Tensor& max_logit, const Tensor& max_prob,
                           const Optional& entropy, const Optional& varentropy,
                           const Optional& collision, const Optional& of_logprob,
                           const Optional& of_entropy, const Optional& of_varentropy,
                           const Optional& of_lse, const Optional& of_collision) {
  constexpr const char* op = "token_stats_backward_";
  const LogitRows rows(logits, op);
  STD_TORCH_CHECK(rows.data == logits.data_ptr(), op, ": rows of logits must be contiguous");
  backward(rows,
           {labels, entropy, varentropy, collision, max_logit, max_prob, of_logprob, of_entropy,
            of_varentropy, of_lse, of_collision, temperature, ignore_index},
           rows, op);
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("token_stats_backward", TORCH_BOX(&synops::token_stats_backward));
  m.impl("token_stats_backward_", TORCH_BOX(&synops::token_stats_backward_));
}
