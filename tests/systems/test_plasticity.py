"""DrM's dormant ratio and Adaptive RR's fraction of active units, from their formulas, against
synops.Monitor; and the example in which units fall asleep."""

from itertools import pairwise

import pytest
import torch
from example import load
from torch import nn

import synops


def dormant_units(model, x, tau):
    """As DrM counts them: (dormant, units) of all linear layers, in a forward of its own.

    A unit is dormant whose mean magnitude over the batch is below tau times the mean of these over
    its layer; a layer counts once for each call. Outputs are looked at when the forward is over, so
    what a ReLU changed in place is that layer's activation by then.
    """
    outputs = []
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    handles = [m.register_forward_hook(lambda m, a, y: outputs.append(y)) for m in linear]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    magnitudes = [y.abs().mean(0) for y in outputs]
    return sum(int((m < tau * m.mean()).sum()) for m in magnitudes), sum(map(len, magnitudes))


def active_fraction(model, x):
    """As Adaptive RR counts: outputs above 0 of all ReLU layers, over their number."""
    outputs = []
    relus = [m for m in model.modules() if isinstance(m, nn.ReLU)]
    handles = [m.register_forward_hook(lambda m, a, y: outputs.append(y)) for m in relus]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return sum(int((h > 0).sum()) for h in outputs) / sum(h.numel() for h in outputs)


def mlp(widths, inplace=False):
    layers = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU(inplace=inplace)]
    return nn.Sequential(*layers[:-1])


def kill(model, share):
    """Some units get no input and no bias, or a bias of which ReLU leaves nothing."""
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                dead = torch.rand(layer.out_features) < share
                layer.weight[dead] = 0
                layer.bias[dead] = 0
                layer.bias[torch.rand(layer.out_features) < share] -= 100


@pytest.mark.parametrize("tau", [0.025, 0.1, 0.7])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_as_the_papers_count(seed, inplace, tau):
    """Random networks with dead units, exactly; of ReLUs in place their outputs, by name."""
    torch.manual_seed(seed)
    widths = [int(w) for w in torch.randint(2, 90, (5,))]
    model, x = mlp(widths, inplace), torch.randn(33 + 64 * seed, widths[0])
    kill(model, 0.3 * seed / 3)
    want, units = dormant_units(model, x, tau)
    with synops.Monitor(model, layers=["1", "3", "5", "6"] if inplace else None) as monitor:
        model(x)
    layers = [r for r in monitor.per_layer(tau).values() if r.dormant is not None]
    assert sum(r.dormant for r in layers) == want
    assert sum(r.units for r in layers) == units
    assert monitor.dormant_ratio(tau) == want / units
    assert monitor.fau() == active_fraction(model, x)


def test_in_place_is_as_out_of_place():
    """By default units are looked at before the activation, whatever that does to memory."""
    model, x = mlp((6, 50, 40, 3)), torch.randn(64, 6)
    kill(model, 0.3)
    with synops.Monitor(model) as monitor:
        model(x)
    want = monitor.per_layer(0.3)
    model[1].inplace = model[3].inplace = True
    with synops.Monitor(model) as monitor:
        model(x)
    assert monitor.per_layer(0.3) == want


def test_ties():
    """Units exactly at the threshold are not dormant, a layer of zeros has none; sums are exact."""
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 6))
    with torch.no_grad():
        model[0].weight.copy_(torch.diag(torch.tensor([1.0, 1.0, 1.0, 5.0])))
        model[2].weight.zero_(), model[2].bias.zero_()
    x = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(20, 2)  # magnitudes 1, 1, 1, 5: mean 2
    for tau, count in ((0.5, 0), (0.5001, 3), (0.4999, 0)):
        assert dormant_units(model, x, tau) == (count, 10)
        with synops.Monitor(model) as monitor:
            model(x)
        assert monitor.dormant_ratio(tau) == count / 10


def test_the_example(capsys):
    readings = load("dormant_units").main(["--targets", "4", "--steps", "100"])
    assert readings[-1].dormant > readings[0].dormant + 0.1
    assert readings[-1].active < readings[0].active
    assert readings[-1].rank < readings[0].rank
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 5
    assert "dormant" in out
