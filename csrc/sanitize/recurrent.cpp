// The kernels of recurrent_lif.inc against plain loops.
#include <cmath>
#include <vector>

#include "sanitize/checks.h"
#include "sanitize/samples.h"
#include "spiking/recurrent_lif.h"

namespace synops::sanitize {
namespace {

// A row of n numbers of which some are 0; and its list by the kernel, checked.
template <class A>
void fill_row(A* row, int64_t n, double density) {
  for (int64_t i = 0; i < n; ++i)
    row[i] = static_cast<A>((uniform() + 1) / 2 < density ? uniform() : 0);
}

template <class A>
void check_lists(const RecurrentLifKernels& k, int64_t n) {
  const DType wide = dtype<A>();
  const Exact<A> a = random<A>(n), c = random<A>(n), value(n), membrane = random<A>(n);
  const A by = static_cast<A>(0.9);
  for (int64_t i = 0; i < n; i += 2) a[i] = by * c[i];
  const Exact<int32_t> index(n);
  const int64_t count = k.list(wide, a.get(), by, c.get(), n, n, index.get(), value.get());
  int64_t found = 0;
  for (int64_t i = 0; i < n; ++i) {
    const A product = by * c[i], left = a[i] - product;
    if (left == 0) continue;
    require(found < count && index[found] == i && value[found] == left, "list of differences");
    ++found;
  }
  require(found == count, "number of differences");
  if (count > 0)
    require(k.list(wide, a.get(), by, c.get(), n, count - 1, index.get(), value.get()) == -1,
            "more than the most");
  require(k.list(wide, a.get(), 0, nullptr, n, n, index.get(), nullptr) >= 0, "list");
  const Exact<A> threshold = random<A>(n);
  threshold[n - 1] = membrane[n - 1];
  for (const bool inclusive : {false, true}) {
    const int64_t fired =
        k.list_fired(wide, membrane.get(), threshold.get(), inclusive, n, index.get());
    int64_t at = 0;
    for (int64_t i = 0; i < n; ++i)
      if (inclusive ? membrane[i] >= threshold[i] : membrane[i] > threshold[i])
        require(at < fired && index[at++] == i, "list of who fired");
    require(at == fired, "number of who fired");
  }
}

// Products of rows, listed or whole, with a matrix or its transpose.
template <class A>
void check_products_of(const RecurrentLifKernels& k, int64_t rows, int64_t n, bool transposed) {
  const DType wide = dtype<A>();
  const int64_t width = k.width(wide), panels = (n + width - 1) / width, ld = panels * width;
  const Exact<A> matrix = random<A>(n * n), packed(panels * n * width), back(n * n);
  require(k.pack(wide, matrix.get(), n, transposed, 0, panels, packed.get()), "finite");
  k.unpack(wide, packed.get(), n, 0, panels, back.get());  // the transpose of what was packed
  const auto at = [&](int64_t i, int64_t j) {              // of the packed matrix
    return static_cast<double>(matrix[transposed ? j * n + i : i * n + j]);
  };
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j)
      require(static_cast<double>(back[j * n + i]) == at(i, j), "packed and unpacked");
  matrix[n * n - 1] = static_cast<A>(INFINITY);
  require(!k.pack(wide, matrix.get(), n, transposed, 0, panels, packed.get()), "infinite");
  matrix[n * n - 1] = static_cast<A>(0.5);
  k.pack(wide, matrix.get(), n, transposed, 0, panels, packed.get());

  const Exact<A> left(rows * n), value(rows * n), out = random<A>(rows * ld), before(rows * ld);
  const Exact<int32_t> index(rows * n);
  const Exact<int64_t> count(rows);
  std::copy_n(out.get(), rows * ld, before.get());
  for (int64_t r = 0; r < rows; ++r) {
    fill_row(&left[r * n], n, 0.4);
    count[r] = k.list(wide, &left[r * n], 0, nullptr, n, n, &index[r * n], &value[r * n]);
    if (r % 4 > 1) count[r] = -1;
  }
  const double scale = 0.75;
  const Lists lists{n, index.get(), value.get(), count.get()};
  k.multiply(wide, {rows, lists, left.get(), scale, out.get(), ld}, packed.get(), 0, panels);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < n; ++j) {
      Sum want;
      want.add((count[r] < 0 ? 1 : scale) * static_cast<double>(before[r * ld + j]));
      for (int64_t i = 0; i < n; ++i) want.add(static_cast<double>(left[r * n + i]) * at(i, j));
      want.require_near(out[r * ld + j], "product");
    }

  // The events of all rows by neuron, and the sums over them.
  const Exact<int64_t> ptr(n + 1);
  std::vector<int32_t> row;
  std::vector<A> by;
  ptr[0] = 0;
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t r = 0; r < rows; ++r)
      if (left[r * n + j] != 0)
        row.push_back(static_cast<int32_t>(r)), by.push_back(left[r * n + j]);
    ptr[j + 1] = static_cast<int64_t>(row.size());
  }
  const Exact<A> grad = random<A>(rows * n), room(rows * width), values(row.size());
  const Exact<int32_t> of_row(row.size());
  std::copy(row.begin(), row.end(), of_row.get());
  std::copy(by.begin(), by.end(), values.get());
  for (const bool with_values : {true, false}) {
    const Events events{n, ptr.get(), of_row.get(), with_values ? values.get() : nullptr};
    for (int64_t p = 0; p < panels; ++p) {
      const Exact<A> panel(n * width);
      std::fill_n(panel.get(), n * width, A(0.5));
      k.add_outer(wide, events, grad.get(), rows, p, panel.get(), room.get());
      for (int64_t j = 0; j < n; ++j)
        for (int64_t c = 0; c < std::min(width, n - p * width); ++c) {
          Sum want;
          want.add(0.5);
          for (int64_t e = ptr[j]; e < ptr[j + 1]; ++e)
            want.add((with_values ? static_cast<double>(by[e]) : 1) *
                     static_cast<double>(grad[row[e] * n + p * width + c]));
          want.require_near(panel[j * width + c], "outer product");
        }
    }
  }
  const Exact<A> sum = random<A>(n), term = random<A>(n), was(n);
  std::copy_n(sum.get(), n, was.get());
  k.add(wide, term.get(), n, sum.get());
  for (int64_t i = 0; i < n; ++i) require(sum[i] == was[i] + term[i], "sum");
}

// Products with the entries of a Pattern, and sums for them.
template <class A>
void check_entries(const RecurrentLifKernels& lists, Isa isa, int64_t rows, int64_t n) {
  const DType wide = dtype<A>();
  const RecurrentEntriesKernels& k = recurrent_entries_kernels(isa);
  const Sample s(n, n, 0.4, {}, 1, isa);
  const Exact<A> weight = random<A>(s.csr.nnz), left(rows * n), value(rows * n);
  const Exact<A> out = random<A>(rows * n), before(rows * n), grad = random<A>(rows * n);
  const Exact<int32_t> index(rows * n);
  const Exact<int64_t> count(rows);
  std::copy_n(out.get(), rows * n, before.get());
  for (int64_t r = 0; r < rows; ++r) {
    fill_row(&left[r * n], n, 0.5);
    count[r] = lists.list(wide, &left[r * n], 0, nullptr, n, n, &index[r * n], &value[r * n]);
  }
  const Compressed m{s.csr.crow, s.csr.col, weight.get()};
  k.scatter(wide, {rows, {n, index.get(), value.get(), count.get()}, nullptr, 0.5, out.get(), n},
            m);
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<Sum> want(n);
    for (int64_t j = 0; j < n; ++j) want[j].add(0.5 * static_cast<double>(before[r * n + j]));
    s.for_entries([&](int64_t i, int64_t j, int64_t e) {
      want[j].add(static_cast<double>(left[r * n + i]) * static_cast<double>(weight[e]));
    });
    for (int64_t j = 0; j < n; ++j) want[j].require_near(out[r * n + j], "product with entries");
  }
  // Gathered, the sums are over the columns of each row.
  const Exact<A> room(64 * n);
  std::copy_n(before.get(), rows * n, out.get());
  for (int64_t r = 0; r < rows; ++r) count[r] = r % 5 == 4 ? 0 : -1;
  k.gather(wide, {rows, {n, nullptr, nullptr, count.get()}, left.get(), 1, out.get(), n}, m,
           room.get());
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<Sum> want(n);
    for (int64_t i = 0; i < n; ++i) want[i].add(static_cast<double>(before[r * n + i]));
    s.for_entries([&](int64_t i, int64_t j, int64_t e) {
      if (count[r] < 0)
        want[i].add(static_cast<double>(left[r * n + j]) * static_cast<double>(weight[e]));
    });
    for (int64_t i = 0; i < n; ++i) want[i].require_near(out[r * n + i], "gathered product");
  }
  const Exact<int64_t> ptr(n + 1);
  std::vector<int32_t> row;
  ptr[0] = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t r = 0; r < rows; ++r)
      if (left[r * n + i] != 0) row.push_back(static_cast<int32_t>(r));
    ptr[i + 1] = static_cast<int64_t>(row.size());
  }
  const Exact<int32_t> of_row(row.size());
  std::copy(row.begin(), row.end(), of_row.get());
  const Exact<A> sums(s.csr.nnz);
  std::fill_n(sums.get(), s.csr.nnz, A(0));
  k.add_entries(wide, {n, ptr.get(), of_row.get(), nullptr}, grad.get(), 0, n, m, sums.get());
  s.for_entries([&](int64_t i, int64_t j, int64_t e) {
    Sum want;
    for (int64_t q = ptr[i]; q < ptr[i + 1]; ++q)
      want.add(static_cast<double>(grad[row[q] * n + j]));
    want.require_near(sums[e], "sums of entries");
  });
}

}  // namespace

void check_recurrent_lif(Isa isa) {
  const RecurrentLifKernels& k = recurrent_lif_kernels(isa);
  // Less than a vector, one, a panel and a bit (of the widest set); one row, and more than a group.
  for (const int64_t n : {1, 7, 16, 33, 131})
    for (const int64_t rows : {1, 5, 31, 67}) {
      say("recurrent_lif: %ld rows of %ld", static_cast<long>(rows), static_cast<long>(n));
      for (const bool transposed : {false, true}) {
        check_products_of<float>(k, rows, n, transposed);
        check_products_of<double>(k, rows, n, transposed);
      }
      check_lists<float>(k, n), check_lists<double>(k, n);
      check_entries<float>(k, isa, rows, n), check_entries<double>(k, isa, rows, n);
    }
}

}  // namespace synops::sanitize
