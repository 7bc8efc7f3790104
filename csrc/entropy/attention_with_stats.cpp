// attention_with_stats (CPU): scaled dot-product attention that returns what its softmax was like.
//
// Keys are turned to panels once for all rows that read them, 1 % of the work at 512 rows; values
// are read from where they are if they can be. Blocks of 96 rows of a head are the items that
// threads take, of a few rows parts of its keys; nothing of size rows x keys is made.
#include "entropy/attention_ops.h"

namespace synops {
namespace {

Tensor stats_like(const Attention& a, bool asked, int64_t last) {
  const auto type = a.dtype == DType::kFloat64 ? ScalarType::Double : ScalarType::Float;
  return asked ? empty({a.batch, a.heads, last}, type) : empty({0}, type);
}

void* data_of(const Tensor& t, bool asked) { return asked ? t.mutable_data_ptr() : nullptr; }

void* row_of(void* p, int64_t row, int64_t bytes) {
  return p == nullptr ? nullptr : static_cast<char*>(p) + row * bytes;
}

void receive(const Attention& a, const PackedHeads& panels, const Tensor& lse,
             const Tensor& received) {
  const AttentionKernels& k = attention_kernels();
  const int64_t blocks = blocks_of(a.keys, kBlockKeys), heads = a.batch * a.heads;
  const char* from = static_cast<const char*>(lse.const_data_ptr());
  take_items(heads * blocks, heads * a.rows * a.keys * a.size, forward_room(a),
             [&](int64_t item, void* room) {
               const int64_t head = item / blocks, j = item % blocks * kBlockKeys;
               const int64_t b = head / a.heads, h = head % a.heads;
               k.received(a, panels.panels(b, h / (a.heads / a.kv_heads)),
                          from + head * a.rows * a.acc_bytes(), b, h, j,
                          std::min(a.keys, j + kBlockKeys),
                          row_of(received.mutable_data_ptr(), head * a.keys, a.acc_bytes()), room);
             });
}

int64_t panel_bytes(const Attention& a) {
  return pad_to(a.keys, kPadKeys) * a.size * a.acc_bytes();
}

// Keys are turned where they are read, so that they stay in a core's cache: by blocks, where one
// block of rows reads a head (16 rows of 2048 keys take a quarter less), and by heads, where there
// are enough of them to share out, and small ones.
bool read_once(const Attention& a) { return a.rows <= kBlockRows && a.heads == a.kv_heads; }
bool turned_by_head(const Attention& a) {
  return a.batch * a.kv_heads >= 16 && panel_bytes(a) <= 256 * 1024;
}

// Grouped queries of one row as rows of their key head, which is read once for them.
Attention grouped(Attention a) {
  const int64_t group = a.heads / a.kv_heads;
  if (a.rows != 1 || a.causal || a.window >= 0) return a;
  a.heads = a.kv_heads, a.rows = group;
  a.query.row = a.query.head, a.query.head *= group;
  a.mask.row = a.mask.head, a.mask.head *= group;
  return a;
}

// Rows that are few: every head in parts of its keys, in which threads share one, too.
template <class F>
void attend_few(const Attention& a, bool entropy, bool varentropy, F&& output_of) {
  const AttentionFewKernels& k = attention_few_kernels();
  const int64_t heads = a.batch * a.heads;
  const int64_t count = std::max<int64_t>(1, blocks_of(a.keys, kPartKeys)), bytes = few_part(a);
  const int64_t work = heads * a.rows * a.keys * (a.size + a.value_size);
  const Scratch parts(heads * count * bytes);
  take_items(heads * count, work, few_room(a), [&](int64_t item, void* room) {
    const int64_t head = item / count, j = item % count * kPartKeys;
    k.pass(a, head / a.heads, head % a.heads, j, std::min(a.keys, j + kPartKeys), entropy,
           varentropy, row_of(parts.data(), item, bytes), room);
  });
  for (int64_t head = 0; head < heads; ++head)
    k.finish(a, row_of(parts.data(), head * count, bytes), count, output_of(head));
}

// Rows in blocks. `panels` null: keys are turned where they are read.
template <class F>
void attend_blocks(const Attention& a, const PackedHeads* panels, F&& output_of) {
  const AttentionKernels& k = attention_kernels();
  const PackedHeads values(a, a.value, a.value_size, PackedHeads::Form::kRows);
  const int64_t heads = a.batch * a.heads, blocks = blocks_of(a.rows, kBlockRows);
  const int64_t group = a.heads / a.kv_heads;
  const auto run = [&](int64_t head, int64_t block, const void* turned, void* room) {
    const int64_t b = head / a.heads, h = head % a.heads, i = block * kBlockRows;
    k.forward(a, turned, values.rows(b, h / group), b, h, i, std::min(a.rows, i + kBlockRows),
              output_of(head), room);
  };
  const int64_t work = heads * a.rows * a.keys * (a.size + a.value_size);
  // The last blocks of a head first: causal, they have the most keys.
  if (panels != nullptr || read_once(a)) {
    take_items(heads * blocks, work, forward_room(a), [&](int64_t item, void* room) {
      const int64_t head = item / blocks, b = head / a.heads, kv_head = head % a.heads / group;
      run(head, blocks - 1 - item % blocks,
          panels == nullptr ? nullptr : panels->panels(b, kv_head), room);
    });
    return;
  }
  take_items(
      a.batch * a.kv_heads, work, forward_room(a) + panel_bytes(a), [&](int64_t item, void* room) {
        void* turned = row_of(room, forward_room(a), 1);
        const int64_t at = a.key.at(item / a.kv_heads, item % a.kv_heads, 0);
        const char* from =
            static_cast<const char*>(a.key.data) + at * static_cast<int64_t>(bytes_of(a.dtype));
        k.pack_panels(a.dtype, from, a.key.row, a.size, 0, a.keys, turned);
        for (int64_t head = item * group; head < (item + 1) * group; ++head)
          for (int64_t block = blocks - 1; block >= 0; --block) run(head, block, turned, room);
      });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> attention_with_stats(
    const Tensor& query_in, const Tensor& key_in, const Tensor& value_in,
    const std::optional<Tensor>& attn_mask, bool is_causal, int64_t window, double scale,
    int64_t stats) {
  const char* op = "attention_with_stats";
  for (const Tensor* t : {&query_in, &key_in, &value_in})
    STD_TORCH_CHECK(t->dim() == 4, op, ": query, key and value must have 4 dimensions");
  const Tensor query = unit_rows(query_in), key = unit_rows(key_in), value = unit_rows(value_in);
  const Attention a = attention_of(op, query, key, value, attn_mask, is_causal, window, scale);
  const bool varentropy = (stats & kVarentropy) != 0;
  const bool entropy = varentropy || (stats & kEntropy) != 0;
  const bool max_prob = (stats & kMaxProb) != 0, received = (stats & kReceived) != 0;
  const Tensor output = empty({a.batch, a.heads, a.rows, a.value_size}, query.scalar_type());
  const Tensor of[] = {stats_like(a, true, a.rows), stats_like(a, entropy, a.rows),
                       stats_like(a, varentropy, a.rows), stats_like(a, max_prob, a.rows),
                       stats_like(a, received, a.keys)};
  const std::tuple results{output, of[0], of[1], of[2], of[3], of[4]};
  if (a.batch * a.heads == 0) return results;
  const Attention g = grouped(a);
  const bool few = g.rows * (g.heads / g.kv_heads) <= kUnturnedRows;
  const int64_t row_bytes = a.value_size * static_cast<int64_t>(bytes_of(a.dtype));
  const auto results_of = [&](int64_t row) {  // of all heads
    const auto from = [&](const Tensor& t, bool asked) {
      return row_of(data_of(t, asked), row, a.acc_bytes());
    };
    return AttentionOutput{row_of(output.mutable_data_ptr(), row, row_bytes), from(of[0], true),
                           from(of[1], entropy), from(of[2], varentropy), from(of[3], max_prob)};
  };
  const bool turned = !received && (few || read_once(g) || turned_by_head(g));
  using Form = PackedHeads::Form;
  const PackedHeads panels(a, a.key, a.size, turned ? Form::kNone : Form::kPanels);
  const auto output_of = [&](int64_t head) { return results_of(head * g.rows); };
  if (few)
    attend_few(g, entropy, varentropy, output_of);
  else
    attend_blocks(g, turned ? nullptr : &panels, output_of);
  if (received) receive(a, panels, of[0], of[4]);
  return results;
}

AttentionMask mask_of(const Tensor& t, const Attention& a, const char* op) {
  STD_TORCH_CHECK(t.is_cpu(), op, ": attn_mask must be on the CPU");
  STD_TORCH_CHECK(t.dim() == 4, op, ": attn_mask must have 4 dimensions, got ", t.dim());
  const int64_t sizes[] = {a.batch, a.heads, a.rows, a.keys};
  int64_t strides[4];
  for (int64_t d = 0; d < 4; ++d) {
    STD_TORCH_CHECK(t.size(d) == 1 || t.size(d) == sizes[d], op, ": size ", d,
                    " of attn_mask must be 1 or ", sizes[d], ", got ", t.size(d));
    strides[d] = t.size(d) == 1 ? 0 : t.stride(d);
  }
  AttentionMask m{t.const_data_ptr(), t.scalar_type() == ScalarType::Bool,
                  DType::kFloat32,    strides[0],
                  strides[1],         strides[2],
                  strides[3]};
  if (!m.boolean) m.dtype = dtype_of(t, op, "attn_mask");
  return m;
}

}  // namespace

Attention attention_of(const char* op, const Tensor& query, const Tensor& key, const Tensor& value,
                       const std::optional<Tensor>& attn_mask, bool is_causal, int64_t window,
                       double scale) {
  check_tensor(query, query.scalar_type(), 4, op, "query");
  check_tensor(key, query.scalar_type(), 4, op, "key");
  check_tensor(value, query.scalar_type(), 4, op, "value");
  Attention a{dtype_of(query, op, "query"),
              query.size(0),
              query.size(1),
              key.size(1),
              query.size(2),
              key.size(2),
              query.size(3),
              value.size(3),
              head_rows(query),
              head_rows(key),
              head_rows(value),
              {},
              is_causal,
              -1,
              scale};
  check_size(key.size(0), a.batch, op, "key", "size 0");
  check_size(value.size(0), a.batch, op, "value", "size 0");
  check_size(value.size(1), a.kv_heads, op, "value", "size 1");
  check_size(value.size(2), a.keys, op, "value", "size 2");
  check_size(key.size(3), a.size, op, "key", "size 3");
  STD_TORCH_CHECK(a.kv_heads > 0 ? a.heads % a.kv_heads == 0 : a.heads == 0, op,
                  ": heads of key must divide those of query, got ", a.kv_heads, " and ", a.heads);
  for (const int64_t size : {a.size, a.value_size})
    STD_TORCH_CHECK(size >= 1 && size <= kMostSize, op, ": head size must be 1 to ", kMostSize,
                    ", got ", size);
  if (window >= 0) a.window = std::min(window, a.rows + a.keys);
  if (attn_mask.has_value()) a.mask = mask_of(*attn_mask, a, op);
  return a;
}

PackedHeads::PackedHeads(const Attention& a, const AttentionRows& rows, int64_t size, Form form)
    : a_(a),
      rows_(rows),
      direct_(form == Form::kNone ||
              (form == Form::kRows && attention_kernels().direct(a.dtype, size))),
      size_(size),
      head_bytes_(pad_to(a.keys, kPadKeys) * pad_to(size, kPadSize) * a.acc_bytes()),
      packed_(direct_ ? 0 : a.batch * a.kv_heads * head_bytes_) {
  if (direct_) return;
  const AttentionKernels& k = attention_kernels();
  const auto pack = form == Form::kPanels ? k.pack_panels : k.pack_rows;
  const int64_t blocks = blocks_of(a.keys, kBlockKeys), items = a.batch * a.kv_heads * blocks;
  split(items, threads_for(items * kBlockKeys * size), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t head = i / blocks, j = i % blocks * kBlockKeys;
      const char* from =
          static_cast<const char*>(rows.data) + rows.at(head / a.kv_heads, head % a.kv_heads, 0) *
                                                    static_cast<int64_t>(bytes_of(a.dtype));
      pack(a.dtype, from, rows.row, size, j, std::min(a.keys, j + kBlockKeys), at(head));
    }
  });
}

PackedRows PackedHeads::rows(int64_t b, int64_t kv_head) const {
  if (!direct_) return {at(b * a_.kv_heads + kv_head), pad_to(size_, kPadSize)};
  const int64_t bytes = static_cast<int64_t>(bytes_of(a_.dtype));
  return {static_cast<const char*>(rows_.data) + rows_.at(b, kv_head, 0) * bytes, rows_.row};
}

}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("attention_with_stats", TORCH_BOX(&synops::attention_with_stats));
  m.impl("attention_with_stats_backward", TORCH_BOX(&synops::attention_with_stats_backward));
}
