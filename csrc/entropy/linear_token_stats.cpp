// linear_token_stats (CPU): statistics of softmax(hidden @ weight.T + bias), without the logits.
//
// The vocabulary is split into parts that do not depend on the number of threads. A part goes
// through its tiles, all tokens past each, and keeps six moments a token; the parts are merged in
// one order, in double precision. So results have the same bits on any number of threads.
#include "entropy/head.h"

namespace synops {
namespace {

constexpr double kLn2 = 0.693147180559945309417, kLog2E = 1.442695040888963407359;

void check_labels(const Head& h, int64_t ignore_index) {
  const int64_t* labels = h.labels();
  for (int64_t i = 0; labels != nullptr && i < h.tokens; ++i)
    STD_TORCH_CHECK(labels[i] == ignore_index || (labels[i] >= 0 && labels[i] < h.vocabulary),
                    "linear_token_stats: label ", labels[i], " is out of range for ", h.vocabulary,
                    " classes");
}

// The moments of all parts, (parts, kMoments, padded), and the logits of the labels, (padded,).
template <class A>
class Moments {
 public:
  Moments(const Head& h, int64_t parts)
      : parts(parts),
        ld_(h.padded()),
        room_((parts * kMoments + 1) * ld_ * sizeof(A)),
        data_(static_cast<A*>(room_.data())) {
    std::fill_n(data_, (parts * kMoments + 1) * ld_, A(0));
    for (int64_t i = 0; i < parts; ++i)
      std::fill_n(of(i), ld_, -std::numeric_limits<A>::infinity());
  }
  A* of(int64_t part) { return data_ + part * kMoments * ld_; }
  A* picked() { return data_ + parts * kMoments * ld_; }
  int64_t ld() const { return ld_; }

  // Of a token: max, and the sums centred there.
  void merge(int64_t token, double scale, double (&m)[kMoments]) {
    m[0] = -std::numeric_limits<double>::infinity();
    for (int64_t i = 0; i < parts; ++i) {
      const double top = of(i)[token];
      if (!(top <= m[0])) m[0] = top;  // a NaN, too
      if (std::isnan(m[0])) break;
    }
    std::fill(m + 1, m + kMoments, 0.0);
    for (int64_t i = 0; i < parts; ++i) {
      const A* p = of(i) + token;
      if (std::isinf(p[0]) && p[0] < 0) continue;
      const double d = p[0] == m[0] ? 0 : (p[0] - m[0]) * scale, c = std::exp2(d);
      if (c == 0) continue;  // d may be -inf
      const double l = p[ld_], a = p[2 * ld_], b = p[3 * ld_], s = p[4 * ld_], t = p[5 * ld_];
      m[1] += c * l;
      m[2] += c * (a + d * l);
      m[3] += c * (b + d * (2 * a + d * l));
      m[4] += c * c * s;
      m[5] += c * c * (t + d * s);
    }
  }

  const int64_t parts;

 private:
  const int64_t ld_;
  Scratch room_;
  A* data_;
};

// The statistics that were asked for, each (tokens,) or empty, and `saved`.
struct Outputs {
  Outputs(const Head& h, ScalarType type, int64_t stats) : saved(empty({kSaved, h.tokens}, type)) {
    for (int i = 0; i < 7; ++i) {
      asked[i] = (stats >> i & 1) != 0;
      tensor.push_back(empty({asked[i] ? h.tokens : 0}, type));
    }
  }
  template <class A>
  void write(int stat, int64_t token, double value) {
    if (asked[stat]) static_cast<A*>(tensor[stat].data_ptr())[token] = static_cast<A>(value);
  }
  bool asked[7];
  std::vector<Tensor> tensor;
  Tensor saved;
};

template <class A>
void finish(const Head& h, Moments<A>& moments, int64_t ignore_index, Outputs& out) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  const double scale = kLog2E / h.temperature;
  split(h.tokens, threads_for(h.tokens * moments.parts * 64), [&](int64_t begin, int64_t end) {
    A* saved = static_cast<A*>(out.saved.data_ptr());
    for (int64_t i = begin; i < end; ++i) {
      double m[kMoments];
      moments.merge(i, scale, m);
      const bool none = m[0] == -inf;  // nothing but -inf
      const double l = none ? 1 : m[1], log_sum = std::log(l), mean = m[2] / l;
      // Rounding may leave less than nothing; a NaN stays.
      const auto above_0 = [](double x) { return x < 0 ? 0 : x; };
      const double entropy = above_0(log_sum - kLn2 * mean);
      const double varentropy = above_0(kLn2 * kLn2 * (m[3] / l - mean * mean));
      const double collision = m[4] / (l * l);
      double logprob = 0;
      bool counts = false;
      if (h.labels() != nullptr && h.label(i) != ignore_index) {
        const double logit = moments.picked()[i];
        logprob = logit == -inf ? -inf : (logit - m[0]) / h.temperature - log_sum;
        counts = logit != -inf;
      }
      out.write<A>(0, i, logprob);
      out.write<A>(1, i, entropy);
      out.write<A>(2, i, varentropy);
      out.write<A>(3, i, m[0] / h.temperature + log_sum);
      out.write<A>(4, i, none ? 0 : 1 / l);
      out.write<A>(5, i, collision);
      out.write<A>(6, i, (kLn2 * m[5] - log_sum * m[4]) / (l * l));
      const double keep[] = {m[0], log_sum, entropy, varentropy, collision, counts ? 1.0 : 0.0};
      for (int64_t r = 0; r < kSaved; ++r) saved[r * h.tokens + i] = static_cast<A>(keep[r]);
    }
  });
}

template <class A>
void run(const Head& h, int64_t ignore_index, int64_t stats, Outputs& out) {
  // What varentropy, collision and plogp2 take, and nothing else.
  const bool all = (stats & (kVarentropy | kCollision | kPlogp2)) != 0;
  const int64_t parts = h.parts();
  Moments<A> moments(h, parts);
  if (parts > 0 && h.tokens > 0) {
    Scratch packed(h.hidden_bytes());
    const HeadPanels hidden = h.pack_hidden(packed.data());
    const int64_t threads = threads_for(h.work());
    // Tokens are independent: they are split where there are not parts enough.
    const int64_t chunks = std::clamp<int64_t>((threads + parts - 1) / parts, 1, h.panels);
    split_group(parts, chunks, threads, [&](int64_t part, int64_t chunk) {
      Scratch room(h.tile_bytes());
      const int64_t begin = h.panels * chunk / chunks, end = h.panels * (chunk + 1) / chunks;
      for (int64_t t = h.first_tile(part); t < h.first_tile(part + 1); ++t)
        h.k.forward(h.dtype, h.pairs, h.pack_tile(t, room.data()), hidden, begin, end,
                    h.temperature, all, h.labels(), moments.of(part), moments.ld(),
                    moments.picked());
    });
  }
  finish(h, moments, ignore_index, out);
}

using Result = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Result linear_token_stats(const Tensor& hidden, const Tensor& weight,
                          const std::optional<Tensor>& labels, const std::optional<Tensor>& bias,
                          double temperature, int64_t ignore_index, int64_t stats) {
  const char* op = "linear_token_stats";
  const Head h(hidden, weight, labels, bias, temperature, op);
  STD_TORCH_CHECK(labels.has_value() || (stats & kLogprob) == 0, op, ": logprob needs labels");
  check_labels(h, ignore_index);
  const bool wide = h.dtype == DType::kFloat64;
  Outputs out(h, wide ? ScalarType::Double : ScalarType::Float, stats);
  wide ? run<double>(h, ignore_index, stats, out) : run<float>(h, ignore_index, stats, out);
  auto& t = out.tensor;
  return {t[0], t[1], t[2], t[3], t[4], t[5], t[6], out.saved};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("linear_token_stats", TORCH_BOX(&synops::linear_token_stats));
  m.impl("linear_token_stats_backward", TORCH_BOX(&synops::linear_token_stats_backward));
}
