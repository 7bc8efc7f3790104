"""What the local rules share: forms of their arguments, checks, and what a report says.

A rule's op gets the weight as it is, everything else in the arithmetic type (float64 for a float64
weight, float32 for the rest), activities as (B, units). It answers with a report, a scalar of bits
(``Report``): 0, or why nothing was written, or that a weight has overflowed.
"""

from __future__ import annotations

import math
import weakref
from numbers import Real
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from .._check import check_device, check_float, check_shape, check_tensor, dtype_name, fail
from .._library import _modes, traced
from ..sparse import Pattern
from ._in_place import APART

ACTIVITIES = frozenset(
    (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.bool, torch.uint8)
)
REDUCTIONS = ("mean", "sum")

# Bits of a report, lowest first: the argument (in the names of ``settle``) and the rule it broke.
PRE, POST, FACTOR, ARGUMENT, SIGN, SHARED, OVERFLOW = 1, 2, 4, 8, 16, 32, 256


class Local(NamedTuple):
    """Arguments of a local rule's op, in the order of its schema (``_LOCAL`` in _schema.py)."""

    lr: float
    rate: Tensor | None
    decay: float
    modulator: Tensor | None
    gain_pre: Tensor | None
    gain_post: Tensor | None
    lower: float
    upper: float
    sign: Tensor | None
    check_sign: bool
    mask: Tensor | None
    crow: Tensor | None
    col: Tensor | None
    mean: bool


def arithmetic_dtype(weight: Tensor) -> torch.dtype:
    """float64 for a float64 weight, float32 for the rest."""
    return torch.float64 if weight.dtype is torch.float64 else torch.float32


def check_weight(op: str, weight: Any, pattern: Any) -> tuple[int, int]:
    """(out, in) of a dense weight, or of the Pattern that values belong to."""
    check_float(op, "weight", weight)
    if pattern is None:
        if weight.dim() != 2:
            fail(ValueError, op, "weight", "have shape (out, in)", tuple(weight.shape))
        return weight.shape[0], weight.shape[1]
    if not isinstance(pattern, Pattern):
        fail(TypeError, op, "pattern", "be a synops.sparse.Pattern", type(pattern).__name__)
    check_device(op, "pattern", pattern.col, weight, "weight")
    if weight.dim() != 1 or weight.shape[0] not in (pattern.nnz, pattern.capacity):
        rule = f"have shape (nnz,) = ({pattern.nnz},) with a pattern"
        fail(ValueError, op, "weight", rule, tuple(weight.shape))
    rows, cols = pattern.shape
    return rows, cols


def activity_of(
    op: str,
    argument: str,
    value: Any,
    units: int,
    names: str,
    weight: Tensor,
    *,
    steps: bool = False,
) -> Tensor:
    """(B, units) or (units,) as (B, units) in the arithmetic type, without a graph.

    With ``steps`` (T, B, units) or (T, units) as (T, B, units).
    """
    if not isinstance(value, Tensor) or value.layout is not torch.strided:
        check_tensor(op, argument, value)
    dtype = value.dtype
    if dtype not in ACTIVITIES:
        rule = "be float32, float64, bfloat16, float16, bool or uint8"
        fail(TypeError, op, argument, rule, dtype_name(dtype))
    if not (value.is_cpu and weight.is_cpu):
        check_device(op, argument, value, weight, "weight")
    shape = value.shape
    single = 2 if steps else 1
    if len(shape) not in (single, single + 1) or shape[-1] != units:
        forms = f"(T, {names}) or (T, B, {names})" if steps else f"({names},) or (B, {names})"
        fail(ValueError, op, argument, f"have shape {forms} with {names} = {units}", tuple(shape))
    wide = arithmetic_dtype(weight)
    if dtype is not wide:
        value = value.to(wide)
    return value.unsqueeze(-2) if len(shape) == single else value


def check_batch(op: str, pre: Tensor, post: Tensor | None) -> None:
    """As many samples of both."""
    if post is not None and post.shape[0] != pre.shape[0]:
        rule = f"have as many samples as pre ({pre.shape[0]})"
        fail(ValueError, op, "post", rule, post.shape[0])


def check_number(op: str, argument: str, value: Any) -> float:
    """A finite number."""
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        fail(TypeError, op, argument, "be a number", type(value).__name__)
    if not math.isfinite(value):
        fail(ValueError, op, argument, "be finite", value)
    return float(value)


def tensor_of(op: str, argument: str, value: Any, size: int, names: str, weight: Tensor) -> Tensor:
    """A tensor of this one size in the arithmetic type; not of one value for all."""
    check_float(op, argument, value)
    check_device(op, argument, value, weight, "weight")
    check_shape(op, argument, value, names, (size,))
    return value.to(arithmetic_dtype(weight))


def factor_of(
    op: str, argument: str, value: Any, size: int, names: str, weight: Tensor
) -> tuple[float, Tensor | None]:
    """A number, or 1 and a tensor () or (size,) in the arithmetic type."""
    if not isinstance(value, Tensor):
        return check_number(op, argument, value), None
    check_float(op, argument, value)
    check_device(op, argument, value, weight, "weight")
    if value.dim():
        check_shape(op, argument, value, f"() or {names}", (size,))
    return 1.0, value.to(arithmetic_dtype(weight))


def local_of(
    op: str,
    weight: Tensor,
    shape: tuple[int, int],
    batch: int,
    *,
    lr: Any,
    decay: Any = 0.0,
    modulator: Any = None,
    gain_pre: Any = None,
    gain_post: Any = None,
    clip: Any = None,
    sign: Any = None,
    mask: Any = None,
    pattern: Pattern | None = None,
    reduction: Any = "mean",
) -> Local:
    """The keywords of a local rule, checked, as its op takes them."""
    rows, cols = shape
    factor, rate = factor_of(op, "lr", lr, rows, "(out,)", weight)
    if decay != 0:
        decay = check_number(op, "decay", decay)
        if not 0 <= decay <= 1:
            fail(ValueError, op, "decay", "lie in [0, 1]", decay)
    if modulator is not None:
        by, modulator = factor_of(op, "modulator", modulator, batch, "(B,)", weight)
        factor *= by
        if not math.isfinite(factor):
            fail(ValueError, op, "lr", "be finite once multiplied by modulator", factor)
    if gain_pre is not None:
        gain_pre = tensor_of(op, "gain_pre", gain_pre, cols, "(in,)", weight)
    if gain_post is not None:
        gain_post = tensor_of(op, "gain_post", gain_post, rows, "(out,)", weight)
    lower, upper = check_clip(op, clip)
    known = False
    if sign is not None:
        known = remembered(weight, sign)
        sign = sign_of(op, sign, cols, lower, upper, weight)
    if mask is not None:
        check_mask(op, mask, shape, pattern, weight)
    if reduction not in REDUCTIONS:
        fail(ValueError, op, "reduction", f"be one of {', '.join(REDUCTIONS)}", repr(reduction))
    crow, col = (None, None) if pattern is None else (pattern.crow, pattern.col)
    return Local(
        factor,
        rate,
        float(decay),
        modulator,
        gain_pre,
        gain_post,
        lower,
        upper,
        sign,
        not known,
        mask,
        crow,
        col,
        reduction == "mean",
    )


def check_clip(op: str, clip: Any) -> tuple[float, float]:
    """(lower, upper), -inf and inf where there is none."""
    if clip is None:
        return -math.inf, math.inf
    try:
        lower, upper = clip
    except (TypeError, ValueError):
        fail(TypeError, op, "clip", "be None or (lower, upper)", repr(clip))
    lower = -math.inf if lower is None else lower
    upper = math.inf if upper is None else upper
    for bound in (lower, upper):
        if isinstance(bound, bool) or not isinstance(bound, Real):
            fail(TypeError, op, "clip", "hold two numbers", repr(clip))
    if not lower <= upper:
        fail(ValueError, op, "clip", "be (lower, upper) with lower <= upper", clip)
    return float(lower), float(upper)


def sign_of(op: str, sign: Any, cols: int, lower: float, upper: float, weight: Tensor) -> Tensor:
    """(in,) in the arithmetic type; only whether it is above or below 0 counts."""
    check_tensor(op, "sign", sign)
    if sign.is_complex() or sign.dtype == torch.bool:
        rule = "be of a real type with -1, 0 and 1"
        fail(TypeError, op, "sign", rule, dtype_name(sign.dtype))
    check_device(op, "sign", sign, weight, "weight")
    check_shape(op, "sign", sign, "(in,)", (cols,))
    if lower > 0 or upper < 0:
        fail(ValueError, op, "clip", "hold 0 where sign is given", (lower, upper))
    return sign.to(arithmetic_dtype(weight))


def check_mask(op: str, mask: Any, shape: tuple[int, int], pattern: Any, weight: Tensor) -> None:
    """bool (out, in), of a dense weight."""
    if pattern is not None:
        fail(ValueError, op, "mask", "be None where there is a pattern", "both")
    check_tensor(op, "mask", mask)
    if mask.dtype != torch.bool:
        fail(TypeError, op, "mask", "be bool", dtype_name(mask.dtype))
    check_device(op, "mask", mask, weight, "weight")
    check_shape(op, "mask", mask, "(out, in)", shape)


# Weights that came out of an update with a sign: by their id, the weight and the sign, and the
# versions of both when they did. Such a weight is not checked again.
_signed: dict[int, tuple[weakref.ref, int, weakref.ref, int]] = {}


def remembered(weight: Tensor, sign: Any) -> bool:
    """Whether ``weight`` came out of an update with this ``sign``, both unchanged since."""
    found = _signed.get(id(weight))
    if found is None or weight.is_inference():
        return False
    known, version, by, by_version = found
    return (
        known() is weight
        and weight._version == version
        and by() is sign
        and getattr(sign, "_version", None) == by_version
    )


def remember(weight: Tensor, sign: Any) -> None:
    """Notes that ``weight`` has just come out of an update with this ``sign``."""
    if sign is None or traced(weight) or weight.is_inference() or sign.is_inference():
        return
    key = id(weight)
    gone = weakref.ref(weight, lambda _: _signed.pop(key, None))
    _signed[key] = (gone, weight._version, weakref.ref(sign), sign._version)


def settle(
    op: str,
    report: Tensor,
    factor: str = "lr or modulator",
    other: str = "a gain or sign",
    post: str = "post",
) -> None:
    """Raises what the report says; the names are those of the arguments of bits 4, 8 and 2.

    On the CPU at once. On a GPU and in a graph by an assertion that nothing waits for.
    """
    if report.is_cpu and not traced(report):
        bits = int(report)
    else:
        bits = _traced_bits(op, report)
    if bits:
        _raise(op, bits, factor, other, post)


def _traced_bits(op: str, report: Tensor) -> int:
    """Of calls under vmap the largest; 0 behind an assertion where values cannot be looked at."""
    if not torch.compiler.is_compiling():
        while torch._C._functorch.is_functorch_wrapped_tensor(report):
            report = torch._C._functorch.get_unwrapped(report)
    if torch.compiler.is_compiling() or type(report) is not Tensor or _modes() or not report.is_cpu:
        torch._assert_async((report == 0).all(), f"{op}: not finite, against sign, or overflowed")
        return 0
    return max(report.flatten().tolist(), default=0)


def _raise(op: str, bits: int, factor: str, other: str, post: str) -> NoReturn:
    for bit, argument in ((PRE, "pre"), (POST, post), (FACTOR, factor), (ARGUMENT, other)):
        if bits & bit:
            fail(ValueError, op, argument, "be finite", "inf or NaN")
    if bits & SIGN:
        rule = "agree with sign: no weight below 0 where it is 1, above 0 where it is -1"
        fail(ValueError, op, "weight", rule, "one that does not")
    if bits & SHARED:
        fail(ValueError, op, "weight", APART, "one that does")
    raise OverflowError(f"{op}: weight overflowed: lower lr (what was written stays written)")
