"""Arguments of the sparse family's raw ops, and ways to spoil them; as a script, a fuzz of them.

The fuzz is a process of its own (test_raw_ops.py starts it), since what it looks for ends a
process.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from synops import _library
from synops.sparse import Pattern

ROWS, COLS, BATCH = 5, 7, 6

INDICES = ("row_ptr", "col", "col_ptr", "row", "perm")


def arguments(dtype: torch.dtype = torch.float32, batch: int = BATCH) -> dict[str, dict]:
    """For each raw op, a valid call by argument name, in the order of the schema."""
    mask = torch.rand(ROWS, COLS) < 0.4
    mask[0, 0] = True
    pattern = Pattern.from_mask(mask)
    index = dict(zip(INDICES, pattern.tensors, strict=True))
    index = {name: t.clone() for name, t in index.items()}
    x, g = torch.randn(batch, COLS).to(dtype), torch.randn(batch, ROWS).to(dtype)
    weight, bias = torch.randn(ROWS, COLS).to(dtype), torch.randn(ROWS).to(dtype)
    values = torch.randn(pattern.nnz).to(dtype)
    by_row = {name: index[name] for name in ("row_ptr", "col")}
    return {
        "pattern_from_mask": {"mask": mask},
        "pattern_plan": {"crow": pattern.crow, "col": index["col"], "in_features": COLS},
        "pattern_gather": {"weight": weight, **by_row},
        "pattern_scatter": {"values": values, **by_row, "in_features": COLS},
        "sparse_linear": {"input": x, "values": values, "bias": bias, **index},
        "sparse_linear_backward": {"grad": g, "input": x, "values": values, **index,
        **_needs("values")}, "masked_linear": {"input": x, "weight": weight, "bias": bias, "mask":
        mask}, "masked_linear_backward": {
            "grad": g, "input": x, "weight": weight, "mask": mask, **_needs("weight")
        },
    }  # fmt: skip


def _needs(weight: str) -> dict[str, bool]:
    return {f"need_{name}": True for name in ("input", weight, "bias")}


def call(op: str, args: dict):
    """The op as anyone may call it; positional, since its names are not a promise."""
    return getattr(torch.ops.synops, op).default(*args.values())


def other_dtype(t: Tensor) -> Tensor:
    return t.to(torch.float64 if t.dtype == torch.float32 else torch.int64)


def stepped(t: Tensor) -> Tensor:
    """The same elements, two apart."""
    return torch.stack([t, t], -1)[..., 0]


SPOIL: dict[str, Callable[[Tensor], Tensor]] = {
    "dtype": other_dtype,
    "strides": stepped,
    "no dimensions": lambda t: t.flatten()[0].clone(),
    "a dimension more": lambda t: t[None],
    "a dimension less": lambda t: t[0].clone(),
    "longer": lambda t: torch.cat([t, t[-1:]]),
    "shorter": lambda t: t[:-1].clone(),
    "wider": lambda t: torch.cat([t, t[..., -1:]], -1),
    "empty": lambda t: t[:0].clone(),
}


def fuzz() -> None:
    """Spoils up to four arguments of a call at random: RuntimeError, or the right answer."""
    from hypothesis import given, settings
    from hypothesis import strategies as st

    number = st.integers(-3, 20) | st.sampled_from([2**31 - 1, -(2**31)])

    @st.composite
    def spoiled(draw):
        torch.manual_seed(draw(st.integers(0, 20)))
        dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
        every = arguments(dtype, draw(st.sampled_from([0, 1, 3, 4, 6, 20])))
        op = draw(st.sampled_from(sorted(every)))
        args = every[op]
        for name in draw(st.lists(st.sampled_from(sorted(args)), max_size=4)):
            value = args[name]
            if isinstance(value, bool):
                args[name] = draw(st.booleans())
            elif isinstance(value, int):
                args[name] = draw(
                    st.integers(-3, 20) | st.sampled_from([2**31, 2**40, -(2**31), 2**63 - 1])
                )
            elif value.dim() == 0 or draw(st.booleans()):
                args[name] = _spoil(value, draw(st.sampled_from(sorted(SPOIL))))
            elif value.dtype == torch.int32 and value.numel():
                args[name] = value = value.clone()
                at = draw(st.integers(0, value.numel() - 1))
                value.view(-1)[at] = draw(number)
        return op, args

    @settings(max_examples=4000, deadline=None, database=None, derandomize=True)
    @given(spoiled())
    def run(case):
        op, args = case
        try:
            got = call(op, args)
        except RuntimeError:
            return
        _check(op, args, got)

    run()


def _spoil(t: Tensor, how: str) -> Tensor:
    try:
        return SPOIL[how](t)
    except (IndexError, RuntimeError):  # an earlier one left nothing to spoil
        return t


def _check(op: str, args: dict, got) -> None:
    """What was accepted has the reference's answer; the backward trusts that row and col agree."""
    if op == "sparse_linear_backward":
        return
    if "col" in args and "row_ptr" in args:
        rows = _library.reference("pattern_gather").__globals__["rows_of"](
            args["row_ptr"], args["col"]
        )
        entries = list(zip(rows.tolist(), args["col"].tolist(), strict=True))
        if len(set(entries)) < len(entries):  # a sum here, the last one there
            return
    want = _library.reference(op)(*args.values())
    got, want = (r if isinstance(r, tuple) else (r,) for r in (got, want))
    for one, other in zip(got, want, strict=True):
        eps = torch.finfo(one.dtype).eps if one.is_floating_point() else 0
        torch.testing.assert_close(one, other, rtol=16 * eps, atol=64 * eps, equal_nan=True)


if __name__ == "__main__":
    fuzz()
