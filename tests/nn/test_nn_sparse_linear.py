"""SparseLinear behaves like nn.Linear everywhere but in the shape of its weight."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import parametrize, prune

from synops.nn import SparseLinear
from synops.sparse import Pattern


@pytest.fixture
def mask():
    return torch.rand(12, 20, generator=torch.Generator().manual_seed(1)) < 0.3


@pytest.fixture
def x():
    return torch.randn(5, 20, generator=torch.Generator().manual_seed(2))


def masked_linear_layer(mask, **options):
    linear = nn.Linear(mask.shape[1], mask.shape[0], **options)
    with torch.no_grad():
        linear.weight.masked_fill_(~mask, 0)
    return linear


def test_initial_values_are_those_of_linear(mask):
    torch.manual_seed(0)
    dense = nn.Linear(20, 12)
    torch.manual_seed(0)
    sparse = SparseLinear(20, 12, pattern=mask)
    torch.testing.assert_close(sparse.to_linear().weight, dense.weight * mask, rtol=0, atol=0)
    torch.testing.assert_close(sparse.bias, dense.bias, rtol=0, atol=0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_there_and_back_is_bit_equal(mask, bias, dtype):
    linear = masked_linear_layer(mask, bias=bias, dtype=dtype)
    back = SparseLinear.from_linear(linear, mask).to_linear()
    assert torch.equal(back.weight, linear.weight)
    assert (back.bias is None) == (linear.bias is None)
    if bias:
        assert torch.equal(back.bias, linear.bias)
        assert back.bias.data_ptr() != linear.bias.data_ptr()


def test_from_linear_draws_no_random_numbers(mask):
    linear = masked_linear_layer(mask)
    before = torch.random.get_rng_state()
    SparseLinear.from_linear(linear, mask)
    assert torch.equal(before, torch.random.get_rng_state())


def test_from_linear_finds_the_entries(mask, x):
    linear = masked_linear_layer(mask)
    assert SparseLinear.from_linear(linear).pattern.nnz == int(mask.sum())
    prune.custom_from_mask(linear, "weight", mask)
    with torch.no_grad():  # a kept weight of exactly 0 stays an entry
        linear.weight_orig.view(-1)[mask.view(-1).nonzero()[0]] = 0
    linear(x)  # prune computes the weight in a forward hook
    assert torch.equal(SparseLinear.from_linear(linear).pattern.mask(), mask)


def pruned(linear, mask):
    prune.custom_from_mask(linear, "weight", mask)
    return linear.state_dict()


class Masked(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        return weight * self.mask


def parametrized(linear, mask):
    parametrize.register_parametrization(linear, "weight", Masked(mask))
    return linear.state_dict()


@pytest.mark.parametrize(
    "save",
    [
        lambda linear, mask: linear.state_dict(),
        pruned,
        parametrized,
        lambda linear, mask: SparseLinear.from_linear(linear, mask).state_dict(),
    ],
    ids=["linear", "prune", "parametrize", "own"],
)
@pytest.mark.parametrize("pattern", ["infer", "given"])
def test_loads_state_dicts(mask, x, save, pattern):
    linear = masked_linear_layer(mask)
    want = nn.functional.linear(x, linear.weight, linear.bias).detach()
    state = save(copy.deepcopy(linear), mask)
    keys = set(state)
    layer = SparseLinear(20, 12, pattern=mask if pattern == "given" else "infer")
    values = layer.values
    assert str(layer.load_state_dict(state)) == "<All keys matched successfully>"
    assert layer.values is values, "a load keeps the Parameter, and with it the optimizer"
    assert set(state) == keys, "a load leaves the state_dict alone"
    torch.testing.assert_close(layer(x), want)
    assert layer.pattern.nnz == int(mask.sum())


def test_own_state_dict_moves_the_pattern(mask, x):
    other = mask.roll(1, 1)  # as many entries, elsewhere: a resumed run of dynamic sparse training
    source = SparseLinear(20, 12, pattern=other)
    layer = SparseLinear(20, 12, pattern=mask)
    layer.load_state_dict(source.state_dict())
    assert torch.equal(layer.pattern.mask(), other)
    torch.testing.assert_close(layer(x), source(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"weight": torch.ones(12, 20)}, "non-zeros outside the pattern"),
        (lambda s: s | {"weight": torch.ones(20, 12)}, "weight must have shape (out, in)"),
    ],
)
def test_refused_dense_state_dict_changes_nothing(mask, change, message):
    layer = SparseLinear(20, 12, pattern=mask)
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(RuntimeError, match=message.replace("(", r"\(").replace(")", r"\)")):
        layer.load_state_dict(change({"bias": torch.zeros(12)}))
    for key, value in layer.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("col", lambda t: t.flip(0), "ascend strictly"),
        ("col", lambda t: t + 100, "lie in"),
        ("crow", lambda t: t + 1, "begin with 0"),
        ("values", lambda t: t[1:], "values have shape"),
    ],
)
def test_refused_own_state_dict_changes_nothing(mask, key, value, message):
    layer = SparseLinear(20, 12, pattern=mask)
    state = layer.state_dict()
    before = copy.deepcopy(state)
    with pytest.raises(RuntimeError, match=message):
        layer.load_state_dict({**state, key: value(state[key])})
    for name, tensor in layer.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_missing_and_unexpected_keys_are_reported(mask):
    layer = SparseLinear(20, 12, pattern=mask)
    report = layer.load_state_dict({"other": torch.ones(1)}, strict=False)
    assert set(report.missing_keys) == {"values", "bias", "crow", "col"}
    assert report.unexpected_keys == ["other"]


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2),
        lambda p: torch.optim.AdamW(p, lr=1e-2),
        lambda p: torch.optim.RMSprop(p, lr=1e-2),
        lambda p: torch.optim.Adagrad(p, lr=1e-2),
        lambda p: torch.optim.Adamax(p, lr=1e-2),
        lambda p: torch.optim.LBFGS(p, max_iter=3),
    ],
    ids=["sgd", "adamw", "rmsprop", "adagrad", "adamax", "lbfgs"],
)
def test_trains_like_the_masked_layer(mask, x, optimizer):
    """The trajectory of a dense layer behind a parametrized mask, weight for weight."""
    dense = masked_linear_layer(mask)
    sparse = SparseLinear.from_linear(dense, mask)
    parametrize.register_parametrization(dense, "weight", Masked(mask))
    target = torch.randn(5, 12, generator=torch.Generator().manual_seed(3))
    for layer in (dense, sparse):
        step = optimizer(layer.parameters())
        for _ in range(5):

            def closure(layer=layer, step=step):
                step.zero_grad()
                loss = (layer(x) - target).square().mean()
                loss.backward()
                return loss

            step.step(closure)
    torch.testing.assert_close(sparse.to_linear().weight, dense.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sparse.bias, dense.bias, rtol=1e-4, atol=1e-5)


def test_copies_and_moves(mask, x, tmp_path):
    layer = SparseLinear(20, 12, pattern=mask)
    want = layer(x).detach()
    clone = copy.deepcopy(layer)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), want)
    torch.save(layer.state_dict(), tmp_path / "state.pt")
    other = SparseLinear(20, 12, pattern="infer")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(other(x), want)
    layer.double()
    assert layer.values.dtype == torch.float64
    assert layer.col.dtype == torch.int32, "a cast leaves the indices alone"
    assert layer(x.double()).dtype == torch.float64
    with torch.no_grad():
        layer.values.zero_()
    assert torch.equal(clone(x), want)


def test_no_entries(x):
    layer = SparseLinear(20, 12, pattern=torch.zeros(12, 20, dtype=torch.bool))
    out = layer(x)
    torch.testing.assert_close(out, layer.bias.expand(5, 12))
    out.sum().backward()
    assert layer.values.grad.shape == (0,)


def test_capacity_leaves_room(mask, x):
    """Values behind nnz are never read and get a zero gradient."""
    pattern = Pattern.from_mask(mask, capacity=int(mask.sum()) + 7)
    layer = SparseLinear(20, 12, pattern=pattern)
    with torch.no_grad():
        layer.values[pattern.nnz :] = torch.nan
    out = layer(x)
    out.square().sum().backward()
    assert out.isfinite().all()
    assert layer.values.grad[: pattern.nnz].abs().sum() > 0
    assert torch.equal(layer.values.grad[pattern.nnz :], torch.zeros(7))


def test_repr(mask):
    layer = SparseLinear(20, 12, bias=False, pattern=mask)
    nnz = int(mask.sum())
    assert repr(layer) == (
        f"SparseLinear(in_features=20, out_features=12, bias=False, nnz={nnz}, "
        f"density={nnz / 240:.4g})"
    )


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        (torch.ones(3, 3), TypeError, "pattern must be a Pattern or a bool mask, got float32"),
        (torch.ones(3, 3, dtype=torch.bool), ValueError, r"shape \(out, in\) = \(12, 20\)"),
        (Pattern.from_mask(torch.ones(3, 3, dtype=torch.bool)), ValueError, r"= \(12, 20\)"),
        ("dense", ValueError, "or 'infer', got 'dense'"),
        (0.1, TypeError, "pattern must be a torch.Tensor, got float"),
    ],
)
def test_bad_pattern(pattern, error, message):
    with pytest.raises(error, match=message):
        SparseLinear(20, 12, pattern=pattern)


def test_from_linear_wants_a_linear(mask):
    with pytest.raises(TypeError, match=r"linear must be an nn.Linear, got Conv2d"):
        SparseLinear.from_linear(nn.Conv2d(3, 3, 1), mask)


def test_compiled_and_exported(mask, x):
    model = nn.Sequential(SparseLinear(20, 12, pattern=mask), nn.ReLU(), nn.Linear(12, 3))
    # Inductor takes 10 s of a C++ compiler, and has its own test: test_module_with_inductor.
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    grads = torch.autograd.grad(compiled(x).square().sum(), model.parameters())
    for got, want in zip(
        grads, torch.autograd.grad(model(x).square().sum(), model.parameters()), strict=True
    ):
        torch.testing.assert_close(got, want)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    other = torch.randn(9, 20)
    torch.testing.assert_close(program.module()(other), model(other))


def test_from_linear_sees_the_last_optimizer_step(mask, x):
    """prune computes linear.weight before a forward: after a step it is stale."""
    linear = nn.Linear(20, 12)
    prune.custom_from_mask(linear, "weight", mask)
    linear(x).square().sum().backward()
    torch.optim.SGD(linear.parameters(), lr=1.0).step()
    sparse = SparseLinear.from_linear(linear)
    torch.testing.assert_close(sparse(x), linear(x))


def test_from_linear_takes_ao_pruning(mask, x):
    """Its mask, a kept weight of exactly 0 included; and it is trained, even if made untracked."""
    linear = nn.Linear(20, 12)
    sparsifier = WeightNormSparsifier()
    sparsifier.prepare(nn.Sequential(linear), [{"tensor_fqn": "0.weight"}])
    hidden = linear.parametrizations.weight
    hidden[0].mask.copy_(mask)
    with torch.no_grad():
        hidden.original.view(-1)[mask.view(-1).nonzero()[0]] = 0
        sparse = SparseLinear.from_linear(linear)
    assert torch.equal(sparse.pattern.mask(), mask)
    assert sparse.values.requires_grad
    torch.testing.assert_close(sparse(x), linear(x))


def test_from_linear_takes_a_pruned_bias(mask, x):
    linear = nn.Linear(20, 12)
    prune.custom_from_mask(linear, "bias", mask[:, 0])
    with torch.no_grad():
        linear.bias_orig += 1  # linear.bias is computed before the next forward
    sparse = SparseLinear.from_linear(linear, mask)
    assert sparse.bias.requires_grad
    torch.testing.assert_close(sparse.bias, linear.bias_orig * mask[:, 0])


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_conversion_keeps_what_is_frozen(mask, frozen):
    linear = nn.Linear(20, 12)
    getattr(linear, frozen).requires_grad_(False)
    sparse = SparseLinear.from_linear(linear, mask)
    assert sparse.values.requires_grad == (frozen != "weight")
    assert sparse.bias.requires_grad == (frozen != "bias")
    back = sparse.to_linear()
    assert (back.weight.requires_grad, back.bias.requires_grad) == (
        sparse.values.requires_grad,
        sparse.bias.requires_grad,
    )


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("reparametrize", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_from_linear_refuses_stale_weights(reparametrize):
    with pytest.raises(ValueError, match="remove it first"):
        SparseLinear.from_linear(reparametrize(nn.Linear(20, 12)))


@pytest.mark.parametrize("keys", [("col",), ("crow",), ("crow", "col"), ("values", "col")])
def test_half_a_pattern_is_not_loaded(mask, keys):
    """Nor is the Pattern touched that the layer was made with."""
    pattern = Pattern.from_mask(mask)
    layer = SparseLinear(20, 12, pattern=pattern)
    state = {key: torch.zeros_like(layer.state_dict()[key]) for key in keys}
    report = layer.load_state_dict(state, strict=False)
    assert {"crow", "col"} <= set(report.missing_keys)
    assert torch.equal(pattern.mask(), mask)
    assert torch.equal(layer.pattern.mask(), mask)
    assert torch.equal(layer.col, pattern.col)


def test_assign_takes_the_device_of_the_state(mask):
    state = SparseLinear(20, 12, pattern=mask).state_dict()
    layer = SparseLinear(20, 12, pattern=mask).to("meta")
    layer.load_state_dict(state, assign=True)
    assert {t.device.type for t in layer.pattern.tensors} == {"cpu"}
    assert torch.equal(layer.pattern.mask(), mask)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight_orig": torch.zeros(12, 20)}, "weight_orig without weight_mask"),
        (
            {"parametrizations.weight.original": torch.zeros(12, 20)},
            r"without parametrizations.weight.0.mask",
        ),
        ({"weight": torch.zeros(12, 20), "bias": torch.zeros(13)}, "bias must have shape"),
        ({"values": torch.tensor(1.0), "crow": torch.zeros(13), "col": torch.zeros(0)}, "values"),
    ],
)
@pytest.mark.parametrize("pattern", ["infer", "given"])
def test_refused_state_dict_says_why_and_changes_nothing(mask, state, message, pattern):
    layer = SparseLinear(20, 12, pattern=mask if pattern == "given" else "infer")
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(RuntimeError, match=message if pattern == "given" else None):
        layer.load_state_dict(state)
    for key, value in layer.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_infer_is_for_the_first_load(mask):
    """Later loads must fit: values in use are not resized under an optimizer."""
    layer = SparseLinear(20, 12, pattern="infer")
    layer.load_state_dict(masked_linear_layer(mask).state_dict())
    with pytest.raises(RuntimeError, match="outside the pattern"):
        layer.load_state_dict(masked_linear_layer(~mask).state_dict())
