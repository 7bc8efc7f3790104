"""SparseLinear with row blocks, parts and options: what it keeps on every way that a layer goes."""

import copy
import io
import pickle

import pytest
import torch
from layouts import LAYOUTS
from torch import nn

import synops
from synops.nn import SparseLinear
from synops.sparse import sparse_linear

NAMES = ["blocks of 16", "groups, interleaved", "parts", "groups and more, interleaved, capacity"]
EVERY = pytest.mark.parametrize("name", NAMES)


def make(name, **options) -> SparseLinear:
    pattern = LAYOUTS[name].make()
    rows, cols = pattern.shape
    return SparseLinear(cols, rows, pattern=pattern, **options)


def layout(layer) -> str:
    """What its product goes by."""
    x = torch.ones(20, layer.in_features, dtype=layer.values.dtype)
    return synops.which(sparse_linear, x, layer.values, layer.pattern).reason


def saved_and_loaded(layer) -> SparseLinear:
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.values.zero_()
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


def assigned(layer) -> SparseLinear:
    other = copy.deepcopy(layer)
    other.load_state_dict(copy.deepcopy(layer.state_dict()), assign=True)
    return other


def dense_loaded(layer) -> SparseLinear:
    other = copy.deepcopy(layer)
    other.load_state_dict(layer.to_linear().state_dict())
    return other


TRIPS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "state_dict": saved_and_loaded,
    "assign": assigned,
    "dense state_dict": dense_loaded,
    "to": lambda layer: copy.deepcopy(layer).to("cpu"),
    "there and back": lambda layer: copy.deepcopy(layer).double().float(),
}


@EVERY
@pytest.mark.parametrize("trip", TRIPS.values(), ids=TRIPS)
def test_round_trip(name, trip):
    """The same numbers, by the same layout."""
    layer = make(name)
    with torch.no_grad():
        layer.values[layer.pattern.nnz :] = 0
    got = trip(layer)
    assert layout(got) == layout(layer)
    assert got.pattern.block == layer.pattern.block
    for batch in (2, 20):
        x = torch.randn(batch, layer.in_features)
        assert torch.equal(got(x), layer(x))


@EVERY
def test_moves_whole(name):
    """No tensor of a part stays behind, and a cast leaves them all alone."""
    layer = make(name).to("meta")
    assert {t.device.type for t in (*layer.buffers(), *layer.parameters())} == {"meta"}
    assert layer.pattern.device.type == "meta"
    layer = make(name)
    before = [t.dtype for t in layer.buffers()]
    assert [t.dtype for t in layer.bfloat16().buffers()] == before


@EVERY
def test_state_dict_is_small(name):
    """What is derived is not saved."""
    assert set(make(name).state_dict()) == {"values", "bias", "crow", "col"}


@EVERY
def test_another_pattern_is_loaded(name):
    """Blocks and parts are those of what was loaded, not of what was there."""
    layer = make(name)
    capacity = layer.values.numel()
    mask = layer.pattern.mask()
    other = SparseLinear(
        layer.in_features,
        layer.out_features,
        pattern=synops.sparse.Pattern.from_mask(mask.flip(1).roll(3, 0), capacity=capacity),
    )
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer.pattern.mask(), other.pattern.mask())
    for batch in (2, 20):
        x = torch.randn(batch, layer.in_features)
        torch.testing.assert_close(layer(x), other(x))


@EVERY
def test_trains_like_the_dense_layer(name):
    layer = make(name)
    dense = layer.to_linear()
    mask = layer.pattern.mask()
    x, target = torch.randn(20, layer.in_features), torch.randn(20, layer.out_features)
    for model in (layer, dense):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            (model(x) - target).square().mean().backward()
            if model is dense:
                dense.weight.grad.mul_(mask)
            optimizer.step()
    torch.testing.assert_close(layer.to_linear().weight, dense.weight, rtol=1e-4, atol=1e-5)


@EVERY
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_options(name, activation):
    """Those of sparse_linear; in the repr; no nn.Linear has them."""
    layer = make(name, activation=activation, feature_major=True)
    assert f"activation='{activation}', feature_major=True)" in repr(layer)
    f = {"relu": nn.functional.relu, "gelu": nn.functional.gelu}[activation]
    for batch in (2, 20):
        x = torch.randn(batch, layer.in_features)
        got, want = layer(x), f(sparse_linear(x, layer.values, layer.pattern, layer.bias))
        torch.testing.assert_close(got, want)
        assert got.t().is_contiguous()
        with torch.no_grad():
            torch.testing.assert_close(layer(x), want)
    with pytest.raises(ValueError, match=r"^SparseLinear.to_linear: activation must be None"):
        layer.to_linear()


def test_an_activation_that_is_none():
    layer = make("parts", activation="tanh")
    message = "sparse_linear: activation must be 'relu', 'gelu' or None, got tanh"
    with pytest.raises(ValueError, match=message):
        layer(torch.randn(3, layer.in_features))


@pytest.mark.parametrize("name", [NAMES[0], NAMES[-1]])  # one Pattern; two with all options
def test_compiled(name):
    layer = make(name, feature_major=True)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for batch in (20, 33):
        x = torch.randn(batch, layer.in_features)
        want, got = layer(x), compiled(x)
        torch.testing.assert_close(got, want)
        assert got.stride() == want.stride()
        grads = [torch.autograd.grad(y.sum(), [*layer.parameters()]) for y in (got, want)]
        for one, other in zip(*grads, strict=True):
            torch.testing.assert_close(one, other)
