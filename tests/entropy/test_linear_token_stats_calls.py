"""linear_token_stats as it is called: transforms, compilers, raw ops, and bad arguments."""

import pytest
import torch
from heads import DIFFERENTIABLE, STATS, head

from synops import _library
from synops.entropy import linear_token_stats

OPS = torch.ops.synops


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()


def both(x, w, y, b):
    got = linear_token_stats(x, w, y, b, temperature=0.5)
    return got.logprob + 2 * got.entropy


class TestDerivatives:
    @pytest.mark.parametrize("name", DIFFERENTIABLE)
    def test_gradcheck(self, name):
        h = head(5, 4, 9, torch.float64).leaves()

        def call(x, w, b):
            return getattr(linear_token_stats(x, w, h.labels, b, stats=name), name)

        assert torch.autograd.gradcheck(call, h.inputs())

    def test_func(self):
        h = head(6, 4, 20)
        leaves = h.leaves()
        want = torch.autograd.grad(both(*leaves).sum(), leaves.inputs())
        got = torch.func.grad(lambda *args: both(*args).sum(), (0, 1, 3))(*h)
        for one, other in zip(got, want, strict=True):
            torch.testing.assert_close(one, other)

    def test_vmap(self):
        h = head(6, 4, 20)
        stack = torch.stack([h.hidden, -h.hidden, h.hidden / 2])
        labels = torch.stack([h.labels, h.labels, h.labels.flip(0)])
        got = torch.vmap(both, (0, None, 0, None))(stack, h.weight, labels, h.bias)
        for one, x, y in zip(got, stack, labels, strict=True):
            assert torch.equal(one, both(x, h.weight, y, h.bias))
        weights = torch.stack([h.weight, h.weight * 2])
        got = torch.vmap(both, (None, 0, None, None))(h.hidden, weights, h.labels, h.bias)
        assert torch.equal(got[1], both(h.hidden, weights[1], h.labels, h.bias))

    def test_twice_is_refused(self):
        h = head(6, 4, 20).leaves()
        (grad,) = torch.autograd.grad(both(*h).sum(), h.hidden, create_graph=True)
        # beside a term that has a gradient, which would hide that this one is missing
        with pytest.raises(NotImplementedError, match="double backward"):
            torch.autograd.grad((grad * h.hidden).sum(), h.hidden)

    def test_forward_mode_is_refused(self):
        h = head(6, 4, 20)
        with pytest.raises(NotImplementedError, match="forward-mode AD"):
            torch.func.jvp(lambda x: both(x, *h[1:]), (h.hidden,), (h.hidden,))


class TestCompile:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_function(self, dtype):
        h = head(6, 4, 20, dtype)
        compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
        results = []
        for call in (compiled, both):
            leaves = h.leaves()
            got = call(*leaves)
            results.append([got, *torch.autograd.grad(got.sum(), leaves.inputs())])
        for one, other in zip(*results, strict=True):
            assert torch.equal(one, other)

    def test_export(self):
        class Module(torch.nn.Module):
            def forward(self, x, w, y):
                return linear_token_stats(x, w, y, stats=("logprob", "collision"))[0]

        h = head(6, 4, 20)
        program = torch.export.export(Module(), (h.hidden, h.weight, h.labels))
        assert torch.equal(program.module()(*h[:3]), Module()(*h[:3]))


def arguments(dtype=torch.float32):
    """A valid call of each raw op by argument name."""
    h = head(6, 4, 20, dtype)
    common = h._asdict()
    forward = {
        **{k: common[k] for k in ("hidden", "weight", "labels", "bias")},
        "temperature": 0.5,
        "ignore_index": -100,
        "stats": 127,
    }
    *results, saved = OPS.linear_token_stats(*forward.values())
    grads = {f"grad_{n}": torch.randn_like(results[STATS.index(n)]) for n in DIFFERENTIABLE}
    backward = {
        **{k: forward[k] for k in ("hidden", "weight", "labels", "bias")},
        "saved": saved,
        **grads,
        "temperature": 0.5,
        "need_hidden": True,
        "need_weight": True,
        "need_bias": True,
    }
    return {"linear_token_stats": forward, "linear_token_stats_backward": backward}


RAW = {
    "hidden": (
        torch.randn(6),
        torch.randn(6, 5),
        torch.randn(6, 4).double(),
        torch.ones(6, 4).int(),
    ),
    "weight": (torch.randn(20), torch.randn(20, 3), torch.randn(20, 4).bfloat16()),
    "labels": (
        torch.zeros(5, dtype=torch.int64),
        torch.zeros(6, 1, dtype=torch.int64),
        torch.zeros(6, dtype=torch.int32),
    ),
    "bias": (torch.randn(19), torch.randn(20, 1), torch.randn(20).double()),
    "saved": (torch.randn(5, 6), torch.randn(6, 5), torch.randn(6), torch.randn(6, 6).double()),
    "grad_entropy": (torch.randn(5), torch.randn(6, 1), torch.randn(6).double()),
    "temperature": (0.0, -1.0, torch.nan, torch.inf),
}


class TestRawOps:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("name", ["linear_token_stats", "linear_token_stats_backward"])
    def test_opcheck(self, name, dtype):
        args = arguments(dtype)[name]
        for key in ("hidden", "weight", "bias") if name == "linear_token_stats" else ():
            args[key] = args[key].requires_grad_()
        torch.library.opcheck(getattr(OPS, name).default, tuple(args.values()))

    @pytest.mark.parametrize("needed", range(8))
    def test_backward_is_the_reference(self, needed):
        args = arguments(torch.float64)["linear_token_stats_backward"]
        for i, key in enumerate(("need_hidden", "need_weight", "need_bias")):
            args[key] = bool(needed >> i & 1)
        got = OPS.linear_token_stats_backward(*args.values())
        want = _library.reference("linear_token_stats_backward")(*args.values())
        for one, other in zip(got, want, strict=True):
            torch.testing.assert_close(one, other)

    def test_reference_is_its_own_gradient(self):
        """The formula of the backward against autograd of the forward, in the reference."""
        args = arguments(torch.float64)
        forward = args["linear_token_stats"]
        inputs = [forward[k].requires_grad_() for k in ("hidden", "weight", "bias")]
        results = _library.reference("linear_token_stats")(*forward.values())
        backward = args["linear_token_stats_backward"]
        at = [STATS.index(n) for n in DIFFERENTIABLE]
        grads = [backward[f"grad_{n}"] for n in DIFFERENTIABLE]
        want = torch.autograd.grad([results[i] for i in at], inputs, grads)
        got = _library.reference("linear_token_stats_backward")(*backward.values())
        for one, other in zip(got, want, strict=True):
            torch.testing.assert_close(one, other)

    @pytest.mark.parametrize("key", RAW)
    @pytest.mark.parametrize("name", ["linear_token_stats", "linear_token_stats_backward"])
    def test_bad_arguments(self, name, key):
        for bad in RAW[key]:
            args = arguments()[name]
            if key not in args:
                return
            args[key] = bad
            with pytest.raises(RuntimeError):
                getattr(OPS, name)(*args.values())

    @pytest.mark.parametrize("label", [-1, 20, 2**62, -(2**63)])
    def test_labels_out_of_range(self, label):
        args = arguments()
        for op in args.values():
            op["labels"] = op["labels"].clone()
            op["labels"][3] = label
        with pytest.raises(RuntimeError, match="out of range for 20 classes"):
            OPS.linear_token_stats(*args["linear_token_stats"].values())
        # matches no row of the weight
        OPS.linear_token_stats_backward(*args["linear_token_stats_backward"].values())

    def test_logprob_needs_labels(self):
        args = arguments()["linear_token_stats"] | {"labels": None}
        with pytest.raises(RuntimeError, match="logprob needs labels"):
            OPS.linear_token_stats(*args.values())


H = head(6, 4, 20)
X, W, Y, B = H
BAD = {
    "hidden: no tensor": ((None, W), {}, TypeError, "hidden must be a torch.Tensor, got NoneType"),
    "hidden: integers": ((X.int(), W), {}, TypeError, "hidden must be float32, float64"),
    "hidden: width": (
        (X[:, :3], W),
        {},
        ValueError,
        "hidden must have shape (..., D) = (..., 4), got (6, 3)",
    ),
    "hidden: 0-D": (
        (X[0, 0], W),
        {},
        ValueError,
        "hidden must have shape (..., D) = (..., 4), got",
    ),
    "weight: dtype": (
        (X, W.double()),
        {},
        TypeError,
        "weight must have the dtype of hidden (float32), got float64",
    ),
    "weight: 1-D": ((X, W[0]), {}, ValueError, "weight must have 2 dimensions (V, D), got (4,)"),
    "weight: device": (
        (X, W.to("meta")),
        {},
        ValueError,
        "weight must be on the device of hidden (cpu), got meta",
    ),
    "labels: shape": (
        (X, W, Y[:5]),
        {},
        ValueError,
        "labels must have shape (...) = (6,), got (5,)",
    ),
    "labels: dtype": ((X, W, Y.int()), {}, TypeError, "labels must be int64, got int32"),
    "labels: no tensor": ((X, W, [1]), {}, TypeError, "labels must be a torch.Tensor, got list"),
    "labels: too high": (
        (X, W, Y.clone().index_fill_(0, torch.tensor(2), 20)),
        {},
        IndexError,
        "labels must lie in [0, 20) or be ignore_index (-100), got 20",
    ),
    "labels: too low": (
        (X, W, Y.clone().index_fill_(0, torch.tensor(2), -1)),
        {},
        IndexError,
        "labels must lie in [0, 20) or be ignore_index (-100), got -1",
    ),
    "labels: of no classes": (
        (X, W[:0], torch.zeros(6, dtype=torch.int64)),
        {},
        IndexError,
        "labels must lie in [0, 0)",
    ),
    "labels: none": (
        (X, W),
        {"stats": "logprob"},
        ValueError,
        "labels must be given for logprob, got None",
    ),
    "bias: shape": (
        (X, W, Y, B[:3]),
        {},
        ValueError,
        "bias must have shape (V,) = (20,), got (3,)",
    ),
    "bias: dtype": ((X, W, Y, B.double()), {}, TypeError, "bias must have the dtype of hidden"),
    "stats: unknown": ((X, W), {"stats": "perplexity"}, ValueError, "stats must be of logprob,"),
    "stats: of attention": ((X, W), {"stats": "received"}, ValueError, "stats must be of logprob,"),
    "temperature: 0": (
        (X, W),
        {"temperature": 0},
        ValueError,
        "temperature must be positive and finite, got 0",
    ),
    "temperature: NaN": (
        (X, W),
        {"temperature": float("nan")},
        ValueError,
        "temperature must be positive and finite, got nan",
    ),
    "temperature: tensor": (
        (X, W),
        {"temperature": torch.tensor(1.0)},
        TypeError,
        "temperature must be a number, got Tensor",
    ),
}


@pytest.mark.parametrize(("args", "options", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(args, options, error, message):
    with pytest.raises(error) as raised:
        linear_token_stats(*args, **options)
    assert str(raised.value).startswith(f"linear_token_stats: {message}")
