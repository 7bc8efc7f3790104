// BackwardNode: what stands in the autograd graph for an op whose gradient is one call of another
// op. It needs no Python, neither to be made nor in the backward.
#pragma once

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/_unpack_dual.h>
#include <ATen/ops/empty_strided.h>
#include <torch/csrc/autograd/forward_grad.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/dynamo/compiled_autograd.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace synops {

using c10::IValue;
using torch::autograd::edge_list;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

// How the gradient of a forward op (leading..., rest..., forward_only...) -> output is computed:
//   backward(grad, some of leading..., rest..., a bool for each of leading)
// returns a gradient for each of leading, of any contents where its bool is false.
struct Rule {
  std::string node_name;
  c10::OperatorHandle backward;
  size_t leading;  // arguments that may have a gradient: the first ones
  // For each leading argument that the backward takes, the first ones: which gradients are computed
  // from its values, as bits.
  std::vector<uint32_t> read_by;
  size_t forward_only;  // last arguments of the forward, which the backward does not take
};

inline bool in_forward_ad() {
  return torch::autograd::ForwardADLevel::try_get_by_idx(0) != nullptr;
}

class BackwardNode final : public torch::autograd::Node {
 public:
  // args: of the forward op.
  BackwardNode(std::shared_ptr<const Rule> rule, c10::ArrayRef<IValue> args)
      : rule_(std::move(rule)) {
    edge_list edges(rule_->leading);
    for (size_t i = 0; i < rule_->leading; ++i) {
      if (args[i].isTensor()) edges[i] = torch::autograd::impl::gradient_edge(args[i].toTensor());
    }
    uint32_t needed = 0;
    for (size_t i = 0; i < rule_->leading; ++i) needed |= uint32_t{edges[i].is_valid()} << i;
    set_next_edges(std::move(edges));
    const size_t end = args.size() - rule_->forward_only;
    saved_.reserve(rule_->read_by.size() + end - rule_->leading);
    for (size_t i = 0; i < rule_->read_by.size(); ++i) {
      const bool read = rule_->read_by[i] & needed;
      if (read || !args[i].isTensor()) {
        save(args[i]);
      } else {
        saved_.emplace_back(Shape(args[i].toTensor()));
      }
    }
    for (size_t i = rule_->leading; i < end; ++i) save(args[i]);
  }

  variable_list apply(variable_list&& grads) override {
    variable_list gradients(rule_->leading);
    std::vector<bool> needed(rule_->leading);
    bool any = false;
    for (size_t i = 0; i < rule_->leading; ++i) {
      needed[i] = task_should_compute_output(i);
      any |= needed[i];
    }
    if (!any) return gradients;
    torch::jit::Stack stack;
    stack.reserve(1 + saved_.size() + rule_->leading);
    // an undefined gradient is zeros, as for a Python function
    stack.emplace_back(grads[0].defined() ? std::move(grads[0]) : input_metadata(0).zeros_like());
    {
      // Against release_variables(). Not below autograd: hooks may compute a segment anew.
      const std::lock_guard<std::mutex> lock(mutex_);
      for (const Saved& s : saved_) stack.push_back(unpack(s));
    }
    if (in_forward_ad()) refuse_tangents(stack);
    for (const bool need : needed) stack.emplace_back(need);
    call_backward(stack);
    for (size_t i = 0; i < rule_->leading; ++i) {
      if (needed[i]) gradients[i] = std::move(stack[i]).toTensor();
    }
    return gradients;
  }

  std::string name() const override { return rule_->node_name; }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (Saved& s : saved_) {
      if (auto* tensor = std::get_if<SavedVariable>(&s)) tensor->reset_data();
    }
  }

  // For compiled autograd: tensors become inputs of its graph, all else is part of its key.
  void compiled_args(torch::dynamo::autograd::CompiledNodeArgs& args) const override {
    args.collect(rule_->node_name);
    for (const Saved& s : saved_) {
      if (auto* tensor = std::get_if<SavedVariable>(&s)) {
        args.collect(*tensor, /*is_output=*/false);
      } else if (auto* shape = std::get_if<Shape>(&s)) {
        args.collect(c10::str(shape->sizes, shape->options));
      } else {
        args.collect(c10::str(std::get<IValue>(s)));
      }
    }
  }

  variable_list apply_with_saved(const variable_list& grads,
                                 torch::dynamo::autograd::SwapSavedVariables& swap) override {
    for (Saved& s : saved_) {
      if (auto* tensor = std::get_if<SavedVariable>(&s)) swap.before(*tensor);
    }
    variable_list gradients = apply(variable_list(grads));
    for (Saved& s : saved_) {
      if (auto* tensor = std::get_if<SavedVariable>(&s)) swap.after(*tensor);
    }
    return gradients;
  }

 private:
  // Of an argument whose values the backward will not read; keeps no memory alive.
  struct Shape {
    explicit Shape(const at::Tensor& t) : sizes(t.sizes()), options(t.options()) {}
    at::DimVector sizes;
    at::TensorOptions options;
  };
  using Saved = std::variant<SavedVariable, Shape, IValue>;

  void save(const IValue& value) {
    if (value.isTensor()) {
      saved_.emplace_back(std::in_place_type<SavedVariable>, value.toTensor(), /*is_output=*/false);
    } else {
      saved_.emplace_back(value);
    }
  }

  // For gradients of gradients the op is called as from outside: its registered formula builds the
  // graph. Otherwise going below autograd saves 7 us, and no deeper: negated, zero and batched
  // tensors, modes and the profiler have keys of their own.
  void call_backward(torch::jit::Stack& stack) const {
    std::optional<at::AutoDispatchBelowAutograd> below;
    if (!at::GradMode::is_enabled()) below.emplace();
    rule_->backward.callBoxed(stack);
  }

  static IValue unpack(const Saved& s) {
    if (auto* tensor = std::get_if<SavedVariable>(&s)) return tensor->unpack();
    if (auto* shape = std::get_if<Shape>(&s)) {  // one element, expanded
      const at::DimVector strides(shape->sizes.size(), 0);
      return at::empty_strided(shape->sizes, strides, shape->options);
    }
    return std::get<IValue>(s);
  }

  // The ops have no forward-mode formula, and one that is registered without returns zeros.
  void refuse_tangents(const torch::jit::Stack& stack) const {
    for (const IValue& value : stack) {
      if (!value.isTensor()) continue;
      const at::Tensor tangent = std::get<1>(at::_unpack_dual(value.toTensor(), /*level=*/0));
      TORCH_CHECK_NOT_IMPLEMENTED(!tangent.defined(), rule_->node_name,
                                  ": forward-mode AD is not implemented by the kernels; "
                                  "run it under synops.backend('reference')");
    }
  }

  const std::shared_ptr<const Rule> rule_;
  std::vector<Saved> saved_;  // the backward's arguments from the second on, without the bools
};

// Nodes are counted by shared_ptr in torch 2.11 and count themselves in 2.13.
template <class N, class... Args>
auto make_node(Args&&... args) {
  if constexpr (std::is_base_of_v<c10::intrusive_ptr_target, N>) {
    return c10::make_intrusive<N>(std::forward<Args>(args)...);
  } else {
    // deleteNode frees a deep graph without recursion
    return std::shared_ptr<N>(new N(std::forward<Args>(args)...), [](N* n) { deleteNode(n); });
  }
}

}  // namespace synops
