"""delta_rule against float64, against the loop that people write, and the same bits in any form."""

import pytest
import torch
from fast_weight_samples import (
    DTYPES,
    NAMES,
    RULES,
    check,
    gradients,
    incoming_for,
    run,
    sample,
    wide,
)

from synops import _chunks
from synops._library import reference
from synops.hebbian import FastWeights, delta_rule

# (B, H, T, d_k, d_v)
SHAPES = [
    (2, 2, 7, 16, 33),  # two vectors of AVX-512 and one column
    (1, 3, 4, 70, 64),  # all sums of a slice, and a slice and a bit of the turned weight
    (1, 1, 5, 5, 3),  # one head: narrow slices; less than a vector
    (2, 1, 1, 17, 130),  # one step; two slices and two columns
    (1, 2, 6, 1, 1),  # one number
    (1, 2, 3, 48, 40),  # three vectors, the last half
    (1, 2, 2, 150, 20),
]


def options_of(i):
    """beta, decay and a state, each in some of the combinations."""
    return {"beta": i % 3 != 1, "decay": i % 2 == 0, "start": i % 4 != 3}


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reference(dtype, rule):
    for i, shape in enumerate(SHAPES):
        at = i + RULES.index(rule)
        check(sample(shape, dtype, rule=rule, **options_of(at)), dtype)


def loop(s):
    """Step by step, as the docstring has it."""
    m, outputs = s.initial_state, []
    scale = s.query.shape[-1] ** -0.5
    for t in range(s.query.shape[2]):
        q, k, v = s.query[:, :, t, :, None], s.key[:, :, t, :, None], s.value[:, :, t, None]
        m = s.decay[:, :, t, None, None] * m
        what = {"delta": k * (v - k.mT @ m), "hebb": k * v, "oja": (k - m @ v.mT) * v}
        m = m + s.beta[:, :, t, None, None] * what[s.options["rule"]]
        outputs.append(scale * q.mT @ m)
    return FastWeights(torch.cat(outputs, 2), m)


@pytest.mark.parametrize("rule", RULES)
def test_is_the_loop(rule):
    """Results and autograd's gradients, in float64."""
    s = sample((2, 2, 7, 5, 9), rule=rule)
    for one, other in zip(run(s), loop(s), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)
    incoming = incoming_for(s)
    got, want = gradients(s, incoming), gradients(s, incoming, call=loop)
    for name in NAMES:
        torch.testing.assert_close(got[name], want[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_backward_is_autograds_of_the_definition(rule):
    """The formulas of the reference's backward, too; each gradient alone, of each result alone."""
    s = sample((2, 2, 4, 3, 5), rule=rule)
    numbers = 3**-0.5, RULES.index(rule)
    both = incoming_for(s)
    _, last, error = reference("delta_rule")(*s[:6], *numbers, True)
    for incoming in (both, FastWeights(both.output, None), FastWeights(None, both.state)):
        want = gradients(s, incoming, backend="reference")
        found = reference("delta_rule_backward")(
            *incoming, *s[:6], last, error, *numbers, *[True] * 6
        )
        for name, g in zip(NAMES, found, strict=True):
            torch.testing.assert_close(g, want[name], rtol=1e-11, atol=1e-12)
            alone = gradients(s, incoming, (name,))[name]
            torch.testing.assert_close(alone, want[name], rtol=1e-10, atol=1e-12)


def test_delta_rule_recalls_the_last_value():
    """With keys of norm 1 and beta 1, the pair just written is read back exactly."""
    s = sample((1, 2, 20, 8, 6), decay=False, beta=False, scale=1.0)
    k = torch.nn.functional.normalize(s.key, dim=-1)
    torch.testing.assert_close(run(s._replace(key=k, query=k)).output, s.value)


class TestBits:
    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("rule", RULES)
    def test_of_two_calls(self, rule):
        """After a pair of steps, as the kernels take them; elsewhere up to rounding."""
        for cut in (2, 6, 3):
            s = sample((1, 2, 9, 40, 24), torch.float32, rule=rule).to(torch.float32)
            whole = run(s)
            first = run(s._replace(**{n: getattr(s, n)[:, :, :cut] for n in NAMES[:5]}))
            rest = {n: getattr(s, n)[:, :, cut:] for n in NAMES[:5]}
            second = run(s._replace(**rest, initial_state=first.state))
            both = FastWeights(torch.cat([first.output, second.output], 2), second.state)
            if cut % 2 == 0:
                assert all(map(torch.equal, whole, both))
            torch.testing.assert_close(whole, both)

    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("rule", RULES)
    def test_of_threads(self, threads, rule):
        for shape in ((1, 1, 40, 70, 130), (2, 3, 40, 40, 20)):
            s = sample(shape, torch.float32, rule=rule).to(torch.float32)
            incoming, results = incoming_for(s), []
            for count in (1, 2, 3, 7):
                threads(count)
                results.append((*run(s), *gradients(s, incoming).values()))
            for other in results[1:]:
                assert all(map(torch.equal, results[0], other))

    def test_of_pieces(self, monkeypatch):
        """Long runs, with a gradient and without; the caller's tensors stay as they are."""
        s = sample((1, 2, 9, 12, 5), torch.float32).to(torch.float32)
        incoming = incoming_for(s)
        before = [t.clone() for t in s[:6]]
        whole, of_whole = run(s), gradients(s, incoming)
        monkeypatch.setattr(_chunks, "_NANOSECONDS", 30)
        in_pieces, of_pieces = run(s), gradients(s, incoming)
        assert all(map(torch.equal, whole, in_pieces))
        for name in NAMES:
            torch.testing.assert_close(of_whole[name], of_pieces[name])
        assert all(map(torch.equal, before, s[:6]))

    @pytest.mark.parametrize("rule", RULES)
    def test_saving_changes_nothing(self, rule):
        s = sample((1, 2, 5, 12, 7), torch.float32, rule=rule).to(torch.float32)
        plain = run(s)
        for name in NAMES:
            saved = run(s._replace(**{name: getattr(s, name).clone().requires_grad_()}))
            assert all(map(torch.equal, plain, saved))


def test_long_decay():
    """The gradient of decay is a sum over all later steps: it does not lose what is there."""
    s = sample((1, 1, 400, 16, 16), torch.float32)
    s = s._replace(decay=0.9 + 0.1 * torch.rand(1, 1, 400).double().float().double())
    incoming = incoming_for(s)
    want = gradients(s, incoming, ("decay",), backend="reference")["decay"]
    got = gradients(s.to(torch.float32), incoming, ("decay",))["decay"]
    assert (got - want).abs().max() < 2e-6 * want.abs().max()


@pytest.mark.triton
@pytest.mark.parametrize("rule", RULES)
def test_triton(rule):
    """Each in two types; two slices of columns in float64."""
    at = RULES.index(rule)
    for i, dtype in enumerate((DTYPES[at], DTYPES[(at + 2) % 4])):
        s = sample((1, 2, 3, 20, 70 if i == 0 else 9), dtype, rule=rule, **options_of(at + i))
        check(s, dtype, backend="triton")


@pytest.mark.triton
def test_triton_edges():
    """No steps, nothing to read, one gradient alone."""
    q, v = torch.zeros(1, 2, 0, 3), torch.zeros(1, 2, 0, 4)
    s0 = torch.randn(1, 2, 3, 4)
    assert torch.equal(delta_rule(q, q, v, initial_state=s0, backend="triton").state, s0)
    none = delta_rule(torch.zeros(1, 2, 3, 0), torch.zeros(1, 2, 3, 0), v.new_ones(1, 2, 3, 4),
                      backend="triton")  # fmt: skip
    assert not none.output.any()
    s = sample((1, 1, 3, 4, 5))
    incoming = FastWeights(None, incoming_for(s).state)
    want = gradients(s, incoming, ("key",), backend="reference")["key"]
    torch.testing.assert_close(gradients(s, incoming, ("key",), backend="triton")["key"], want)


def test_state_is_wide():
    for dtype in DTYPES:
        got = run(sample((1, 1, 2, 3, 4), dtype).to(dtype))
        assert got.output.dtype == dtype
        assert got.state.dtype == wide(dtype)
