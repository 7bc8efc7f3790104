// The kernels of delta_rule.inc against plain loops in float64.
#include "hebbian/delta_rule.h"

#include <cmath>
#include <vector>

#include "sanitize/checks.h"
#include "sanitize/samples.h"

namespace synops::sanitize {
namespace {

template <class A>
void require_close(A got, double want, const char* what) {
  const double off = std::abs(static_cast<double>(got) - want);
  require(off <= (sizeof(A) == 8 ? 1e-12 : 1e-4) * (1 + std::abs(want)), what);
}

// Steps of vectors in memory of exactly their size.
template <class A>
struct Series {
  Series(int64_t steps, int64_t size) : size(size), memory(random<A>(steps * size)) {}
  double at(int64_t t, int64_t i) const { return static_cast<double>(memory[t * size + i]); }
  Line line() const { return {memory.get(), size}; }
  OutLine out() const { return {memory.get(), size}; }
  int64_t size;
  Exact<A> memory;
};

// A slice of a weight, zeros behind its columns, and the same in float64.
template <class A>
struct Slice {
  Slice(Isa isa, int64_t rows, int64_t columns)
      : rows(rows),
        columns(columns),
        lanes(fast_weight_kernels(isa).lanes(dtype<A>())),
        width((columns + lanes - 1) / lanes * lanes),
        memory(rows * width),
        want(rows * columns) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < width; ++j) {
        memory[i * width + j] = static_cast<A>(j < columns ? uniform() : 0);
        if (j < columns) want[i * columns + j] = memory[i * width + j];
      }
  }
  // Column j of the weight times a vector.
  double times(const Series<A>& v, int64_t t, int64_t j) const {
    double sum = 0;
    for (int64_t i = 0; i < rows; ++i) sum += want[i * columns + j] * v.at(t, i);
    return sum;
  }
  void scale_and_add(double scale, double by, const Series<A>& left, int64_t t,
                     const std::vector<double>& right) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j)
        want[i * columns + j] = scale * want[i * columns + j] + by * left.at(t, i) * right[j];
  }
  void check() const {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < width; ++j)
        require_close(memory[i * width + j], j < columns ? want[i * columns + j] : 0, "weight");
  }
  int64_t rows, columns, lanes, width;
  Exact<A> memory;
  std::vector<double> want;
};

template <class A>
void check_steps(Isa isa, int64_t steps, int64_t rows, int64_t columns, int64_t turn) {
  const bool predicts = turn % 3 != 0, reads = !predicts || turn % 2 == 0, known = turn % 5 < 2;
  const bool gains = turn % 4 < 2, decays = turn % 7 < 4, scaled = turn % 11 < 4;
  const Series<A> left(steps, rows), before(steps, rows), after(steps, rows);
  const Series<A> base(steps, columns), value(steps, columns), gain(steps, 1), decay(steps, 1);
  const Series<A> pre(steps, columns), post(steps, columns);
  const Exact<A> room(2 * rows);
  Slice<A> w(isa, rows, columns);
  fast_weight_kernels(isa).steps(dtype<A>(), {.steps = steps,
                                              .rows = rows,
                                              .columns = columns,
                                              .state = w.memory.get(),
                                              .left = left.line(),
                                              .before = predicts ? before.line() : Line{},
                                              .after = reads ? after.line() : Line{},
                                              .base = base.line(),
                                              .value = known || !predicts ? value.line() : Line{},
                                              .gain = gains ? gain.line() : Line{},
                                              .decay = decays ? decay.line() : Line{},
                                              .pre = predicts ? pre.out() : OutLine{},
                                              .post = reads ? post.out() : OutLine{},
                                              .scale = 0.5,
                                              .scaled = scaled ? room.get() : nullptr});
  for (int64_t t = 0; t < steps; ++t) {
    const double kept = decays ? decay.at(t, 0) : 1, by = gains ? gain.at(t, 0) : 1;
    std::vector<double> x(columns);
    for (int64_t j = 0; j < columns; ++j) {
      const double error = base.at(t, j) - kept * w.times(before, t, j);
      if (predicts) require_close(pre.memory[t * columns + j], error, "error");
      x[j] = known || !predicts ? value.at(t, j) : error;
    }
    w.scale_and_add(kept, by, left, t, x);
    for (int64_t j = 0; j < columns && reads; ++j)
      require_close(post.memory[t * columns + j], 0.5 * w.times(after, t, j), "readout");
  }
  w.check();
}

template <class A>
void check_gradient(Isa isa, int64_t steps, int64_t rows, int64_t columns, int64_t turn) {
  const bool takes = turn % 3 != 0, known = turn % 5 < 2, dots = turn % 4 < 2;
  const bool gains = turn % 2 == 0, decays = turn % 7 < 4;
  const Series<A> left(steps, rows), source(steps, rows), read(steps, rows);
  const Series<A> value(steps, columns), beside(steps, columns), other(steps, columns);
  const Series<A> gain(steps, 1), decay(steps, 1), out(steps, columns), dot(steps, 1);
  Slice<A> x(isa, rows, columns);
  fast_weight_kernels(isa).gradient(dtype<A>(), {.steps = steps,
                                                 .rows = rows,
                                                 .columns = columns,
                                                 .state = x.memory.get(),
                                                 .left = takes ? left.line() : Line{},
                                                 .source = source.line(),
                                                 .read = read.line(),
                                                 .value = known ? value.line() : Line{},
                                                 .beside = beside.line(),
                                                 .other = dots ? other.line() : Line{},
                                                 .gain = gains ? gain.line() : Line{},
                                                 .decay = decays ? decay.line() : Line{},
                                                 .out = out.out(),
                                                 .dot = dots ? dot.out() : OutLine{},
                                                 .scale = 0.5});
  for (int64_t t = steps; t-- > 0;) {
    const double kept = decays ? decay.at(t, 0) : 1, by = gains ? gain.at(t, 0) : 1;
    std::vector<double> right(columns);
    for (int64_t j = 0; j < columns; ++j) right[j] = beside.at(t, j);
    x.scale_and_add(1, 0.5, source, t, right);
    double product = 0;
    for (int64_t j = 0; j < columns; ++j) {
      const double g = x.times(read, t, j);
      require_close(out.memory[t * columns + j], by * g, "gradient");
      product += g * other.at(t, j);
      right[j] = known ? value.at(t, j) : by * g;
    }
    if (dots) require_close(dot.memory[t], product, "dot");
    x.scale_and_add(kept, takes ? -kept : 0, takes ? left : read, t, right);
  }
  x.check();
}

}  // namespace

void check_delta_rule(Isa isa) {
  const auto lanes = fast_weight_kernels(isa).lanes(DType::kFloat32);
  int64_t turn = 0;
  // No step and several; one row and an odd number; part of a vector up to a whole slice.
  for (const int64_t steps : {0, 1, 2, 5, 8})
    for (const int64_t rows : {1, 2, 7})
      for (const int64_t columns : {1, 8, 13, 23, 31}) {
        const int64_t most = fast_weight_kernels(isa).most_vectors() * lanes / 2;
        const int64_t here = std::min(columns, most);
        say("delta_rule: %ld steps of %ld x %ld, %ld", static_cast<long>(steps),
            static_cast<long>(rows), static_cast<long>(here), static_cast<long>(turn));
        check_steps<float>(isa, steps, rows, 2 * here - (turn % 2), turn);
        check_steps<double>(isa, steps, rows, here, turn + 1);
        check_gradient<float>(isa, steps, rows, 2 * here - (turn % 2), turn);
        check_gradient<double>(isa, steps, rows, here, turn + 1);
        turn += 3;
      }
}

}  // namespace synops::sanitize
