// The steps of soft_hebb over torch's threads; kernels in soft_hebb.inc, soft_hebb_amax.inc and
// outer_update.inc. Work is cut into pieces that do not depend on the number of threads.
//
// The update of one sample goes through the rows from the last to the first: the forward has left
// the last ones in the L3.
#include "hebbian/soft_hebb_step.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "common/scratch.h"
#include "hebbian/all_parts.h"

namespace synops {
namespace {

// From so many samples on the forward is a product of panels.
constexpr int64_t kLeastPanels = 16;
// Rows and panels that one thread takes at a time: tiles of rows, panels that fill half an L2.
constexpr int64_t kRowsAtOnce = 96, kPanelsAtOnce = 4;
constexpr int64_t kGroupsAtOnce = 16;

// outer_update; of one sample from the last rows on.
int64_t update_backwards(const PlasticWeight& w, const OuterFactors& f) {
  if (f.batch != 1) return outer_update(w, f);
  const OuterUpdateKernels& k = outer_update_kernels();
  const int64_t groups = (w.rows + k.group - 1) / k.group;
  const bool finite = all_parts(groups, 2 * w.rows * w.cols, [&](int64_t begin, int64_t end) {
    bool all = true;
    for (int64_t to = end, from; to > begin; to = from) {
      from = std::max(begin, to - kGroupsAtOnce);
      all &= k.update(w, f, from, to);
    }
    return all;
  });
  return finite ? 0 : kOverflow;
}

}  // namespace

template <class A>
void SoftStep<A>::project(A* u, A* squares) const {
  const SoftHebbKernels& k = soft_hebb_kernels();
  const int64_t threads = threads_for((samples + 1) * out * in);
  if (u == nullptr && squares == nullptr) return;
  if (samples < kLeastPanels || u == nullptr) {
    split(out, threads, [&](int64_t begin, int64_t end) {
      Scratch room(in * sizeof(A));
      k.project(read, x, u == nullptr ? 0 : samples, begin, end, room.data(), u, squares);
    });
    return;
  }
  const int64_t panel = k.panel(wide), panels = (samples + panel - 1) / panel;
  const int64_t padded = panels * panel;
  const bool whole = padded == samples;
  Scratch packed(padded * in * sizeof(A)), wider(whole ? 0 : padded * out * sizeof(A));
  A* const sums = whole ? u : static_cast<A*>(wider.data());
  split(panels, threads, [&](int64_t begin, int64_t end) {
    k.pack(wide, x, samples, in, begin, end, packed.data());
  });
  const int64_t columns = (panels + kPanelsAtOnce - 1) / kPanelsAtOnce;
  const int64_t rows = (out + kRowsAtOnce - 1) / kRowsAtOnce;
  split_group(rows, columns, threads, [&](int64_t row, int64_t column) {
    Scratch room(6 * kSoftDepth * sizeof(A));
    const int64_t begin = row * kRowsAtOnce, end = std::min(out, begin + kRowsAtOnce);
    const int64_t first = column * kPanelsAtOnce, last = std::min(panels, first + kPanelsAtOnce);
    k.project_panels(read, packed.data(), first, last, padded, begin, end, room.data(), sums,
                     column == 0 ? squares : nullptr);
    if (whole) return;
    const int64_t to = std::min(samples, last * panel);
    for (int64_t i = begin; i < end; ++i)
      std::copy(sums + i * padded + first * panel, sums + i * padded + to,
                u + i * samples + first * panel);
  });
}

template <class A>
void SoftStep<A>::rates(const A* squares, A* of_rows) const {
  for (int64_t i = 0; i < out; ++i) {
    double r = rate == nullptr ? lr : lr * rate[i * rate_step];
    if (power >= 0) {
      const double off = std::abs(std::sqrt(static_cast<double>(squares[i])) - 1) + 1e-10;
      r *= power == 0.5 ? std::sqrt(off) : std::pow(off, power);
    }
    of_rows[i] = static_cast<A>(r);
  }
}

template <class A>
bool SoftStep<A>::compete(const A* u, const A* gain, A* y, A* overlap) const {
  const int64_t groups = (samples + kSoftSamples - 1) / kSoftSamples;
  Scratch room(groups * out * sizeof(A));
  A* const parts = static_cast<A*>(room.data());
  const SoftCompetition c{variant, temperature, out, samples, u, modulator, gain, y, parts};
  const bool finite = all_parts(groups, samples * out * 8, [&](int64_t begin, int64_t end) {
    bool all = true;
    for (int64_t g = begin; g < end; ++g) all &= soft_hebb_kernels().compete(wide, c, g);
    return all;
  });
  if (!finite) return false;
  std::fill_n(overlap, out, A(0));
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t i = 0; i < out; ++i) overlap[i] += parts[g * out + i];
  return true;
}

template <class A>
const void* SoftStep<A>::post(const A* y, void* room) const {
  if (samples == 1) return y;
  const int64_t group = outer_update_kernels().group, groups = (out + group - 1) / group;
  split(groups, threads_for(samples * out), [&](int64_t begin, int64_t end) {
    soft_hebb_kernels().turn(wide, y, samples, out, begin, end, room);
  });
  return room;
}

template <class A>
int64_t SoftStep<A>::update(const A* pre, const A* u, const A* squares) const {
  const int64_t group = outer_update_kernels().group, of_unit = Scratch::round_up(out * sizeof(A));
  const size_t of_y = Scratch::round_up(samples * out * sizeof(A));
  const size_t of_post = panel_floats(out, samples, group) * sizeof(A);
  Scratch room(4 * of_unit + of_y + of_post);
  A *rate = static_cast<A*>(room.take(of_unit)), *gain = static_cast<A*>(room.take(of_unit));
  A *overlap = static_cast<A*>(room.take(of_unit)), *keep = static_cast<A*>(room.take(of_unit));
  A* const y = static_cast<A*>(room.take(of_y));
  void* const turned = room.take(of_post);
  rates(squares, rate);
  // Rates are in y already, unless the changes themselves are to be seen.
  for (int64_t i = 0; i < out; ++i)
    gain[i] = (gain_post == nullptr ? A(1) : gain_post[i]) *
              (amax ? A(1) : static_cast<A>(rate[i] * scale));
  if (!compete(u, gain, y, overlap)) return kPostNotFinite;
  const void* const by = post(y, turned);
  if (!amax) {
    for (int64_t i = 0; i < out; ++i) keep[i] = static_cast<A>(1 - decay) - overlap[i];
    return update_backwards(w, {samples, pre, by, keep});
  }
  return update_amax(pre, y, by, overlap, rate, keep);
}

template <class A>
int64_t SoftStep<A>::update_amax(const A* pre, A* y, const void* by, const A* overlap, A* rate,
                                 A* keep) const {
  const SoftHebbAmaxKernels& k = soft_hebb_amax_kernels();
  const int64_t work = out * in * 2;
  const bool few = samples == 1;
  Scratch changes(few ? 0 : out * in * sizeof(A));
  SoftChanges c{read, x, y, overlap, nullptr};
  if (few) {
    c.x = pre;
  } else {
    for (int64_t i = 0; i < out; ++i) keep[i] = -overlap[i];
    PlasticWeight to = w;
    to.to = changes.data(), to.to_stride = in, to.lower = to.upper = nullptr;
    if (w.dtype != wide) {
      split(out, threads_for(out * in),
            [&](int64_t begin, int64_t end) { k.widen(read, begin, end, changes.data()); });
      to.dtype = wide, to.from = changes.data(), to.from_stride = in;
    }
    outer_update(to, {samples, pre, by, keep});
    c.changes = changes.data();
  }
  std::atomic<double> most{0};
  split(out, threads_for(work), [&](int64_t begin, int64_t end) {
    const double found = k.largest(c, begin, end);
    double before = most.load();
    while (found > before && !most.compare_exchange_weak(before, found)) {
    }
  });
  const double share = 1 / (most.load() + 1e-30);
  for (int64_t i = 0; i < out; ++i) rate[i] = static_cast<A>(rate[i] * share);
  if (few) {
    for (int64_t i = 0; i < out; ++i) {
      keep[i] = static_cast<A>(1 - decay) - rate[i] * overlap[i];
      y[i] *= rate[i];
    }
    return outer_update(w, {samples, pre, y, keep});
  }
  const bool finite = all_parts(out, work, [&](int64_t begin, int64_t end) {
    return k.apply(w, changes.data(), 1 - decay, rate, begin, end);
  });
  return finite ? 0 : kOverflow;
}

template struct SoftStep<float>;
template struct SoftStep<double>;

}  // namespace synops
