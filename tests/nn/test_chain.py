"""chain_: layers in a row hand their activations on feature-major, and nothing else changes."""

import copy

import pytest
import torch
from torch import nn

from synops.nn import SparseLinear, chain_


def layer(out_features: int = 16, in_features: int = 16) -> SparseLinear:
    return SparseLinear(
        in_features, out_features, pattern=torch.rand(out_features, in_features) < 0.4
    )


def stack() -> nn.Sequential:
    """Both fused activations, others, a layer without a follower and a dense one between."""
    return nn.Sequential(
        *(layer(24), nn.ReLU(), nn.Dropout(0.0), layer(16, 24), nn.GELU(), layer(), nn.Tanh()),
        *(layer(), nn.Linear(16, 16), nn.Sequential(layer(), nn.ReLU(), layer()), nn.ReLU()),
    )


def flags(model: nn.Module) -> list[tuple[bool, str | None]]:
    layers = (m for m in model.modules() if isinstance(m, SparseLinear))
    return [(m.feature_major, m.activation) for m in layers]


def step(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The output and every gradient."""
    x = x.clone().requires_grad_()
    y = model(x)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), [x, *model.parameters()])]


@pytest.mark.parametrize("batch", [1, 5, 16, 64, (2, 3)])
def test_results_stay(batch):
    """With gradients, where an activation is a function, and without, where it is fused."""
    model = stack().double()
    lead = (batch,) if isinstance(batch, int) else batch
    x = torch.randn(*lead, 16, dtype=torch.float64)
    want = step(model, x)
    keys = list(model.state_dict())
    assert chain_(model) is model
    assert flags(model) == [
        *((True, "relu"), (True, "gelu"), (True, None), (False, None)),
        *((True, "relu"), (False, None)),
    ]
    assert list(model.state_dict()) == keys
    for one, other in zip(step(model, x), want, strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        got = model(x)
    torch.testing.assert_close(got, want[0])
    assert got.is_contiguous()


def test_nothing_is_turned_in_between():
    """What one layer writes is what the next one reads."""
    model = chain_(nn.Sequential(layer(), nn.ReLU(), layer(), nn.SiLU(), layer()))
    strides = []
    for m in model:
        m.register_forward_hook(lambda m, args, y: strides.append(y.stride()))
    model(torch.randn(32, 16))
    assert strides == [(1, 32)] * 4 + [(16, 1)]


def test_twice_is_once():
    model = chain_(stack())
    before, names = flags(model), [type(m) for m in model.modules()]
    chain_(model)
    assert flags(model) == before
    assert [type(m) for m in model.modules()] == names


def test_state_dict_goes_both_ways():
    plain = stack()
    chained = chain_(copy.deepcopy(plain))
    for p in chained.parameters():
        nn.init.normal_(p)
    x = torch.randn(5, 16)
    chained.load_state_dict(plain.state_dict())
    torch.testing.assert_close(chained(x), plain(x))
    plain.load_state_dict(copy.deepcopy(chained).state_dict())
    torch.testing.assert_close(plain(x), chained(x))


def test_trains():
    """The same steps as without; the chain goes on after a deepcopy."""
    plain = stack()
    chained = copy.deepcopy(chain_(copy.deepcopy(plain)))
    assert flags(chained) == flags(chain_(copy.deepcopy(plain)))
    x, target = torch.randn(40, 16), torch.randn(40, 16)
    losses = []
    for model in (plain, chained):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        losses.append([])
        for _ in range(20):
            optimizer.zero_grad()
            loss = (model(x) - target).square().mean()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.detach())
    assert losses[0][-1] < 0.98 * losses[0][0]
    torch.testing.assert_close(torch.stack(losses[1]), torch.stack(losses[0]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("hook", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
@pytest.mark.parametrize("at", [0, 1])
def test_hooks_see_what_they_saw(hook, at):
    """Of the activation, which would be gone, and of the layer, whose output would be another."""
    model = nn.Sequential(layer(), nn.ReLU(), layer())
    seen = []

    def note(module, *args):
        seen.append([t for a in args for t in (a if isinstance(a, tuple) else (a,))])

    getattr(model[at], f"register_{hook}_hook")(note)
    x = torch.randn(4, 16)
    step(model, x)
    chain_(model)
    assert flags(model) == [(True, None), (False, None)]
    step(model, x)
    before, after = seen
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other)


def test_only_inside_a_sequential():
    """What other modules do with their layers is not known."""

    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([layer(), nn.ReLU(), layer()])
            self.inner = nn.Sequential(layer(), nn.ReLU(), layer())

    assert flags(chain_(Mine())) == [(False, None)] * 2 + [(True, "relu"), (False, None)]


def test_a_sequential_of_its_own_kind():
    class Residual(nn.Sequential):
        def forward(self, x):
            hidden = self[0](x)
            return hidden + self[1](hidden)

    class Named(nn.Sequential):
        pass

    assert flags(chain_(Residual(layer(), nn.ReLU()))) == [(False, None)]
    assert flags(chain_(Named(layer(), nn.ReLU()))) == [(False, "relu")]


def test_shared_layers():
    """One activation is not for all of a layer's places: in one stack, in two, and beside."""
    one = layer()
    x = torch.randn(5, 16)
    for model in (
        nn.Sequential(one, nn.ReLU(), one, nn.Tanh()),
        nn.Sequential(nn.Sequential(one, nn.ReLU()), nn.Sequential(one)),
        nn.Sequential(nn.Sequential(one, nn.ReLU()), nn.ModuleDict({"again": one})["again"]),
    ):
        want = model(x)
        torch.testing.assert_close(chain_(model)(x), want)
        assert one.activation is None


def test_what_is_not_fused():
    """Other functions than the layer's two; a layer that has one; one that is not right behind."""
    for after in (nn.GELU(approximate="tanh"), nn.ReLU6(), nn.Softmax(-1), nn.BatchNorm1d(16)):
        model = chain_(nn.Sequential(layer(), after, layer()))
        assert model[0].activation is None
        assert model[1] is after
    assert not chain_(nn.Sequential(layer(), nn.Softmax(-1), layer()))[0].feature_major
    has = layer()
    has.activation = "gelu"
    assert flags(chain_(nn.Sequential(has, nn.ReLU()))) == [(False, "gelu")]
    assert flags(chain_(nn.Sequential(layer(), nn.Dropout(), nn.ReLU()))) == [(False, None)]


def test_compiled_and_exported():
    model = chain_(nn.Sequential(layer(), nn.ReLU(), layer(), nn.GELU(), layer()))
    x = torch.randn(20, 16)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    for one, other in zip(step(compiled, x), step(model, x), strict=True):
        torch.testing.assert_close(one, other)
    program = torch.export.export(model, (x,))
    torch.testing.assert_close(program.module()(x), model(x))


@pytest.mark.parametrize("model", [None, [layer()], nn.Sequential])
def test_bad_input(model):
    with pytest.raises(TypeError, match=r"^chain_: model must be an nn.Module, got \w+$"):
        chain_(model)
