"""Registers the ops of the schema table with torch and runs them.

Schemas are defined here, from Python; C++ implements them under the CPU key (importing ``_C`` does
it), Triton under the CUDA key (imported on first use), and the reference everywhere else.

A call takes the first way that fits (``backend="reference"`` before all: the plain torch function):

- being compiled or exported: the registered op; torch.compile sees one opaque node with a fake and
  a backward;
- by "auto", if nothing below applies: through C++ (``_node.py``), where it can be loaded, with a
  C++ node when a gradient is needed that is one call of another op: 2 us, 3 with a node;
- inside a torch.func transform: an ``autograd.Function`` with ``setup_context`` (torch.func refuses
  the registered formula);
- under a dispatch mode (fake tensors, tracing), by "auto": the registered op;
- a gradient is needed: an ``autograd.Function`` of the old form, 7 us a call against 16 for the
  registered formula;
- otherwise: the kernel below autograd, 1 us more than the kernel.

They share one ``setup_context`` and one ``backward``, given to ``Op`` by the file of the public
function.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.nn import Parameter

from . import _backend, _node
from ._schema import TABLE, address

_library = torch.library.Library("synops", "FRAGMENT")

# torch's own names for: inside a torch.func transform, under a dispatch mode, below autograd
_functorch_active = torch._C._are_functorch_transforms_active
_modes = torch._C._len_torch_dispatch_stack
_BelowAutograd = torch._C._AutoDispatchBelowAutograd
_is_compiling = torch.compiler.is_compiling


@functools.cache
def reference(name: str) -> Callable[..., Any]:
    """The plain torch function that defines the op ``name``."""
    family, stem = address(name)
    return getattr(importlib.import_module(f"synops._reference.{family}.{stem}"), name)


@functools.cache
def launcher(name: str) -> Callable[..., Any]:
    """The Triton launcher of the op ``name``; the reference where the op has none."""
    family, stem = address(name)
    module = importlib.import_module(f"synops.kernels.{family}.{stem}")
    return getattr(module, name, None) or reference(name)


def _on_cuda(name: str, *args: Any) -> Any:
    return (launcher if _backend.HAS_TRITON else reference)(name)(*args)


for _stems in TABLE.values():
    for _stem in _stems.values():
        for _schema in _stem.schemas:
            _name = _schema.split("(")[0]
            _library.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))
            _library.impl(
                _name,
                lambda *args, _name=_name: reference(_name)(*args),
                "CompositeExplicitAutograd",
            )
            _library.impl(_name, functools.partial(_on_cuda, _name), "CUDA")


def _tensors(args: Sequence[Any]) -> Iterator[Tensor]:
    """Those among the arguments, and in lists among them."""
    for a in args:
        if isinstance(a, Tensor):
            yield a
        elif isinstance(a, list | tuple):
            yield from a


def traced(t: Tensor) -> bool:
    """Whether the values of ``t`` cannot be looked at: compiled, exported, mapped or fake."""
    return (
        torch.compiler.is_compiling()
        or _functorch_active()
        or _modes() > 0
        or type(t) not in (Tensor, Parameter)
        or t.is_meta
    )


class Op:
    """One op of the table, ready to be called.

    Args:
        name: as in the schema.
        fake: shapes and dtypes of the result, as in ``torch.library.register_fake``.
        setup_context, backward: as in ``torch.library.register_autograd``; ``backward`` finds the
            backend of the forward call in ``ctx.backend``. None: the op is not differentiable.
        vmap: as in ``torch.library.register_vmap``. None: a loop over the mapped dimension.
        leading: how many arguments, from the first on, may need a gradient.
        gradient: what ``backward`` does, where that is one call of another op: then no Python
            runs in the backward.

    Attributes:
        native: calls it through C++ or returns NotImplemented; None where C++ cannot be loaded.
    """

    def __init__(
        self,
        name: str,
        *,
        fake: Callable[..., Any],
        setup_context: Callable[..., None] | None = None,
        backward: Callable[..., Any] | None = None,
        vmap: Callable[..., Any] | None = None,
        leading: int = 1,
        gradient: _node.Gradient | None = None,
    ):
        self.name = name
        self.overload = getattr(torch.ops.synops, name).default
        self._direct = self.overload._op  # past OpOverload.__call__, 0.3 us
        self._leading = leading
        self._reference = reference(name)
        self._differentiable = backward is not None
        self.native = _node.bind(name, leading if self._differentiable else 0, gradient)

        def checked_fake(*args: Any) -> Any:
            # Also what a real call with one meta tensor among CPU tensors runs.
            devices = {a.device for a in _tensors(args)}
            if len(devices) > 1:
                found = ", ".join(sorted(map(str, devices)))
                raise RuntimeError(f"{name}: all tensors must be on one device, got {found}")
            return fake(*args)

        torch.library.register_fake(f"synops::{name}", checked_fake, lib=_library)
        torch.library.register_vmap(
            f"synops::{name}", vmap or functools.partial(_vmap_loop, self.overload), lib=_library
        )
        if backward is None or setup_context is None:
            return

        def registered_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.backend = "auto"
            setup_context(ctx, inputs, output)

        torch.library.register_autograd(
            f"synops::{name}", backward, setup_context=registered_context, lib=_library
        )
        self._function = self._make_function(setup_context, backward)
        self._transformed = self._make_transformed(setup_context, backward)

    def __call__(self, *args: Any, backend: str | None = None) -> Any:
        # On the path of every call: nothing here that costs more than 0.1 us.
        if _is_compiling():
            return self._traced(args, backend)
        name = _backend._requested if backend is None else _backend.requested(backend)
        if name == "auto" and self.native is not None:
            output = self.native(*args)
            if output is not NotImplemented:
                return output
        if name == "reference":
            return self._reference(*args)
        if forward_ad._current_level >= 0:
            self._refuse_forward_ad(args)
        if _functorch_active():
            if self._differentiable:
                return self._transformed.apply(*args, name)
            return self._raw(args, name)
        if name == "auto" and _modes():
            return self.overload(*args)  # a tracing mode, fake tensors: theirs to handle
        if self._differentiable and torch.is_grad_enabled():
            for a in args[: self._leading]:
                if a is not None and a.requires_grad:
                    if type(a) is not Tensor and type(a) is not Parameter:
                        return self.overload(*args)  # a DTensor: its own autograd
                    return self._function.apply(*args, name)
        with _BelowAutograd():
            return self._direct(*args) if name == "auto" else self._raw(args, name)

    def _raw(self, args: Sequence[Any], name: str = "auto") -> Any:
        if name == "auto":
            return self.overload(*args)
        device = next(_tensors(args)).device
        run, _ = _backend.resolve(self.name, name, device)
        return launcher(self.name)(*args) if run == "triton" else self.overload(*args)

    def _traced(self, args: Sequence[Any], backend: str | None) -> Any:
        # The kernel is chosen by the device when the graph runs, so a compiled graph knows "auto"
        # and what can be written into the graph itself.
        name = _backend.requested(backend)
        if name == "reference":
            return self._reference(*args)
        if forward_ad._current_level >= 0:
            raise NotImplementedError(self._no_forward_ad())
        device = next(_tensors(args)).device
        if name == "triton" and device.type != "cuda":
            raise RuntimeError(f"{self.name}: a compiled graph runs Triton on CUDA tensors only")
        if name == "cpp" and (device.type != "cpu" or _backend.native_error):
            why = _backend.native_error or f"it needs CPU tensors, got {device}"
            raise RuntimeError(f"{self.name}: backend 'cpp' cannot run here: {why}")
        return self.overload(*args)

    def _refuse_forward_ad(self, args: Sequence[Any]) -> None:
        # The registered formula would return a zero tangent without a word.
        for a in args:
            if isinstance(a, Tensor) and forward_ad.unpack_dual(a).tangent is not None:
                raise NotImplementedError(self._no_forward_ad())

    def _no_forward_ad(self) -> str:
        return (
            f"{self.name}: forward-mode AD is not implemented by the kernels; "
            "run it under synops.backend('reference')"
        )

    def _make_function(self, setup_context: Callable, backward: Callable) -> type[Function]:
        def forward(ctx: Any, *args: Any) -> Any:
            *inputs, ctx.backend = args
            with _BelowAutograd():
                output = self._raw(inputs, ctx.backend)
            setup_context(ctx, inputs, output)
            return output

        return type(f"{self.name}_function", (Function,), _methods(forward, backward))

    def _make_transformed(self, setup_context: Callable, backward: Callable) -> type[Function]:
        def forward(*args: Any) -> Any:
            return self._raw(args[:-1], args[-1])

        def context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.backend = inputs[-1]
            setup_context(ctx, inputs[:-1], output)

        methods = _methods(forward, backward)
        methods |= {"setup_context": staticmethod(context), "generate_vmap_rule": True}
        return type(f"{self.name}_transformed", (Function,), methods)


class _Gradient(TypedDict):
    setup_context: Callable[..., None]
    backward: Callable[..., Any]


def refused_gradient(name: str, what: str = "double backward") -> _Gradient:
    """setup_context and backward of an Op, ``<name>_backward`` say, that cannot be differentiated.

    An Op without any would return what has no graph: a gradient of it is missing from the sum of
    the others without a word.
    """

    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(
            f"{name}: {what} is not implemented by the kernels; "
            "run it under synops.backend('reference')"
        )

    return {"setup_context": lambda ctx, inputs, output: None, "backward": backward}


def _methods(forward: Callable, backward: Callable) -> dict[str, Any]:
    """forward and backward as static methods; the backend, the last argument, has no gradient."""

    def with_backend(ctx: Any, *grads: Any) -> Any:
        result = backward(ctx, *grads)
        return (*result, None) if isinstance(result, tuple) else (result, None)

    return {"forward": staticmethod(forward), "backward": staticmethod(with_backend)}


def _vmap_loop(overload: Callable, info: Any, in_dims: Sequence[Any], *args: Any) -> Any:
    """One call for each element of the mapped dimension, results stacked in front."""

    def call(element: Callable[[Tensor, int], Tensor]) -> Any:
        def pick(a: Any, dim: Any) -> Any:
            if isinstance(dim, list | tuple):
                return [pick(*pair) for pair in zip(a, dim, strict=True)]
            return a if dim is None else element(a, dim)

        return overload(*map(pick, args, in_dims))

    def zeros(a: Tensor, dim: int) -> Tensor:
        return a.new_zeros(a.shape[:dim] + a.shape[dim + 1 :])

    if info.batch_size:
        calls = [call(functools.partial(Tensor.select, index=i)) for i in range(info.batch_size)]
    else:  # nothing to call with: zeros have the shapes
        calls = [call(zeros)]
    one = isinstance(calls[0], Tensor)
    results = [(c,) for c in calls] if one else calls
    stacked = tuple(torch.stack(parts)[: info.batch_size] for parts in zip(*results, strict=True))
    return (stacked[0], 0) if one else (stacked, (0,) * len(stacked))
