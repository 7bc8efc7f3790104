// izhikevich (CPU): checks, outputs, and the loop over time; kernels in izhikevich.inc.
//
// Reservoirs of a batch are independent: threads take whole ones. A single large one is shared by
// ranges of post-synaptic neurons: a thread updates its own, waits until all spikes of the step are
// known, and adds those that reach its own. Every sum goes over spikes in ascending order, so
// nothing depends on ranges or threads.
#include "spiking/izhikevich.h"

#include <torch/csrc/stable/library.h>

#include <cstring>
#include <tuple>

#include "common/scratch.h"
#include "common/split.h"
#include "common/step_barrier.h"
#include "sparse/compressed.h"
#include "spiking/neuron_rows.h"

namespace synops {
namespace {

constexpr const char* kOp = "izhikevich";
constexpr int64_t kDense = 1, kPacked = 3;  // layouts; the others are for GPUs
constexpr int64_t kMostDelay = int64_t{1} << 16;

// What the reservoirs of a call have in common; null where there is no such thing.
struct Reservoirs {
  DType dtype;
  int64_t bytes, steps, rows, neurons, words, ranges, inputs, kept, outputs, delay;
  const char *a, *b, *c, *d, *bias, *input, *input_weight, *synapses, *targets, *gates;
  const int32_t *start, *delays;
  DType weight_type;
  bool dense;
  const int64_t* chosen;  // neurons whose states are recorded; null: all
  double dt, decay, rise_decay, transfer, trace_decay, rate;
  char *v, *u, *current, *rise, *trace, *membranes, *traces, *z, *readout;
  int64_t* pending;  // (delay - 1, rows, words)
  int32_t* counts;
  int64_t* bits;
};

// A reservoir during a run: what its threads share.
class Reservoir {
 public:
  Reservoir(const Reservoirs& r, int64_t row)
      : r_(r), row_(row), width_(range_width(r.neurons, r.ranges)), room_(bytes_of(r)) {
    const int64_t n = r.neurons, words = r.words;
    arriving_ = take<char>(r.ranges * kMostTargets * r.bytes);
    drive_ = take<char>(r.input == nullptr ? 0 : n * r.bytes);
    fired_ = take<int32_t>(n);
    due_ = take<int32_t>(r.delay > 1 ? 2 * n : n);
    words_ = take<uint64_t>(words);
    ring_ = take<uint64_t>(r.delay > 1 ? r.delay * words : 0);
    counts_ = take<int64_t>(4 * r.ranges);
    for (int64_t p = 0; p < r.ranges; ++p)
      std::memcpy(arriving(p), held() + first(p) * r.bytes, count(p) * r.bytes);
    if (r.delay > 1) {
      std::memset(ring_, 0, r.delay * words * sizeof(uint64_t));
      for (int64_t k = 0; k + 1 < r.delay; ++k) {
        std::memcpy(ring_ + k * words, r.pending + (k * r.rows + row) * words, words * 8);
        if (n % kSpikeWord != 0)
          ring_[k * words + words - 1] &= ~uint64_t{0} >> (kSpikeWord - n % kSpikeWord);
      }
    }
  }

  // Ranges [begin, end) over all steps.
  void run(int64_t begin, int64_t end, StepBarrier* barrier) {
    for (int64_t t = 0; t < r_.steps; ++t) {
      for (int64_t p = begin; p < end; ++p) step(t, p);
      if (r_.readout != nullptr) read_out(t);
      if (barrier != nullptr) barrier->wait(end - begin);
      arrive(t, begin, end);
      if (begin == 0) add_up(t);
    }
  }

  // After all ranges: what is due later, and the state that the arriving spikes are added to.
  void finish() {
    for (int64_t p = 0; p < r_.ranges; ++p)
      std::memcpy(held() + first(p) * r_.bytes, arriving(p), count(p) * r_.bytes);
    for (int64_t k = 0; k + 1 < r_.delay; ++k)
      std::memcpy(r_.pending + (k * r_.rows + row_) * r_.words, due_words(r_.steps + k),
                  r_.words * 8);
  }

 private:
  static size_t bytes_of(const Reservoirs& r) {
    const auto room = [](int64_t n) { return Scratch::round_up(static_cast<size_t>(n)); };
    return room(r.ranges * kMostTargets * r.bytes) + room(r.neurons * r.bytes) +
           room(4 * r.neurons) + room(8 * r.neurons) + room(8 * r.words) +
           room(8 * r.delay * r.words) + room(32 * r.ranges);
  }
  template <class T>
  T* take(int64_t n) {
    return static_cast<T*>(room_.take(static_cast<size_t>(n) * sizeof(T)));
  }

  int64_t first(int64_t p) const { return std::min(p * width_, r_.neurons); }
  int64_t count(int64_t p) const { return first(p + 1) - first(p); }
  char* arriving(int64_t p) const { return arriving_ + p * kMostTargets * r_.bytes; }
  char* state(char* all) const { return all + row_ * r_.neurons * r_.bytes; }
  char* held() const { return state(r_.rise == nullptr ? r_.current : r_.rise); }
  uint64_t* due_words(int64_t t) const { return ring_ + t % r_.delay * r_.words; }
  // Of step t and range p; two steps are in use, since a thread may be one ahead.
  int32_t* due(int64_t t, int64_t p) const {
    return r_.delay == 1 ? (t % 2 == 0 ? fired_ : due_) + first(p)
                         : due_ + t % 2 * r_.neurons + first(p);
  }
  int64_t& due_count(int64_t t, int64_t p) const { return counts_[t % 2 * r_.ranges + p]; }
  int64_t& fired_count(int64_t t, int64_t p) const { return counts_[(2 + t % 2) * r_.ranges + p]; }

  // States, spikes, and what is recorded of them.
  void step(int64_t t, int64_t p) {
    const int64_t lo = first(p), n = count(p), size = r_.bytes;
    const int64_t at = t * r_.rows + row_;
    const IzhikevichKernels& kernels = izhikevich_kernels();
    const char* drive = r_.bias + lo * size;
    if (r_.input != nullptr) {
      const char* x = r_.input + at * r_.inputs * size;
      const bool direct = r_.input_weight == nullptr;
      kernels.drive(r_.dtype, n, drive, direct ? x + lo * size : x, r_.inputs,
                    direct ? nullptr : r_.input_weight + lo * size, r_.neurons, drive_ + lo * size);
      drive = drive_ + lo * size;
    }
    char *const v = state(r_.v) + lo * size, *const u = state(r_.u) + lo * size;
    const bool rises = r_.rise != nullptr;
    char* const current = rises ? state(r_.current) + lo * size : arriving(p);
    int64_t* const recorded = r_.bits == nullptr ? nullptr : r_.bits + at * r_.words;
    uint64_t* const words =
        (recorded == nullptr ? words_ : reinterpret_cast<uint64_t*>(recorded)) + lo / kSpikeWord;
    int32_t* const fired = r_.delay == 1 ? due(t, p) : fired_ + lo;
    const int64_t spikes =
        kernels.update(r_.dtype,
                       {lo, n, v, u, current, rises ? arriving(p) : nullptr, drive,
                        r_.a + lo * size, r_.b + lo * size, r_.c + lo * size, r_.d + lo * size,
                        r_.dt, r_.decay, r_.rise_decay, r_.transfer},
                       words, fired);
    fired_count(t, p) = due_count(t, p) = spikes;
    if (r_.delay > 1) {
      for (int64_t q = 0; q < spikes; ++q) {
        const int64_t i = fired[q], late = r_.delays == nullptr ? r_.delay : r_.delays[i];
        due_words(t + late - 1)[i / kSpikeWord] |= uint64_t{1} << (i % kSpikeWord);
      }
      take_due(t, p);
    }
    if (r_.membranes != nullptr) record(v, lo, n, r_.membranes + at * r_.kept * size);
    if (r_.trace == nullptr) return;
    char* const trace = state(r_.trace) + lo * size;
    kernels.trace(r_.dtype, n, r_.trace_decay, fired, spikes, lo, trace);
    if (r_.traces != nullptr) record(trace, lo, n, r_.traces + at * r_.kept * size);
  }

  // Of all traces; no other thread is there, then.
  void read_out(int64_t t) const {
    const int64_t n = r_.neurons, step = r_.outputs * r_.bytes, at = (t * r_.rows + row_) * step;
    const auto of_step = [at](const char* p) { return p == nullptr ? nullptr : p + at; };
    izhikevich_kernels().readout(r_.dtype, n, r_.outputs, state(r_.trace), of_step(r_.targets),
                                 of_step(r_.gates), r_.rate, r_.readout + row_ * step * n,
                                 r_.z + at);
  }

  // The spikes of the range that arrive in this step, as a list.
  void take_due(int64_t t, int64_t p) {
    uint64_t* const words = due_words(t);
    int32_t* list = due(t, p);
    for (int64_t w = first(p) / kSpikeWord; w * kSpikeWord < first(p + 1); ++w) {
      for (uint64_t bits = words[w]; bits != 0; bits &= bits - 1)
        *list++ = static_cast<int32_t>(w * kSpikeWord + __builtin_ctzll(bits));
      words[w] = 0;
    }
    due_count(t, p) = list - due(t, p);
  }

  void record(const char* from, int64_t lo, int64_t n, char* to) const {
    const int64_t size = r_.bytes;
    if (r_.chosen == nullptr) return void(std::memcpy(to + lo * size, from, n * size));
    for (int64_t k = 0; k < r_.kept; ++k) {
      const int64_t i = r_.chosen[k] - lo;
      if (i >= 0 && i < n) std::memcpy(to + k * size, from + i * size, size);
    }
  }

  // The due spikes of all ranges, added to these.
  void arrive(int64_t t, int64_t begin, int64_t end) {
    const IzhikevichSynapses s = {
        r_.dense,  r_.synapses, r_.weight_type,       r_.start,
        r_.ranges, r_.neurons,  r_.dense ? 0 : begin, r_.dense ? r_.neurons : end - begin};
    for (int64_t q = 0; q < r_.ranges; ++q)
      izhikevich_kernels().scatter(r_.dtype, s, due(t, q), due_count(t, q), arriving(begin));
  }

  void add_up(int64_t t) {
    int64_t sum = 0;
    for (int64_t p = 0; p < r_.ranges; ++p) sum += fired_count(t, p);
    r_.counts[t * r_.rows + row_] = static_cast<int32_t>(sum);
  }

  const Reservoirs& r_;
  int64_t row_, width_;
  Scratch room_;
  char *arriving_, *drive_;
  int32_t *fired_, *due_;
  uint64_t *words_, *ring_;
  int64_t* counts_;
};

void run(const Reservoirs& r, int64_t threads) {
  if (threads <= r.rows || r.ranges == 1 || r.readout != nullptr) {
    split(r.rows, std::min(threads, r.rows), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        Reservoir one(r, row);
        one.run(0, r.ranges, nullptr);
        one.finish();
      }
    });
    return;
  }
  for (int64_t row = 0; row < r.rows; ++row) {
    Reservoir one(r, row);
    StepBarrier barrier(r.ranges);
    split(r.ranges, std::min(threads, r.ranges),
          [&](int64_t begin, int64_t end) { one.run(begin, end, &barrier); });
    one.finish();
  }
}

// A tensor of the state's dtype with these sizes, dense; it is kept in `held`.
class Checked {
 public:
  explicit Checked(ScalarType type) : type_(type) {}

  const char* operator()(const Tensor& t, std::initializer_list<int64_t> sizes, const char* name) {
    check_tensor(t, type_, static_cast<int64_t>(sizes.size()), kOp, name);
    for (int64_t d = 0; d < t.dim(); ++d) {
      STD_TORCH_CHECK(t.size(d) == sizes.begin()[d], kOp, ": size ", d, " of ", name, " must be ",
                      sizes.begin()[d], ", got ", t.size(d));
    }
    held_[count_] = dense_of(t);
    return static_cast<const char*>(held_[count_++].const_data_ptr());
  }
  const char* operator()(const OptionalTensor& t, std::initializer_list<int64_t> sizes,
                         const char* name) {
    return t.has_value() ? (*this)(*t, sizes, name) : nullptr;
  }
  // A copy, to be changed.
  Tensor copy(const OptionalTensor& t, std::initializer_list<int64_t> sizes, const char* name) {
    if (!t.has_value()) return empty({0}, type_);
    const char* from = (*this)(*t, sizes, name);
    const Tensor out = empty(sizes, type_);
    if (out.numel() > 0)
      std::memcpy(out.mutable_data_ptr(), from,
                  static_cast<size_t>(out.numel()) * out.element_size());
    return out;
  }

 private:
  ScalarType type_;
  Tensor held_[20];
  int count_ = 0;
};

void check_synapses(const Tensor& start, const Tensor& target, const Tensor& weight, int64_t layout,
                    ScalarType type, Reservoirs& r) {
  STD_TORCH_CHECK(layout == kPacked || layout == kDense, kOp,
                  ": layout must be 1 or 3 on the CPU, got ", layout);
  const bool half = type == ScalarType::Float && weight.scalar_type() == ScalarType::BFloat16;
  const int64_t n = r.neurons;
  check_tensor(weight, half ? ScalarType::BFloat16 : type, layout == kDense ? 2 : 1, kOp, "weight");
  STD_TORCH_CHECK(weight.is_contiguous(), kOp, ": weight must be contiguous");
  r.weight_type = half ? DType::kBFloat16 : r.dtype;
  r.synapses = static_cast<const char*>(weight.const_data_ptr());
  r.ranges = 1;
  r.dense = layout == kDense;
  if (r.dense) {
    check_size(weight.size(0), n, kOp, "weight", "size 0");
    check_size(weight.size(1), n, kOp, "weight", "size 1");
    STD_TORCH_CHECK(n <= kMostTargets, kOp, ": dense weights are for 65536 neurons at most");
    return;
  }
  check_index(start, 1, kOp, "start");
  check_tensor(target, ScalarType::Short, 1, kOp, "target");
  STD_TORCH_CHECK(target.is_contiguous(), kOp, ": target must be contiguous");
  if (n > 0) {
    r.ranges = (start.size(0) - 1) / n;
    STD_TORCH_CHECK(r.ranges >= 1 && r.ranges * n == start.size(0) - 1 && r.ranges <= kMostRanges,
                    kOp, ": start must have a multiple (256 at most) of ", n,
                    " elements and one more, got ", start.size(0));
    STD_TORCH_CHECK(range_width(n, r.ranges) <= kMostTargets, kOp,
                    ": a range must have 65536 neurons at most, got ", range_width(n, r.ranges));
  }
  const int64_t runs = start.size(0) - 1, words = weight.element_size() / 2;
  const int64_t synapses = runs < 0 ? 0 : start.const_data_ptr<int32_t>()[runs];
  check_pointers(start, synapses, kOp, "start");
  check_size(target.size(0), packed_words(synapses, runs, words), kOp, "target", "size 0");
  STD_TORCH_CHECK(reinterpret_cast<uintptr_t>(target.const_data_ptr()) % (2 * words) == 0, kOp,
                  ": target must be aligned to its weights");
  r.start = start.const_data_ptr<int32_t>();
  r.synapses = reinterpret_cast<const char*>(target.const_data_ptr<int16_t>());
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
           Tensor>
izhikevich(const Tensor& v, const Tensor& u, const Tensor& current, const OptionalTensor& rise,
           const OptionalTensor& trace, const OptionalTensor& pending, const Tensor& a,
           const Tensor& b, const Tensor& c, const Tensor& d, const Tensor& bias,
           const OptionalTensor& input, const OptionalTensor& input_weight, const Tensor& start,
           const Tensor& target, const Tensor& weight, int64_t layout, const OptionalTensor& delays,
           int64_t steps, double dt, double decay, double rise_decay, double transfer,
           double trace_decay, bool record_bits, bool record_v, bool record_traces,
           const OptionalTensor& neurons, const OptionalTensor& readout,
           const OptionalTensor& targets, const OptionalTensor& gates, double learning_rate) {
  const DType dtype = dtype_of(v, kOp, "v");
  const ScalarType type = v.scalar_type();
  STD_TORCH_CHECK(!is_half(dtype), kOp, ": v must be float32 or float64");
  STD_TORCH_CHECK(v.dim() == 2, kOp, ": v must have 2 dimensions, got ", v.dim());
  STD_TORCH_CHECK(steps >= 0, kOp, ": steps must not be negative, got ", steps);
  Reservoirs r{};
  r.dtype = dtype;
  r.bytes = static_cast<int64_t>(synops::bytes_of(dtype));
  r.steps = steps, r.rows = v.size(0), r.neurons = v.size(1);
  r.words = (r.neurons + kSpikeWord - 1) / kSpikeWord;
  STD_TORCH_CHECK(r.neurons < kMaxIndex, kOp, ": neurons must fit in int32");
  r.dt = dt, r.decay = decay, r.rise_decay = rise_decay;
  r.transfer = transfer, r.trace_decay = trace_decay;
  r.rate = learning_rate;
  Checked checked(type);
  const int64_t n = r.neurons, rows = r.rows;
  const Tensor out_v = checked.copy(v, {rows, n}, "v"), out_u = checked.copy(u, {rows, n}, "u");
  const Tensor out_current = checked.copy(current, {rows, n}, "current");
  const Tensor out_rise = checked.copy(rise, {rows, n}, "rise");
  const Tensor out_trace = checked.copy(trace, {rows, n}, "trace");
  r.a = checked(a, {n}, "a"), r.b = checked(b, {n}, "b");
  r.c = checked(c, {n}, "c"), r.d = checked(d, {n}, "d");
  r.bias = checked(bias, {n}, "bias");
  check_synapses(start, target, weight, layout, type, r);

  if (input.has_value()) {
    STD_TORCH_CHECK(input->dim() == 3, kOp, ": input must have 3 dimensions, got ", input->dim());
    r.inputs = input_weight.has_value() ? input->size(2) : n;
    r.input = checked(*input, {steps, rows, r.inputs}, "input");
    r.input_weight = checked(input_weight, {r.inputs, n}, "input_weight");
  }
  r.delay = 1;
  Tensor out_pending = empty({0}, ScalarType::Long);
  if (pending.has_value()) {
    check_tensor(*pending, ScalarType::Long, 3, kOp, "pending");
    r.delay = pending->size(0) + 1;
    STD_TORCH_CHECK(r.delay <= kMostDelay, kOp, ": delays must be 65536 steps at most");
    check_size(pending->size(1), rows, kOp, "pending", "size 1");
    check_size(pending->size(2), r.words, kOp, "pending", "size 2");
    out_pending = empty({r.delay - 1, rows, r.words}, ScalarType::Long);
    const Tensor held = dense_of(*pending);
    if (held.numel() > 0)
      std::memcpy(out_pending.mutable_data_ptr(), held.const_data_ptr(),
                  static_cast<size_t>(held.numel()) * 8);
  }
  if (delays.has_value()) {
    check_index(*delays, 1, kOp, "delays");
    check_size(delays->size(0), n, kOp, "delays", "size 0");
    r.delays = delays->const_data_ptr<int32_t>();
    STD_TORCH_CHECK(array_kernels().in_range(r.delays, n, 1, static_cast<int32_t>(r.delay) + 1),
                    kOp, ": delays must lie in [1, ", r.delay, "]");
  }
  r.kept = n;
  if (neurons.has_value()) {
    check_tensor(*neurons, ScalarType::Long, 1, kOp, "neurons");
    STD_TORCH_CHECK(neurons->is_contiguous(), kOp, ": neurons must be contiguous");
    r.kept = neurons->size(0);
    r.chosen = neurons->const_data_ptr<int64_t>();
    for (int64_t k = 0; k < r.kept; ++k)
      STD_TORCH_CHECK(r.chosen[k] >= 0 && r.chosen[k] < n, kOp, ": neurons must lie in [0, ", n,
                      "), got ", r.chosen[k]);
    static const int64_t nobody = 0;
    if (r.kept == 0) r.chosen = &nobody;
  }
  const bool follows = trace.has_value();
  STD_TORCH_CHECK(follows || !(record_traces || readout.has_value()), kOp,
                  ": trace must be given where traces are recorded or read out");
  if (readout.has_value()) {
    STD_TORCH_CHECK(readout->dim() == 3, kOp, ": readout must have 3 dimensions");
    r.outputs = readout->size(1);
  }
  const Tensor out_readout = checked.copy(readout, {rows, r.outputs, n}, "readout");
  r.targets = checked(targets, {steps, rows, r.outputs}, "targets");
  r.gates = checked(gates, {steps, rows, r.outputs}, "gates");

  const Tensor counts = empty({steps, rows}, ScalarType::Int);
  const auto series = [&](bool wanted, int64_t count, ScalarType of) {
    return wanted ? empty_series(steps, rows, count, of) : empty({0}, of);
  };
  const Tensor bits = series(record_bits, r.words, ScalarType::Long);
  const Tensor membranes = series(record_v, r.kept, type);
  const Tensor traces = series(record_traces, r.kept, type);
  const Tensor z = series(readout.has_value(), r.outputs, type);

  const auto data = [](const Tensor& t, bool there = true) {
    return there ? static_cast<char*>(t.mutable_data_ptr()) : nullptr;
  };
  r.v = data(out_v), r.u = data(out_u), r.current = data(out_current);
  r.rise = data(out_rise, rise.has_value()), r.trace = data(out_trace, follows);
  r.membranes = data(membranes, record_v), r.traces = data(traces, record_traces);
  r.z = data(z, readout.has_value()), r.readout = data(out_readout, readout.has_value());
  r.pending = reinterpret_cast<int64_t*>(data(out_pending));
  r.counts = reinterpret_cast<int32_t*>(data(counts));
  r.bits = reinterpret_cast<int64_t*>(data(bits, record_bits));
  if (n == 0) {
    torch::stable::fill_(counts, 0);
    torch::stable::fill_(z, 0);
  } else if (rows > 0) {
    run(r, threads_for(8 * n * rows * std::max<int64_t>(1, steps)));
  }
  return {out_v,  out_u, out_current, out_rise, out_trace, out_pending,
          counts, bits,  membranes,   traces,   z,         out_readout};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) { m.impl("izhikevich", TORCH_BOX(&synops::izhikevich)); }
