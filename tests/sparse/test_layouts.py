"""Every layout of a Pattern against the reference, in both layouts of memory; which one runs."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from layouts import LAYOUTS, MEMORIES, SHORT, Memory, feature_major, padded, sample_of, tiles
from sparse_samples import BATCHES, DTYPES, Answer, Expected, check, run
from torch.nn.functional import gelu, relu

import synops
from close import assert_close
from machine import ISAS
from synops.sparse import Pattern, sparse_linear, spmm

EVERY = pytest.mark.parametrize("name", LAYOUTS)
DTYPE = pytest.mark.parametrize(
    "dtype", DTYPES, ids=[str(d).removeprefix("torch.") for d in DTYPES]
)
NEAR = pytest.mark.parametrize("name", SHORT)


@EVERY
def test_is_what_it_says(name):
    """The cases below are the layouts that they are named after."""
    layout = LAYOUTS[name]
    pattern = layout.make()
    assert tiles(pattern) == (layout.row_tiles, layout.col_tiles)
    assert pattern.block == layout.block
    assert (pattern.parts is not None) == layout.parts
    assert (pattern.bits.numel() > 0) == layout.bits
    assert (pattern.capacity > pattern.nnz) == ("capacity" in name)


@pytest.mark.usefixtures("isa")
@DTYPE
@EVERY
def test_reference(name, dtype):
    """Forward and every gradient in float64, in every batch and memory; activations."""
    pattern = LAYOUTS[name].make()
    long = LAYOUTS[name].long
    # 2: row dots, 17: more than a vector, of any set
    for batch in (2, 17) if long else BATCHES:
        s = sample_of(pattern, batch, dtype)
        expected = Expected(s)
        values = padded(pattern, s.values)
        for memory in MEMORIES[::4] if long else MEMORIES:
            turned = memory.lay_out(s)

            def call(x, w, b, memory=memory):
                return sparse_linear(x, w, pattern, b, feature_major=memory.output)

            got = run(call, turned, values)
            assert is_laid_out(got.output, memory.output)
            assert is_laid_out(got.input, memory.input)
            assert not got.weight[pattern.nnz :].any(), "behind nnz the gradient is exactly 0"
            expected.check(got._replace(weight=got.weight[: pattern.nnz]))
        if not long and batch in (3, 9, 17, 64):  # row dots, half a vector, more, all of a slab
            for memory in (MEMORIES[0], MEMORIES[4]):
                check_activations(pattern, memory.lay_out(s), values, expected, memory)


def is_laid_out(t, feature_major: bool) -> bool:
    return (t.t() if feature_major else t).is_contiguous()


def check_activations(pattern, s, values, expected: Expected, memory: Memory) -> None:
    """As part of the product, which is where they are without gradients."""
    want, scale = expected.want.output, expected.scale.output
    plain = sparse_linear(s.input, values, pattern, s.bias, feature_major=memory.output)
    for activation, f in (("relu", relu), ("gelu", gelu)):
        got = sparse_linear(
            s.input,
            values,
            pattern,
            s.bias,
            activation=activation,
            feature_major=memory.output,
        )
        assert is_laid_out(got, memory.output)
        if pattern.parts is not None:  # behind the sum of the two
            assert torch.equal(got, f(plain))
            continue
        # gelu is a product with what the sum's error is carried to
        assert_close(got, f(want), s.input.dtype, expected.per_row + 2, scale + want.abs())


@pytest.mark.usefixtures("isa")
@NEAR
def test_activation_with_gradients(name):
    """Then it is a function behind the product, in the same memory; the same numbers."""
    pattern = LAYOUTS[name].make()
    for batch in (3, 17):
        s = sample_of(pattern, batch, torch.float64)
        values = padded(pattern, s.values)
        for activation, f in (("relu", relu), ("gelu", gelu)):
            for fm in (False, True):
                options = {"activation": activation, "feature_major": fm}
                fused = sparse_linear(s.input, values, pattern, s.bias, **options)
                x = s.input.clone().requires_grad_()
                apart = sparse_linear(x, values, pattern, s.bias, **options)
                want = f(sparse_linear(x, values, pattern, s.bias, feature_major=fm))
                assert torch.equal(apart, want)
                torch.testing.assert_close(fused, apart.detach(), rtol=1e-12, atol=1e-12)
                assert is_laid_out(apart, fm)
                grads = (torch.autograd.grad(y, x, s.grad)[0] for y in (apart, want))
                assert torch.equal(*grads)


@pytest.mark.usefixtures("isa")
@NEAR
def test_each_gradient_alone(name):
    """What is not asked for is not computed, and what is asked for does not depend on it."""
    pattern = LAYOUTS[name].make()
    for batch, memory in ((3, MEMORIES[0]), (17, MEMORIES[0]), (64, MEMORIES[4])):
        s = memory.lay_out(sample_of(pattern, batch, torch.float32))
        args = (s.input, padded(pattern, s.values), s.bias)
        expected = Expected(s)

        def call(x, w, b, fm=memory.output):
            return sparse_linear(x, w, pattern, b, feature_major=fm)

        for needed in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2)):
            leaves = [a.detach().requires_grad_(i in needed) for i, a in enumerate(args)]
            grads = torch.autograd.grad(call(*leaves), [leaves[i] for i in needed], s.grad)
            got = dict(zip((("input", "weight", "bias")[i] for i in needed), grads, strict=True))
            if "weight" in got:
                got["weight"] = got["weight"][: pattern.nnz]
            expected.check(Answer(None, None, None, None)._replace(**got))


@pytest.mark.usefixtures("isa")
@NEAR
def test_what_no_entry_reads(name):
    """An input feature without weights may be NaN, and an output that none of them reaches."""
    pattern = LAYOUTS[name].make()
    unread = ~pattern.mask().any(0)
    for batch in BATCHES:
        for memory in (MEMORIES[0], MEMORIES[4]):
            s = sample_of(pattern, batch, torch.float32)
            s.input[:, unread] = torch.nan
            s = memory.lay_out(s)
            x, w = s.input.requires_grad_(), padded(pattern, s.values).requires_grad_()
            output = sparse_linear(x, w, pattern, s.bias, feature_major=memory.output)
            assert output.isfinite().all()
            grads = torch.autograd.grad(output, (x, w), s.grad)
            assert all(g.isfinite().all() for g in grads)


@pytest.mark.usefixtures("isa")
def test_shapes_without_elements():
    """No inputs: the bias. No outputs, no rows: nothing, and gradients of zeros."""
    for rows, cols in ((0, 0), (0, 5), (5, 0), (0, 16), (16, 0), (16, 7)):
        for make in (
            lambda shape: Pattern.from_mask(torch.zeros(shape, dtype=torch.bool)),
            lambda shape: Pattern.from_groups(shape, 1),
            lambda shape: Pattern.from_mask(torch.zeros(shape, dtype=torch.bool), capacity=3),
        ):
            pattern = make((rows, cols))
            for batch in (0, 1, 3, 8, 17):
                s = sample_of(pattern, batch, torch.float32)
                values = padded(pattern, s.values)
                for memory in MEMORIES:
                    turned = memory.lay_out(s)

                    def call(x, w, b, pattern=pattern, fm=memory.output):
                        return sparse_linear(x, w, pattern, b, feature_major=fm)

                    got = run(call, turned, values)
                    assert not got.weight[pattern.nnz :].any()
                    kept = got._replace(weight=got.weight[: pattern.nnz])
                    check(kept, s, values=True)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("name", ["one tile", "tiles of 128", "blocks of 16", "parts"])
def test_leading_dimensions(name):
    """(..., in): the memory of a feature-major result is (out, ...)."""
    pattern = LAYOUTS[name].make()
    rows, cols = pattern.shape
    values = torch.randn(pattern.nnz)
    for lead in ((), (1,), (2, 3), (4, 1, 5), (0, 3), (3, 0)):
        input = torch.randn(*lead, cols)
        flat = input.reshape(-1, cols) if input.numel() else input.new_empty(0, cols)
        want = sparse_linear(flat, values, pattern).view(*lead, rows)
        for turned in (input, input.movedim(-1, 0).contiguous().movedim(0, -1)):
            x = turned.clone().requires_grad_()  # keeps strides
            got = sparse_linear(x, values, pattern, feature_major=True)
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
            assert got.movedim(-1, 0).is_contiguous()
            (grad,) = torch.autograd.grad(got.square().sum(), x)
            assert grad.shape == x.shape


# What a forward reads, found by lying about each of the arrays in turn: see read_by.
READS = {
    "a bitmap": {"bits"},
    "compressed rows of 16-bit columns": {"tile_col"},
    "compressed rows": {"columns of first rows", "columns of other rows"},
    "tiles of": {"tile_col"},
    "blocks of": {"columns of first rows"},  # for all rows of a block
}


# A full row has nothing to lie about, and a tail is not needed twice.
WHICH = [n for n in LAYOUTS if not LAYOUTS[n].parts and "capacity" not in n and n != "full"]
WHICH.remove("rows above 2^16")  # to turn them takes long


def rolled(index: torch.Tensor, ptr: torch.Tensor, runs: torch.Tensor) -> torch.Tensor:
    """Another entry order in every run of ``runs``: the columns of each are turned by one place."""
    index = index.clone()
    for n in runs.tolist():
        begin, end = int(ptr[n]), int(ptr[n + 1])
        index[begin:end] = index[begin:end].roll(1)
    return index


def read_by(pattern: Pattern, batch: int, dtype: torch.dtype) -> set[str]:
    """The arrays that a product depends on. They stay valid, so the raw op cannot see the lie."""
    rows, cols = pattern.shape
    block, step = pattern.block
    n = torch.arange(rows)
    first = n // step % block == 0 if block > 1 else n % 16 == 0
    lies = {
        "tile_col": {
            "tile_col": rolled(
                pattern.tile_col, pattern.row_ptr, torch.arange(len(pattern.row_ptr) - 1)
            )
        },
        "columns of first rows": {"col": rolled(pattern.col, pattern.crow, n[first])},
        "columns of other rows": {"col": rolled(pattern.col, pattern.crow, n[~first])},
    }
    if pattern.bits.numel():
        other = pattern.mask().roll(1, 1)  # as many in every row
        lies["bits"] = {"bits": Pattern.from_mask(other).bits}
    x, values = torch.randn(batch, cols, dtype=dtype), torch.randn(pattern.nnz, dtype=dtype)
    want = sparse_linear(x, values, pattern)
    assert torch.equal(sparse_linear(x, values, pattern), want)  # a difference is no accident
    return {
        lie
        for lie, fields in lies.items()
        if not torch.equal(sparse_linear(x, values, replace(pattern, **fields)), want)
    }


@pytest.mark.parametrize("kind", ["float32", "float64", "16 bits"])
@pytest.mark.parametrize("name", WHICH)
def test_which_names_what_runs(name, kind, isa):
    """The choice reads whether a type is float32 or float64, and not which of 16 bits."""
    halves = [torch.bfloat16, torch.float16]
    half = halves[(WHICH.index(name) + ISAS.index(isa)) % 2]
    dtype = half if kind == "16 bits" else getattr(torch, kind)
    pattern = LAYOUTS[name].make()
    if pattern.nnz == 0:
        return
    for batch in (2, 17) if LAYOUTS[name].long else [b for b in BATCHES if b]:
        x, values = torch.ones(batch, pattern.shape[1], dtype=dtype), torch.ones(pattern.nnz)
        reason = synops.which(sparse_linear, x, values.to(dtype), pattern).reason
        (named,) = [key for key in READS if f", {key}" in reason and f"{key} of 16" not in reason]
        assert READS[named] == read_by(pattern, batch, dtype), (batch, reason)
        if named == "blocks of":
            rows, step = pattern.block
            apart = f", {step} apart" if step > 1 else ""
            assert f"blocks of {rows} rows with equal columns{apart}" in reason
        if named == "tiles of":
            widest = int(pattern.tile_col.max()) + 1
            width = int(reason.split("tiles of ")[1].split()[0])
            assert widest <= width <= (256 if pattern.shape[1] <= 65536 else 65536)
            split = math.ceil(pattern.shape[1] / tiles(pattern)[0])
            assert width == math.ceil(split / 16) * 16


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("name", [n for n in LAYOUTS if LAYOUTS[n].parts])
def test_which_names_parts(name):
    """They run when an empty remainder changes the result."""
    pattern = LAYOUTS[name].make()
    blocks, rest, select = pattern.parts
    # the same lengths, with the remainder's columns turned
    n = torch.arange(pattern.shape[0])
    lying = replace(
        pattern,
        parts=(blocks, Pattern.from_mask(rest.mask().roll(1, 1)), select),
    )
    assert lying.parts[1].nnz == rest.nnz
    assert len(n) == pattern.shape[0]
    values = padded(pattern, torch.randn(pattern.nnz))
    for batch in (1, 8, 15, 16, 17, 130):
        x = torch.randn(batch, pattern.shape[1])
        for f, args in ((sparse_linear, (x, values, pattern)), (spmm, (values, pattern, x.t()))):
            reason = synops.which(f, *args).reason
            same = torch.equal(f(*args), f(*(lying if a is pattern else a for a in args)))
            assert (f"and a remainder of {rest.nnz} entries" in reason) == (not same)
        assert (batch >= 16) == (not same)
        rows, step = blocks.block
        assert batch < 16 or f"blocks of {rows} rows with equal columns" in reason
        assert batch < 16 or (f"{step} apart" in reason) == (step > 1)


def small(name) -> Pattern:
    """Finite differences go through every entry."""
    if name == "groups, interleaved":
        return Pattern.from_groups((16, 4), 2, interleaved=True, capacity=40)
    if name == "parts":
        return Pattern.from_groups((32, 4), 2, extra=torch.rand(32, 4) < 0.2)
    return Pattern.from_mask(torch.rand(6, 5) < 0.4)


@pytest.mark.parametrize("fm", [False, True], ids=["row-major", "feature-major"])
@pytest.mark.parametrize("name", ["one tile", "groups, interleaved", "parts"])
@pytest.mark.parametrize("batch", [3, 17])
def test_derivatives(name, batch, fm):
    """Of the first and second order, by finite differences and by torch.func; vmap against a loop;
    with an activation as well."""
    pattern = small(name)
    s = sample_of(pattern, batch, torch.float64)
    x = feature_major(s.input) if fm else s.input
    values = torch.randn(pattern.capacity, dtype=torch.float64)
    args = tuple(t.detach().clone().requires_grad_() for t in (x, values, s.bias))

    def call(x, values, bias, activation=None):
        return sparse_linear(x, values, pattern, bias, activation=activation, feature_major=fm)

    assert args[0].stride() == x.stride()
    for activation in (None, "gelu"):
        f = partial(call, activation=activation)
        assert torch.autograd.gradcheck(f, args, fast_mode=True)
        assert torch.autograd.gradgradcheck(f, args, fast_mode=True)
        plain = [a.detach() for a in args]
        stacks = [torch.stack([a, -a]) for a in plain]
        for dims in ((0, None, None), (None, 0, None), (None, None, 0), (0, 0, 0)):
            mapped = [a if d is None else t for a, t, d in zip(plain, stacks, dims, strict=True)]
            got = torch.vmap(f, dims)(*mapped)
            for i, one in enumerate(got):
                row = [a if d is None else a[i] for a, d in zip(mapped, dims, strict=True)]
                torch.testing.assert_close(one, f(*row))
        loss = lambda *a, f=f: f(*a).square().sum()  # noqa: E731
        grads = torch.func.grad(loss, (0, 1, 2))(*plain)
        for one, other in zip(grads, torch.autograd.grad(loss(*args), args), strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["tiles of 128", "blocks of 16", "parts"])
def test_autocast(name):
    """Casts as F.linear does, in the memory that was asked for."""
    pattern = LAYOUTS[name].make()
    s = sample_of(pattern, 20, torch.float32)
    args = [t.detach().requires_grad_() for t in (s.input, s.values, s.bias)]
    cast = [t.detach().bfloat16().requires_grad_() for t in args]
    for fm in (False, True):
        with torch.autocast("cpu", torch.bfloat16):
            got = sparse_linear(*args[:2], pattern, args[2], feature_major=fm)
        want = sparse_linear(*cast[:2], pattern, cast[2], feature_major=fm)
        assert torch.equal(got, want)
        assert got.stride() == want.stride()
        grads = torch.autograd.grad(got.sum(), args)
        for one, other in zip(grads, torch.autograd.grad(want.sum(), cast), strict=True):
            assert torch.equal(one, other.float())
