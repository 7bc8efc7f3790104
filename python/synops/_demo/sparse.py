"""Section ``sparse``: the lottery ticket experiment, its tickets trained by SparseLinear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..benchmarks.common.call import largest_error
from . import digits, lenet, lottery_plot
from . import lottery_ticket as lottery
from .context import Context
from .lenet import Layers, Masks
from .lottery_ticket import Level
from .report import Claim, Report, Results, Row
from .timing import Times, in_turns

TODAY = "F.linear(x, w * mask)"
PROJECTED = "F.linear(x, w), w *= mask after each step"
CURVES = ("ticket", "re-init", "random")


@dataclass(frozen=True)
class Protocol:
    """How much of the experiment to do; ``controls`` are the rounds of pruning that have them."""

    seeds: tuple[int, ...]
    epochs: int
    controls: tuple[int, ...]
    timed: tuple[int, ...]
    seconds: float  # of timing at each density

    @property
    def rounds(self) -> int:
        """Rounds of pruning."""
        return max(self.controls)

    @property
    def steps(self) -> int:
        """Of the progress bar: an epoch, or the timing of a density."""
        trainings = self.rounds + 1 + (len(CURVES) - 1) * len(self.controls)
        return len(self.seeds) * trainings * self.epochs + len(self.timed)


# 20 rounds of pruning leave 1.2 % of the weights.
FULL = Protocol((0, 1), 10, (3, 7, 10, 14, 17, 20), (1, 3, 7, 10, 14, 17, 20), 2.5)
QUICK = Protocol((0,), 3, (7, 10), (10,), 0.0)


def run(context: Context) -> Report:
    """Finds tickets, trains their controls, times an epoch, and judges the paper's claims."""
    protocol = QUICK if context.quick else FULL
    data = digits.load()
    context.start("lottery ticket", protocol.steps)
    levels: list[Level] = []
    for seed in protocol.seeds:
        _experiment(context, protocol, data, seed, levels)
    report = Report(results=[_accuracies(levels, protocol)], claims=_claims(levels, protocol))
    theta = lenet.initial(0)
    for i in protocol.timed:
        level = levels[i]
        report.rows.append(
            Row(
                system="LeNet-300-100, one epoch",
                case=f"density {level.density:.3f}",
                times=_epoch_times(theta, level.masks, data, protocol.seconds),
                today=TODAY,
                error=_error(theta, level.masks, data),
            )
        )
        context.advance(f"timing, density {level.density:.3f}")
    densities = [levels[i].density for i in protocol.timed]
    times = [row.times for row in report.rows]
    report.files.append(lottery_plot.save(context.out, levels, densities, times, TODAY))
    return report


def _experiment(
    context: Context, protocol: Protocol, data: digits.Digits, seed: int, levels: list[Level]
) -> None:
    """All rounds of one seed; adds to ``levels``, one a round."""
    theta = lenet.initial(seed)
    masks = [torch.ones_like(layer.weight, dtype=torch.bool) for layer in theta]
    network = lenet.dense(theta)
    for i in range(protocol.rounds + 1):
        if i > 0:
            masks = lottery.prune(lenet.kept_weights(network, masks), masks)
            network = lenet.sparse(theta, masks)
        if i == len(levels):
            levels.append(Level(masks))
        networks = {"ticket": network}
        if i in protocol.controls:
            networks["re-init"] = lenet.sparse(lenet.initial(1000 + seed), masks)
            networks["random"] = lenet.sparse(theta, lottery.random_masks(masks, seed))
        for curve, candidate in networks.items():
            history = []
            for accuracy in lottery.train(candidate, data, seed, protocol.epochs):
                history.append(accuracy)
                context.advance(f"seed {seed}, density {levels[i].density:.3f}, {curve}")
            levels[i].found.setdefault(curve, []).append(lottery.summary(history))


def _epoch_times(theta: Layers, masks: Masks, data: digits.Digits, seconds: float) -> Times:
    """An epoch of training by each form of the same network, on the same batches."""
    epoch = lottery.batches(data, seed=0, epoch=0)
    as_floats = [mask.float() for mask in masks]
    networks = {
        TODAY: lenet.masked(theta, masks),
        PROJECTED: lenet.projected(theta, masks),
        "synops": lenet.sparse(theta, masks),
    }

    def work(name: str) -> Callable[[], None]:
        network, optimizer = networks[name], lottery.sgd(networks[name])
        after = partial(lenet.project, network, as_floats) if name == PROJECTED else None
        return lambda: lottery.train_epoch(network, optimizer, epoch, after)

    return in_turns({name: work(name) for name in networks}, seconds=seconds, min_rounds=3)


def _error(theta: Layers, masks: Masks, data: digits.Digits) -> float:
    """Of the logits of a batch and all gradients of its loss, against masked dense in float64."""
    x, y = lottery.batches(data, seed=0, epoch=0)[0]
    exact = lenet.masked(theta, masks).double()
    ours = lenet.sparse(theta, masks)
    want, got = _logits_and_gradients(exact, x.double(), y), _logits_and_gradients(ours, x, y)
    for i, mask in enumerate(masks):
        want[1 + 2 * i] = want[1 + 2 * i][mask]  # a weight, then a bias
    return largest_error(tuple(got), tuple(want))


def _logits_and_gradients(network: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    logits = network(x)
    loss = cross_entropy(logits, y)
    return [logits.detach(), *torch.autograd.grad(loss, list(network.parameters()))]


def _accuracies(levels: Sequence[Level], protocol: Protocol) -> Results:
    shown = [levels[i] for i in (0, *protocol.controls)]
    columns = ["density", *[name for curve in CURVES for name in (curve, "epoch 2")]]
    rows = []
    for level in shown:
        cells = [f"{level.density:.3f}"]
        for curve in CURVES:
            if curve in level.found:
                cells += [f"{level.final(curve):.4f}", f"{level.early(curve):.3f}"]
            else:
                cells += ["-", "-"]
        rows.append(cells)
    title = (
        f"accuracy on 1000 test digits, mean over seeds {', '.join(map(str, protocol.seeds))}: "
        f"epochs {protocol.epochs - 2} to {protocol.epochs}, and epoch 2 alone"
    )
    return Results(title, columns, rows)


def _claims(levels: Sequence[Level], protocol: Protocol) -> list[Claim]:
    """The three statements of the paper, at densities of about .2 and of the last round."""
    whole, last = levels[0].final("ticket"), levels[-1]
    fifth = min((levels[i] for i in protocol.controls), key=lambda level: abs(level.density - 0.2))
    ticket, anew = fifth.final("ticket"), fifth.final("re-init")
    controls = max(last.final("re-init"), last.final("random"))
    at = f"at density {fifth.density:.3f}"
    return [
        Claim(
            f"{at}, a ticket learns as well as the whole network, within .005",
            ticket >= whole - 0.005,
            f"{ticket:.4f} against {whole:.4f}",
        ),
        Claim(
            f"{at}, it beats the same mask re-initialised by at least .02",
            ticket - anew >= 0.02,
            f"{ticket:.4f} against {anew:.4f}",
        ),
        Claim(
            f"at density {last.density:.3f}, re-initialised and random are at least .2 below",
            controls <= last.final("ticket") - 0.2,
            f"ticket {last.final('ticket'):.4f}, re-init {last.final('re-init'):.4f}, "
            f"random {last.final('random'):.4f}",
        ),
    ]
