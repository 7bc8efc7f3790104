"""alif (Triton): the kernels of lif.py and lif_backward.py with the adaptive threshold.

Reference: python/synops/_reference/spiking/alif.py
"""

import torch
from torch import Tensor

from .lif import build, launch
from .lif_backward import build as build_backward
from .lif_backward import launch_backward


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
    rule = (reset, delayed, inclusive, detach_reset, surrogate, slope)
    parameters = [beta, threshold, rho, beta_a]
    return launch("alif", 1, input, [v0, a0], parameters, rule, spikes, save, save_second, record)


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
    rule = (reset, delayed, inclusive, detach_reset, surrogate, slope)
    return launch_backward(
        "alif_backward", 1, [grad_spikes, grad_v, grad_w, grad_trajectory],
        [membrane, second], [v0, a0], [beta, threshold, rho, beta_a], rule, half, needs,
    )  # fmt: skip


AOT = [
    build(1, torch.float32, 0, False, False),
    build(1, torch.bfloat16, 0, True, True, half=True),
    build_backward(1, torch.float32, 0, False, 1, False),
    build_backward(1, torch.float64, 1, True, 2, True),
    build_backward(1, torch.bfloat16, 0, True, 5, True, half=True),
]
