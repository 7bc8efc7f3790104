// The kernels of attention_with_stats.inc, attention_with_stats_backward.inc and
// attention_few_rows.inc against plain loops.
#include <algorithm>
#include <vector>

#include "entropy/attention_with_stats.h"
#include "sanitize/checks.h"
#include "sanitize/samples.h"

namespace synops::sanitize {
namespace {

struct Shape {
  int64_t rows, keys, size, value_size;
  bool causal;
  int64_t window;
  int mask;  // 0: none, 1: bool, 2: numbers
};

// (1, 1, rows, size), rows `gap` elements further apart than needed.
template <class T>
struct Rows {
  Rows(int64_t rows, int64_t size, int64_t gap = 0)
      : ld(size + gap), size(size), memory(random<T>(rows == 0 ? 0 : (rows - 1) * ld + size)) {}
  AttentionRows view() const { return {memory.get(), 0, 0, ld}; }
  double at(int64_t i, int64_t d) const { return static_cast<double>(memory[i * ld + d]); }
  int64_t ld, size;
  Exact<T> memory;
};

// In float64: p of every row, and what comes of it.
template <class T>
struct Plain {
  Plain(const Attention& a, const Rows<T>& q, const Rows<T>& k, const Exact<T>& mask)
      : a(a), p(a.rows * a.keys), t(a.rows * a.keys), lse(a.rows), entropy(a.rows) {
    for (int64_t i = 0; i < a.rows; ++i) {
      std::vector<double> s(a.keys, -INFINITY);
      double top = -INFINITY, total = 0;
      const Range seen = a.keys_of(i);
      for (int64_t j = seen.begin; j < seen.end; ++j) {
        double dot = 0;
        for (int64_t d = 0; d < a.size; ++d) dot += q.at(i, d) * k.at(j, d);
        s[j] = dot * a.scale;
        if (a.mask.boolean && static_cast<const uint8_t*>(a.mask.data)[j] == 0) s[j] = -INFINITY;
        if (a.mask.data != nullptr && !a.mask.boolean)
          s[j] += static_cast<double>(mask[i * a.keys + j]);
        top = std::max(top, s[j]);
      }
      for (const double x : s) total += x == -INFINITY ? 0 : std::exp(x - top);
      lse[i] = total == 0 ? -INFINITY : top + std::log(total);
      for (int64_t j = 0; j < a.keys; ++j) {
        if (s[j] == -INFINITY) continue;
        t[i * a.keys + j] = s[j] - lse[i];
        p[i * a.keys + j] = std::exp(s[j] - lse[i]);
        entropy[i] -= p[i * a.keys + j] * t[i * a.keys + j];
      }
    }
  }
  const Attention& a;
  std::vector<double> p, t, lse, entropy;
};

template <class T>
void near(double got, double want, const char* what) {
  const double far = sizeof(T) == 2 ? 2e-2 : sizeof(T) == 4 ? 2e-5 : 1e-12;
  if (got == want || std::abs(got - want) <= far * (1 + std::abs(want))) return;
  std::fprintf(stderr, "%s: got %.9g, want %.9g\n", what, got, want);
  require(false, what);
}

template <class T>
void check_dtype(const Shape& shape, Isa isa) {
  using A = Acc<T>;
  const auto& [rows, keys, size, value_size, causal, window, kind] = shape;
  const AttentionKernels& k = attention_kernels(isa);
  const AttentionFewKernels& few = attention_few_kernels(isa);
  const AttentionGradientKernels& gradients = attention_gradient_kernels(isa);
  const DType type = dtype<T>();
  const Rows<T> q(rows, size, 3), key(keys, size, 1), value(keys, value_size),
      grad(rows, value_size);
  const Exact<T> numbers = random<T>(kind == 2 ? rows * keys : 0);
  Exact<uint8_t> bools(kind == 1 ? keys : 0);
  for (int64_t j = 0; j < bools.size(); ++j) bools[j] = j % 3 != 1;
  AttentionMask mask;
  if (kind == 1) mask = {bools.get(), true, type, 0, 0, 0, 1};
  if (kind == 2) mask = {numbers.get(), false, type, 0, 0, keys, 1};
  const Attention a{type,         1,    1,          1,        rows,
                    keys,         size, value_size, q.view(), key.view(),
                    value.view(), mask, causal,     window,   0.7};
  const Plain<T> plain(a, q, key, numbers);

  const int64_t ldq = pad_to(size, kPadSize), ldv = pad_to(value_size, kPadSize);
  const Exact<A> panels(pad_to(keys, kPadKeys) * size);
  const Exact<A> value_panels(pad_to(keys, kPadKeys) * value_size);
  const Exact<A> key_rows(keys * ldq), value_rows(keys * ldv);
  for (int64_t j = 0; j < keys; j += kBlockKeys) {
    const int64_t end = std::min(keys, j + kBlockKeys);
    k.pack_panels(type, key.memory.get(), key.ld, size, j, end, panels.get());
    k.pack_panels(type, value.memory.get(), value.ld, value_size, j, end, value_panels.get());
    k.pack_rows(type, key.memory.get(), key.ld, size, j, end, key_rows.get());
    k.pack_rows(type, value.memory.get(), value.ld, value_size, j, end, value_rows.get());
  }
  PackedRows values{value_rows.get(), ldv};
  if (k.direct(type, value_size)) values = {value.memory.get(), value.ld};

  const Exact<T> out(rows * value_size);
  const Exact<A> lse(rows), entropy(rows), varentropy(rows), max_prob(rows), received(keys);
  const AttentionOutput o{out.get(), lse.get(), entropy.get(), varentropy.get(), max_prob.get()};
  const auto check_forward = [&] {
    for (int64_t i = 0; i < rows; ++i) {
      near<A>(lse[i], plain.lse[i], "lse");
      near<A>(entropy[i], plain.entropy[i], "entropy");
      for (int64_t d = 0; d < value_size; ++d) {
        double want = 0;
        for (int64_t j = 0; j < keys; ++j) want += plain.p[i * keys + j] * value.at(j, d);
        near<T>(static_cast<double>(out[i * value_size + d]), want, "output");
      }
    }
  };
  if (rows <= kUnturnedRows) {
    const int64_t count = std::max<int64_t>(1, blocks_of(keys, kPartKeys)), bytes = few_part(a);
    const Guarded parts(count * bytes);
    for (int64_t c = 0; c < count; ++c) {
      const Guarded room(few_room(a));
      few.pass(a, 0, 0, c * kPartKeys, std::min(keys, (c + 1) * kPartKeys), true, true,
               static_cast<char*>(parts.data()) + c * bytes, room.data());
    }
    few.finish(a, parts.data(), count, o);
    check_forward();
  }
  for (int64_t i = 0; i < rows; i += kBlockRows) {
    const Guarded room(forward_room(a));
    const void* turned = rows <= kBlockRows ? nullptr : panels.get();
    k.forward(a, turned, values, 0, 0, i, std::min(rows, i + kBlockRows), o, room.data());
  }
  check_forward();
  for (int64_t j = 0; j < keys; j += kBlockKeys) {
    const Guarded room(forward_room(a));
    k.received(a, panels.get(), lse.get(), 0, 0, j, std::min(keys, j + kBlockKeys), received.get(),
               room.data());
  }
  for (int64_t j = 0; j < keys; ++j) {
    double want = 0;
    for (int64_t i = 0; i < rows; ++i) want += plain.p[i * keys + j];
    near<A>(received[j], want, "received");
  }

  // Through the output and the entropy; each of the results alone, too.
  const Exact<A> to_entropy = random<A>(rows);
  AttentionGrads g{grad.view(),      {out.get(), 0, 0, value_size},
                   lse.get(),        entropy.get(),
                   nullptr,          nullptr,
                   to_entropy.get(), nullptr};
  for (const int needs : {7, 4, 2, 1}) {
    const Exact<T> grad_query((needs & 1) != 0 ? rows * size : 0);
    Exact<A> grad_key((needs & 2) != 0 ? keys * ldq : 0);
    Exact<A> grad_value((needs & 4) != 0 ? keys * ldv : 0);
    std::fill_n(grad_key.get(), grad_key.size(), A(0));
    std::fill_n(grad_value.get(), grad_value.size(), A(0));
    for (int64_t i = 0; i < rows; i += kBlockRows) {
      const Guarded room(backward_room(a));
      gradients.backward(a, g, panels.get(), {key_rows.get(), ldq}, value_panels.get(), 0, 0, i,
                         std::min(rows, i + kBlockRows), grad_query.get(), grad_key.get(),
                         grad_value.get(), room.data());
    }
    std::vector<double> to_key(keys * size), to_value(keys * value_size);
    for (int64_t i = 0; i < rows; ++i) {
      std::vector<double> to_query(size);
      double dot = 0;
      for (int64_t d = 0; d < value_size; ++d)
        dot += grad.at(i, d) * static_cast<double>(out[i * value_size + d]);
      for (int64_t j = 0; j < keys; ++j) {
        const double p = plain.p[i * keys + j], u = plain.t[i * keys + j] + plain.entropy[i];
        double w = -dot - to_entropy[i] * u;
        for (int64_t d = 0; d < value_size; ++d) {
          w += grad.at(i, d) * value.at(j, d);
          to_value[j * value_size + d] += p * grad.at(i, d);
        }
        for (int64_t d = 0; d < size; ++d) {
          to_query[d] += p * w * a.scale * key.at(j, d);
          to_key[j * size + d] += p * w * a.scale * q.at(i, d);
        }
      }
      for (int64_t d = 0; d < size && grad_query.size() > 0; ++d)
        near<T>(static_cast<double>(grad_query[i * size + d]), to_query[d], "grad_query");
    }
    for (int64_t j = 0; j < keys; ++j) {
      for (int64_t d = 0; d < size && grad_key.size() > 0; ++d)
        near<T>(grad_key[j * ldq + d], to_key[j * size + d], "grad_key");
      for (int64_t d = 0; d < value_size && grad_value.size() > 0; ++d)
        near<T>(grad_value[j * ldv + d], to_value[j * value_size + d], "grad_value");
    }
  }
}

}  // namespace

void check_attention(Isa isa) {
  // Around 4, 6 and 96 rows, panels of 8 to 64 and blocks of 256 keys, lanes of 4 to 16,
  // and parts of 1024 keys.
  const Shape shapes[] = {{1, 1, 1, 1, false, -1, 0},     {7, 65, 16, 33, false, -1, 0},
                          {97, 257, 8, 16, false, -1, 1}, {101, 70, 5, 17, true, -1, 0},
                          {100, 300, 17, 64, true, 9, 0}, {70, 33, 4, 48, false, 5, 0},
                          {13, 64, 64, 80, false, -1, 2}, {6, 300, 256, 1, false, 20, 1},
                          {3, 0, 8, 8, false, -1, 0},     {2, 2100, 17, 24, false, -1, 2},
                          {4, 1030, 33, 16, false, 3, 1}};
  for (const Shape& s : shapes)
    for_dtypes([&](auto t) {
      using T = decltype(t);
      say("attention: %s, %ld rows, %ld keys, sizes %ld and %ld", name_of(dtype<T>()),
          static_cast<long>(s.rows), static_cast<long>(s.keys), static_cast<long>(s.size),
          static_cast<long>(s.value_size));
      check_dtype<T>(s, isa);
    });
}

}  // namespace synops::sanitize
