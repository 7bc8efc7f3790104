"""soft_hebb_conv2d and soft_hebb_conv2d_: channels compete at every place of an image."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._check import check_device, check_float, check_tensor, fail
from ._in_place import check_written
from ._plasticity import ACTIVITIES, arithmetic_dtype
from ._soft_hebb import SoftHebb, soft_hebb, soft_hebb_

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def soft_hebb_conv2d(
    weight: Tensor,
    input: Tensor,
    u: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    padding_mode: str = "zeros",
    **rule: Any,
) -> Any:
    """:func:`soft_hebb` of a convolution: each place of the output is a sample.

    Same as

        patches = F.unfold(F.pad(input, ...), (kh, kw), dilation, 0, stride)   # (B, C kh kw, L)
        rows = patches.transpose(1, 2).flatten(0, 1)
        new = soft_hebb(weight.flatten(1), rows, **rule).weight.view_as(weight)

    so a change is the sum, or the mean, over images and places; the norms are those of filters. The
    official code gets there by two convolutions, of which that for the update has the batch for
    channels.

    Args:
        weight: ``(O, C, kh, kw)``.
        input: ``(B, C, H, W)`` or ``(C, H, W)``, as ``pre`` of :func:`soft_hebb`.
        u: ``([B,] O, H', W')``, pre-activations that are known already. Default: the convolution.
        stride, padding, dilation, padding_mode: as in ``nn.Conv2d``; the official code
            reflects.
        rule: the keywords of :func:`soft_hebb`. Here ``modulator`` is a number or ``(B,)``, one for
            each image; ``gain_pre`` and ``sign`` have the shape of a filter, ``(C, kh, kw)``, and
            ``mask`` that of the weight.

    Returns:
        :class:`SoftHebb`: the new weight, and u, ``([B,] O, H', W')``; the new weight alone where
        ``u`` was given.

    Raises: as :func:`soft_hebb`.
    """
    op = "soft_hebb_conv2d"
    rows, u, form = _rows(op, weight, input, u, stride, padding, dilation, padding_mode, rule)
    if u is not None:
        return soft_hebb(weight.flatten(1), rows, u, **rule).view(weight.shape)
    new, u = soft_hebb(weight.flatten(1), rows, **rule)
    return SoftHebb(new.view(weight.shape), _as_images(u, form))


def soft_hebb_conv2d_(
    weight: Tensor,
    input: Tensor,
    u: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    padding_mode: str = "zeros",
    **rule: Any,
) -> Any:
    """:func:`soft_hebb_conv2d` in place, as :func:`soft_hebb_` is."""
    op = "soft_hebb_conv2d_"
    rows, u, form = _rows(op, weight, input, u, stride, padding, dilation, padding_mode, rule)
    check_written(op, {"weight": weight}, (input, u))
    with torch.no_grad():
        flat = weight.flatten(1)  # a copy where filters are strided (channels last)
        got = soft_hebb_(flat, rows, u, **rule)
        if not weight.is_contiguous():
            weight.copy_(flat.view(weight.shape))
    return weight if u is not None else SoftHebb(weight, _as_images(got.u, form))


def _rows(
    op: str,
    weight: Any,
    input: Any,
    u: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    padding_mode: Any,
    rule: dict[str, Any],
) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
    """Patches (B H' W', C kh kw), u likewise, and the shape ([B,] H', W', O) of u; ``rule`` as
    soft_hebb takes it."""
    check_float(op, "weight", weight)
    if weight.dim() != 4:
        fail(ValueError, op, "weight", "have shape (O, C, kh, kw)", tuple(weight.shape))
    check_tensor(op, "input", input)
    if input.dtype not in ACTIVITIES:
        known = "float32, float64, bfloat16, float16, bool or uint8"
        fail(TypeError, op, "input", f"be {known}", str(input.dtype).removeprefix("torch."))
    check_device(op, "input", input, weight, "weight")
    out, channels, *kernel = weight.shape
    if input.dim() not in (3, 4) or input.shape[-3] != channels:
        wanted = f"have shape ([B,] C, H, W) with C = {channels}"
        fail(ValueError, op, "input", wanted, tuple(input.shape))
    by, around, apart = (
        _pair(op, *pair)
        for pair in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1))
    )
    if not isinstance(padding_mode, str) or padding_mode not in PADDING_MODES:
        wanted = f"be one of {', '.join(PADDING_MODES)}"
        fail(ValueError, op, "padding_mode", wanted, repr(padding_mode))
    x = input.detach().to(arithmetic_dtype(weight))
    x = x if x.dim() == 4 else x.unsqueeze(0)
    if around != (0, 0):
        mode = "constant" if padding_mode == "zeros" else padding_mode
        try:
            x = F.pad(x, (around[1], around[1], around[0], around[0]), mode)
        except RuntimeError as error:
            raise ValueError(f"{op}: padding must fit the input, got {around}: {error}") from None
    span = [(k - 1) * d + 1 for k, d in zip(kernel, apart, strict=True)]
    if any(size < s for size, s in zip(x.shape[2:], span, strict=True)) or 0 in kernel:
        wanted = f"be at least as large as the kernel, {tuple(span)}, once padded"
        fail(ValueError, op, "input", wanted, tuple(x.shape[2:]))
    patches = x.unfold(2, span[0], by[0]).unfold(3, span[1], by[1])
    patches = patches[..., :: apart[0], :: apart[1]].permute(0, 2, 3, 1, 4, 5)
    form = (*patches.shape[:3], out)
    rows = patches.reshape(-1, channels * kernel[0] * kernel[1])
    if u is not None:
        check_tensor(op, "u", u)
        wanted_shape = (*input.shape[:-3], out, *form[1:3])
        if u.shape != wanted_shape:
            wanted = f"have shape ([B,] O, H', W') = {wanted_shape}"
            fail(ValueError, op, "u", wanted, tuple(u.shape))
        u = u.movedim(-3, -1).reshape(-1, out)
    modulator = rule.get("modulator")
    if isinstance(modulator, Tensor) and modulator.dim():
        if modulator.shape != form[:1]:
            fail(
                ValueError, op, "modulator", f"have shape (B,) = {form[:1]}", tuple(modulator.shape)
            )
        rule["modulator"] = modulator.repeat_interleave(form[1] * form[2])
    for name in ("gain_pre", "sign", "mask"):
        given = rule.get(name)
        if isinstance(given, Tensor):
            shape = weight.shape if name == "mask" else weight.shape[1:]
            if given.shape != shape:
                fail(ValueError, op, name, f"have shape {tuple(shape)}", tuple(given.shape))
            rule[name] = given.flatten(1 if name == "mask" else 0)
    return rows, u, form if input.dim() == 4 else form[1:]


def _as_images(u: Tensor, form: tuple[int, ...]) -> Tensor:
    return u.reshape(form).movedim(-1, -3)


def _pair(op: str, argument: str, value: Any, least: int) -> tuple[int, int]:
    """One number for both directions, or two."""
    pair = value if isinstance(value, tuple | list) else (value, value)
    good = len(pair) == 2 and all(type(v) is int and v >= least for v in pair)
    if not good:
        fail(ValueError, op, argument, f"be an int of at least {least}, or two", repr(value))
    return pair[0], pair[1]
