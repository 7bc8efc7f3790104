"""lif as it is called: layouts, edges, transforms, bad arguments, raw ops."""

import math

import pytest
import torch

import synops
from synops.spiking import lif


def same(x, **options):
    """Equal to the call on a dense copy, with gradients."""
    got, want = lif(x, beta=0.9, **options), lif(x.contiguous(), beta=0.9, **options)
    assert torch.equal(got.spikes, want.spikes)
    assert torch.equal(got.v, want.v)
    grads = []
    for t in (x, x.contiguous()):
        leaf = t.detach().requires_grad_()
        spikes = lif(leaf, beta=0.9, **options).spikes
        grads.append(torch.autograd.grad(spikes, leaf, torch.ones_like(want.spikes).cumsum(0))[0])
    assert torch.equal(*grads)
    return got


class TestLayout:
    def test_shapes(self):
        for shape in ((5, 3), (5, 2, 3), (5, 2, 4, 3), (5, 2, 2, 2, 3)):
            x = torch.randn(shape)
            got = lif(x, beta=0.9, record="v")
            want = lif(x.reshape(5, -1, 3), beta=0.9, record="v")
            assert got.spikes.shape == got.trajectory.shape == shape
            assert got.v.shape == shape[1:]
            assert torch.equal(got.spikes.reshape(5, -1, 3), want.spikes)
            assert torch.equal(got.v.reshape(-1, 3), want.v)

    @pytest.mark.usefixtures("isa")
    def test_rows_anywhere(self):
        """Batch first, every other step, cut rows: NaN in between is not read."""
        x = torch.full((4, 8, 40), torch.nan)  # (batch, time, neurons)
        x[:, :6, 3:36] = torch.randn(4, 6, 33)
        cut = x[:, :6, 3:36].transpose(0, 1)
        assert same(cut).spikes.isfinite().all()
        same(cut[::2])
        same(cut[:, 1:3])
        same(cut.flip(0)[:, ::3])
        same(torch.randn(6, 1, 5).expand(6, 3, 5))
        same(torch.randn(6, 5, 3).transpose(1, 2), threshold=torch.rand(5))

    @pytest.mark.parametrize("threshold", [1.0, torch.rand(7)], ids=["one", "each"])
    def test_channels_last(self, threshold):
        """Walked in the order of memory, which the results keep."""
        x = torch.randn(4 * 2, 3, 5, 7).to(memory_format=torch.channels_last).unflatten(0, (4, 2))
        got = same(x, threshold=threshold, v0=torch.randn(2, 3, 5, 7))
        assert got.spikes.stride() == x.stride()
        assert got.v.stride() == x.stride()[1:]
        with torch.autograd.profiler.profile() as profile:
            lif(x, beta=0.9)
        assert not {"aten::copy_", "aten::clone"} & {e.name for e in profile.function_events}

    def test_incoming_gradients_anywhere(self):
        x = torch.randn(5, 3, 8, requires_grad=True)
        for g in (torch.ones(()).expand(5, 3, 8), torch.randn(3, 5, 8).transpose(0, 1)):
            (got,) = torch.autograd.grad(lif(x, beta=0.9).spikes, x, g)
            (want,) = torch.autograd.grad(lif(x, beta=0.9).spikes, x, g.contiguous())
            assert torch.equal(got, want)

    def test_offsets_beyond_32_bits(self, tmp_path):
        """Steps 2^30 elements apart, in a file that is one hole."""
        size = 2**31 + 64
        file = torch.from_file(str(tmp_path / "x"), shared=True, size=size, dtype=torch.float16)
        x = file.as_strided((3, 1, 40), (2**30, 40, 1))
        x.copy_(torch.randn(3, 1, 40))
        same(x)

    @pytest.mark.usefixtures("isa")
    def test_streamed(self):
        """Results as large as the caches go past them; the same bits, also where the rows do not
        begin at multiples of a vector."""
        for neurons in (1024, 1023):
            x = torch.randn(9, 260, neurons)
            whole = lif(x, beta=0.9, record="v")
            parts = [lif(part, beta=0.9, record="v") for part in x.split(20, dim=1)]
            assert torch.equal(whole.spikes, torch.cat([p.spikes for p in parts], 1))
            assert torch.equal(whole.trajectory, torch.cat([p.trajectory for p in parts], 1))


class TestEdges:
    @pytest.mark.parametrize("delayed", [False, True])
    def test_no_steps(self, delayed):
        v0 = torch.randn(2, 5, requires_grad=True)
        beta = torch.tensor(0.5, requires_grad=True)
        got = lif(torch.zeros(0, 2, 5), v0, beta=beta, delayed_reset=delayed, record="v")
        assert torch.equal(got.v, v0)
        assert got.spikes.shape == got.trajectory.shape == (0, 2, 5)
        g = torch.randn(2, 5)
        of_v0, of_beta = torch.autograd.grad(got.v, (v0, beta), g)
        assert torch.equal(of_v0, g)
        assert of_beta == 0

    @pytest.mark.parametrize("shape", [(3, 0, 5), (3, 2, 0), (0, 0, 0), (0, 4), (4, 0, 2, 3)])
    def test_no_neurons(self, shape):
        x = torch.zeros(shape, requires_grad=True)
        beta = torch.full(shape[-1:], 0.5, requires_grad=True)
        got = lif(x, beta=beta, record="v")
        assert got.spikes.shape == got.trajectory.shape == shape
        got.spikes.sum().backward()
        assert x.grad.shape == shape
        assert not beta.grad.any()

    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
    @pytest.mark.parametrize("delayed", [False, True])
    def test_nan_and_inf(self, delayed, reset):
        x = torch.zeros(3, 1, 19)
        x[1, 0, 2] = torch.nan
        x[1, 0, 5] = torch.inf
        got = lif(x, beta=0.5, reset=reset, delayed_reset=delayed)
        assert got.v[0, 2].isnan()
        assert not got.spikes[:, 0, 2].any()
        assert got.spikes[1, 0, 5] == 1
        if reset == "zero":
            assert got.v[0, 5] == 0
        elif not delayed or reset == "none":
            assert got.v[0, 5] == torch.inf
        others = [i for i in range(19) if i not in (2, 5)]
        assert not got.spikes[:, 0, others].any()
        want = lif(x, beta=0.5, reset=reset, delayed_reset=delayed, backend="reference")
        torch.testing.assert_close(got.v, want.v, equal_nan=True)
        assert torch.equal(got.spikes, want.spikes)

    def test_at_the_threshold(self):
        x = torch.tensor([[1.0, 1.5, 0.5]])
        assert lif(x, beta=0.5).spikes.tolist() == [[0, 1, 0]]
        assert lif(x, beta=0.5, inclusive=True).spikes.tolist() == [[1, 1, 0]]
        negative = lif(torch.zeros(1, 3), beta=0.5, threshold=-1.0, delayed_reset=True)
        assert negative.v.tolist() == [1, 1, 1]  # what rests at 0 was above

    def test_decay(self):
        """beta = exp(-dt / tau): after tau, 1 / e is left (times in ms)."""
        got = lif(torch.zeros(20, 1), torch.ones(1), beta=math.exp(-1 / 20), threshold=2.0)
        assert got.v == pytest.approx(math.exp(-1), rel=1e-6)

    def test_one_number_in_any_form(self):
        x = torch.randn(5, 2, 4)
        want = lif(x, beta=0.5, threshold=0.8)
        for beta in (torch.tensor(0.5), torch.tensor([0.5]), torch.full((4,), 0.5), 0.5):
            got = lif(x, beta=beta, threshold=torch.tensor([[0.8]], dtype=torch.float64))
            assert torch.equal(got.spikes, want.spikes)
        beta = torch.tensor([0.5], requires_grad=True)
        lif(x, beta=beta).spikes.sum().backward()
        assert beta.grad.shape == (1,)


class TestTransforms:
    def test_second_gradient_is_refused(self):
        """Also beside a term that has one, which would hide that this is missing."""
        x = torch.randn(4, 2, 3, requires_grad=True)
        for options in ({}, {"delayed_reset": True, "record": "v"}):
            spikes = lif(x * 2, beta=0.9, **options).spikes
            (g,) = torch.autograd.grad(spikes.sum(), x, create_graph=True)
            with pytest.raises(NotImplementedError, match="double backward"):
                (g * x).sum().backward()

    def test_forward_mode_is_refused_and_the_references(self):
        x, t = torch.randn(4, 2, 3), torch.randn(4, 2, 3)
        with pytest.raises(NotImplementedError, match="forward-mode AD"):
            torch.func.jvp(lambda x: lif(x, beta=0.9).spikes, (x,), (t,))
        f = lambda x: lif(x, beta=0.9, backend="reference").spikes.square().sum()  # noqa: E731
        _, tangent = torch.func.jvp(f, (x,), (t,))
        torch.testing.assert_close(tangent, (torch.func.grad(f)(x) * t).sum())

    def test_func(self):
        x, beta = torch.randn(3, 5, 2, 4), torch.rand(4)
        f = lambda x, beta: lif(x, beta=beta).spikes.cumsum(0).sum()  # noqa: E731
        want = [t.clone().requires_grad_() for t in (x[0], beta)]
        want = torch.autograd.grad(f(*want), want)
        for one, other in zip(torch.func.grad(f, (0, 1))(x[0], beta), want, strict=True):
            torch.testing.assert_close(one, other)
        mapped = torch.vmap(torch.func.grad(f, (0, 1)), (0, None))(x, beta)
        for one, other in zip(mapped, want, strict=True):
            torch.testing.assert_close(one[0], other)
        outside = torch.func.grad(lambda b: torch.vmap(f, (0, None))(x, b).sum())(beta)
        torch.testing.assert_close(outside, mapped[1].sum(0))

    def test_compiled(self):
        torch._dynamo.reset()

        def f(x, v0, beta):
            return lif(x.sin(), v0, beta=beta, record="v")

        compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
        v0 = torch.randn(2, 4)
        for steps in (3, 5, 8):  # from the second on for any number
            leaves = torch.randn(steps, 2, 4, requires_grad=True), torch.rand(4, requires_grad=True)
            got, want = (g(leaves[0], v0, leaves[1]) for g in (compiled, f))
            one, other = (
                torch.autograd.grad(r.spikes.sum() + r.trajectory.sum() + r.v.sum(), leaves)
                for r in (got, want)
            )
            for a, b in zip((*got, *one), (*want, *other), strict=True):
                torch.testing.assert_close(a, b)

    def test_exported(self):
        class Layer(torch.nn.Module):
            def forward(self, x):
                got = lif(x, beta=0.9)
                return got.spikes, got.v

        steps, batch = torch.export.Dim("steps"), torch.export.Dim("batch")
        program = torch.export.export(
            Layer(), (torch.randn(3, 2, 4),), dynamic_shapes=({0: steps, 1: batch},)
        )
        x = torch.randn(6, 5, 4)
        for one, other in zip(program.module()(x), Layer()(x), strict=True):
            assert torch.equal(one, other)

    def test_opcheck(self):
        x, v0 = torch.randn(4, 2, 5, requires_grad=True), torch.randn(2, 5, requires_grad=True)
        beta, threshold = torch.tensor(0.9, requires_grad=True), torch.rand(5, requires_grad=True)
        rule = (0, True, False, True, 1, 2.0)
        # the trajectory is the membrane here
        torch.library.opcheck(
            torch.ops.synops.lif.default, (x, v0, beta, threshold, *rule, 0, 0, True)
        )
        x, beta, threshold = x.detach(), beta.detach(), threshold.detach()
        torch.library.opcheck(
            torch.ops.synops.lif.default, (x, None, beta, threshold, *rule, 2, 2, False)
        )
        torch.library.opcheck(
            torch.ops.synops.lif_backward.default,
            (x, v0.detach(), None, x, None, beta, threshold, *rule, 0, True, True, True, False),
        )

    def test_which(self):
        assert "cpp" in str(synops.which(lif, torch.randn(3, 2, 4), beta=0.9)).lower()


WRONG = [
    ({"input": [1.0]}, TypeError, "input must be a torch.Tensor, got list"),
    ({"input": torch.ones(3, 2, dtype=torch.int)}, TypeError, "input must be float32, float64"),
    ({"input": torch.ones(3)}, ValueError, r"input must have shape \(T, ..., N\), got \(3,\)"),
    ({"v0": torch.zeros(3)}, ValueError, r"v0 must have shape \(..., N\) = \(2, 4\), got \(3,\)"),
    ({"v0": 0.0}, TypeError, "v0 must be a torch.Tensor, got float"),
    ({"beta": 1.5}, ValueError, r"beta must lie in \[0, 1\], got 1.5"),
    ({"beta": math.nan}, ValueError, r"beta must lie in \[0, 1\], got nan"),
    ({"beta": "0.9"}, TypeError, "beta must be a number, got str"),
    ({"beta": torch.ones(3)}, ValueError, r"beta must have shape \(\) or \(N,\) = \(4,\)"),
    ({"beta": torch.ones(4).int()}, TypeError, "beta must be float32, float64"),
    ({"threshold": math.inf}, ValueError, "threshold must be finite, got inf"),
    ({"threshold": True}, TypeError, "threshold must be a number, got bool"),
    ({"reset": "soft"}, ValueError, "reset must be one of subtract, zero, none, got 'soft'"),
    ({"reset": None}, TypeError, "reset must be one of subtract, zero, none, got NoneType"),
    ({"surrogate": "relu"}, ValueError, "surrogate must be one of fast_sigmoid, .*, got 'relu'"),
    ({"slope": 0}, ValueError, "slope must be positive and finite, got 0"),
    ({"spikes": "bit"}, ValueError, "spikes must be one of float, uint8, bits, got 'bit'"),
    ({"save": "bf16"}, ValueError, "save must be one of full, half, got 'bf16'"),
    (
        {"save": "half", "input": torch.ones(3, 2, 4).double()},
        ValueError,
        "save must be 'full' for float64 input, got 'half'",
    ),
    (
        {"spikes": "bits", "input": torch.ones(3, 2, 4, requires_grad=True)},
        ValueError,
        "spikes must be 'float' where a gradient is needed, got 'bits'",
    ),
    ({"record": "u"}, ValueError, "record must be one of v, got 'u'"),
    ({"backend": "cuda"}, ValueError, "backend"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=[m for *_, m in WRONG])
def test_wrong_arguments(change, error, message):
    args = {"input": torch.randn(3, 2, 4), "beta": 0.9} | change
    with pytest.raises(error, match=message):
        lif(args.pop("input"), **args)


GOOD = {
    "input": torch.randn(3, 2, 4),
    "v0": torch.randn(2, 4),
    "beta": torch.tensor(0.9),
    "threshold": torch.rand(4),
    "reset": 0,
    "surrogate": 0,
    "slope": 2.0,
    "spikes": 1,
    "save": 2,
}


UNSAFE = [
    ({"input": torch.randn(3, 4)}, "3 dimensions"),
    ({"input": torch.ones(3, 2, 4).int()}, "floating point"),
    ({"v0": torch.randn(2, 5)}, "v0"),
    ({"v0": torch.randn(4, 2)}, "v0"),
    ({"v0": torch.randn(2, 4).double()}, "v0 has the wrong dtype"),
    ({"beta": torch.rand(3)}, "beta"),
    ({"beta": torch.rand(2, 4)}, "beta must have 1 dimensions"),
    ({"threshold": torch.rand(4).half()}, "threshold has the wrong dtype"),
    ({"reset": 3}, "reset must be 0, 1 or 2, got 3"),
    ({"surrogate": 7}, "surrogate must be 0 to 6, got 7"),
    ({"slope": math.nan}, "slope must be positive, got nan"),
    ({"spikes": 3}, "spikes must be 0, 1 or 2, got 3"),
    ({"save": -1}, "save must be 0, 1 or, but for float64, 2, got -1"),
]


class TestRawOp:
    """Memory-safe whatever it is called with."""

    @pytest.mark.parametrize(("change", "message"), UNSAFE, ids=range(len(UNSAFE)))
    def test_forward(self, change, message):
        def call(input, v0, beta, threshold, reset, surrogate, slope, spikes, save):
            rule = (reset, False, False, True, surrogate, slope)
            return torch.ops.synops.lif(input, v0, beta, threshold, *rule, spikes, save, True)

        call(**GOOD)
        with pytest.raises(RuntimeError, match=message):
            call(**GOOD | change)

    def test_backward(self):
        x, v = torch.randn(3, 2, 4), torch.randn(2, 4)
        rule = [0, False, False, True, 0, 2.0, 0]
        good = [x, v, x, x, v, torch.tensor(0.9), torch.rand(4), *rule, *[True] * 4]
        torch.ops.synops.lif_backward(*good)
        for at, value, message in (
            (0, x[:2], "steps of grad_spikes"),
            (0, x.half(), "grad_spikes has the wrong dtype"),
            (1, x, "grad_v must have 2"),
            (2, x[:, :1], "rows of grad_trajectory"),
            (3, x.bfloat16(), "membrane has the wrong dtype"),
            (3, x.double(), "membrane has the wrong dtype"),
            (4, v[:, :3], "neurons of v0"),
            (5, torch.rand(2), "beta"),
            (13, 3, "half must be 0, 1 or 2"),
            (13, 1, "grad_spikes has the wrong dtype"),
        ):
            bad = list(good)
            bad[at] = value
            with pytest.raises(RuntimeError, match=message):
                torch.ops.synops.lif_backward(*bad)

    def test_a_backward_without_a_membrane(self):
        x = torch.randn(3, 2, 4, requires_grad=True)
        one = torch.tensor(0.9)
        spikes, *_ = torch.ops.synops.lif(
            x, None, one, one, 0, False, False, True, 0, 2.0, 0, 0, False
        )
        with pytest.raises(RuntimeError, match="not saved"):
            spikes.sum().backward()
        _, _, membrane, _ = torch.ops.synops.lif(
            x, None, one, one, 0, False, False, True, 0, 2.0, 0, 1, False
        )
        with pytest.raises(RuntimeError, match="has no gradient"):
            membrane.sum().backward()
