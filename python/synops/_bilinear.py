"""Autograd of ops that are linear in an input and in a weight, to any order.

With F(x, w) = x W(w)^T and B(g, x, w) = (g W(w), g^T x on the entries of w, sum of g), the
gradient of F is B, and the gradient of B is made of F and B again:

    d/dg  =  F(ggx, w) + F(x, ggw) + ggb
    d/dx  =  B(g, ., ggw)[0]
    d/dw  =  B(g, ggx, .)[1]

where ggx, ggw, ggb are the gradients that arrive for the three results of B.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._library import Op, _vmap_loop
from ._node import Gradient
from ._reference.sparse.sparse_linear import is_feature_major


def _shape_only(t: Tensor) -> Tensor:
    """One element with the shape of ``t``: stands in for what a backward will not read."""
    return t.new_empty(1).expand(t.shape)


def _save(ctx: Any, *args: Any) -> None:
    """Keeps arguments for the backward, tensors where autograd watches them."""
    ctx.save_for_backward(*(a for a in args if isinstance(a, Tensor)))
    ctx.others = [(i, a) for i, a in enumerate(args) if not isinstance(a, Tensor)]


def _saved(ctx: Any) -> list[Any]:
    args = list(ctx.saved_tensors)
    for i, a in ctx.others:
        args.insert(i, a)
    return args


class BilinearOp:
    """A pair of ops: ``forward`` is ``name(input, weight, bias, *topology, *options)``.

    Args:
        name: of the forward op. ``backward`` is ``<name>_backward(grad, input, weight, *topology,
            need_input, need_weight, need_bias)``; both are in the schema table. The topology may
            be tensors and plain values.
        out_features: from the weight and all arguments behind the bias, the width of the output.
        options: whether the forward op ends in ``activation, feature_major``, which the backward
            op does not take. Only activation 0 is linear and has a gradient; the gradient of the
            input has the layout of the input.
    """

    def __init__(self, name: str, out_features: Callable[..., int], options: bool = False):
        # what double backward calls the forward op with
        self._forward_only = (0, False) if options else ()

        def empty(like: Tensor, rows: int, cols: int, feature_major: bool) -> Tensor:
            return like.new_empty(cols, rows).t() if feature_major else like.new_empty(rows, cols)

        def fake(input: Tensor, weight: Tensor, bias: Any, *rest: Any) -> Tensor:
            cols = out_features(weight, *rest)
            return empty(input, input.shape[0], cols, options and rest[-1])

        def fake_backward(grad: Tensor, input: Tensor, weight: Tensor, *rest: Any) -> Any:
            *_, need_input, need_weight, need_bias = rest
            rows, cols = input.shape if need_input else (0, 0)
            return (
                empty(input, rows, cols, options and need_input and is_feature_major(input)),
                weight.new_empty(weight.shape if need_weight else (0,) * weight.dim()),
                grad.new_empty(grad.shape[1] if need_bias else 0),
            )

        self.forward = Op(
            name,
            fake=fake,
            setup_context=self._save_forward,
            backward=self._backward,
            vmap=self._vmap,
            leading=3,
            # input is read for the weight's gradient, weight for the input's
            gradient=Gradient(f"{name}_backward", ((1,), (0,)), len(self._forward_only)),
        )
        self.backward = Op(
            f"{name}_backward",
            fake=fake_backward,
            setup_context=self._save_backward,
            backward=self._double_backward,
            leading=3,
        )

    def _save_forward(self, ctx: Any, inputs: Any, output: Tensor) -> None:
        input, weight, _, *topology = inputs[: len(inputs) - len(self._forward_only)]
        if self._forward_only and inputs[-2] != 0:
            raise NotImplementedError(f"{self.forward.name}: activation has no gradient here")
        need_input, need_weight, *_ = ctx.needs_input_grad
        ctx.arguments = len(inputs)
        _save(
            ctx,
            input if need_weight else _shape_only(input),
            weight if need_input else _shape_only(weight),
            *topology,
        )

    def _backward(self, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad[:3]
        grads = self.backward(grad, *_saved(ctx), *needs, backend=ctx.backend)
        wanted = (g if need else None for g, need in zip(grads, needs, strict=True))
        return *wanted, *(None,) * (ctx.arguments - 3)

    def _save_backward(self, ctx: Any, inputs: Any, output: Any) -> None:
        ctx.set_materialize_grads(False)
        *args, need_input, need_weight, need_bias = inputs
        ctx.needs = (need_input, need_weight, need_bias)
        _save(ctx, *args)

    def _double_backward(self, ctx: Any, *ggs: Tensor | None) -> tuple[Tensor | None, ...]:
        grad, input, weight, *topology = _saved(ctx)
        ggx, ggw, ggb = (g if need else None for g, need in zip(ggs, ctx.needs, strict=True))
        if ggw is not None:
            ggw = ggw.contiguous()
        more = {"backend": ctx.backend}
        forward_rest = (None, *topology, *self._forward_only)  # without bias
        to_grad = to_input = to_weight = None
        if ctx.needs_input_grad[0]:
            terms = []
            if ggx is not None:
                terms.append(self.forward(ggx, weight, *forward_rest, **more))
            if ggw is not None:
                terms.append(self.forward(input, ggw, *forward_rest, **more))
            if ggb is not None:
                terms.append(ggb.expand_as(grad))
            to_grad = sum(terms[1:], start=terms[0]) if terms else None
        if ctx.needs_input_grad[1] and ggw is not None:
            to_input = self.backward(grad, input, ggw, *topology, True, False, False, **more)[0]
        if ctx.needs_input_grad[2] and ggx is not None:
            to_weight = self.backward(grad, ggx, weight, *topology, False, True, False, **more)[1]
        return to_grad, to_input, to_weight, *(None,) * (len(topology) + 3)

    def _vmap(self, info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        """A mapped input alone is more batch rows; anything else is a loop."""
        if in_dims[0] is None or any(d is not None for d in in_dims[1:]):
            return _vmap_loop(self.forward.overload, info, in_dims, *args)
        input = args[0].movedim(in_dims[0], 0)
        output = self.forward.overload(input.flatten(0, 1), *args[1:])
        return output.unflatten(0, input.shape[:2]), 0


# Asked before autocast() by its callers: a tenth of the cost of the questions in there.
autocast_enabled = torch._C._is_any_autocast_enabled


def autocast(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """What ``torch.autocast`` does to the arguments of ``F.linear``: cast them, but for float64."""
    if not all(t is None or isinstance(t, Tensor) for t in tensors) or tensors[0] is None:
        return tensors  # for the checks to refuse
    kind = tensors[0].device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(
        t.to(dtype) if t is not None and t.is_floating_point() and t.dtype != torch.float64 else t
        for t in tensors
    )


def on_rows(product: Callable[[Tensor], Tensor], input: Tensor) -> Tensor:
    """product (batch, in) -> (batch, out) on the last dimension of any input (..., in)."""
    if input.dim() == 2:
        return product(input)
    rows = input.unsqueeze(0) if input.dim() == 1 else input.flatten(0, -2)
    output = product(rows)
    return output.view(*input.shape[:-1], output.shape[-1])
