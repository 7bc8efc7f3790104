// The kernels of row_blocks.inc against plain loops.
#include "sparse/row_blocks.h"

#include <algorithm>

#include "sanitize/checks.h"
#include "sanitize/samples.h"

namespace synops::sanitize {
namespace {

// A weight of `count` columns of `in`, rows in blocks of `lanes` with `step`: one panel for every
// column of blocks, the last of which is looked at.
template <class T>
struct Blocks {
  Blocks(const RowBlockKernels& k, int64_t count, int64_t in, int64_t step)
      : lanes(k.lanes(dtype<T>())),
        width(k.width(dtype<T>())),
        count(count),
        in(in),
        out(lanes * step),
        col(out * count),
        crow(out + 1),
        panel{col.get() + (step - 1) * count, crow.get(), count, step - 1, step} {
    for (int64_t n = 0; n <= out; ++n) crow[n] = static_cast<int32_t>(n * count);
    for (int64_t n = 0; n < out; ++n)
      for (int64_t j = 0; j < count; ++j)  // the last columns, from the first or second of them on
        col[n * count + j] =
            static_cast<int32_t>(in - count + j - (j + 1 < count && in > count ? n % step : 0));
  }
  int64_t row(int64_t i) const { return panel.first + i * panel.step; }

  int64_t lanes, width, count, in, out;
  Exact<int32_t> col, crow;
  Panel panel;
};

template <class T>
void check_forward(const RowBlockKernels& k, const Blocks<T>& s, const Exact<T>& values,
                   const Exact<Acc<T>>& w, const Exact<Acc<T>>& slab) {
  const auto bias = random<T>(s.out);
  for (const int64_t batch : {int64_t{1}, s.width - 1, s.width})
    for (const bool turned : {false, true})
      for (const Activation activation :
           {Activation::kNone, Activation::kRelu, Activation::kGelu}) {
        const Dense<T> y(batch, s.out, turned, 3);
        const bool shift = activation != Activation::kRelu;
        k.forward(s.panel, w.get(), slab.get(), {shift ? bias.get() : nullptr, activation},
                  y.view());
        for (int64_t b = 0; b < batch; ++b)
          for (int64_t i = 0; i < s.lanes; ++i) {
            Sum sum;
            for (int64_t j = 0; j < s.count; ++j)
              sum.add(static_cast<double>(values[s.crow[s.row(i)] + j]) *
                      slab[s.panel.col[j] * s.width + b]);
            if (shift) sum.add(static_cast<double>(bias[s.row(i)]));
            sum.value = activated(sum.value, activation);
            sum.require_near(y.at(b, s.row(i)), "forward");
            y.at(b, s.row(i)) = static_cast<T>(NAN);
          }
        for (int64_t b = 0; b < batch; ++b)
          for (int64_t n = 0; n < s.out; ++n)
            require(std::isnan(static_cast<double>(y.at(b, n))), "a row of another panel");
        y.require_gaps();
      }
}

template <class T>
void check_panel(const RowBlockKernels& k, int64_t count, int64_t in, int64_t step) {
  using A = Acc<T>;
  const Blocks<T> s(k, count, in, step);
  say("row blocks of %s, %ld lanes: %ld of %ld columns, step %ld", name_of(dtype<T>()),
      static_cast<long>(s.lanes), static_cast<long>(count), static_cast<long>(in),
      static_cast<long>(step));
  const auto values = random<T>(s.out * count);
  const auto slab = random<A>(in * s.width), g = random<A>(s.out * s.width);
  const Exact<A> w(count * s.lanes);
  k.gather(dtype<T>(), values.get(), s.panel, w.get());
  for (int64_t j = 0; j < count; ++j)
    for (int64_t i = 0; i < s.lanes; ++i)
      require(w[j * s.lanes + i] == static_cast<A>(values[s.crow[s.row(i)] + j]), "gather");
  check_forward(k, s, values, w, slab);

  const Exact<A> back(s.out * count), grad(in * s.width), sums(count * s.lanes);
  for (const bool accumulate : {false, true}) {
    k.scatter(dtype<T>(), w.get(), s.panel, accumulate, back.get());
    for (int64_t j = 0; j < count; ++j)
      for (int64_t i = 0; i < s.lanes; ++i)
        require(back[s.crow[s.row(i)] + j] == w[j * s.lanes + i] * (accumulate ? 2 : 1), "scatter");
    k.value_gradient(dtype<T>(), s.panel, slab.get(), g.get(), accumulate, sums.get());
    for (int64_t j = 0; j < count; ++j)
      for (int64_t i = 0; i < s.lanes; ++i) {
        Sum sum;
        for (int repeat = 0; repeat <= accumulate; ++repeat)
          for (int64_t b = 0; b < s.width; ++b)
            sum.add(double{slab[s.panel.col[j] * s.width + b]} * g[s.row(i) * s.width + b]);
        sum.require_near(sums[j * s.lanes + i], "value_gradient");
      }
  }
  for (int64_t i = 0; i < grad.size(); ++i) grad[i] = 1;
  k.input_gradient(dtype<T>(), s.panel, w.get(), g.get(), grad.get());
  std::vector<Sum> want(in * s.width);
  for (Sum& sum : want) sum.add(1);
  for (int64_t j = 0; j < count; ++j)
    for (int64_t b = 0; b < s.width; ++b)
      for (int64_t i = 0; i < s.lanes; ++i)
        want[s.panel.col[j] * s.width + b].add(double{w[j * s.lanes + i]} *
                                               g[s.row(i) * s.width + b]);
  for (int64_t i = 0; i < grad.size(); ++i) want[i].require_near(grad[i], "input_gradient");
}

}  // namespace

void check_row_blocks(Isa isa) {
  const RowBlockKernels& k = row_blocks_kernels(isa);
  // Around 4, 8 and 16 columns, which are turned at once; the last ones of some more.
  for (const int64_t count : {0, 1, 3, 4, 5, 8, 9, 15, 16, 17, 35})
    for (const int64_t more : {0, 4})
      for (const int64_t step : {1, 3})
        for_dtypes([&](auto t) { check_panel<decltype(t)>(k, count, count + more, step); });
}

}  // namespace synops::sanitize
