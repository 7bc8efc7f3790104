"""lif in plain torch: the neuron of neurons.py that has a membrane alone."""

from __future__ import annotations

from torch import Tensor

from .neurons import Rule, Second, backward, forward, needed


def lif(
    input: Tensor,
    v0: Tensor | None,
    beta: Tensor,
    threshold: Tensor,
    reset: int,
    delayed: bool,
    inclusive: bool,
    detach_reset: bool,
    surrogate: int,
    slope: float,
    spikes: int,
    save: int,
    record: bool,
) -> tuple[Tensor, ...]:
    """spikes (T, R, P), v (R, P), membrane before the reset and trajectory (T, R, P) or 0-size."""
    rule = Rule(reset, delayed, inclusive, detach_reset, surrogate, slope)
    fired, v, _, membrane, _, trajectory = forward(
        input, v0, beta, threshold, Second(), rule, spikes, save, False, record
    )
    return fired, v, membrane, trajectory


def lif_backward(
    grad_spikes: Tensor | None,
    grad_v: Tensor | None,
    grad_trajectory: Tensor | None,
    membrane: Tensor,
    v0: Tensor | None,
    beta: Tensor,
    threshold: Tensor,
    reset: int,
    delayed: bool,
    inclusive: bool,
    detach_reset: bool,
    surrogate: int,
    slope: float,
    half: int,
    *needs: bool,
) -> tuple[Tensor, ...]:
    """Gradients of input, v0, beta and threshold; 0-size where not needed."""
    rule = Rule(reset, delayed, inclusive, detach_reset, surrogate, slope)
    of_input, of_v0, _, of_beta, of_threshold, *_ = backward(
        grad_spikes, grad_v, None, grad_trajectory, membrane, None, v0, beta, threshold,
        Second(), rule, half,
    )  # fmt: skip
    return needed((of_input, of_v0, of_beta, of_threshold), needs)
