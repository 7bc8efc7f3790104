"""What entropy_map draws: the numbers of the image, labels, and what it refuses."""

import sys

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

import matplotlib
from matplotlib import pyplot

from synops.viz import entropy_map

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


def drawn(ax):
    """The image's numbers, NaN where it shows none."""
    (image,) = ax.images
    return np.ma.filled(image.get_array(), np.nan)


def test_a_table_is_drawn_as_it_is():
    table = torch.rand(5, 3) * 4
    ax = entropy_map(table, title="five layers")
    np.testing.assert_array_equal(drawn(ax), table.numpy())
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("head", "layer", "five layers")
    assert ax.images[0].get_clim() == (0, float(table.max()))
    (bar,) = (other for other in ax.figure.axes if other is not ax)
    assert bar.get_ylabel() == "attention entropy, nats"
    low, high = ax.get_ylim()
    assert low > high, "layer 0 is at the top"


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_arrays(dtype):
    table = np.arange(6, dtype=dtype).reshape(2, 3)
    np.testing.assert_array_equal(drawn(entropy_map(table)), table)


def test_layers_are_averaged_without_padding():
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1]])
    layers = [torch.rand(2, 3, 4, requires_grad=True) for _ in range(5)]
    want = np.array([[t[:, h][mask.bool()].mean().item() for h in range(3)] for t in layers])
    np.testing.assert_allclose(drawn(entropy_map(layers, attention_mask=mask)), want, rtol=1e-6)
    whole = torch.stack([t.mean((0, 2)) for t in layers]).detach()
    np.testing.assert_allclose(drawn(entropy_map(tuple(layers))), whole, rtol=1e-6)


def test_a_monitor():
    """Anything whose ``mean`` is a tensor."""

    class Monitor:
        mean = torch.rand(2, 3)

    np.testing.assert_array_equal(drawn(entropy_map(Monitor())), Monitor.mean)


def test_on_given_axes():
    figure, axes = pyplot.subplots(1, 2)
    assert entropy_map(torch.rand(2, 2), ax=axes[1], vmax=3.0, cmap="magma") is axes[1]
    assert not axes[0].images
    image = axes[1].images[0]
    assert image.get_clim() == (0, 3)
    assert image.get_cmap().name == "magma"
    assert pyplot.get_fignums() == [figure.number]


@pytest.mark.parametrize("count", [1, 9, 16, 17, 96])
def test_ticks_are_whole_layers_and_few(count):
    ticks = entropy_map(torch.rand(count, 2)).get_yticks()
    assert 1 <= len(ticks) <= 16
    assert ticks[0] == 0
    assert all(float(t).is_integer() and t < count for t in ticks)


def test_pictures_have_the_colours(tmp_path):
    """Saved, a map of two halves shows both ends of the colours."""
    table = torch.zeros(8, 8)
    table[:, 4:] = 2
    file = tmp_path / "map.png"
    entropy_map(table).figure.savefig(file)
    pixels = pyplot.imread(file)[..., :3].reshape(-1, 3)
    for end in (0.0, 1.0):
        colour = matplotlib.colormaps["viridis"](end)[:3]
        assert (abs(pixels - colour).max(-1) < 0.02).mean() > 0.1


@pytest.mark.parametrize(
    ("entropy", "mask", "error", "says"),
    [
        ("entropy", None, TypeError, r"entropy must be \(layers, heads\).*got str"),
        ([], None, TypeError, "entropy must be .*got list"),
        (torch.rand(3), None, ValueError, r"entropy must be .*got \(3,\)"),
        (torch.rand(0, 3), None, ValueError, r"entropy must be .*got \(0, 3\)"),
        ([torch.rand(1, 2, 3, 3)], None, TypeError, r"entropy\[0\] must be a tensor \(B, H, N\)"),
        ([None], None, TypeError, r"entropy\[0\] must be a tensor .*got NoneType"),
        (
            [torch.rand(1, 2, 3), torch.rand(1, 4, 3)],
            None,
            ValueError,
            r"entropy\[1\] must have as many heads as the first \(2\).*got \(1, 4, 3\)",
        ),
        (
            [torch.rand(1, 2, 3)],
            torch.ones(1, 4),
            ValueError,
            r"attention_mask must have the shape \(B, N\) = \(1, 3\)",
        ),
        (torch.rand(2, 3), torch.ones(2, 3), ValueError, "attention_mask must be None unless"),
    ],
)
def test_refuses(entropy, mask, error, says):
    with pytest.raises(error, match=f"entropy_map: {says}"):
        entropy_map(entropy, attention_mask=mask)
    assert not pyplot.get_fignums()


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "synops\[viz\]"'):
        entropy_map(torch.rand(2, 2))
