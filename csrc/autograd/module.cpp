// The module synops._autograd: calls of ops from Python, with a BackwardNode where a gradient is
// needed. Not in the stable ABI, so it fits one torch; without it, python/synops/_library.py does
// the same in 14 us more a forward pass and 20 to 30 more a backward.
#include <ATen/PythonTorchFunctionTLS.h>
#include <Python.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>

#include <algorithm>

#include "autograd/node.h"

namespace synops {
namespace {

enum class Kind { kTensor, kOptionalTensor, kInt, kBool, kFloat, kOther };

Kind kind_of(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::TensorType:
      return Kind::kTensor;
    case c10::TypeKind::OptionalType:
      return type.containedType(0)->kind() == c10::TypeKind::TensorType ? Kind::kOptionalTensor
                                                                        : Kind::kOther;
    case c10::TypeKind::IntType:
      return Kind::kInt;
    case c10::TypeKind::BoolType:
      return Kind::kBool;
    case c10::TypeKind::FloatType:
      return Kind::kFloat;
    default:
      return Kind::kOther;
  }
}

// One op as Python calls it.
struct Binding {
  c10::OperatorHandle op;
  std::vector<Kind> kinds;           // of its arguments
  size_t leading;                    // arguments whose requires_grad counts: the first ones
  std::shared_ptr<const Rule> rule;  // null: the gradient is not one call of another op
  static constexpr const char* kName = "synops._autograd.Binding";
};

// Modes, torch.func and forward-mode AD are decided in Python.
bool is_plain_eager() {
  const bool in_functorch = c10::impl::tls_local_dispatch_key_set().included_.has(
      c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
  return !in_functorch && !in_forward_ad() && !at::impl::torch_function_mode_enabled() &&
         c10::impl::TorchDispatchModeTLS::stack_len() == 0;
}

// False: not what the schema says, or a subclass of Tensor.
bool push(torch::jit::Stack& stack, Kind kind, PyObject* arg) {
  switch (kind) {
    case Kind::kOptionalTensor:
      if (arg == Py_None) {
        stack.emplace_back();
        return true;
      }
      [[fallthrough]];
    case Kind::kTensor:
      if (!THPVariable_CheckExact(arg)) return false;
      stack.emplace_back(THPVariable_Unpack(arg));
      return true;
    case Kind::kInt: {
      if (!PyLong_CheckExact(arg)) return false;
      int overflow = 0;
      stack.emplace_back(static_cast<int64_t>(PyLong_AsLongLongAndOverflow(arg, &overflow)));
      return overflow == 0;
    }
    case Kind::kBool:
      if (!PyBool_Check(arg)) return false;
      stack.emplace_back(arg == Py_True);
      return true;
    case Kind::kFloat:
      if (!PyFloat_CheckExact(arg)) return false;
      stack.emplace_back(PyFloat_AS_DOUBLE(arg));
      return true;
    default:
      return false;
  }
}

void run(const Binding& b, torch::jit::Stack& stack, bool with_graph) {
  const py::gil_scoped_release no_gil;
  if (!with_graph) {
    const at::AutoDispatchBelowAutograd below;
    b.op.callBoxed(stack);
    return;
  }
  const auto node = make_node<BackwardNode>(b.rule, stack);
  {
    const at::AutoDispatchBelowAutograd below;
    b.op.callBoxed(stack);
  }
  torch::autograd::set_history(stack[0].toTensor(), node);
}

PyObject* wrap(torch::jit::Stack& stack) {
  if (stack.size() == 1) return THPVariable_Wrap(std::move(stack[0]).toTensor());
  auto tuple =
      py::reinterpret_steal<py::object>(PyTuple_New(static_cast<Py_ssize_t>(stack.size())));
  if (!tuple) throw python_error();
  for (size_t i = 0; i < stack.size(); ++i) {
    PyTuple_SET_ITEM(tuple.ptr(), i, THPVariable_Wrap(std::move(stack[i]).toTensor()));
  }
  return tuple.release().ptr();
}

PyObject* call(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  const auto& b = *static_cast<Binding*>(PyCapsule_GetPointer(self, Binding::kName));
  const auto size = static_cast<size_t>(count);
  if (size != b.kinds.size() || !is_plain_eager()) Py_RETURN_NOTIMPLEMENTED;
  torch::jit::Stack stack;
  stack.reserve(size);
  for (size_t i = 0; i < size; ++i) {
    if (!push(stack, b.kinds[i], args[i])) Py_RETURN_NOTIMPLEMENTED;
  }
  bool with_graph = false;
  if (at::GradMode::is_enabled()) {
    for (size_t i = 0; i < b.leading; ++i) {
      with_graph |= stack[i].isTensor() && stack[i].toTensor().requires_grad();
    }
    if (with_graph && !b.rule) Py_RETURN_NOTIMPLEMENTED;
  }
  run(b, stack, with_graph);
  return wrap(stack);
  END_HANDLE_TH_ERRORS
}

PyMethodDef call_def = {"call", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&call)),
                        METH_FASTCALL, nullptr};

c10::OperatorHandle find(const std::string& name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), "");
}

// A function whose self is the Binding. METH_FASTCALL: pybind11 would copy the arguments into a
// tuple and look through its overloads, 0.3 us.
py::object bind(const std::string& name, size_t leading, const std::string& node_name,
                const std::string& backward, std::vector<uint32_t> read_by, size_t forward_only) {
  auto binding = std::make_unique<Binding>(Binding{find(name), {}, leading, nullptr});
  const c10::FunctionSchema& schema = binding->op.schema();
  for (const c10::Argument& a : schema.arguments()) binding->kinds.push_back(kind_of(*a.type()));
  for (const c10::Argument& r : schema.returns()) {
    TORCH_CHECK(kind_of(*r.type()) == Kind::kTensor, name, ": results must be tensors");
  }
  const size_t size = binding->kinds.size();
  TORCH_CHECK(leading <= std::min<size_t>(size, 32), name, ": leading must be at most ", size);
  if (!backward.empty()) {
    const c10::FunctionSchema& gradient = find(backward).schema();
    TORCH_CHECK(schema.returns().size() == 1, name, ": must have one result");
    TORCH_CHECK(read_by.size() <= leading && forward_only <= size - leading &&
                    gradient.arguments().size() == 1 + read_by.size() + size - forward_only &&
                    gradient.returns().size() == leading,
                backward, ": does not fit ", name);
    binding->rule = std::make_shared<const Rule>(
        Rule{node_name, find(backward), leading, std::move(read_by), forward_only});
  }
  const py::capsule self(binding.release(), Binding::kName, [](PyObject* capsule) {
    delete static_cast<Binding*>(PyCapsule_GetPointer(capsule, Binding::kName));
  });
  return py::reinterpret_steal<py::object>(PyCFunction_New(&call_def, self.ptr()));
}

}  // namespace
}  // namespace synops

PYBIND11_MODULE(_autograd, m) {
  m.doc() = "calls of synops' ops with a C++ autograd node";
  m.attr("torch_version") = SYNOPS_TORCH_VERSION;
  m.def("bind", &synops::bind, py::arg("name"), py::arg("leading"), py::arg("node_name") = "",
        py::arg("backward") = "", py::arg("read_by") = std::vector<uint32_t>{},
        py::arg("forward_only") = 0,
        R"(What calls the op `name` from Python.

    It returns NotImplemented where it leaves the call to others: under modes and transforms, for
    subclasses of Tensor and arguments that do not fit the schema, and for a gradient of one of the
    first `leading` arguments when no `backward` is given.

    Args:
        name: with its namespace.
        leading: arguments that may need a gradient: the first ones.
        node_name: what the node is called in the graph.
        backward: the op `(grad, *some_of_leading, *rest, *needs)` that computes the gradient.
        read_by: for each leading argument that `backward` takes, the gradients that are computed
            from its values, as bits.
        forward_only: last arguments of `name` that `backward` does not take.
    )");
}
