"""DynamicSparsity: what is refused, and that nothing is done by halves."""

import pytest
import torch
from dynamic_models import batch, mlp, same, snapshot, started, train
from torch import nn

from synops.nn import DynamicSparsity

WRONG = [
    ({"method": "rigel"}, ValueError, "method must be one of static, set, rigl, granet"),
    ({"density": 1.5}, ValueError, r"density must lie in \[0, 1\], got 1.5"),
    ({"density": "0.1"}, TypeError, "density must be a number"),
    ({"density": None}, TypeError, "density must be a number or a dict"),
    ({"density": {"0": 0.1}}, ValueError, r"density must name the dense layers \['0', '2', '4'\]"),
    ({"density": {"0": 2.0, "2": 0.1, "4": 0.1}}, ValueError, r"density\['0'\] must lie in"),
    ({"density": 1e-5}, ValueError, "leave every layer an entry .* would have none"),
    ({"distribution": "er"}, ValueError, "distribution must be erk or uniform, got 'er'"),
    ({"total_steps": 0}, ValueError, "total_steps must be at least 1, got 0"),
    ({"total_steps": 1.5}, TypeError, "total_steps must be an integer, got 1.5"),
    ({"interval": 0}, ValueError, "interval must be at least 1, got 0"),
    ({"prune_rate": -0.1}, ValueError, r"prune_rate must lie in \[0, 1\], got -0.1"),
    ({"begin": -1}, ValueError, "begin must be at least 0"),
    ({"begin": 9, "end": 3}, ValueError, "end must be at least 9, got 3"),
    ({"ramp_end": 5}, ValueError, "ramp_end must be None: 'rigl' keeps its density"),
    ({"initial_density": 0.5}, ValueError, "initial_density must be None: 'rigl' keeps"),
    ({"method": "granet", "initial_density": 0.1}, ValueError, "initial_density must be at least"),
    ({"method": "granet", "density": {"0": 0.1}}, TypeError, "density must be a number: 'granet'"),
    ({"method": "gmp", "end": 30, "ramp_end": 40}, ValueError, "ramp_end must be at most end = 30"),
    ({"method": "gmp"}, ValueError, "interval must leave an update in steps 0 to 60, got 100"),
    ({"layers": "0"}, TypeError, "layers must be several names, got '0'"),
    ({"layers": ["1"]}, ValueError, "layers must be names of linear layers of the model, got '1'"),
    ({"layers": []}, ValueError, "model must have a linear layer that can be sparse"),
    ({"generator": 3}, TypeError, "generator must be a torch.Generator, got int"),
    ({"model": nn.ReLU()}, ValueError, "model must have a linear layer that can be sparse"),
    ({"model": nn.Linear(3, 4)}, ValueError, "model must hold its layers"),
    ({"model": 3}, TypeError, "model must be an nn.Module, got int"),
    ({"optimizer": 3}, TypeError, "optimizer must be a torch optimizer, got int"),
    ({"optimizer": torch.optim.SGD([torch.zeros(1)])}, ValueError, "must train the weight of '0'"),
]  # fmt: skip


class TestFailure:
    def test_leaves_everything(self, monkeypatch):
        """The third layer's update fails: nothing has changed, and the step can be repeated."""
        import synops._dynamic._update as module

        model, optimizer, sparsity = started("granet", interval=5)
        train(model, optimizer, sparsity, range(4))
        x, y = batch(4)
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        before, right, calls = snapshot(model, optimizer), module.prune_and_grow, []

        def wrong(*args, **options):
            calls.append(args)
            if len(calls) == 6:
                raise MemoryError("no room")
            return right(*args, **options)

        monkeypatch.setattr(module, "prune_and_grow", wrong)
        with pytest.raises(MemoryError):
            sparsity.step()
        assert same(before, snapshot(model, optimizer))
        assert sparsity.steps == 4
        monkeypatch.undo()
        assert sparsity.step()
        assert not same(before, snapshot(model, optimizer))

    def test_without_a_backward(self):
        _, _, sparsity = started("rigl", interval=1)
        with pytest.raises(RuntimeError, match="no layer has seen a forward and a backward"):
            sparsity.step()

    @pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=range(len(WRONG)))
    def test_wrong_arguments(self, change, error, message):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        before = [list(model), list(optimizer.param_groups[0]["params"])]
        args = {"model": model, "optimizer": optimizer, "density": 0.2, "total_steps": 60} | change
        with pytest.raises(error, match=message):
            DynamicSparsity(**args)
        assert all(a is b for a, b in zip(before[0], model, strict=True))
        assert all(
            a is b for a, b in zip(before[1], optimizer.param_groups[0]["params"], strict=True)
        )

    def test_layers_that_cannot(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[1].weight = model[0].weight
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pytest.raises(ValueError, match=r"be layers that can be sparse .*tied with"):
            DynamicSparsity(model, optimizer, density=0.5, total_steps=9, layers=["0"])
