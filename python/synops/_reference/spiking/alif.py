"""alif in plain torch: the neuron of neurons.py whose threshold adapts."""

from __future__ import annotations

from torch import Tensor

from .neurons import ADAPTIVE, Rule, Second, backward, forward, needed


def alif(
    input: Tensor,
    v0: Tensor | None,
    a0: Tensor | None,
    beta: Tensor,
    threshold: Tensor,
    rho: Tensor,
    beta_a: Tensor,
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
    """spikes, v, a, distances from the threshold, adaptations, trajectory of v."""
    rule = Rule(reset, delayed, inclusive, detach_reset, surrogate, slope)
    second = Second(ADAPTIVE, a0, rho, beta_a)
    return forward(input, v0, beta, threshold, second, rule, spikes, save, save_second, record)


def alif_backward(
    grad_spikes: Tensor | None,
    grad_v: Tensor | None,
    grad_w: Tensor | None,
    grad_trajectory: Tensor | None,
    membrane: Tensor,
    second: Tensor | None,
    v0: Tensor | None,
    a0: Tensor | None,
    beta: Tensor,
    threshold: Tensor,
    rho: Tensor,
    beta_a: Tensor,
    reset: int,
    delayed: bool,
    inclusive: bool,
    detach_reset: bool,
    surrogate: int,
    slope: float,
    half: int,
    *needs: bool,
) -> tuple[Tensor, ...]:
    """Gradients of input, v0, a0, beta, threshold, rho and beta_a; 0-size where not needed."""
    rule = Rule(reset, delayed, inclusive, detach_reset, surrogate, slope)
    found = backward(
        grad_spikes, grad_v, grad_w, grad_trajectory, membrane, second, v0, beta, threshold,
        Second(ADAPTIVE, a0, rho, beta_a), rule, half,
    )  # fmt: skip
    return needed(found, needs)
