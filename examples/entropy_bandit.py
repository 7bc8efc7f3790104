"""The entropy of a policy under PPO, Clip-Cov, KL-Cov and STEER: synops.entropy.policy_loss.

    pip install "synops[demo]"
    python examples/entropy_bandit.py

A bandit of 64 contexts with 256 arms, a softmax over logits each: what a language model does at one
token, small enough to see what each loss does in seconds. A step draws 16 arms a context, pays 0 or
1, normalises advantages in each context (GRPO) and takes two SGD steps on them. Prints and plots
how the entropy falls: PPO's goes first, and the reward stops where it goes.

Source: G. Cui et al., arXiv:2505.22617 (entropy is consumed as reward grows, R = -a e^H + b; its
fall follows the covariance of log-probability and advantage); Z. Hao et al., arXiv:2510.10150.
"""

import argparse
import time
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch

from synops.entropy import policy_loss

CONTEXTS, ARMS, DRAWS = 64, 256, 16
METHODS = {  # 2 % of the 1024 draws, where language models with 10^5 tokens a step take .02 to .2
    "PPO": {"kind": "ppo"},
    "Clip-Cov": {"kind": "clip_cov", "ratio": 0.02},
    "KL-Cov": {"kind": "kl_cov", "kl_percent": 2},
    "STEER": {"kind": "steer", "weighting": "exp", "lambda_min": 0.2},
    "STEER, exact": {"kind": "steer_exact", "weighting": "exp", "lambda_min": 0.2},
}


class Course(NamedTuple):
    """Step by step, before it: expected entropy (nats) and reward, and the covariance drawn."""

    entropy: torch.Tensor
    reward: torch.Tensor
    covariance: torch.Tensor


def bandit(seed):
    """(logits, the chance that each arm pays, a generator); the best arm is the least likely."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.6 * torch.randn(CONTEXTS, ARMS, generator=generator)
    pays = 0.5 * torch.rand(CONTEXTS, ARMS, generator=generator)
    pays.scatter_(1, logits.argmin(1, keepdim=True), 0.95)
    return logits, pays, generator


def statistics(logp):
    """What STEER reads of the softmax of each context, at each of its draws."""
    p = logp.exp()
    rows = {
        "entropy": -(p * logp).sum(1, keepdim=True),
        "collision": p.square().sum(1, keepdim=True),
        "plogp2": (p.square() * logp).sum(1, keepdim=True),
    }
    return {name: row.expand(-1, DRAWS) for name, row in rows.items()}


def train(method, seed=0, steps=200, lr=100.0, after=lambda: None):
    """The Course of a policy from the same start, with a loss of METHODS."""
    logits, pays, generator = bandit(seed)
    optimizer = torch.optim.SGD([logits.requires_grad_()], lr=lr)
    mask = torch.ones(CONTEXTS, DRAWS, dtype=torch.bool)
    course = []
    for _ in range(steps):
        with torch.no_grad():
            logp = logits.log_softmax(1)
            p = logp.exp()
            arms = torch.multinomial(p, DRAWS, replacement=True, generator=generator)
            old = logp.gather(1, arms)
            paid = torch.bernoulli(pays.gather(1, arms), generator=generator)
            advantages = (paid - paid.mean(1, True)) / (paid.std(1, keepdim=True) + 1e-6)
            before = -(p * logp).sum(1).mean(), (p * pays).sum(1).mean()
        metrics = []
        for _ in range(2):
            logp = logits.log_softmax(1)
            loss, found = policy_loss(
                logp.gather(1, arms), old, advantages, mask, generator=generator,
                **statistics(logp.detach()), **METHODS[method],
            )  # fmt: skip
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            metrics.append(found)
        course.append((*before, metrics[0].covariance))
        after()
    return Course(*(torch.stack(values) for values in zip(*course, strict=True)))


def plot(courses, file):
    """Entropy over steps, a line a method: the mean of its seeds, and a band over them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    styles = zip(
        ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000"),  # Okabe and Ito's colours
        ("-", "--", "-.", ":", (0, (1, 3))),
        strict=True,
    )
    for (method, found), (color, dashes) in zip(courses.items(), styles, strict=True):
        entropy = torch.stack([course.entropy for course in found])
        axes.plot(entropy.mean(0), label=method, color=color, linestyle=dashes)
        axes.fill_between(range(entropy.shape[1]), *entropy.aminmax(dim=0), color=color, alpha=0.15)
    axes.set(xlabel="step", ylabel="entropy, nats", yscale="log", title="Entropy of the policy")
    axes.legend(title="bands: lowest to highest seed")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)


def main(argv=None):
    """Returns {method: a Course a seed}."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="of training (default: 300)")
    parser.add_argument("--seeds", type=int, default=3, help="to average over (default: 3)")
    parser.add_argument("--out", type=Path, default=Path("entropy_bandit.png"), help="the plot")
    args = parser.parse_args(argv)

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    torch.set_num_threads(1)
    console = Console()
    courses, seconds = {}, {}
    with Progress(console=console, transient=True) as progress:
        for method in METHODS:
            task = progress.add_task(method, total=args.seeds * args.steps)
            start = time.perf_counter()
            courses[method] = [
                train(method, seed, args.steps, after=lambda task=task: progress.advance(task))
                for seed in range(args.seeds)
            ]
            seconds[method] = time.perf_counter() - start

    at = [0, args.steps // 6, args.steps // 2, args.steps - 1]
    table = Table(title=f"entropy in nats, mean of {args.seeds} seeds")
    for name in ("method", *(f"step {i}" for i in at), "reward", "seconds"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for method, found in courses.items():
        entropy = [f"{fmean(float(c.entropy[i]) for c in found):.3f}" for i in at]
        reward = f"{fmean(float(c.reward[-1]) for c in found):.3f}"
        table.add_row(method, *entropy, reward, f"{seconds[method]:.1f}")
    console.print(table)
    plot(courses, args.out)
    console.print(f"plot: {args.out}")
    return courses


if __name__ == "__main__":
    main()
