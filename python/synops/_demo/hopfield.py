"""Section ``hopfield``: an associative memory of digits, asked with noise and with half of one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from ..benchmarks.common.call import largest_error
from ..benchmarks.hebbian.hopfield_retrieve import eager_loop, layers_loop, sdpa_loop
from ..hebbian import hopfield_retrieve
from . import digits
from .context import Context
from .report import Claim, Report, Results, Row
from .timing import in_turns

TORCH = "F.scaled_dot_product_attention, repeated"
EAGER = "products and softmax, repeated"
LAYERS = "the loop of hopfield-layers (re-enacted)"
_BETA, _STEPS = 80.0, 3
_BETAS = tuple(2.0**k for k in range(-3, 10))
_NOISE = 2.0  # its length; that of a digit is 1
_QUERIES, _QUICK = 200, 20
_NEAR = 0.1  # counts as retrieved


class Asked(NamedTuple):
    """Queries of one kind, and what comes of them."""

    name: str
    queries: Tensor
    once: Tensor
    thrice: Tensor
    classical: Tensor  # pixels of -1 and 1


@torch.no_grad()
def run(context: Context) -> Report:
    """Retrieves, times, judges and draws."""
    context.start("associative memory", 4)
    train = digits.load().train_x
    mean = train.mean(0)
    patterns = F.normalize(train - mean, dim=-1)
    generator = torch.Generator().manual_seed(0)
    picked = torch.randperm(len(patterns), generator=generator)
    picked = picked[: _QUICK if context.quick else _QUERIES]
    wanted = patterns[picked]
    noise = torch.randn(wanted.shape, generator=generator) * (_NOISE / wanted.shape[1] ** 0.5)
    half = wanted.clone()
    half[:, wanted.shape[1] // 2 :] = 0
    binary = torch.where(train > 0.5, 1.0, -1.0)
    flipped = torch.rand(wanted.shape, generator=generator) < 0.1
    signs = binary[picked]
    asked = [
        _ask("noise", wanted + noise, patterns, binary, torch.where(flipped, -signs, signs)),
        _ask("upper half", half, patterns, binary, signs * (half != 0)),
    ]
    context.advance("entropies")
    found = {b: _entropy(wanted + noise, patterns, b) for b in _BETAS}
    context.advance("timing")
    report = Report()
    report.rows.append(_timed(wanted + noise, patterns, context.quick))
    context.advance("picture")
    rows = [
        [a.name, *(f"{_part(t, wanted):.1%}" for t in (a.once, a.thrice)), _same(a, signs)]
        for a in asked
    ]
    title = f"{len(patterns)} digits stored: part that comes back"
    columns = ["asked with", "1 iteration", "3 iterations", "classical network"]
    report.results.append(Results(title, columns, rows))
    shown = {b: found[b] for b in _BETAS[::2]}
    heads, row = [f"beta {b:g}" for b in shown], [f"{h:.2f}" for h in shown.values()]
    report.results.append(Results("entropy (nats)", heads, [row]))
    report.claims = _claims(asked, wanted, list(found.values()), math.log(len(patterns)))
    report.files.append(_draw(context.out, asked, wanted, digits.load().train_y[picked], found))
    context.advance()
    return report


def _ask(name: str, queries: Tensor, patterns: Tensor, binary: Tensor, signs: Tensor) -> Asked:
    def retrieve(steps: int) -> Tensor:
        return hopfield_retrieve(queries, patterns, beta=_BETA, steps=steps, stats=()).output

    weight = (binary.mT @ binary / binary.shape[1]).fill_diagonal_(0)
    states = signs
    for _ in range(20):
        states = torch.where(states @ weight >= 0, 1.0, -1.0)
    return Asked(name, queries, retrieve(1), retrieve(_STEPS), states)


def _entropy(queries: Tensor, patterns: Tensor, beta: float) -> float:
    entropy = hopfield_retrieve(queries, patterns, beta=beta).entropy
    assert entropy is not None
    return float(entropy.mean())


def _part(states: Tensor, wanted: Tensor) -> float:
    return float(((states - wanted).norm(dim=-1) < _NEAR).float().mean())


def _same(asked: Asked, signs: Tensor) -> str:
    """At most every fiftieth pixel is wrong."""
    right = (asked.classical == signs).float().mean(-1)
    return f"{float((right > 0.98).float().mean()):.1%}"


def _timed(queries: Tensor, patterns: Tensor, quick: bool) -> Row:
    given = (queries, patterns, _BETA, _STEPS)
    forms: dict[str, Callable[[], Any]] = {
        TORCH: lambda: sdpa_loop(*given),
        EAGER: lambda: eager_loop(*given),
        LAYERS: lambda: layers_loop(*given),
        "synops": lambda: hopfield_retrieve(queries, patterns, beta=_BETA, steps=_STEPS),
    }
    exact = eager_loop(queries.double(), patterns.double(), _BETA, _STEPS)
    got = hopfield_retrieve(queries, patterns, beta=_BETA, steps=_STEPS).output
    return Row(
        system="associative memory, 3 iterations",
        case=f"{len(queries)} of {len(patterns)} digits",
        times=in_turns(forms, seconds=0 if quick else 1.5, min_rounds=2),
        today=TORCH,
        error=largest_error((got,), (exact,)),
    )


def _claims(asked: list[Asked], wanted: Tensor, entropies: list[float], most: float) -> list[Claim]:
    noise, half = asked
    part = _part(noise.thrice, wanted)
    once, thrice = _part(half.once, wanted), _part(half.thrice, wanted)
    falls = all(a >= b for a, b in itertools.pairwise(entropies))
    ends = most - entropies[0] < 0.01 and entropies[-1] < 0.01
    return [
        Claim("digits come back from noise of twice their length", part > 0.95, f"{part:.1%}"),
        Claim(
            "of half a digit more comes back in three iterations than in one",
            thrice > once,
            f"{thrice:.1%} against {once:.1%}",
        ),
        Claim(
            "the entropy falls with beta, from that of all patterns to that of one",
            falls and ends,
            f"{entropies[0]:.2f} (ln N is {most:.2f}) to {entropies[-1]:.2f}",
        ),
    ]


def _draw(
    out: Path, asked: list[Asked], wanted: Tensor, labels: Tensor, entropies: dict[float, float]
) -> Path:
    """A digit of each class: what was stored, asked, and retrieved; and the entropies."""
    one_each = [int((labels == c).nonzero()[0]) for c in range(10) if (labels == c).any()]
    strips = [("stored", wanted)]
    for a in asked:
        strips += [
            (a.name, a.queries),
            ("1 iteration", a.once),
            ("3 iterations", a.thrice),
            ("classical", a.classical),
        ]
    figure = Figure(figsize=(13, 6.5), layout="constrained")
    grid = figure.add_gridspec(len(strips), len(one_each) + 5)
    for row, (name, images) in enumerate(strips):
        for column, i in enumerate(one_each):
            ax = figure.add_subplot(grid[row, column])
            ax.imshow(images[i].view(28, 28).numpy(), cmap="gray")
            ax.set(xticks=[], yticks=[])
            if column == 0:
                ax.set_ylabel(name, rotation=0, ha="right", va="center")
    ax = figure.add_subplot(grid[:, len(one_each) :])
    ax.semilogx(list(entropies), list(entropies.values()), "o-", base=2)
    ax.set(xlabel="beta", ylabel="entropy of the retrieval (nats)", title="from all digits to one")
    file = out / "hopfield.png"
    figure.savefig(file, dpi=130)
    return file
