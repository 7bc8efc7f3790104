"""cuba_lif (Triton): the kernels of lif.py and lif_backward.py with a synaptic current.

Reference: python/synops/_reference/spiking/cuba_lif.py
"""

import torch
from torch import Tensor

from .lif import build, launch
from .lif_backward import build as build_backward
from .lif_backward import launch_backward


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
    rule = (reset, delayed, inclusive, detach_reset, surrogate, slope)
    parameters = [beta, threshold, alpha]
    return launch(
        "cuba_lif", 2, input, [v0, i0], parameters, rule, spikes, save, save_second, record
    )


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
    rule = (reset, delayed, inclusive, detach_reset, surrogate, slope)
    return launch_backward(
        "cuba_lif_backward", 2, [grad_spikes, grad_v, grad_w, grad_trajectory],
        [membrane, second], [v0, i0], [beta, threshold, alpha], rule, half, needs,
    )  # fmt: skip


AOT = [
    build(2, torch.float32, 0, False, False),
    build(2, torch.bfloat16, 0, True, True, half=True),
    build_backward(2, torch.float32, 0, False, 0, False),
    build_backward(2, torch.float64, 1, True, 2, True),
    build_backward(2, torch.bfloat16, 0, False, 5, True, half=True),
]
