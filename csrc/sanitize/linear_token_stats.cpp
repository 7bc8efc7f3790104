// The kernels of linear_token_stats.inc and linear_token_stats_gradients.inc against plain loops.
#include <algorithm>

#include "entropy/linear_token_stats_gradients.h"
#include "sanitize/checks.h"
#include "sanitize/samples.h"

namespace synops::sanitize {
namespace {

int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// A head of one tile, packed; what the kernels say of it, and what loops in double say.
template <class T>
struct HeadCase {
  using A = Acc<T>;

  HeadCase(const LinearTokenStatsKernels& k, int64_t tokens, int64_t features, int64_t rows,
           bool pairs, bool few)
      : k(k),
        tokens(tokens),
        features(features),
        rows(rows),
        width(k.width(dtype<T>())),
        group(k.group(dtype<T>())),
        slack(k.slack(dtype<T>())),
        depth(pairs ? features / 2 : features),
        pairs(pairs),
        few(few),
        padded(up(tokens, width)),
        stride(up(rows, group) * width),
        hidden(Dense<T>::random(tokens, features, false, 3)),
        weight(Dense<T>::random(rows, features, false, 1)),
        bias(up(rows, group)),
        panels((few ? tokens : padded) * depth),
        groups(up(rows, group) * depth + slack),
        labels(tokens),
        grad(padded / width * stride) {
    for (int64_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<A>(i < rows ? uniform() : 0);
    for (int64_t i = 0; i < tokens; ++i) labels[i] = kFirst - 1 + i % (rows + 2);
    for (int64_t i = 0; few && i < tokens; ++i) {
      const T* row = hidden.memory.get() + i * hidden.ld;
      if (pairs)
        std::memcpy(panels.get() + i * depth, row, depth * sizeof(A));
      else
        std::copy_n(row, depth, panels.get() + i * depth);
    }
    if (few) return;
    k.pack_panels(of(hidden), pairs, tokens, depth, panels.get());
    k.pack_groups(of(weight), pairs, rows, depth, groups.get());
  }

  static HeadRows of(const Dense<T>& m) { return {dtype<T>(), m.memory.get(), m.ld}; }
  HeadTile tile() const {
    const void* data = few ? static_cast<const void*>(weight.memory.get()) : groups.get();
    return {data, !few, bias.get(), kFirst, rows, nullptr, weight.ld * int64_t{sizeof(T)}};
  }
  HeadPanels packed() const { return {panels.get(), depth, tokens}; }
  Sum logit(int64_t t, int64_t v) const {
    Sum sum;
    for (int64_t f = 0; f < features; ++f)
      sum.add(static_cast<double>(hidden.at(t, f)) * static_cast<double>(weight.at(v, f)));
    sum.add(double{bias[v]});
    return sum;
  }
  A& grad_at(int64_t t, int64_t v) const {
    return grad[t / width * stride + v * width + t % width];
  }

  static constexpr int64_t kFirst = 100;  // row of the weight
  const LinearTokenStatsKernels& k;
  int64_t tokens, features, rows, width, group, slack, depth;
  bool pairs, few;
  int64_t padded, stride;
  Dense<T> hidden, weight;
  Exact<Acc<T>> bias, panels, groups;
  Exact<int64_t> labels;
  Exact<Acc<T>> grad;
};

void require_close(double got, double want, double eps, const char* what) {
  if (std::abs(got - want) <= 200 * eps * (1 + std::abs(want))) return;
  std::fprintf(stderr, "%s: %s: got %.9g, want %.9g\n", context, what, got, want);
  fail(what);
}

// The forward pass twice, so that moments are carried; then the gradients of the logits.
template <class T>
void check_logits(const HeadCase<T>& h) {
  using A = Acc<T>;
  const double eps = std::numeric_limits<A>::epsilon(), temperature = 0.5, by = 1.4426950408889634;
  const Exact<A> moments(kMoments * h.padded), picked(h.padded), c(kCoefficients * h.padded);
  for (int64_t i = 0; i < moments.size(); ++i)
    moments[i] = i < h.padded ? -std::numeric_limits<A>::infinity() : A(0);
  for (int pass = 0; pass < 2; ++pass)
    h.k.forward(dtype<T>(), h.pairs, h.tile(), h.packed(), 0, h.padded / h.width, temperature, true,
                h.labels.get(), moments.get(), h.padded, picked.get());
  for (int64_t i = 0; i < c.size(); ++i) c[i] = A(0);
  for (int64_t t = 0; t < h.tokens; ++t) {
    double top = -INFINITY, sums[5] = {};
    for (int64_t v = 0; v < h.rows; ++v) top = std::max(top, h.logit(t, v).value);
    for (int64_t v = 0; v < h.rows; ++v) {
      const double x = (h.logit(t, v).value - top) / temperature * by, p = std::exp2(x);
      const double terms[] = {p, p * x, p * x * x, p * p, p * p * x};
      for (int i = 0; i < 5; ++i) sums[i] += 2 * terms[i];
    }
    require_close(moments[t], top, eps, "maximum");
    for (int i = 0; i < 5; ++i)
      require_close(moments[(i + 1) * h.padded + t], sums[i], eps * (h.rows + 8.0), "moment");
    const int64_t own = h.labels[t] - h.kFirst;
    if (own >= 0 && own < h.rows) require_close(picked[t], h.logit(t, own).value, eps, "picked");
    const double coefficient[] = {top, std::log2(sums[0]), 0.7, 1, 0.5, 0.25, 2, 3};
    for (int i = 0; i < kCoefficients; ++i) c[i * h.padded + t] = static_cast<A>(coefficient[i]);
  }
  h.k.logit_gradient(dtype<T>(), h.pairs, h.tile(), h.packed(), 0, h.padded / h.width, temperature,
                     h.labels.get(), c.get(), h.padded, h.grad.get(), h.stride);
  for (int64_t t = 0; t < h.tokens; ++t)
    for (int64_t v = 0; v < h.rows; ++v) {
      const double top = c[t], log_sum = c[h.padded + t];
      const double y = (h.logit(t, v).value - top) / temperature * by - log_sum;
      const double p = std::exp2(y), u = y / by + 0.7;
      const double share = h.labels[t] - h.kFirst == v ? 3 : 0;
      require_close(h.grad_at(t, v), p * (1 + u * (0.5 + 0.25 * u) + 2 * p) + share, 4 * eps,
                    "gradient of a logit");
    }
}

template <class T>
void check_products(const HeadGradientKernels& k, const HeadCase<T>& h) {
  using A = Acc<T>;
  const int64_t column_panels = up(h.features, h.width) / h.width;
  const Exact<A> columns(column_panels * h.width * h.tokens);
  k.column_panels(h.of(h.hidden), h.features, h.tokens, columns.get());
  const Exact<T> to_weight(h.rows * h.features), to_bias(h.rows), to_hidden(h.tokens * h.features);
  k.weight_gradient(dtype<T>(), h.grad.get(), h.stride, h.rows, {columns.get(), h.tokens, h.tokens},
                    0, column_panels, h.features, to_weight.get());
  k.bias_gradient(dtype<T>(), h.grad.get(), h.stride, h.rows, h.tokens, to_bias.get());
  for (int64_t v = 0; v < h.rows; ++v) {
    Sum bias;
    for (int64_t t = 0; t < h.tokens; ++t) bias.add(double{h.grad_at(t, v)});
    bias.require_near(to_bias[v], "bias_gradient");
    for (int64_t f = 0; f < h.features; ++f) {
      Sum sum;
      for (int64_t t = 0; t < h.tokens; ++t)
        sum.add(double{h.grad_at(t, v)} * static_cast<double>(h.hidden.at(t, f)));
      sum.require_near(to_weight[v * h.features + f], "weight_gradient");
    }
  }
  // The columns in two strips, from the second group on, and everything twice.
  const Exact<A> sums(h.padded * h.features);
  for (int pass = 0; pass < 2; ++pass)
    for (int64_t first = 0; first < h.features; first += h.group) {
      const int64_t count = std::min(h.group, h.features - first);
      const Exact<A> strip(h.group * h.rows + h.slack);
      HeadRows rows = h.of(h.weight);
      rows.data = static_cast<const T*>(rows.data) + first;
      k.column_groups(rows, count, h.rows, strip.get());
      k.hidden_gradient(dtype<T>(), h.grad.get(), h.stride, h.rows, strip.get(), first, count,
                        h.features, 0, h.padded / h.width, pass > 0, sums.get());
    }
  k.write_panels(dtype<T>(), sums.get(), h.features, h.tokens, 0, h.padded / h.width,
                 to_hidden.get());
  for (int64_t t = 0; t < h.tokens; ++t)
    for (int64_t f = 0; f < h.features; ++f) {
      Sum sum;
      for (int pass = 0; pass < 2; ++pass)
        for (int64_t v = 0; v < h.rows; ++v)
          sum.add(double{h.grad_at(t, v)} * static_cast<double>(h.weight.at(v, f)));
      sum.require_near(to_hidden[t * h.features + f], "hidden_gradient");
    }
}

template <class T>
void check_head(const LinearTokenStatsKernels& k, const HeadGradientKernels& gradients,
                int64_t tokens, int64_t features, int64_t rows) {
  const bool can_pair = dtype<T>() == DType::kBFloat16 && features % 2 == 0 && k.pairs();
  for (const bool pairs : {false, true})
    for (const bool few : {false, true}) {
      if ((pairs && !can_pair) || (few && tokens > k.few(dtype<T>()))) continue;
      say("head of %s: %ld tokens, %ld features, %ld rows%s%s", name_of(dtype<T>()),
          static_cast<long>(tokens), static_cast<long>(features), static_cast<long>(rows),
          pairs ? ", pairs" : "", few ? ", not packed" : "");
      const HeadCase<T> h(k, tokens, features, rows, pairs, few);
      check_logits(h);
      if (!few) check_products(gradients, h);
    }
}

}  // namespace

void check_linear_token_stats(Isa isa) {
  const LinearTokenStatsKernels& k = linear_token_stats_kernels(isa);
  for_dtypes([&](auto t) {
    using T = decltype(t);
    const int64_t width = k.width(dtype<T>()), group = k.group(dtype<T>());
    // A lane, half a panel and one past it, a panel and one past it; parts of a vector of features;
    // a row, a group and one past it, a tile.
    for (const int64_t tokens : {int64_t{1}, width / 2, width / 2 + 1, width, width + 1})
      for (const int64_t features : {1, 2, 17, 34})
        for (const int64_t rows : {int64_t{1}, group, group + 1, 8 * group})
          check_head<T>(k, linear_token_stats_gradients_kernels(isa), tokens, features, rows);
  });
}

}  // namespace synops::sanitize
