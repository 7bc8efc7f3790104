// esn (CPU): checks, threads and the loop over time; the kernels of a step are in esn.inc.
#include "spiking/esn.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "sparse/compressed.h"
#include "sparse/slab.h"
#include "spiking/reservoir.h"

namespace synops {
namespace {

constexpr const char* kOp = "esn";
// From so many sequences on an entry costs less for all of them side by side (.6 ns for a vector)
// than for each by itself (.27).
constexpr int64_t kLeastSequences = 3;
// Multiply-adds of a step from which a second thread pays: every step forks, 5 us or more.
constexpr int64_t kLeastShared = 1 << 18;

// Everything of a call that is the same for all sequences.
struct Reservoir {
  DType dtype;
  Csr csr;
  Tiled tiled;
  RowBlocks blocks;
  int64_t steps, sequences, rows, inputs, washout;
  Squash squash;
  const void *values, *input_weight, *bias, *leak;  // bias of zeros where there is none
  const char* input;
  int64_t input_step, input_next;  // elements between steps, between sequences
  char *states, *state;

  template <class A>
  const A* input_at(int64_t t, int64_t b) const {
    return reinterpret_cast<const A*>(input) + t * input_step + b * input_next;
  }
  template <class A>
  A* state_of(int64_t b) const {
    return reinterpret_cast<A*>(state) + b * rows;
  }
  // Null where the step is not recorded.
  template <class A>
  A* states_at(int64_t t, int64_t b) const {
    if (t < washout) return nullptr;
    return reinterpret_cast<A*>(states) + ((t - washout) * sequences + b) * rows;
  }
};

// Each sequence by itself.
template <class A>
void run_alone(const Reservoir& r) {
  STD_TORCH_CHECK(inside(r.csr), kOp, ": col must lie in [0, ", r.csr.cols, ")");
  Scratch order(places_bytes(r.rows));
  const Places places = places_of(r.rows, r.inputs, r.csr.crow, nullptr, r.blocks, order);
  STD_TORCH_CHECK(places.size() <= kMaxIndex, kOp, ": sizes must fit in int32");
  const InterleavedSize size = interleaved_size(places, r.csr.crow, r.inputs, sizeof(A));
  const size_t by_place = Scratch::round_up(places.count() * sizeof(A));
  Scratch packed(size.bytes + 2 * by_place);
  const Interleaved w =
      interleave<A>(places, r.csr, 0, static_cast<const A*>(r.values),
                    static_cast<const A*>(r.input_weight), r.inputs, size, packed);
  A *bias = static_cast<A*>(packed.take(by_place)), *leak = static_cast<A*>(packed.take(by_place));
  to_places<A>(places, static_cast<const A*>(r.bias), A(0), bias);
  to_places<A>(places, static_cast<const A*>(r.leak), A(0), leak);
  const bool in_order = places.in_order();
  const EsnKernels& kernels = esn_kernels();
  const int64_t entries = r.csr.nnz + r.rows * r.inputs;
  const int64_t threads = threads_for(r.sequences * r.steps * entries);
  const int64_t of_step =
      r.sequences == 1 && entries >= kLeastShared ? threads_for(entries) : int64_t{1};
  split(r.sequences, threads, [&](int64_t first, int64_t last) {
    const size_t bytes = Scratch::round_up(places.size() * sizeof(A));
    Scratch room(2 * bytes);
    A *now = static_cast<A*>(room.take(bytes)), *next = static_cast<A*>(room.take(bytes));
    now[places.zero()] = next[places.zero()] = A(0);
    for (int64_t b = first; b < last; ++b) {
      to_places<A>(places, r.state_of<A>(b), A(0), now);
      for (int64_t t = 0; t < r.steps; ++t) {
        std::copy_n(r.input_at<A>(t, b), r.inputs, now + places.count());
        split(w.groups, of_step,
              [&](int64_t g0, int64_t g1) { kernels.sums(r.dtype, w, now, bias, next, g0, g1); });
        kernels.update(r.dtype, r.squash, leak, now, next, places.count());
        std::swap(now, next);
        if (A* to = r.states_at<A>(t, b)) from_places<A>(places, in_order, now, to);
      }
      from_places<A>(places, in_order, now, r.state_of<A>(b));
    }
  });
}

// Blocks of sequences, a block's states feature-major.
void run_together(const Reservoir& r) {
  STD_TORCH_CHECK(inside(r.tiled), kOp, ": a column of tile_col lies outside");
  const size_t bytes = acc_bytes_of(r.dtype);
  const bool few = r.dtype == DType::kFloat32 && r.sequences <= 8;  // half a vector of AVX-512
  const Isa isa = few && active_isa() == Isa::kAvx512 ? Isa::kAvx2 : active_isa();
  const SlabKernels& slabs = slab_kernels(isa);
  const EsnKernels& kernels = esn_kernels(isa);
  Scratch arranged(Scratch::round_up(r.csr.nnz * bytes) + r.rows * sizeof(int32_t));
  void* values = arranged.take(r.csr.nnz * bytes);
  slabs.arrange(r.dtype, r.values, r.csr.crow, r.tiled, 0, r.tiled.tiles,
                static_cast<int32_t*>(arranged.take(r.rows * sizeof(int32_t))), values);
  const int64_t lanes = slabs.lanes(r.dtype);
  const int64_t entries = r.csr.nnz + r.rows * r.inputs;
  const int64_t threads = threads_for(r.sequences * r.steps * entries);
  // Two vectors, unless threads would have nothing to do; the bits do not depend on it.
  const int64_t most = r.sequences > 2 * lanes * (threads - 1) ? 2 * lanes : lanes;
  split((r.sequences + most - 1) / most, threads, [&](int64_t first, int64_t last) {
    const size_t of_states = Scratch::round_up((r.rows + lanes) * most * bytes);
    Scratch room(2 * of_states + Scratch::round_up((r.inputs + lanes) * most * bytes));
    void *now = room.take(of_states), *next = room.take(of_states);
    void* input = room.take((r.inputs + lanes) * most * bytes);
    for (int64_t block = first; block < last; ++block) {
      const int64_t b = block * most, count = std::min(most, r.sequences - b);
      const int64_t width = count <= lanes ? lanes : 2 * lanes;
      const Matrix state{r.dtype, r.state + b * r.rows * bytes, r.rows, count};
      slabs.pack(state, 0, r.rows, now, width);
      for (int64_t t = 0; t < r.steps; ++t) {
        const char* from = r.input + (t * r.input_step + b * r.input_next) * bytes;
        slabs.pack({r.dtype, const_cast<char*>(from), r.input_next, count}, 0, r.inputs, input,
                   width);
        kernels.slab_step(r.dtype, {r.tiled, values, r.input_weight, r.inputs, r.bias, r.leak,
                                    r.squash, width, now, input, next});
        std::swap(now, next);
        if (t < r.washout) continue;
        char* to = r.states + ((t - r.washout) * r.sequences + b) * r.rows * bytes;
        slabs.write(now, width, {}, {r.dtype, to, r.rows, count}, 0, r.rows);
      }
      slabs.write(now, width, {}, state, 0, r.rows);
    }
  });
}

void esn_(const Tensor& states, const Tensor& state, const Tensor& input,
          const Tensor& input_weight, const OptionalTensor& bias, const Tensor& leak,
          const Tensor& values, const Tensor& crow, const Tensor& col, const Tensor& row_ptr,
          const Tensor& tile_col, int64_t block_rows, int64_t block_step, int64_t activation,
          int64_t washout) {
  const DType dtype = reservoir_dtype(input, kOp);
  const ScalarType type = input.scalar_type();
  const Tensor u = series_of(input, type, 3, kOp, "input");
  const int64_t steps = u.size(0), sequences = u.size(1), inputs = u.size(2);
  const int64_t rows = crow.dim() == 1 ? crow.size(0) - 1 : -1;
  const Csr csr = csr_unchecked(crow, col, rows, kOp);
  const Tiled tiled = tiled_unchecked(row_ptr, tile_col, rows, rows, kOp, "row_ptr", "tile_col");
  check_size(tiled.nnz, csr.nnz, kOp, "tile_col", "size 0");
  Scratch counts(tiled.tiles > 1 ? rows * sizeof(int32_t) : 0);
  check_agree(csr.crow, tiled, static_cast<int32_t*>(counts.data()), kOp);
  const RowBlocks blocks{block_rows, block_step};
  check_blocks(csr, blocks, kOp);
  STD_TORCH_CHECK(activation >= 0 && activation <= 2, kOp, ": activation must be 0, 1 or 2, got ",
                  activation);
  const Tensor v = dense_values(values, type, csr.nnz, kOp, "values");
  const Tensor in = dense_matrix(input_weight, type, rows, inputs, kOp, "input_weight");
  const Tensor by = dense_vector(leak, type, rows, kOp, "leak");
  const Tensor shift =
      bias.has_value() ? dense_vector(*bias, type, rows, kOp, "bias") : zeros({rows}, type);
  check_result(states, type, kOp, "states", recorded_steps(steps, washout, kOp), sequences, rows);
  check_result(state, type, kOp, "state", sequences, rows);
  if (rows == 0 || sequences == 0 || steps == 0) return;
  const Reservoir r{dtype,
                    csr,
                    tiled,
                    blocks,
                    steps,
                    sequences,
                    rows,
                    inputs,
                    std::min(washout, steps),
                    static_cast<Squash>(activation),
                    v.const_data_ptr(),
                    in.const_data_ptr(),
                    shift.const_data_ptr(),
                    by.const_data_ptr(),
                    static_cast<const char*>(u.const_data_ptr()),
                    u.stride(0),
                    u.stride(1),
                    static_cast<char*>(states.mutable_data_ptr()),
                    static_cast<char*>(state.mutable_data_ptr())};
  if (sequences >= kLeastSequences) return run_together(r);
  dtype == DType::kFloat64 ? run_alone<double>(r) : run_alone<float>(r);
}

std::tuple<Tensor, Tensor> esn(const Tensor& input, const OptionalTensor& state,
                               const Tensor& input_weight, const OptionalTensor& bias,
                               const Tensor& leak, const Tensor& values, const Tensor& crow,
                               const Tensor& col, const Tensor& row_ptr, const Tensor& tile_col,
                               int64_t block_rows, int64_t block_step, int64_t activation,
                               int64_t washout) {
  reservoir_dtype(input, kOp);
  check_tensor(input, input.scalar_type(), 3, kOp, "input");
  check_index(crow, 1, kOp, "crow");
  const int64_t rows = crow.size(0) - 1, sequences = input.size(1);
  STD_TORCH_CHECK(rows >= 0, kOp, ": crow must not be empty");
  const Tensor last = state_copy(state, input.scalar_type(), sequences, rows, kOp);
  const int64_t recorded = recorded_steps(input.size(0), washout, kOp);
  const Tensor states = empty_series(recorded, sequences, rows, input.scalar_type());
  esn_(states, last, input, input_weight, bias, leak, values, crow, col, row_ptr, tile_col,
       block_rows, block_step, activation, washout);
  return {states, last};
}

}  // namespace
}  // namespace synops

STABLE_TORCH_LIBRARY_IMPL(synops, CPU, m) {
  m.impl("esn", TORCH_BOX(&synops::esn));
  m.impl("esn_", TORCH_BOX(&synops::esn_));
}
