"""What sparsify_ leaves as it is, with the reason in the table."""

import copy

import pytest
import torch
from pruned_models import Scaled, by_prune, mlp, removed
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import synops
from synops.nn import SparseLinear


def hooked(layer):
    layer.register_forward_hook(lambda *_: None)


def parameter_hooked(layer):
    layer.weight_orig.register_hook(lambda grad: grad)


def patched(layer):
    layer.forward = layer.forward


def compiled_in_place(layer):
    layer.compile()


def extended(layer):
    layer.adapter = nn.Linear(20, 2)


def uncommon_dtype(layer):
    prune.remove(layer, "weight").to(torch.complex64)


def on_meta(layer):
    layer.to("meta")


@pytest.mark.filterwarnings("ignore:Complex modules:UserWarning")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (hooked, "has a hook (<lambda>), which a new layer would lose"),
        (parameter_hooked, "has a hook (<lambda>), which a new layer would lose"),
        (patched, "its forward was replaced or compiled"),
        (compiled_in_place, "its forward was replaced or compiled"),
        (extended, "has more than a weight and a bias (adapter)"),
        (uncommon_dtype, "its weight is complex64"),
        (on_meta, "on the meta device"),
    ],
)
def test_layers_that_stay(change, reason, sparse):
    model = by_prune(mlp())
    layer = model[0]
    change(layer)
    table = synops.sparsify_(model)
    assert table["0"].reason == reason
    assert table["0"].form == "unchanged"
    assert table["0"].speedup is None
    assert model[0] is layer
    assert table["2"].form == "sparse", "the others are converted"


class Special(nn.Linear):
    pass


class OtherLinear(nn.Module):
    in_features = "many"


def weight_normed():
    return nn.utils.weight_norm(nn.Linear(8, 8))


def masked_by_more():
    layer = nn.Linear(8, 8)
    parametrize.register_parametrization(layer, "weight", Scaled(torch.eye(8)))
    return layer


def pruned_conv():
    conv = nn.Conv2d(2, 2, 2)
    prune.random_unstructured(conv, "weight", amount=0.5)
    return conv


def pruned_attention():
    attention = nn.MultiheadAttention(8, 2)
    prune.random_unstructured(attention, "in_proj_weight", amount=0.5)
    return attention


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*quantize.*:UserWarning")
@pytest.mark.filterwarnings("ignore:Initializing zero-element:UserWarning")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Special(8, 8), "Special, which may do more than nn.Linear"),
        (lambda: nn.LazyLinear(8), "lazy: run the model once first"),
        (lambda: nn.Linear(8, 8), "nothing pruned"),
        (lambda: nn.Linear(0, 8), "empty"),
        (OtherLinear, "OtherLinear, not nn.Linear"),
        (weight_normed, "has a hook (WeightNorm), which a new layer would lose"),
        (
            lambda: parametrizations.weight_norm(nn.Linear(8, 8)),
            "its weight is parametrized by _WeightNorm",
        ),
        (masked_by_more, "its weight is parametrized by Scaled"),
        (pruned_conv, "Conv2d, not nn.Linear"),
        (pruned_attention, "MultiheadAttention, not nn.Linear"),
        (
            lambda: torch.ao.nn.quantized.dynamic.Linear(8, 8),
            "torch.ao.nn.quantized.dynamic.modules.linear.Linear, not nn.Linear",
        ),
        (
            lambda: SparseLinear(8, 8, pattern=torch.eye(8, dtype=torch.bool)),
            "already sparse",
        ),
        (lambda: torch.compile(nn.Linear(8, 8)), "compiled by itself: convert it first"),
    ],
)
def test_kinds_that_stay(make, reason, sparse):
    odd = make()
    model = nn.Sequential(by_prune(mlp()), odd)
    table = synops.sparsify_(model)
    name = "1._orig_mod" if reason.startswith("compiled") else "1"
    assert table[name].reason == reason
    assert model[1] is odd
    assert table["0.0"].form == "sparse"


def test_spectral_norm_is_not_looked_at(sparse):
    """A look at its weight in training changes the weight."""
    normed = parametrizations.spectral_norm(nn.Linear(8, 8))
    before = copy.deepcopy(normed.state_dict())
    synops.sparsify_(nn.Sequential(by_prune(mlp()), normed))
    assert all(torch.equal(before[key], value) for key, value in normed.state_dict().items())


def test_nearly_dense_is_not_measured(sparse):
    model = removed(mlp())
    prune.remove(prune.random_unstructured(model[2], "weight", amount=0.0), "weight")
    with torch.no_grad():
        model[2].weight.fill_(1)[0, :20] = 0
    table = synops.sparsify_(model)
    assert table["2"].reason == "dense is faster above density 0.8"
    assert [call[0] for call in sparse] == ["0"]


def test_tied_weights_stay(sparse):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(16, 8), nn.Linear(8, 16, bias=False)
            self.head.weight = self.embed.weight
            self.up, self.view = nn.Linear(8, 8), nn.Linear(8, 8)
            self.view.weight = nn.Parameter(self.up.weight.detach())  # another Parameter
            self.free = nn.Linear(8, 8)
            with torch.no_grad():
                self.embed.weight[:, 1:] = 0
                self.up.weight[:, 1:] = 0
                self.free.weight[:, 1:] = 0

    model = Tied()
    table = synops.sparsify_(model)
    assert {row.name: row.reason for row in table if row.form == "unchanged"} == {
        "head": "tied with embed.weight",
        "up": "tied with view.weight",
        "view": "tied with up.weight",
    }
    assert model.head.weight is model.embed.weight
    assert isinstance(model.free, SparseLinear)


def test_a_layer_at_two_places_stays_one(sparse):
    layer = by_prune(nn.Sequential(nn.Linear(8, 8)))[0]
    block = nn.Sequential(layer)
    model = nn.ModuleDict({"a": block, "b": block, "c": nn.Sequential(layer)})
    table = synops.sparsify_(model)
    assert len(table) == 1
    assert table["a.0"].reason.endswith("; also b.0, c.0")
    assert isinstance(model.a[0], SparseLinear)
    assert model.a[0] is model.b[0] is model.c[0]


def test_twice_is_once(sparse):
    model = by_prune(mlp())
    synops.sparsify_(model)
    layers = list(model)
    table = synops.sparsify_(model)
    assert {row.reason for row in table} == {"already sparse"}
    assert [row.density for row in table] == [pytest.approx(0.1, abs=0.01)] * 2
    assert all(a is b for a, b in zip(layers, model, strict=True))
    assert table.speedup == 1
