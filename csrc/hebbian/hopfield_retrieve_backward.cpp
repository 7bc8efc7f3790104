// hopfield_retrieve (CPU): the gradient through all steps, by the backward of attention's kernels.
//
// A block of rows goes back through all its steps by itself; what it gives to the patterns, as keys
// and as values of every step, is added up in one part of its item. Nothing is kept between steps
// but the gradient of the state. Parts are added in order: no thread shows in the result.
#include "hebbian/hopfield_memory.h"

namespace synops {
namespace {

// Items there should be, and rows of one: half a block, so that 256 queries are shared out.
constexpr int64_t kItems = 16, kRows = kBlockRows / 2;

struct Needs {
  bool state, patterns, values, beta;
};

// What arrives, what was saved, and what is written; null where it is not there or not needed.
struct Tensors {
  const char *grad_output, *output, *states;
  const void *grad_lse, *grad_entropy, *grad_half_norm, *lse, *entropy;  // (steps, rows)
  const int64_t* iterations;
  char* grad_state;
  double* grad_beta;  // of rows, times beta
};

// Where an item reads the patterns from, and adds their gradients to.
struct Stored {
  const void *panels, *value_panels;
  PackedRows rows;
  void *grad_patterns, *grad_values;
};

class Block {
 public:
  Block(const HopfieldMemory& m, const Tensors& t, int64_t head, int64_t first, int64_t count,
        char* room)
      : m_(m),
        t_(t),
        b_(head / m.heads),
        h_(head % m.heads),
        first_(head * m.rows + first),
        count_(count) {
    const auto take = [&](int64_t bytes) {
      char* p = room;
      room += Scratch::round_up(bytes);
      return p;
    };
    for (char** rows : {&grad_, &query_, &after_, &arriving_, &grad_query_})
      *rows = take(kRows * row_bytes(m));
    for (void** numbers : {&lse_, &entropy_, &of_lse_, &of_entropy_, &of_norm_})
      *numbers = take(kRows * m.acc_bytes());
    carried_ = reinterpret_cast<double*>(take(3 * kRows * sizeof(double)));
    std::fill(carried_, carried_ + 3 * kRows, 0.0);
    room_ = room;
    const int64_t bytes = count * m.out_size * m.bytes();
    if (t.grad_output == nullptr)
      std::memset(grad_, 0, bytes);
    else
      std::memcpy(grad_, t.grad_output + first_ * m.out_size * m.bytes(), bytes);
  }

  static int64_t row_bytes(const HopfieldMemory& m) {
    return std::max(m.size, m.out_size) * m.bytes();
  }
  static int64_t bytes(const HopfieldMemory& m) {
    Attention a = m.rows_of_head(0, 0, nullptr, kRows, m.projects());
    a.value_size = std::max(m.size, m.out_size);
    return 5 * Scratch::round_up(kRows * row_bytes(m)) +
           5 * Scratch::round_up(kRows * m.acc_bytes()) +
           Scratch::round_up(3 * kRows * sizeof(double)) + backward_room(a);
  }

  void run(const Stored& s) {
    if (m_.projects()) back(m_.updates, s);
    for (int64_t t = m_.updates - 1; t >= 0; --t) back(t, s);
    const int64_t size = m_.size * m_.bytes();
    if (t_.grad_state != nullptr) std::memcpy(t_.grad_state + first_ * size, grad_, count_ * size);
  }

 private:
  // Step t, of the rows that made it.
  void back(int64_t t, const Stored& s) {
    const bool project = t == m_.updates;
    const int64_t in = m_.size * m_.bytes(), out = (project ? m_.out_size : m_.size) * m_.bytes();
    int64_t index[kRows], n = 0;
    for (int64_t i = 0; i < count_; ++i) {
      if (!gather(t, i, n, project)) continue;
      const int64_t row = t * m_.plane() + first_ + i, before = row - m_.plane();
      std::memcpy(query_ + n * in, t == 0 ? m_.state_row(first_ + i) : t_.states + before * in, in);
      std::memcpy(after_ + n * out,
                  t + 1 == m_.steps ? t_.output + (first_ + i) * out : t_.states + row * in, out);
      std::memcpy(arriving_ + n * out, grad_ + i * out, out);
      index[n++] = i;
    }
    if (n == 0) return;
    const Attention a = m_.rows_of_head(b_, h_, query_, n, project);
    const int64_t ld = out / m_.bytes();
    const AttentionGrads g{{arriving_, 0, 0, ld},
                           {after_, 0, 0, ld},
                           lse_,
                           entropy_,
                           nullptr,
                           of_lse_,
                           t_.grad_entropy == nullptr ? nullptr : of_entropy_,
                           nullptr};
    attention_gradient_kernels().backward(
        a, g, s.panels, s.rows, project ? s.value_panels : s.panels, 0, 0, 0, n, grad_query_,
        s.grad_patterns, project ? s.grad_values : s.grad_patterns, room_);
    for (int64_t k = 0; k < n; ++k) {
      char* grad = grad_query_ + k * in;
      const double dot =
          hopfield_kernels().pass(m_.dtype, query_ + k * in, m_.size, m_.number(of_norm_, k), grad);
      if (t_.grad_beta != nullptr) t_.grad_beta[first_ + index[k]] += dot;
      std::memcpy(grad_ + index[k] * in, grad, in);
    }
  }

  // Numbers of row i to place n; false if it did not make step t: what arrives at the statistics
  // then goes to those of the last step to patterns that it made.
  bool gather(int64_t t, int64_t i, int64_t n, bool project) {
    const int64_t row = t * m_.plane() + first_ + i;
    const int64_t made = t_.iterations[first_ + i] - (m_.steps - m_.updates);
    const void* const arriving[] = {t_.grad_lse, t_.grad_entropy, t_.grad_half_norm};
    void* const to[] = {of_lse_, of_entropy_, of_norm_};
    for (int k = 0; k < 3; ++k) {
      double sum = arriving[k] == nullptr ? 0.0 : m_.number(arriving[k], row);
      if (!project) {
        sum += carried_[k * kRows + i];
        carried_[k * kRows + i] = made > t ? 0.0 : sum;
      }
      m_.put(to[k], n, sum);
    }
    if (!project && made <= t) return false;
    m_.put(lse_, n, m_.number(t_.lse, row));
    m_.put(entropy_, n, t_.entropy == nullptr ? 0.0 : m_.number(t_.entropy, row));
    return true;
  }

  const HopfieldMemory& m_;
  const Tensors& t_;
  const int64_t b_, h_, first_, count_;
  char *grad_, *query_, *after_, *arriving_, *grad_query_;
  void *lse_, *entropy_, *of_lse_, *of_entropy_, *of_norm_, *room_;
  double* carried_;  // of lse, entropy and norm
};

// Contiguous, of this type and these sizes; nothing where there is none.
std::optional<Tensor> given(const std::optional<Tensor>& t, ScalarType type,
                            std::initializer_list<int64_t> sizes, const char* name) {
  const char* op = "hopfield_retrieve_backward";
  if (!t.has_value()) return std::nullopt;
  check_tensor(*t, type, static_cast<int64_t>(sizes.size()), op, name);
  for (size_t d = 0; d < sizes.size(); ++d)
    check_size(t->size(static_cast<int64_t>(d)), sizes.begin()[d], op, name, "a side");
  return dense_of(*t);
}

const void* data_of(const std::optional<Tensor>& t) {
  return t.has_value() ? t->const_data_ptr() : nullptr;
}

Tensor gradient(const Tensor& t, bool needed) {
  return needed ? empty({t.size(0), t.size(1), t.size(2), t.size(3)}, t.scalar_type())
                : empty({0}, t.scalar_type());
}

void go_back(const HopfieldMemory& m, const Tensors& t, const Needs& needs, const Tensor& patterns,
             const Tensor& values) {
  using Form = PackedHeads::Form;
  const Attention stored = m.stored(false), associated = m.stored(m.projects());
  const PackedHeads panels(stored, stored.key, m.size, Form::kPanels);
  const PackedHeads rows(stored, stored.key, m.size, Form::kRows);
  const PackedHeads value_panels(associated, associated.value, m.out_size,
                                 m.projects() ? Form::kPanels : Form::kNone);
  const int64_t units = m.stored_batch * m.stored_heads, group = m.batch * m.heads / units;
  const int64_t row_blocks = blocks_of(m.rows, kRows), blocks = group * row_blocks;
  const int64_t chunks = std::min(blocks_of(kItems, units), blocks);
  const GradientParts to_patterns(stored, chunks, m.size, needs.patterns);
  const GradientParts to_values(associated, chunks, m.out_size, needs.values);
  const int64_t work = m.steps * m.plane() * m.patterns * 5 * m.size;
  take_items(units * chunks, work, Block::bytes(m), [&](int64_t item, void* room) {
    const int64_t b = item / chunks / m.stored_heads, h = item / chunks % m.stored_heads;
    const Stored s{panels.panels(b, h), m.projects() ? value_panels.panels(b, h) : nullptr,
                   rows.rows(b, h), to_patterns.begin(item), to_values.begin(item)};
    // The heads that read this one: all of a dimension where there is one for all.
    const int64_t heads = m.stored_heads == 1 ? m.heads : 1;
    for (int64_t i = item % chunks; i < blocks; i += chunks) {
      const int64_t nth = i / row_blocks, first = i % row_blocks * kRows;
      const int64_t head = (b + nth / heads) * m.heads + h + nth % heads;
      Block(m, t, head, first, std::min(kRows, m.rows - first), static_cast<char*>(room)).run(s);
    }
  });
  to_patterns.add_to(patterns);
  to_values.add_to(values);
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> hopfield_retrieve_backward(
    const std::optional<Tensor>& grad_output_in, const std::optional<Tensor>& grad_lse_in,
    const std::optional<Tensor>& grad_entropy_in, const std::optional<Tensor>& grad_half_norm_in,
    const Tensor& state, const Tensor& patterns, const std::optional<Tensor>& values,
    const Tensor& beta, const Tensor& output_in, const Tensor& lse_in, const Tensor& entropy_in,
    const Tensor& iterations_in, const Tensor& states_in, bool need_state, bool need_patterns,
    bool need_values, bool need_beta) {
  const char* op = "hopfield_retrieve_backward";
  STD_TORCH_CHECK(lse_in.dim() == 4, op, ": lse must have 4 dimensions");
  const int64_t steps = lse_in.size(0);
  const HopfieldMemory m(op, state, patterns, values, beta, steps);
  const auto stat = [&](const std::optional<Tensor>& t, const char* name) {
    return given(t, m.sum_type(), {steps, m.batch, m.heads, m.rows}, name);
  };
  const auto grad_output =
      given(grad_output_in, m.type, {m.batch, m.heads, m.rows, m.out_size}, "grad_output");
  const auto grad_lse = stat(grad_lse_in, "grad_lse");
  const auto grad_entropy = stat(grad_entropy_in, "grad_entropy");
  const auto grad_half_norm = stat(grad_half_norm_in, "grad_half_norm");
  const auto output = given(output_in, m.type, {m.batch, m.heads, m.rows, m.out_size}, "output");
  const auto lse = stat(lse_in, "lse");
  const auto entropy = grad_entropy ? stat(entropy_in, "entropy") : std::nullopt;
  const auto iterations =
      given(iterations_in, ScalarType::Long, {m.batch, m.heads, m.rows}, "iterations");
  const auto states =
      given(states_in, m.type, {steps - 1, m.batch, m.heads, m.rows, m.size}, "states");
  need_values = need_values && m.projects();
  const Needs needs{need_state, need_patterns, need_values, need_beta};
  const Tensor of_state = gradient(state, need_state),
               of_patterns = gradient(patterns, need_patterns);
  const Tensor of_values = need_values ? gradient(*values, true) : empty({0}, m.type);
  const Tensor of_beta = empty({need_beta ? beta.size(0) : 0}, m.sum_type());
  const std::tuple results{of_state, of_patterns, of_values, of_beta};
  if (m.plane() == 0) {
    for (const Tensor* t : {&of_patterns, &of_values})
      if (t->numel() > 0) std::memset(t->mutable_data_ptr(), 0, t->numel() * m.bytes());
    for (int64_t h = 0; h < of_beta.size(0); ++h) m.put(of_beta.mutable_data_ptr(), h, 0.0);
    return results;
  }
  std::vector<double> of_rows(need_beta ? m.plane() : 0);
  const Tensors t{static_cast<const char*>(data_of(grad_output)),
                  static_cast<const char*>(data_of(output)),
                  static_cast<const char*>(data_of(states)),
                  data_of(grad_lse),
                  data_of(grad_entropy),
                  data_of(grad_half_norm),
                  data_of(lse),
                  data_of(entropy),
                  static_cast<const int64_t*>(data_of(iterations)),
                  need_state ? static_cast<char*>(of_state.mutable_data_ptr()) : nullptr,
                  need_beta ? of_rows.data() : nullptr};
  go_back(m, t, needs, of_patterns, of_values);
  if (!need_beta) return results;
  for (int64_t h = 0; h < beta.size(0); ++h) {
    double sum = 0;
    for (int64_t row = 0; row < m.plane(); ++row)
      if (beta.size(0) == 1 || row / m.rows % m.heads == h) sum += of_rows[row];
    m.put(of_beta.mutable_data_ptr(), h, sum / m.beta_of(h));
  }
  return results;
}

}  // namespace synops
