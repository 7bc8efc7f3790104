"""Section ``dynamic``: GraNet trains a sparse classifier of digits whose edges move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..benchmarks.common.call import largest_error
from ..nn import DynamicSparsity
from . import digits, granet, granet_plot
from .context import Context
from .granet import DENSITY, INTERVAL, METHODS, Course
from .masked_dense import GraNet, MaskedDense
from .report import Claim, Report, Results, Row
from .timing import Times, in_turns

TODAY = "dense; w, momentum *= mask after each step; masks by sorting"
FIXED = "dense; w *= mask after each step; masks stay"
TIMED = (0.5, DENSITY)  # GraNet's first density and its last
MARGIN = 0.004  # between means of 3 seeds, which lie .008 to .011 apart
NEVER = 10**6  # steps to the end of a schedule that is timed


@dataclass(frozen=True)
class Protocol:
    """How much of the experiment to do."""

    seeds: tuple[int, ...]
    epochs: int
    seconds: float  # of timing at each density

    @property
    def steps(self) -> int:
        """Of the progress bar: an epoch, or the timing of a density."""
        return len(METHODS) * len(self.seeds) * self.epochs + len(TIMED)


FULL = Protocol((0, 1, 2), 20, 4.0)
QUICK = Protocol((0,), 2, 0.0)


def run(context: Context) -> Report:
    """Trains by every method, times an epoch, and judges the paper's claims."""
    protocol = QUICK if context.quick else FULL
    data = digits.load()
    context.start("dynamic sparse training", protocol.steps)
    courses: dict[str, list[Course]] = {method: [] for method in METHODS}
    for seed in protocol.seeds:
        for method in METHODS:
            courses[method].append(Course())
            network = granet.initial(seed)
            for _ in granet.train(
                network, method, data, seed, protocol.epochs, courses[method][-1]
            ):
                context.advance(f"seed {seed}, {method}")
    report = Report(results=[_accuracies(courses, protocol)], claims=_claims(courses))
    for density in TIMED:
        report.rows.append(
            Row(
                system="GraNet 784-300-100-10, one epoch",
                case=f"density {density:.3f}",
                times=_epoch_times(data, density, protocol.seconds),
                today=TODAY,
                error=_error(data, density),
            )
        )
        context.advance(f"timing, density {density:.3f}")
    report.files.append(granet_plot.save(context.out, courses))
    return report


def _moving(density: float) -> tuple[nn.Sequential, torch.optim.Optimizer, DynamicSparsity]:
    """A network at this density, whose edges move at GraNet's first rate, without an end."""
    network = granet.initial(0)
    optimizer = granet.sgd(network)
    sparsity = DynamicSparsity(
        network,
        optimizer,
        "granet",
        density=density,
        initial_density=density,
        total_steps=NEVER,
        interval=INTERVAL,
    )
    return network, optimizer, sparsity


def _epoch_times(data: digits.Digits, density: float, seconds: float) -> Times:
    """An epoch with an update of the edges at its end, by each form of the same network."""
    epoch = granet.batches(data, seed=0, epoch=0)
    network, optimizer, sparsity = _moving(density)
    today, fixed = MaskedDense(network), MaskedDense(network)
    optimizers = {form: granet.sgd(form.network) for form in (today, fixed)}
    moving = GraNet(
        today,
        optimizers[today],
        densities=(density, density),
        updates=1,
        interval=INTERVAL,
        steps=NEVER,
    )

    def work(
        network: nn.Module, optimizer: torch.optim.Optimizer, after_step: Callable[[], object]
    ) -> Callable[[], None]:
        return lambda: granet.train_epoch(network, optimizer, epoch, after_step)

    works = {
        TODAY: work(today.network, optimizers[today], moving.step),
        FIXED: work(fixed.network, optimizers[fixed], fixed.project),
        "synops": work(network, optimizer, sparsity.step),
    }
    return in_turns(works, seconds=seconds, min_rounds=3)


def _error(data: digits.Digits, density: float) -> float:
    """Of the logits of a batch and all gradients of its loss, against masked dense in float64."""
    x, y = granet.batches(data, seed=0, epoch=0)[0]
    network = _moving(density)[0]
    exact = MaskedDense(network)
    want = _logits_and_gradients(exact.network.double(), x.double(), y)
    got = _logits_and_gradients(network, x, y)
    for i, mask in enumerate(exact.masks):
        want[1 + 2 * i] = want[1 + 2 * i][mask.bool()]  # a weight, then a bias
    return largest_error(tuple(got), tuple(want))


def _logits_and_gradients(network: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    logits = network(x)
    loss = cross_entropy(logits, y)
    return [logits.detach(), *torch.autograd.grad(loss, list(network.parameters()))]


def _accuracies(courses: dict[str, list[Course]], protocol: Protocol) -> Results:
    columns = ["method", "density", "accuracy", *[f"seed {seed}" for seed in protocol.seeds]]
    rows = []
    for method, found in courses.items():
        finals = [course.final for course in found]
        density = 1.0 if method == "dense" else DENSITY
        cells = [f"{mean(finals):.4f}", *[f"{final:.4f}" for final in finals]]
        rows.append([method, f"{density:.3f}", *cells])
    title = (
        "accuracy on 1000 test digits, mean of the last three epochs; granet begins at density .5"
    )
    return Results(title, columns, rows)


def _claims(courses: dict[str, list[Course]]) -> list[Claim]:
    """The order of the methods in the papers."""
    final = {method: mean(c.final for c in found) for method, found in courses.items()}

    def better(first: str, second: str) -> Claim:
        return Claim(
            f"at density {DENSITY}, {first} beats {second} by at least {MARGIN}",
            final[first] >= final[second] + MARGIN,
            f"{final[first]:.4f} against {final[second]:.4f}",
        )

    return [
        better("granet", "rigl"),
        better("rigl", "static"),
        Claim(
            "granet loses at most .015 to the dense network, at a tenth of its weights",
            final["granet"] >= final["dense"] - 0.015,
            f"{final['granet']:.4f} against {final['dense']:.4f}",
        ),
    ]
