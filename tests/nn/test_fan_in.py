"""rescale_fan_in_: units of sparse layers start with the variance of dense ones."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from synops.nn import SparseLinear, rescale_fan_in_
from synops.sparse import Pattern

IN, OUT = 400, 64


@pytest.fixture
def mask():
    """Rows of 1 to 400 entries, one without."""
    mask = torch.rand(OUT, IN) < torch.rand(OUT, 1) ** 2
    mask[:, 7] = True
    mask[3] = False
    mask[5] = True
    return mask


def expected(layer, before):
    """The docstring's expression on the dense weight."""
    mask = layer.pattern.mask()
    weight = layer.pattern.scatter(before)
    scaled = weight * (layer.in_features / mask.sum(1, keepdim=True)).sqrt()
    return layer.pattern.gather(scaled.where(mask, 0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_the_expression(mask, dtype):
    layer = SparseLinear(IN, OUT, pattern=mask, dtype=dtype)
    values, before, bias = layer.values, layer.values.detach().clone(), layer.bias.detach().clone()
    assert rescale_fan_in_(layer) is layer
    assert layer.values is values, "the optimizer's Parameter"
    assert values.requires_grad
    assert values.grad_fn is None
    torch.testing.assert_close(values.detach(), expected(layer, before.double()).to(dtype))
    row = layer.to_linear().weight[5]
    torch.testing.assert_close(row, layer.pattern.scatter(before)[5], rtol=0, atol=0)
    assert torch.equal(layer.bias, bias)


@pytest.mark.parametrize("density", [0.02, 0.3])
def test_variance_is_that_of_the_dense_layer(density):
    """Of each unit over the inputs, in the mean over 2048 units.

    The variance given the weights is the sum of the squares of a row: its mean over the units is
    dense within 5 standard errors. That of one row of n uniform squares has the relative deviation
    sqrt(.8 / n), so 2048 rows of n = 8 to 120 are within sqrt(.8 / 8 / 2048) = .7 %.
    """
    size = 2048
    entries = max(8, round(400 * density))
    mask = torch.rand(size, 400).argsort(1) < entries
    layer = SparseLinear(400, size, bias=False, pattern=mask)
    dense = 1 / (3 * 400) * 400  # nn.Linear draws from U(-1, 1) / sqrt(in)
    standard_error = math.sqrt(0.8 / entries / size)
    before = layer.to_linear().weight.square().sum(1).mean().item()
    assert before == pytest.approx(dense * entries / 400, rel=5 * standard_error)
    rescale_fan_in_(layer)
    after = layer.to_linear().weight.square().sum(1).mean().item()
    assert after == pytest.approx(dense, rel=5 * standard_error)
    x = torch.randn(1000, 400)
    # 2 M outputs; those of a row of x share its norm, of relative deviation sqrt(2 / 400)
    seen = layer(x).var().item()
    assert seen == pytest.approx(dense, rel=5 * (standard_error + math.sqrt(2 / 400 / 1000)))


def test_a_deep_stack_keeps_its_signal():
    def stack(scale):
        torch.manual_seed(1)
        layers = [SparseLinear(256, 256, pattern=torch.rand(256, 256) < 0.05) for _ in range(8)]
        for layer in layers:  # the variance of a weight that keeps a signal: 1 / in
            with torch.no_grad():
                layer.values *= math.sqrt(3)
                layer.bias.zero_()
        model = nn.Sequential(*layers)
        return rescale_fan_in_(model) if scale else model

    x = torch.randn(64, 256)
    assert stack(False)(x).std() < 1e-4  # .05 ** 4 is 6e-6
    assert 0.5 < stack(True)(x).std() < 2


def test_bfloat16_is_rounded_once(mask):
    layer = SparseLinear(IN, OUT, pattern=mask, dtype=torch.bfloat16)
    before = layer.values.detach().clone()
    rescale_fan_in_(layer)
    want = expected(layer.double(), before.double()).bfloat16()
    got = layer.values.detach().bfloat16()
    apart = (got.view(torch.int16) - want.view(torch.int16)).abs()  # ties of the float32 factor
    assert apart.max() <= 1
    assert apart.count_nonzero() <= 0.001 * apart.numel()


def test_the_tail_is_not_touched(mask):
    pattern = Pattern.from_mask(mask, capacity=int(mask.sum()) + 5)
    layer = SparseLinear(IN, OUT, pattern=pattern)
    with torch.no_grad():
        layer.values[pattern.nnz :] = torch.tensor([1.0, torch.nan, 2.0, torch.inf, 0.0])
    tail = layer.values[pattern.nnz :].detach().clone()
    rescale_fan_in_(layer)
    torch.testing.assert_close(
        *(layer.values[pattern.nnz :].detach(), tail), rtol=0, atol=0, equal_nan=True
    )
    assert layer.values[: pattern.nnz].isfinite().all()


@pytest.mark.parametrize("shape", [(3, 5), (0, 5), (3, 0)])
def test_no_entries(shape):
    layer = SparseLinear(shape[1], shape[0], pattern=torch.zeros(shape, dtype=torch.bool))
    assert rescale_fan_in_(layer).values.shape == (0,)


def test_structured_patterns_scale_by_row():
    """Their values lie in CSR order, too."""
    groups = torch.arange(64) // 16
    mask = groups[:, None] == groups
    mask[40, 3] = True
    layer = SparseLinear(64, 64, pattern=mask)
    before = layer.values.detach().clone()
    rescale_fan_in_(layer)
    torch.testing.assert_close(layer.values.detach(), expected(layer, before))
    torch.testing.assert_close(before[:16] * 2, layer.values[:16].detach())


def test_layers_within_are_scaled_once(mask):
    """At any depth, one that is placed twice, and two that share their values."""
    layer, twin = (SparseLinear(IN, OUT, pattern=mask) for _ in range(2))
    twin.values = layer.values
    block = nn.Sequential(layer, nn.ReLU())
    dense = nn.Linear(OUT, IN)
    weight = dense.weight.detach().clone()
    before = layer.values.detach().clone()
    model = nn.ModuleDict({"a": block, "b": nn.Sequential(block, dense), "c": twin})
    assert rescale_fan_in_(model) is model
    torch.testing.assert_close(layer.values.detach(), expected(layer, before))
    assert torch.equal(dense.weight, weight)


def test_from_an_untrained_pruned_layer(mask):
    linear = nn.Linear(IN, OUT)
    prune.custom_from_mask(linear, "weight", mask)
    layer = SparseLinear.from_linear(linear)
    layer.values.requires_grad_(False)
    before = layer.values.detach().clone()
    rescale_fan_in_(layer)
    torch.testing.assert_close(layer.values, expected(layer, before))
    assert not layer.values.requires_grad


def pruned_values(mask):
    layer = SparseLinear(IN, OUT, pattern=mask)
    prune.random_unstructured(layer, "values", amount=0.5)
    return layer


def other_rows(mask):
    layer, other = (SparseLinear(IN, OUT, pattern=m) for m in (mask, mask.roll(1, 0)))
    other.values = layer.values
    return nn.ModuleDict({"one": layer, "other": other})


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        (3, TypeError, "be an nn.Module, got int"),
        (torch.ones(3), TypeError, "be an nn.Module, got Tensor"),
        (nn.Linear(3, 3), ValueError, "hold a SparseLinear, got a Linear"),
        (SparseLinear(3, 3, pattern="infer"), ValueError, "know its patterns, got a layer with"),
    ],
)
def test_refused(module, error, message):
    with pytest.raises(error, match=f"^rescale_fan_in_: module must {message}"):
        rescale_fan_in_(module)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda mask: SparseLinear(IN, OUT, pattern=mask, device="meta"),
            "be off the meta device, got bad",
        ),
        (
            lambda mask: SparseLinear(IN, OUT, pattern="infer"),
            "know its patterns, got bad with pattern='infer' before its first state_dict",
        ),
        (pruned_values, "have its values as Parameters, got bad whose values are computed"),
        (other_rows, "have one factor for each value, got bad.other with the values of a layer"),
    ],
)
def test_refused_and_nothing_changed(mask, make, message):
    good = SparseLinear(IN, OUT, pattern=mask)
    before = good.values.detach().clone()
    with pytest.raises(ValueError, match=f"^rescale_fan_in_: module must {message}"):
        rescale_fan_in_(nn.ModuleDict({"good": good, "bad": make(mask)}))
    assert torch.equal(good.values, before)
