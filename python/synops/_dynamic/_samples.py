"""Inputs of sparse layers and gradients of their outputs, kept for the step that needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..nn import SparseLinear
from ..sparse import sparse_linear

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
}


class Samples:
    """Forward hooks on layers, which do nothing but look at a flag until samples are wanted.

    Attributes:
        wanted: "" for nothing; "grad": inputs, and gradients of outputs before any activation;
            "cosine": inputs and outputs.
    """

    def __init__(self, layers: Iterable[SparseLinear]):
        self.wanted = ""
        self._taken: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}
        # Not as a decorator: that loads torch._dynamo, a second of `import synops`. Of the class: a
        # model, its hooks with it, is copied and pickled.
        if not hasattr(Samples._take, "_torchdynamo_disable"):
            Samples._take = torch.compiler.disable(Samples._take)  # type: ignore[method-assign]
        self._hooks = [layer.register_forward_hook(self._seen) for layer in layers]

    def close(self) -> None:
        """Leaves the layers."""
        for hook in self._hooks:
            hook.remove()
        self.clear()

    def clear(self) -> None:
        """Forgets what was kept."""
        self._taken = {}

    def of(self, layer: SparseLinear) -> tuple[Tensor, Tensor] | None:
        """``(samples, out)`` and ``(samples, in)``, of all calls and processes."""
        pairs = self._taken.get(layer, [])
        if not pairs and not _processes():
            return None
        post, pre = [post for post, _ in pairs], [pre for _, pre in pairs]
        if not _processes():
            return torch.cat(post), torch.cat(pre)
        like = layer.values.detach()
        sides = [_gathered(post, like, layer.out_features), _gathered(pre, like, layer.in_features)]
        return (sides[0], sides[1]) if sides[0].shape[0] else None

    def _seen(self, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        # Compiled code takes this branch by a guard on the flag.
        if self.wanted and torch.is_grad_enabled():
            self._take(layer, args[0], output)

    def _take(self, layer: Any, x: Tensor, output: Tensor) -> None:
        x = x.detach()
        if self.wanted == "cosine":
            self._keep(layer, output.detach().clone(), x)  # a ReLU behind may work in place
        elif output.requires_grad:
            output.register_hook(partial(self._with_gradient, layer, x))

    def _with_gradient(self, layer: SparseLinear, x: Tensor, grad: Tensor) -> None:
        if layer.activation is not None:  # it lies between the edges and this gradient
            bias = None if layer.bias is None else layer.bias.detach()
            before = sparse_linear(x, layer.values.detach(), layer.pattern, bias).requires_grad_()
            with torch.enable_grad():
                after = _ACTIVATIONS[layer.activation](before)
            (grad,) = torch.autograd.grad(after, before, grad)
        self._keep(layer, grad.detach(), x)

    def _keep(self, layer: nn.Module, post: Tensor, x: Tensor) -> None:
        rows = x.reshape(-1, x.shape[-1])
        post = post.reshape(rows.shape[0], -1).to(x.dtype)  # under autocast they differ
        self._taken.setdefault(layer, []).append((post, rows))


def _processes() -> int:
    """Of the training, if there are several."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0
    return dist.get_world_size() if dist.get_world_size() > 1 else 0


def _gathered(rows: list[Tensor], like: Tensor, width: int) -> Tensor:
    """Rows of all processes, which may have different numbers of them."""
    own = torch.cat([like.new_empty(0, width), *(r.to(like.dtype) for r in rows)])
    count = torch.tensor([own.shape[0]], device=own.device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    most = max(int(c) for c in counts)
    padded = nn.functional.pad(own, (0, 0, 0, most - own.shape[0]))
    all_rows = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(all_rows, padded)
    return torch.cat([r[: int(c)] for r, c in zip(all_rows, counts, strict=True)])
