"""stdp: pairs of spikes change a weight in place, against the outer products that people write."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public

TAU, LR = 20.0, 0.01
DECAY = math.exp(-1 / TAU)


class STDPSize(NamedTuple):
    """A weight (out, in), and spikes (T, B, N) at a rate."""

    steps: int
    batch: int
    inputs: int
    outputs: int
    rate: float
    source: str
    density: float = 1.0  # of the synapses

    @property
    def work(self) -> int:
        """Entries, over steps and sequences."""
        return int(self.steps * self.batch * self.inputs * self.outputs * self.density)


_LAYER, _CALL = "a layer, one step: 2 % are 20 Hz at 1 ms", "the cost of a call"
_MNIST = "P. Diehl and M. Cook, 2015: 784 inputs, 400 units"
_SIZES: dict[str, STDPSize] = {
    "1x1x1024x1024 2%": STDPSize(1, 1, 1024, 1024, 0.02, _LAYER),
    "1x1x1024x1024 .1%": STDPSize(1, 1, 1024, 1024, 0.001, _LAYER),
    "1x1x1024x1024 20%": STDPSize(1, 1, 1024, 1024, 0.2, _LAYER),
    "1x1x4096x4096 2%": STDPSize(1, 1, 4096, 4096, 0.02, _LAYER),
    "1x1x4096x4096 .1%": STDPSize(1, 1, 4096, 4096, 0.001, _LAYER),
    "1x1x4096x4096 20%": STDPSize(1, 1, 4096, 4096, 0.2, _LAYER),
    "1x32x1024x1024 2%": STDPSize(1, 32, 1024, 1024, 0.02, "a batch of them"),
    "100x1x1024x1024 2%": STDPSize(100, 1, 1024, 1024, 0.02, "100 steps in one call"),
    "250x1x784x400 2%": STDPSize(250, 1, 784, 400, 0.02, _MNIST),
    "1x1x4096x4096 2% d=.1": STDPSize(1, 1, 4096, 4096, 0.02, "existing synapses only", 0.1),
    "1x1x16x16 20%": STDPSize(1, 1, 16, 16, 0.2, _CALL),
}
_THREADED = {
    name: _SIZES[name]
    for name in ("1x1x1024x1024 2%", "1x1x4096x4096 2%", "1x1x4096x4096 20%", "1x1x16x16 20%")
}


class Sample(NamedTuple):
    """Weight and traces before a call, and its spikes as 0 and 1."""

    weight: Tensor
    trace_pre: Tensor
    trace_post: Tensor
    pre: Tensor  # (T, B, in)
    post: Tensor
    mask: Tensor | None

    @classmethod
    def draw(cls, size: STDPSize, dtype: torch.dtype, device: str) -> Sample:
        g = torch.Generator().manual_seed(0)
        shape = (size.outputs, size.inputs)
        mask = torch.rand(shape, generator=g) < size.density if size.density < 1 else None
        weight = torch.rand(shape, generator=g)
        weight = weight if mask is None else weight * mask
        traces = [torch.rand(size.batch, n, generator=g) for n in (size.inputs, size.outputs)]
        spikes = [
            (torch.rand(size.steps, size.batch, n, generator=g) < size.rate).float()
            for n in (size.inputs, size.outputs)
        ]
        weight, r, o, pre, post = (t.to(device, dtype) for t in (weight, *traces, *spikes))
        return cls(weight, r, o, pre, post, None if mask is None else mask.to(device))

    def copy(self) -> Sample:
        """Another one to work on."""
        return self._replace(
            weight=self.weight.clone(),
            trace_pre=self.trace_pre.clone(),
            trace_post=self.trace_post.clone(),
        )


# What makes the function of one implementation from the sample that it works on in place.
Maker = Callable[[Sample], Callable[[], Any]]


def synops_of(s: Sample) -> Callable[[], Any]:
    stdp_, state = public("hebbian.stdp_"), public("hebbian.STDPState")
    held = state(s.trace_pre, s.trace_post)
    options = {"lr": LR, "tau_plus": TAU, "tau_minus": TAU, "clip": (0.0, 1.0), "reduction": "sum"}
    if s.mask is None:
        return lambda: stdp_(s.weight, s.pre, s.post, held, **options).weight
    pattern = public("sparse.Pattern").from_mask(s.mask)
    values = pattern.gather(s.weight)

    def run() -> Tensor:
        stdp_(values, s.pre, s.post, held, pattern=pattern, **options)
        return values

    return run


def step(w: Tensor, r: Tensor, o: Tensor, pre: Tensor, post: Tensor) -> Tensor:
    """In place, nothing of the size of the weight beside it."""
    r.mul_(DECAY).add_(pre)
    o.mul_(DECAY).add_(post)
    if len(pre) == 1:
        w.addr_(post[0], r[0], alpha=LR).addr_(o[0], pre[0], alpha=-LR)
    else:
        w.addmm_(post.t(), r, alpha=LR).addmm_(o.t(), pre, alpha=-LR)
    return w.clamp_(0, 1)


def one_pass(w: Tensor, r: Tensor, o: Tensor, pre: Tensor, post: Tensor) -> Tensor:
    """What the compiler makes one loop of."""
    r.mul_(DECAY).add_(pre)
    o.mul_(DECAY).add_(post)
    if len(pre) == 1:
        change = post[0][:, None] * r[0] - o[0][:, None] * pre[0]
    else:
        change = post.t() @ r - o.t() @ pre
    return w.copy_((w + LR * change).clamp(0, 1))


def torch_of(s: Sample, update: Callable[..., Tensor] = step) -> Callable[[], Any]:
    mask = None if s.mask is None else s.mask.to(s.weight.dtype)

    def run() -> Tensor:
        for pre, post in zip(s.pre.unbind(0), s.post.unbind(0), strict=True):
            update(s.weight, s.trace_pre, s.trace_post, pre, post)
            if mask is not None:
                s.weight.mul_(mask)
        return s.weight

    return run


def compiled_of(s: Sample) -> Callable[[], Any]:
    return torch_of(s, torch.compile(one_pass, dynamic=False))


def spikingjelly_of(s: Sample) -> Callable[[], Any]:
    """Its functional step, whose traces decay by 1 - 1 / tau, added and clamped in place."""
    try:
        from spikingjelly.activation_based.functional.learning import stdp_linear_step
    except ImportError:
        raise NotImplementedError("spikingjelly is not installed") from None
    if s.mask is not None:
        raise NotImplementedError("SpikingJelly's STDP has no missing synapses")
    tau = 1 / (1 - DECAY)
    traces = [s.trace_pre, s.trace_post]

    def run() -> Tensor:
        for pre, post in zip(s.pre.unbind(0), s.post.unbind(0), strict=True):
            change, held = stdp_linear_step(
                pre, post, tuple(traces), s.weight, tau_pre=tau, tau_post=tau,
                f_pre=_rate, f_post=_rate,
            )  # fmt: skip
            traces[:] = held
            s.weight.add_(change).clamp_(0, 1)
        return s.weight

    return run


def _rate(w: Tensor) -> float:
    return LR


def bindsnet_of(s: Sample) -> Callable[[], Any]:
    """Its PostPre on a connection (in, out), traces by the formula of its nodes."""
    try:
        from bindsnet.learning import PostPre
        from bindsnet.network.nodes import Input
        from bindsnet.network.topology import Connection
    except ImportError:
        raise NotImplementedError("bindsnet is not installed") from None
    if s.mask is not None:
        raise NotImplementedError("BindsNET's sparse connections do not learn within bounds")
    batch = s.pre.shape[1]
    nodes = [Input(n=t.shape[2], traces=True, traces_additive=True) for t in (s.pre, s.post)]
    for node in nodes:
        node.set_batch_size(batch)
    weight = s.weight.t().contiguous()
    link = Connection(
        *nodes, w=weight, update_rule=PostPre, nu=(LR, LR), reduction=torch.sum, wmin=0.0, wmax=1.0
    )
    rule = link.update_rule
    nodes[0].x, nodes[1].x = s.trace_pre, s.trace_post

    def run() -> Tensor:
        for pre, post in zip(s.pre.unbind(0), s.post.unbind(0), strict=True):
            for node, spikes in zip(nodes, (pre, post), strict=True):
                node.x.mul_(DECAY).add_(spikes)
                node.s = spikes
            rule.update()
        return link.w.t()

    return run


MAKERS: dict[str, Maker] = {
    "synops": synops_of,
    "torch": torch_of,
    "compile": compiled_of,
    "spikingjelly": spikingjelly_of,
    "bindsnet": bindsnet_of,
}


def build(impl: str, size: STDPSize, dtype: torch.dtype, device: str) -> Call:
    """The weight after all steps, from the same traces each time it is checked, by

    - synops, in place;
    - torch: two outer products and a clamp in place, a step at a time;
    - compile: the same as one expression, compiled;
    - spikingjelly: stdp_linear_step;
    - bindsnet: PostPre.update.
    """
    s = Sample.draw(size, dtype, device)
    make = MAKERS[impl]
    run = make(s.copy())

    def checked(_: Any) -> tuple[Tensor]:
        w = make(s.copy())()
        return (w if s.mask is None or w.dim() == 1 else w[s.mask],)

    return Call(run, (), outputs=checked)


class STDP(suite.ForwardSuite):
    """On one thread."""

    op = "hebbian.stdp"
    impls = ("synops", "torch", "compile", "spikingjelly", "bindsnet")
    cases = _SIZES

    def build(
        self, impl: str, size: STDPSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)


class STDP2Threads(STDP):
    """Where there is enough work to share."""

    cases = _THREADED
    threads = 2
