// What a step and a sequence of three_factor check, and the factors of a step.
#pragma once

#include <cstring>

#include "hebbian/all_parts.h"
#include "hebbian/local_rule.h"
#include "hebbian/plasticity.h"
#include "sparse/compressed.h"

namespace synops {

// What an op is given beside the weight and the trace; names as in its schema.
struct ThreeFactorGiven {
  const char* op;
  const Tensor &pre, &post;
  double trace_decay, lr;
  const OptionalTensor& rate;
  double decay;
  const OptionalTensor &modulator, &gain_pre, &gain_post;
  double lower, upper;
  const OptionalTensor& sign;
  bool check_sign;
  const OptionalTensor &mask, &crow, &col;
  bool mean;
};

// Sizes and layout of a call.
struct ThreeFactorLayout {
  DType dtype;
  ScalarType acc;
  int64_t batch, rows, cols, weights;  // weights: of one trace
  bool per_sample;
  std::optional<Csr> csr;
};

// Checked; `leading` dimensions of pre and post come before those of a step.
inline ThreeFactorLayout three_factor_layout(const Tensor& weight, const Tensor& trace,
                                             const ThreeFactorGiven& g, int64_t leading) {
  const char* const op = g.op;
  ThreeFactorLayout l{};
  l.dtype = dtype_of(weight, op, "weight");
  l.acc = arithmetic_type(l.dtype);
  check_tensor(g.pre, l.acc, leading + 2, op, "pre");
  check_tensor(g.post, l.acc, leading + 2, op, "post");
  l.batch = g.pre.size(leading), l.rows = g.post.size(leading + 1);
  l.cols = g.pre.size(leading + 1);
  for (int64_t d = 0; d <= leading; ++d)
    check_size(g.post.size(d), g.pre.size(d), op, "post", d == leading ? "batch" : "steps");
  const bool sparse = g.crow.has_value();
  STD_TORCH_CHECK(sparse == g.col.has_value(), op, ": crow and col go together");
  check_tensor(weight, weight.scalar_type(), sparse ? 1 : 2, op, "weight");
  if (sparse) {
    l.csr = csr_unchecked(*g.crow, *g.col, l.cols, op);
    check_size(l.csr->rows, l.rows, op, "crow", "size 0, less 1,");
    STD_TORCH_CHECK(weight.size(0) >= l.csr->nnz, op, ": weight must hold at least ", l.csr->nnz,
                    " elements, got ", weight.size(0));
    STD_TORCH_CHECK(!g.mask.has_value(), op, ": mask needs a dense weight");
    STD_TORCH_CHECK(weight.is_contiguous(), op, ": weight must be contiguous");
    l.weights = weight.size(0);
  } else {
    check_size(weight.size(0), l.rows, op, "weight", "size 0");
    check_size(weight.size(1), l.cols, op, "weight", "size 1");
    STD_TORCH_CHECK(
        (weight.stride(1) == 1 || l.cols <= 1) && (weight.stride(0) >= l.cols || l.rows <= 1), op,
        ": elements of a row of weight must lie side by side");
    l.weights = l.rows * l.cols;
  }
  const int64_t one = sparse ? 1 : 2;
  l.per_sample = trace.dim() == one + 1;
  check_tensor(trace, l.acc, one + l.per_sample, op, "eligibility");
  STD_TORCH_CHECK(trace.is_contiguous(), op, ": eligibility must be contiguous");
  if (l.per_sample) check_size(trace.size(0), l.batch, op, "eligibility", "size 0");
  for (int64_t d = 0; d < one; ++d)
    check_size(trace.size(d + l.per_sample), weight.size(d), op, "eligibility", "a size");
  if (g.mask.has_value()) {
    check_tensor(*g.mask, ScalarType::Bool, 2, op, "mask");
    check_size(g.mask->size(0), l.rows, op, "mask", "size 0");
    check_size(g.mask->size(1), l.cols, op, "mask", "size 1");
  }
  STD_TORCH_CHECK(g.trace_decay >= 0 && g.trace_decay <= 1, op,
                  ": trace_decay must lie in [0, 1], got ", g.trace_decay);
  STD_TORCH_CHECK(g.decay >= 0 && g.decay <= 1, op, ": decay must lie in [0, 1], got ", g.decay);
  STD_TORCH_CHECK(g.lower <= g.upper, op, ": lower must not exceed upper");
  return l;
}

// The modulator as (steps, traces, rows), a stride of 0 where it is one for all.
struct ThirdFactor {
  OptionalTensor dense;
  int64_t of_step, of_sample, of_row;
};

// (), (out,) or (B, out), (B, 1); of `steps` (), (out,) for all of them, (T, out), (T, 1) or
// (T, B, out), (T, B, 1).
inline ThirdFactor third_factor(const ThreeFactorLayout& l, const ThreeFactorGiven& g,
                                std::optional<int64_t> steps = std::nullopt) {
  if (!g.modulator.has_value()) return {};
  const Tensor& m = *g.modulator;
  const int64_t dim = m.dim(), leading = steps.has_value();
  STD_TORCH_CHECK(dim <= leading + 2, g.op, ": modulator must have at most ", leading + 2,
                  " dimensions, got ", dim);
  check_tensor(m, l.acc, dim, g.op, "modulator");
  if (leading == 1 && dim >= 2) check_size(m.size(0), *steps, g.op, "modulator", "size 0");
  const bool by_sample = dim == leading + 2;
  if (by_sample) check_size(m.size(leading), l.batch, g.op, "modulator", "batch");
  STD_TORCH_CHECK(!by_sample || l.per_sample || l.batch <= 1, g.op,
                  ": modulator (B, out) needs a trace for each sample");
  const int64_t last = dim == 0 ? 1 : m.size(dim - 1);
  STD_TORCH_CHECK(dim == 0 || last == l.rows || (dim >= 2 && last == 1), g.op,
                  ": last size of modulator must be ", l.rows, ", got ", last);
  const int64_t of_sample = by_sample ? last : 0;
  return {dense_of(m),
          dim < 1 + leading ? 0
          : by_sample       ? l.batch * last
                            : last,
          of_sample, dim == 0 || last == 1 ? 0 : 1};
}

// (rows,): lr rate_i, divided by the samples where each has its trace.
template <class A>
void fill_rates(const ThreeFactorLayout& l, const ThreeFactorGiven& g, A* rates) {
  const double scale = g.mean && l.per_sample ? 1.0 / std::max<int64_t>(1, l.batch) : 1.0;
  const OptionalTensor rate = optional_factor(g.rate, l.acc, l.rows, g.op, "rate");
  fill_factor(rate, g.lr * scale, l.rows, l.dtype, rates);
}

// (traces, rows): the rates times the modulator of step t.
template <class A>
void fill_gates(const ThirdFactor& m, int64_t t, int64_t traces, int64_t rows, const A* rates,
                A* gate) {
  const A* const p = static_cast<const A*>(data_of(m.dense));
  for (int64_t s = 0; s < traces; ++s)
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t at = t * m.of_step + s * m.of_sample + i * m.of_row;
      gate[s * rows + i] = p == nullptr ? rates[i] : rates[i] * p[at];
    }
}

// (samples, rows): post times gain, divided by the samples of a trace.
template <class A>
void fill_post(const ThreeFactorLayout& l, const A* post, const A* gain, bool mean, int64_t samples,
               A* out) {
  const A scale =
      mean && !l.per_sample ? A(1) / static_cast<A>(std::max<int64_t>(1, l.batch)) : A(1);
  for (int64_t b = 0; b < samples; ++b)
    for (int64_t i = 0; i < l.rows; ++i) {
      const A y = post[b * l.rows + i] * scale;
      out[b * l.rows + i] = gain == nullptr ? y : y * gain[i];
    }
}

// First row of part k of `parts` that have about equally many entries.
inline int64_t row_of_part(const Csr& w, int64_t k, int64_t parts) {
  if (k == parts) return w.rows;
  return std::lower_bound(w.crow, w.crow + w.rows, w.nnz * k / parts) - w.crow;
}

// Whether no weight is against its sign.
inline bool signs_hold(const ThreeFactorLayout& l, const char* op, const PlasticWeight& w,
                       const void* sign) {
  if (!l.csr.has_value()) return synops::signs_hold(w, sign);
  STD_TORCH_CHECK(inside(*l.csr), op, ": col must lie in [0, ", l.cols, ")");
  const Entries entries{l.csr->crow, l.csr->col};
  return all_parts(l.rows, l.csr->nnz, [&](int64_t r0, int64_t r1) {
    return sampled_update_kernels().signs_hold(w, entries, sign, r0, r1);
  });
}

// A copy to write to, of the same shape and dense.
inline Tensor like(const Tensor& t) {
  return t.dim() == 1   ? empty({t.size(0)}, t.scalar_type())
         : t.dim() == 2 ? empty({t.size(0), t.size(1)}, t.scalar_type())
                        : empty({t.size(0), t.size(1), t.size(2)}, t.scalar_type());
}

inline void copy(const Tensor& from, const Tensor& to) {
  std::memcpy(to.mutable_data_ptr(), from.const_data_ptr(),
              static_cast<size_t>(to.numel()) * to.element_size());
}

// What lies behind the first `count` elements of each row: room of a Pattern, never looked at.
inline void copy_rest(const Tensor& from, int64_t count, int64_t rows, const Tensor& to) {
  const size_t element = to.element_size();
  const size_t size = rows == 0 ? 0 : to.numel() / rows * element, at = count * element;
  for (int64_t i = 0; i < rows && at < size; ++i)
    std::memcpy(static_cast<char*>(to.mutable_data_ptr()) + i * size + at,
                static_cast<const char*>(from.const_data_ptr()) + i * size + at, size - at);
}

}  // namespace synops
