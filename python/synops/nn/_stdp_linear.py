"""STDPLinear: a linear layer that learns by the timing of spikes."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module, Parameter

from .._check import fail
from ..hebbian import STDPState, stdp_
from ._options import check_options

_OPTIONS = frozenset(
    (
        "lr", "a_plus", "a_minus", "tau_plus", "tau_minus", "a3_plus", "a3_minus", "tau_x", "tau_y",
        "dt", "leak", "pairing", "coincident", "tau_e", "bounds", "clip", "reduction",
    )
)  # fmt: skip
_TRACES = ("pre", "post", "slow_pre", "slow_post", "eligibility")


class STDPLinear(Module):
    """``input @ weight.t()`` with a weight that :func:`synops.hebbian.stdp_` changes.

    The forward is an ordinary layer, differentiable in its input; the weight learns in
    :meth:`learn` only, and does not require grad. Neurons are the caller's: ``nn.LIF`` behind it,
    say. Traces are buffers, kept from call to call until :meth:`reset_state`.

    Args:
        in_features, out_features: sizes.
        device, dtype: of the weight.
        options: keywords of :func:`synops.hebbian.stdp`: lr, a_plus, a_minus, tau_plus, tau_minus,
            a3_plus, a3_minus, tau_x, tau_y, dt, leak, pairing, coincident, tau_e, bounds, clip,
            reduction. Default of ``clip``: (0, 1). With ``tau_e`` :meth:`learn` needs a reward.

    Attributes:
        weight: ``(out, in)``, uniform in ``clip``, or in [0, 1] where that is not finite.

    Shape:
        input ``(..., in)``; returns ``(..., out)``.

    Example:
        >>> layer = STDPLinear(784, 100, lr=0.01)
        >>> layer.weight.requires_grad
        False
    """

    weight: Parameter

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ):
        super().__init__()
        check_options("STDPLinear", options, _OPTIONS)
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                fail(ValueError, "nn.STDPLinear", name, "be an integer of at least 0", value)
        self.in_features, self.out_features = in_features, out_features
        self.options = {"clip": (0.0, 1.0)} | options
        weight = torch.empty((out_features, in_features), device=device, dtype=dtype)
        self.weight = Parameter(weight, requires_grad=False)
        for name in _TRACES:
            self.register_buffer(f"trace_{name}", None)
        none = torch.zeros(0, 1, 1)  # raises what it refuses
        reward = None if self.options.get("tau_e") is None else 0.0
        stdp_(torch.zeros(1, 1), none, none, reward=reward, **self.options)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weight anew, and forgets the traces."""
        low, high = self.options["clip"] or (0.0, 1.0)
        if not math.isfinite(high - low):
            low, high = 0.0, 1.0
        with torch.no_grad():
            self.weight.uniform_(low, high)
        self.reset_state()

    def reset_state(self) -> None:
        """Forgets the traces: the next spikes are the first."""
        for name in _TRACES:
            setattr(self, f"trace_{name}", None)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight)

    @torch.no_grad()
    def learn(self, pre: Tensor, post: Tensor, reward: float | Tensor | None = None) -> None:
        """Changes the weight by the spikes ``pre`` (T, [B,] in) and ``post`` (T, [B,] out).

        Args:
            pre, post: as :func:`synops.hebbian.stdp` takes them.
            reward: a number, ``()`` or ``(T,)``: needed with ``tau_e``, and refused without.

        Raises:
            ValueError, TypeError, OverflowError: as :func:`synops.hebbian.stdp_`. Of sequences in
                another number than before, the traces must be reset first.
        """
        traces = {name: getattr(self, f"trace_{name}") for name in _TRACES}
        state = None if traces["pre"] is None else STDPState(**traces)
        # A step that is refused leaves the buffers as they were.
        result = stdp_(self.weight, pre, post, state, reward=reward, **self.options)
        for name, trace in zip(_TRACES, result.state, strict=True):
            setattr(self, f"trace_{name}", trace)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        # Traces are there from the first call of learn on, in shapes that follow the batch.
        for name in _TRACES:
            given = state_dict.get(f"{prefix}trace_{name}")
            like = None if given is None else torch.empty_like(given, device=self.weight.device)
            setattr(self, f"trace_{name}", like)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        options = "".join(f", {k}={v!r}" for k, v in self.options.items())
        return f"in_features={self.in_features}, out_features={self.out_features}{options}"
