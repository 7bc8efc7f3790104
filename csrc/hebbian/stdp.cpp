// stdp (CPU): checks, the traces of all steps, and threads over rows; kernels in stdp.inc.
//
// Steps are taken in groups, so that what the rows of the weight read of them stays in the L2:
// traces and spikes of the columns, in the arithmetic type. Whether a step goes by events depends
// on its own spikes alone, and a row belongs to one thread: nothing depends on threads or groups.
#include "hebbian/stdp.h"

#include <torch/csrc/stable/library.h>

#include <cmath>
#include <cstring>
#include <tuple>
#include <vector>

#include "common/arrays.h"
#include "common/scratch.h"
#include "hebbian/all_parts.h"
#include "hebbian/local_rule.h"
#include "hebbian/plasticity.h"
#include "sparse/compressed.h"

namespace synops {
namespace {

constexpr const char* kOp = "stdp";
// Traces and spikes of the columns in a group of steps.
constexpr int64_t kGroupBytes = int64_t{512} << 10;
// A step goes by events while these are fewer than a kDense-th of columns and samples: an event
// costs as much as 16 columns side by side.
constexpr int64_t kDense = 16;

struct Numbers {
  double decay_plus, decay_minus, decay_x, decay_y, decay_e;
  double a_plus, a_minus, a3_plus, a3_minus;
  double lower, upper;
  bool nearest;
  int64_t coincident;  // 1: the columns' traces hold the step's spikes; 2: the rows'
  bool soft, mean;
};

// What a call works on, checked.
struct Call {
  DType dtype, acc;
  int64_t steps, samples, rows, columns, entries;
  void *weight, *eligibility;
  void *trace_pre, *trace_post, *slow_pre, *slow_post;
  Tensor pre, post;
  double lr;
  OptionalTensor rate, modulator, reward, sign;
  bool check_sign;
  const int32_t *crow, *col;
};

// (T, B, N) of floats whose arithmetic type is that of the weight, or of bytes.
Tensor spikes_of(const Tensor& t, DType acc, const char* name) {
  STD_TORCH_CHECK(t.is_cpu() && t.dim() == 3, kOp, ": ", name,
                  " must have 3 dimensions on the CPU");
  const ScalarType type = t.scalar_type();
  if (type != ScalarType::Byte && type != ScalarType::Bool) {
    const bool wide = dtype_of(t, kOp, name) == DType::kFloat64;
    STD_TORCH_CHECK(wide == (acc == DType::kFloat64), kOp, ": ", name, " has the wrong dtype");
  }
  return dense_of(t);
}

// Something of the arithmetic type that is written to or read as it is.
template <class... Sizes>
void check_state(const Tensor& t, DType acc, const char* name, Sizes... sizes) {
  check_tensor(t, arithmetic_type(acc), sizeof...(sizes), kOp, name);
  int64_t axis = 0;
  (check_size(t.size(axis++), sizes, kOp, name, "a size"), ...);
  STD_TORCH_CHECK(t.is_contiguous(), kOp, ": ", name, " must be contiguous");
}

int64_t element_bytes(const Tensor& t) { return static_cast<int64_t>(t.element_size()); }

// Spikes of step t in the arithmetic type.
void widen(const Tensor& t, int64_t step, DType acc, void* out) {
  const int64_t n = t.size(1) * t.size(2);
  const auto* from = static_cast<const char*>(t.const_data_ptr()) + step * n * element_bytes(t);
  const ScalarType type = t.scalar_type();
  if (type != ScalarType::Byte && type != ScalarType::Bool)
    return array_kernels().widen(dtype_of(t, kOp, "spikes"), from, n, out);
  const auto* bytes = reinterpret_cast<const uint8_t*>(from);
  const bool flags = type == ScalarType::Bool;
  const auto fill = [&](auto* to) {
    for (int64_t i = 0; i < n; ++i) to[i] = flags ? bytes[i] != 0 : bytes[i];
  };
  acc == DType::kFloat64 ? fill(static_cast<double*>(out)) : fill(static_cast<float*>(out));
}

// Bits for what is not finite; then nothing may be written.
int64_t look(const Call& c) {
  const StdpKernels& k = stdp_kernels();
  const auto good = [&](const Tensor& t) {
    const ScalarType type = t.scalar_type();
    if (type == ScalarType::Byte || type == ScalarType::Bool) return true;
    return k.finite(dtype_of(t, kOp, "an argument"), t.const_data_ptr(), t.numel());
  };
  const auto state = [&](const void* p, int64_t n) {
    return p == nullptr || k.finite(c.acc, p, c.samples * n);
  };
  if (!good(c.pre)) return kPreNotFinite;
  if (!good(c.post)) return kPostNotFinite;
  if (!std::isfinite(c.lr) || !finite(c.rate) || !finite(c.modulator) || !finite(c.reward))
    return kFactorNotFinite;
  if (!finite(c.sign) || !state(c.trace_pre, c.columns) || !state(c.slow_pre, c.columns) ||
      !state(c.trace_post, c.rows) || !state(c.slow_post, c.rows))
    return kArgumentNotFinite;
  if (!c.check_sign) return 0;
  const PlasticWeight w{c.dtype,  c.rows,    c.columns, c.weight, c.columns,
                        c.weight, c.columns, nullptr,   nullptr,  nullptr};
  const void* const sign = data_of(c.sign);
  const bool holds =
      c.crow == nullptr
          ? signs_hold(w, sign)
          : all_parts(c.rows, c.entries, [&](int64_t begin, int64_t end) {
              return sampled_update_kernels().signs_hold(w, {c.crow, c.col}, sign, begin, end);
            });
  return holds ? 0 : kSignBroken;
}

// The events of one step from its drive (samples, columns).
template <class A>
StdpEvents events_of(const A* drive, int64_t samples, int64_t columns, const int32_t* column,
                     int64_t count, int32_t* ptr, int32_t* sample, A* value) {
  const int64_t most = samples * columns / kDense;
  int64_t n = 0;
  for (int64_t k = 0; k < count; ++k) {
    ptr[k] = static_cast<int32_t>(n);
    for (int64_t b = 0; b < samples; ++b) {
      const A v = drive[b * columns + column[k]];
      if (v == A(0)) continue;
      if (n == most) return {StdpEvents::kEvery, nullptr, nullptr, nullptr, nullptr};
      sample[n] = static_cast<int32_t>(b);
      value[n++] = v;
    }
  }
  ptr[count] = static_cast<int32_t>(n);
  return {count, column, ptr, sample, value};
}

template <class A>
int64_t run(const Call& c, const Numbers& x) {
  const StdpKernels& kernels = stdp_kernels();
  const int64_t B = c.samples, of_pre = B * c.columns, of_post = B * c.rows;
  const int64_t group =
      std::clamp<int64_t>(kGroupBytes / std::max<int64_t>(1, 2 * of_pre * int64_t{sizeof(A)}), 1,
                          std::max<int64_t>(c.steps, 1));
  const int64_t most = of_pre / kDense + 1;  // events of a step
  const auto bytes = [](int64_t n, size_t size) { return Scratch::round_up(n * size); };
  Scratch room(bytes(std::max(of_pre, of_post), sizeof(A)) + 2 * bytes(group * of_pre, sizeof(A)) +
               2 * bytes(group * of_post, sizeof(A)) + bytes(group * c.columns, sizeof(A)) +
               bytes(B, sizeof(A)) + bytes(c.rows, sizeof(A)) + 2 * bytes(c.columns, sizeof(A)) +
               bytes(group * c.columns, 4) + bytes(group * (c.columns + 1), 4) +
               bytes(group * most, 4) + bytes(group * most, sizeof(A)) + bytes(c.rows, 4));
  A* const spikes = static_cast<A*>(room.take(std::max(of_pre, of_post) * sizeof(A)));
  A* const trace = static_cast<A*>(room.take(group * of_pre * sizeof(A)));
  A* const depress = static_cast<A*>(room.take(group * of_pre * sizeof(A)));
  A* const potentiate = static_cast<A*>(room.take(group * of_post * sizeof(A)));
  A* const depressed = static_cast<A*>(room.take(group * of_post * sizeof(A)));
  A* const touched = static_cast<A*>(room.take(group * c.columns * sizeof(A)));
  void* const scale = room.take(B * sizeof(A));
  fill_factor(c.modulator, x.mean ? 1.0 / B : 1.0, B, c.acc, scale);
  void* const lr = room.take(c.rows * sizeof(A));
  fill_factor(c.rate, c.lr, c.rows, c.acc, lr);
  void* const lower = room.take(c.columns * sizeof(A));
  void* const upper = room.take(c.columns * sizeof(A));
  fill_bounds(x.lower, x.upper, c.sign, c.columns, c.acc, lower, upper);
  int32_t* const column = static_cast<int32_t*>(room.take(group * c.columns * 4));
  int32_t* const ptr = static_cast<int32_t*>(room.take(group * (c.columns + 1) * 4));
  int32_t* const sample = static_cast<int32_t*>(room.take(group * most * 4));
  A* const value = static_cast<A*>(room.take(group * most * sizeof(A)));
  std::vector<StdpEvents> events(group);
  bool good = true;
  for (int64_t t0 = 0; t0 < c.steps; t0 += group) {
    const int64_t steps = std::min(group, c.steps - t0);
    int64_t work = 0;
    for (int64_t t = 0; t < steps; ++t) {
      widen(c.pre, t0 + t, c.acc, spikes);
      kernels.side(c.acc, {spikes, B, c.columns, c.trace_pre, c.slow_pre, x.decay_plus, x.decay_x,
                           x.a_minus, x.a3_minus, scale, x.nearest, (x.coincident & 1) != 0,
                           trace + t * of_pre, depress + t * of_pre});
      widen(c.post, t0 + t, c.acc, spikes);
      kernels.side(c.acc, {spikes, B, c.rows, c.trace_post, c.slow_post, x.decay_minus, x.decay_y,
                           x.a_plus, x.a3_plus, scale, x.nearest, (x.coincident & 2) != 0,
                           depressed + t * of_post, potentiate + t * of_post});
      int32_t* const at = column + t * c.columns;
      const int64_t count =
          kernels.touch(c.acc, depress + t * of_pre, B, c.columns, touched + t * c.columns, at);
      events[t] = events_of(depress + t * of_pre, B, c.columns, at, count,
                            ptr + t * (c.columns + 1), sample + t * most, value + t * most);
      if (c.crow != nullptr) events[t].count = count == 0 ? 0 : StdpEvents::kEvery;
      const bool every = c.eligibility != nullptr || events[t].count == StdpEvents::kEvery;
      work += every ? c.entries * B / 8 : c.rows * (4 + kDense * events[t].count);
    }
    const void* const reward =
        c.reward.has_value() ? static_cast<const A*>(data_of(c.reward)) + t0 : nullptr;
    const bool uniform = !c.sign.has_value() && c.columns > 0;
    const StdpSteps s{c.rows,
                      c.columns,
                      B,
                      steps,
                      c.weight,
                      c.eligibility,
                      c.crow,
                      c.col,
                      potentiate,
                      depressed,
                      trace,
                      depress,
                      B == 1 ? depress : touched,
                      events.data(),
                      lr,
                      reward,
                      lower,
                      upper,
                      uniform,
                      x.decay_e,
                      x.soft};
    good &= all_parts(c.rows, work, [&](int64_t begin, int64_t end) {
      const size_t of_terms = Scratch::round_up(2 * B * sizeof(StdpTerm));
      const size_t of_sums = c.columns * sizeof(A);
      Scratch own(of_terms + Scratch::round_up(of_sums));
      auto* const terms = static_cast<StdpTerm*>(own.take(of_terms));
      void* const sums = own.take(of_sums);
      std::memset(sums, 0, of_sums);
      return kernels.rows(c.dtype, s, begin, end, terms, sums);
    });
  }
  return good ? 0 : kOverflow;
}

int64_t checked_run(const Tensor& weight, const Tensor& trace_pre, const Tensor& trace_post,
                    const OptionalTensor& slow_pre, const OptionalTensor& slow_post,
                    const OptionalTensor& eligibility, const Tensor& pre, const Tensor& post,
                    const OptionalTensor& crow, const OptionalTensor& col, double lr,
                    const OptionalTensor& rate, const OptionalTensor& modulator,
                    const OptionalTensor& reward, const OptionalTensor& sign, bool check_sign,
                    const Numbers& x) {
  const bool compressed = crow.has_value();
  const DType dtype = dtype_of(weight, kOp, "weight");
  check_tensor(weight, weight.scalar_type(), compressed ? 1 : 2, kOp, "weight");
  STD_TORCH_CHECK(weight.is_contiguous(), kOp, ": weight must be contiguous");
  const DType acc = dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  Call c{};
  c.dtype = dtype, c.acc = acc;
  c.pre = spikes_of(pre, acc, "pre"), c.post = spikes_of(post, acc, "post");
  c.steps = c.pre.size(0), c.samples = c.pre.size(1);
  c.columns = c.pre.size(2), c.rows = c.post.size(2);
  check_size(c.post.size(0), c.steps, kOp, "post", "size 0");
  check_size(c.post.size(1), c.samples, kOp, "post", "size 1");
  STD_TORCH_CHECK(c.rows <= kMaxIndex && c.columns < kMaxIndex && c.samples <= kMaxIndex, kOp,
                  ": sizes must fit in int32");
  STD_TORCH_CHECK(col.has_value() == compressed, kOp, ": crow and col must be given together");
  c.entries = c.rows * c.columns;
  if (compressed) {
    const Csr csr = csr_of(*crow, *col, c.columns, kOp);
    check_size(csr.rows, c.rows, kOp, "crow", "rows");
    STD_TORCH_CHECK(weight.size(0) >= csr.nnz, kOp, ": weight must hold at least ", csr.nnz,
                    " elements, got ", weight.size(0));
    c.crow = csr.crow, c.col = csr.col, c.entries = csr.nnz;
  } else {
    check_size(weight.size(0), c.rows, kOp, "weight", "size 0");
    check_size(weight.size(1), c.columns, kOp, "weight", "size 1");
  }
  check_state(trace_pre, acc, "trace_pre", c.samples, c.columns);
  check_state(trace_post, acc, "trace_post", c.samples, c.rows);
  STD_TORCH_CHECK(slow_pre.has_value() == slow_post.has_value(), kOp,
                  ": slow_pre and slow_post must be given together");
  if (slow_pre.has_value()) {
    check_state(*slow_pre, acc, "slow_pre", c.samples, c.columns);
    check_state(*slow_post, acc, "slow_post", c.samples, c.rows);
    c.slow_pre = slow_pre->mutable_data_ptr(), c.slow_post = slow_post->mutable_data_ptr();
  }
  STD_TORCH_CHECK(eligibility.has_value() == reward.has_value(), kOp,
                  ": eligibility and reward must be given together");
  if (eligibility.has_value()) {
    compressed ? check_state(*eligibility, acc, "eligibility", weight.size(0))
               : check_state(*eligibility, acc, "eligibility", c.rows, c.columns);
    c.eligibility = eligibility->mutable_data_ptr();
  }
  const ScalarType type = arithmetic_type(acc);
  c.lr = lr, c.rate = optional_factor(rate, type, c.rows, kOp, "rate");
  c.modulator = optional_factor(modulator, type, c.samples, kOp, "modulator");
  c.reward = optional_vector(reward, type, c.steps, kOp, "reward");
  c.sign = optional_vector(sign, type, c.columns, kOp, "sign");
  c.check_sign = check_sign && sign.has_value();
  c.weight = weight.mutable_data_ptr();
  c.trace_pre = trace_pre.mutable_data_ptr(), c.trace_post = trace_post.mutable_data_ptr();
  const int64_t report = look(c);
  if (report != 0 || c.steps == 0 || c.samples == 0) return report;
  return acc == DType::kFloat64 ? run<double>(c, x) : run<float>(c, x);
}

// A contiguous copy.
Tensor copy_of(const Tensor& t) {
  const Tensor from = dense_of(t);
  int64_t sizes[4], strides[4], next = 1;
  STD_TORCH_CHECK(from.is_cpu() && from.dim() <= 4, kOp, ": a state must be on the CPU");
  for (int64_t d = from.dim() - 1; d >= 0; --d) {
    sizes[d] = from.size(d), strides[d] = next;
    next *= std::max<int64_t>(1, from.size(d));
  }
  const Tensor out = empty_strided(from.dim(), sizes, strides, from.scalar_type());
  std::memcpy(out.mutable_data_ptr(), from.const_data_ptr(),
              static_cast<size_t>(from.numel()) * from.element_size());
  return out;
}

Tensor stdp_(const Tensor& weight, const Tensor& trace_pre, const Tensor& trace_post,
             const OptionalTensor& slow_pre, const OptionalTensor& slow_post,
             const OptionalTensor& eligibility, const Tensor& pre, const Tensor& post,
             const OptionalTensor& crow, const OptionalTensor& col, double lr,
             const OptionalTensor& rate, const OptionalTensor& modulator,
             const OptionalTensor& reward, const OptionalTensor& sign, bool check_sign,
             double decay_plus, double decay_minus, double decay_x, double decay_y, double decay_e,
             double a_plus, double a_minus, double a3_plus, double a3_minus, double lower,
             double upper, bool nearest, int64_t coincident, bool soft, bool mean) {
  return scalar_report(
      checked_run(weight, trace_pre, trace_post, slow_pre, slow_post, eligibility, pre, post, crow,
                  col, lr, rate, modulator, reward, sign, check_sign,
                  {decay_plus, decay_minus, decay_x, decay_y, decay_e, a_plus, a_minus, a3_plus,
                   a3_minus, lower, upper, nearest, coincident, soft, mean}));
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> stdp(
    const Tensor& weight, const Tensor& trace_pre, const Tensor& trace_post,
    const OptionalTensor& slow_pre, const OptionalTensor& slow_post,
    const OptionalTensor& eligibility, const Tensor& pre, const Tensor& post,
    const OptionalTensor& crow, const OptionalTensor& col, double lr, const OptionalTensor& rate,
    const OptionalTensor& modulator, const OptionalTensor& reward, const OptionalTensor& sign,
    bool check_sign, double decay_plus, double decay_minus, double decay_x, double decay_y,
    double decay_e, double a_plus, double a_minus, double a3_plus, double a3_minus, double lower,
    double upper, bool nearest, int64_t coincident, bool soft, bool mean) {
  const auto state = [](const OptionalTensor& t) {
    return t.has_value() ? OptionalTensor(copy_of(*t)) : std::nullopt;
  };
  const OptionalTensor slow_in = state(slow_pre), slow_out = state(slow_post);
  const OptionalTensor traced = state(eligibility);
  const Tensor w = copy_of(weight), in = copy_of(trace_pre), out = copy_of(trace_post);
  const int64_t bits =
      checked_run(w, in, out, slow_in, slow_out, traced, pre, post, crow, col, lr, rate, modulator,
                  reward, sign, check_sign,
                  {decay_plus, decay_minus, decay_x, decay_y, decay_e, a_plus, a_minus, a3_plus,
                   a3_minus, lower, upper, nearest, coincident, soft, mean});
  const auto or_none = [](const OptionalTensor& t) {
    return t.has_value() ? *t : empty({0}, ScalarType::Float);
  };
  return {w, in, out, or_none(slow_in), or_none(slow_out), or_none(traced), scalar_report(bits)};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("stdp", TORCH_BOX(&synops::stdp));
  m.impl("stdp_", TORCH_BOX(&synops::stdp_));
}
