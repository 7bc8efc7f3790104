"""soft_hebb_conv2d: a step of a plastic convolution, against the official code's equations."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public
from . import soft_hebb


class ConvSize(NamedTuple):
    """Filters on square images, padded to keep their size."""

    batch: int
    out_channels: int
    in_channels: int
    kernel: int
    side: int
    source: str

    @property
    def work(self) -> int:
        """Multiply-adds of a forward."""
        return self.batch * self.out_channels * self.in_channels * (self.kernel * self.side) ** 2


SIZES = {
    "10x1x28x28 to 96": ConvSize(10, 96, 1, 5, 28, "first layer of SoftHebb's network, on MNIST"),
    "10x3x32x32 to 96": ConvSize(10, 96, 3, 5, 32, "the same on CIFAR-10 (arXiv:2209.11883)"),
    "2x1x4x4 to 4": ConvSize(2, 4, 1, 3, 4, "next to no arithmetic: the cost of a call"),
}


def official(
    weight: Tensor, x: Tensor, lr: float, temperature: float = 1.0, stride: int = 1
) -> Tensor:
    """A new weight by the equations of the official code (SoftHebb, demo.py), written anew.

    Softmax, sign, two convolutions (of which the second has images for channels), division by the
    largest change, adaptive rate. ``x`` is padded already.
    """
    u = F.conv2d(x, weight, stride=stride)
    flat = u.transpose(0, 1).flatten(1)
    y = -torch.softmax(flat / temperature, 0)
    winner, place = flat.argmax(0), torch.arange(flat.shape[1], device=u.device)
    y[winner, place] = -y[winner, place]
    y = y.view(u.shape[1], u.shape[0], *u.shape[2:])  # channels, then images
    yx = F.conv2d(x.transpose(0, 1), y, dilation=stride).transpose(0, 1)
    yx = yx[:, :, : weight.shape[2], : weight.shape[3]]  # places that no stride came to
    delta = yx - (y * u.transpose(0, 1)).sum((1, 2, 3)).view(-1, 1, 1, 1) * weight
    delta = delta / (delta.abs().amax() + 1e-30)
    off = (torch.linalg.vector_norm(weight, dim=(1, 2, 3)) - 1).abs() + 1e-10
    return weight + lr * off.sqrt().view(-1, 1, 1, 1) * delta


def unfolded(weight: Tensor, x: Tensor, lr: float, temperature: float = 1.0) -> Tensor:
    """Patches as rows, and the linear layer's fewest passes; changes ``weight``."""
    out, channels, side, _ = weight.shape
    rows = F.unfold(x, side).transpose(1, 2).reshape(-1, channels * side * side)
    step = soft_hebb.in_place(amax=True, temperature=temperature)
    step(weight.view(out, -1), rows, lr)
    return weight


def build(impl: str, size: ConvSize, dtype: torch.dtype, device: str) -> Call:
    """A step by

    - synops, in place;
    - torch: patches of ``F.unfold``, and the linear layer in place, in few passes;
    - official: the equations, operator by operator, as the official code runs them.
    """
    generator = torch.Generator().manual_seed(0)
    shape = size.out_channels, size.in_channels, size.kernel, size.kernel
    filter_size = size.in_channels * size.kernel**2
    weight = torch.randn(shape, generator=generator) * 2 / filter_size**0.5  # of norm 2, about
    x = torch.randn(size.batch, size.in_channels, size.side, size.side, generator=generator)
    weight, x = (t.double().to(device, dtype) for t in (weight, x))
    around = [size.kernel // 2] * 4
    if impl == "synops":
        soft_hebb_conv2d_ = public("hebbian.soft_hebb_conv2d_")
        form = {"padding": size.kernel // 2, "padding_mode": "reflect", "normalize": "amax"}

        def step(weight: Tensor, lr: float) -> Tensor:
            return soft_hebb_conv2d_(weight, x, lr=lr, **form).weight

    elif impl in ("torch", "official"):
        equations = {"torch": unfolded, "official": official}[impl]

        def step(weight: Tensor, lr: float) -> Tensor:
            return equations(weight, F.pad(x, around, "reflect"), lr)

    else:
        raise ValueError(impl)
    start = weight.clone()
    return Call(
        lambda: step(weight, soft_hebb.RATE), (), lambda _: (step(start.clone(), 0.1) - start,)
    )


class SoftHebbConv2d(suite.ForwardSuite):
    """On one thread."""

    op = "hebbian.soft_hebb_conv2d"
    impls = ("synops", "torch", "official")
    cases = SIZES

    def build(
        self, impl: str, size: ConvSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)
