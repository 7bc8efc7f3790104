// The update of the local rules over torch's threads.
#include "hebbian/outer_update.h"

#include "hebbian/all_parts.h"

namespace synops {
bool pack_pre(DType dtype, const void* x, int64_t batch, int64_t cols, const void* gain,
              void* out) {
  const OuterUpdateKernels& kernels = outer_update_kernels();
  const int64_t width = kernels.panel(dtype);
  return all_parts((cols + width - 1) / width, batch * cols, [&](int64_t begin, int64_t end) {
    return kernels.pack_pre(dtype, x, cols, batch, cols, gain, begin, end, out);
  });
}

bool pack_post(DType dtype, const void* y, int64_t batch, int64_t rows, void* out) {
  const OuterUpdateKernels& kernels = outer_update_kernels();
  const int64_t groups = (rows + kernels.group - 1) / kernels.group;
  return all_parts(groups, batch * rows, [&](int64_t begin, int64_t end) {
    return kernels.pack_post(dtype, y, rows, batch, rows, begin, end, out);
  });
}

int64_t outer_update(const PlasticWeight& w, const OuterFactors& f) {
  const OuterUpdateKernels& kernels = outer_update_kernels();
  const int64_t groups = (w.rows + kernels.group - 1) / kernels.group;
  const bool finite =
      all_parts(groups, w.rows * w.cols * (f.batch + 1),
                [&](int64_t begin, int64_t end) { return kernels.update(w, f, begin, end); });
  return finite ? 0 : kOverflow;
}

bool signs_hold(const PlasticWeight& w, const void* sign) {
  return all_parts(w.rows, w.rows * w.cols, [&](int64_t begin, int64_t end) {
    return outer_update_kernels().signs_hold(w, sign, begin, end);
  });
}

}  // namespace synops
