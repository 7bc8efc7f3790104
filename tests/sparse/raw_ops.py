"""Arguments of the sparse family's raw ops, and ways to spoil them; as a script, a fuzz of them
with as many examples as its argument says.

The fuzz is a process of its own (test_raw_ops.py starts it), since what it looks for ends a
process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from synops import _library
from synops.sparse import Pattern

ROWS, COLS, BATCH = 5, 7, 6

# Of a Pattern, in the order that ops take them in.
INDICES = ("crow", "col", "row_ptr", "tile_col", "col_ptr", "tile_row", "perm", "bits")
BLOCK = ("block_rows", "block_step")


def pattern_of(kind: str) -> Pattern:
    """Of each layout, the smallest."""
    if kind == "tiled":  # both ways
        return Pattern.from_mask(torch.rand(130, 140) < 0.2)
    if kind == "blocks":
        return Pattern.from_groups((16, 8), 2, interleaved=True)
    mask = torch.rand(ROWS, COLS) < (0.7 if kind == "bits" else 0.3)
    mask[0, 0] = mask[-1, -1] = True
    return Pattern.from_mask(mask)


KINDS = ("plain", "bits", "tiled", "blocks")


def arguments(
    dtype: torch.dtype = torch.float32, batch: int = BATCH, kind: str = "plain"
) -> dict[str, dict]:
    """For each raw op, a valid call by argument name, in the order of the schema."""
    pattern = pattern_of(kind)
    rows, cols = pattern.shape
    mask = pattern.mask()
    index = {n: t.clone() for n, t in zip(INDICES, pattern.tensors, strict=True)}
    every = index | dict(zip(BLOCK, pattern.block, strict=True))
    csr = {name: index[name] for name in ("crow", "col")}
    x, g = torch.randn(batch, cols).to(dtype), torch.randn(batch, rows).to(dtype)
    weight, bias = torch.randn(rows, cols).to(dtype), torch.randn(rows).to(dtype)
    values = torch.randn(pattern.nnz).to(dtype)
    select = torch.rand(pattern.nnz) < 0.5
    select[0] = select[-1] = True  # one shorter is one less
    count = int(select.sum())
    some = torch.arange(rows * cols)[~mask.flatten() | mask.masked_scatter(mask, select).flatten()]
    some = some[:: max(1, len(some) // 5)].clone()  # absent, or pruned where `select` is
    origin = torch.arange(-1, pattern.nnz - 1, dtype=torch.int32)
    return {
        "pattern_from_mask": {"mask": mask},
        "pattern_plan": csr | {"in_features": cols},
        "pattern_bits": csr | {"in_features": cols},
        "pattern_blocks": csr,
        "pattern_split": {"values": values, "select": select, "count": count},
        "pattern_merge": {
            "selected": values[:count].clone(), "rest": values[count:].clone(), "select": select
        },
        "pattern_gather": {"weight": weight} | csr,
        "pattern_scatter": {"values": values} | csr | {"in_features": cols},
        "sparse_linear": {"input": x, "values": values, "bias": bias} | every
        | {"activation": 0, "feature_major": False},
        "sparse_linear_backward": {"grad": g, "input": x, "values": values} | every
        | _needs("values"),
        "masked_linear": {"input": x, "weight": weight, "bias": bias, "mask": mask},
        "masked_linear_backward": {"grad": g, "input": x, "weight": weight, "mask": mask}
        | _needs("weight"),
        "magnitude_threshold": {"tensors": [weight, bias], "keep": 4, "strict": False},
        "unit_stats": {"input": x},
        "grow_topk": {"grad_output": g, "input": x} | csr
        | {"in_features": cols, "k": 1, "score": 0, "seed": 0},
        "grow_topk_dense": {"scores": weight} | csr | {"pruned": select, "k": 1},
        "prune_and_grow": csr | {"in_features": cols, "prune": select, "edges": some},
        "prune_and_grow_carry": {"values": values, "origin": origin},
    }  # fmt: skip


def _needs(weight: str) -> dict[str, bool]:
    return {f"need_{name}": True for name in ("input", weight, "bias")}


def call(op: str, args: dict):
    """The op as anyone may call it; positional, since its names are not a promise."""
    return getattr(torch.ops.synops, op).default(*args.values())


def attempt(op: str, args: dict) -> tuple[str, object]:
    """Why the op refuses, or its result."""
    try:
        return "", call(op, args)
    except RuntimeError as error:
        return str(error), None


def other_dtype(t: Tensor) -> Tensor:
    others = {torch.float32: torch.float64, torch.int64: torch.int32}
    return t.to(others.get(t.dtype, torch.int64))


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


def fuzz(examples: int) -> None:
    """Spoils up to four arguments of a call at random: RuntimeError, or an answer without an access
    outside a buffer; the right one, where the tensors of the Pattern are as they were."""
    from hypothesis import given, settings
    from hypothesis import strategies as st

    number = st.integers(-3, 20) | st.sampled_from([127, 128, 2**15, 2**31 - 1, -(2**31)])

    @st.composite
    def spoiled(draw):
        torch.manual_seed(draw(st.integers(0, 20)))
        dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
        batch = draw(st.sampled_from([0, 1, 3, 4, 6, 9, 20, 64]))
        every = arguments(dtype, batch, draw(st.sampled_from(KINDS)))
        op = draw(st.sampled_from(sorted(every)))
        args = every[op]
        touched = set(draw(st.lists(st.sampled_from(sorted(args)), max_size=4)))
        for name in sorted(touched):
            value = args[name]
            if isinstance(value, list):
                args[name] = [_spoil(t, draw(st.sampled_from(sorted(SPOIL)))) for t in value]
            elif isinstance(value, bool):
                args[name] = draw(st.booleans())
            elif isinstance(value, int):
                args[name] = draw(
                    st.integers(-3, 20) | st.sampled_from([2**31, 2**40, -(2**31), 2**63 - 1])
                )
            elif value.dim() == 0 or draw(st.booleans()):
                args[name] = _spoil(value, draw(st.sampled_from(sorted(SPOIL))))
            elif not value.is_floating_point() and value.dtype != torch.bool and value.numel():
                args[name] = value = value.clone()
                at = draw(st.integers(0, value.numel() - 1))
                info = torch.iinfo(value.dtype)
                value.view(-1)[at] = min(max(draw(number), info.min), info.max)
        return op, args, touched

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True)
    @given(spoiled())
    def run(case):
        op, args, touched = case
        try:
            got = call(op, args)
        except RuntimeError:
            return
        if not touched & {*INDICES, *BLOCK, "in_features", "select"}:
            _check(op, args, got)

    run()


def _spoil(t: Tensor, how: str) -> Tensor:
    try:
        return SPOIL[how](t)
    except (IndexError, RuntimeError):  # an earlier one left nothing to spoil
        return t


def _check(op: str, args: dict, got) -> None:
    """What was accepted has the reference's answer."""
    want = _library.reference(op)(*args.values())
    got, want = (r if isinstance(r, tuple) else (r,) for r in (got, want))
    for one, other in zip(got, want, strict=True):
        eps = torch.finfo(one.dtype).eps if one.is_floating_point() else 0
        torch.testing.assert_close(one, other, rtol=64 * eps, atol=256 * eps, equal_nan=True)


if __name__ == "__main__":
    fuzz(int(sys.argv[1]))
