"""soft_hebb as it is called: bad arguments, aliasing, transforms, raw ops."""

import math

import pytest
import torch
from soft_hebb_samples import layer

from synops.hebbian import soft_hebb, soft_hebb_

FORMS = (soft_hebb, soft_hebb_)
INF, NAN = math.inf, math.nan


def small(batch=3):
    return tuple(t.float() for t in layer(4, 5, batch))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"weight": torch.ones(4, 5).int()}, TypeError, "weight must be float32"),
        ({"weight": torch.ones(4)}, ValueError, r"weight must have shape \(out, in\)"),
        ({"weight": torch.ones(4, 5).to_sparse()}, TypeError, "weight must be a strided"),
        ({"pre": torch.ones(3, 4)}, ValueError, "pre must have shape"),
        ({"pre": torch.ones(3, 5, 1)}, ValueError, "pre must have shape"),
        ({"pre": torch.ones(3, 5).int()}, TypeError, "pre must be"),
        ({"pre": torch.full((3, 5), NAN)}, ValueError, "pre must be finite"),
        ({"pre": torch.full((3, 5), INF)}, ValueError, "pre must be finite"),
        ({"u": torch.ones(2, 4)}, ValueError, "u must have as many samples as pre"),
        ({"u": torch.ones(3, 5)}, ValueError, "u must have shape"),
        ({"u": torch.full((3, 4), -INF)}, ValueError, "u must be finite"),
        ({"weight": torch.full((4, 5), NAN)}, ValueError, "u must be finite"),
        ({"lr": NAN}, ValueError, "lr must be finite"),
        ({"lr": "fast"}, TypeError, "lr must be a number"),
        ({"lr": torch.ones(3)}, ValueError, "lr must have shape"),
        ({"lr": torch.full((4,), INF)}, ValueError, "lr or modulator must be finite"),
        ({"temperature": 0.0}, ValueError, "temperature must be positive"),
        ({"temperature": torch.ones(())}, TypeError, "temperature must be a number"),
        ({"variant": "loud"}, ValueError, "variant must be one of soft, signed, hard"),
        ({"variant": ["soft"]}, ValueError, "variant must be one of"),
        ({"power": -1}, ValueError, "power must be None or at least 0"),
        ({"normalize": "max"}, ValueError, 'normalize must be None or "amax"'),
        ({"decay": 1.5}, ValueError, r"decay must lie in \[0, 1\]"),
        ({"modulator": torch.ones(4)}, ValueError, "modulator must have shape"),
        ({"modulator": torch.full((3,), NAN)}, ValueError, "modulator must be finite"),
        ({"gain_pre": torch.ones(4)}, ValueError, "gain_pre must have shape"),
        ({"gain_post": torch.full((4,), INF)}, ValueError, "a gain or sign must be finite"),
        ({"clip": (1.0, 0.0)}, ValueError, "lower <= upper"),
        ({"mask": torch.ones(5, 4) > 0}, ValueError, "mask must have shape"),
        ({"mask": torch.ones(4, 5)}, TypeError, "mask must be bool"),
        ({"sign": torch.ones(4)}, ValueError, "sign must have shape"),
        ({"sign": torch.ones(5)}, ValueError, "weight must agree with sign"),
        ({"reduction": "max"}, ValueError, "reduction must be one of"),
        ({"backend": "cuda"}, ValueError, "backend"),
    ],
    ids=range(34),
)
@pytest.mark.parametrize("form", FORMS)
def test_refuses(form, change, error, says):
    weight, pre = small()
    given = {"weight": weight, "pre": pre, "lr": 0.1} | change
    kept = given["weight"].clone()
    version = given["weight"]._version
    with pytest.raises(error, match=says):
        form(given.pop("weight"), given.pop("pre"), given.pop("u", None), **given)
    weight = change.get("weight", weight)
    assert torch.equal(weight.to_dense().nan_to_num(), kept.to_dense().nan_to_num())
    assert weight._version in (version, version + 1)


class TestInPlace:
    def test_gradient(self):
        weight, pre = small()
        weight.requires_grad_()
        with pytest.raises(ValueError, match="not require grad"):
            soft_hebb_(weight, pre, lr=0.1)
        want = soft_hebb(weight.detach(), pre, lr=0.1).weight
        with torch.no_grad():
            soft_hebb_(weight, pre, lr=0.1)
        assert torch.equal(weight, want)

    def test_is_seen_by_autograd(self):
        """A backward that needs the old weight raises, as with torch's own operators."""
        weight, pre = small()
        x = pre.clone().requires_grad_()
        loss = (x @ weight.t()).sum()
        soft_hebb_(weight, pre, lr=0.1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()

    def test_aliasing(self):
        both = torch.randn(5, 5)
        for pre in (both, both[2], both[:3]):
            with pytest.raises(ValueError, match="share no memory"):
                soft_hebb_(both, pre, lr=0.1)
        with pytest.raises(ValueError, match="not overlap itself"):
            soft_hebb_(torch.ones(1, 5).expand(4, 5), torch.ones(3, 5), lr=0.1)

    def test_overflow(self):
        """What was written stays; it is said."""
        weight, pre = small()
        for dtype, lr in ((torch.float32, 3e38), (torch.float16, 1e6)):
            held = weight.to(dtype, copy=True)
            with pytest.raises(OverflowError, match="lower lr"):
                soft_hebb_(held, pre * 10, lr=lr)
            assert not held.isfinite().all()


class TestSign:
    def test_is_checked_once(self):
        """What comes out of a step with this sign has it."""
        weight, pre = small()
        weight, sign = weight.abs(), torch.ones(5)
        for _ in range(3):
            soft_hebb_(weight, pre, lr=0.5, sign=sign)
        weight[0, 0] = -1
        with pytest.raises(ValueError, match="agree with sign"):
            soft_hebb_(weight, pre, lr=0.5, sign=sign)


class TestTransforms:
    def test_gradient_is_refused_and_the_references(self):
        weight, pre = small()
        for i in range(2):
            leaves = [weight.clone(), pre.clone()]
            leaves[i].requires_grad_()
            new = soft_hebb(*leaves, lr=0.1).weight
            with pytest.raises(NotImplementedError, match="a gradient"):
                new.sum().backward()
            soft_hebb(*leaves, lr=0.1, backend="reference").weight.sum().backward()
            assert leaves[i].grad.isfinite().all()

    def test_compiled(self):
        torch._dynamo.reset()

        def both(weight, pre):
            new = soft_hebb(weight.sin(), pre, lr=0.1, normalize="amax")
            held = weight.clone()
            soft_hebb_(held, pre, lr=0.1)
            return new.weight, new.u, held

        compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
        for batch in (3, 4):
            weight, pre = small(batch)
            for one, other in zip(compiled(weight, pre), both(weight, pre), strict=True):
                torch.testing.assert_close(one, other)

    def test_exported(self):
        class Layer(torch.nn.Module):
            def forward(self, weight, pre):
                return tuple(soft_hebb(weight, pre, lr=0.1))

        weight, pre = small()
        batch = torch.export.Dim("batch")
        program = torch.export.export(
            Layer(), (weight, pre), dynamic_shapes={"weight": None, "pre": {0: batch}}
        )
        weight, pre = small(6)
        for one, other in zip(
            program.module()(weight, pre), soft_hebb(weight, pre, lr=0.1), strict=True
        ):
            assert torch.equal(one, other)

    def test_vmap(self):
        weights = torch.stack([small()[0], small()[0] / 2])
        pre = small()[1]
        got = torch.vmap(lambda w: tuple(soft_hebb(w, pre, lr=0.1)))(weights)
        for i in range(2):
            want = soft_hebb(weights[i], pre, lr=0.1)
            assert torch.equal(got[0][i], want.weight)
            assert torch.equal(got[1][i], want.u)

    def test_opcheck(self):
        weight, pre = small()
        ops = torch.ops.synops
        rest = (1.0, 1, 0.5, False, 0.1, None, 0.0, None, None, None, -INF, INF, None, False, None)
        torch.library.opcheck(ops.soft_hebb.default, (weight, pre, None, *rest, True))
        torch.library.opcheck(ops.soft_hebb_.default, (weight, pre, pre @ weight.t(), *rest, True))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, torch.ones(4)),
        (0, torch.ones(4, 5).int()),
        (0, torch.ones(4, 5).double()),
        (1, torch.ones(3, 4)),
        (1, torch.ones(5)),
        (1, torch.ones(3, 5).half()),
        (2, torch.ones(3, 5)),
        (2, torch.ones(2, 4)),
        (3, 0.0),
        (3, NAN),
        (4, 3),
        (5, NAN),
        (8, torch.ones(3)),
        (10, torch.ones(4)),
        (11, torch.ones(4)),
        (12, torch.ones(5)),
        (13, 3.0),
        (15, torch.ones(4)),
        (17, torch.ones(5, 4) > 0),
        (17, torch.ones(4, 5)),
    ],
    ids=range(20),
)
def test_raw_ops_are_memory_safe(at, value):
    weight, pre = small()
    args = [weight, pre, None, 1.0, 1, 0.5, False, 0.1, None, 0.0, None, None, None, -2.0, 2.0,
            None, False, None, True]  # fmt: skip
    args[at] = value
    for op in (torch.ops.synops.soft_hebb, torch.ops.synops.soft_hebb_):
        with pytest.raises(RuntimeError):
            op(*args)
