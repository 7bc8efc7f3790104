"""recurrent_lif against float64, against plain torch bit for bit, and against what others do."""

import itertools

import pytest
import torch
from lif_samples import DTYPES
from recurrent_samples import NAMES, check, gradients, incoming_for, run, sample

from synops._library import reference
from synops.sparse import Pattern
from synops.spiking import lif, recurrent_lif
from synops.spiking._neurons import RESETS, SURROGATES

# Each reset with and without a delay, each kind of weight and of beta, and shapes at the edges of
# the kernels: (T, B, N) and the rest.
CASES = [
    ((5, 3, 17), {"reset": "subtract"}),  # one vector and one neuron
    ((4, 2, 130), {"surrogate": "boxcar", "one_beta": True}),  # a panel of float32 and two columns
    ((5, 9, 20), {"surrogate": "triangle", "one_beta": True, "level": 24}),  # rows as a whole
    ((3, 1, 5), {"reset": "subtract", "delayed_reset": True, "density": 0.4, "inclusive": True}),
    ((6, 2, 33), {"reset": "zero", "surrogate": "qgate", "one_beta": True, "detach_reset": False}),
    ((4, 14, 64), {"reset": "zero", "delayed_reset": True, "surrogate": "atan", "start": False}),
    ((2, 2, 1030), {"surrogate": "sigmoid", "detach_reset": False}),  # past a tile of neurons
    ((5, 3, 70), {"reset": "none", "surrogate": "boxcar", "density": 0.95, "one_beta": True}),
    ((6, 250, 3), {"surrogate": "qgate", "start": False}),  # more than a block of rows
    ((1, 1, 1), {"delayed_reset": True, "surrogate": "boxcar", "one_beta": True}),
    ((5, 3, 40), {"delayed_reset": True, "surrogate": "boxcar", "one_beta": True, "level": -8}),
    ((3, 4, 50), {"density": 0.3, "surrogate": "triangle", "one_beta": True, "level": 24}),
    ((3, 70, 20), {"density": 0.5, "surrogate": "atan"}),  # past the rows that are gathered at once
    ((2, 20, 9), {"density": 0.6, "reset": "zero"}),
]


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("i", range(len(CASES)))
def test_reference(i):
    """Results and all gradients; every type, in turn."""
    shape, options = CASES[i]
    s = sample(shape, **options)
    for dtype in (torch.float32, DTYPES[1 + i % 3]):
        got = check(s, dtype)
    if options.get("level", 0) > 0:
        assert got.spikes.mean() > 0.5


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_backward_is_autograds_of_the_definition(reset):
    """The formulas of the reference's backward, too; of dense weights and of a Pattern."""
    for delayed, detach, density in itertools.product((False, True), (False, True), (None, 0.5)):
        rule = {"reset": reset, "delayed_reset": delayed, "detach_reset": detach}
        s = sample((4, 2, 5), density=density, surrogate="atan", **rule)
        s.threshold[0] = -0.5
        spikes, _, v, trajectory = incoming = incoming_for(s)
        incoming[1] = None  # a view of the spikes
        want = gradients(s, incoming, backend="reference")
        pattern = s.rule.get("pattern")
        args = [s.weight, s.spikes, s.v, s.beta, s.threshold]
        args += [None, None] if pattern is None else [pattern.crow, pattern.col]
        codes = (RESETS[reset], delayed, False, detach, SURROGATES["atan"], 2.5)
        membrane = reference("recurrent_lif")(s.input, *args, *codes, True, False)[2]
        found = reference("recurrent_lif_backward")(
            spikes, v, trajectory, membrane, *args, *codes, 0, *[True] * 6
        )
        for name, g in zip(NAMES, found, strict=True):
            torch.testing.assert_close(g, want[name], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("i", [0, 1, 3, 4])
def test_a_gradient_alone(i):
    """Of each result alone, to each argument alone: what is not needed is not computed."""
    s = sample(*CASES[i][:1], **CASES[i][1])
    incoming = incoming_for(s)
    for k in range(4):
        alone = [g if j == k else None for j, g in enumerate(incoming)]
        want = gradients(s, alone, backend="reference")
        for name in NAMES:
            got = gradients(s, alone, (name,))[name]
            torch.testing.assert_close(got, want[name], rtol=1e-11, atol=1e-12)


def loop(x, weight, beta, threshold):
    v, s, spikes = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
    for x_t in x.unbind(0):
        u = beta * v + torch.addmm(x_t, s, weight.T)
        s = (u > threshold).to(x.dtype)
        v = u - s * threshold
        spikes.append(s)
    return torch.stack(spikes)


class TestBits:
    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_of_the_loop(self, dtype):
        """Sums of weights are exact here, leaks are not: every other rounding is torch's."""
        x = torch.randint(-20, 26, (40, 5, 100)).to(dtype) / 32
        weight = torch.randint(-9, 10, (100, 100)).to(dtype) / 64
        got = recurrent_lif(x, weight, beta=0.9, threshold=1.0)
        assert torch.equal(got.spikes, loop(x, weight, 0.9, 1.0))
        assert 0.02 < got.spikes.mean() < 0.5

    def test_of_lif(self):
        x = torch.randn(20, 3, 30)
        for delayed in (False, True):
            args = {"beta": 0.9, "record": "v", "delayed_reset": delayed}
            want = lif(x, torch.ones(3, 30), **args)
            state = (torch.zeros(3, 30), torch.ones(3, 30))
            got = recurrent_lif(x, torch.zeros(30, 30), state, **args)
            assert torch.equal(got.spikes, want.spikes)
            assert torch.equal(got.trajectory, want.trajectory)

    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("density", [None, 0.3])
    def test_of_lists_and_of_rows_as_a_whole(self, density):
        """Above a half a row is multiplied as a whole: the same sum. Its batch is not in it."""
        x, weight = torch.randn(8, 30, 90) + torch.linspace(-1, 2, 30)[:, None], torch.randn(90, 90)
        pattern = None
        if density is not None:
            pattern = Pattern.from_mask(torch.rand(90, 90) < density)
            weight = pattern.gather(weight)
        weight *= 0.2
        whole = recurrent_lif(x, weight, pattern=pattern, beta=0.9, record="v")
        rates = whole.spikes.mean((0, 2))
        assert rates.min() < 0.1 < 0.6 < rates.max()
        for part in (slice(0, 1), slice(4, 17), slice(29, 30)):
            got = recurrent_lif(x[:, part], weight, pattern=pattern, beta=0.9, record="v")
            assert torch.equal(got.trajectory, whole.trajectory[:, part])
        if density is None:
            weight[3, 4] = torch.inf  # then nothing is multiplied with 0
            got = recurrent_lif(x, weight, beta=0.9, record="v")
            others = [i for i in range(90) if i != 3]
            before = got.spikes.cumsum(0)[..., 4] == 0
            assert before[:2].any()
            assert got.trajectory[:2][before[:2]].isfinite().all()
            assert not got.trajectory[0][:, others].isnan().any()

    def test_of_two_calls(self):
        x, weight = torch.randn(11, 3, 40), torch.randn(40, 40) * 0.3
        for rule in ({}, {"reset": "zero"}, {"delayed_reset": True}):
            whole = recurrent_lif(x, weight, beta=0.9, **rule)
            first = recurrent_lif(x[:4], weight, beta=0.9, **rule)
            second = recurrent_lif(x[4:], weight, first.state, beta=0.9, **rule)
            assert torch.equal(whole.spikes, torch.cat([first.spikes, second.spikes]))
            assert torch.equal(whole.state.v, second.state.v)
            assert torch.equal(whole.state.spikes, whole.spikes[-1])

    @pytest.mark.parametrize(
        ("shape", "density"), [((6, 13, 200), None), ((3, 1, 1100), None), ((6, 13, 300), 0.2)]
    )
    def test_of_threads(self, threads, shape, density):
        """Rows over threads; panels where there is one row; the weight's gradient over panels."""
        s = sample(shape, density=density, surrogate="triangle", one_beta=True).to(torch.float32)
        incoming = incoming_for(s)
        results = []
        for count in (1, 2, 3):
            threads(count)
            results.append((run(s).spikes, *gradients(s, incoming).values()))
        for other in results[1:]:
            assert all(map(torch.equal, results[0], other))


class Step(torch.autograd.Function):
    """A peer's spike: of a shifted membrane, with a surrogate of its own."""

    @staticmethod
    def forward(ctx, d, inclusive, derivative):
        ctx.save_for_backward(d)
        ctx.derivative = derivative
        return (d >= 0 if inclusive else d > 0).to(d.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.derivative(ctx.saved_tensors[0]), None, None


def agree(spikes, states, ours, leaves):
    assert torch.equal(ours.spikes, spikes)
    assert 0.02 < spikes.mean() < 0.9
    torch.testing.assert_close(ours.trajectory, states, rtol=1e-12, atol=1e-12)
    g, h = torch.randn_like(spikes), torch.randn_like(states)
    want = torch.autograd.grad((spikes, states), leaves, (g, h))
    got = torch.autograd.grad((ours.spikes, ours.trajectory), leaves, (g, h))
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


class TestPeers:
    """Their equations in plain torch, float64: the same spikes and gradients."""

    def leaves(self):
        x = (torch.randn(30, 3, 20, dtype=torch.float64) * 0.8 + 0.3).requires_grad_()
        return x, (torch.randn(20, 20, dtype=torch.float64) * 0.3).requires_grad_()

    def test_snntorch(self):
        """RLeaky as its documentation has it, bias included: the reset of a step looks at the
        membrane before it."""
        x, weight = self.leaves()
        bias = torch.randn(20, dtype=torch.float64)
        atan = lambda d: 1 / (1 + (torch.pi * d).square())  # noqa: E731
        mem, s, spikes, states = torch.zeros_like(x[0]), torch.zeros_like(x[0]), [], []
        for x_t in x.unbind(0):
            was_above = Step.apply(mem - 1, False, atan).detach()
            mem = 0.8 * mem + x_t + torch.nn.functional.linear(s, weight, bias) - was_above
            s = Step.apply(mem - 1, False, atan)
            spikes.append(s)
            states.append(mem)
        args = {"beta": 0.8, "delayed_reset": True, "surrogate": "atan", "slope": 2.0}
        ours = recurrent_lif(x + bias, weight, record="v", **args)
        agree(torch.stack(spikes), torch.stack(states), ours, (x, weight))

    def test_spikingjelly(self):
        """LinearRecurrentContainer(LIFNode(tau=2)): one weight for input and spikes."""
        x, recurrent = self.leaves()
        x = torch.cat([x.detach(), x.detach()], 2)[..., :30].clone().requires_grad_()
        weight = torch.cat([torch.randn(20, 30, dtype=torch.float64) * 0.3, recurrent.detach()], 1)
        weight.requires_grad_()
        sigmoid = lambda d: 4 * (4 * d).sigmoid() * (1 - (4 * d).sigmoid())  # noqa: E731
        v, s, spikes, states = *torch.zeros(2, 3, 20, dtype=torch.float64), [], []
        for x_t in x.unbind(0):
            current = torch.nn.functional.linear(torch.cat([x_t, s], 1), weight)
            v = v + (current - v) / 2
            s = Step.apply(v - 0.4, True, sigmoid)
            v = (1 - s) * v
            spikes.append(s)
            states.append(v)
        ours = recurrent_lif(
            x @ weight[:, :30].T / 2, weight[:, 30:] / 2, beta=0.5, threshold=0.4, reset="zero",
            inclusive=True, detach_reset=False, surrogate="sigmoid", slope=4, record="v",
        )  # fmt: skip
        agree(torch.stack(spikes), torch.stack(states), ours, (x, weight))


@pytest.mark.triton
@pytest.mark.parametrize("i", [0, 3, 4, 5, 7])
def test_triton(i):
    """Every kind of weight and reset, each in another type."""
    (steps, rows, n), options = CASES[i]
    rows = 1 if "density" in options else min(rows, 3)  # a program a sum
    check(sample((min(steps, 2), rows, n), **options), DTYPES[i % 4], backend="triton")


@pytest.mark.triton
def test_triton_edges():
    state = torch.ones(2, 5), torch.randn(2, 5)
    got = recurrent_lif(torch.zeros(0, 2, 5), torch.zeros(5, 5), state, beta=0.5, backend="triton")
    assert torch.equal(got.state.v, state[1])
    for shape in ((3, 0, 5), (3, 2, 0)):
        x, weight = torch.zeros(shape), torch.zeros(shape[2], shape[2])
        assert recurrent_lif(x, weight, beta=0.5, backend="triton").spikes.shape == shape
