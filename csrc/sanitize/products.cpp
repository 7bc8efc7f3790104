// product() and gradients() against plain loops: every way through them, in buffers of exactly the
// right size, with one thread and with several.
#include <algorithm>

#include "sanitize/checks.h"
#include "sanitize/samples.h"
#include "sparse/product.h"

namespace synops::sanitize {
namespace {

struct Layout {
  bool feature_major;
  int64_t gap;
};
// The first is read as it is where the batch fills whole vectors, the others are packed.
constexpr Layout kLayouts[] = {{true, 0}, {false, 0}, {true, 3}, {false, 5}};

// One of them, by two bits of `turn`; few rows are row-major (see product.h).
Layout layout_of(int64_t batch, uint32_t turn) {
  Layout layout = kLayouts[turn & 3];
  if (batch < kFewRows) layout.feature_major = false;
  return layout;
}

template <class T>
Dense<T> dense(int64_t rows, int64_t cols, const Layout& layout) {
  return Dense<T>(rows, cols, layout.feature_major, layout.gap);
}
template <class T>
Dense<T> filled(int64_t rows, int64_t cols, const Layout& layout) {
  return Dense<T>::random(rows, cols, layout.feature_major, layout.gap);
}

template <class T>
void require_same(const Exact<T>& a, const Exact<T>& b, const char* what) {
  require(a.size() == 0 || std::memcmp(a.get(), b.get(), a.size() * sizeof(T)) == 0, what);
}

// f() with one thread, which `check` looks at, and then with several: the same bits.
template <class F, class Check, class Same>
void for_threads(F&& f, Check&& check, Same&& same) {
  static uint32_t turn = 0;
  set_threads(1);
  const auto one = f();
  check(one);
  set_threads(++turn % 2 == 0 ? 2 : 5);
  same(one, f());
  set_threads(1);
}

template <class T>
struct Case {
  // turn: random bits, by which the layouts and options are chosen.
  Case(const Sample& w, int64_t batch, uint32_t turn)
      : w(w),
        batch(batch),
        turn(turn),
        x(filled<T>(batch, w.csr.cols, layout_of(batch, turn))),
        g(filled<T>(batch, w.csr.rows, layout_of(batch, turn >> (turn & 4 ? 3 : 0)))),
        values(random<T>(w.csr.nnz)),
        bias(random<T>(w.csr.rows)) {}

  void check_product() const {
    const Activation activation = static_cast<Activation>((turn >> 12) % 3);
    const bool shift = turn >> 10 & 1, bits = turn >> 11 & 1;
    const auto want = w.products(x, values, shift ? &bias : nullptr);
    for_threads(
        [&] {
          auto out = Dense<T>(batch, w.csr.rows, turn >> 7 & 1, turn >> 8 & 3);
          const Epilogue e{shift ? bias.get() : nullptr, activation};
          require(product(w.weight(bits), values.get(), x.view(), e, out.view()),
                  "product refuses");
          return out;
        },
        [&](const auto& out) { require_output(out, want, activation, 0, w.csr.rows, "product"); },
        [](const auto& a, const auto& b) {
          require_same(a.memory, b.memory, "product: threads change it");
        });
  }

  struct Results {
    Dense<T> input;
    Exact<T> values, bias;
  };

  // needs: gradients of the input (1), of the values (2), of the bias (4).
  Results call_gradients(int needs) const {
    const bool of_input = (needs & 1) != 0;
    const Layout layout = layout_of(batch, turn >> 5);
    Results r{dense<T>(of_input ? batch : 0, w.csr.cols, layout),
              Exact<T>((needs & 2) != 0 ? w.csr.nnz : 0),
              Exact<T>((needs & 4) != 0 ? w.csr.rows : 0)};
    Gradients a{.w = w.weight(false)};
    if (of_input) {
      a.columns = w.by_columns;
      a.perm = w.perm.get();
      a.values = values.get();
      a.grad_input = r.input.view();
    }
    a.g = g.view();
    a.x = x.view();
    if ((needs & 2) == 0) a.x.data = nullptr;
    a.grad_values = r.values.get();
    a.grad_bias = r.bias.get();
    require(gradients(a), "gradients refuses");
    return r;
  }

  void check_gradients(int needs) const {
    std::vector<Sum> of_input(batch * w.csr.cols), of_bias(w.csr.rows);
    if ((needs & 1) != 0)
      w.for_entries([&](int64_t n, int64_t k, int64_t j) {
        for (int64_t b = 0; b < batch; ++b)
          of_input[b * w.csr.cols + k].add(static_cast<double>(g.at(b, n)) *
                                           static_cast<double>(values[j]));
      });
    for (int64_t n = 0; n < w.csr.rows; ++n)
      for (int64_t b = 0; b < batch; ++b) of_bias[n].add(static_cast<double>(g.at(b, n)));
    const auto of_values = (needs & 2) != 0 ? w.outer_sums(g, x) : std::vector<Sum>();
    for_threads([&] { return call_gradients(needs); },
                [&](const Results& r) {
                  require_output(r.input, of_input, Activation::kNone, 0, w.csr.cols,
                                 "input gradient");
                  for (int64_t j = 0; j < r.values.size(); ++j)
                    of_values[j].require_near(r.values[j], "value gradient");
                  for (int64_t n = 0; n < r.bias.size(); ++n)
                    of_bias[n].require_near(r.bias[n], "bias gradient");
                },
                [](const Results& a, const Results& b) {
                  require_same(a.input.memory, b.input.memory, "input gradient: threads change it");
                  require_same(a.values, b.values, "value gradient: threads change it");
                  require_same(a.bias, b.bias, "bias gradient: threads change it");
                });
  }

  const Sample& w;
  const int64_t batch;
  const uint32_t turn;
  const Dense<T> x, g;
  const Exact<T> values, bias;
};

template <class T>
void check_dtype(const Sample& w, const std::vector<int64_t>& batches) {
  for (const int64_t batch : batches) {
    const Case<T> c(w, batch, rng()() >> 8);
    say("%s, %s: batch %ld, in %ld, out %ld, %ld entries, %ld and %ld tiles, blocks %ld x %ld, "
        "turn %#x",
        isa_name(), name_of(dtype<T>()), static_cast<long>(batch), static_cast<long>(w.csr.cols),
        static_cast<long>(w.csr.rows), static_cast<long>(w.csr.nnz),
        static_cast<long>(w.by_rows.tiles), static_cast<long>(w.by_columns.tiles),
        static_cast<long>(w.blocks.rows), static_cast<long>(w.blocks.step), c.turn);
    c.check_product();
    c.check_gradients(7);
    c.check_gradients(static_cast<int>(1 + c.turn % 6));
  }
}

// Any result will do, but no access outside.
void use(const Sample& w, int64_t batch) {
  const int64_t in = w.csr.cols, out = w.csr.rows;
  const auto x = Dense<float>::random(batch, in), g = Dense<float>::random(batch, out);
  const auto values = random<float>(w.csr.nnz);
  const Dense<float> y(batch, out), grad_input(batch, in);
  const Exact<float> grad_values(w.csr.nnz), grad_bias(out);
  for (const bool bits : {false, true})
    static_cast<void>(product(w.weight(bits), values.get(), x.view(), {}, y.view()));
  static_cast<void>(gradients({.w = w.weight(false),
                               .columns = w.by_columns,
                               .perm = w.perm.get(),
                               .values = values.get(),
                               .g = g.view(),
                               .x = x.view(),
                               .grad_input = grad_input.view(),
                               .grad_values = grad_values.get(),
                               .grad_bias = grad_bias.get()}));
}

// Forms of a weight that contradict each other, with every index inside its range, and then with
// one that lies outside.
void check_bad_indices(int64_t in, int64_t out, RowBlocks blocks, int64_t tiles) {
  const Sample w(out, in, 0.4, blocks, tiles);
  const int64_t nnz = w.csr.nnz;
  const auto below = [](int64_t n) { return static_cast<int64_t>(rng()() % n); };
  for (int64_t j = 0; j < nnz; ++j) {
    w.col[j] = static_cast<int32_t>(below(in));
    w.index[j] = static_cast<uint16_t>(below(in - (w.by_rows.tiles - 1) * w.by_rows.tile()));
    w.row[j] = static_cast<uint16_t>(below(out - (w.by_columns.tiles - 1) * w.by_columns.tile()));
    w.perm[j] = static_cast<int32_t>(below(nnz));
  }
  for (int64_t i = 0; i < w.bits.size(); ++i) w.bits[i] = ~w.bits[i];
  for (const int64_t batch : {1, 5, 40}) {
    say("bad indices: batch %ld, in %ld, out %ld", static_cast<long>(batch), static_cast<long>(in),
        static_cast<long>(out));
    use(w, batch);
    const auto use_with = [&](auto& index, int64_t j, int64_t bad) {
      const auto good = std::exchange(index[j], static_cast<std::decay_t<decltype(index[j])>>(bad));
      use(w, batch);
      index[j] = good;
    };
    for (const int64_t j : {below(nnz), nnz - 1}) {
      for (const int64_t bad : {int64_t{-1}, in, int64_t{INT32_MIN}}) use_with(w.col, j, bad);
      for (const int64_t bad : {int64_t{-1}, nnz, int64_t{INT32_MAX}}) use_with(w.perm, j, bad);
      for (const int64_t bad : {w.by_rows.tile(), in, int64_t{65535}}) use_with(w.index, j, bad);
      for (const int64_t bad : {w.by_columns.tile(), out, int64_t{65535}}) use_with(w.row, j, bad);
    }
  }
}

}  // namespace

void check_products() {
  const auto check = [&](const std::vector<int64_t>& batches, int64_t in, int64_t out,
                         double density, RowBlocks blocks = {}, int64_t tiles = 0) {
    const Sample w(out, in, density, blocks, tiles);
    for_dtypes([&](auto t) { check_dtype<decltype(t)>(w, batches); });
  };
  // Around few rows, the lanes of any set, and slabs of one to eight vectors of it.
  const std::vector<int64_t> all = {0, 1, 3, 4, 8, 9, 16, 17, 32, 33, 64, 128, 130};
  const std::vector<int64_t> some = {3, 4, 8, 16, 21, 32, 64}, few = {2, 9};
  for (const auto& [in, out] : {std::pair{0, 0}, {0, 5}, {5, 0}, {1, 1}}) check(few, in, out, 1);
  check(all, 17, 33, 0.3);
  check(some, 150, 40, 0.2);  // tiles of 128 columns
  check(some, 40, 150, 0.2);
  check(some, 300, 20, 0.06);  // of 256
  check(few, 30, 40, 0);
  check(some, 40, 20, 0.5, {}, 5);  // tiles without columns
  check(few, 129, 1100, 0.2);       // more rows than wait for their last tile
  check(few, 70000, 2, 0.0005);     // more columns, or rows, than 16 bits count
  check(few, 2, 70000, 0.0005);
  // Blocks that fill the vectors of some sets or of all; a step; too wide for one group of slabs.
  check(all, 17, 24, 0.3, {8, 1});
  check(some, 33, 96, 0.4, {16, 3});
  check(few, 50, 256, 0.1, {128, 1});
  check(few, 9, 32, 0, {32, 1});
  check({33}, 3000, 16, 0.02, {16, 1});
  check_bad_indices(50, 40, {}, 0);
  check_bad_indices(60, 70, {}, 2);
  check_bad_indices(20, 96, {16, 3}, 0);
}

}  // namespace synops::sanitize
