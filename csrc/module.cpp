// The module synops._C: importing it registers the ops; pybind11 carries what is no tensor op.
#include <pybind11/pybind11.h>

#include "common/isa.h"

PYBIND11_MODULE(_C, m) {
  m.doc() = "synops' compiled CPU kernels; the ops are under torch.ops.synops";
  m.def("cpu_capability", &synops::isa_name);
  m.def("set_cpu_capability", &synops::set_isa);
  m.attr("torch_version") = SYNOPS_TORCH_VERSION;
}
