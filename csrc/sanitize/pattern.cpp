// The kernels of arrays.inc and pattern.inc against plain loops.
#include <algorithm>

#include "sanitize/checks.h"
#include "sanitize/samples.h"

namespace synops::sanitize {
namespace {

template <class T>
void check_conversions(const ArrayKernels& k, int64_t n) {
  const Exact<T> in = random<T>(n);
  Exact<Acc<T>> wide(n), moved(n);
  Exact<T> back(n);
  Exact<int32_t> index(n);
  k.widen(dtype<T>(), in.get(), n, wide.get());
  k.narrow(dtype<T>(), wide.get(), n, back.get());
  for (int64_t i = 0; i < n; ++i) index[i] = static_cast<int32_t>(n - 1 - i);
  require(k.permute(dtype<T>(), in.get(), n, index.get(), n, moved.get()), "permute");
  for (int64_t i = 0; i < n; ++i) {
    require(wide[i] == static_cast<Acc<T>>(in[i]), "widen");
    require(back[i] == in[i], "narrow");
    require(moved[i] == static_cast<Acc<T>>(in[n - 1 - i]), "permute");
  }
  for (const int64_t bad : {int64_t{-1}, n, int64_t{INT32_MIN}, int64_t{INT32_MAX}}) {
    if (n == 0) break;
    index[n / 2] = static_cast<int32_t>(bad);
    require(!k.permute(dtype<T>(), in.get(), n, index.get(), n, moved.get()), "permute takes any");
  }
}

// values, by `select`, into two and back.
template <class W>
void check_split(const PatternKernels& k, int64_t n, double share) {
  const Exact<uint8_t> select(n);
  const Exact<W> values(n);
  int64_t count = 0;
  for (int64_t j = 0; j < n; ++j) {
    values[j] = static_cast<W>(rng()());
    select[j] = static_cast<uint8_t>((uniform() + 1) / 2 < share ? 1 + rng()() % 255 : 0);
    count += select[j] != 0;
  }
  const Exact<W> selected(count), rest(n - count), back(n);
  k.split(sizeof(W), values.get(), select.get(), n, count, selected.get(), rest.get());
  int64_t one = 0, other = 0;
  for (int64_t j = 0; j < n; ++j)
    require((select[j] ? selected[one++] : rest[other++]) == values[j], "split");
  k.merge(sizeof(W), selected.get(), rest.get(), select.get(), n, count, back.get());
  for (int64_t j = 0; j < n; ++j) require(back[j] == values[j], "merge");
}

void check_index(const PatternKernels& k, const Sample& w) {
  int64_t j = 0;
  for (int64_t n = 0; n < w.csr.rows; ++n)
    for (int64_t c = 0; c < w.csr.cols; ++c) {
      if (!w.mask[n * w.csr.cols + c]) continue;
      require(w.col[j] == c, "fill");
      require(j >= w.crow[n] && j++ < w.crow[n + 1], "count");
    }
  require(j == w.csr.nnz, "count");

  // CSR order, seen from the tiles: the entries of a row in one tile after the other.
  const Exact<int32_t> at(w.csr.rows);
  std::copy_n(w.crow.get(), w.csr.rows, at.get());
  for (int64_t t = 0; t < w.by_rows.tiles; ++t)
    for (int64_t n = 0; n < w.csr.rows; ++n)
      for (int64_t i = w.by_rows.first(t, n); i < w.by_rows.first(t, n + 1); ++i)
        require(w.index[i] + t * w.by_rows.tile() == w.col[at[n]++], "by_rows");
  for (int64_t n = 0; n < w.csr.rows; ++n) require(at[n] == w.crow[n + 1], "by_rows");

  int64_t seen = 0;
  for (int64_t t = 0; t < w.by_columns.tiles; ++t)
    for (int64_t c = 0; c < w.csr.cols; ++c)
      for (int64_t i = w.by_columns.first(t, c); i < w.by_columns.first(t, c + 1); ++i, ++seen) {
        const int64_t n = w.row[i] + t * w.by_columns.tile();
        require(w.perm[i] >= w.crow[n] && w.perm[i] < w.crow[n + 1], "by_columns: row");
        require(w.col[w.perm[i]] == c, "by_columns: column");
      }
  require(seen == w.csr.nnz, "by_columns");

  for (int64_t n = 0; n < w.csr.rows; ++n)
    for (int64_t c = 0; c < w.words * 64; ++c)
      require((w.bits[n * w.words + c / 64] >> c % 64 & 1) ==
                  (c < w.csr.cols && w.mask[n * w.csr.cols + c] != 0),
              "bits");

  require(k.first_unsorted(w.csr) == -1, "first_unsorted");
  for (int64_t i = 0; i < w.csr.nnz; i += w.csr.nnz / 3 + 1)
    for (const int32_t bad : {-1, static_cast<int32_t>(w.csr.cols)}) {
      const int32_t good = std::exchange(w.col[i], bad);
      require(k.first_unsorted(w.csr) == i, "first_unsorted: out of range");
      w.col[i] = good;
    }
}

template <class T>
void check_dense(const PatternKernels& k, const Sample& w) {
  const Exact<T> weight = random<T>(w.mask.size()), values(w.csr.nnz), back(w.mask.size());
  const int64_t half = w.csr.rows / 2;
  for (const auto& [n0, n1] : {std::pair{half, w.csr.rows}, std::pair{int64_t{0}, half}}) {
    k.gather(dtype<T>(), weight.get(), w.csr, n0, n1, values.get());
    k.scatter(dtype<T>(), values.get(), w.csr, n0, n1, back.get());
  }
  for (int64_t i = 0; i < w.mask.size(); ++i)
    require(back[i] == (w.mask[i] ? weight[i] : T(0)), "gather and scatter");
}

}  // namespace

void check_arrays(Isa isa) {
  const ArrayKernels& k = array_kernels(isa);
  for (const int64_t n : {0, 1, 3, 4, 7, 8, 9, 15, 16, 17, 33, 100}) {
    say("arrays of %ld", static_cast<long>(n));
    for_dtypes([&](auto t) { check_conversions<decltype(t)>(k, n); });
    const Exact<int32_t> p(n), q(n);
    const Exact<uint16_t> high(n);
    for (int64_t i = 0; i < n; ++i) {
      p[i] = static_cast<int32_t>(i - 1);
      q[i] = static_cast<int32_t>(i);
      high[i] = static_cast<uint16_t>(65535 - i);
    }
    require(k.in_range(p.get(), n, -1, static_cast<int32_t>(n)), "in_range");
    require(n == 0 || !k.in_range(p.get(), n, 0, static_cast<int32_t>(n)), "in_range: low");
    require(n == 0 || !k.in_range(p.get(), n, -1, static_cast<int32_t>(n - 2)), "in_range: high");
    require(k.highest(high.get(), n) == (n == 0 ? -1 : 65535), "highest");
    require(k.not_above(p.get(), q.get(), n), "not_above");
    require(n == 0 || !k.not_above(q.get(), p.get(), n), "not_above: above");
  }
}

void check_pattern(Isa isa) {
  const PatternKernels& k = pattern_kernels(isa);
  // Around the 16 of a store, at both ends, with one side empty, a few or all.
  for (const int64_t n : {0, 1, 15, 16, 17, 31, 32, 33, 64, 100, 257})
    for (const double share : {0.0, 0.1, 0.5, 0.9, 1.0}) {
      say("split of %ld, share %g", static_cast<long>(n), share);
      check_split<uint16_t>(k, n, share);
      check_split<uint32_t>(k, n, share);
      check_split<uint64_t>(k, n, share);
    }
  const auto check = [&](int64_t rows, int64_t cols, double density, int64_t tiles) {
    say("pattern %ld x %ld, density %g, tiles %ld", static_cast<long>(rows),
        static_cast<long>(cols), density, static_cast<long>(tiles));
    const Sample w(rows, cols, density, {}, tiles, isa);
    check_index(k, w);
    for_dtypes([&](auto t) { check_dense<decltype(t)>(k, w); });
  };
  // 16 and 8 columns at a time; 64: a word of bits; 128, 256: tiles.
  for (const double density : {0.0, 0.02, 0.5, 1.0})
    for (const int64_t cols : {0, 1, 7, 8, 15, 16, 17, 63, 64, 65, 129, 257, 400})
      for (const int64_t rows : {0, 1, 17, 140})
        for (const int64_t tiles : {0, 3}) check(rows, cols, density, tiles);
  for (const int64_t wide : {65536, 65537, 70000}) {
    check(3, wide, 0.01, 0);
    check(wide, 3, 0.01, 0);
  }
  for (const int64_t rows : {8, 16, 32, 128}) {
    const Sample w(2 * rows, 70, 0.3, {rows, 1}, 0, isa);
    require(k.equal_rows(w.csr, rows) && !k.equal_rows(w.csr, 2 * rows), "equal_rows");
    w.col[w.csr.nnz - 1] -= 1;  // of the last row
    require(!k.equal_rows(w.csr, rows), "equal_rows: another column");
  }
}

}  // namespace synops::sanitize
