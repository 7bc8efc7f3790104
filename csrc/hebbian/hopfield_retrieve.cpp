// hopfield_retrieve (CPU): rows of a head make all their steps by attention's kernels, in which
// patterns are keys and values. Rows that have come to rest are taken out, so they cost nothing.
//
// Patterns are turned to panels once for all steps. A block of rows is an item that a thread takes
// through all steps: no waiting between steps, and a row's numbers do not depend on its block, so
// blocks may be cut for the number of threads. Few rows read the patterns from where they are, in
// parts that threads share, a step at a time.
#include "hebbian/hopfield_memory.h"

namespace synops {
namespace {

// Where results go; null: not asked for. Rows of all heads are numbered through.
struct Results {
  char* output;
  void *lse, *entropy, *half_norm;  // (steps, rows)
  int64_t* iterations;
  char* states;  // (steps - 1, rows, size)
};

// Rows of a head on their way. Those that still move lie in front.
class Walkers {
 public:
  Walkers(const HopfieldMemory& m, const Results& r, double tolerance, int64_t head, int64_t first,
          int64_t count, char* memory)
      : m_(m),
        r_(r),
        tolerance_(tolerance),
        b_(head / m.heads),
        h_(head % m.heads),
        first_(head * m.rows + first),
        count_(count),
        moving_(count) {
    const auto take = [&](int64_t bytes) {
      char* p = memory;
      memory += Scratch::round_up(bytes);
      return p;
    };
    const int64_t row = m.size * m.bytes();
    now_ = take(count * row), next_ = take(count * row), last_ = take(count * row);
    lse_ = take(count * m.acc_bytes()), entropy_ = take(count * m.acc_bytes());
    index_ = reinterpret_cast<int64_t*>(take(count * sizeof(int64_t)));
    std::memcpy(now_, m.state_row(first_), count * row);
    for (int64_t i = 0; i < count; ++i) index_[i] = i, r_.iterations[first_ + i] = 0;
  }

  static int64_t bytes(const HopfieldMemory& m, int64_t count) {
    return 3 * Scratch::round_up(count * m.size * m.bytes()) +
           2 * Scratch::round_up(count * m.acc_bytes()) +
           Scratch::round_up(count * sizeof(int64_t));
  }

  int64_t moving() const { return moving_; }
  int64_t stored_b() const { return m_.stored_b(b_); }
  int64_t stored_h() const { return m_.stored_h(h_); }
  Attention attention(bool project) const {
    return project ? m_.rows_of_head(b_, h_, last_, count_, true)
                   : m_.rows_of_head(b_, h_, now_, moving_, false);
  }
  AttentionOutput output(bool project) const {
    void* to = project ? r_.output + first_ * m_.out_size * m_.bytes() : next_;
    return {to, lse_, r_.entropy == nullptr ? nullptr : entropy_, nullptr, nullptr};
  }

  // After step t to patterns: those that it moved by no more than the tolerance rest.
  void settle(int64_t t) {
    const int64_t row_bytes = m_.size * m_.bytes();
    int64_t kept = 0;
    for (int64_t i = 0; i < moving_; ++i) {
      const int64_t row = index_[i];
      const char* after = next_ + i * row_bytes;
      double change;
      record(t, row, i, now_ + i * row_bytes, after, &change);
      if (r_.states != nullptr && t + 1 < m_.steps) std::memcpy(saved(t, row), after, row_bytes);
      if (change <= tolerance_) {
        std::memcpy(resting(row), after, row_bytes);
      } else {
        std::memcpy(now_ + kept * row_bytes, after, row_bytes);
        index_[kept++] = row;
      }
    }
    moving_ = kept;
  }

  // When no step to patterns is left: what rows that came to rest did not make is filled up.
  void rest() {
    const int64_t row_bytes = m_.size * m_.bytes();
    for (int64_t i = 0; i < moving_; ++i)
      std::memcpy(resting(index_[i]), now_ + i * row_bytes, row_bytes);
    for (int64_t row = 0; row < count_; ++row) {
      const int64_t made = r_.iterations[first_ + row];
      for (int64_t t = made; t < m_.updates; ++t) {
        for (void* of : {r_.lse, r_.entropy, r_.half_norm})
          if (of != nullptr) m_.put(of, at(t, row), m_.number(of, at(made - 1, row)));
        if (r_.states != nullptr && t + 1 < m_.steps)
          std::memcpy(saved(t, row), saved(made - 1, row), row_bytes);
      }
    }
  }

  // After the step to values.
  void project() {
    double change;
    for (int64_t row = 0; row < count_; ++row)
      record(m_.updates, row, row, last_ + row * m_.size * m_.bytes(), nullptr, &change);
  }

 private:
  int64_t at(int64_t t, int64_t row) const { return t * m_.plane() + first_ + row; }
  char* saved(int64_t t, int64_t row) const {
    return r_.states + at(t, row) * m_.size * m_.bytes();
  }
  char* resting(int64_t row) const {
    return (m_.projects() ? last_ + row * m_.size * m_.bytes()
                          : r_.output + (first_ + row) * m_.size * m_.bytes());
  }
  void record(int64_t t, int64_t row, int64_t i, const char* before, const char* after,
              double* change) {
    double half_norm;
    hopfield_kernels().step(m_.dtype, before, after, m_.size, &half_norm, change);
    m_.put(r_.half_norm, at(t, row), half_norm);
    m_.put(r_.lse, at(t, row), m_.number(lse_, i));
    if (r_.entropy != nullptr) m_.put(r_.entropy, at(t, row), m_.number(entropy_, i));
    ++r_.iterations[first_ + row];
  }

  const HopfieldMemory& m_;
  const Results& r_;
  const double tolerance_;
  const int64_t b_, h_, first_, count_;
  int64_t moving_;
  char *now_, *next_, *last_, *lse_, *entropy_;
  int64_t* index_;
};

int64_t work_of(const HopfieldMemory& m) { return m.plane() * m.patterns * 2 * m.size; }

// Rows for which patterns are not worth turning: 1000 x 64 take 3 steps of 4 rows in 90 us
// unturned, of 5 rows turned in 57; 10,000 x 64 in 0.85 and 0.65 ms.
constexpr int64_t kFewRows = 2;

// Two items a thread, of whole groups.
int64_t rows_of_block(const HopfieldMemory& m) {
  const int64_t items = 2 * static_cast<int64_t>(torch::stable::get_num_threads());
  const int64_t wanted = pad_to(blocks_of(m.plane(), items), kGroupRows);
  return std::clamp<int64_t>(wanted, kGroupRows, kBlockRows);
}

void walk_blocks(const HopfieldMemory& m, const Results& r, double tolerance) {
  using Form = PackedHeads::Form;
  const Attention stored = m.stored(false), associated = m.stored(m.projects());
  const PackedHeads panels(stored, stored.key, m.size, Form::kPanels);
  const PackedHeads patterns(stored, stored.key, m.size, m.updates > 0 ? Form::kRows : Form::kNone);
  const PackedHeads values(associated, associated.value, m.out_size,
                           m.projects() ? Form::kRows : Form::kNone);
  const int64_t block = rows_of_block(m), blocks = blocks_of(m.rows, block);
  Attention largest = associated;
  largest.value_size = std::max(m.size, m.out_size);
  const int64_t room_bytes = static_cast<int64_t>(Scratch::round_up(forward_room(largest)));
  take_items(m.batch * m.heads * blocks, m.steps * work_of(m),
             room_bytes + Walkers::bytes(m, block), [&](int64_t item, void* room) {
               const int64_t head = item / blocks, first = item % blocks * block;
               Walkers w(m, r, tolerance, head, first, std::min(block, m.rows - first),
                         static_cast<char*>(room) + room_bytes);
               const void* keys = panels.panels(w.stored_b(), w.stored_h());
               const auto attend = [&](bool project) {
                 const Attention a = w.attention(project);
                 attention_kernels().forward(
                     a, keys, (project ? values : patterns).rows(w.stored_b(), w.stored_h()), 0, 0,
                     0, a.rows, w.output(project), room);
               };
               for (int64_t t = 0; t < m.updates && w.moving() > 0; ++t) attend(false), w.settle(t);
               w.rest();
               if (m.projects()) attend(true), w.project();
             });
}

void walk_few(const HopfieldMemory& m, const Results& r, double tolerance) {
  const int64_t heads = m.batch * m.heads, parts = blocks_of(m.patterns, kPartKeys);
  Attention largest = m.rows_of_head(0, 0, nullptr, m.rows, m.projects());
  largest.value_size = std::max(m.size, m.out_size);
  const int64_t bytes = Walkers::bytes(m, m.rows), part_bytes = few_part(largest);
  const Scratch memory(heads * bytes), room_of_parts(heads * parts * part_bytes);
  std::vector<Walkers> all;
  for (int64_t head = 0; head < heads; ++head)
    all.emplace_back(m, r, tolerance, head, 0, m.rows,
                     static_cast<char*>(memory.data()) + head * bytes);
  const auto attend = [&](const std::vector<int64_t>& those, bool project) {
    const auto part_of = [&](int64_t head) {
      return static_cast<char*>(room_of_parts.data()) + head * parts * part_bytes;
    };
    take_items(static_cast<int64_t>(those.size()) * parts, work_of(m), few_room(largest),
               [&](int64_t item, void* room) {
                 const int64_t head = those[item / parts], c = item % parts;
                 const Attention a = all[head].attention(project);
                 attention_few_kernels().pass(
                     a, 0, 0, c * kPartKeys, std::min(m.patterns, (c + 1) * kPartKeys),
                     r.entropy != nullptr, false, part_of(head) + c * few_part(a), room);
               });
    for (const int64_t head : those)
      attention_few_kernels().finish(all[head].attention(project), part_of(head), parts,
                                     all[head].output(project));
  };
  std::vector<int64_t> moving;
  for (int64_t t = 0; t < m.updates; ++t) {
    moving.clear();
    for (int64_t head = 0; head < heads; ++head)
      if (all[head].moving() > 0) moving.push_back(head);
    if (moving.empty()) break;
    attend(moving, false);
    for (const int64_t head : moving) all[head].settle(t);
  }
  for (Walkers& w : all) w.rest();
  if (!m.projects()) return;
  moving.resize(heads);
  for (int64_t head = 0; head < heads; ++head) moving[head] = head;
  attend(moving, true);
  for (Walkers& w : all) w.project();
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> hopfield_retrieve(
    const Tensor& state, const Tensor& patterns, const std::optional<Tensor>& values,
    const Tensor& beta, int64_t steps, double tolerance, bool entropy, bool save) {
  const HopfieldMemory m("hopfield_retrieve", state, patterns, values, beta, steps);
  const auto stat = [&](bool asked) {
    return asked ? empty({steps, m.batch, m.heads, m.rows}, m.sum_type())
                 : empty({0}, m.sum_type());
  };
  const auto saved = [&] {
    if (!save) return empty({0}, m.type);
    const int64_t sizes[] = {steps - 1, m.batch, m.heads, m.rows, m.size};
    int64_t strides[5] = {0, 0, 0, 0, 1};
    for (int64_t d = 3; d >= 0; --d)
      strides[d] = strides[d + 1] * std::max<int64_t>(1, sizes[d + 1]);
    return empty_strided(5, sizes, strides, m.type);
  };
  const std::tuple results{
      empty({m.batch, m.heads, m.rows, m.out_size}, m.type), stat(true), stat(entropy), stat(true),
      empty({m.batch, m.heads, m.rows}, ScalarType::Long),   saved()};
  if (m.plane() == 0) return results;
  const auto& [output, lse, h, half_norm, iterations, states] = results;
  const Results r{static_cast<char*>(output.mutable_data_ptr()),
                  lse.mutable_data_ptr(),
                  entropy ? h.mutable_data_ptr() : nullptr,
                  half_norm.mutable_data_ptr(),
                  static_cast<int64_t*>(iterations.mutable_data_ptr()),
                  save ? static_cast<char*>(states.mutable_data_ptr()) : nullptr};
  if (m.rows <= kFewRows)
    walk_few(m, r, tolerance);
  else
    walk_blocks(m, r, tolerance);
  return results;
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("hopfield_retrieve", TORCH_BOX(&synops::hopfield_retrieve));
  m.impl("hopfield_retrieve_backward", TORCH_BOX(&synops::hopfield_retrieve_backward));
}
