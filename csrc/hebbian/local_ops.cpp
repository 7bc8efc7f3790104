// hebb, oja and bcm on tensors: checks, factors, one pass over the weight.
#include "hebbian/local_ops.h"

#include "hebbian/all_parts.h"
#include "sparse/compressed.h"

namespace synops {
namespace {

struct Call {
  DType dtype;
  PlasticWeight w;
  RuleFactors r;
  int64_t batch;
  const void *x, *gain;  // (batch, cols), (cols,) or null
  const void* y;         // (batch, rows), or null: computed into out
  void* out;
  const void* sign;  // to be checked, or null
};

int64_t run_dense(const Call& c) {
  const OuterUpdateKernels& kernels = outer_update_kernels();
  const LocalRuleKernels& rules = local_rule_kernels();
  const size_t bytes = acc_bytes_of(c.dtype);
  const int64_t rows = c.w.rows, cols = c.w.cols, group = kernels.group;
  const int64_t groups = (rows + group - 1) / group;
  const bool both = c.y == nullptr && c.gain != nullptr;
  const size_t of_pre =
      Scratch::round_up(panel_floats(cols, c.batch, kernels.panel(c.dtype)) * bytes);
  const size_t of_post = c.y == nullptr ? 0 : panel_floats(rows, c.batch, group) * bytes;
  Scratch scratch(of_pre * (both ? 2 : 1) + Scratch::round_up(of_post) +
                  Scratch::round_up(rows * bytes));
  void* const input = scratch.take(of_pre);
  if (!pack_pre(c.dtype, c.x, c.batch, cols, both ? nullptr : c.gain, input)) return kPreNotFinite;
  void* pre = input;
  if (both) {
    pre = scratch.take(of_pre);
    pack_pre(c.dtype, c.x, c.batch, cols, c.gain, pre);
  }
  if (c.sign != nullptr && !signs_hold(c.w, c.sign)) return kSignBroken;
  if (c.y == nullptr) {
    const bool finite = all_parts(rows, 2 * rows * cols * c.batch, [&](int64_t r0, int64_t r1) {
      return rules.learn(c.w, c.r, c.batch, input, pre, r0, r1, c.out);
    });
    return finite ? 0 : kOverflow;
  }
  void *post = scratch.take(of_post), *keep = scratch.take(rows * bytes);
  const bool finite = all_parts(groups, rows * c.batch, [&](int64_t g0, int64_t g1) {
    return rules.factors(c.dtype, c.r, c.y, c.batch, rows, g0, g1, post, keep);
  });
  return finite ? outer_update(c.w, {c.batch, pre, post, keep}) : kPostNotFinite;
}

// y, (batch, rows) from [rows][width].
void turn_back(const Call& c, const void* from, int64_t width) {
  const auto turn = [&](auto* to) {
    const auto* y = static_cast<decltype(to)>(const_cast<void*>(from));
    for (int64_t b = 0; b < c.batch; ++b)
      for (int64_t i = 0; i < c.w.rows; ++i) to[b * c.w.rows + i] = y[i * width + b];
  };
  c.dtype == DType::kFloat64 ? turn(static_cast<double*>(c.out)) : turn(static_cast<float*>(c.out));
}

int64_t run_sampled(const Call& c, const Entries& e, int64_t nnz) {
  const SampledUpdateKernels& kernels = sampled_update_kernels();
  const size_t bytes = acc_bytes_of(c.dtype);
  const int64_t rows = c.w.rows, cols = c.w.cols, width = kernels.padded(c.dtype, c.batch);
  const bool both = c.y == nullptr && c.gain != nullptr;
  const size_t of_pre = Scratch::round_up(cols * width * bytes);
  Scratch scratch(of_pre * (both ? 2 : 1) + Scratch::round_up(rows * width * bytes) +
                  Scratch::round_up(rows * bytes));
  const auto turn = [&](const void* x, int64_t size, const void* gain, void* to) {
    return all_parts((size + 15) / 16, size * c.batch, [&](int64_t begin, int64_t end) {
      return kernels.turn(c.dtype, x, c.batch, size, gain, begin * 16, std::min(size, end * 16),
                          to);
    });
  };
  void* const input = scratch.take(of_pre);
  if (!turn(c.x, cols, both ? nullptr : c.gain, input)) return kPreNotFinite;
  void* pre = input;
  if (both) {
    pre = scratch.take(of_pre);
    turn(c.x, cols, c.gain, pre);
  }
  void *post = scratch.take(rows * width * bytes), *keep = scratch.take(rows * bytes);
  if (c.y != nullptr && !turn(c.y, rows, nullptr, post)) return kPostNotFinite;
  const int64_t work = nnz * width;
  if (c.sign != nullptr && !all_parts(rows, nnz, [&](int64_t r0, int64_t r1) {
        return kernels.signs_hold(c.w, e, c.sign, r0, r1);
      }))
    return kSignBroken;
  if (c.y == nullptr) {
    split(rows, threads_for(work),
          [&](int64_t r0, int64_t r1) { kernels.forward(c.w, e, c.batch, input, r0, r1, post); });
    turn_back(c, post, width);
  }
  const bool finite = all_parts(rows, work, [&](int64_t r0, int64_t r1) {
    kernels.factors(c.dtype, c.r, c.batch, r0, r1, post, keep);
    return kernels.update(c.w, e, c.batch, pre, post, keep, r0, r1);
  });
  return finite ? 0 : kOverflow;
}

// theta <- (1 - rate) theta + rate square / batch
void slide(const Call& c, const Threshold& t) {
  const auto move = [&](auto* to) {
    using A = std::remove_pointer_t<decltype(to)>;
    const A *from = t.from.const_data_ptr<A>(), *square = static_cast<const A*>(c.r.square);
    const A by = static_cast<A>(t.rate), share = by / static_cast<A>(c.batch);
    for (int64_t i = 0; i < c.w.rows; ++i) to[i] = (A(1) - by) * from[i] + share * square[i];
  };
  c.dtype == DType::kFloat64 ? move(t.to.mutable_data_ptr<double>())
                             : move(t.to.mutable_data_ptr<float>());
}

void copy_theta(const Threshold* t, int64_t rows, size_t bytes) {
  if (t != nullptr && t->from.const_data_ptr() != t->to.const_data_ptr())
    std::memcpy(t->to.mutable_data_ptr(), t->from.const_data_ptr(), rows * bytes);
}

// What is not updated, where the result is another tensor: elements from `begin` on.
void copy_weight(const Tensor& from, const Tensor& to, int64_t begin) {
  const auto* source = static_cast<const char*>(from.const_data_ptr());
  auto* target = static_cast<char*>(to.mutable_data_ptr());
  if (source == target) return;
  const bool flat = from.dim() == 1;
  const int64_t bytes = from.element_size(), rows = flat ? 1 : from.size(0);
  const int64_t count = flat ? from.size(0) - begin : from.size(1);
  for (int64_t i = 0; i < rows && count > 0; ++i)
    std::memcpy(target + (begin + (flat ? 0 : i * to.stride(0))) * bytes,
                source + (begin + (flat ? 0 : i * from.stride(0))) * bytes, count * bytes);
}

}  // namespace

Tensor new_like(const Tensor& t) {
  STD_TORCH_CHECK(t.dim() == 1 || t.dim() == 2, "a weight must have 1 or 2 dimensions");
  return t.dim() == 1 ? empty({t.size(0)}, t.scalar_type())
                      : empty({t.size(0), t.size(1)}, t.scalar_type());
}

LocalResult local_rule(const char* op, LocalRule rule, const Tensor& from, const Tensor& to,
                       const Tensor& pre, const OptionalTensor& post, const Threshold* theta,
                       const LocalArguments& a) {
  const DType dtype = dtype_of(from, op, "weight");
  const ScalarType type = arithmetic_type(dtype);
  const bool sampled = a.crow.has_value();
  STD_TORCH_CHECK(sampled == a.col.has_value(), op, ": crow and col must come together");
  check_tensor(from, from.scalar_type(), sampled ? 1 : 2, op, "weight");
  check_in_place(to, op);
  check_tensor(pre, type, 2, op, "pre");
  STD_TORCH_CHECK(!sampled || !a.mask.has_value(), op, ": mask must be absent with crow");
  const int64_t batch = pre.size(0), cols = sampled ? pre.size(1) : from.size(1);
  Csr csr{};
  if (sampled) csr = csr_of(*a.crow, *a.col, cols, op);
  const int64_t rows = sampled ? csr.rows : from.size(0);
  STD_TORCH_CHECK(!sampled || from.size(0) >= csr.nnz, op, ": weight must hold ", csr.nnz,
                  " elements, got ", from.size(0));
  const Tensor x = activity(pre, type, batch, cols, op, "pre");
  OptionalTensor y;
  if (post.has_value()) y = activity(*post, type, batch, rows, op, "post");
  const OptionalTensor rate = optional_factor(a.rate, type, rows, op, "rate");
  const OptionalTensor modulator = optional_factor(a.modulator, type, batch, op, "modulator");
  const OptionalTensor gain_pre = optional_vector(a.gain_pre, type, cols, op, "gain_pre");
  const OptionalTensor gain_post = optional_vector(a.gain_post, type, rows, op, "gain_post");
  const OptionalTensor sign = optional_vector(a.sign, type, cols, op, "sign");
  OptionalTensor mask;
  if (a.mask.has_value()) {
    check_tensor(*a.mask, ScalarType::Bool, 2, op, "mask");
    check_size(a.mask->size(0), rows, op, "mask", "size 0");
    check_size(a.mask->size(1), cols, op, "mask", "size 1");
    mask = dense_of(*a.mask);
  }
  if (theta != nullptr) {
    for (const Tensor* t : {&theta->from, &theta->to}) {
      check_tensor(*t, type, 1, op, "theta");
      check_size(t->size(0), rows, op, "theta", "size 0");
      STD_TORCH_CHECK(t->is_contiguous(), op, ": theta must be contiguous");
    }
  }
  const Tensor source = sampled ? dense_of(from) : rows_of(from);
  LocalResult result{post.has_value() ? empty({0}, type) : empty({batch, rows}, type), Tensor()};
  const size_t bytes = acc_bytes_of(dtype);
  const auto done = [&](int64_t bits) {
    if (bits != 0 && bits != kOverflow) {  // nothing has been written
      copy_weight(source, to, 0);
      copy_theta(theta, rows, bytes);
    } else if (sampled) {
      copy_weight(source, to, csr.nnz);  // behind the entries
    }
    result.report = scalar_report(bits);
    return result;
  };
  const auto shared = [&](const Tensor& written) {
    return shares_memory(written, {&pre},
                         {&post, &a.rate, &a.modulator, &a.gain_pre, &a.gain_post, &a.sign, &a.mask,
                          &a.crow, &a.col});
  };
  if (shared(to) || (theta != nullptr && (shared(theta->to) || share_memory(to, theta->to))))
    return done(kShared);
  int64_t bad = finite(rate) && finite(modulator) && std::isfinite(a.lr) && std::isfinite(a.decay)
                    ? 0
                    : kFactorNotFinite;
  if (!finite(gain_pre) || !finite(gain_post) || !finite(sign) || !(a.lower <= a.upper) ||
      (theta != nullptr && !finite(theta->from)))
    bad |= kArgumentNotFinite;
  if (bad != 0) return done(bad);

  const bool bounded = sign.has_value() || std::isfinite(a.lower) || std::isfinite(a.upper);
  const size_t of_cols = bounded ? cols * bytes : 0, of_rows = rows * bytes;
  Scratch scratch(2 * Scratch::round_up(of_cols) + 2 * Scratch::round_up(of_rows) +
                  Scratch::round_up(batch * bytes));
  void *lowers = scratch.take(of_cols), *uppers = scratch.take(of_cols);
  if (bounded) fill_bounds(a.lower, a.upper, sign, cols, dtype, lowers, uppers);
  void *rates = scratch.take(of_rows), *square = scratch.take(of_rows);
  const double share = a.mean ? static_cast<double>(std::max<int64_t>(1, batch)) : 1.0;
  fill_factor(rate, a.lr / share, rows, dtype, rates);
  void* const modulators = scratch.take(batch * bytes);
  if (modulator.has_value()) fill_factor(modulator, 1, batch, dtype, modulators);
  const Call call{dtype,
                  {dtype, rows, cols, source.const_data_ptr(), sampled ? 0 : source.stride(0),
                   to.mutable_data_ptr(), sampled ? 0 : to.stride(0), bounded ? lowers : nullptr,
                   bounded ? uppers : nullptr, static_cast<const uint8_t*>(data_of(mask))},
                  {rule, 1 - a.decay, rates, modulator.has_value() ? modulators : nullptr,
                   data_of(gain_post), theta != nullptr ? theta->from.const_data_ptr() : nullptr,
                   theta != nullptr ? square : nullptr},
                  batch,
                  x.const_data_ptr(),
                  data_of(gain_pre),
                  data_of(y),
                  result.post.mutable_data_ptr(),
                  a.check_sign ? data_of(sign) : nullptr};
  const int64_t bits = sampled ? run_sampled(call, {csr.crow, csr.col}, csr.nnz) : run_dense(call);
  if (theta != nullptr && (bits == 0 || bits == kOverflow)) {
    if (batch > 0)
      slide(call, *theta);
    else
      copy_theta(theta, rows, bytes);
  }
  return done(bits);
}

}  // namespace synops
