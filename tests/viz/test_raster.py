"""What raster draws: dots, rate, labels, and what it refuses."""

import sys

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

import matplotlib
from matplotlib import pyplot

from synops.nn import IzhikevichReservoir
from synops.viz import _raster, raster

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


def dots(ax):
    return np.asarray(ax.collections[0].get_offsets())


def rate_of(ax):
    (line,) = ax.child_axes[0].lines
    return line.get_xydata()


def test_dots_and_rate():
    """Spikes where they are, in ms; the mean rate in Hz."""
    spikes = torch.zeros(100, 4)
    spikes[10, 1] = spikes[10, 3] = spikes[60, 0] = 1
    ax = raster(spikes, dt=2.0, window=2.0, title="few")
    np.testing.assert_allclose(dots(ax), [(20, 1), (20, 3), (120, 0)])
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("time, ms", "neuron", "few")
    rate = rate_of(ax)
    assert rate[10].tolist() == [20, 250]  # half of them in 2 ms
    assert rate[60].tolist() == [120, 125]
    assert rate[:, 1].sum() == 375
    assert all(0 <= t < 4 and float(t).is_integer() for t in ax.get_yticks())


def test_the_rate_is_a_mean_over_a_window():
    spikes = torch.ones(50, 3)
    np.testing.assert_allclose(rate_of(raster(spikes, dt=1.0, window=7.0))[:, 1], 1000)
    spikes[25:] = 0
    values = rate_of(raster(spikes, dt=1.0, window=10.0))[:, 1]
    assert values[25] == pytest.approx(500)
    assert values[0] == 1000
    assert values[-1] == 0


def test_what_izhikevich_returns():
    module = IzhikevichReservoir.random(100, 10, generator=torch.Generator().manual_seed(0))
    both = module(steps=200, record=("indices", "raster"))
    want = dots(raster(both.raster))
    np.testing.assert_allclose(dots(raster(both)), want)
    np.testing.assert_allclose(dots(raster(both.indices, both.counts)), want)
    np.testing.assert_allclose(dots(raster(both._replace(indices=None))), want)
    assert len(want) == int(both.counts.sum()) > 10
    assert raster(both.indices, both.counts, neurons=500).get_ylim()[1] > 499


def test_colors_axes_and_many_spikes(monkeypatch):
    figure, axes = pyplot.subplots(1, 2)
    spikes = torch.eye(6)
    ax = raster(spikes, ax=axes[1], colors=["red"] * 3 + ["blue"] * 3)
    assert ax is axes[1]
    assert not axes[0].collections
    reds = (ax.collections[0].get_facecolor()[:, :3] == (1, 0, 0)).all(1)
    assert reds.tolist() == [True] * 3 + [False] * 3
    monkeypatch.setattr(_raster, "_MOST", 4)
    ax = raster(spikes)
    assert len(dots(ax)) == 3
    assert (rate_of(ax)[:, 1] > 0).all()
    assert figure.number in pyplot.get_fignums()


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (5, 3)])
def test_no_spikes(shape, tmp_path):
    ax = raster(torch.zeros(shape))
    assert len(dots(ax)) == 0
    ax.figure.savefig(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        (("spikes",), TypeError, r"spikes must be \(T, N\), indices .*, got str"),
        ((torch.zeros(3),), ValueError, r"spikes must be .*got \(3,\)"),
        ((torch.zeros(2, 3, 4),), ValueError, r"spikes must be .*got \(2, 3, 4\)"),
        ((torch.zeros(3), torch.zeros(2, 2)), ValueError, r"spikes must be .*of one reservoir"),
        ((torch.zeros(3), torch.tensor([1, 1])), ValueError, "counts must add up to the 3 spikes"),
    ],
)
def test_refuses(args, error, says):
    with pytest.raises(error, match=f"raster: {says}"):
        raster(*args)
    assert not pyplot.get_fignums()


def test_refuses_numbers():
    with pytest.raises(ValueError, match="raster: dt must be positive, got 0"):
        raster(torch.zeros(2, 2), dt=0)
    with pytest.raises(ValueError, match="raster: neurons must be at least 6, got 3"):
        raster(torch.tensor([5]), torch.tensor([1]), neurons=3)
    result = IzhikevichReservoir.random(5, 1)(steps=2, record="v")
    with pytest.raises(ValueError, match="spikes must have indices or a raster"):
        raster(result)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.ticker", None)
    with pytest.raises(ImportError, match=r'pip install "synops\[viz\]"'):
        raster(torch.zeros(2, 2))
