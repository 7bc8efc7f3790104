"""The same bits for any number of threads and in any run, and one OpenMP runtime in the process."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from layouts import Memory, few, row_blocks, sample_of
from sparse_layers import LAYERS, MASKED, MASKED_PATTERN
from sparse_samples import run, sample

from synops.sparse import Pattern, sddmm, sparse_linear, spmm

# Each large enough that work is split (65536 multiply-adds a thread), of each kind that splits
# otherwise (csrc/sparse/product.cpp): (batch, in, out, density)
SPLITS = {
    "row dots": (3, 1500, 700, 0.3),
    "fewer blocks than threads": (20, 1000, 600, 0.1),
    "several blocks": (150, 500, 300, 0.1),
    "tiled": (150, 600, 400, 0.25),
    "tiled one way": (70, 600, 100, 0.25),
    "more threads than rows": (300, 3000, 3, 0.3),
    "one output": (300, 3000, 1, 0.5),
    "uneven rows": (64, 1000, 500, "uneven"),
}


def make(case, dtype):
    batch, inner, outer, density = SPLITS[case]
    s = sample(batch, inner, outer, 0.1 if density == "uneven" else density, dtype)
    if density == "uneven":  # half of all entries in a few rows
        s.mask[:20] = True
        s.weight = torch.randn(outer, inner).to(dtype).masked_fill(~s.mask, torch.nan)
    return s


def assert_same_bits(one, other):
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", SPLITS)
def test_same_bits_for_any_thread_count(case, dtype, threads):
    """Forward and every gradient; 3 and 4 threads are more than this machine may have cores."""
    s = make(case, dtype)
    for layer in LAYERS:
        call = layer.bind(s.mask, backend="cpp")
        answers = []
        for count in (1, 2, 3, 4, 7):
            threads(count)
            answers.append(run(call, s, layer.weight(s)))
        for answer in answers[1:]:
            assert_same_bits(answer, answers[0])


# Large enough that work is split, one of each driver: pattern, batch
DRIVERS = {
    "row blocks": (lambda: Pattern.from_mask(row_blocks(16, 20, 500, 0.2)), 150),
    "row blocks, few batch rows": (lambda: Pattern.from_mask(row_blocks(64, 20, 500, 0.2)), 9),
    "groups, interleaved": (lambda: Pattern.from_groups((512, 512), 4, interleaved=True), 70),
    "parts": (lambda: Pattern.from_mask(row_blocks(16, 20, 500, 0.3) | few(320, 500)), 150),
    "tiles of 256": (lambda: Pattern.from_mask(torch.rand(400, 700) < 0.06), 130),
    "one tile": (lambda: Pattern.from_mask(torch.rand(400, 700) < 0.02), 128),
    "bitmap": (lambda: Pattern.from_mask(torch.rand(700, 700) < 0.5), 2),
    "rows in CSR order": (lambda: Pattern.from_mask(torch.rand(400, 700) < 0.1), 8),
}


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("case", DRIVERS)
def test_layouts_have_the_same_bits(case, threads):
    """In both layouts of memory, with an activation, and what goes by the same ops."""
    make, batch = DRIVERS[case]
    pattern = make()
    assert batch * pattern.nnz > 2 * 65536  # two threads at least
    for dtype in (torch.float32, torch.bfloat16):
        s = sample_of(pattern, batch, dtype)
        for memory in (Memory(False, False, False), Memory(True, True, True)):
            turned = memory.lay_out(s)

            def call(x, w, b, fm=memory.output):
                return sparse_linear(x, w, pattern, b, feature_major=fm)

            answers = []
            for count in (1, 2, 3, 7):
                threads(count)
                answer = [*run(call, turned, s.values)]
                with torch.no_grad():
                    # behind parts an activation is torch's, whose gelu depends on the threads
                    name = "gelu" if pattern.parts is None else "relu"
                    options = {"activation": name, "feature_major": memory.output}
                    answer.append(sparse_linear(turned.input, s.values, pattern, **options))
                answer.append(spmm(s.values, pattern, turned.input.t()))
                answer.append(sddmm(turned.grad.t(), turned.input, pattern))
                answers.append(answer)
            for answer in answers[1:]:
                assert_same_bits(answer, answers[0])


@pytest.mark.parametrize("layer", [MASKED, MASKED_PATTERN], ids=lambda layer: layer.name)
@pytest.mark.parametrize("batch", [1, 3, 64, 150])
def test_dense_route_has_the_same_bits(layer, batch, threads):
    """Above density .6 the product is BLAS's, and the promise is ours all the same."""
    s = sample(batch, 500, 300, 0.8)
    call = layer.bind(s.mask)
    answers = []
    for count in (1, 2, 4):
        threads(count)
        answers.append(run(call, s, s.weight))
    for answer in answers[1:]:
        assert_same_bits(answer, answers[0])


@pytest.mark.parametrize("case", ["tiled", "several blocks"])
def test_same_bits_in_every_run(case):
    s = make(case, torch.float32)
    layer = LAYERS[0]
    call = layer.bind(s.mask)
    first = run(call, s, layer.weight(s))
    for _ in range(20):
        assert_same_bits(run(call, s, layer.weight(s)), first)


def test_indexing_does_not_depend_on_threads(threads):
    mask = torch.rand(1000, 1100) < 0.2
    weight = torch.randn(1000, 1100)
    patterns, values, dense = [], [], []
    for count in (1, 2, 4):
        threads(count)
        patterns.append(Pattern.from_mask(mask))
        values.append(patterns[-1].gather(weight))
        dense.append(patterns[-1].scatter(values[-1]))
    for pattern in patterns[1:]:
        assert_same_bits(pattern.tensors, patterns[0].tensors)
    assert_same_bits(values[1:], [weight[mask]] * 2)
    assert_same_bits(dense, [weight * mask] * 3)


def test_calls_from_several_python_threads():
    """Each thread has scratch memory of its own."""
    from concurrent.futures import ThreadPoolExecutor

    s = make("several blocks", torch.float32)
    layer = LAYERS[0]
    call = layer.bind(s.mask)
    want = run(call, s, layer.weight(s))
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: run(call, s, layer.weight(s)), range(24)):
            assert_same_bits(got, want)


MAPS = """
import re, torch, synops
from synops.sparse import Pattern, sparse_linear
pattern = Pattern.from_mask(torch.rand(500, 500) < .2)
values = torch.randn(pattern.nnz, requires_grad=True)
sparse_linear(torch.randn(200, 500), values, pattern).sum().backward()
maps = open("/proc/self/maps").read()
print(*sorted(set(re.findall(r"\\S*/(?:libgomp|libomp|libiomp5)[^/\\s]*", maps))), sep="\\n")
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_one_openmp_runtime():
    """A second runtime would have a pool of its own, on the same cores."""
    run = subprocess.run([sys.executable, "-c", MAPS], capture_output=True, text=True, check=True)
    libraries = run.stdout.split()
    assert len(libraries) == 1, libraries
    assert Path(torch.__file__).resolve().parent in Path(libraries[0]).parents  # torch's own
