// The kernels of izhikevich.inc against plain loops.
#include "spiking/izhikevich.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "sanitize/checks.h"
#include "sanitize/samples.h"

namespace synops::sanitize {
namespace {

template <class A>
void near(A got, double want, double size, const char* what) {
  const double tolerance = sizeof(A) == 8 ? 1e-12 : 2e-5;
  require(std::abs(static_cast<double>(got) - want) <= tolerance * (size + std::abs(want)), what);
}

template <class A>
void check_update(Isa isa, int64_t count, bool rises) {
  Exact<A> v = random<A>(count), u = random<A>(count), current = random<A>(count),
           rise = random<A>(count);
  const Exact<A> drive = random<A>(count), a = random<A>(count), b = random<A>(count),
                 c = random<A>(count), d = random<A>(count);
  std::vector<double> was(4 * count);
  for (int64_t i = 0; i < count; ++i) {
    v[i] = static_cast<A>(90 * v[i] - 20);
    was[4 * i] = v[i], was[4 * i + 1] = u[i], was[4 * i + 2] = current[i], was[4 * i + 3] = rise[i];
  }
  const int64_t words = (count + kSpikeWord - 1) / kSpikeWord;
  const Exact<uint64_t> bits(words);
  const Exact<int32_t> spikes(count);
  const IzhikevichNeurons n = {
      100,         count,   v.get(), u.get(), current.get(), rises ? rise.get() : nullptr,
      drive.get(), a.get(), b.get(), c.get(), d.get(),       0.5,
      0.9,         0.7,     0.3};
  const int64_t fired = izhikevich_kernels(isa).update(dtype<A>(), n, bits.get(), spikes.get());
  int64_t seen = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double* w = &was[4 * i];
    const double after =
        w[0] + 0.5 * (0.04 * w[0] * w[0] + 5 * w[0] + 140 - w[1] + w[2] + drive[i]);
    const double recovery = w[1] + 0.5 * a[i] * (b[i] * w[0] - w[1]);
    const bool spike = bits[i / kSpikeWord] >> (i % kSpikeWord) & 1;
    if (std::abs(after - 30) > 1e-3) require(spike == (after >= 30), "spike");
    near(v[i], spike ? static_cast<double>(c[i]) : after, 400, "v");
    near(u[i], recovery + (spike ? static_cast<double>(d[i]) : 0), 100, "u");
    near(current[i], 0.9 * w[2] + (rises ? 0.3 * w[3] : 0), 1, "current");
    if (rises) near(rise[i], 0.7 * w[3], 1, "rise");
    if (spike) require(seen < fired && spikes[seen++] == 100 + i, "list of spikes");
  }
  require(seen == fired, "number of spikes");
  if (count % kSpikeWord != 0)
    require(bits[words - 1] >> (count % kSpikeWord) == 0, "bits behind the last");
}

template <class A, class W>
void check_scatter(Isa isa, int64_t neurons, bool dense) {
  constexpr int64_t kRanges = 3;  // of which the last two are added
  const int64_t runs = neurons * kRanges;
  const Exact<int32_t> start(runs + 1);
  start[0] = 0;
  for (int64_t r = 0; r < runs; ++r)
    start[r + 1] = start[r] + static_cast<int32_t>(r % 5 * (r % 7 == 0 ? 9 : 1));
  const Exact<uint16_t> target(start[runs]);
  for (int64_t j = 0; j < start[runs]; ++j)
    target[j] = static_cast<uint16_t>(j * 7 % (j % 3 == 0 ? kMostTargets : neurons));
  const Exact<W> weight = random<W>(dense ? neurons * neurons : start[runs]);
  constexpr int64_t kWords = sizeof(W) / 2;
  const int64_t words = packed_words(start[runs], runs, kWords);
  const Exact<W> packed(dense ? 0 : (words + kWords - 1) / kWords);
  for (int64_t r = 0; !dense && r < runs; ++r) {
    const int64_t n = start[r + 1] - start[r];
    W* const at = packed.get() + packed_at<sizeof(W)>(start[r], r) / sizeof(W);
    std::copy_n(weight.get() + start[r], n, at);
    std::memcpy(at + n, target.get() + start[r], n * sizeof(uint16_t));
  }
  const int64_t first = dense ? neurons / 3 : 1, own = dense ? neurons - first : kRanges - first;
  const Exact<A> to = random<A>(dense ? own : own * kMostTargets);
  std::vector<double> want(to.get(), to.get() + to.size());
  std::vector<int32_t> list;
  for (int64_t i = 0; i < neurons; i += 2) list.push_back(static_cast<int32_t>(i));
  const Exact<int32_t> spikes(static_cast<int64_t>(list.size()));
  for (size_t q = 0; q < list.size(); ++q) {
    const int32_t i = spikes[q] = list[q];
    if (dense)
      for (int64_t k = 0; k < own; ++k)
        want[k] += static_cast<double>(weight[i * neurons + first + k]);
    else
      for (int64_t p = 0; p < own; ++p)
        for (int32_t j = start[i * kRanges + first + p]; j < start[i * kRanges + first + p + 1];
             ++j)
          want[p * kMostTargets + target[j]] += static_cast<double>(weight[j]);
  }
  const void* const data = dense ? static_cast<const void*>(weight.get()) : packed.get();
  const IzhikevichSynapses s = {dense, data, dtype<W>(), start.get(), kRanges, neurons, first, own};
  izhikevich_kernels(isa).scatter(dtype<A>(), s, spikes.get(), spikes.size(), to.get());
  for (int64_t k = 0; k < to.size(); ++k) near(to[k], want[k], 8, "scattered");
}

template <class A>
void check_rest(Isa isa, int64_t count) {
  const IzhikevichKernels& kernels = izhikevich_kernels(isa);
  const Exact<A> bias = random<A>(count), x = random<A>(3), weight = random<A>(3 * count);
  const Exact<A> drive(count), trace = random<A>(count);
  x[1] = 0;
  kernels.drive(dtype<A>(), count, bias.get(), x.get(), 3, weight.get(), count, drive.get());
  for (int64_t i = 0; i < count; ++i)
    near(drive[i],
         bias[i] + static_cast<double>(x[0]) * weight[i] +
             static_cast<double>(x[2]) * weight[2 * count + i],
         2, "drive");
  kernels.drive(dtype<A>(), count, bias.get(), trace.get(), count, nullptr, 0, drive.get());
  for (int64_t i = 0; i < count; ++i)
    near(drive[i], static_cast<double>(bias[i]) + trace[i], 2, "direct drive");
  const std::vector<double> before(trace.get(), trace.get() + count);
  const Exact<int32_t> last(1);
  last[0] = static_cast<int32_t>(64 + count - 1);
  kernels.trace(dtype<A>(), count, 0.8, last.get(), 1, 64, trace.get());
  for (int64_t i = 0; i < count; ++i)
    near(trace[i], 0.8 * before[i] + (i + 1 == count), 2, "trace");
  const Exact<A> target = random<A>(2), gate = random<A>(2), z(2), read = random<A>(2 * count);
  const std::vector<double> old(read.get(), read.get() + 2 * count);
  gate[1] = 0;
  kernels.readout(dtype<A>(), count, 2, trace.get(), target.get(), gate.get(), 0.1, read.get(),
                  z.get());
  for (int64_t o = 0; o < 2; ++o) {
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += old[o * count + i] * trace[i];
    near(z[o], sum, static_cast<double>(count), "z");
    for (int64_t i = 0; i < count; ++i)
      near(read[o * count + i], old[o * count + i] + 0.1 * gate[o] * (target[o] - sum) * trace[i],
           static_cast<double>(count), "readout");
  }
}

}  // namespace

void check_izhikevich(Isa isa) {
  // Less than a vector, than a word, one, one and a bit.
  for (const int64_t count : {1, 7, 16, 63, 64, 65, 130}) {
    say("izhikevich: %ld neurons", static_cast<long>(count));
    for (const bool either : {false, true}) {
      check_update<float>(isa, count, either);
      check_update<double>(isa, count, either);
      check_scatter<float, float>(isa, count, either);
      check_scatter<double, double>(isa, count, either);
      check_scatter<float, c10::BFloat16>(isa, count, either);
    }
    check_rest<float>(isa, count);
    check_rest<double>(isa, count);
  }
}

}  // namespace synops::sanitize
