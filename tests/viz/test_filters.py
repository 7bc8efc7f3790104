"""filters: where each row is drawn, and what is refused."""

import numpy as np
import pytest
import torch

from synops.viz import filters

figure = pytest.importorskip("matplotlib.figure")


def drawn(*arguments, **options):
    """The picture, (height, width[, 3])."""
    ax = filters(*arguments, ax=figure.Figure().subplots(), **options)
    return np.asarray(ax.get_images()[0].get_array())


def test_places_and_scales():
    weight = torch.zeros(5, 1, 2, 3)
    weight[4, 0, 1, 2], weight[4, 0, 0, 0] = 4.0, -2.0
    picture = drawn(weight, columns=3)
    assert picture.shape == (2 * 3 - 1, 3 * 4 - 1)
    assert picture[3:5, 4:7].tolist() == [[0.25, 0.5, 0.5], [0.5, 0.5, 1.0]]
    assert (picture[3:5, :3] == 0.5).all()  # a filter of zeros
    assert (picture[2] == 1).all()  # between two rows


def test_rows_and_colors():
    weight = torch.randn(4, 6)
    wide = drawn(weight, (2, 3))
    assert np.array_equal(wide, drawn(weight.view(4, 1, 2, 3)))
    assert drawn(torch.randn(4, 9)).shape == (7, 7)
    assert drawn(torch.randn(2, 3, 4, 4), columns=2).shape == (4, 9, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        ((torch.randn(4, 6),), {}, "shape must multiply to in = 6"),
        ((torch.randn(4, 2, 3, 3),), {}, "weight must have shape"),
        ((torch.randn(0, 1, 3, 3),), {}, "weight must have shape"),
        ((torch.randn(4, 9),), {"columns": 0}, "columns must be a positive integer"),
    ],
    ids=range(4),
)
def test_refuses(arguments, options, says):
    with pytest.raises(ValueError, match=says):
        filters(*arguments, **options)
