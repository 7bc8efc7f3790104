"""When an event follows a cue, and how likely: a readout of an Izhikevich reservoir learns both.

    python examples/what_when.py

After cue A an event follows in 8 of 10 trials, 300 ms later; after cue B in 2 of 10, 600 ms later.
A readout of 1000 neurons learns by the three-factor rule inside of the run: its target is a bump at
the event, where there is one. So its peak comes when the event is due, and is the higher the more
likely it is. Then the two delays are swapped, and it goes on learning, without a reset.

The task is that of Yamada and Chao (arXiv:2510.14382), whose parameters are not public: here every
trial begins in the same state of the reservoir, but for .01 mV of noise. With three seeds, peaks
come within 18 ms of the event after 200 trials. 100 trials after the swap that of cue A does again;
that of cue B, which has seen its new event ten times by then, in most runs. The share of cue A in
both heights should be .8: it is .82 to .90 after 400 trials, .59 to .80 after the swap.
The heights are a quarter of the likelihoods only: the noise grows in a chaotic reservoir, and what
differs from trial to trial is not learned. Takes seconds.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import torch
from torch import Tensor

from synops.nn import IzhikevichReservoir
from synops.spiking import IzhikevichState

DT, STEPS, CUE = 0.5, 1600, (40, 80)  # ms; steps of a trial; of them those of the cue
ONSET = CUE[0] * DT
LIKELY = (0.8, 0.2)  # after cue A and cue B
DELAYS = (300.0, 600.0)  # ms after the onset of the cue
WIDTH = 30.0  # ms of a bump
SMOOTH = 41  # steps over which the readout is averaged where it is looked at


class Found(NamedTuple):
    """Of both cues: ms between the peak of the readout and the event, and how high the peak is."""

    late: tuple[float, float]
    height: tuple[float, float]

    @property
    def share(self) -> float:
        """Of cue A in both heights; .8 where they are as the likelihoods."""
        return self.height[0] / sum(self.height)


class WhatWhen:
    """A reservoir, its readout, and the task.

    Args:
        seed: of the network, the trials and the noise.
        neurons: of the reservoir.
        rate: what a trial corrects, as a fraction (nearly).
    """

    def __init__(self, seed: int = 0, neurons: int = 1000, rate: float = 0.02):
        self.generator = torch.Generator().manual_seed(seed)
        self.reservoir = IzhikevichReservoir.random(
            neurons, inputs=2, generator=self.generator, tau_trace=30.0
        )
        heard = torch.rand(neurons, 2, generator=self.generator) < 0.3
        self.reservoir.input_weight.mul_(heard * 15)
        state = self.reservoir(torch.zeros(600, 2), record=None).state
        self.start = state._replace(trace=torch.zeros(neurons))
        self.rate = rate / (neurons * (0.0127 * 30) ** 2)  # a trace is about .0127 / ms * 30 ms
        self.readout = torch.zeros(1, neurons)

    def trial(self, cue: int, target: Tensor | None = None) -> Tensor:
        """The readout over a trial, (STEPS,); with a target, it learns."""
        x = torch.zeros(STEPS, 2)
        x[slice(*CUE), cue] = 1
        noise = 0.01 * torch.randn(self.start.v.shape, generator=self.generator)
        state: IzhikevichState = self.start._replace(v=self.start.v + noise)
        learning = {} if target is None else {"targets": target, "learning_rate": self.rate}
        got = self.reservoir(x, state, record=None, readout=self.readout, **learning)
        self.readout = got.readout
        return got.z[:, 0]

    def learn(self, trials: int, delays: tuple[float, float] = DELAYS) -> None:
        """Trials with either cue, and with the event or without."""
        after = torch.arange(STEPS) * DT - ONSET
        for _ in range(trials):
            chance = torch.rand(2, generator=self.generator)
            cue = int(chance[0] < 0.5)
            bump = (-0.5 * ((after - delays[cue]) / WIDTH) ** 2).exp()
            self.trial(cue, (bump * (chance[1] < LIKELY[cue])).unsqueeze(1))

    def look(self, delays: tuple[float, float] = DELAYS, trials: int = 5) -> Found:
        """Peaks of the readout, which does not learn here, from 40 ms after the cue on."""
        late, height = [], []
        first = CUE[1] + 80
        for cue in (0, 1):
            z = torch.stack([self.trial(cue) for _ in range(trials)]).mean(0)[first:]
            z = torch.nn.functional.avg_pool1d(z[None], SMOOTH, 1, SMOOTH // 2)[0]
            peak = int(z.argmax())
            late.append((peak + first) * DT - ONSET - delays[cue])
            height.append(float(z[peak]))
        return Found((late[0], late[1]), (height[0], height[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    system = WhatWhen(parser.parse_args().seed)
    swapped = DELAYS[::-1]
    for trials, delays in ((200, DELAYS), (200, DELAYS), *((100, swapped),) * 3):
        system.learn(trials, delays)
        found = system.look(delays)
        print(
            f"{trials:4} trials, events after {delays[0]:.0f} and {delays[1]:.0f} ms: "
            f"peaks {found.late[0]:+.0f} and {found.late[1]:+.0f} ms from there, "
            f"heights {found.height[0]:.2f} and {found.height[1]:.2f}, share {found.share:.2f}"
        )


if __name__ == "__main__":
    main()
