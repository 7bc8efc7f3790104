"""attention_with_stats under opcheck, gradcheck, compile, export, vmap and torch.func."""

import pytest
import torch
from attention_samples import CASES, STATS, Case, sample

from synops.entropy import attention_with_stats

NAMES = ["causal window", "added to all", "mask of keys", "one of each"]
BITS = 0b10011110  # all of STATS


def small(name, dtype=torch.float64):
    case = CASES[name]
    b, h, kv, n, m, d, dv = case.sizes
    if case.mask is None:
        n, m = min(n, 9), min(m, 11)
    return sample(case._replace(sizes=(b, h, kv, n, m, min(d, 5), min(dv, 3))), dtype)


def call(s, *tensors):
    """What has a gradient."""
    output, stats = attention_with_stats(*tensors, **s.options, stats=STATS)
    return output, stats.lse, stats.entropy, stats.varentropy


@pytest.mark.parametrize("name", ["causal window", "added to rows", "mask of heads"])
def test_gradcheck(name):
    s = sample(CASES[name]._replace(sizes=(2, 2, 1, 13, 70, 3, 2)), torch.float64)
    if s.options.get("attn_mask") is not None and s.options["attn_mask"].dtype == torch.bool:
        s.options["attn_mask"][0] = True
        s.options["attn_mask"][1] = True
    leaves = [t.requires_grad_() for t in s[:3]]
    assert torch.autograd.gradcheck(lambda *t: call(s, *t), leaves, fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name):
    s = small(name)
    mask = s.options.get("attn_mask")
    mask = mask[(None,) * (4 - mask.dim())] if mask is not None else None
    causal, window = s.options.get("is_causal", False), s.options.get("window", -1)
    leaves = [t.requires_grad_() for t in s[:3]]
    op = torch.ops.synops.attention_with_stats.default
    torch.library.opcheck(op, (*leaves, mask, causal, window, 0.3, BITS))
    torch.library.opcheck(op, (*leaves, mask, causal, window, 0.3, 0))
    output, *stats = op(*(t.detach() for t in leaves), mask, causal, window, 0.3, BITS)
    backward = torch.ops.synops.attention_with_stats_backward.default
    tensors = (*s.grads, *(t.detach() for t in leaves), mask, output, *stats[:3])
    for needs in ((True, True, True), (False, False, True)):
        torch.library.opcheck(backward, (*tensors, causal, window, 0.3, *needs))


@pytest.mark.parametrize("name", NAMES)
def test_compile(name):
    torch._dynamo.reset()
    s = small(name, torch.float32)
    compiled = torch.compile(lambda *t: call(s, *t), fullgraph=True, backend="aot_eager")
    leaves = [t.requires_grad_() for t in s[:3]]
    answers = [f(*leaves) for f in (compiled, lambda *t: call(s, *t))]
    for got, want in zip(*answers, strict=True):
        assert torch.equal(got, want)
    grads = [torch.autograd.grad(a, leaves, s.grads) for a in answers]
    for got, want in zip(*grads, strict=True):
        assert torch.equal(got, want)


def test_export():
    class Module(torch.nn.Module):
        def forward(self, query, key, value):
            output, stats = attention_with_stats(query, key, value, is_causal=True)
            return output, stats.entropy

    s = sample(Case((1, 2, 2, 9, 11, 4, 4)), torch.float32)
    rows = torch.export.Dim("rows", min=2)
    shapes = ({2: rows}, None, None)
    program = torch.export.export(Module(), s[:3], dynamic_shapes=shapes)
    other = torch.randn(1, 2, 30, 4)
    for got, want in zip(program.module()(other, *s[1:3]), Module()(other, *s[1:3]), strict=True):
        assert torch.equal(got, want)


def test_vmap():
    s = small("causal window")
    stack = torch.stack([s.query, 2 * s.query])
    mapped = torch.vmap(lambda q: call(s, q, *s[1:3]))(stack)
    for i, query in enumerate(stack):
        for got, want in zip(mapped, call(s, query, *s[1:3]), strict=True):
            assert torch.equal(got[i], want)


def test_func_grad():
    s = small("causal window")

    def loss(*tensors):
        return sum((a * g).sum() for a, g in zip(call(s, *tensors), s.grads, strict=True))

    want = torch.autograd.grad(loss(*(t.requires_grad_() for t in s[:3])), s[:3])
    got = torch.func.grad(loss, (0, 1, 2))(*(t.detach() for t in s[:3]))
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other)
    per_sample = torch.vmap(torch.func.grad(lambda q: loss(q, *(t.detach() for t in s[1:3]))))
    stack = torch.stack([s.query, s.query]).detach()
    torch.testing.assert_close(per_sample(stack)[1], want[0])


def test_forward_ad_is_refused():
    s = small("one of each")
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(s.query, torch.ones_like(s.query))
        with pytest.raises(NotImplementedError, match="forward-mode AD"):
            attention_with_stats(dual, *s[1:3])


def test_autocast():
    s = sample(Case((1, 2, 2, 9, 11, 4, 4)), torch.float32)
    want, stats = attention_with_stats(*(t.bfloat16() for t in s[:3]))
    with torch.autocast("cpu", torch.bfloat16):
        got, got_stats = attention_with_stats(*s[:3])
    assert torch.equal(got, want)
    assert torch.equal(got_stats.entropy, stats.entropy)
