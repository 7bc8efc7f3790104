"""G2GNet: groups of units with links between them compute what masked dense layers do."""

import copy

import pytest
import torch
from example import load
from torch import nn
from torch.nn.functional import cross_entropy, linear, normalize

from synops.nn import DynamicSparsity, SparseLinear

KINDS = ("groups", "mixer", "random")


@pytest.fixture(scope="module")
def example():
    return load("g2gnet")


class Masked(nn.Linear):
    """A dense weight, times a mask in every forward."""

    def __init__(self, layer):
        super().__init__(layer.in_features, layer.out_features)
        self.load_state_dict(layer.to_linear().state_dict())
        self.register_buffer("mask", layer.pattern.mask())

    def forward(self, x):
        return linear(x, self.weight * self.mask, self.bias)


def masked(model):
    """The network of masked dense layers with the same weights."""
    layers = [Masked(m) if isinstance(m, SparseLinear) else copy.deepcopy(m) for m in model]
    return nn.Sequential(*layers).to(model[0].values.dtype)


def batch(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(100, 784, generator=generator, dtype=dtype)
    return x, torch.randint(10, (100,), generator=generator)


def test_masks(example):
    """All edges inside groups, .15 of the others; in the mixer's second layer groups are i % 8."""
    layers = {kind: example.network(kind, 0)[:3:2] for kind in KINDS}
    for kind, pair in layers.items():
        for layer in pair:
            assert layer.pattern.density == pytest.approx(1 / 8 + 7 / 8 * 0.15, abs=0.01), kind
    blocks = torch.block_diag(*[torch.ones(16, 40, dtype=torch.bool)] * 8)
    assert layers["groups"][1].pattern.mask()[blocks].all()
    interleaved = torch.arange(128)[:, None] % 8 == torch.arange(320) % 8
    assert layers["mixer"][1].pattern.mask()[interleaved].all()
    assert not layers["mixer"][1].pattern.mask()[blocks].all()
    assert torch.equal(layers["mixer"][0].pattern.mask(), layers["groups"][0].pattern.mask())
    assert not layers["random"][0].pattern.mask()[:40, :98].all()


def test_blocks_are_used(example):
    """Where edges come in blocks the product goes by them; elsewhere there are none to find."""
    parts = {kind: [m.pattern.parts for m in example.network(kind, 0)[:3:2]] for kind in KINDS}
    assert None not in parts["groups"] + parts["mixer"]
    assert parts["random"] == [None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_of_masked_dense(example, kind):
    model = example.network(kind, 0)
    dense = masked(model)
    x, y = batch()
    logits = [net(x) for net in (model, dense)]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-6)
    for output in logits:
        cross_entropy(output, y).backward()
    for layer, other in zip(model[::2], dense[::2], strict=True):
        torch.testing.assert_close(layer.bias.grad, other.bias.grad, rtol=1e-4, atol=1e-7)
        if isinstance(layer, SparseLinear):
            want = layer.pattern.gather(other.weight.grad)
            torch.testing.assert_close(layer.values.grad, want, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_same_trajectory_as_masked_dense(example, kind):
    model = example.network(kind, 0)
    dense = masked(model)
    x, y = batch()
    losses = []
    for net in (model, dense):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.2, momentum=0.9, nesterov=True)
        losses.append([])
        for _ in range(5):
            optimizer.zero_grad()
            loss = cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.detach())
    got, want = (torch.stack(found) for found in losses)
    assert want[-1] < 0.98 * want[0]
    torch.testing.assert_close(got, want, rtol=1e-5, atol=0)


def test_rescaling_keeps_the_scale_of_activations(example):
    """Their variance under a mask is that of the dense layer, which it quarters without."""
    torch.manual_seed(1)
    x = torch.randn(400, 784)
    dense = float(example.network("dense", 0)[0](x).detach().var())
    for kind in KINDS:
        found = float(example.network(kind, 0)[0](x).detach().var())
        assert found == pytest.approx(dense, rel=0.1)


def test_hebbian_rewiring(example):
    """Re-enacted: a tenth of the edges go, those with the smallest weights; as many absent ones
    come, those with the largest cosine between a unit's input (before ReLU) and the unit before."""
    model = example.network("mixer", 0).double()
    before = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)  # the weights stay
    options = {"total_steps": 10, "interval": 1, "layers": ["0", "2"]}
    sparsity = DynamicSparsity(model, optimizer, "hebbian", **options)
    x, y = batch(torch.float64)
    cross_entropy(model(x), y).backward()
    optimizer.step()
    assert sparsity.step()
    for layer, old in zip(model[:3:2], before[:3:2], strict=True):
        post = old(x)
        similarity = normalize(post, dim=0).t() @ normalize(x, dim=0)
        mask, count = old.pattern.mask(), old.pattern.nnz // 10
        sizes = old.to_linear().weight.abs().masked_fill(~mask, torch.inf).flatten()
        want = mask.flatten().index_fill(0, sizes.topk(count, largest=False).indices, False)
        absent = similarity.flatten().masked_fill(want, -torch.inf)
        want[absent.topk(count).indices] = True
        assert torch.equal(layer.pattern.mask(), want.view_as(mask))
        assert 0 < (layer.pattern.mask() & ~mask).sum() <= count
        x = post.relu()


def test_example_trains(example, threads, capsys):
    """Four epochs: everything learns, and the table has a row a kind of mask."""
    try:
        example.digits()
    except SystemExit as missing:
        pytest.skip(str(missing))
    threads(1)
    found = example.main(["--epochs", "4"])
    assert list(found) == list(example.MASKS)
    assert min(accuracy for (accuracy,) in found.values()) > 0.8
    assert "mixer, Hebbian   0.256" in capsys.readouterr().out
