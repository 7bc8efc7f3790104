"""synops.Monitor: which forwards it records, and that the model stays what it is."""

import copy
import io
import pickle

import pytest
import torch
from no_sync import NoSync
from torch import nn
from torch.utils.checkpoint import checkpoint

import synops
from synops.nn import SparseLinear
from synops.sparse import unit_stats

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))


def model_of(inplace=False):
    return nn.Sequential(
        nn.Linear(6, 9), nn.ReLU(inplace=inplace), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 3)
    )


def figures(monitor):
    return monitor.dormant_ratio(0.5), monitor.fau(), monitor.per_layer(0.5)


def of(model, x=X, **options):
    """Of one forward of a model that is not compiled."""
    with synops.Monitor(model, **options) as monitor:
        model(x)
    return figures(monitor)


def assert_unhooked(model):
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_stats_and_layers():
    model = model_of()
    with synops.Monitor(model) as monitor:
        model(X)
        assert list(monitor.stats()) == ["0", "2", "4"]
        for one, other in zip(monitor.stats()["0"], unit_stats(model[0](X)), strict=True):
            assert torch.equal(one, other)
            assert not one.requires_grad
    readings = monitor.per_layer()
    assert list(readings) == ["0", "1", "2", "3", "4"]
    assert readings["1"].dormant is None
    assert readings["0"].active is None
    assert readings["1"].active == float((model[0](X) > 0).double().mean())
    assert_unhooked(model)


def test_nothing_waits_before_it_is_read():
    model = model_of()
    with synops.Monitor(model, effective_rank=True), NoSync():
        model(X).sum().backward()


def test_output_and_gradients_are_those_of_the_model():
    model = model_of(inplace=True)
    want = torch.autograd.grad(model(X).square().sum(), list(model.parameters()))
    with synops.Monitor(model):
        got = torch.autograd.grad(model(X).square().sum(), list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_the_latest_training_forward():
    model = model_of()
    monitor = synops.Monitor(model)
    with pytest.raises(RuntimeError, match="nothing was recorded"):
        monitor.dormant_ratio()
    model(X)
    want = figures(monitor)
    with torch.no_grad():
        model(X * 3 - 1)
    with torch.inference_mode():
        model(X * 3 - 1)
    model.eval()(X * 3 - 1)
    assert figures(monitor) == want
    model.train()(X - 1)
    assert figures(monitor) == of(model, X - 1) != want
    monitor.reset()
    with pytest.raises(RuntimeError, match="nothing was recorded"):
        monitor.fau()
    monitor.close()
    monitor.close()
    model(X)
    with pytest.raises(RuntimeError, match="nothing was recorded"):
        monitor.stats()


def test_all_forwards_on_request():
    model = model_of(inplace=True).eval()
    want = of(model_copy := copy.deepcopy(model).train())
    del model_copy
    with synops.Monitor(model, training_only=False) as monitor:
        for mode in (torch.no_grad(), torch.inference_mode()):
            monitor.reset()
            with mode:
                model(X)
            assert figures(monitor) == want


def test_every():
    model = model_of()
    with synops.Monitor(model, every=3) as monitor:
        for i in range(7):
            model(X * (i + 1))
            with torch.no_grad():
                model(X)  # does not count
            first = monitor.stats()["0"].abs_mean
            assert torch.equal(first, unit_stats(model[0](X * (i // 3 * 3 + 1))).abs_mean) or i == 0


class Twice(nn.Module):
    """Calls a layer twice, has one under two names, and changes what a layer returned."""

    def __init__(self, changes=False):
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.alias = self.layer
        self.act = nn.ReLU(inplace=True)
        self.changes = changes

    def forward(self, x):
        y = self.layer(x)
        if self.changes:
            y += 1
        y = self.act(y)
        return self.act(self.alias(y))


@pytest.mark.parametrize("changes", [False, True])
def test_several_calls(changes):
    model = Twice(changes)
    first = model.layer(X)
    h = (first + changes).relu()
    second = model.layer(h)
    for _ in range(2):
        with synops.Monitor(model) as monitor:
            model(X)
        reading = monitor.per_layer(0.9)
        assert list(reading) == ["layer", "act"]
        assert reading["layer"].units == 12
        below = [(y.abs().mean(0) < 0.9 * y.abs().mean()).sum() for y in (first, second)]
        assert reading["layer"].dormant == int(sum(below))
        assert monitor.fau() == int((h > 0).sum() + (second > 0).sum()) / (2 * h.numel())


def test_parts_that_are_called_by_themselves():
    model = nn.ModuleDict({"actor": model_of(), "critic": model_of()})
    with synops.Monitor(model) as monitor:
        model["actor"](X)
        model["critic"](X)
        model["critic"](X + 1)
    assert torch.equal(monitor.stats()["critic.0"].mean, unit_stats(model["critic"][0](X + 1)).mean)
    assert torch.equal(monitor.stats()["actor.0"].mean, unit_stats(model["actor"][0](X)).mean)
    assert monitor.per_layer()["actor.0"].units == 9


def test_a_forward_that_raises_is_dropped():
    model = model_of()
    with synops.Monitor(model) as monitor:
        model(X)
        want = figures(monitor)
        broken = model[4].weight
        model[4].weight = nn.Parameter(torch.zeros(2, 2))
        with pytest.raises(RuntimeError):
            model(X + 5)
        assert figures(monitor) == want
        model[4].weight = broken
        model(X)
        assert figures(monitor) == want


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.inner, self.reentrant = model_of(), reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


def test_checkpointing():
    model = Checkpointed(False)
    with synops.Monitor(model) as monitor:
        y = model(X)
        before = monitor.stats()["inner.0"].mean
        y.sum().backward()
        assert monitor.stats()["inner.0"].mean is before
    model = Checkpointed(True)
    with synops.Monitor(model, training_only=False) as monitor:
        model(X.clone().requires_grad_()).sum().backward()
        assert monitor.per_layer()["inner.0"].units == 9


def test_copies_are_not_monitored():
    """And a copy that was saved loads without synops."""
    model = model_of()
    with synops.Monitor(model) as monitor:
        model(X)
        want = figures(monitor)
        data = io.BytesIO()
        torch.save(model, data)
        data.seek(0)
        pickled = pickle.dumps(model)
        assert b"synops" not in pickled
        copies = (
            copy.deepcopy(model), pickle.loads(pickled), torch.load(data, weights_only=False)
        )  # fmt: skip
        for other in copies:
            torch.testing.assert_close(other(X + 1), model(X + 1))
        model(X)
        for other in copies:
            other(X + 1).sum().backward()
        assert figures(monitor) == want


@pytest.mark.parametrize("inplace", [False, True])
def test_compiled(inplace):
    """In one graph, with the figures of the model as it is; batches of other sizes, too."""
    torch._dynamo.reset()
    model = model_of(inplace)
    want = [of(model), of(model, X[:30] + 1), of(model, X[:20] + 2)]
    with synops.Monitor(model, effective_rank=["3"]) as monitor:
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        for x, figure in zip((X, X[:30] + 1, X[:20] + 2), want, strict=True):
            compiled(x).sum().backward()
            assert figures(monitor) == figure
        rank = monitor.effective_rank()
        with torch.no_grad():
            compiled(X)
        assert figures(monitor) == want[-1]
    compiled(X)
    compiled(X)
    assert figures(monitor) == want[-1]
    with synops.Monitor(model, effective_rank=["3"]) as monitor:
        model(X[:20] + 2)
        assert monitor.effective_rank() == rank


def test_compiled_before():
    """torch.compile does not look for hooks again: nothing is recorded, and reading says so."""
    torch._dynamo.reset()
    compiled = torch.compile(model_of(), backend="aot_eager")
    compiled(X)
    with synops.Monitor(compiled) as monitor:
        compiled(X)
        with pytest.raises(RuntimeError, match="compiled before"):
            monitor.fau()


def test_data_parallel():
    model = model_of()
    with synops.Monitor(model):
        replica = model[0]._replicate_for_data_parallel()
        replica._parameters.update(model[0]._parameters)
        with pytest.raises(RuntimeError, match="DataParallel is not supported"):
            replica(X)


def test_names():
    model = model_of()
    assert of(model, layers=["1"])[2]["1"].dormant is not None
    with synops.Monitor(model, layers=[], activations=["2"]) as monitor:
        model(X)
    y = model[2](model[0](X).relu())
    assert monitor.fau() == float((y > 0).double().mean())
    assert monitor.dormant_ratio() == 0
    sparse = nn.Sequential(SparseLinear(6, 9, pattern=torch.rand(9, 6) < 0.5, activation="relu"))
    assert of(sparse)[2]["0"].active == float((sparse(X) > 0).double().mean())
    single = nn.Linear(6, 9)
    assert list(of(single, activations=[""])[2]) == [""]


def test_effective_rank():
    model = nn.Sequential(nn.Linear(6, 30), nn.Tanh(), nn.Linear(30, 2))
    low = torch.randn(50, 2) @ torch.randn(2, 6)
    for x in (torch.randn(50, 6), low, torch.randn(9, 6), torch.zeros(5, 6)):
        with synops.Monitor(model, effective_rank=["0", "1"]) as monitor:
            model(x)
        for delta in (0.01, 0.3, 0.0001):
            for name, y in (("0", model[0](x)), ("1", model[:2](x))):
                s = torch.linalg.svdvals(y.detach().double())
                want = int((s.cumsum(0) < (1 - delta) * s.sum()).sum()) + 1
                assert monitor.effective_rank(delta)[name] == want
    changed = model_of(inplace=True)
    with synops.Monitor(changed, effective_rank=["0"]) as monitor:
        changed(X)
        with pytest.raises(RuntimeError, match="layer '0' was changed in place"):
            monitor.effective_rank()
    with synops.Monitor(changed, effective_rank=True) as monitor:
        changed(X)
        assert list(monitor.effective_rank()) == ["1", "3"]
    with synops.Monitor(changed) as monitor, pytest.raises(RuntimeError, match="asked for first"):
        monitor.effective_rank()


def test_no_rows():
    model = model_of()
    with synops.Monitor(model) as monitor:
        model(X[:0])
        assert monitor.dormant_ratio() == 0


WRONG = [
    ((1,), {}, TypeError, "model must be a module, got int"),
    ((model_of(),), {"layers": ["fc"]}, ValueError, "layers must be names .*, got 'fc'"),
    ((model_of(),), {"activations": ["fc"]}, ValueError, "activations must be names"),
    ((model_of(),), {"effective_rank": ["fc"]}, ValueError, "effective_rank must be names"),
    ((model_of(),), {"layers": "0"}, TypeError, "layers must be names of layers, got '0'"),
    ((model_of(),), {"layers": 0}, TypeError, "layers must be names of layers, got 0"),
    ((model_of(),), {"every": 0}, ValueError, "every must be at least 1, got 0"),
    ((model_of(),), {"every": 1.5}, TypeError, "every must be an int, got float"),
    ((nn.Sequential(nn.Conv1d(1, 1, 1)),), {"layers": ["0"]}, ValueError, "unlike Conv1d"),
]


@pytest.mark.parametrize(("args", "options", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments(args, options, error, message):
    with pytest.raises(error, match=f"Monitor: .*{message}"):
        synops.Monitor(*args, **options)


def test_outputs_that_have_no_units():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    class Index(nn.Module):
        def forward(self, x):
            return x.argmax(-1)

    for layer, got in ((Pair(), "tuple"), (Index(), "int64")):
        model = nn.Sequential(nn.Linear(6, 3), layer)
        with (
            synops.Monitor(model, layers=["1"]),
            pytest.raises(TypeError, match=f"layer '1' must return a floating .* got {got}"),
        ):
            model(X)
        assert_unhooked(model)
