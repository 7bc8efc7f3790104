"""SoftHebbLinear and SoftHebbConv2d: layers that learn by themselves, and their activation."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._check import fail
from ..hebbian import soft_hebb_, soft_hebb_conv2d_
from ._options import check_options
from ._reservoir import check_count, generator_of

_OPTIONS = frozenset(
    ("temperature", "variant", "power", "normalize", "decay", "clip", "reduction", "backend")
)


def triangle(u: Tensor, power: float = 1.0) -> Tensor:
    """``relu(u - mean of its channels) ** power``, the activation of SoftHebb networks.

    Channels are dimension 1. Their mean counts as a constant: no gradient goes through it, as in
    the official code.
    """
    return F.relu(u - u.detach().mean(1, keepdim=True)) ** power


class _SoftHebbLayer(nn.Module):
    """A plastic weight, and what SoftHebb is told. ``radius``: norm of its rows at the start."""

    weight: nn.Parameter

    def __init__(
        self,
        shape: tuple[int, ...],
        lr: float,
        learn_on_forward: bool,
        radius: float,
        generator: Any,
        device: Any,
        dtype: Any,
        options: dict[str, Any],
    ):
        super().__init__()
        op = f"nn.{type(self).__name__}"
        check_options(type(self).__name__, options, _OPTIONS)
        if isinstance(radius, bool) or not isinstance(radius, int | float) or not radius > 0:
            fail(ValueError, op, "radius", "be a positive number", radius)
        drawn = torch.randn(shape, generator=generator_of(op, generator))
        drawn *= radius / max(1, drawn[0].numel() if shape[0] else 1) ** 0.5
        self.weight = nn.Parameter(drawn.to(device, dtype), requires_grad=False)
        self.lr, self.learn_on_forward = lr, learn_on_forward
        self.options = {"normalize": "amax", **options}
        # raises what it refuses
        soft_hebb_(torch.zeros(1, 1), torch.zeros(0, 1), lr=lr, **self.options)

    def forward(self, input: Tensor) -> Tensor:
        """Pre-activations u, differentiable by ``input``; then it may learn."""
        learns = self.training and self.learn_on_forward
        # a backward still needs the weight that this u was made with
        kept = learns and input.requires_grad and torch.is_grad_enabled()
        u = self._activations(input, self.weight.clone() if kept else self.weight)
        if learns:
            self._learn(input.detach(), u.detach(), None)
        return u

    @torch.no_grad()
    def learn(self, input: Tensor, *, modulator: float | Tensor | None = None) -> Tensor:
        """A step of SoftHebb on ``input``; the pre-activations u that it learned from.

        Args:
            modulator: a number or a tensor ``()`` scales the step, ``(B,)`` that of each sample.
        """
        return self._learn(input, None, modulator)

    def _activations(self, input: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def _learn(self, input: Tensor, u: Tensor | None, modulator: Any) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        told = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"{tuple(self.weight.shape)}, lr={self.lr}{told}"


class SoftHebbLinear(_SoftHebbLayer):
    """A linear layer without a bias whose units compete, :func:`synops.hebbian.soft_hebb`.

    Its weight takes no gradient: it changes in ``learn``, or, with ``learn_on_forward``, at the end
    of a forward in training mode. Gradients by the input are those of ``nn.Linear``.

    Args:
        in_features, out_features: sizes of an input and an output.
        lr: learning rate, a number; of the largest change, with ``normalize="amax"``.
        learn_on_forward: whether every forward in training mode learns.
        radius: norm of the rows at the start. The official code begins with 25; rows go to norm 1.
        generator: a ``torch.Generator`` or a seed.
        options: keywords of :func:`synops.hebbian.soft_hebb`: temperature, variant, power,
            normalize (default here: "amax", as in the official code), decay, clip, reduction,
            backend.

    Shape:
        input ``(*, in_features)``, output ``(*, out_features)``.

    Example:
        >>> layer = SoftHebbLinear(784, 100, lr=0.05, generator=0)
        >>> u = layer.learn(torch.rand(10, 784))
        >>> features = triangle(layer(torch.rand(10, 784)))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        lr: float,
        learn_on_forward: bool = False,
        radius: float = 25.0,
        generator: torch.Generator | int | None = None,
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ):
        op = "nn.SoftHebbLinear"
        inputs = check_count(op, "in_features", in_features)
        shape = (check_count(op, "out_features", out_features), inputs)
        super().__init__(shape, lr, learn_on_forward, radius, generator, device, dtype, options)

    def _activations(self, input: Tensor, weight: Tensor) -> Tensor:
        return F.linear(input, weight)

    def _learn(self, input: Tensor, u: Tensor | None, modulator: Any) -> Tensor:
        given = {"lr": self.lr, "modulator": modulator, **self.options}
        rows = input.reshape(-1, self.weight.shape[1])
        if u is not None:
            soft_hebb_(self.weight, rows, u.reshape(-1, self.weight.shape[0]), **given)
            return u
        made = soft_hebb_(self.weight, rows, **given).u
        return made.reshape(*input.shape[:-1], self.weight.shape[0])


class SoftHebbConv2d(_SoftHebbLayer):
    """A convolution without a bias whose channels compete, place by place.

    :func:`synops.hebbian.soft_hebb_conv2d`; otherwise as :class:`SoftHebbLinear`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation: as of ``nn.Conv2d``.
        padding_mode: likewise; default "reflect", as in the official code.
        lr, learn_on_forward, radius, generator, options: as of :class:`SoftHebbLinear`.

    Shape:
        input ``([B,] C, H, W)``, output ``([B,] O, H', W')``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        padding_mode: str = "reflect",
        lr: float,
        learn_on_forward: bool = False,
        radius: float = 25.0,
        generator: torch.Generator | int | None = None,
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ):
        op = "nn.SoftHebbConv2d"
        sizes = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
        shape = (
            check_count(op, "out_channels", out_channels),
            check_count(op, "in_channels", in_channels),
            *(check_count(op, "kernel_size", size) for size in sizes),
        )
        super().__init__(shape, lr, learn_on_forward, radius, generator, device, dtype, options)
        self.geometry: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
        self.padding_mode = padding_mode
        # raises what it refuses
        soft_hebb_conv2d_(
            torch.zeros(1, 1, 1, 1), torch.zeros(0, 1, 99, 99), lr=0.0, padding_mode=padding_mode,
            **self.geometry,
        )  # fmt: skip

    def _activations(self, input: Tensor, weight: Tensor) -> Tensor:
        form = dict(self.geometry)
        if self.padding_mode != "zeros":
            around = form.pop("padding")
            down, across = around if isinstance(around, tuple) else (around, around)
            input = F.pad(input, (across, across, down, down), self.padding_mode)
        return F.conv2d(input, weight, None, **form)

    def _learn(self, input: Tensor, u: Tensor | None, modulator: Any) -> Tensor:
        given = {"modulator": modulator, **self.geometry, **self.options}
        learned = soft_hebb_conv2d_(
            self.weight, input, u, lr=self.lr, padding_mode=self.padding_mode, **given
        )
        return learned.u if u is None else u
