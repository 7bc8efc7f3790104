"""sparsify_ in the workflow of torch.ao.pruning: prepare, step, train, squash_mask or not."""

import copy

import pytest
import torch
from pruned_models import linears, mlp, weights
from torch import nn
from torch.ao import pruning
from torch.ao.pruning._experimental.pruner import SaliencyPruner
from torch.nn.utils import parametrize, prune

import synops
from synops.nn import SparseLinear


class Scattered(pruning.BaseSparsifier):
    """A sparsifier of the user's own: its mask is bool and made anew at each step."""

    def update_mask(self, module, tensor_name, **_):
        mask = module.parametrizations[tensor_name][0].mask
        mask.data = torch.rand_like(mask, dtype=torch.float32) < 0.2


def by_norm():
    return pruning.WeightNormSparsifier(sparsity_level=0.8, sparse_block_shape=(1, 4))


def two_of_four():
    """The semi-structured pattern of the documentation; its mask turns bool."""
    return pruning.WeightNormSparsifier(sparsity_level=1.0, zeros_per_block=2)


def nearly_diagonal():
    return pruning.NearlyDiagonalSparsifier(nearliness=3)


def everything():
    return pruning.WeightNormSparsifier(sparsity_level=1.0)


SPARSIFIERS = [by_norm, two_of_four, nearly_diagonal, Scattered, everything]


def kept_everywhere(sparsifier):
    sparsifier.squash_mask(params_to_keep=("tensor_fqn",))


def kept_of_one(sparsifier):
    sparsifier.squash_mask(params_to_keep_per_layer={"0": ("tensor_fqn",)})


SQUASHES = [None, lambda sparsifier: sparsifier.squash_mask(), kept_everywhere, kept_of_one]


def prepared(make, steps=1):
    """With the layers of its own choice, as ``config=None`` has it; the same at each call.

    A deepcopy would not do for a twin: it shares the class from which ``squash_mask`` takes the
    weight.
    """
    torch.manual_seed(1)
    model, sparsifier = mlp(), make()
    sparsifier.prepare(model, config=None)
    for _ in range(steps):
        sparsifier.step()
    return model, sparsifier


def trained(model, steps=3):
    """Steps of SGD on noise; the gradient of the input in the last."""
    generator = torch.Generator().manual_seed(steps)
    dtype = next(model.parameters()).dtype
    x = torch.randn(16, 20, generator=generator).to(dtype).requires_grad_()
    y = torch.randn(16, 8, generator=generator).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        x.grad = None
        (model(x) - y).square().mean().backward()
        optimizer.step()
    return x.grad


@pytest.mark.parametrize("squash", SQUASHES, ids=["masked", "squashed", "kept", "kept of one"])
@pytest.mark.parametrize("make", SPARSIFIERS)
def test_the_workflow(make, squash, sparse):
    """Prepared, pruned, trained, squashed or not, converted: trains on as the masked model does."""
    (twin, _), (model, sparsifier) = prepared(make), prepared(make)
    biases = [layer.bias.detach().clone() for layer in linears(model)]
    trained(twin)
    trained(model)
    masks = [layer.parametrizations.weight[0].mask != 0 for layer in linears(model)]
    if squash is not None:
        squash(sparsifier)
    table = synops.sparsify_(model)
    assert {row.form for row in table} == {"sparse"}
    x = torch.randn(6, 20)
    torch.testing.assert_close(model(x), twin(x))
    for layer, bias, mask in zip(model[::2], biases, masks, strict=True):
        if make is not everything:
            assert not torch.equal(layer.bias, bias), "the trained one"
            assert not layer.pattern.mask()[~mask].any()
    torch.testing.assert_close(trained(model), trained(twin))
    for got, want in zip(weights(model), weights(twin), strict=True):
        torch.testing.assert_close(got, want)
    for got, want in zip(model[::2], twin[::2], strict=True):
        torch.testing.assert_close(got.bias, want.bias)
    names = [getattr(layer, "sparse_params", None) for layer in model[::2]]
    assert names == {
        None: [None, None],
        kept_everywhere: [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "2.weight"}],
        kept_of_one: [{"tensor_fqn": "0.weight"}, None],
    }.get(squash, [None, None])


@pytest.mark.parametrize("form", ["sparse", "dense"])
def test_in_bfloat16(form, faster):
    """The mask is cast with the model."""
    faster(form)
    model, _ = prepared(by_norm)
    model.bfloat16().eval()
    assert model[0].parametrizations.weight[0].mask.dtype == torch.bfloat16
    x = torch.randn(6, 20).bfloat16()
    want = model(x)
    synops.sparsify_(model)
    assert {type(m) for m in model[::2]} == {SparseLinear if form == "sparse" else nn.Linear}
    torch.testing.assert_close(model(x), want)


def test_a_schedule(sparse):
    """Half of the blocks in the first epoch, and nine in ten at the end."""
    model, sparsifier = prepared(by_norm, steps=0)
    scheduler = pruning.LambdaSL(sparsifier, lambda epoch: (0.5, 1.0, 1.125)[epoch])
    for epoch in range(3):
        if epoch:
            scheduler.step()
        sparsifier.step()
        trained(model, 1)
    want = weights(model)
    table = synops.sparsify_(model)
    assert table["2"].density == pytest.approx(0.1, abs=0.02)
    for got, old in zip(weights(model), want, strict=True):
        assert torch.equal(got, old)


def test_two_masks_on_a_layer(sparse):
    """Of two sparsifiers, or of one that was prepared twice: kept is what both keep."""
    model, _ = prepared(by_norm)
    band = pruning.NearlyDiagonalSparsifier(nearliness=9)
    band.prepare(model, [{"tensor_fqn": "0.weight"}])
    mask = model[0].parametrizations.weight[1].mask
    mask.copy_(torch.rand(32, 20) < 0.5)
    first = model[0].parametrizations.weight[0].mask
    x = torch.randn(6, 20)
    want = model(x)
    synops.sparsify_(model)
    assert torch.equal(model[0].pattern.mask(), (first * mask) != 0)
    torch.testing.assert_close(model(x), want)


def test_the_sparsifier_has_let_go(sparse):
    """It holds the old layers: what it does later is lost, and hurts nothing."""
    model, sparsifier = prepared(by_norm)
    synops.sparsify_(model)
    before = copy.deepcopy(model.state_dict())
    sparsifier.step()
    sparsifier.squash_mask()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_prepared_alone_is_not_pruned(training, sparse):
    model, _ = prepared(by_norm, steps=0)
    with pytest.raises(ValueError, match=r"pruned nn.Linear, got 2 layers with nothing pruned"):
        synops.sparsify_(model, training=training)


def test_a_layer_with_a_mask_of_ones(sparse):
    model, sparsifier = prepared(by_norm, steps=0)
    sparsifier.groups[1]["sparsity_level"] = 0.0
    sparsifier.step()
    table = synops.sparsify_(model, training=True)
    assert table["2"].reason == "nothing pruned"
    assert table["0"].form == "sparse"


def structured():
    """Three layers, half of the rows of the first about to go, and the pruner."""
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU())
    model.append(nn.Linear(24, 8))
    pruner = SaliencyPruner({})
    pruner.prepare(model, [{"tensor_fqn": "0.weight", "sparsity_level": 0.5}])
    pruner.step()
    return model, pruner


def test_structured_pruners_have_prepared(sparse):
    """Then a layer adds its bias in a hook, so it stays."""
    model, _ = structured()
    prune.l1_unstructured(model[4], "weight", amount=0.9)
    x = torch.randn(6, 20)
    want = model(x)
    table = synops.sparsify_(model)
    assert table["0"].reason == "its weight is parametrized by FakeStructuredSparsity"
    assert table["2"].reason == "nothing pruned"
    assert table["4"].form == "sparse"
    torch.testing.assert_close(model(x), want)


def test_structured_pruners_have_shrunk(sparse):
    """What is left is dense, and may be pruned by weights as any other."""
    _, pruner = structured()
    small = pruner.prune()
    layers = {name: small.get_submodule(name) for name in ("0", "2")}
    assert layers["0"].out_features == layers["2"].in_features == 16
    with pytest.raises(ValueError, match="with nothing pruned"):
        synops.sparsify_(small)
    prune.l1_unstructured(layers["2"], "weight", amount=0.9)
    x = torch.randn(6, 20)
    want = small(x)
    table = synops.sparsify_(small)
    assert (table["0"].reason, table["2"].form) == ("nothing pruned", "sparse")
    assert table["2"].shape == (24, 16)
    torch.testing.assert_close(small(x), want)


def test_its_state_dict_holds_no_masks():
    """So it can be loaded only after squash_mask, and the error says so."""
    model, sparsifier = prepared(by_norm)
    layer = SparseLinear(20, 32, pattern="infer")
    assert not any("mask" in key for key in model.state_dict())
    with pytest.raises(RuntimeError, match=r"torch\.ao\.pruning saves no masks: squash_mask first"):
        layer.load_state_dict(model[0].state_dict())
    want = model[0].weight.detach().clone()
    sparsifier.squash_mask()
    layer.load_state_dict(model[0].state_dict())
    assert torch.equal(layer.to_linear().weight, want)
    assert not parametrize.is_parametrized(model[0])
