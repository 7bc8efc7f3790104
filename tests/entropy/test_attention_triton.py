"""The Triton kernels of attention_with_stats, through the public function with backend="triton".

On a GPU, or interpreted on the CPU: ``TRITON_INTERPRET=1 pytest -m triton``. The float64 answers
are the reference's, on the CPU.
"""

import pytest
import torch
from attention_samples import CASES, DTYPES, STATS, check, doubled, run, sample
from torch import Tensor

from close import accumulator
from synops._library import launcher

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# One step of everything: an interpreted program takes milliseconds.
LARGE = {"blocks and a rest": (13, 70), "whole blocks": (16, 32), "causal": (40, 40)}
LARGE |= {"causal, fewer keys": (50, 30), "causal, more keys": (20, 70), "one row": (1, 70)}
LARGE |= {"causal window": (70, 70), "window": (40, 90), "window without keys": (70, 20)}
# These have a mask of that many keys.
SLOW = {"mask and window": (1, 1, 1, 40, 270, 16, 16), "mask of keys": (2, 1, 1, 13, 300, 16, 16)}
SLOW |= {"many heads": (1, 2, 1, 20, 20, 16, 16)}
EVERY_DTYPE = ("blocks and a rest", "causal window", "banned")


def shrunk(name):
    case = CASES[name]
    b, h, kv, n, m, d, dv = case.sizes
    if name in LARGE:
        n, m = LARGE[name]
    return case._replace(sizes=SLOW.get(name, (b, h, kv, n, m, d, dv)))


def there(s):
    options = {k: v.to(DEVICE) if isinstance(v, Tensor) else v for k, v in s.options.items()}
    tensors = (t.to(DEVICE) for t in s[:3])
    return s._replace(
        **dict(zip(s._fields[:3], tensors, strict=True)),
        options=options,
        grads=tuple(t.to(DEVICE) for t in s.grads),
    )


@pytest.mark.triton
@pytest.mark.parametrize(
    ("name", "dtype"),
    [(n, t) for n in CASES for t in (DTYPES if n in EVERY_DTYPE else DTYPES[:1])],
    ids=str,
)
def test_reference(name, dtype):
    s = sample(shrunk(name), dtype)
    got, want = run(there(s), "triton"), run(doubled(s), "reference")
    if dtype != torch.bfloat16 or DEVICE == "cuda":
        back = got._replace(
            output=got.output.cpu(),
            stats=type(got.stats)(*(t if t is None else t.cpu() for t in got.stats)),
            grads=tuple(t.cpu() for t in got.grads),
        )
        check(back, want, dtype)
        return
    # The interpreter cuts to bfloat16 where a GPU rounds: an ulp at most, towards zero, and D of
    # such an output is off by as much.
    ulp = torch.finfo(dtype).eps
    for name in STATS[:4]:
        torch.testing.assert_close(
            getattr(got.stats, name).double(), getattr(want.stats, name), rtol=1e-6, atol=2e-5
        )
        assert getattr(got.stats, name).dtype == accumulator(dtype)
    results = zip((got.output, *got.grads), (want.output, *want.grads), strict=True)
    for g, w in results:
        assert float((g.double() - w).norm()) <= ulp * float(w.norm())


@pytest.mark.triton
def test_only_what_is_needed():
    s = there(sample(shrunk("blocks and a rest"), torch.float32))
    forward = launcher("attention_with_stats")
    backward = launcher("attention_with_stats_backward")
    output, *stats = forward(*s[:3], None, False, -1, 0.2, 0)
    assert [t.numel() for t in stats[1:]] == [0, 0, 0, 0]
    args = (s.grads[0], None, None, None, *s[:3], None, output, *stats[:3], False, -1, 0.2)
    whole = backward(*args, True, True, True)
    for needs in ((True, False, False), (False, True, False), (False, False, True)):
        for got, want, need in zip(backward(*args, *needs), whole, needs, strict=True):
            assert torch.equal(got, want) if need else got.numel() == 0


@pytest.mark.triton
def test_bad_input():
    q, k, v = torch.randn(1, 4, 5, 8), torch.randn(1, 4, 6, 8), torch.randn(1, 4, 6, 3)
    call = launcher("attention_with_stats")
    for tensors in ((q[0], k, v), (q, k[:, :3], v[:, :3]), (q, k, v[:, :, :5]), (q, k.double(), v)):
        with pytest.raises(RuntimeError, match="attention_with_stats: "):
            call(*tensors, None, False, -1, 0.3, 2)
    for mask in (torch.ones(1, 1, 5, 5), torch.ones(5, 6), torch.ones(1, 1, 5, 6).int()):
        with pytest.raises(RuntimeError, match="attention_with_stats: "):
            call(q, k, v, mask, False, -1, 0.3, 2)
