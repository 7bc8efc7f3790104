"""token_stats as it is called: results asked for, in-place backward, transforms, bad arguments."""

import importlib
import math

import pytest
import torch
from token_samples import ALL, GRADS, IGNORED

import synops
from synops._library import reference
from synops.entropy import token_stats


def test_what_is_asked_for():
    x, y = torch.randn(4, 30), torch.randint(30, (4,))
    assert [n for n in ALL if getattr(token_stats(x), n) is not None] == ["entropy"]
    both = token_stats(x, y)
    assert [n for n in ALL if getattr(both, n) is not None] == ["logprob", "entropy"]
    for name in ALL:
        got = token_stats(x, y, stats=name)
        assert [n for n in ALL if getattr(got, n) is not None] == [name]
        assert torch.equal(getattr(got, name), getattr(token_stats(x, y, stats=ALL), name))


class TestInPlaceBackward:
    def test_gradient(self):
        for size in (10, 300):
            x = torch.randn(4, size, requires_grad=True)
            y = torch.randint(size, (4,))
            (want,) = torch.autograd.grad(token_stats(x * 2, y).logprob.sum(), x)
            logits = x * 2
            place = logits.data_ptr()
            kept = logits.detach()
            (got,) = torch.autograd.grad(
                token_stats(logits, y, inplace_backward=True).logprob.sum(), x
            )
            assert torch.equal(got, want)
            assert torch.equal(kept * 2, want), "it was written over the logits"
            assert kept.data_ptr() == place

    def test_who_reads_the_logits_is_told(self):
        x = torch.randn(4, 10, requires_grad=True)
        logits = x.exp()  # whose backward needs its result
        loss = token_stats(logits, inplace_backward=True).entropy.sum()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
        logits = x * 2
        loss = token_stats(logits, inplace_backward=True).entropy.sum()
        loss.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()

    @pytest.mark.parametrize("size", [10, 300, 100_000])
    def test_label_without_probability(self, size):
        """What one piece of a row writes, another does not read for a logit."""
        x = torch.randn(3, size)
        x[:, 3] = -torch.inf
        x.requires_grad_()
        y = torch.tensor([3, 3, size - 1])
        grads = []
        for in_place in (False, True):
            got = token_stats(x * 2, y, inplace_backward=in_place)
            loss = got.logprob[2:].sum() + got.logprob[:2].nan_to_num(neginf=0).sum()
            grads.append(torch.autograd.grad(loss + got.entropy.sum(), x)[0])
        assert torch.equal(*grads)

    def test_not_over_a_leaf(self):
        with pytest.raises(ValueError, match="inplace_backward must be False for logits that"):
            token_stats(torch.randn(3, 4, requires_grad=True), inplace_backward=True)


class TestTransforms:
    @pytest.mark.parametrize("size", [9, 300])
    def test_gradcheck(self, size):
        x = torch.randn(3, size, dtype=torch.float64, requires_grad=True)
        y = torch.tensor([1, IGNORED, 4])
        f = lambda x: token_stats(x, y, temperature=1.3, stats=GRADS)[:4]  # noqa: E731
        assert torch.autograd.gradcheck(f, x, fast_mode=size > 100)

    def test_second_gradient_is_refused(self):
        """Also beside a term that has one, which would hide that this is missing."""
        x = torch.randn(3, 9, requires_grad=True)
        for in_place in (False, True):
            loss = token_stats(x * 2, inplace_backward=in_place).entropy.sum()
            (g,) = torch.autograd.grad(loss, x, create_graph=True)
            with pytest.raises(NotImplementedError, match="double backward"):
                (g * x).sum().backward()

    def test_forward_mode_is_refused(self):
        with pytest.raises(NotImplementedError, match="forward-mode AD"):
            torch.func.jvp(
                lambda x: token_stats(x).entropy, (torch.randn(3, 9),), (torch.ones(3, 9),)
            )

    def test_func(self):
        x, y = torch.randn(4, 6, 40), torch.randint(40, (4, 6))
        f = lambda x, y: token_stats(x, y).logprob.sum() + token_stats(x).entropy.square().sum()  # noqa: E731
        want = x.clone().requires_grad_()
        (want,) = torch.autograd.grad(f(want, y), want)
        torch.testing.assert_close(torch.func.grad(f)(x, y), want)
        torch.testing.assert_close(torch.vmap(torch.func.grad(f))(x, y), want)

    def test_compiled(self):
        torch._dynamo.reset()
        f = lambda x, y: token_stats(x.sin(), y, stats=ALL)  # noqa: E731
        x, y = torch.randn(4, 40, requires_grad=True), torch.randint(40, (4,))
        got = torch.compile(f, fullgraph=True, backend="aot_eager")(x, y)
        want = f(x, y)
        for name in ALL:
            torch.testing.assert_close(getattr(got, name), getattr(want, name))
        one, other = ((g.logprob + g.entropy + g.varentropy).sum() for g in (got, want))
        assert torch.equal(torch.autograd.grad(one, x)[0], torch.autograd.grad(other, x)[0])

    def test_exported(self):
        class Head(torch.nn.Module):
            def forward(self, x, y):
                got = token_stats(x, y)
                return got.logprob, got.entropy

        args = torch.randn(3, 5, 40), torch.randint(40, (3, 5))
        batch = torch.export.Dim("batch")
        program = torch.export.export(Head(), args, dynamic_shapes=({0: batch}, {0: batch}))
        args = torch.randn(7, 5, 40), torch.randint(40, (7, 5))
        for one, other in zip(program.module()(*args), Head()(*args), strict=True):
            torch.testing.assert_close(one, other)

    def test_opcheck(self):
        x, y = torch.randn(2, 3, 40, requires_grad=True), torch.randint(40, (2, 3))
        torch.library.opcheck(torch.ops.synops.token_stats.default, (x, y, 1.5, IGNORED, 127))
        torch.library.opcheck(torch.ops.synops.token_stats.default, (x.detach(), None, 1.0, 0, 2))
        *_, most = torch.ops.synops.token_stats(x.detach(), y, 1.5, IGNORED, 127)
        got = torch.ops.synops.token_stats(x.detach(), y, 1.5, IGNORED, 127)
        args = (y, 1.5, IGNORED, most, got[4], got[1], got[2], got[5], *[torch.ones(2, 3)] * 5)
        torch.library.opcheck(torch.ops.synops.token_stats_backward.default, (x.detach(), *args))
        torch.library.opcheck(torch.ops.synops.token_stats_backward_.default, (x.detach(), *args))


WRONG = [
    ({"logits": [1.0]}, TypeError, "logits must be a torch.Tensor, got list"),
    ({"logits": torch.ones(3, 5, dtype=torch.long)}, TypeError, "logits must be float32, float64"),
    ({"logits": torch.tensor(1.0)}, ValueError, r"logits must have shape \(..., V\), got \(\)"),
    ({"labels": torch.zeros(2)}, TypeError, "labels must be a tensor of integers, got float32"),
    ({"labels": [1, 2, 3]}, TypeError, "labels must be a tensor of integers, got list"),
    ({"labels": torch.zeros(2, dtype=torch.long)}, ValueError, r"labels must have shape \(3,\)"),
    ({"labels": torch.tensor([0, 5, 1])}, IndexError, r"labels must lie in \[0, 5\) .*, got 5"),
    ({"labels": torch.tensor([0, -1, 1])}, IndexError, r"labels must lie in \[0, 5\) .*, got -1"),
    ({"temperature": 0.0}, ValueError, "temperature must be positive and finite, got 0.0"),
    ({"temperature": -1}, ValueError, "temperature must be positive and finite, got -1"),
    ({"temperature": math.nan}, ValueError, "temperature must be positive and finite, got nan"),
    ({"temperature": math.inf}, ValueError, "temperature must be positive and finite, got inf"),
    ({"temperature": "1"}, TypeError, "temperature must be a number, got str"),
    ({"stats": ("entrpy",)}, ValueError, "stats must be of logprob, .*, got 'entrpy'"),
    ({"stats": ("received",)}, ValueError, "stats must be of logprob"),
    ({"stats": 3}, TypeError, "stats must be names of statistics, got int"),
    ({"stats": "logprob"}, ValueError, "labels must be given for logprob, got None"),
    ({"backend": "cuda"}, ValueError, "backend"),
]


@pytest.mark.parametrize(
    ("change", "error", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))]
)
def test_wrong_arguments(change, error, message):
    args = {"logits": torch.randn(3, 5), "labels": None} | change
    with pytest.raises(error, match=message):
        token_stats(args.pop("logits"), args.pop("labels"), **args)


class TestRawOp:
    """Memory-safe whatever it is called with."""

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ((torch.randn(3, 5), None, 1.0, -100, 2), "3 dimensions"),
            ((torch.ones(1, 3, 5).long(), None, 1.0, -100, 2), "floating point"),
            ((torch.randn(1, 3, 5), torch.tensor([[0, 5, 0]]), 1.0, -100, 1), r"lie in \[0, 5\)"),
            ((torch.randn(1, 3, 5), torch.tensor([[0, 1]]), 1.0, -100, 1), "size 1"),
            ((torch.randn(1, 3, 5), torch.zeros(1, 3), 1.0, -100, 1), "dtype"),
            ((torch.randn(1, 3, 5), None, 0.0, -100, 2), "temperature"),
        ],
    )
    def test_forward(self, args, message):
        with pytest.raises(RuntimeError, match=message):
            torch.ops.synops.token_stats(*args)

    def test_backward(self):
        x, row = torch.randn(1, 3, 5), torch.zeros(1, 3)
        good = [None, 1.0, -100, row, row, row, row, row, None, row, row, row, row]
        torch.ops.synops.token_stats_backward(x, *good)
        for at, value, message in (
            (3, torch.zeros(1, 2), "max_logit"),
            (4, torch.zeros(3), "max_prob"),
            (5, None, "entropy is missing"),
            (6, None, "varentropy is missing"),
            (7, None, "collision is missing"),
            (8, row, "needs labels"),
            (9, row.double(), "grad_entropy has the wrong dtype"),
        ):
            bad = list(good)
            bad[at] = value
            with pytest.raises(RuntimeError, match=message):
                torch.ops.synops.token_stats_backward(x, *bad)


def test_names():
    """The bits of the op are those of the names, in every layer."""
    module = importlib.import_module("synops.entropy._stats")
    assert {n: 1 << i for i, n in enumerate((*ALL, "received"))} == module.BIT
    assert reference("token_stats").__module__ == "synops._reference.entropy.token_stats"
    assert synops.which("token_stats", torch.randn(1, 2, 3), None, 1.0, -100, 2)
