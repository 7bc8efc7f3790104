"""sparsify_ gives layers the form that is faster, and the model computes what it did."""

import copy

import pytest
import torch
from pruned_models import MASKS, PRUNINGS, by_ao, by_prune, linears, mlp, weights
from torch import nn
from torch.nn.utils import prune

import synops
from synops.nn import SparseLinear


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("form", ["sparse", "dense"])
@pytest.mark.parametrize("pruning", PRUNINGS)
def test_same_output_and_gradients(pruning, form, training, faster):
    faster(form)
    model = pruning(mlp()).train(training)
    x = torch.randn(6, 20, requires_grad=True)
    want = model(x)
    (want_grad,) = torch.autograd.grad(want.square().sum(), x)
    table = synops.sparsify_(model)
    got = model(x)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got.square().sum(), x)[0], want_grad)
    changes = form == "sparse" or (pruning in MASKS and not training)
    assert {row.form for row in table} == {form if changes else "unchanged"}
    kinds = {type(m) for m in model if not isinstance(m, nn.ReLU)}
    if changes:
        assert kinds == {SparseLinear if form == "sparse" else nn.Linear}
        assert not any(m._forward_pre_hooks for m in model)


@pytest.mark.parametrize("form", ["sparse", "dense"])
@pytest.mark.parametrize("pruning", MASKS)
def test_trains_like_the_masked_model(pruning, form, faster):
    """Step for step, and what is pruned stays pruned; where dense is faster, by the mask."""
    faster(form)
    torch.manual_seed(1)
    model = pruning(mlp())
    torch.manual_seed(1)
    twin = pruning(mlp())
    synops.sparsify_(model, training=True)
    zeros = [w == 0 for w in weights(twin)]
    x, y = torch.randn(16, 20), torch.randn(16, 8)
    for m in (model, twin):
        optimizer = torch.optim.AdamW(m.parameters(), lr=1e-2)
        for _ in range(5):
            optimizer.zero_grad()
            (m(x) - y).square().mean().backward()
            optimizer.step()
        m(x)  # prune computes the weight in a forward
    for got, want, zero in zip(weights(model), weights(twin), zeros, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
        assert not got[zero].any()


@pytest.mark.parametrize("form", ["sparse", "dense"])
def test_uses_the_last_optimizer_step(form, faster):
    """prune leaves the weight of the last forward on the layer."""
    faster(form)
    model = by_prune(mlp())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(torch.randn(6, 20)).square().sum().backward()
    optimizer.step()
    finished = [layer.weight_orig * layer.weight_mask for layer in linears(model)]
    assert not torch.equal(finished[0], model[0].weight)
    synops.sparsify_(model, training=False)
    torch.testing.assert_close(weights(model), finished, rtol=0, atol=0)


@pytest.mark.parametrize("form", ["sparse", "dense"])
@pytest.mark.parametrize("pruning", [by_prune, by_ao])
def test_keeps_what_the_layer_had(pruning, form, faster):
    faster(form)
    model = pruning(mlp(dtype=torch.float64, bias=False)).eval()
    model[2].train()
    model[2].requires_grad_(False)
    model[2].index = 7
    synops.sparsify_(model, training=False)
    trained = [[p.requires_grad for p in m.parameters()] for m in (model[0], model[2])]
    assert trained == [[True], [False]]
    assert (model[0].training, model[2].training) == (False, True)
    assert model[2].index == 7
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model[0].bias is None
    assert copy.deepcopy(model)(torch.randn(2, 20).double()).shape == (2, 8)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_trains_after_a_call_without_gradients(context, sparse):
    for pruning in (by_prune, by_ao):
        model = pruning(mlp())
        with context():
            synops.sparsify_(model, training=True)
        model(torch.randn(2, 20)).sum().backward()
        assert all(p.grad is not None for p in model.parameters())


def test_pruned_biases(sparse):
    for training in (False, True):
        model = by_prune(mlp())
        prune.random_unstructured(model[0], "bias", amount=0.5)
        with torch.no_grad():
            model[0].bias_orig += 1  # the attribute of the layer is stale from here on
        table = synops.sparsify_(model, training=training, skip="2")
        if training:
            assert table["0"].reason == "its bias is pruned, too, and would grow again in training"
        else:
            assert (model[0].bias == 0).sum() == 16
            assert model[0].bias.requires_grad
            assert isinstance(model[0].bias, nn.Parameter)


def test_draws_no_random_numbers():
    model = by_prune(mlp()).eval()
    before = torch.random.get_rng_state()
    synops.sparsify_(model)
    assert torch.equal(before, torch.random.get_rng_state())


def test_measures_for_real():
    """A layer of 1 % against 100 % of the multiply-adds: no noise makes up for that."""
    model = nn.Sequential(nn.Linear(1024, 1024), nn.Linear(1024, 1024))
    by_prune(model, 0.99)
    table = synops.sparsify_(model, training=True)
    assert [row.form for row in table] == ["sparse", "sparse"]
    assert table["0"].speedup > 3
    assert table["0"].times == table["1"].times, "alike layers share a measurement"
    assert table["1"].reason == f"{table['0'].reason} (as 0)"
    assert table.speedup == pytest.approx(
        table["0"].times["masked"] / table["0"].times["sparse"], rel=1e-6
    )
    assert all(p.grad is None for p in model.parameters())


def test_dense_is_left_alone_where_it_is_faster():
    """With next to nothing to multiply a sparse call takes twice as long: measured, and left."""
    model = nn.Sequential(nn.Linear(8, 8)).eval()
    prune.remove(prune.random_unstructured(model[0], "weight", amount=0.3), "weight")
    layer = model[0]
    table = synops.sparsify_(model, batch=1)
    assert table["0"].form == "unchanged"
    assert table["0"].speedup == 1
    assert model[0] is layer
    assert set(table["0"].times) == {"dense", "sparse"}


def test_min_speedup(sparse):
    model = by_prune(mlp())
    assert {row.form for row in synops.sparsify_(model, min_speedup=4.1)} == {"unchanged"}
    assert {row.form for row in synops.sparsify_(model, min_speedup=4)} == {"sparse"}


def test_batch_and_example_input(sparse):
    model = by_prune(mlp())
    synops.sparsify_(model, batch=3, skip="0")
    assert sparse == [("2", ("sparse",), 3, True)]
    sparse.clear()
    model = by_prune(mlp())
    model[2].eval()
    synops.sparsify_(model, example_input=torch.randn(5, 7, 20))
    assert [call[2] for call in sparse] == [35, 35]
    assert [m.training for m in model] == [True, True, False, True]


@pytest.mark.parametrize("named", [True, False])
def test_example_input_may_be_several(named, sparse):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x, y):
            return self.used(input=x + y)

    x, y = torch.randn(4, 8), torch.randn(4, 8)
    example = {"x": x, "y": y} if named else (x, y)
    synops.sparsify_(by_prune(Two()), example_input=example, batch=9)
    assert {call[0]: call[2] for call in sparse} == {"used": 4, "unused": 9}


def test_training_follows_the_model(sparse):
    synops.sparsify_(by_prune(mlp()).eval())
    assert sparse[0][1:] == (("dense", "sparse"), 128, False)
    sparse.clear()
    synops.sparsify_(by_prune(mlp()))
    assert sparse[0][1:] == (("sparse",), 128, True)


@pytest.mark.parametrize(
    "skip", ["inner", ["inner.0", "inner.2"], lambda name, module: name.startswith("inner.")]
)
def test_skip(skip, sparse):
    model = nn.ModuleDict({"inner": by_prune(mlp()), "inner2": by_prune(mlp())})
    table = synops.sparsify_(model, skip=skip)
    assert [row.reason for row in table if row.name.startswith("inner.")] == ["skipped"] * 2
    assert [row.form for row in table if row.name.startswith("inner2.")] == ["sparse"] * 2
