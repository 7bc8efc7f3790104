"""Layers of released packages on a sequence, with the numbers of lif; n/a where not installed.

snnTorch 1.0.0, SpikingJelly 2.0.0, norse 1.1.0. Each is called as its documentation has it: a loop
over time, of the unbound input where it is the user who writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor


def _imported(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise NotImplementedError(f"{name} is not installed") from None


def snntorch(beta: float, threshold: float, slope: float) -> Callable[[Tensor], Tensor]:
    """Leaky, with its delayed reset: the spikes after a first one are other neurons' than lif's."""
    spike = _imported("snntorch.surrogate").fast_sigmoid(slope=slope)
    layer = _imported("snntorch").Leaky(beta=beta, threshold=threshold, spike_grad=spike)

    def run(x: Tensor) -> Tensor:
        v, spikes = layer.init_leaky(), []
        for x_t in x.unbind(0):
            s, v = layer(x_t, v)
            spikes.append(s)
        return torch.stack(spikes)

    return run


def spikingjelly(beta: float, threshold: float, slope: float) -> Callable[[Tensor], Tensor]:
    """LIFNode in multi-step mode, with its sigmoid."""
    based = _imported("spikingjelly.activation_based")
    neuron, functional = (
        _imported(f"{based.__name__}.{name}") for name in ("neuron", "functional")
    )
    layer = neuron.LIFNode(
        tau=1 / (1 - beta), decay_input=False, v_threshold=threshold, v_reset=None,
        detach_reset=True, step_mode="m",
    )  # fmt: skip

    def run(x: Tensor) -> Tensor:
        functional.reset_net(layer)
        return layer(x)

    return run


def norse(beta: float, threshold: float, slope: float) -> Callable[[Tensor], Tensor]:
    """LIFBox over a sequence, which resets to 0."""
    torch_part = _imported("norse.torch")
    parameters = torch_part.LIFBoxParameters(
        tau_mem_inv=torch.as_tensor(1000 * (1 - beta)), v_th=torch.as_tensor(threshold)
    )
    cell = torch_part.LIFBoxCell(parameters)

    def run(x: Tensor) -> Tensor:
        state, spikes = None, []
        for x_t in x.unbind(0):
            s, state = cell(x_t, state)
            spikes.append(s)
        return torch.stack(spikes)

    return run


LAYERS = {"snntorch": snntorch, "spikingjelly": spikingjelly, "norse": norse}
