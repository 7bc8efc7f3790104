"""Hopfield: associative memory as a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .._check import check_tensor, fail
from ..hebbian import HopfieldRetrieval, hopfield_retrieve


class Hopfield(nn.Module):
    """Association of a state with stored patterns, :func:`synops.hebbian.hopfield_retrieve`.

    ``Hopfield()`` is the plain network: it has no parameters, and retrieves from the patterns that
    it is called with. ``Hopfield(size)`` projects state, stored and projected patterns first, in
    heads, and the result back: with ``update_steps_max=0`` it is ``nn.MultiheadAttention`` without
    masks and dropout.

    Args:
        size: of the patterns that come in, and of the output; None: no projections, one head.
        num_heads: of the projections.
        head_size: of a projected pattern. Default: ``size // num_heads``.
        scaling: beta, a number or a tensor ``(num_heads,)``. Default: 1 / sqrt(size of a head).
        learn_scaling: makes it a Parameter. (Positive it has to stay.)
        update_steps_max: updates of the state before the one that retrieves, at least 0.
        update_steps_eps: a query moved by no more than this (Euclidean norm) is not updated
            further; None makes all updates. (hopfield-layers compares the softmaxes of a head.)
        bias: of the projections.

    Shape:
        state ``(M, size)`` or ``(B, M, size)``, stored and projected ``(N, size)``, shared, or
        ``(B, N, size)``; returns the shape of the state. Without projections whatever
        :func:`~synops.hebbian.hopfield_retrieve` takes as state, patterns and values.

    Example:
        >>> memory = Hopfield(scaling=8.0, update_steps_max=2)
        >>> patterns = torch.nn.functional.normalize(torch.randn(1000, 64), dim=-1)
        >>> found = memory(patterns[:5] + 0.05 * torch.randn(5, 64), patterns)

    Source: H. Ramsauer et al., arXiv:2008.02217; names as in ml-jku/hopfield-layers.
    """

    scaling: Tensor

    def __init__(
        self,
        size: int | None = None,
        num_heads: int = 1,
        *,
        head_size: int | None = None,
        scaling: float | Tensor | None = None,
        learn_scaling: bool = False,
        update_steps_max: int = 0,
        update_steps_eps: float | None = None,
        bias: bool = True,
    ):
        super().__init__()
        op = "nn.Hopfield"
        for name, count, least in (
            ("num_heads", num_heads, 1),
            ("update_steps_max", update_steps_max, 0),
            ("size", 1 if size is None else size, 1),
            ("head_size", 1 if head_size is None else head_size, 1),
        ):
            if isinstance(count, bool) or not isinstance(count, int) or count < least:
                fail(ValueError, op, name, f"be an int of at least {least}", count)
        if size is None and (num_heads != 1 or head_size is not None):
            fail(ValueError, op, "size", "be given where there are heads", size)
        if size is not None and head_size is None:
            if size % num_heads:
                fail(ValueError, op, "size", f"be a multiple of num_heads = {num_heads}", size)
            head_size = size // num_heads
        self.size, self.num_heads, self.head_size = size, num_heads, head_size
        self.update_steps_max, self.update_steps_eps = update_steps_max, update_steps_eps
        if size is not None and head_size is not None:
            hidden = num_heads * head_size
            self.q_proj, self.k_proj, self.v_proj = (
                nn.Linear(size, hidden, bias=bias) for _ in range(3)
            )
            self.out_proj = nn.Linear(hidden, size, bias=bias)
        self._set_scaling(op, scaling, learn_scaling)

    def _set_scaling(self, op: str, scaling: float | Tensor | None, learned: bool) -> None:
        """None without a size and without a number: then it is that of the patterns that come."""
        if scaling is None and self.head_size is not None:
            scaling = 1 / math.sqrt(self.head_size)
        if scaling is None:
            if learned:
                fail(ValueError, op, "scaling", "be given where it is learned", scaling)
            self.register_buffer("scaling", None)
            return
        given = torch.as_tensor(scaling).detach().clone()
        if not given.is_floating_point():
            given = given.float()
        if (
            given.dim() > 1
            or given.numel() not in (1, self.num_heads)
            or not bool(((given > 0) & given.isfinite()).all())
        ):
            rule = f"be a number or a tensor ({self.num_heads},), finite and above 0"
            fail(ValueError, op, "scaling", rule, scaling)
        if learned:
            self.scaling = nn.Parameter(given)
        else:
            self.register_buffer("scaling", given)

    def retrieve(
        self,
        state: Tensor,
        stored: Tensor,
        projected: Tensor | None = None,
        *,
        stats: Sequence[str] | str = ("entropy", "energy"),
    ) -> HopfieldRetrieval:
        """What is retrieved by each head, ``(..., num_heads, M, head_size)``, before it is
        projected back, and what the retrieval was like."""
        values = projected
        if self.size is not None:
            state, keys = (
                self._heads("state", state, "q_proj"),
                self._heads("stored", stored, "k_proj"),
            )
            values = self._heads("projected", stored if projected is None else projected, "v_proj")
            stored = keys
        else:
            check_tensor("nn.Hopfield", "state", state)
        beta = 1 / math.sqrt(state.shape[-1]) if self.scaling is None else self.scaling
        return hopfield_retrieve(
            state,
            stored,
            values,
            beta=beta,
            steps=self.update_steps_max + 1,
            tolerance=self.update_steps_eps,
            stats=stats,
        )

    def forward(self, state: Tensor, stored: Tensor, projected: Tensor | None = None) -> Tensor:
        output = self.retrieve(state, stored, projected, stats=()).output
        if self.size is None:
            return output
        return self.out_proj(output.transpose(-3, -2).flatten(-2))

    def _heads(self, argument: str, t: Tensor, projection: str) -> Tensor:
        """(M, size) or (B, M, size), projected, to (..., num_heads, M, head_size)."""
        check_tensor("nn.Hopfield", argument, t)
        if t.dim() not in (2, 3) or t.shape[-1] != self.size:
            rule = f"have shape (..., rows, size) = ([B,] rows, {self.size})"
            fail(ValueError, "nn.Hopfield", argument, rule, tuple(t.shape))
        made = self.get_submodule(projection)(t)
        return made.unflatten(-1, (self.num_heads, self.head_size)).transpose(-3, -2)

    def extra_repr(self) -> str:
        sizes = "" if self.size is None else f"{self.size}, num_heads={self.num_heads}, "
        stop = (
            "" if self.update_steps_eps is None else f", update_steps_eps={self.update_steps_eps}"
        )
        return f"{sizes}update_steps_max={self.update_steps_max}{stop}"
