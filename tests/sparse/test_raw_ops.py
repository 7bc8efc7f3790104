"""torch.ops.synops.* called with anything: RuntimeError, and no access outside a buffer."""

import subprocess
import sys
from pathlib import Path

import pytest
import raw_ops
import torch

from synops._schema import TABLE

OPS = [s.split("(")[0] for stem in TABLE["sparse"].values() for s in stem.schemas]

# What an op takes although it is not what the public function passes, each with its reason.
FINE = (
    {
        ("sparse_linear", "input", "longer"),  # more batch rows
        ("sparse_linear", "input", "shorter"),
        ("sparse_linear", "input", "empty"),
        ("masked_linear", "input", "longer"),
        ("masked_linear", "input", "shorter"),
        ("masked_linear", "input", "empty"),
        ("pattern_scatter", "values", "longer"),  # capacity above nnz
        ("pattern_scatter", "values", "wider"),
        ("sparse_linear", "values", "longer"),
        ("sparse_linear", "values", "wider"),
        ("sparse_linear_backward", "values", "longer"),
        ("sparse_linear_backward", "values", "wider"),
        ("pattern_from_mask", "mask", "longer"),  # any mask is one
        ("pattern_from_mask", "mask", "shorter"),
        ("pattern_from_mask", "mask", "wider"),
        ("pattern_from_mask", "mask", "empty"),
        ("pattern_plan", "crow", "longer"),  # an empty row more
        ("pattern_plan", "crow", "wider"),
        ("pattern_gather", "weight", "dtype"),  # any floating point type
        ("pattern_scatter", "values", "dtype"),
        ("pattern_gather", "weight", "wider"),  # columns more, without entries
        ("sparse_linear", "input", "wider"),
        # a row of tile pointers more: a tile without entries
        ("pattern_gather", "row_ptr", "longer"),
        ("pattern_scatter", "row_ptr", "longer"),
        ("sparse_linear", "row_ptr", "longer"),
        ("sparse_linear_backward", "row_ptr", "longer"),
        ("sparse_linear_backward", "col_ptr", "longer"),
    }
    | {
        # any strides are copied, but those of an index
        (op, name, "strides")
        for op, names in {
            "pattern_from_mask": ("mask",),
            "pattern_gather": ("weight",),
            "pattern_scatter": ("values",),
            "sparse_linear": ("input", "values", "bias"),
            "sparse_linear_backward": ("grad", "input", "values"),
            "masked_linear": ("input", "weight", "bias", "mask"),
            "masked_linear_backward": ("grad", "input", "weight", "mask"),
        }.items()
        for name in names
    }
    | {
        # of the transpose, which the forward does not read
        ("sparse_linear", name, how)
        for name in ("col_ptr", "row", "perm")
        for how in raw_ops.SPOIL
    }
)


def spoiled_calls():
    for op, args in raw_ops.arguments().items():
        for name, value in args.items():
            if isinstance(value, torch.Tensor):
                for how in raw_ops.SPOIL:
                    if (op, name, how) not in FINE:
                        yield pytest.param(op, name, how, id=f"{op}-{name}-{how}")


def test_every_op_is_here():
    assert set(raw_ops.arguments()) == set(OPS)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("op", OPS)
def test_valid_arguments_run(op):
    raw_ops._check(op, args := raw_ops.arguments()[op], raw_ops.call(op, args))


@pytest.mark.parametrize(("op", "name", "how"), list(spoiled_calls()))
def test_spoiled_argument(op, name, how):
    args = raw_ops.arguments()[op]
    args[name] = raw_ops.SPOIL[how](args[name])
    with pytest.raises(RuntimeError, match=r"pattern_|linear"):
        raw_ops.call(op, args)


@pytest.mark.parametrize(("op", "name", "how"), sorted(FINE))
def test_what_is_fine_runs(op, name, how):
    args = raw_ops.arguments()[op]
    args[name] = raw_ops.SPOIL[how](args[name])
    raw_ops.call(op, args)


@pytest.mark.parametrize("op", OPS)
def test_devices_do_not_mix(op):
    """One tensor without memory among others: not an answer made of memory that nobody wrote."""
    for name, value in raw_ops.arguments()[op].items():
        if isinstance(value, torch.Tensor) and len(raw_ops.arguments()[op]) > 1:
            args = raw_ops.arguments()[op]
            args[name] = value.to("meta")
            if any(isinstance(v, torch.Tensor) and v.device.type == "cpu" for v in args.values()):
                with pytest.raises(RuntimeError):
                    raw_ops.call(op, args)


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64, torch.bool, torch.uint8])
@pytest.mark.parametrize(
    "op", [op for op in OPS if op not in ("pattern_from_mask", "pattern_plan")]
)
def test_element_types_that_no_kernel_has(op, dtype):
    args = raw_ops.arguments()[op]
    for name, value in args.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            args[name] = value.to(dtype)
    with pytest.raises(RuntimeError, match="floating point"):
        raw_ops.call(op, args)


BAD_INDEX = [-1, raw_ops.COLS, 2**31 - 1, -(2**31)]


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("at", [0, -1])
@pytest.mark.parametrize("bad", BAD_INDEX)
@pytest.mark.parametrize(
    ("op", "name"),
    [(op, n) for op in OPS if "pattern_from" not in op and "masked" not in op for n in ("col",)]
    + [("sparse_linear_backward", "row"), ("sparse_linear_backward", "perm")],
)
def test_index_out_of_range(op, name, bad, at):
    args = raw_ops.arguments()[op]
    index = args[name]
    index[at] = index.numel() if name == "perm" and bad == raw_ops.COLS else bad
    with pytest.raises(RuntimeError, match=name):
        raw_ops.call(op, args)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("kind", ["row_ptr", "col_ptr", "crow"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p.view(-1)[:1].fill_(1),
        lambda p: p.view(-1)[:1].fill_(-1),
        lambda p: p.view(-1)[-1:].add_(1),
        lambda p: p.view(-1)[-1:].sub_(1),
        lambda p: p.view(-1)[1:2].fill_(2**31 - 1),
        lambda p: p.view(-1)[1:2].fill_(-(2**31)),
        lambda p: p.fill_(0),
        lambda p: p.copy_(p.flip(-1)),
    ],
    ids=["begins at 1", "begins at -1", "past the end", "before the end", "huge", "negative",
    "zeros",
         "descends"],
)  # fmt: skip
def test_pointers_that_lie(kind, spoil):
    seen = 0
    for op, args in raw_ops.arguments().items():
        if kind in args and (op, kind, "empty") not in FINE:
            seen += 1
            args = dict(args)
            args[kind] = args[kind].clone()
            spoil(args[kind])
            with pytest.raises(RuntimeError, match="must ascend from 0 to nnz"):
                raw_ops.call(op, args)
    assert seen


@pytest.mark.parametrize("in_features", [-1, -(2**31), 2**31, 2**40, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("op", ["pattern_plan", "pattern_scatter"])
def test_sizes_that_no_index_reaches(op, in_features):
    args = raw_ops.arguments()[op]
    args["in_features"] = in_features
    with pytest.raises(RuntimeError, match=op):
        raw_ops.call(op, args)


def test_unsorted_and_duplicated_columns_make_no_plan():
    crow = torch.tensor([0, 2], dtype=torch.int32)
    for col in ([2, 1], [1, 1]):
        with pytest.raises(RuntimeError, match="ascend strictly"):
            torch.ops.synops.pattern_plan(crow, torch.tensor(col, dtype=torch.int32), 4)


def test_gradient_flags():
    """Each of the eight combinations computes what it names, and nothing else."""
    for op in ("sparse_linear_backward", "masked_linear_backward"):
        args = raw_ops.arguments()[op]
        every = raw_ops.call(op, args)
        flags = [name for name in args if name.startswith("need_")]
        for bits in range(8):
            needed = [bool(bits >> i & 1) for i in range(3)]
            got = raw_ops.call(op, args | dict(zip(flags, needed, strict=True)))
            for need, one, full in zip(needed, got, every, strict=True):
                assert torch.equal(one, full) if need else one.numel() == 0


def test_fuzz():
    """4000 spoiled calls in a process of their own, which must live to say so."""
    script = Path(raw_ops.__file__)
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", script], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-4000:]
