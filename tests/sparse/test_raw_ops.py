"""torch.ops.synops.* called with anything: RuntimeError, and no access outside a buffer."""

import contextlib
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
        ("pattern_split", "values", "longer"),
        ("pattern_split", "values", "wider"),
        ("sparse_linear", "values", "longer"),
        ("sparse_linear", "values", "wider"),
        ("sparse_linear_backward", "values", "longer"),
        ("sparse_linear_backward", "values", "wider"),
        ("pattern_from_mask", "mask", "longer"),  # any mask is one
        ("pattern_from_mask", "mask", "shorter"),
        ("pattern_from_mask", "mask", "wider"),
        ("pattern_from_mask", "mask", "empty"),
        ("pattern_gather", "weight", "dtype"),  # any floating point type
        ("pattern_scatter", "values", "dtype"),
        ("pattern_split", "values", "dtype"),
        ("pattern_gather", "weight", "wider"),  # columns more, without entries
        ("sparse_linear", "input", "wider"),
        ("grow_topk_dense", "scores", "dtype"),
        ("grow_topk_dense", "scores", "wider"),  # a column more, without entries
        ("prune_and_grow", "edges", "shorter"),  # any that are absent or pruned
        ("prune_and_grow", "edges", "empty"),
        ("prune_and_grow", "crow", "longer"),  # an empty row more
        ("prune_and_grow", "crow", "wider"),
        ("prune_and_grow_carry", "values", "longer"),  # capacity above nnz
        ("prune_and_grow_carry", "values", "wider"),
        ("prune_and_grow_carry", "values", "dtype"),
        ("prune_and_grow_carry", "origin", "shorter"),  # fewer come than there is room for
        ("prune_and_grow_carry", "origin", "empty"),
        ("sparse_linear", "bits", "empty"),  # no bits
        ("sparse_linear_backward", "bits", "empty"),
    }
    | {
        # an empty row more, where no other argument has rows
        (op, "crow", how)
        for op in ("pattern_plan", "pattern_bits", "pattern_blocks", "pattern_scatter")
        for how in ("longer", "wider")
    }
    | {("unit_stats", "input", how) for how in ("longer", "shorter", "wider", "empty", "dtype")}
    | {
        # any strides are copied, but those of an index
        (op, name, "strides")
        for op, names in {
            "pattern_from_mask": ("mask",),
            "pattern_gather": ("weight",),
            "pattern_scatter": ("values",),
            "pattern_split": ("values",),
            "pattern_merge": ("selected", "rest"),
            "sparse_linear": ("input", "values", "bias"),
            "sparse_linear_backward": ("grad", "input", "values"),
            "masked_linear": ("input", "weight", "bias", "mask"),
            "masked_linear_backward": ("grad", "input", "weight", "mask"),
            "grow_topk": ("grad_output", "input"),
            "grow_topk_dense": ("scores", "pruned"),
            "prune_and_grow": ("prune",),
            "prune_and_grow_carry": ("values",),
            "unit_stats": ("input",),
        }.items()
        for name in names
    }
    | {
        # of the transpose, which the forward does not read
        ("sparse_linear", name, how)
        for name in ("col_ptr", "tile_row", "perm")
        for how in raw_ops.SPOIL
    }
)


def spoiled_calls(op, fine):
    """(what, arguments) with one tensor spoiled, in every way that is fine or is not."""
    for kind in raw_ops.KINDS:
        for name, value in raw_ops.arguments(kind=kind)[op].items():
            if isinstance(value, torch.Tensor) and value.numel():
                for how in raw_ops.SPOIL:
                    if ((op, name, how) in FINE) == fine:
                        args = raw_ops.arguments(kind=kind)[op]
                        args[name] = raw_ops.SPOIL[how](args[name])
                        yield f"{kind}: {name} {how}", args


def test_every_op_is_here():
    assert set(raw_ops.arguments()) == set(OPS)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("op", OPS)
def test_valid_arguments_run(op):
    for kind in raw_ops.KINDS:
        for batch in (raw_ops.BATCH, 2, 20):
            args = raw_ops.arguments(batch=batch, kind=kind)[op]
            raw_ops._check(op, args, raw_ops.call(op, args))


@pytest.mark.parametrize("op", OPS)
def test_spoiled_argument(op):
    taken = []
    for what, args in spoiled_calls(op, fine=False):
        with contextlib.suppress(RuntimeError):
            raw_ops.call(op, args)
            taken.append(what)
    assert taken == []


@pytest.mark.parametrize("op", OPS)
def test_what_is_fine_runs(op):
    for what, args in spoiled_calls(op, fine=True):
        if "pattern_scatter" in op and "dtype" in what:
            continue
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


FLOATS = [
    op
    for op, args in raw_ops.arguments().items()
    if any(isinstance(v, torch.Tensor) and v.is_floating_point() for v in args.values())
]


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64, torch.bool, torch.uint8])
@pytest.mark.parametrize("op", FLOATS)
def test_element_types_that_no_kernel_has(op, dtype):
    args = raw_ops.arguments()[op]
    for name, value in args.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            args[name] = value.to(dtype)
    with pytest.raises(RuntimeError, match="floating point"):
        raw_ops.call(op, args)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("name", ["col", "tile_col", "tile_row", "perm"])
def test_index_out_of_range(name):
    """In every op that has it, at either end, by one and by far: refused, or not read at all."""
    seen = 0
    for kind in raw_ops.KINDS:
        for op, args in raw_ops.arguments(kind=kind).items():
            if name not in args or (op, name, "empty") in FINE:
                continue
            index, info = args[name], torch.iinfo(args[name].dtype)
            rows, cols = len(args["crow"]) - 1, int(args["col"].max()) + 1
            if "input" in args:
                cols = args["input"].shape[1]
            elif "in_features" in args:
                cols = args["in_features"]
            elif op == "pattern_gather":
                cols = args["weight"].shape[1]
            else:
                cols = info.max  # pattern_blocks has no number of columns
            # beside the last tile, which is the narrowest
            end = {"perm": len(index), "tile_row": rows, "col": cols, "tile_col": cols}[name]
            for at in (0, -1):
                for bad in {-1, min(end, info.max), info.max, info.min}:
                    spoiled = index.clone()
                    spoiled[at] = bad
                    refused, got = raw_ops.attempt(op, args | {name: spoiled})
                    if refused:
                        assert name in refused
                        seen += 1
                    else:  # the same entries in another order are what this call goes by
                        torch.testing.assert_close(got, raw_ops.call(op, args), equal_nan=True)
    assert seen


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("kind", raw_ops.KINDS)
@pytest.mark.parametrize("name", ["crow", "row_ptr", "col_ptr"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p[:1].fill_(1),
        lambda p: p[:1].fill_(-1),
        lambda p: p[-1:].add_(1),
        lambda p: p[-1:].sub_(1),
        lambda p: p[1:2].fill_(2**31 - 1),
        lambda p: p[1:2].fill_(-(2**31)),
        lambda p: p.fill_(0),
        lambda p: p.copy_(p.flip(-1)),
    ],
    ids=["begins at 1", "begins at -1", "past the end", "before the end", "huge", "negative",
    "zeros",
         "descends"],
)  # fmt: skip
def test_pointers_that_lie(kind, name, spoil):
    seen = 0
    for op, args in raw_ops.arguments(kind=kind).items():
        if name in args and (op, name, "empty") not in FINE:
            seen += 1
            pointers = args[name].clone()
            spoil(pointers)
            with pytest.raises(RuntimeError, match="must ascend from 0 to nnz"):
                raw_ops.call(op, args | {name: pointers})
    assert seen


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", raw_ops.KINDS)
def test_rows_that_disagree(kind, dtype):
    """crow and row_ptr valid each by itself, with entries in other rows: one says where values go,
    the other how many."""
    for batch in (2, 6, 20):
        for op in ("sparse_linear", "sparse_linear_backward"):
            args = raw_ops.arguments(dtype, batch, kind)[op]
            for name in ("crow", "row_ptr"):
                pointers = args[name].clone()
                pointers[1:-1] = pointers[-1]  # all in the first row, or run
                with pytest.raises(RuntimeError, match="same entries in each row"):
                    raw_ops.call(op, args | {name: pointers, "block_rows": 1, "block_step": 1})


@pytest.mark.usefixtures("isa")
def test_blocks_that_are_none():
    """Rows that are no multiple of a block, or of unequal lengths, or a block of nothing."""
    bad = [0, -1, 3, 17, 2**31, 2**62, 2**63 - 1, -(2**63)]
    for op in ("sparse_linear", "sparse_linear_backward"):
        args = raw_ops.arguments(kind="blocks")[op]  # 16 rows
        for name in raw_ops.BLOCK:
            for number in bad:
                with pytest.raises(RuntimeError, match="must divide 16 rows"):
                    raw_ops.call(op, args | {name: number})
        with pytest.raises(RuntimeError, match="must divide 16 rows"):
            raw_ops.call(op, args | {"block_rows": 16, "block_step": 16})
        args = raw_ops.arguments(kind="bits")[op]  # 5 rows, with other entries each
        with pytest.raises(RuntimeError, match="equally many entries"):
            raw_ops.call(op, args | {"block_rows": 5})


@pytest.mark.usefixtures("isa")
def test_bits_of_another_weight():
    """As many rows and words, with other bits: columns behind the last one are not read, and a row
    of other length is not taken by its bits."""
    args = raw_ops.arguments(batch=2, kind="bits")["sparse_linear"]
    want = raw_ops.call("sparse_linear", args)
    for bits in (-1, 0, 2**62):  # more than there are values
        lying = args | {"bits": torch.full_like(args["bits"], bits)}
        assert torch.equal(*(raw_ops.call("sparse_linear", a) for a in (lying, lying)))
        if bits != 2**62:
            torch.testing.assert_close(raw_ops.call("sparse_linear", lying), want)
    moved = args | {"bits": args["bits"] << 57}  # the same numbers of them, out of reach
    moved["bits"] = torch.where(moved["bits"] == 0, args["bits"], moved["bits"])
    assert raw_ops.call("sparse_linear", moved).isfinite().all()


@pytest.mark.parametrize("activation", [-1, 3, 2**31, 2**63 - 1, -(2**63)])
def test_activations_that_are_none(activation):
    args = raw_ops.arguments()["sparse_linear"] | {"activation": activation}
    with pytest.raises(RuntimeError, match="activation must be 0, 1 or 2"):
        raw_ops.call("sparse_linear", args)


def test_selections_that_do_not_count():
    args = raw_ops.arguments()["pattern_split"]
    for count in (args["count"] - 1, args["count"] + 1, -1, 2**63 - 1, -(2**63)):
        with pytest.raises(RuntimeError, match="True entries"):
            raw_ops.call("pattern_split", args | {"count": count})
    args = raw_ops.arguments()["pattern_merge"]
    with pytest.raises(RuntimeError, match="True entries"):
        raw_ops.call("pattern_merge", args | {"select": ~args["select"]})


@pytest.mark.usefixtures("isa")
def test_split_and_merge():
    """Around the 16 values that go at a time, with long runs of either side; any true byte."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for n in (0, 1, 15, 16, 17, 33, 64, 300):
            for share in (0.0, 0.05, 0.5, 1.0):
                select = torch.rand(n) < share
                values = torch.randn(n).to(dtype)
                tail = torch.cat([values, values.new_full((3,), torch.nan)])
                count = int(select.sum())
                for byte in (1, 2, 128, 255):
                    bytes_ = (select.to(torch.uint8) * byte).view(torch.bool)
                    one, other = torch.ops.synops.pattern_split(tail, bytes_, count)
                    assert torch.equal(one, values[select])
                    assert torch.equal(other, values[~select])
                    assert torch.equal(torch.ops.synops.pattern_merge(one, other, bytes_), values)


@pytest.mark.parametrize("in_features", [-1, -(2**31), 2**31, 2**40, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("op", ["pattern_plan", "pattern_scatter", "pattern_bits"])
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


# From one seed, so that an example is the same in every run: 2500 of them find again what 600 do
# not where the code has changed, and take 15 s of a core.
@pytest.mark.parametrize("examples", [600, pytest.param(2500, marks=pytest.mark.full)])
def test_fuzz(examples):
    """Spoiled calls in a process of their own, which must live to say so."""
    script = Path(raw_ops.__file__)
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", script, str(examples)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-4000:]
