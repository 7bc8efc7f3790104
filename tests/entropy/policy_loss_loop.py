"""policy_loss in loops over tokens: the algorithms as the papers' code goes through them.

Every token is a 0-dimensional float64 tensor, so autograd gives the gradient of this form too.
"""

import math
from statistics import fmean

import torch

CLIPS = {  # low, high, dual clip, largest |log r|
    "ppo": (0.2, 0.2, 3.0, 20.0),
    "clip_cov": (1.0, 1.0, math.inf, math.inf),
    "kl_cov": (math.inf, math.inf, math.inf, math.inf),
    "steer": (0.2, 0.28, 10.0, 20.0),
    "steer_exact": (0.2, 0.28, 10.0, 20.0),
}


def changes(kind, at, logprob, old, advantages, stats):
    """|Omega| of the token at ``at``, in Python's floats."""
    lp, lo, a = (float(t[at].detach()) for t in (logprob, old, advantages))
    h, s2, t2 = (float(stats[name][at]) for name in ("entropy", "collision", "plogp2"))
    if kind == "steer":
        p = min(max(math.exp(lp), 1e-8), 1 - 1e-8)
        omega = a / min(max(math.exp(lo), 1e-8), 1.0) * p * (1 - p) * (math.log(p) + h)
    else:
        step = math.exp(min(max(lp - lo, -20), 20))
        omega = a * step * (math.exp(lp) * (lp + h) - (t2 + h * s2))
    return abs(omega) if math.isfinite(omega) else 0.0


def weights(omegas, weighting, low, high):
    """A weight a token, from the |Omega| of all."""
    most, least = max(omegas), min(omegas)
    if weighting == "exp":
        k = -math.log(low) / max(most, 0.02)
        return [min(max(math.exp(-k * o), low), 1.0) for o in omegas]
    if most == least:
        return [(low + high) / 2 for _ in omegas]
    return [high - (o - least) / (most - least) * (high - low) for o in omegas]


def loop(
    logprob, old, advantages, mask, kind, selected, stats, weighting="linear", low=0.8,
    high=1.2, kl_coef=1.0, reduction="token-mean",
):  # fmt: skip
    """(loss, {metric: number}); ``selected`` is what covariance_select chose."""
    clip_low, clip_high, dual, limit = CLIPS[kind]
    where = [tuple(at) for at in mask.nonzero().tolist()]
    weight = dict.fromkeys(where, 1.0)
    if kind.startswith("steer") and where:
        omegas = [changes(kind, at, logprob, old, advantages, stats) for at in where]
        weight = dict(zip(where, weights(omegas, weighting, low, high), strict=True))
    losses, found = {}, {name: [] for name in ("clip", "dual", "kl", "abs")}
    for at in where:
        a = advantages[at]
        log_r = (logprob[at] - old[at]).clamp(-limit, limit)
        r = log_r.exp()
        plain, bounded = -a * r, -a * r.clamp(1 - clip_low, 1 + clip_high)
        loss = torch.maximum(plain, bounded)
        found["clip"].append(float(bounded > plain))
        held = bool(a < 0) and bool(loss > -a * dual)
        found["dual"].append(float(held))
        loss = -a * dual if held else loss
        if selected[at]:
            loss = loss * 0 if kind == "clip_cov" else loss + kl_coef * log_r.abs()
        losses[at] = weight[at] * loss
        found["kl"].append(-float(log_r.detach()))
        found["abs"].append(abs(float(log_r.detach())))
    zero = 0 * logprob.masked_fill(~mask, 0).sum()
    n = max(len(where), 1)
    rows, length = mask.shape
    sums = [zero + sum(v for at, v in losses.items() if at[0] == row) for row in range(rows)]
    loss = {
        "token-mean": sum(sums) / n,
        "seq-mean-token-sum": sum(sums) / rows,
        "seq-mean-token-mean": sum(
            s / max(int(m.sum()), 1) for s, m in zip(sums, mask, strict=True)
        )
        / rows,
        "seq-mean-token-sum-norm": sum(sums) / length,
    }[reduction]
    means = {name: fmean(values) if values else 0.0 for name, values in found.items()}
    return loss, {
        "clip_fraction": means["clip"],
        "dual_clip_fraction": means["dual"],
        "selected_fraction": sum(bool(selected[at]) for at in where) / n,
        "approx_kl": means["kl"],
        "abs_kl": means["abs"],
        "covariance": covariance(logprob, advantages, where),
        "weight": fmean(weight.values()) if weight else 0.0,
    }


def covariance(logprob, advantages, where):
    """Mean of the product of deviations."""
    if not where:
        return 0.0
    lp, a = ([float(t[at].detach()) for at in where] for t in (logprob, advantages))
    return fmean((x - fmean(lp)) * (y - fmean(a)) for x, y in zip(lp, a, strict=True))
