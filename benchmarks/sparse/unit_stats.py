"""unit_stats against torch's reductions, and Monitor against the ways to watch a model today."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..common import suite
from ..common.call import Call, Tensors
from ..common.public import public


class Batch(NamedTuple):
    """Outputs of one layer; the floor is one read of them."""

    rows: int
    units: int
    source: str

    @property
    def work(self) -> int:
        """Numbers."""
        return self.rows * self.units


_BATCHES = {
    "256x1024": Batch(256, 1024, "hidden layer of DrM's actor (arXiv:2310.19668)"),
    "4096x1024": Batch(4096, 1024, "what no cache holds"),
    "100000x21": Batch(100_000, 21, "few units"),
    "1x8": Batch(1, 8, "the cost of a call"),
}


def _torch(x: Tensor) -> Tensors:
    variance, mean = torch.var_mean(x, 0, correction=0)
    return x.abs().mean(0), (x > 0).to(x.dtype).mean(0), mean, variance


class UnitStats(suite.ForwardSuite):
    """On one thread: synops; torch's four reductions; ``sum``, one read of the tensor."""

    op = "sparse.unit_stats"
    impls = ("synops", "torch", "sum")
    cases = _BATCHES

    def build(
        self, impl: str, size: Batch, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(size.rows, size.units, generator=generator).to(device, dtype)
        if impl == "sum":
            return Call(lambda: x.sum(), (), outputs=lambda _: ())
        function = public("sparse.unit_stats") if impl == "synops" else _torch
        return Call(lambda: function(x), (), outputs=tuple)


class Network(NamedTuple):
    """Linear layers with ReLU between, a forward with gradients."""

    batch: int
    widths: tuple[int, ...]
    source: str

    @property
    def work(self) -> int:
        """Multiply-adds."""
        return self.batch * sum(a * b for a, b in zip(self.widths, self.widths[1:], strict=False))

    def make(self) -> nn.Sequential:
        layers: list[nn.Module] = []
        for a, b in zip(self.widths, self.widths[1:], strict=False):
            layers += [nn.Linear(a, b), nn.ReLU(inplace=True)]
        generator = torch.Generator().manual_seed(0)
        for p in (p for layer in layers for p in layer.parameters()):
            p.data = (torch.rand(p.shape, generator=generator) * 2 - 1) * self.widths[0] ** -0.5
        return nn.Sequential(*layers[:-1])


_NETWORKS = {
    "256x50x1024x1024x21": Network(256, (50, 1024, 1024, 21), "DrM's actor behind its trunk"),
    "256x39200x50x1024x1024x21": Network(256, (39200, 50, 1024, 1024, 21), "with its trunk"),
    "4x8x16x16x3": Network(4, (8, 16, 16, 3), "the cost of the hooks"),
}


class Monitor(suite.ForwardSuite):
    """On one thread. Mean magnitudes of linear outputs and FAU of ReLUs, in the training forward:

    - synops: the forward under a Monitor;
    - torch: hooks with the reductions of torch;
    - extra_forward: the forward, and another without gradients under such hooks, as DrM's code;
    - plain: the forward alone.
    """

    op = "sparse.monitor"
    impls = ("synops", "torch", "extra_forward", "plain")
    cases = _NETWORKS

    def build(
        self, impl: str, size: Network, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        model = size.make().to(device, dtype)
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(size.batch, size.widths[0], generator=generator).to(device, dtype)
        if impl == "plain":
            return Call(lambda: model(x), (), outputs=lambda y: (y.detach(),))
        if impl == "synops":
            monitor = public("Monitor")(model)

            def watched(y: Tensor) -> Tensors:
                return y.detach(), *(stats.abs_mean for stats in monitor.stats().values())

            return Call(lambda: model(x), (), outputs=watched)
        found: dict[str, Tensor] = {}

        def hook(name: str, of_linear: bool) -> Any:
            def see(module: nn.Module, args: Any, output: Tensor) -> None:
                y = output.detach()
                found[name] = y.abs().mean(0) if of_linear else (y > 0).to(y.dtype).mean()

            return see

        watches = []
        for name, module in model.named_children():
            of_linear = isinstance(module, nn.Linear)
            watches.append((module, hook(name, of_linear), name if of_linear else None))
        if impl == "torch":
            for module, see, _ in watches:
                module.register_forward_hook(see)
            run = lambda: model(x)  # noqa: E731
        else:

            def run() -> Tensor:
                with torch.no_grad():
                    handles = [m.register_forward_hook(see) for m, see, _ in watches]
                    model(x)
                    for handle in handles:
                        handle.remove()
                return model(x)

        linear = [name for *_, name in watches if name]
        return Call(run, (), outputs=lambda y: (y.detach(), *(found[name] for name in linear)))
