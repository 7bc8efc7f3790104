"""attention_with_stats against float64, F.scaled_dot_product_attention, and what it promises."""

import math

import pytest
import torch
from attention_samples import (
    CASES,
    DTYPES,
    FEW_ROWS,
    STATS,
    Case,
    check,
    doubled,
    near,
    run,
    sample,
)
from torch.nn.functional import scaled_dot_product_attention as sdpa

from synops.entropy import attention_with_stats

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.mark.usefixtures("isa")
@every_dtype
@pytest.mark.parametrize("case", [*CASES.values(), *FEW_ROWS.values()], ids=[*CASES, *FEW_ROWS])
def test_reference(case, dtype):
    """Output, every statistic, and the gradients through all of them."""
    s = sample(case, dtype)
    check(run(s), run(doubled(s), "reference"), dtype)


@pytest.mark.parametrize("name", ["causal", "mask of all", "added to all", "mask of keys"])
def test_is_torchs(name):
    case = CASES[name]
    s = doubled(sample(case, torch.float64))
    got, _ = attention_with_stats(*s[:3], **s.options)
    torch.testing.assert_close(got, sdpa(*s[:3], **s.options))


@pytest.mark.usefixtures("isa")
def test_memory_that_is_not_contiguous():
    """(B, N, H, D) in memory, as models have it; gaps in the last dimension; expanded heads."""
    s = sample(Case((2, 3, 3, 50, 70, 32, 32)), torch.float64)
    want = run(s)
    turned = s._replace(
        query=s.query.transpose(1, 2).contiguous().transpose(1, 2),
        key=torch.stack([s.key, s.key], -1)[..., 0],
        value=s.value.mT.contiguous().mT,
    )
    got = run(turned)
    assert torch.equal(got.output, want.output)
    for g, w in zip(got.grads, want.grads, strict=True):
        assert torch.equal(g, w)
    one = s.key[:, :1].expand(-1, 3, -1, -1)
    got, _ = attention_with_stats(s.query, one, s.value)
    assert torch.equal(got, attention_with_stats(s.query, one.contiguous(), s.value)[0])


@pytest.mark.parametrize("gqa", [1, 3])
def test_heads_share_keys(gqa):
    s = sample(Case((2, 6, 6 // gqa, 20, 30, 16, 16)), torch.float64)
    repeated = [t.repeat_interleave(gqa, 1) for t in s[1:3]]
    want, stats = attention_with_stats(s.query, *repeated, stats=STATS)
    got, got_stats = attention_with_stats(*s[:3], enable_gqa=True, stats=STATS)
    assert torch.equal(got, want)
    assert torch.equal(got_stats.received, stats.received)


class TestStatistics:
    def test_only_those_asked_for(self):
        s = sample(CASES["one row"], torch.float32)
        for names in (("entropy",), "lse", ("received", "max_prob"), ("varentropy",)):
            _, stats = attention_with_stats(*s[:3], enable_gqa=True, stats=names)
            asked = (names,) if isinstance(names, str) else names
            assert {k for k, v in stats._asdict().items() if v is not None} == set(asked)

    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("offset", [0.0, 300.0, 3000.0, -3000.0])
    def test_offset(self, offset):
        """Scores are exact in float32, so that only the statistics can lose it."""
        query = torch.randint(-4, 5, (1, 1, 40, 16)).float()
        key = torch.randint(-4, 5, (1, 1, 700, 16)).float()
        query[..., 0], key[..., 0] = 8.0, offset / 2
        s = {"scale": 0.25, "stats": STATS}
        _, got = attention_with_stats(query, key, key, **s)
        doubles = (query.double(), key.double(), key.double())
        _, want = attention_with_stats(*doubles, **s, backend="reference")
        for name, far in (("entropy", 1e-5), ("varentropy", 2e-5), ("max_prob", 1e-6)):
            error = (getattr(got, name).double() - getattr(want, name)).abs().max()
            assert float(error) <= far
        assert float((got.lse.double() - want.lse).abs().max()) <= 1e-6 * (10 + abs(offset))

    @pytest.mark.usefixtures("isa")
    def test_extremes(self):
        """Uniform: log M and 0; one key, or one that outweighs all: exactly 0."""
        zeros, value = torch.zeros(1, 1, 5, 8), torch.randn(1, 1, 100, 8)
        _, stats = attention_with_stats(zeros, torch.randn(1, 1, 100, 8), value, stats=STATS)
        torch.testing.assert_close(stats.entropy, torch.full((1, 1, 5), math.log(100)))
        assert float(stats.varentropy.max()) < 1e-6
        key = torch.zeros(1, 1, 100, 8)
        key[..., 7, :] = 1e4
        output, stats = attention_with_stats(torch.ones(1, 1, 5, 8), key, value, stats=STATS)
        assert not stats.entropy.any()
        assert not stats.varentropy.any()
        assert (stats.max_prob == 1).all()
        assert torch.equal(output, value[:, :, 7:8].expand_as(output))
        assert stats.received[0, 0, 7] == 5

    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    @pytest.mark.parametrize(("rows", "row"), [(96, 50), (4, 1)])
    def test_nan_and_inf_stay_in_their_rows(self, rows, row, dtype):
        s = sample(Case((1, 1, 1, rows, 1280, 64, 64)), dtype)
        want, stats = attention_with_stats(*s[:3], stats=STATS)
        for bad in (torch.nan, torch.inf):
            query = s.query.clone()
            query[..., row, :] = bad
            got, got_stats = attention_with_stats(query, *s[1:3], stats=STATS)
            others = torch.arange(rows) != row
            assert torch.equal(got[..., others, :], want[..., others, :])
            assert torch.equal(got_stats.entropy[..., others], stats.entropy[..., others])
            assert got[..., row, :].isnan().all()
            assert got_stats.entropy[..., row].isnan().all()


@pytest.mark.usefixtures("isa")
@every_dtype
def test_rows_without_keys(dtype):
    """Defined, with gradients of exactly 0."""
    s = sample(CASES["mask of all"], dtype)
    mask = s.options["attn_mask"].clone()
    mask[:, :, 4] = False
    mask[:, :, :, 9] = False
    got = run(s._replace(options={**s.options, "attn_mask": mask}))
    assert not got.output[:, :, 4].any()
    assert (got.stats.lse[:, :, 4] == -torch.inf).all()
    for name in ("entropy", "varentropy", "max_prob"):
        assert not getattr(got.stats, name)[:, :, 4].any()
    assert not got.stats.received[..., 9].any()
    assert not got.grads[0][:, :, 4].any()
    assert not got.grads[1][:, :, 9].any()
    assert not got.grads[2][:, :, 9].any()


@pytest.mark.usefixtures("isa")
def test_gradients_one_by_one():
    """Through each result alone, to each input alone: what is not needed changes nothing."""
    s = sample(CASES["blocks and a rest"], torch.float64)
    leaves = [t.detach().requires_grad_() for t in s[:3]]
    for which in range(4):
        grads = {}
        for backend in ("reference", None):
            output, stats = attention_with_stats(
                *leaves, enable_gqa=True, stats=STATS, backend=backend
            )
            result = (output, stats.lse, stats.entropy, stats.varentropy)[which]
            grads[backend] = torch.autograd.grad(
                result, leaves, s.grads[which], allow_unused=True, retain_graph=True
            )
            for i, leaf in enumerate(leaves[:2] if which else leaves):
                (alone,) = torch.autograd.grad(result, leaf, s.grads[which], retain_graph=True)
                assert torch.equal(alone, grads[backend][i])
        for got, want in zip(grads[None], grads["reference"], strict=True):
            if want is not None:
                near(got, want, torch.float64)
            else:
                assert got is None or not got.any()


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "sizes", [(1, 2, 1, 900, 323, 33, 80), (1, 2, 1, 900, 200, 64, 64), (1, 1, 1, 1, 5000, 64, 64)]
)
def test_threads(sizes, dtype, threads):
    """The same bits from any number of them; few heads, so that parts are added."""
    s = sample(Case(sizes, {"is_causal": sizes[4] == 200}), dtype)
    answers = []
    for n in (1, 2, 5):
        threads(n)
        answers.append(run(s))
    for a in answers[1:]:
        assert torch.equal(a.output, answers[0].output)
        assert torch.equal(a.stats.received, answers[0].stats.received)
        for one, other in zip(a.grads, answers[0].grads, strict=True):
            assert torch.equal(one, other)


def test_memory_is_linear():
    """Nothing of size N x M is allocated, nor a mask expanded to it."""
    n = 4096  # N x M: 64 MiB
    q = torch.randn(1, 1, n, 8, requires_grad=True)
    mask = torch.rand(1, 1, 1, n) < 0.9
    with torch.profiler.profile(profile_memory=True) as profile:
        output, stats = attention_with_stats(q, q, q, mask, stats=STATS)
        (output.sum() + stats.entropy.sum()).backward()
    sizes = [e.self_cpu_memory_usage for e in profile.events() if e.self_cpu_memory_usage > 0]
    assert 0 < sum(sizes) < 4 * n * n / 10


def test_ways_agree():
    """Keys are turned by heads, blocks or all at once, by how many heads and rows there are and
    whether ``received`` is asked for: the same bits."""
    for sizes in ((4, 8, 4, 100, 70, 16, 16), (1, 2, 2, 50, 300, 16, 16)):
        s = sample(Case(sizes), torch.float32)
        asked = ("entropy", "received")
        want, stats = attention_with_stats(*s[:3], enable_gqa=True, stats=asked)
        got, alone = attention_with_stats(*s[:3], enable_gqa=True)
        assert torch.equal(got, want)
        assert torch.equal(alone.entropy, stats.entropy)
