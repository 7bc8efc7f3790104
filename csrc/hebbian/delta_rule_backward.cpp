// The gradients of delta_rule (CPU): scans of delta_rule.inc, forth and back in time.
//
// With M the weight, X the gradient of the weight after step t (by way of outputs and later
// steps), e = beta r what is learned, r the error that the forward saved, and of the delta rule:
//
//   d value = beta X^T k, d beta = r . X^T k          back in time, X (keys, values)
//   d key = X e - decay M' d value, M' before step t  back and forth, X and M as (values, keys)
//   d query = scale M d output                        forth, in the same pass as the last
//
// M is made again from k and r, so nothing of size T d_k d_v is kept, and each is a sum over rows.
// Hebb: r is the value, no second term. Oja: key and value exchanged, and d query is a pass alone.
//
// With g_t the gradient of log decay_t, <X_t, M_t> taken once forth and once back in time is
//   g_t = g_(t+1) + query . d query - value . d value  (oja: key . d key),   g_(T+1) = <X_T, M_T>
// so it is a sum over later steps, in float64, of numbers that are there already.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "hebbian/fast_weight.h"

namespace synops {
namespace {

struct Needs {
  bool query, key, value, beta, decay, state;
};

double inner(const FastWeight& w, const OptionalTensor& x, const Tensor& y, int64_t head) {
  if (!x.has_value()) return 0;
  double sum = 0;
  const auto as = [&](auto zero, const Tensor& t, int64_t i, int64_t j) {
    const auto* const p = static_cast<const decltype(zero)*>(t.const_data_ptr());
    const int64_t at = head / w.heads * t.stride(0) + head % w.heads * t.stride(1);
    return static_cast<double>(p[at + i * t.stride(2) + j * t.stride(3)]);
  };
  const auto total = [&](auto zero) {
    for (int64_t i = 0; i < w.keys; ++i)
      for (int64_t j = 0; j < w.values; ++j) sum += as(zero, *x, i, j) * as(zero, y, i, j);
  };
  w.wide == DType::kFloat64 ? total(double{}) : total(float{});
  return sum;
}

template <class A>
void decay_gradient(const FastWeight& w, int64_t head, double g, const double* terms, Line decay,
                    OutLine out) {
  const A* const a = static_cast<const A*>(decay.at);
  for (int64_t t = w.steps; t-- > 0;) {
    g += terms[t];
    static_cast<A*>(out.at)[t * out.step] =
        static_cast<A>(g / static_cast<double>(a[t * decay.step]));
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> delta_rule_backward(
    const OptionalTensor& grad_output, const OptionalTensor& grad_last, const Tensor& query,
    const Tensor& key, const Tensor& value, const OptionalTensor& beta, const OptionalTensor& decay,
    const OptionalTensor& state, const Tensor& last, const Tensor& error, double scale,
    int64_t rule, bool need_query, bool need_key, bool need_value, bool need_beta, bool need_decay,
    bool need_state) {
  const FastWeight w(query, key, value, beta, decay, scale, rule, "delta_rule_backward");
  const Needs need{need_query, need_key, need_value, need_beta, need_decay, need_state};
  w.check_series(grad_output, w.values, "grad_output");
  w.check_state(grad_last, "grad_state");
  w.check_state(state, "state");
  w.check_state(last, "last");
  if (w.corrects()) w.check(error, 4, w.error_size(), "error");
  STD_TORCH_CHECK(!need.beta || beta.has_value(), w.op, ": beta must be there to have a gradient");
  STD_TORCH_CHECK(!need.decay || decay.has_value(), w.op,
                  ": decay must be there to have a gradient");

  const bool oja = w.oja(), corrects = w.corrects();
  const bool left_wanted = oja ? need.value : need.key;
  const bool learned_wanted = need.key || need.value || need.beta || need.decay || need.state;
  const auto series = [&](bool wanted, int64_t size) {
    return wanted ? w.series(size) : empty({0}, w.type);
  };
  const auto numbers = [&](bool wanted) {
    return wanted ? empty({w.batch, w.heads, w.steps}, w.type) : empty({0}, w.type);
  };
  const Tensor of_query = series(need.query || need.decay, w.keys);
  const Tensor of_key = series(oja ? learned_wanted : left_wanted, w.keys);
  const Tensor of_value = series(oja ? left_wanted : learned_wanted, w.values);
  const Tensor of_beta = numbers(need.beta), of_decay = numbers(need.decay);
  const Tensor of_state = need.state ? w.state() : empty({0}, w.type);
  const auto result = [&](bool wanted, const Tensor& t) {
    return wanted ? t : empty({0}, w.type);  // some are made for the sake of others
  };
  const std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> results{
      result(need.query, of_query),
      result(need.key, of_key),
      result(need.value, of_value),
      of_beta,
      of_decay,
      of_state};
  const auto zero = [](const Tensor& t) {
    if (t.numel() > 0) torch::stable::zero_(const_cast<Tensor&>(t));
  };
  if (w.keys == 0 || w.values == 0 || w.steps == 0 || w.batch * w.heads == 0) {
    for (const Tensor& t : {of_query, of_key, of_value, of_beta, of_decay, of_state}) zero(t);
    if (of_state.numel() > 0 && grad_last.has_value())
      torch::stable::copy_(const_cast<Tensor&>(of_state), *grad_last);
    return results;
  }

  // Without a gradient of the output it is a row of zeros, the same at every step.
  Scratch zeros(w.values * w.bytes);
  std::memset(zeros.data(), 0, w.values * w.bytes);
  const HeadLines q = w.lines(query), k = w.lines(key), v = w.lines(value), b = w.lines(beta);
  const HeadLines a = w.lines(decay), given = w.lines(grad_output);
  const HeadLines e = corrects ? w.lines(error) : v;
  const HeadLines dq = w.lines(of_query.numel() ? OptionalTensor(of_query) : OptionalTensor());
  const HeadLines dk = w.lines(of_key.numel() ? OptionalTensor(of_key) : OptionalTensor());
  const HeadLines dv = w.lines(of_value.numel() ? OptionalTensor(of_value) : OptionalTensor());
  const HeadLines &left = oja ? v : k, &d_left = oja ? dv : dk;
  const HeadLines &learned = oja ? k : v, &d_learned = oja ? dk : dv;
  const auto grad_of = [&](int64_t head) {
    return given.there() ? given.of(head) : Line{zeros.data(), 0};
  };
  // The outer product that a readout adds to X, by its index of rows and of columns.
  const auto source = [&](int64_t head, bool values) {
    return values ? grad_of(head) : q.of(head);
  };
  const FastWeightKernels& kernels = fast_weight_kernels();
  const int64_t left_size = oja ? w.values : w.keys, learned_size = oja ? w.keys : w.values;
  const int64_t heads = w.batch * w.heads;

  if (learned_wanted) {
    const int64_t lanes = kernels.lanes(w.wide);
    const int64_t most = (learned_size + lanes - 1) / lanes;  // slices at most
    Scratch dots(need.beta ? heads * most * w.steps * w.bytes : 0);
    if (need.beta) std::memset(dots.data(), 0, heads * most * w.steps * w.bytes);
    w.for_slices(
        oja, grad_last, need.state ? OptionalTensor(of_state) : OptionalTensor(),
        [&](int64_t head, int64_t first, int64_t columns, void* slice) {
          char* const dot =
              static_cast<char*>(dots.data()) + (head * most + first / lanes) * w.steps * w.bytes;
          kernels.gradient(w.wide, {.steps = w.steps,
                                    .rows = left_size,
                                    .columns = columns,
                                    .state = slice,
                                    .left = corrects ? left.of(head) : Line{},
                                    .source = source(head, oja),
                                    .read = left.of(head),
                                    .value = {},
                                    .beside = w.part(source(head, !oja), first),
                                    .other = need.beta ? w.part(e.of(head), first) : Line{},
                                    .gain = b.of(head),
                                    .decay = a.of(head),
                                    .out = w.part(d_learned.out(head), first),
                                    .dot = need.beta ? OutLine{dot, 1} : OutLine{},
                                    .scale = scale});
        });
    if (need.beta) {
      const auto add_up = [&](auto* out, const auto* part) {
        for (int64_t head = 0; head < heads; ++head)
          for (int64_t t = 0; t < w.steps; ++t) {
            auto sum = part[head * most * w.steps + t];
            for (int64_t i = 1; i < most; ++i) sum += part[(head * most + i) * w.steps + t];
            out[head * w.steps + t] = sum;
          }
      };
      void* const out = of_beta.mutable_data_ptr();
      w.wide == DType::kFloat64
          ? add_up(static_cast<double*>(out), static_cast<const double*>(dots.data()))
          : add_up(static_cast<float*>(out), static_cast<const float*>(dots.data()));
    }
  }
  if (left_wanted)
    w.for_slices(!oja, grad_last, {},
                 [&](int64_t head, int64_t first, int64_t columns, void* slice) {
                   kernels.gradient(w.wide, {.steps = w.steps,
                                             .rows = learned_size,
                                             .columns = columns,
                                             .state = slice,
                                             .left = corrects ? d_learned.of(head) : Line{},
                                             .source = source(head, !oja),
                                             .read = e.of(head),
                                             .value = w.part(left.of(head), first),
                                             .beside = w.part(source(head, oja), first),
                                             .other = {},
                                             .gain = b.of(head),
                                             .decay = a.of(head),
                                             .out = w.part(d_left.out(head), first),
                                             .dot = {},
                                             .scale = scale});
                 });
  // Forth in time, on the weight as it was: what a wrong prediction says of the key, and d query.
  const bool predicts = left_wanted && corrects, reads = dq.there() && !oja;
  if (predicts || reads)
    w.for_slices(!oja, state, {}, [&](int64_t head, int64_t first, int64_t columns, void* slice) {
      const OutLine d = w.part(d_left.out(head), first);
      kernels.steps(w.wide, {.steps = w.steps,
                             .rows = learned_size,
                             .columns = columns,
                             .state = slice,
                             .left = e.of(head),
                             .before = predicts ? d_learned.of(head) : Line{},
                             .after = reads ? grad_of(head) : Line{},
                             .base = {d.at, d.step},
                             .value = w.part(left.of(head), first),
                             .gain = b.of(head),
                             .decay = a.of(head),
                             .pre = d,
                             .post = w.part(dq.out(head), first),
                             .scale = scale,
                             .scaled = nullptr});
    });
  if (dq.there() && oja)
    w.for_slices(true, state, {}, [&](int64_t head, int64_t first, int64_t columns, void* slice) {
      kernels.steps(w.wide, {.steps = w.steps,
                             .rows = w.values,
                             .columns = columns,
                             .state = slice,
                             .left = v.of(head),
                             .before = {},
                             .after = grad_of(head),
                             .base = {},
                             .value = w.part(e.of(head), first),
                             .gain = b.of(head),
                             .decay = a.of(head),
                             .pre = {},
                             .post = w.part(dq.out(head), first),
                             .scale = scale,
                             .scaled = nullptr});
    });
  if (need.decay) {
    const HeadLines da = w.lines(of_decay);
    split(heads, threads_for(heads * w.steps * (w.keys + w.values)),
          [&](int64_t begin, int64_t end) {
            Scratch terms(w.steps * sizeof(double));
            double* const term = static_cast<double*>(terms.data());
            for (int64_t head = begin; head < end; ++head) {
              kernels.differences(w.wide, w.steps, w.keys, q.of(head), dq.of(head), learned_size,
                                  learned.of(head), d_learned.of(head), term);
              const double g = inner(w, grad_last, last, head);
              w.wide == DType::kFloat64
                  ? decay_gradient<double>(w, head, g, term, a.of(head), da.out(head))
                  : decay_gradient<float>(w, head, g, term, a.of(head), da.out(head));
            }
          });
  }
  return results;
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("delta_rule_backward", TORCH_BOX(&synops::delta_rule_backward));
}
