"""What sparsify_ refuses, and that a call which fails changes nothing."""

import copy

import pytest
import torch
from pruned_models import by_ao, by_prune, mlp, removed
from torch import nn

import synops
from synops import _sparsify
from synops._sparsify._forms import Measured
from synops.nn import SparseLinear


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: 3, TypeError, "model must be an nn.Module, got int"),
        (lambda: nn.Linear(3, 3), ValueError, r"model must hold its layers \(SparseLinear.from_l"),
        (mlp, ValueError, r"pruned nn.Linear, got 2 layers with nothing pruned \(the sparsest, 0,"),
        (nn.ReLU, ValueError, "have a pruned nn.Linear, got a ReLU without linear layers"),
    ],
)
def test_wrong_models(make, error, message):
    with pytest.raises(error, match=f"^sparsify_: .*{message}"):
        synops.sparsify_(make())


def test_a_wrapped_model_is_refused():
    wrapper = type("DistributedDataParallel", (nn.Sequential,), {})
    with pytest.raises(ValueError, match="model must be converted before it is wrapped"):
        synops.sparsify_(wrapper(by_prune(mlp())))


def test_a_lazy_model_is_not_run():
    model = nn.Sequential(by_prune(mlp()), nn.LazyLinear(3))
    with pytest.raises(ValueError, match="model must be run once before, as it is lazy, got lazy"):
        synops.sparsify_(model, example_input=torch.randn(2, 20))
    assert isinstance(model[1], nn.LazyLinear)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch": 1.5}, TypeError, "batch must be an integer, got 1.5"),
        ({"batch": 0}, ValueError, "batch must be at least 1, got 0"),
        ({"training": "yes"}, TypeError, "training must be True, False or None, got yes"),
        ({"min_speedup": "2"}, TypeError, "min_speedup must be a number, got 2"),
        ({"min_speedup": 0}, ValueError, "min_speedup must be positive, got 0"),
        ({"min_speedup": float("nan")}, ValueError, "min_speedup must be positive, got nan"),
        ({"skip": 3}, TypeError, "skip must be names or a function of name and module, got 3"),
        ({"skip": ["hed"]}, ValueError, "skip must name modules of the model, got 'hed'"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=f"^sparsify_: {message}"):
        synops.sparsify_(by_prune(mlp()), **arguments)


class Unstable(nn.Module):
    """Reads the weight of its second layer, as code out there does."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(20, 32), nn.Linear(32, 8)
        self.norm = nn.BatchNorm1d(32)

    def forward(self, x):
        return self.second(self.norm(self.first(x)).to(self.second.weight.dtype))


class Refusing(dict):
    """Takes no sparse layer for its second module."""

    def __setitem__(self, key, value):
        if key == "second" and isinstance(value, SparseLinear):
            raise RuntimeError("no")
        super().__setitem__(key, value)


def fails_in_measure(model, patch):
    def measure(layer, *_):
        if layer.names[0] == "second":
            raise RuntimeError("no")
        return Measured({"masked": 2.0, "sparse": 1.0}, {"sparse": 2.0})

    patch.setattr(_sparsify, "measure", measure)
    return {}


def fails_in_build(model, patch):
    from_linear = SparseLinear.from_linear

    def refuse(layer):
        if layer.in_features == 32:
            raise RuntimeError("no")
        return from_linear(layer)

    patch.setattr(SparseLinear, "from_linear", refuse)
    return {}


def fails_in_swap(model, patch):
    model.__dict__["_modules"] = Refusing(model._modules)
    return {}


def fails_before(model, patch):
    return {"example_input": torch.randn(2, 19)}


def fails_after(model, patch):
    return {"example_input": torch.randn(2, 20)}


@pytest.mark.parametrize("pruning", [by_prune, by_ao, removed])
@pytest.mark.parametrize(
    "failure", [fails_in_measure, fails_in_build, fails_in_swap, fails_before, fails_after]
)
def test_the_model_is_as_it_was_if_the_call_fails(failure, pruning, sparse, monkeypatch):
    model = pruning(Unstable())
    x = torch.randn(4, 20)
    model.norm.eval()
    want = model(x)
    arguments = failure(model, monkeypatch)
    modules = list(model.modules())
    attributes = [dict(vars(m)) for m in modules]
    hooks = [list(m._forward_pre_hooks.items()) for m in modules]
    parameters = [id(p) for p in model.parameters()]
    state = copy.deepcopy(dict(model.state_dict()))
    modes = [m.training for m in modules]
    with pytest.raises((RuntimeError, AttributeError)):
        synops.sparsify_(model, **arguments)
    assert all(a is b for a, b in zip(modules, model.modules(), strict=True))
    assert [id(p) for p in model.parameters()] == parameters
    assert [list(m._forward_pre_hooks.items()) for m in modules] == hooks
    assert [set(vars(m)) for m in modules] == [set(a) for a in attributes]
    assert [m.training for m in modules] == modes
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    torch.testing.assert_close(model(x), want, rtol=0, atol=0)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_fused_encoder_is_as_it_was_if_the_call_fails(sparse):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.ModuleDict({"encoder": nn.TransformerEncoder(layer, 1).eval()})
    by_prune(nn.Sequential(model.encoder.layers[0].linear1))
    with pytest.raises(NotImplementedError):  # a ModuleDict has no forward
        synops.sparsify_(model, example_input=torch.randn(1, 3, 16))
    with pytest.MonkeyPatch.context() as patch:
        runs = iter([None, RuntimeError("no")])

        def forward(self, x):
            failure = next(runs)
            if failure:
                assert self.encoder.layers[0].activation_relu_or_gelu == 0
                raise failure

        patch.setattr(nn.ModuleDict, "forward", forward, raising=False)
        with pytest.raises(RuntimeError, match="no"):
            synops.sparsify_(model, example_input=torch.randn(1, 3, 16))
    assert model.encoder.layers[0].activation_relu_or_gelu == 1
    assert model.encoder.use_nested_tensor
