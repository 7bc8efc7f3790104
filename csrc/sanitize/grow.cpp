// The kernels of grow_topk.inc against plain loops.
#include <cmath>
#include <vector>

#include "sanitize/checks.h"
#include "sanitize/samples.h"
#include "sparse/grow_topk.h"

namespace synops::sanitize {
namespace {

// A matrix of samples, packed in groups of columns.
template <class T>
struct Packed {
  Packed(const GrowKernels& k, int64_t samples, int64_t columns, int64_t width, bool centred)
      : x(Dense<T>::random(samples, columns, false, 5)),
        mean(columns),
        inverse(columns),
        memory((columns + width - 1) / width * width * samples) {
    Columns c{dtype<T>(), x.memory.get(), x.ld, samples, columns, nullptr, nullptr};
    k.moments(c, centred, 0, columns, mean.get(), inverse.get());
    for (int64_t j = 0; j < columns; ++j) {
      double sum = 0, square = 0;
      for (int64_t i = 0; i < samples; ++i) sum += static_cast<double>(x.at(i, j));
      const double m = centred ? sum / static_cast<double>(samples) : 0;
      for (int64_t i = 0; i < samples; ++i)
        square += std::pow(static_cast<double>(x.at(i, j)) - m, 2);
      require(std::abs(mean[j] - m) < 1e-12, "mean");
      require(square == 0 ? inverse[j] == 0 : std::abs(inverse[j] * std::sqrt(square) - 1) < 1e-9,
              "norm");
    }
    if (centred) c.shift = mean.get(), c.factor = inverse.get();
    k.pack(c, width, 0, (columns + width - 1) / width, memory.get());
  }
  double at(int64_t sample, int64_t column, bool centred) const {
    const double v = static_cast<double>(x.at(sample, column));
    return centred ? (v - mean[column]) * inverse[column] : v;
  }

  Dense<T> x;
  Exact<double> mean, inverse;
  Exact<Acc<T>> memory;
};

template <class T>
void check_dtype(const GrowKernels& k, int64_t outputs, int64_t inputs, int64_t samples,
                 bool centred) {
  using A = Acc<T>;
  const int64_t width = k.panel(dtype<T>());
  const Packed<T> post(k, samples, outputs, width, centred);
  const Packed<T> pre(k, samples, inputs, k.group(), centred);
  const Exact<A> scores(kBlockInputs * width);
  for (int64_t o0 = 0; o0 < outputs; o0 += width)
    for (int64_t i0 = 0; i0 < inputs; i0 += kBlockInputs) {
      const int64_t o1 = std::min(outputs, o0 + width), i1 = std::min(inputs, i0 + kBlockInputs);
      k.scores(dtype<T>(), post.memory.get() + o0 * samples, pre.memory.get(), samples, i0, i1,
               !centred, scores.get());
      k.strike(dtype<T>(), scores.get(), o1 - 1 - o0, 0);
      const double least = centred ? -0.1 : 1;
      const Exact<Candidate> found((i1 - i0) * (o1 - o0));
      const int64_t count =
          k.filter(dtype<T>(), scores.get(), least, inputs, o0, o1, i0, i1, found.get());
      int64_t at = 0;
      for (int64_t i = i0; i < i1; ++i)
        for (int64_t o = o0; o < o1; ++o) {
          if (o == o1 - 1 && i == i0) continue;
          double sum = 0;
          for (int64_t s = 0; s < samples; ++s)
            sum += post.at(s, o, centred) * pre.at(s, i, centred);
          const double got = static_cast<double>(scores[(i - i0) * width + o - o0]);
          require(std::abs(got - (centred ? sum : std::abs(sum))) < 1e-3, "score");
          if (got < static_cast<double>(static_cast<A>(least))) continue;
          require(at < count && found[at].index == o * inputs + i && found[at].score == got,
                  "candidate");
          ++at;
        }
      require(at == count, "how many candidates there are");
      k.noise(dtype<T>(), 3, inputs, o0, o1, i0, i1, scores.get());
      for (int64_t i = i0; i < i1; ++i)
        for (int64_t o = o0; o < o1; ++o) {
          const double r = static_cast<double>(scores[(i - i0) * width + o - o0]);
          require(r >= 0 && r < 1, "noise");
        }
    }
}

}  // namespace

void check_growth(Isa isa) {
  // Panels, groups, blocks and chunks: on and past their edges.
  const int64_t sizes[][3] = {{1, 1, 1}, {65, 97, 257}, {16, 96, 3}};
  for (const auto& size : sizes)
    for (const bool centred : {false, true})
      for_dtypes([&](auto t) {
        using T = decltype(t);
        say("grow_topk: %s, %ld x %ld, %ld samples", name_of(dtype<T>()),
            static_cast<long>(size[0]), static_cast<long>(size[1]), static_cast<long>(size[2]));
        check_dtype<T>(grow_kernels(isa), size[0], size[1], size[2], centred);
      });
}

}  // namespace synops::sanitize
