// The gradients of linear_token_stats: logits recomputed tile by tile.
//
// Gradients of the logits exist for eight tiles of the vocabulary and all tokens at a time, .6 % of
// a large vocabulary; from there they go to the gradients of their rows of the weight, whole, and
// are added to that of the input. Three products for the two that autograd would do on kept logits.
// For few tokens a tile is a round: all products while it is in L2, and the input's gradient is
// summed apart for each part of the vocabulary.
// Every number is one thread's, in one order: the same bits on any number of threads.
#include "entropy/linear_token_stats_gradients.h"

#include "entropy/head.h"

namespace synops {
namespace {

constexpr double kLog2E = 1.442695040888963407359;
constexpr int64_t kRoundTiles = 8;
// Tokens up to which the rows of a tile are read as they are, while in L2, for all three products.
constexpr int64_t kFewTokens = 16;
// Columns of the weight whose strip, packed, stays in L2 while all tokens pass.
constexpr int64_t kStripBytes = 480 << 10;

ScalarType acc_type(const Head& h) {
  return h.dtype == DType::kFloat64 ? ScalarType::Double : ScalarType::Float;
}

// A gradient of a statistic, 0 where there is none.
template <class A>
class Incoming {
 public:
  Incoming(const std::optional<Tensor>& t, const Head& h, const char* name) {
    if (!t.has_value()) return;
    check_tensor(*t, acc_type(h), 1, "linear_token_stats_backward", name);
    check_size(t->size(0), h.tokens, "linear_token_stats_backward", name, "size 0");
    kept_ = dense_of(*t);
    data_ = static_cast<const A*>(kept_->data_ptr());
  }
  double operator[](int64_t i) const { return data_ == nullptr ? 0 : data_[i]; }

 private:
  std::optional<Tensor> kept_;
  const A* data_ = nullptr;
};

template <class A>
struct IncomingAll {
  Incoming<A> logprob, entropy, varentropy, lse, collision;
};

// (kCoefficients, padded): centre, log2 of the sum, entropy, alpha, beta, gamma, kappa, the label's
// share. With u = log p + entropy the gradient of a logit is
//   p (alpha + u (beta + gamma u) + kappa p), and the label's share where it is the label's.
template <class A>
void coefficients(const Head& h, const Tensor& saved, const IncomingAll<A>& g, A* out) {
  const int64_t n = h.tokens, ld = h.padded();
  const Tensor dense = dense_of(saved);
  const A* s = static_cast<const A*>(dense.data_ptr());
  std::fill_n(out, kCoefficients * ld, A(0));
  const double by = std::min<double>(1 / h.temperature, std::numeric_limits<A>::max());
  for (int64_t i = 0; i < n; ++i) {
    const double top = s[kMax * n + i];
    if (std::isinf(top) && top < 0) continue;  // nothing but -inf: every p is 0
    const double varentropy = s[kSavedVarentropy * n + i];
    const double collision = s[kSavedCollision * n + i];
    const double picked = s[kPicked * n + i] != 0 ? g.logprob[i] : 0;
    const double dv = g.varentropy[i], dc = 2 * g.collision[i];
    const double c[] = {top,
                        s[kLogSum * n + i] * kLog2E,
                        s[kSavedEntropy * n + i],
                        (g.lse[i] - picked - dv * varentropy - dc * collision) * by,
                        (2 * dv - g.entropy[i]) * by,
                        dv * by,
                        dc * by,
                        picked * by};
    for (int64_t r = 0; r < kCoefficients; ++r) out[r * ld + i] = static_cast<A>(c[r]);
  }
}

// Working memory and the three products of a round of tiles.
class Gradients {
 public:
  Gradients(const Head& h, bool hidden, bool weight, bool bias, ScalarType type)
      : hidden(empty({hidden ? h.tokens : 0, hidden ? h.features : 0}, type)),
        weight(empty({weight ? h.vocabulary : 0, weight ? h.features : 0}, type)),
        bias(empty({bias ? h.vocabulary : 0}, type)),
        h_(h),
        group_(h.k.group(h.dtype)),
        bytes_(static_cast<int64_t>(bytes_of(h.dtype))),
        word_(h.dtype == DType::kBFloat16 && h.k.pairs() ? 2 : 1),
        round_tiles_(h.tokens <= kFewTokens ? 1 : kRoundTiles),
        stride_(round_tiles_ * h.tile_rows * h.width),
        need_hidden_(hidden && h.features > 0),
        need_weight_(weight && h.features > 0),
        need_bias_(bias),
        threads_(threads_for(h.work())) {}

  // coefficients: (kCoefficients, padded) of the arithmetic type.
  void run(const void* coefficients) {
    coefficients_ = coefficients;
    const int64_t column_bytes =
        need_weight_ ? h_.packed_bytes(h_.features, h_.width, words(h_.tokens)) : 0;
    Scratch packed(h_.hidden_bytes()), columns(column_bytes);
    rows_ = h_.pack_hidden(packed.data());
    if (need_weight_) pack_columns(columns.data());
    columns_ = {columns.data(), words(h_.tokens), h_.tokens};
    h_.tokens <= kFewTokens ? by_parts() : by_rounds();
  }

  Tensor hidden, weight, bias;

 private:
  int64_t rows_of_tiles(int64_t first, int64_t tiles) const {
    return std::min(tiles * h_.tile_rows, h_.vocabulary - first * h_.tile_rows);
  }
  int64_t words(int64_t n) const { return (n + word_ - 1) / word_; }
  int64_t grad_bytes() const { return h_.panels * stride_ * h_.acc_bytes; }
  // Of a round's tile, as pairs of tokens; half a panel further on as pairs of rows.
  char* grad_of(char* grad, int64_t tile) const {
    return grad + tile * h_.tile_rows * h_.width / word_ * h_.acc_bytes;
  }
  char* by_rows(char* grad) const { return grad + (word_ == 1 ? 0 : stride_ / 2 * h_.acc_bytes); }
  // Pieces of `n` for the threads that `blocks` blocks leave idle.
  int64_t pieces(int64_t blocks, int64_t n) const {
    return std::clamp<int64_t>((threads_ + blocks - 1) / blocks, 1, n);
  }

  // A panel is columns of the input, as they are.
  void pack_columns(void* out) const {
    const int64_t count = (h_.features + h_.width - 1) / h_.width;
    split(count, threads_for(h_.tokens * h_.features), [&](int64_t begin, int64_t end) {
      const int64_t last = std::min(end * h_.width, h_.features);
      HeadRows data = h_.hidden_rows(0);
      data.data = static_cast<const char*>(data.data) + begin * h_.width * bytes_;
      k_.column_panels(
          data, last - begin * h_.width, h_.tokens,
          static_cast<char*>(out) + begin * h_.width * words(h_.tokens) * h_.acc_bytes);
    });
  }

  // Rounds of tiles, one product after the other.
  void by_rounds() {
    const int64_t sum_bytes = need_hidden_ ? h_.padded() * h_.features * h_.acc_bytes : 0;
    Scratch grad(grad_bytes()), sums(sum_bytes);
    grad_ = static_cast<char*>(grad.data());
    for (int64_t first = 0; first < h_.tiles; first += round_tiles_) {
      const int64_t tiles = std::min(round_tiles_, h_.tiles - first);
      logits(first, tiles);
      if (need_weight_ || need_bias_) to_weight(first, tiles);
      if (need_hidden_)
        to_hidden(first * h_.tile_rows, rows_of_tiles(first, tiles), first > 0, sums.data());
    }
    if (need_hidden_)
      split(h_.panels, threads_, [&](int64_t begin, int64_t end) {
        k_.write_panels(h_.dtype, sums.data(), h_.features, h_.tokens, begin, end,
                        hidden.data_ptr());
      });
  }

  // All products of a tile while it is in L2; a part of the vocabulary has its own sums.
  void by_parts() {
    const int64_t parts = h_.parts(), n = h_.tokens * h_.features;
    Scratch sums(need_hidden_ ? parts * n * h_.acc_bytes : 0);
    split(parts, threads_, [&](int64_t begin, int64_t end) {
      Scratch room(h_.tile_bytes()), kept(grad_bytes());
      char* grad = static_cast<char*>(kept.data());
      for (int64_t part = begin; part < end; ++part)
        for (int64_t t = h_.first_tile(part); t < h_.first_tile(part + 1); ++t) {
          logits_of(t, 0, h_.panels, grad, room.data());
          if (need_hidden_)
            k_.few_hidden_gradient(h_.weight_rows(t * h_.tile_rows), by_rows(grad), stride_,
                                   rows_of_tiles(t, 1), h_.tokens, h_.features,
                                   t > h_.first_tile(part),
                                   static_cast<char*>(sums.data()) + part * n * h_.acc_bytes);
          rows_to_weight(t, grad, 0, column_panels());
        }
    });
    if (need_hidden_)
      split(n, threads_for(parts * n), [&](int64_t begin, int64_t end) {
        k_.write_parts(h_.dtype, sums.data(), parts, n, begin, end, hidden.data_ptr());
      });
  }

  void logits_of(int64_t tile, int64_t begin, int64_t end, char* grad, void* room) const {
    h_.k.logit_gradient(h_.dtype, h_.pairs, h_.pack_tile(tile, room), rows_, begin, end,
                        h_.temperature, h_.labels(), coefficients_, h_.padded(), grad,
                        by_rows(grad), stride_);
  }

  void logits(int64_t first, int64_t tiles) {
    const int64_t chunks = pieces(tiles, h_.panels);
    split_group(tiles, chunks, threads_, [&](int64_t tile, int64_t chunk) {
      Scratch room(h_.tile_bytes());
      logits_of(first + tile, h_.panels * chunk / chunks, h_.panels * (chunk + 1) / chunks,
                grad_of(grad_, tile), room.data());
    });
  }

  int64_t column_panels() const { return (h_.features + h_.width - 1) / h_.width; }

  // The gradients of a tile's rows of the weight, column panels [begin, end), and of its bias.
  void rows_to_weight(int64_t tile, const char* grad, int64_t begin, int64_t end) {
    const int64_t row = tile * h_.tile_rows, count = rows_of_tiles(tile, 1);
    if (need_weight_)
      k_.weight_gradient(h_.dtype, grad, stride_, count, columns_, begin, end, h_.features,
                         static_cast<char*>(weight.data_ptr()) + row * h_.features * bytes_);
    if (need_bias_ && begin == 0)
      k_.bias_gradient(h_.dtype, grad, stride_, count, h_.tokens,
                       static_cast<char*>(bias.data_ptr()) + row * bytes_);
  }

  void to_weight(int64_t first, int64_t tiles) {
    const int64_t panels = column_panels(), chunks = pieces(tiles, std::max<int64_t>(1, panels));
    split_group(tiles, chunks, threads_, [&](int64_t tile, int64_t chunk) {
      rows_to_weight(first + tile, grad_of(grad_, tile), panels * chunk / chunks,
                     panels * (chunk + 1) / chunks);
    });
  }

  void to_hidden(int64_t first, int64_t rows, bool accumulate, void* sums) {
    const int64_t depth = words(rows);
    const int64_t wide =
        std::max<int64_t>(1, kStripBytes / (depth * group_ * h_.acc_bytes)) * group_;
    const int64_t strips = (h_.features + wide - 1) / wide, chunks = pieces(strips, h_.panels);
    split_group(strips, chunks, threads_, [&](int64_t strip, int64_t chunk) {
      const int64_t column = strip * wide, count = std::min(wide, h_.features - column);
      Scratch room(h_.packed_bytes(count, group_, depth));
      k_.column_groups(h_.weight_rows(first, column), count, rows, room.data());
      k_.hidden_gradient(h_.dtype, by_rows(grad_), stride_, rows, room.data(), column, count,
                         h_.features, h_.panels * chunk / chunks, h_.panels * (chunk + 1) / chunks,
                         accumulate, sums);
    });
  }

  const Head& h_;
  const HeadGradientKernels& k_ = linear_token_stats_gradients_kernels();
  const int64_t group_, bytes_, word_, round_tiles_, stride_;
  const bool need_hidden_, need_weight_, need_bias_;
  const int64_t threads_;
  char* grad_ = nullptr;
  const void* coefficients_ = nullptr;
  HeadPanels rows_ = {}, columns_ = {};
};

}  // namespace

std::tuple<Tensor, Tensor, Tensor> linear_token_stats_backward(
    const Tensor& hidden, const Tensor& weight, const std::optional<Tensor>& labels,
    const std::optional<Tensor>& bias, const Tensor& saved,
    const std::optional<Tensor>& grad_logprob, const std::optional<Tensor>& grad_entropy,
    const std::optional<Tensor>& grad_varentropy, const std::optional<Tensor>& grad_lse,
    const std::optional<Tensor>& grad_collision, double temperature, bool need_hidden,
    bool need_weight, bool need_bias) {
  const char* op = "linear_token_stats_backward";
  const Head h(hidden, weight, labels, bias, temperature, op);
  check_tensor(saved, acc_type(h), 2, op, "saved");
  check_size(saved.size(0), kSaved, op, "saved", "size 0");
  check_size(saved.size(1), h.tokens, op, "saved", "size 1");
  Gradients out(h, need_hidden, need_weight, need_bias, hidden.scalar_type());
  Scratch room(kCoefficients * h.padded() * h.acc_bytes);
  const auto fill = [&](auto a) {
    using A = decltype(a);
    coefficients<A>(h, saved,
                    {{grad_logprob, h, "grad_logprob"},
                     {grad_entropy, h, "grad_entropy"},
                     {grad_varentropy, h, "grad_varentropy"},
                     {grad_lse, h, "grad_lse"},
                     {grad_collision, h, "grad_collision"}},
                    static_cast<A*>(room.data()));
  };
  h.dtype == DType::kFloat64 ? fill(double{}) : fill(float{});
  if (h.tokens > 0 && h.tiles > 0) {
    out.run(room.data());
    // a head without features has only its bias
    return {out.hidden, out.weight, out.bias};
  }
  for (const Tensor* t : {&out.hidden, &out.weight, &out.bias}) {
    const int64_t bytes = static_cast<int64_t>(bytes_of(h.dtype)) * t->numel();
    if (bytes > 0) std::memset(t->data_ptr(), 0, bytes);
  }
  return {out.hidden, out.weight, out.bias};
}

}  // namespace synops
