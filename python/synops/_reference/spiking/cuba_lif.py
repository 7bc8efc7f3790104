"""cuba_lif in plain torch: the neuron of neurons.py with a synaptic current."""

from __future__ import annotations

from torch import Tensor

from .neurons import CURRENT, Rule, Second, backward, forward, needed


def cuba_lif(
    input: Tensor,
    v0: Tensor | None,
    i0: Tensor | None,
    beta: Tensor,
    threshold: Tensor,
    alpha: Tensor,
    reset: int,
    delayed: bool,
    inclusive: bool,
    detach_reset: bool,
    surrogate: int,
    slope: float,
    spikes: int,
    save: int,
    save_second: bool,
    record: bool,
) -> tuple[Tensor, ...]:
    """spikes, v, i, membranes before the reset, currents, trajectory of v."""
    rule = Rule(reset, delayed, inclusive, detach_reset, surrogate, slope)
    second = Second(CURRENT, i0, alpha)
    return forward(input, v0, beta, threshold, second, rule, spikes, save, save_second, record)


def cuba_lif_backward(
    grad_spikes: Tensor | None,
    grad_v: Tensor | None,
    grad_w: Tensor | None,
    grad_trajectory: Tensor | None,
    membrane: Tensor,
    second: Tensor | None,
    v0: Tensor | None,
    i0: Tensor | None,
    beta: Tensor,
    threshold: Tensor,
    alpha: Tensor,
    reset: int,
    delayed: bool,
    inclusive: bool,
    detach_reset: bool,
    surrogate: int,
    slope: float,
    half: int,
    *needs: bool,
) -> tuple[Tensor, ...]:
    """Gradients of input, v0, i0, beta, threshold and alpha; 0-size where not needed."""
    rule = Rule(reset, delayed, inclusive, detach_reset, surrogate, slope)
    *found, _ = backward(
        grad_spikes, grad_v, grad_w, grad_trajectory, membrane, second, v0, beta, threshold,
        Second(CURRENT, i0, alpha), rule, half,
    )  # fmt: skip
    return needed(tuple(found), needs)
