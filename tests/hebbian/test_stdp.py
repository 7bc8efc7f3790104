"""stdp against float64, against closed forms of spike timing, and the same bits in any form."""

import math

import pytest
import torch
from stdp_samples import RULES, check, loop, run, sample

import synops
from synops import _chunks
from synops.hebbian import STDPState, stdp, stdp_

# (steps, batch, in, out, rate): one step and many; less than a vector, a vector and one, several;
# by events (fewer than a 16th of columns and samples), over all columns, both in one call
SIZES = [
    (1, None, 5, 3, 0.3),
    (1, 1, 70, 9, 0.03),
    (9, None, 33, 17, 0.02),
    (9, 3, 40, 12, 0.02),
    (6, 2, 17, 20, 0.4),
    (20, 1, 96, 4, 0.0625),
]


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("density", [None, 0.4])
@pytest.mark.parametrize("rule", RULES)
def test_reference(rule, density):
    for i, size in enumerate(SIZES):
        dtype = torch.float64 if i % 3 == 2 else torch.float32
        check(sample(*size, rule, density, dtype), dtype)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_weights(dtype):
    """Rounded once a step; many steps are many calls of one."""
    for density in (None, 0.4):
        for rate in (0.03, 0.4):
            s = sample(1, 2, 70, 9, rate, "pairs", density, dtype)
            check(s, dtype)
            s = sample(5, 2, 70, 9, rate, "soft", density, dtype).to(dtype)
            want, state = s.weight, None
            for t in range(5):
                want, state = stdp(want, s.pre[t : t + 1], s.post[t : t + 1], state, **s.rule)
            assert torch.equal(run(s).weight, want)
            assert state.pre.dtype == torch.float32


@pytest.mark.parametrize("rule", ["pairs", "triplets"])
def test_loop(rule):
    s = sample(30, 3, 20, 15, 0.2, rule, dtype=torch.float64)
    torch.testing.assert_close(run(s).weight, loop(s), rtol=1e-12, atol=1e-13)
    assert not torch.equal(run(s).weight, s.weight)


class TestTiming:
    """Closed forms: a synapse, spikes at chosen times."""

    @staticmethod
    def change(pre_at, post_at, steps=200, **options):
        pre, post = torch.zeros(steps, 1), torch.zeros(steps, 1)
        pre[pre_at], post[post_at] = 1, 1
        options = {"lr": 1.0, "a_plus": 0.02, "a_minus": 0.03} | options
        return stdp(torch.full((1, 1), 0.5), pre, post, **options).weight.item() - 0.5

    @pytest.mark.parametrize("lag", [1, 2, 10, 40, 100])
    def test_pairs(self, lag):
        """Before: A+ exp(-lag / tau+); behind: -A- exp(-lag / tau-)."""
        taus = {"tau_plus": 16.8, "tau_minus": 33.7}
        for coincident in ("both", "none"):
            up = self.change([50], [50 + lag], coincident=coincident, **taus)
            down = self.change([50 + lag], [50], coincident=coincident, **taus)
            assert abs(up - 0.02 * math.exp(-lag / 16.8)) < 1e-6 * 0.5
            assert abs(down + 0.03 * math.exp(-lag / 33.7)) < 1e-6 * 0.5

    def test_steps_of_half_a_millisecond(self):
        up = self.change([50], [60], tau_plus=16.8, dt=0.5)
        assert abs(up - 0.02 * math.exp(-5 / 16.8)) < 1e-6 * 0.5

    def test_the_same_step(self):
        for coincident, want in (
            ("both", -0.01),
            ("potentiate", 0.02),
            ("depress", -0.03),
            ("none", 0.0),
        ):
            assert abs(self.change([50], [50], coincident=coincident) - want) < 1e-6 * 0.5

    def test_all_or_the_nearest(self):
        """Two spikes before one: both count, or the last."""
        both = 0.02 * (math.exp(-20 / 20) + math.exp(-5 / 20))
        assert abs(self.change([50, 65], [70]) - both) < 1e-6 * 0.5
        last = 0.02 * math.exp(-5 / 20)
        assert abs(self.change([50, 65], [70], pairing="nearest") - last) < 1e-6 * 0.5

    def test_triplet(self):
        """post, pre, post: A3+ exp(-|pre to post| / tau+) exp(-|post to post| / tau_y)."""
        options = {"a_plus": 0.0, "a_minus": 0.0, "a3_plus": 0.05, "tau_y": 40.0}
        want = 0.05 * math.exp(-4 / 20) * math.exp(-10 / 40)
        assert abs(self.change([66], [60, 70], **options) - want) < 1e-6 * 0.5
        options = {"a_plus": 0.0, "a_minus": 0.0, "a3_minus": 0.05, "tau_x": 30.0}
        want = -0.05 * math.exp(-4 / 20) * math.exp(-10 / 30)
        assert abs(self.change([60, 70], [66], **options) - want) < 1e-6 * 0.5

    def test_frequency(self):
        """60 pairs, post 10 ms behind pre, with the numbers of Pfister and Gerstner for the visual
        cortex (all-to-all, minimal): next to nothing at .1 Hz and stronger with the frequency,
        against sums over all pairs and triplets of spikes."""
        fitted = {
            "tau_plus": 16.8, "tau_minus": 33.7, "tau_y": 114.0, "a_plus": 0.0, "a_minus": 7.1e-3,
            "a3_plus": 6.5e-3, "coincident": "none",
        }  # fmt: skip

        def traces(at, of, tau):
            lag = at[:, None] - of[None, :]
            return torch.where(lag > 0, (-lag / tau).exp(), 0.0).sum(1)

        found = []
        for period in (10_000, 50, 20):
            pre = torch.arange(60) * period + 20
            post = pre + 10
            found.append(self.change(pre, post, steps=int(post[-1]) + 1, **fitted))
            x, y = pre.double(), post.double()
            up = (traces(y, x, 16.8) * traces(y, y, 114.0)).sum() * 6.5e-3
            down = traces(x, y, 33.7).sum() * 7.1e-3
            assert abs(found[-1] - float(up - down)) < 1e-5
        assert abs(found[0]) < 0.01
        assert found[0] < found[1] < found[2]


class TestBits:
    @pytest.mark.parametrize("rule", ["triplets", "soft reward"])
    @pytest.mark.parametrize("density", [None, 0.4])
    def test_of_two_calls(self, rule, density, monkeypatch):
        s = sample(11, 2, 40, 20, 0.04, rule, density).to(torch.float32)
        whole = run(s)
        first = stdp(s.weight, s.pre[:4], s.post[:4], **s.rule)
        second = stdp(first.weight, s.pre[4:], s.post[4:], first.state, **s.rule)
        assert torch.equal(whole.weight, second.weight)
        pairs = zip(whole.state, second.state, strict=True)
        assert all(a is b is None or torch.equal(a, b) for a, b in pairs)
        # a long run is cut, and nothing tells
        before = s.weight.clone()
        monkeypatch.setattr(_chunks, "_NANOSECONDS", 1)
        assert torch.equal(run(s).weight, whole.weight)
        assert torch.equal(s.weight, before)
        assert torch.equal(stdp_(s.weight, s.pre, s.post, **s.rule).weight, whole.weight)

    @pytest.mark.parametrize("batch", [1, 2])
    @pytest.mark.parametrize("rule", ["pairs", "soft", "signs"])
    def test_of_rows_together(self, rule, batch):
        """A single step takes silent rows four at a time, many steps of 1536 columns or more one at
        a time; 9 rows have one left over."""
        s = sample(4, batch, 1600, 9, 0.02, rule).to(torch.float32)
        traces = torch.rand(batch, 1600), torch.rand(batch, 9)
        whole = stdp(s.weight, s.pre, s.post, STDPState(*traces), **s.rule).weight
        weight, state = s.weight, STDPState(*traces)
        for t in range(4):
            weight, state = stdp(weight, s.pre[t : t + 1], s.post[t : t + 1], state, **s.rule)
        assert torch.equal(whole, weight)
        assert (whole != s.weight).any(1).all()

    def test_of_threads(self, threads):
        for size in ((3, 1, 1000, 700, 0.02), (3, 1, 600, 700, 0.3), (2, 5, 600, 300, 0.02)):
            for density in (None, 0.3):
                s = sample(*size, "pairs", density).to(torch.float32)
                answers = []
                for count in (1, 2, 3, 7):
                    threads(count)
                    answers.append(run(s).weight)
                assert all(torch.equal(answers[0], other) for other in answers[1:])

    @pytest.mark.parametrize("density", [None, 0.4])
    def test_in_place(self, density):
        s = sample(6, 2, 40, 20, 0.05, "triplets", density).to(torch.float32)
        want = run(s)
        weight, state = s.weight.clone(), run(s._replace(pre=s.pre[:0], post=s.post[:0])).state
        got = stdp_(weight, s.pre, s.post, state, **s.rule)
        assert got.weight is weight
        for one, held, other in zip(got.state, state, want.state, strict=True):
            assert one is held or one.data_ptr() == held.data_ptr()
            assert one is None or torch.equal(one, other)
        assert torch.equal(weight, want.weight)


class TestCalls:
    def test_spikes_of_every_type(self):
        s = sample(5, 2, 30, 20, 0.1, dtype=torch.float64)
        for dtype in (torch.float32, torch.float64):
            t = s.to(dtype)
            want = run(t).weight
            for kind in (torch.uint8, torch.float32, torch.float64, torch.bfloat16, torch.float16):
                assert torch.equal(run(t._replace(pre=s.pre.to(kind))).weight, want)
                assert torch.equal(run(t._replace(post=s.post.to(kind))).weight, want)

    def test_spikes_have_a_size(self):
        s = sample(5, 2, 30, 20, 0.3).to(torch.float32)
        sized = s._replace(pre=s.pre * torch.rand(30), post=s.post * 2.5)
        got, want = run(sized), run(sized, backend="reference")
        torch.testing.assert_close(got.weight, want.weight)
        assert not torch.equal(got.weight, run(s).weight)

    def test_what_no_spike_touches_is_as_it_was(self):
        """Also where it lies outside of the bounds, and whatever form runs."""
        for rate in (0.03, 0.4):
            for density in (None, 0.5):
                s = sample(2, 2, 60, 20, rate, "pairs", density).to(torch.float32)
                far = s._replace(weight=s.weight + 3)
                got, want = run(far).weight, run(far, backend="reference").weight
                torch.testing.assert_close(got, want)
                assert (got > 1).any() == (want > 1).any()
        none = s._replace(pre=s.pre & False, post=s.post & False, weight=s.weight + math.nan)
        assert run(none).weight.isnan().all()

    def test_rows_anywhere(self):
        """Batch first, every other step, cut: NaN in between is not read."""
        s = sample(4, 3, 24, 10, 0.2).to(torch.float32)
        room = torch.full((3, 8, 30), torch.nan)
        room[:, ::2, 3:27] = s.pre.float().transpose(0, 1)
        got = run(s._replace(pre=room.transpose(0, 1)[::2, :, 3:27]))
        assert torch.equal(got.weight, run(s).weight)
        turned = s._replace(weight=s.weight.t().contiguous().t())
        assert torch.equal(run(turned).weight, run(s).weight)

    def test_one_step_and_one_sequence(self):
        s = sample(3, 1, 24, 10, 0.2).to(torch.float32)
        alone = stdp(s.weight, s.pre[:, 0], s.post[:, 0], **s.rule)
        assert torch.equal(alone.weight, run(s).weight)
        assert alone.state.pre.shape == (24,)
        weight, state = s.weight, None
        for x, y in zip(s.pre[:, 0], s.post[:, 0], strict=True):
            weight, state = stdp(weight, x, y, state, **s.rule)
        assert torch.equal(weight, alone.weight)
        assert torch.equal(state.post, alone.state.post)

    def test_behind_the_values_nothing_is_read(self):
        s = sample(3, 1, 24, 10, 0.2, "reward", 0.4).to(torch.float32)
        pattern = synops.sparse.Pattern.from_mask(s.rule["pattern"].mask(), capacity=240)
        weight = torch.full((240,), math.nan)
        weight[: pattern.nnz] = s.weight
        got = stdp(weight, s.pre, s.post, **(s.rule | {"pattern": pattern}))
        assert torch.equal(got.weight[: pattern.nnz], run(s).weight)
        assert got.weight[pattern.nnz :].isnan().all()

    @pytest.mark.parametrize(
        ("steps", "batch", "inputs", "outputs"),
        [(0, 2, 5, 4), (3, 0, 5, 4), (3, 2, 0, 4), (3, 2, 5, 0)],
    )
    def test_nothing(self, steps, batch, inputs, outputs):
        for rule in ("triplets", "reward"):
            s = sample(steps, batch, inputs, outputs, 0.5, rule).to(torch.float32)
            got, want = run(s), run(s, backend="reference")
            assert torch.equal(got.weight, s.weight)
            assert got.state.pre.shape == want.state.pre.shape

    def test_a_gradient_is_refused_and_the_references(self):
        s = sample(3, 2, 7, 5, 0.5, dtype=torch.float64)
        weight = s.weight.requires_grad_()
        with pytest.raises(NotImplementedError, match="stdp: a gradient is not implemented"):
            run(s).weight.sum().backward()
        run(s, backend="reference").weight.sum().backward()
        assert weight.grad.isfinite().all()

    def test_which(self):
        s = sample(1, 2, 7, 5, 0.5).to(torch.float32)
        found = synops.which(stdp, s.weight, s.pre, s.post, **s.rule)
        assert "cpp" in str(found).lower()


class TestTransforms:
    def test_compiled(self):
        torch._dynamo.reset()
        s = sample(4, 2, 20, 12, 0.2, "triplets").to(torch.float32)

        def f(weight, pre, post):
            first = stdp(weight * 0.5, pre, post, **s.rule)
            with torch.no_grad():
                return stdp_(first.weight + 0.1, pre, post, **s.rule).weight

        compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
        for steps in (2, 4, 3):
            args = (s.weight, s.pre[:steps], s.post[:steps])
            assert torch.equal(compiled(*args), f(*args))

    def test_exported(self):
        s = sample(4, 2, 20, 12, 0.2).to(torch.float32)

        class Layer(torch.nn.Module):
            def forward(self, weight, pre, post):
                return stdp(weight, pre, post, **s.rule).weight

        program = torch.export.export(Layer(), (s.weight, s.pre, s.post))
        got = program.module()(s.weight, s.pre, s.post)
        assert torch.equal(got, run(s).weight)

    def test_vmap(self):
        s = sample(4, 2, 20, 12, 0.2, "reward").to(torch.float32)
        weights = torch.rand(3, 12, 20)
        f = lambda w: stdp(w, s.pre, s.post, **s.rule).weight  # noqa: E731
        assert torch.equal(torch.vmap(f)(weights), torch.stack([f(w) for w in weights]))

    def test_opcheck(self):
        torch.library.opcheck(torch.ops.synops.stdp.default, tuple(raw().values()))
        torch.library.opcheck(torch.ops.synops.stdp_.default, tuple(raw().values()))


def raw(**changes):
    """Arguments of the op, in its order."""
    args = {
        "weight": torch.rand(7, 9),
        "trace_pre": torch.rand(2, 9),
        "trace_post": torch.rand(2, 7),
        "slow_pre": torch.rand(2, 9),
        "slow_post": torch.rand(2, 7),
        "eligibility": torch.rand(7, 9),
        "pre": torch.rand(3, 2, 9) < 0.3,
        "post": torch.rand(3, 2, 7) < 0.3,
        "crow": None,
        "col": None,
        "lr": 0.1,
        "rate": torch.rand(7),
        "modulator": torch.rand(2),
        "reward": torch.rand(3),
        "sign": torch.ones(9),
        "check_sign": True,
        **dict.fromkeys(("plus", "minus", "x", "y", "e"), 0.9),
        **dict.fromkeys(("a_plus", "a_minus", "a3_plus", "a3_minus"), 0.1),
        "lower": 0.0,
        "upper": 1.0,
        "nearest": False,
        "coincident": 3,
        "soft": False,
        "mean": True,
    }
    return args | changes


NAN = math.nan
WRONG = [
    ({"weight": [1.0]}, TypeError, "weight must be a torch.Tensor, got list"),
    ({"weight": torch.ones(4, 5).int()}, TypeError, "weight must be float32"),
    ({"weight": torch.ones(5)}, ValueError, r"weight must have shape \(out, in\)"),
    ({"weight": torch.ones(4, 6)}, ValueError, r"pre must have 6 units"),
    ({"weight": torch.ones(3, 5)}, ValueError, r"post must have 3 units"),
    ({"pre": torch.ones(3, 2, 5).int()}, TypeError, "pre must be float32"),
    ({"pre": torch.ones(1, 3, 2, 5)}, ValueError, r"pre must have shape \(T, B, in\)"),
    ({"post": torch.ones(3, 4)}, ValueError, "post must have as many dimensions, steps"),
    ({"post": torch.ones(2, 2, 4)}, ValueError, "post must have as many dimensions, steps"),
    ({"post": torch.full((3, 2, 4), NAN)}, ValueError, "post must be finite, got inf or NaN"),
    ({"pre": torch.full((3, 2, 5), math.inf)}, ValueError, "pre must be finite"),
    ({"state": (1, 2)}, TypeError, "state must be an STDPState, got tuple"),
    ({"state": STDPState(torch.ones(2, 5), torch.ones(4))}, ValueError, "state.post must have"),
    (
        {"state": STDPState(torch.ones(2, 5), torch.ones(2, 4), torch.ones(2, 5))},
        ValueError,
        "state.slow_pre must be None without a3_plus or a3_minus",
    ),
    (
        {"state": STDPState(torch.ones(2, 5).double(), torch.ones(2, 4))},
        TypeError,
        "state.pre must be float32, got float64",
    ),
    (
        {"state": STDPState(torch.ones(2, 5), torch.full((2, 4), NAN))},
        ValueError,
        "a trace or sign must be finite",
    ),
    ({"lr": "1"}, TypeError, "lr must be a number, got str"),
    ({"lr": NAN}, ValueError, "lr must be finite"),
    ({"lr": torch.tensor(NAN)}, ValueError, "lr, modulator or reward must be finite"),
    ({"lr": torch.ones(5)}, ValueError, r"lr must have shape \(\) or \(out,\) = \(4,\)"),
    ({"modulator": torch.ones(3)}, ValueError, r"modulator must have shape \(\) or \(B,\)"),
    ({"reward": 1.0}, ValueError, "tau_e must be given with the other"),
    ({"tau_e": 1.0}, ValueError, "reward must be given with the other"),
    ({"reward": torch.ones(4), "tau_e": 1.0}, ValueError, r"reward must have shape"),
    ({"tau_plus": 0}, ValueError, "tau_plus must be positive, got 0"),
    ({"tau_minus": NAN}, ValueError, "tau_minus must be finite"),
    ({"a_plus": True}, TypeError, "a_plus must be a number, got bool"),
    ({"clip": (0.0, True)}, TypeError, "clip must hold two numbers"),
    ({"clip": 1.0}, TypeError, r"clip must be None or \(lower, upper\)"),
    ({"tau_minus": torch.ones(())}, TypeError, "tau_minus must be a number, got Tensor"),
    ({"tau_x": -1.0, "a3_plus": 1.0}, ValueError, "tau_x must be positive, got -1"),
    ({"tau_plus": 0.5, "leak": "euler"}, ValueError, "tau_plus must be at least dt = 1"),
    ({"dt": 0.0}, ValueError, "dt must be positive"),
    ({"leak": "linear"}, ValueError, "leak must be one of exponential, euler, got 'linear'"),
    ({"pairing": ["all"]}, ValueError, "pairing must be one of all, nearest"),
    ({"coincident": True}, ValueError, "coincident must be one of none, potentiate"),
    ({"bounds": "soft"}, ValueError, "clip must be finite with bounds='soft', got None"),
    ({"clip": (1.0, 0.0)}, ValueError, "clip must be .*lower <= upper"),
    ({"clip": (0.5, 1.0), "sign": torch.ones(5)}, ValueError, "clip must hold 0"),
    ({"sign": torch.ones(4)}, ValueError, r"sign must have shape \(in,\)"),
    ({"sign": -torch.ones(5)}, ValueError, "weight must agree with sign"),
    ({"pattern": torch.ones(4, 5)}, TypeError, "pattern must be a synops.sparse.Pattern"),
    ({"reduction": "none"}, ValueError, "reduction must be one of mean, sum, got 'none'"),
    ({"backend": "cuda"}, ValueError, "backend"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments(change, error, message):
    """Also in place, where nothing is changed."""
    torch.manual_seed(0)
    args = {"weight": torch.rand(4, 5), "pre": torch.ones(3, 2, 5), "post": torch.ones(3, 2, 4)}
    args |= change
    before = args["weight"].clone() if isinstance(args["weight"], torch.Tensor) else None
    for function in (stdp, stdp_):
        with pytest.raises(error, match=f"^{function.__name__}: {message}|backend"):
            function(**args)
        assert before is None or torch.equal(args["weight"], before)


def test_overflow():
    ones = torch.ones(3, 1, 5)
    for rule in ({}, {"reward": 1.0, "tau_e": 2.0}):
        with pytest.raises(OverflowError, match="weight overflowed: lower lr"):
            stdp(torch.rand(5, 5), ones, ones, lr=3e38, a_minus=0.0, **rule)
    with pytest.raises(OverflowError, match="weight overflowed: lower lr"):
        stdp(torch.rand(5, 5).half(), ones, ones, lr=7e4, a_minus=0.0)
    one = torch.zeros(2, 40)
    one[1, 3] = 1
    state = STDPState(torch.zeros(40), torch.ones(5))
    with pytest.raises(OverflowError):  # by events
        stdp(torch.full((5, 40), -3e38), one, torch.zeros(2, 5), state, lr=3e38)


class TestInPlace:
    def call(self, message, **change):
        args = {"weight": torch.rand(4, 5), "pre": torch.ones(3, 2, 5), "post": torch.ones(3, 2, 4)}
        args |= change
        before = args["weight"].detach().clone()
        with pytest.raises(ValueError, match=message):
            stdp_(**args)
        assert torch.equal(args["weight"], before)

    def test_refused(self):
        weight = torch.rand(4, 5)
        self.call("weight must not require grad", weight=torch.rand(4, 5, requires_grad=True))
        self.call("weight must", weight=torch.rand(5, 4).t())
        self.call("weight must", weight=torch.rand(1, 5).expand(4, 5))
        square = torch.ones(3, 5, 5)
        self.call("no memory", weight=square[1], pre=square, post=torch.ones(3, 5, 5))
        traces = torch.zeros(2, 5)
        self.call(
            "state.pre must share no memory", weight=torch.rand(5, 5), post=square[:, :2],
            state=STDPState(traces, traces),
        )  # fmt: skip
        with torch.no_grad():
            leaf = weight.clone().requires_grad_()
            assert stdp_(leaf, torch.ones(3, 2, 5), torch.ones(3, 2, 4)).weight is leaf

    def test_spikes_may_be_the_same(self):
        x = (torch.rand(4, 6) < 0.5).float()
        weight = torch.rand(6, 6)
        assert torch.equal(stdp_(weight.clone(), x, x).weight, stdp(weight, x, x.clone()).weight)

    def test_signs_are_checked_once(self):
        x, sign = torch.ones(2, 5), torch.ones(5)
        weight = torch.rand(5, 5)
        stdp_(weight, x, x, sign=sign)
        weight[0, 0] = -1.0  # another version of it
        with pytest.raises(ValueError, match="agree with sign"):
            stdp_(weight, x, x, sign=sign)


UNSAFE = [
    ({"weight": torch.rand(7)}, "weight must have 2 dimensions"),
    ({"weight": torch.rand(9, 7).t()}, "weight must be contiguous"),
    ({"weight": torch.rand(7, 8)}, "size 1 of weight must be 9"),
    ({"weight": torch.rand(7, 9).int()}, "floating point"),
    ({"trace_pre": torch.rand(2, 8)}, "trace_pre"),
    ({"trace_pre": torch.rand(9, 2).t()}, "trace_pre must be contiguous"),
    ({"trace_post": torch.rand(2, 7).double()}, "trace_post has the wrong dtype"),
    ({"slow_pre": None}, "slow_pre and slow_post must be given together"),
    ({"eligibility": None}, "eligibility and reward must be given together"),
    ({"eligibility": torch.rand(7, 8)}, "eligibility"),
    ({"pre": torch.rand(2, 9)}, "pre must have 3 dimensions"),
    ({"pre": torch.rand(3, 2, 9).double()}, "pre has the wrong dtype"),
    ({"pre": torch.ones(3, 2, 9, dtype=torch.int64)}, "pre must be a floating point"),
    ({"post": torch.rand(4, 2, 7)}, "size 0 of post must be 3"),
    ({"post": torch.rand(3, 1, 7)}, "size 1 of post must be 2"),
    ({"rate": torch.rand(6)}, "rate"),
    ({"modulator": torch.rand(3)}, "modulator"),
    ({"reward": torch.rand(2)}, "reward"),
    ({"sign": torch.rand(8)}, "sign"),
    ({"col": torch.zeros(3, dtype=torch.int32)}, "crow and col must be given together"),
    (
        {"crow": torch.tensor([0, 1, 1, 1, 1, 1, 1, 1], dtype=torch.int32),
         "col": torch.tensor([9], dtype=torch.int32), "weight": torch.rand(1)},
        "col must lie in",
    ),
    (
        {"crow": torch.tensor([0, 1, 1, 1, 1, 1, 1, 2], dtype=torch.int32),
         "col": torch.tensor([1, 2], dtype=torch.int32), "weight": torch.rand(1)},
        "weight must hold at least 2",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), UNSAFE, ids=range(len(UNSAFE)))
def test_raw_op(change, message):
    torch.ops.synops.stdp_(*raw().values())
    with pytest.raises(RuntimeError, match=message):
        torch.ops.synops.stdp_(*raw(**change).values())


@pytest.mark.triton
@pytest.mark.parametrize("rule", RULES)
def test_triton(rule):
    for i, density in enumerate((None, 0.4)):
        dtype = (torch.float32, torch.float64)[i]
        check(sample(3, 2, 70, 9, 0.2, rule, density, dtype), dtype, backend="triton")


@pytest.mark.triton
@pytest.mark.filterwarnings("ignore:overflow encountered")  # the interpreter's numpy
def test_triton_report_and_half():
    s = sample(1, 2, 70, 9, 0.2, dtype=torch.bfloat16)
    check(s, torch.bfloat16, backend="triton")
    s = sample(3, 1, 20, 9, 0.5).to(torch.float32)
    with pytest.raises(ValueError, match="stdp_: lr"):
        stdp_(s.weight, s.pre, s.post, lr=torch.tensor(math.nan), backend="triton")
    with pytest.raises(OverflowError, match="weight overflowed"):
        stdp(s.weight, s.pre, s.post, lr=3e38, backend="triton")
    state = STDPState(torch.zeros(1, 20), torch.zeros(1, 9))
    weight = s.weight.clone()
    stdp_(weight, s.pre, s.post, state, **s.rule, backend="triton")
    torch.testing.assert_close(weight, run(s).weight)
    torch.testing.assert_close(state.pre, run(s).state.pre)
