"""policy_loss against loops over tokens (policy_loss_loop.py): losses, metrics, gradients."""

import math

import pytest
import torch
from no_sync import NoSync
from policy_loss_loop import loop

from synops.entropy import PolicyMetrics, covariance_select, policy_loss

KINDS = ["ppo", "clip_cov", "kl_cov", "steer", "steer_exact"]
REDUCTIONS = [
    "token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm",
]  # fmt: skip
SHAPE = (4, 12)
SELECT = {"ratio": 0.1, "lower": 0.1}


def tokens(dtype=torch.float64, shape=SHAPE, seed=0, apart=0.5):
    """logprob, old_logprob, advantages, mask, and statistics of random softmaxes over 8 classes."""
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(*shape, 8, generator=g, dtype=torch.float64)
    logp = logits.log_softmax(-1)
    labels = torch.randint(8, (*shape, 1), generator=g)
    logprob = logp.gather(-1, labels)[..., 0]
    old = logprob + apart * torch.randn(shape, generator=g, dtype=torch.float64)
    advantages = torch.randn(shape, generator=g, dtype=torch.float64)
    mask = torch.rand(shape, generator=g) < 0.7
    p = logp.exp()
    stats = {
        "entropy": -(p * logp).sum(-1),
        "collision": p.square().sum(-1),
        "plogp2": (p.square() * logp).sum(-1),
    }
    args = [t.to(dtype) for t in (logprob, old.clamp(max=0), advantages)]
    return *args, mask, {name: t.to(dtype) for name, t in stats.items()}


def ours(logprob, old, advantages, mask, kind, stats, **options):
    g = torch.Generator().manual_seed(0)
    select = {**SELECT, "kl_percent": 10}
    return policy_loss(
        logprob, old, advantages, mask, kind=kind, **stats, generator=g, **select, **options
    )


def chosen(logprob, old, advantages, mask, kind):
    """What the choice must have been: of Clip-Cov, of tokens whose ratio is at most 2 if A > 0."""
    if kind == "clip_cov":
        clipped = (advantages > 0) & ((logprob - old).exp() > 2)
        g = torch.Generator().manual_seed(0)
        args = logprob, advantages, mask
        return covariance_select(*args, **SELECT, excluded=clipped, generator=g)
    if kind == "kl_cov":
        return covariance_select(logprob, advantages, mask, mode="kl", percent=10)
    return torch.zeros_like(mask)


def compare(args, stats, kind, tolerance, **options):
    """Loss, gradient and metrics, within ``tolerance`` of the loops' in float64."""
    logprob, old, advantages, mask = args
    wide = [t.double() for t in args[:3]]
    wide[0] = wide[0].detach().requires_grad_()
    logprob = logprob.detach().requires_grad_()
    selected = chosen(logprob.detach(), old, advantages, mask, kind)
    stats_wide = {name: t.double() for name, t in stats.items()}
    names = {"lambda_min": "low", "lambda_max": "high"}
    renamed = {names.get(name, name): value for name, value in options.items()}
    want, metrics = loop(*wide, mask, kind, selected, stats_wide, **renamed)
    got, found = ours(logprob, old, advantages, mask, kind, stats, **options)
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(got.detach().double(), want.detach(), **close)
    grads = torch.autograd.grad(got, logprob)[0], torch.autograd.grad(want, wide[0])[0]
    torch.testing.assert_close(grads[0].double(), grads[1], **close)
    for name, value in metrics.items():
        assert math.isclose(getattr(found, name), value, rel_tol=tolerance, abs_tol=tolerance), name
    return found


@pytest.mark.parametrize("kind", KINDS)
class TestKinds:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_loop(self, kind, dtype, reduction):
        *args, stats = tokens(dtype)
        tolerance = 1e-12 if dtype == torch.float64 else 1e-6
        found = compare(args, stats, kind, tolerance, reduction=reduction)
        assert all(metric.dtype == dtype and not metric.requires_grad for metric in found)
        if kind in ("ppo", "steer", "steer_exact"):
            assert found.clip_fraction > 0.1
        if kind in ("clip_cov", "kl_cov"):
            assert found.selected_fraction > 0.05

    @pytest.mark.parametrize("apart", [0, 4, 12])
    def test_far_and_on_policy(self, kind, apart):
        """Ratios of exactly 1; and to e^30, where most is clipped, dual-clipped or limited."""
        *args, stats = tokens(apart=apart)
        found = compare(args, stats, kind, 1e-10)
        if apart and kind == "ppo":
            assert found.dual_clip_fraction > 0.1
            assert found.clip_fraction > 0.3

    def test_one_token(self, kind):
        *args, stats = tokens(shape=(1, 1))
        args[3] = torch.ones(1, 1, dtype=torch.bool)
        compare(args, stats, kind, 1e-12)

    def test_ties(self, kind):
        """All tokens alike: STEER's weights are the middle, no covariance is above 0."""
        *args, stats = tokens()
        args[:3] = [t[:1, :1].expand(SHAPE) for t in args[:3]]
        stats = {name: t[:1, :1].expand(SHAPE) for name, t in stats.items()}
        compare(args, stats, kind, 1e-12)

    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_all_masked(self, kind, reduction):
        *args, stats = tokens()
        args[3] = torch.zeros(SHAPE, dtype=torch.bool)
        compare(args, stats, kind, 0.0, reduction=reduction)

    @pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0)], ids=str)
    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_empty(self, kind, shape, reduction):
        *args, stats = tokens(shape=shape)
        loss, metrics = ours(*args, kind, stats, reduction=reduction)
        assert float(loss) == 0
        assert [float(m) for m in metrics] == [0] * 7

    @pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
    def test_padding_is_not_read(self, kind, poison):
        *args, mask, stats = tokens(torch.float32)
        bad = [t.masked_fill(~mask, poison) for t in args]
        bad_stats = {name: t.masked_fill(~mask, poison) for name, t in stats.items()}
        results = []
        for (logprob, *rest), given in ((args, stats), (bad, bad_stats)):
            x = logprob.detach().requires_grad_()
            loss, metrics = ours(x, *rest, mask, kind, given)
            results.append((loss, torch.autograd.grad(loss, x)[0], *metrics))
        for want, got in zip(*results, strict=True):
            assert torch.equal(got, want)
        assert not results[1][1][~mask].any()

    def test_mask_of_numbers(self, kind):
        *args, mask, stats = tokens()
        want, _ = ours(*args, mask, kind, stats)
        for dtype in (torch.int64, torch.float32):
            assert torch.equal(ours(*args, mask.to(dtype), kind, stats)[0], want)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_halves_are_computed_in_float32(self, kind, dtype):
        *args, mask, stats = tokens(dtype)
        x = args[0].requires_grad_()
        wide = x.detach().float().requires_grad_()
        loss, metrics = ours(x, *args[1:], mask, kind, stats)
        rest = [t.float() for t in args[1:]]
        given = {name: t.float() for name, t in stats.items()}
        want, also = ours(wide, *rest, mask, kind, given)
        assert loss.dtype == torch.float32
        assert torch.equal(loss, want)
        assert all(torch.equal(m, n) for m, n in zip(metrics, also, strict=True))
        grads = torch.autograd.grad(loss, x)[0], torch.autograd.grad(want, wide)[0]
        assert torch.equal(grads[0], grads[1].to(dtype))

    def test_nothing_waits_for_the_device(self, kind):
        *args, stats = tokens()
        args[0].requires_grad_()
        with NoSync():
            ours(*args, kind, stats)[0].backward()

    def test_compiles_whole(self, kind):
        """Without a generator, which dynamo does not trace: Clip-Cov takes all candidates."""
        *args, stats = tokens(torch.float32)
        x = args[0].requires_grad_()
        options = {"kind": kind, "ratio": 1, "lower": 0.1, "kl_percent": 10, **stats}
        compiled = torch.compile(policy_loss, fullgraph=True, backend="aot_eager")
        got, want = (f(*args, **options) for f in (compiled, policy_loss))
        assert isinstance(got[1], PolicyMetrics)
        grads = [torch.autograd.grad(loss, x)[0] for loss, _ in (got, want)]
        for one, two in zip(
            (got[0], *got[1], grads[0]), (want[0], *want[1], grads[1]), strict=True
        ):
            torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["ppo", "clip_cov", "kl_cov"])
def test_gradcheck(kind):
    """(Not of STEER: its weights depend on logprob and have no gradient; the loops cover it.)"""
    *args, mask, stats = tokens()
    args[0].requires_grad_()
    torch.autograd.gradcheck(lambda x: ours(x, *args[1:], mask, kind, stats)[0], args[:1])


@pytest.mark.parametrize("kind", ["steer", "steer_exact"])
@pytest.mark.parametrize("weighting", ["linear", "exp"])
@pytest.mark.parametrize("scale", [1, 1e-4])
def test_steer_weights(kind, weighting, scale):
    """Changes of 1e-4 are below .02, where "exp" does not use its whole range."""
    *args, stats = tokens(seed=1)
    args[2] = args[2] * scale
    options = {"weighting": weighting, "lambda_min": 0.3}
    found = compare(args, stats, kind, 1e-10, lambda_max=1.5, **options)
    if weighting == "exp":
        assert (found.weight > 0.95) == (scale < 1)


def test_steer_takes_what_is_not_finite_for_nothing():
    """As the code does: weight of |Omega| = 0, the largest."""
    *args, stats = tokens()
    stats["entropy"][args[3]] = math.inf
    assert compare(args, stats, "steer", 1e-12).weight == 1.0


def test_everything_already_clipped():
    """Clip-Cov has no candidate then, and the gradient is 0."""
    shape = (2, 5)
    logprob = torch.linspace(-1, 0, 10).view(shape).requires_grad_()
    old, advantages = logprob.detach() - 2, torch.linspace(1, 3, 10).view(shape)
    args = logprob, old, advantages, torch.ones(shape)
    loss, metrics = policy_loss(*args, kind="clip_cov", lower=-9)
    assert metrics.clip_fraction == 1
    assert metrics.selected_fraction == 0
    assert torch.allclose(loss, -2 * advantages.mean())
    assert not torch.autograd.grad(loss, logprob)[0].any()


def test_no_candidates():
    *args, _ = tokens()
    want = policy_loss(*args, kind="ppo", clip_low=1, clip_high=1, dual_clip=math.inf)
    got = policy_loss(*args, kind="clip_cov", lower=50, upper=60)
    assert torch.equal(got[0], want[0])
    assert got[1].selected_fraction == 0


def test_clips_are_taken_from_the_call():
    *args, _ = tokens()
    for kind in ("ppo", "clip_cov"):
        options = {"clip_low": 0.1, "clip_high": 0.4, "dual_clip": 1.5, "lower": 50, "upper": 60}
        loss, metrics = policy_loss(*args, kind=kind, **options)
        lp, old, a, mask = args
        r = (lp - old).exp()
        want = torch.maximum(-a * r, -a * r.clamp(0.9, 1.4))
        want = torch.where(a < 0, want.minimum(-1.5 * a), want)[mask].mean()
        torch.testing.assert_close(loss, want)
        assert metrics.dual_clip_fraction > 0


def test_kl_cov_has_no_gradient_of_the_penalty_on_policy():
    """|log r| has its kink there; so the first minibatch of a step is not held back."""
    *args, _ = tokens(apart=0)
    args[0] = args[1].clone().requires_grad_()
    grads = [
        torch.autograd.grad(policy_loss(*args, kind="kl_cov", kl_coef=c)[0], args[0])[0]
        for c in (0, 100)
    ]
    assert torch.equal(*grads)


def test_generator_makes_it_reproducible():
    *args, stats = tokens()
    first, again = (ours(*args, "clip_cov", stats)[0] for _ in range(2))
    assert torch.equal(first, again)


GOOD = torch.zeros(2, 3)
STATS = {"entropy": GOOD, "collision": GOOD, "plogp2": GOOD}
BAD = {
    "kind": ({"kind": "grpo"}, ValueError, "kind must be one of ppo, clip_cov, .*got 'grpo'"),
    "kind type": ({"kind": None}, TypeError, "kind must be one of ppo, .*got NoneType"),
    "logprob": ({"logprob": [0.0]}, TypeError, "logprob must be a torch.Tensor, got list"),
    "old dtype": ({"old_logprob": GOOD.int()}, TypeError, "old_logprob must be float32"),
    "old shape": ({"old_logprob": GOOD[0]}, ValueError, r"old_logprob must have shape .*\(3,\)"),
    "advantages": ({"advantages": GOOD[:, :1]}, ValueError, "advantages must have shape"),
    "mask": ({"mask": torch.ones(2)}, ValueError, "mask must have shape"),
    "no entropy": ({"kind": "steer"}, ValueError, "entropy must be given for kind='steer'"),
    "no plogp2": (
        {"kind": "steer_exact", "entropy": GOOD, "collision": GOOD},
        ValueError,
        "plogp2 must be given for kind='steer_exact', got None",
    ),
    "entropy shape": ({**STATS, "entropy": GOOD[0]}, ValueError, "entropy must have shape"),
    "collision": ({"collision": 1.0}, TypeError, "collision must be a torch.Tensor"),
    "clip_low": ({"clip_low": -0.1}, ValueError, "clip_low must be at least 0, got -0.1"),
    "clip_high": ({"clip_high": math.nan}, ValueError, "clip_high must be at least 0, got nan"),
    "dual_clip": ({"dual_clip": 1}, ValueError, "dual_clip must be above 1, got 1"),
    "kl_coef": ({"kl_coef": math.inf}, ValueError, "kl_coef must be at least 0 and finite"),
    "ratio": ({"ratio": 2}, ValueError, "ratio must be in"),
    "kl_percent": ({"kl_percent": 0}, ValueError, r"kl_percent must be in \(0, 100\], got 0"),
    "bounds": ({"lower": 6}, ValueError, "lower must be below upper"),
    "weighting": ({"weighting": "log"}, ValueError, "weighting must be one of linear, exp"),
    "lambda_min": ({"lambda_min": 0}, ValueError, "lambda_min must be above 0, got 0"),
    "lambda_exp": ({"lambda_min": 2, "weighting": "exp"}, ValueError, r"in \(0, 1\], got 2"),
    "lambda_max": ({"lambda_max": 0.5}, ValueError, "lambda_max must be .*at least lambda_min"),
    "lambda text": ({"lambda_max": "1"}, TypeError, "lambda_max must be a number, got str"),
    "reduction": ({"reduction": "mean"}, ValueError, "reduction must be one of token-mean"),
    "generator": ({"generator": 1}, TypeError, "generator must be a torch.Generator, got int"),
    "group": ({"group": True}, ValueError, "group must come after"),
    "device": ({"old_logprob": GOOD.to("meta")}, ValueError, "old_logprob must be on the device"),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(change, error, message):
    good = {"logprob": GOOD, "old_logprob": GOOD, "advantages": GOOD, "mask": GOOD}
    with pytest.raises(error, match=f"^policy_loss: .*{message}"):
        policy_loss(**(good | change))
