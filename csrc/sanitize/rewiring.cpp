// The kernels of prune_and_grow.inc and grow_topk_dense.inc against plain loops.
#include <cmath>
#include <vector>

#include "sanitize/checks.h"
#include "sanitize/samples.h"
#include "sparse/grow_topk_dense.h"
#include "sparse/prune_and_grow.h"

namespace synops::sanitize {
namespace {

// A weight of which a share leaves, and edges where something is absent or left.
void check_merge(const RewiringKernels& k, int64_t rows, int64_t cols, double density,
                 double share) {
  const Sample w(rows, cols, density);
  const Exact<uint8_t> prune(w.csr.nnz);
  std::vector<int32_t> origins(rows * cols, -1);  // of each element, -1 where it is not new
  std::vector<char> there(rows * cols);
  w.for_entries([&](int64_t n, int64_t c, int64_t j) {
    prune[j] = static_cast<uint8_t>((uniform() + 1) / 2 < share ? 1 + rng()() % 255 : 0);
    if (prune[j] == 0) there[n * cols + c] = 1;
    origins[n * cols + c] = static_cast<int32_t>(j);
  });
  std::vector<int32_t> found;
  const Exact<int64_t> first(rows + 1);
  for (int64_t n = 0; n < rows; ++n) {
    first[n] = static_cast<int64_t>(found.size());
    for (int64_t c = 0; c < cols; ++c)
      if (!there[n * cols + c] && (uniform() + 1) / 2 < share) {
        found.push_back(static_cast<int32_t>(c));
        there[n * cols + c] = 1;
      }
  }
  first[rows] = static_cast<int64_t>(found.size());
  const Exact<int32_t> edges(first[rows]), counts(rows), crow(rows + 1);
  std::copy(found.begin(), found.end(), edges.get());
  const Rewiring r{w.csr, prune.get(), edges.get(), first.get()};
  k.count(r, 0, rows, counts.get());
  crow[0] = 0;
  for (int64_t n = 0; n < rows; ++n)
    crow[n + 1] = static_cast<int32_t>(crow[n] + counts[n] + first[n + 1] - first[n]);
  const Exact<int32_t> col(crow[rows]), origin(crow[rows]);
  const int64_t half = rows / 2;
  require(k.merge(r, half, rows, crow.get(), col.get(), origin.get()), "merge refuses");
  require(k.merge(r, 0, half, crow.get(), col.get(), origin.get()), "merge refuses");
  int64_t o = 0;
  for (int64_t n = 0; n < rows; ++n)
    for (int64_t c = 0; c < cols; ++c)
      if (there[n * cols + c]) {
        require(o >= crow[n] && o < crow[n + 1], "rows of a merge");
        require(col[o] == c && origin[o] == origins[n * cols + c], "merge");
        ++o;
      }
  require(o == crow[rows], "how many are merged");
  // An edge on an entry that stays.
  for (int64_t j = 0; j < w.csr.nnz && edges.size() > 0; ++j)
    if (prune[j] == 0 && first[1] > 0 && j < w.csr.crow[1]) {
      edges[0] = w.csr.col[j];
      bool ascends = true;
      for (int64_t i = 1; i < first[1]; ++i) ascends &= edges[i - 1] < edges[i];
      if (ascends)
        require(!k.merge(r, 0, rows, crow.get(), col.get(), origin.get()), "merge takes any");
      break;
    }
}

template <class W>
void check_carry(const RewiringKernels& k, int64_t n, int64_t size, int64_t step) {
  const Exact<W> values(size), out(n);
  const Exact<int32_t> origin(n);
  for (int64_t i = 0; i < size; ++i) values[i] = static_cast<W>(rng()());
  for (int64_t j = 0; j < n; ++j)
    origin[j] = size == 0 || j % 5 == 2 ? -1 - static_cast<int32_t>(rng()() % 2)
                                        : static_cast<int32_t>(j * step % size);
  require(k.carry(sizeof(W), values.get(), size, origin.get(), n, out.get()), "carry refuses");
  for (int64_t j = 0; j < n; ++j)
    require(out[j] == (origin[j] < 0 ? W(0) : values[origin[j]]), "carry");
  for (const int64_t at : {int64_t{0}, n / 2, n - 1})
    for (const int64_t bad : {size, int64_t{INT32_MAX}}) {
      if (n == 0) continue;
      const int32_t good = std::exchange(origin[at], static_cast<int32_t>(bad));
      require(!k.carry(sizeof(W), values.get(), size, origin.get(), n, out.get()),
              "carry takes any");
      origin[at] = good;
    }
}

template <class T>
void check_filter(const GrowDenseKernels& k, int64_t cols, double least) {
  using A = Acc<T>;
  const Exact<T> row = random<T>(cols);
  const Exact<uint8_t> present(cols + kFilterSlack);
  for (int64_t c = 0; c < cols + kFilterSlack; ++c) present[c] = rng()() % 3 == 0;
  for (int64_t c = 3; c < cols; c += 7) row[c] = std::numeric_limits<T>::quiet_NaN();
  const Exact<int32_t> col(cols + kFilterSlack);
  const Exact<A> magnitudes(cols + kFilterSlack);
  const int64_t found =
      k.filter(dtype<T>(), row.get(), cols, present.get(), least, col.get(), magnitudes.get());
  int64_t at = 0;
  for (int64_t c = 0; c < cols; ++c) {
    const double v = std::abs(static_cast<double>(row[c]));
    const double want = std::isnan(v) ? -std::numeric_limits<double>::infinity() : v;
    require(k.magnitude(dtype<T>(), row.get(), c) == want, "magnitude");
    if (present[c] || want < static_cast<double>(static_cast<A>(least))) continue;
    require(at < found && col[at] == c && static_cast<double>(magnitudes[at]) == want, "filter");
    ++at;
  }
  require(at == found, "how many are found");
}

}  // namespace

void check_rewiring(Isa isa) {
  // Rows shorter and longer than a vector; few and many edges against entries.
  for (const auto& [rows, cols] : {std::pair{1, 1}, {3, 16}, {5, 40}, {4, 300}, {0, 7}})
    for (const double density : {0.0, 0.2, 0.9})
      for (const double share : {0.0, 0.1, 0.6, 1.0}) {
        say("prune_and_grow: %d x %d, density %g, share %g", rows, cols, density, share);
        check_merge(rewiring_kernels(isa), rows, cols, density, share);
      }
  for (const int64_t n : {0, 1, 15, 16, 17, 100})
    for (const int64_t size : {0, 1, 31, 33, 120})
      for (const int64_t step : {1, 2, 37}) {
        say("carry: %ld of %ld, by %ld", static_cast<long>(n), static_cast<long>(size),
            static_cast<long>(step));
        check_carry<uint16_t>(rewiring_kernels(isa), n, size, step);
        check_carry<uint32_t>(rewiring_kernels(isa), n, size, step);
        check_carry<uint64_t>(rewiring_kernels(isa), n, size, step);
      }
  for (const int64_t cols : {0, 1, 7, 15, 16, 17, 100})
    for (const double least : {-std::numeric_limits<double>::infinity(), 0.0, 0.7})
      for_dtypes([&](auto t) {
        say("grow_topk_dense: %s, %ld columns", name_of(dtype<decltype(t)>()),
            static_cast<long>(cols));
        check_filter<decltype(t)>(grow_dense_kernels(isa), cols, least);
      });
}

}  // namespace synops::sanitize
