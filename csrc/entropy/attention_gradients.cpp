// attention_with_stats (CPU): the backward on tensors.
//
// An item is a key head and every `chunks`-th block of the rows that read it; it adds up grad_key
// and grad_value in a part of its own, and parts are added in order. So a head is read once, and
// neither the number of threads nor who takes what shows in the result.
#include <cstring>

#include "entropy/attention_ops.h"

namespace synops {
namespace {

// Items there should be, and blocks of rows that an item should have: a part costs the time of 1/2
// a block to be cleared and added.
constexpr int64_t kItems = 16, kLeastBlocks = 4;

// Contiguous (B, H, N) in the arithmetic type, null where there is none.
std::optional<Tensor> stat_of(const std::optional<Tensor>& t, const Attention& a, const char* op,
                              const char* name) {
  if (!t.has_value() || t->numel() == 0) return std::nullopt;
  check_tensor(*t, a.dtype == DType::kFloat64 ? ScalarType::Double : ScalarType::Float, 3, op,
               name);
  check_size(t->size(0), a.batch, op, name, "size 0");
  check_size(t->size(1), a.heads, op, name, "size 1");
  check_size(t->size(2), a.rows, op, name, "size 2");
  return dense_of(*t);
}

const void* head_data(const std::optional<Tensor>& t, int64_t head, const Attention& a) {
  if (!t.has_value()) return nullptr;
  return static_cast<const char*>(t->const_data_ptr()) + head * a.rows * a.acc_bytes();
}

std::optional<Tensor> output_like(const std::optional<Tensor>& t, const Tensor& query,
                                  const Attention& a, const char* op, const char* name) {
  if (!t.has_value()) return std::nullopt;
  check_tensor(*t, query.scalar_type(), 4, op, name);
  const int64_t sizes[] = {a.batch, a.heads, a.rows, a.value_size};
  for (int64_t d = 0; d < 4; ++d) check_size(t->size(d), sizes[d], op, name, "a side");
  return unit_rows(*t);
}

AttentionRows at_head(const std::optional<Tensor>& t, int64_t b, int64_t h, const Attention& a) {
  if (!t.has_value()) return {};
  AttentionRows rows = head_rows(*t);
  rows.data = static_cast<const char*>(rows.data) +
              rows.at(b, h, 0) * static_cast<int64_t>(bytes_of(a.dtype));
  rows.batch = rows.head = 0;
  return rows;
}

Tensor gradient_like(const Tensor& t, bool needed) {
  return needed ? empty({t.size(0), t.size(1), t.size(2), t.size(3)}, t.scalar_type())
                : empty({0}, t.scalar_type());
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> attention_with_stats_backward(
    const std::optional<Tensor>& grad_output_in, const std::optional<Tensor>& grad_lse_in,
    const std::optional<Tensor>& grad_entropy_in, const std::optional<Tensor>& grad_varentropy_in,
    const Tensor& query_in, const Tensor& key_in, const Tensor& value_in,
    const std::optional<Tensor>& attn_mask, const Tensor& output_in, const Tensor& lse_in,
    const Tensor& entropy_in, const Tensor& varentropy_in, bool is_causal, int64_t window,
    double scale, bool need_query, bool need_key, bool need_value) {
  const char* op = "attention_with_stats_backward";
  for (const Tensor* t : {&query_in, &key_in, &value_in, &output_in})
    STD_TORCH_CHECK(t->dim() == 4, op, ": query, key, value and output must have 4 dimensions");
  const Tensor query = unit_rows(query_in), key = unit_rows(key_in), value = unit_rows(value_in);
  const Attention a = attention_of(op, query, key, value, attn_mask, is_causal, window, scale);
  const Tensor grads[] = {gradient_like(query, need_query), gradient_like(key, need_key),
                          gradient_like(value, need_value)};
  const auto grad_output = output_like(grad_output_in, query, a, op, "grad_output");
  const auto output = output_like(output_in, query, a, op, "output");
  const auto grad_lse = stat_of(grad_lse_in, a, op, "grad_lse");
  const auto grad_entropy = stat_of(grad_entropy_in, a, op, "grad_entropy");
  const auto grad_varentropy = stat_of(grad_varentropy_in, a, op, "grad_varentropy");
  const auto lse = stat_of(lse_in, a, op, "lse");
  const auto entropy = stat_of(entropy_in, a, op, "entropy");
  const auto varentropy = stat_of(varentropy_in, a, op, "varentropy");
  const int64_t kv_heads = a.batch * a.kv_heads, group = a.kv_heads > 0 ? a.heads / a.kv_heads : 0;
  if (kv_heads == 0 || group == 0 || a.rows == 0) {
    for (const Tensor& t : grads)
      if (t.numel() > 0) std::memset(t.mutable_data_ptr(), 0, t.numel() * bytes_of(a.dtype));
    return {grads[0], grads[1], grads[2]};
  }
  STD_TORCH_CHECK(lse.has_value(), op, ": lse must have the size of the rows");
  STD_TORCH_CHECK((!grad_entropy && !grad_varentropy) || entropy, op, ": entropy is missing");
  STD_TORCH_CHECK(!grad_varentropy || varentropy, op, ": varentropy is missing");

  using Form = PackedHeads::Form;
  const bool inner = need_query || need_key;
  const PackedHeads key_panels(a, a.key, a.size, Form::kPanels);
  const PackedHeads keys(a, a.key, a.size, need_query ? Form::kRows : Form::kNone);
  const PackedHeads value_panels(a, a.value, a.value_size,
                                 inner && grad_output ? Form::kPanels : Form::kNone);
  const int64_t row_blocks = blocks_of(a.rows, kBlockRows), blocks = group * row_blocks;
  const int64_t chunks =
      std::min(blocks_of(kItems, kv_heads), std::max<int64_t>(1, blocks / kLeastBlocks));
  const GradientParts grad_key(a, chunks, a.size, need_key);
  const GradientParts grad_value(a, chunks, a.value_size, need_value);
  const int64_t work = a.batch * a.heads * a.rows * a.keys * (3 * a.size + 2 * a.value_size);
  const int64_t query_bytes = a.rows * a.size * static_cast<int64_t>(bytes_of(a.dtype));
  char* grad_query = need_query ? static_cast<char*>(grads[0].mutable_data_ptr()) : nullptr;
  take_items(kv_heads * chunks, work, backward_room(a), [&](int64_t item, void* room) {
    const int64_t b = item / chunks / a.kv_heads, kv_head = item / chunks % a.kv_heads;
    void* to_key = grad_key.begin(item);
    void* to_value = grad_value.begin(item);
    for (int64_t block = item % chunks; block < blocks; block += chunks) {
      const int64_t h = kv_head * group + block / row_blocks, i = block % row_blocks * kBlockRows;
      const int64_t head = b * a.heads + h;
      const AttentionGrads g{at_head(grad_output, b, h, a),    at_head(output, b, h, a),
                             head_data(lse, head, a),          head_data(entropy, head, a),
                             head_data(varentropy, head, a),   head_data(grad_lse, head, a),
                             head_data(grad_entropy, head, a), head_data(grad_varentropy, head, a)};
      attention_gradient_kernels().backward(
          a, g, key_panels.panels(b, kv_head), keys.rows(b, kv_head),
          value_panels.panels(b, kv_head), b, h, i, std::min(a.rows, i + kBlockRows),
          grad_query == nullptr ? nullptr : grad_query + head * query_bytes, to_key, to_value,
          room);
    }
  });
  grad_key.add_to(grads[1]);
  grad_value.add_to(grads[2]);
  return {grads[0], grads[1], grads[2]};
}

}  // namespace synops
