"""HebbianLinear: a linear layer that learns by a local rule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .._check import fail
from ..hebbian import Learned, bcm_, hebb_, oja_
from ..sparse import Pattern
from ._options import check_options
from ._sparse_linear import SparseLinear

_RULES = {"hebb": hebb_, "oja": oja_, "bcm": bcm_}
_OPTIONS = frozenset(("decay", "clip", "reduction", "backend"))
_TENSORS = ("gain_pre", "gain_post", "sign", "mask")


class HebbianLinear(nn.Module):
    """``input @ weight.T``, with a weight that a local rule changes when :meth:`learn` is called.

    The forward is an ordinary differentiable function of the input; the weight has no gradient
    (``requires_grad=False``). It lies in ``layer``, an ``nn.Linear`` without bias, or a
    :class:`SparseLinear` with a pattern.

    Args:
        in_features, out_features: sizes.
        rule: "hebb", "oja" or "bcm" (:mod:`synops.hebbian`). With bcm, the buffer ``theta``
            is its threshold, 1 at first.
        lr: learning rate, a number or a tensor ``()`` or ``(out,)``.
        tau: of bcm's threshold, in calls.
        pattern: existing synapses only; ``bool (out, in)`` or a Pattern.
        learn_on_forward: in training mode, each forward is followed by :meth:`learn` of its input
            and output. Where a backward may come, the forward then works on a copy of the weight,
            since a saved one must not change.
        device, dtype: of the weight.
        options: keywords of the rule: decay, clip, reduction, backend; gain_pre, gain_post, sign
            and mask, which become buffers. Initial values agree with sign.

    Shape:
        input ``(..., in)``; returns ``(..., out)``.

    Example:
        >>> layer = HebbianLinear(784, 100, rule="oja", lr=0.01)
        >>> output = layer(torch.rand(32, 784))
        >>> layer.learn(torch.rand(32, 784))  # computes the output itself, returns it
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rule: str = "oja",
        *,
        lr: float | Tensor = 0.01,
        tau: float = 100.0,
        pattern: Pattern | Tensor | None = None,
        learn_on_forward: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ):
        super().__init__()
        check_options("HebbianLinear", options, {*_OPTIONS, *_TENSORS})
        if rule not in _RULES:
            known = ", ".join(_RULES)
            fail(ValueError, "nn.HebbianLinear", "rule", f"be one of {known}", repr(rule))
        layer: nn.Linear | SparseLinear
        if pattern is None:
            layer = nn.Linear(in_features, out_features, bias=False, device=device, dtype=dtype)
        else:
            layer = SparseLinear(in_features, out_features, False, device, dtype, pattern=pattern)
        self.layer = layer.requires_grad_(False)
        self.rule, self.tau, self.learn_on_forward = rule, tau, learn_on_forward
        self.lr: float | Tensor | None
        if isinstance(lr, Tensor):
            self.register_buffer("lr", lr.detach().clone().to(device))
        else:
            self.lr = lr
        for name in _TENSORS:
            value = options.pop(name, None)
            self.register_buffer(name, None if value is None else value.detach().clone().to(device))
        self.options = options
        wide = torch.float64 if self.weight.dtype == torch.float64 else torch.float32
        theta = torch.ones(out_features, device=device, dtype=wide) if rule == "bcm" else None
        self.register_buffer("theta", theta)
        if not self.weight.is_meta:
            self._begin(in_features)

    @torch.no_grad()
    def _begin(self, in_features: int) -> None:
        """Initial values that agree with the signs; raises what the rule refuses."""
        kept = self.weight.clone()
        if self.sign is not None and self.sign.shape == (in_features,):
            layer = self.layer
            by = (
                self.sign[layer.pattern.col.long()]
                if isinstance(layer, SparseLinear)
                else self.sign
            )
            signed = kept[..., : by.shape[0]]
            signed.copy_(torch.where(by == 0, signed, signed.abs() * by))
            self.weight.copy_(kept)
        self._update(self.weight.new_zeros(0, in_features))
        self.weight.copy_(kept)

    @property
    def weight(self) -> nn.Parameter:
        """``(out, in)``, or ``(capacity,)`` values in the order of ``layer.pattern``."""
        return self.layer.values if isinstance(self.layer, SparseLinear) else self.layer.weight

    def forward(self, input: Tensor) -> Tensor:
        if not (self.learn_on_forward and self.training):
            return self.layer(input)
        output = self.layer(input)
        if output.requires_grad:
            with torch.no_grad():
                copy = self.weight.clone()
            name = "values" if isinstance(self.layer, SparseLinear) else "weight"
            output = torch.func.functional_call(self.layer, {name: copy}, (input,))
        self.learn(input, output)
        return output

    @torch.no_grad()
    def learn(
        self, input: Tensor, post: Tensor | None = None, modulator: float | Tensor | None = None
    ) -> Tensor:
        """Changes the weight by the rule, and returns ``post``.

        Args:
            input: ``(..., in)``; leading dimensions are samples.
            post: ``(..., out)``, the output that learns; None: that of the forward, computed in
                the same pass.
            modulator: a factor of each sample, or of all.
        """
        flat = input.reshape(-1, input.shape[-1])
        given = None if post is None else post.reshape(-1, post.shape[-1])
        found = self._update(flat, given, modulator)
        return found.reshape(*input.shape[:-1], found.shape[-1]) if post is None else post

    def _update(
        self, pre: Tensor, post: Tensor | None = None, modulator: float | Tensor | None = None
    ) -> Tensor:
        options = self.options | {name: getattr(self, name) for name in _TENSORS}
        options |= {"lr": self.lr, "modulator": modulator}
        if isinstance(self.layer, SparseLinear):
            options["pattern"] = self.layer.pattern
        with torch.no_grad():
            if self.rule == "bcm":
                return bcm_(self.weight, self.theta, pre, post, tau=self.tau, **options).post
            found = _RULES[self.rule](self.weight, pre, post, **options)
        return found.post if isinstance(found, Learned) else post  # type: ignore[return-value]

    def extra_repr(self) -> str:
        options = "".join(f", {k}={v!r}" for k, v in self.options.items())
        return f"rule={self.rule!r}, lr={self.lr!r}{options}"
