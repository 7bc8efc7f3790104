"""covariance_select against loops over tokens, as the papers' code describes the choice."""

import math

import pytest
import torch
from no_sync import NoSync

from synops.entropy import covariance_select

SHAPE = (5, 40)


def tokens(dtype=torch.float64, shape=SHAPE, seed=0):
    """Log-probabilities, advantages, and a mask of sequences of several lengths."""
    g = torch.Generator().manual_seed(seed)
    logprob = -3 * torch.rand(shape, generator=g, dtype=torch.float64).square()
    advantages = 2 * torch.randn(shape, generator=g, dtype=torch.float64)
    mask = torch.arange(shape[-1]) < torch.randint(1, shape[-1] + 1, (*shape[:-1], 1), generator=g)
    return logprob.to(dtype), advantages.to(dtype), mask


def covariances(logprob, advantages, mask):
    """{index: covariance} of the tokens, one after the other in Python's floats."""
    flat = zip(*(t.flatten().tolist() for t in (logprob, advantages, mask)), strict=True)
    valid = {i: (lp, a) for i, (lp, a, counts) in enumerate(flat) if counts}
    n = max(len(valid), 1)
    mean_lp, mean_a = (sum(x[j] for x in valid.values()) / n for j in (0, 1))
    return {i: (a - mean_a) * (lp - mean_lp) for i, (lp, a) in valid.items()}


def as_mask(chosen, shape=SHAPE):
    mask = torch.zeros(math.prod(shape), dtype=torch.bool)
    mask[list(chosen)] = True
    return mask.view(shape)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


class TestKL:
    @pytest.mark.parametrize("percent", [0.2, 2, 10, 50, 100])
    def test_takes_the_largest(self, percent):
        args = tokens()
        cov = covariances(*args)
        count = max(1, int(len(cov) * percent / 100))
        want = sorted(cov, key=cov.get, reverse=True)[:count]
        got = covariance_select(*args, mode="kl", percent=percent)
        assert torch.equal(got, as_mask(want))

    @pytest.mark.parametrize("n", range(1, 200, 7))
    @pytest.mark.parametrize("percent", [0.7, 29, 55, 57])
    def test_count_is_truncated_as_pythons(self, n, percent):
        """55 / 100 * 20 is 11 and 100 * .29 is 28.999999999999996."""
        logprob, advantages, _ = tokens(shape=(200,))
        mask = torch.arange(200) < n
        got = covariance_select(logprob, advantages, mask, mode="kl", percent=percent)
        assert int(got.sum()) == max(1, int(n * percent / 100))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
    def test_computes_in_float32(self, dtype):
        logprob, advantages, mask = tokens(dtype)
        got = covariance_select(logprob, advantages, mask, mode="kl", percent=10)
        wide = covariance_select(logprob.float(), advantages.float(), mask, mode="kl", percent=10)
        assert torch.equal(got, wide)
        cov = covariances(logprob, advantages, mask)
        chosen = set(got.flatten().nonzero().flatten().tolist())
        assert len(chosen) == int(len(cov) * 10 / 100)
        rest = max(c for i, c in cov.items() if i not in chosen)
        assert min(cov[i] for i in chosen) >= rest - 1e-6

    def test_ties_go_to_the_first(self):
        """Log-probabilities of exactly 0 are common in bfloat16: one covariance a sequence."""
        logprob = torch.tensor([[0.0, -1.0, 0.0, 0.0], [0.0, -2.0, 0.0, -1.0]])
        advantages = torch.tensor([[1.0], [-1.0]]).expand(2, 4)
        mask = torch.ones(2, 4, dtype=torch.bool)
        for percent, first in ((12.5, [0]), (25, [0, 2]), (37.5, [0, 2, 3])):
            got = covariance_select(logprob, advantages, mask, mode="kl", percent=percent)
            # -2 with advantage -1 is above the mean of -.5 by 1.5: the largest covariance
            want = {5} | set(first[: round(8 * percent / 100) - 1])
            assert torch.equal(got, as_mask(want, (2, 4))), percent

    def test_zeros_of_both_signs_are_equal(self):
        logprob = torch.tensor([-1.0, -1.0, -1.0, -1.0])
        advantages = torch.tensor([-1.0, 1.0, -1.0, 1.0])  # covariances -0, 0, -0, 0
        mask = torch.ones(4, dtype=torch.bool)
        got = covariance_select(logprob, advantages, mask, mode="kl", percent=50)
        assert got.tolist() == [True, True, False, False]

    def test_negative_covariances_are_ordered(self):
        """Of what is left, whatever its sign."""
        args = tokens()
        cov = covariances(*args)
        order = sorted(cov, key=cov.get, reverse=True)
        excluded = as_mask(order[: len(order) - 20])
        got = covariance_select(*args, mode="kl", percent=10, excluded=excluded)
        count = int(len(cov) * 10 / 100)
        assert cov[order[-20]] < 0
        assert torch.equal(got, as_mask(order[-20:][:count]))


class TestClip:
    def candidates(self, args, lower, upper, excluded=None):
        cov = covariances(*args)
        out = set() if excluded is None else set(excluded.flatten().nonzero().flatten().tolist())
        return {i for i, c in cov.items() if lower < c < upper and i not in out}, len(cov)

    @pytest.mark.parametrize("ratio", [2e-4, 0.01, 0.05, 0.3, 1])
    @pytest.mark.parametrize("bounds", [(1, 5), (0.2, 0.4), (-1, math.inf), (90, 91)], ids=str)
    def test_takes_as_many_from_the_right_ones(self, ratio, bounds):
        args = tokens()
        candidates, n = self.candidates(args, *bounds)
        lower, upper = bounds
        got = covariance_select(*args, ratio=ratio, lower=lower, upper=upper, generator=seeded(0))
        chosen = set(got.flatten().nonzero().flatten().tolist())
        assert chosen <= candidates
        assert len(chosen) == min(max(int(ratio * n), 1), len(candidates))

    def test_excluded_count_but_are_not_taken(self):
        args = tokens()
        excluded = torch.rand(SHAPE) < 0.5
        candidates, n = self.candidates(args, 0.2, 5, excluded)
        got = covariance_select(*args, ratio=1, lower=0.2, upper=5, excluded=excluded)
        assert torch.equal(got, as_mask(candidates))
        some = covariance_select(*args, ratio=0.05, lower=0.2, upper=5, excluded=excluded)
        assert int(some.sum()) == int(0.05 * n)
        nothing = torch.ones(SHAPE, dtype=torch.bool)
        assert not covariance_select(*args, ratio=1, lower=0.2, excluded=nothing).any()

    def test_every_candidate_is_as_likely(self):
        """Each is drawn 300 times in expectation; 5 sigma of a binomial is 79."""
        args = tokens()
        candidates, n = self.candidates(args, 0.2, 5)
        share = int(0.05 * n) / len(candidates)
        g = seeded(1)
        draws = round(300 / share)
        counts = sum(
            covariance_select(*args, ratio=0.05, lower=0.2, generator=g).long()
            for _ in range(draws)
        )
        counts = counts.flatten()[sorted(candidates)]
        assert int(counts.sum()) == draws * int(0.05 * n)
        assert (counts - 300).abs().max() < 5 * math.sqrt(300 * (1 - share))

    def test_generator_makes_it_reproducible(self):
        args = tokens()
        options = {"ratio": 0.05, "lower": 0.2}
        first, again, other = (
            covariance_select(*args, **options, generator=seeded(s)) for s in (3, 3, 4)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        torch.manual_seed(5)
        first = covariance_select(*args, **options)
        torch.manual_seed(5)
        assert torch.equal(first, covariance_select(*args, **options))


@pytest.mark.parametrize("mode", ["clip", "kl"])
class TestBoth:
    OPTIONS = {"ratio": 0.1, "percent": 10, "lower": 0.1}  # noqa: RUF012

    def select(self, *args, mode, **options):
        return covariance_select(*args, mode=mode, generator=seeded(0), **self.OPTIONS, **options)

    @pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
    def test_padding_is_not_read(self, mode, poison):
        logprob, advantages, mask = tokens(torch.float32)
        want = self.select(logprob, advantages, mask, mode=mode)
        bad = (t.masked_fill(~mask, poison) for t in (logprob, advantages))
        assert torch.equal(self.select(*bad, mask, mode=mode), want)
        assert want.any()
        assert not (want & ~mask).any()

    def test_nan_is_not_chosen(self, mode):
        logprob, advantages, mask = tokens()
        logprob[0, 0] = math.nan  # and so is the mean
        assert not self.select(logprob, advantages, mask, mode=mode).any()

    @pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.uint8], ids=str)
    def test_mask_of_numbers(self, mode, dtype):
        logprob, advantages, mask = tokens()
        got = self.select(logprob, advantages, mask.to(dtype), mode=mode)
        assert torch.equal(got, self.select(logprob, advantages, mask, mode=mode))

    @pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4)], ids=str)
    def test_empty(self, mode, shape):
        got = self.select(*torch.zeros(2, *shape), torch.ones(shape), mode=mode)
        assert (got.shape, got.dtype) == (shape, torch.bool)

    def test_all_masked(self, mode):
        logprob, advantages, mask = tokens()
        assert not self.select(logprob, advantages, mask & False, mode=mode).any()

    def test_one_token(self, mode):
        """Its covariance is 0: KL-Cov takes it, Clip-Cov has no candidate."""
        got = self.select(torch.tensor([-1.0]), torch.tensor([2.0]), torch.ones(1), mode=mode)
        assert got.tolist() == [mode == "kl"]

    def test_any_layout(self, mode):
        args = tokens()
        want = self.select(*args, mode="kl")
        turned = (t.t().contiguous().t() for t in args)
        assert torch.equal(self.select(*turned, mode="kl"), want)
        flat = self.select(*(t.flatten() for t in args), mode="kl")
        assert torch.equal(flat.view(SHAPE), want)
        assert self.select(*args, mode=mode).shape == SHAPE

    def test_nothing_waits_for_the_device(self, mode):
        args = tokens()
        with NoSync():
            self.select(*args, mode=mode, excluded=~args[2])

    def test_compiles_whole(self, mode):
        args = tokens(torch.float32)
        options = {"mode": mode, "ratio": 1, "percent": 10, "lower": 0.1}
        compiled = torch.compile(covariance_select, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(*args, **options), covariance_select(*args, **options))

    def test_no_gradient(self, mode):
        logprob, advantages, mask = tokens()
        assert not self.select(logprob.requires_grad_(), advantages, mask, mode=mode).requires_grad


@pytest.mark.parametrize(
    "wait",
    [
        lambda t: t[0].item(),
        lambda t: t[t > 0],
        lambda t: t[t.long().sum()],
        lambda t: t.nonzero(),
        lambda t: t.unique(),
        lambda t: t.to("meta"),
    ],
    ids=["item", "bool", "index", "nonzero", "unique", "to"],
)
def test_waiting_is_seen(wait):
    with NoSync(), pytest.raises(AssertionError, match=r"waits for|goes to"):
        wait(torch.zeros(3))


GOOD = torch.zeros(2, 3)
BAD = {
    "a list": ({"logprob": [0.0]}, TypeError, "logprob must be a torch.Tensor, got list"),
    "integers": ({"logprob": GOOD.long()}, TypeError, "logprob must be float32.*got int64"),
    "a scalar": ({"logprob": torch.tensor(0.0)}, ValueError, r"have shape \(..., tokens\)"),
    "a shape": (
        {"advantages": torch.zeros(3, 2)},
        ValueError,
        r"advantages must have shape logprob.shape = \(2, 3\), got \(3, 2\)",
    ),
    "mask shape": ({"mask": torch.ones(3)}, ValueError, "mask must have shape"),
    "mask dtype": ({"mask": GOOD.to(torch.complex64)}, TypeError, "mask must be bool or real"),
    "mask missing": ({"mask": None}, TypeError, "mask must be a torch.Tensor, got NoneType"),
    "mode": ({"mode": "top"}, ValueError, "mode must be one of clip, kl, got 'top'"),
    "mode type": ({"mode": 1}, TypeError, "mode must be one of clip, kl, got int"),
    "ratio 0": ({"ratio": 0}, ValueError, r"ratio must be in \(0, 1\], got 0"),
    "ratio nan": ({"ratio": math.nan}, ValueError, "ratio must be in .*got nan"),
    "ratio text": ({"ratio": "1"}, TypeError, "ratio must be a number, got str"),
    "ratio bool": ({"ratio": True}, TypeError, "ratio must be a number, got bool"),
    "percent": ({"percent": 101}, ValueError, r"percent must be in \(0, 100\], got 101"),
    "bounds": ({"lower": 5.0}, ValueError, r"lower must be below upper \(5.0\), got 5.0"),
    "upper nan": ({"upper": math.nan}, ValueError, "upper must not be NaN"),
    "excluded": ({"excluded": GOOD.long()}, TypeError, "excluded must be bool, got int64"),
    "excluded shape": ({"excluded": torch.ones(3).bool()}, ValueError, "must have shape"),
    "generator": ({"generator": 0}, TypeError, "generator must be a torch.Generator, got int"),
    "group": ({"group": "all"}, TypeError, "group must be None, True or a torch.distributed"),
    "group early": ({"group": True}, ValueError, "group must come after .*init_process_group"),
    "device": ({"advantages": GOOD.to("meta")}, ValueError, "advantages must be on the device"),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(change, error, message):
    good = {"logprob": GOOD, "advantages": GOOD, "mask": GOOD}
    with pytest.raises(error, match=f"^covariance_select: .*{message}"):
        covariance_select(**(good | change))
