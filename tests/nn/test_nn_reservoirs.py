"""nn.ESN and nn.EIReservoir: what the modules add to the functions."""

import copy
import io

import pytest
import torch

from synops.nn import ESN, EIReservoir
from synops.spiking import ei_one_step_design, ei_reservoir, esn


def small(seed=0, **options):
    return EIReservoir(2, 60, degree=20, generator=seed, **options)


class TestESN:
    @pytest.mark.parametrize("rows", [1, 16])
    def test_weights_are_what_was_asked_for(self, rows):
        layer = ESN(
            2, 160, spectral_radius=1.2, density=0.2, input_scaling=0.5, rows=rows, generator=0
        )
        weight = layer.pattern.scatter(layer.values)
        assert torch.linalg.eigvals(weight).abs().max() == pytest.approx(1.2, rel=1e-4)
        assert layer.pattern.density == pytest.approx(0.2, abs=0.03)
        assert layer.pattern.block == (rows, 1)
        assert layer.input_weight.abs().max() == pytest.approx(0.5, abs=0.01)
        assert not layer.bias.any()

    def test_large_ones_have_about_their_radius(self):
        layer = ESN(1, 1600, spectral_radius=0.8, density=0.01, generator=0)
        weight = layer.pattern.scatter(layer.values)
        x = torch.randn(1600, 60)  # the largest eigenvalues, by subspace iteration
        for _ in range(60):
            x = torch.linalg.qr(weight @ x)[0]
        found = torch.linalg.eigvals(x.T @ weight @ x).abs().max()
        assert found == pytest.approx(0.8, rel=0.02)

    def test_the_same_from_the_same_generator(self):
        one, other = ESN(1, 40, generator=3), ESN(1, 40, generator=torch.Generator().manual_seed(3))
        for a, b in zip(one.buffers(), other.buffers(), strict=True):
            assert torch.equal(a, b)
        assert not torch.equal(one.input_weight, ESN(1, 40, generator=4).input_weight)
        torch.manual_seed(0)
        first = ESN(1, 40)
        torch.manual_seed(0)
        assert torch.equal(first.input_weight, ESN(1, 40).input_weight)

    def test_is_the_function(self):
        layer = ESN(2, 48, bias_scaling=0.1, leak=torch.rand(48), activation="relu", washout=2)
        u, state = torch.randn(7, 3, 2), torch.randn(3, 48)
        got = layer(u, state)
        options = {"bias": layer.bias, "leak": layer.leak, "activation": "relu", "washout": 2}
        want = esn(
            u, layer.values, layer.pattern, state, input_weight=layer.input_weight, **options
        )
        assert all(map(torch.equal, got, want))
        assert not list(layer.parameters())
        assert repr(layer) == (
            f"ESN(inputs=2, units=48, density={layer.pattern.density:.3g}, activation='relu', "
            "washout=2)"
        )


@pytest.mark.parametrize("make", [lambda seed: ESN(2, 48, generator=seed), small])
def test_copies_loads_moves(make):
    """deepcopy, pickle, a state_dict of other entries, float64."""
    layer, other = make(0), make(1)
    u = torch.randn(5, 2)
    want = layer(u)[0]
    assert torch.equal(copy.deepcopy(layer)(u)[0], want)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(u)[0], want)
    assert not torch.equal(other(u)[0], want)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(u)[0], want)
    twin = copy.deepcopy(layer).double()
    torch.testing.assert_close(twin(u.double())[0], want.double(), rtol=1e-4, atol=1e-5)


def test_a_bad_state_dict_is_refused_whole():
    layer = ESN(1, 20, generator=0)
    want = {k: v.clone() for k, v in layer.state_dict().items()}
    bad = {**layer.state_dict(), "col": layer.col + 20}
    with pytest.raises(RuntimeError, match=r"ESN '': Pattern.from_csr: col must lie in \[0, 20\)"):
        layer.load_state_dict(bad)
    with pytest.raises(RuntimeError, match=r"values must have shape \(nnz,\)"):
        layer.load_state_dict({**layer.state_dict(), "values": layer.values[:-1]})
    assert all(torch.equal(v, want[k]) for k, v in layer.state_dict().items())


class TestEIReservoir:
    def test_weights_are_what_was_asked_for(self):
        layer = EIReservoir(1, 200, balance=-0.5, generator=0)
        sums = []
        for kind, k in (("excitatory", 40), ("inhibitory", 10)):
            pattern = layer._patterns[f"{kind}_"]
            assert (pattern.crow.diff() == k).all()
            values = getattr(layer, f"{kind}_values")
            assert (values >= 0).all()
            sums.append(float(pattern.scatter(values).sum(1).mean()))
        assert sums == pytest.approx([1.0, 1.5], rel=0.02)
        reached = (layer.input_weight != 0).float().mean()
        assert reached == pytest.approx(0.3, abs=0.1)
        assert layer._patterns["excitatory_"].shape == (200, 160)

    def test_is_the_function_and_adapts(self):
        layer = small(gain=6.0)
        u, state = torch.randn(9, 2), torch.rand(60)
        network = {**layer._networks, "input_weight": layer.input_weight, "gain": 6.0}
        want = ei_reservoir(u, state=state, target=0.3, delta=0.1, **network)
        got = layer(u, state, target=0.3, delta=0.1)
        assert all(map(torch.equal, got, want))
        before = layer.inhibitory_values.clone()
        kept = layer.adapt_(u, state, target=0.3, delta=0.1)
        assert torch.equal(kept.rates, want.rates)
        assert torch.equal(layer.inhibitory_values, want.inhibitory)
        assert not torch.equal(layer.inhibitory_values, before)
        assert layer(u, state).inhibitory is None

    def test_design(self):
        layer = small(gain=6.0)
        network = layer._networks
        drive = layer.input_weight.sum(1) * 0.5
        want = ei_one_step_design(**network, target=0.3, drive=drive, gain=6.0)
        layer.design_(target=0.3, input_mean=0.5)
        torch.testing.assert_close(layer.inhibitory_values, want)
        rho = torch.full((60,), 0.3)
        held = layer(torch.full((1, 2), 0.5), rho).state
        torch.testing.assert_close(held, rho, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ESN(0, 5), ValueError, "inputs must be positive, got 0"),
        (lambda: ESN(1, 5.0), TypeError, "units must be an integer, got float"),
        (lambda: ESN(1, 20, density=0), ValueError, r"density must lie in \(0, 1\], got 0"),
        (lambda: ESN(1, 20, spectral_radius=-1), ValueError, "spectral_radius must be a number of"),
        (lambda: ESN(1, 40, rows=16), ValueError, "rows must be 1, or 16 where that divides units"),
        (lambda: ESN(1, 20, leak=2.0), ValueError, r"leak must lie in \[0, 1\], got 2.0"),
        (lambda: ESN(1, 20, activation="gelu"), ValueError, "activation must be one of tanh"),
        (lambda: ESN(1, 20, generator="0"), TypeError, "generator must be a torch.Generator or an"),
        (lambda: ESN(1, 20, leaky=1), TypeError, "ESN: no option 'leaky'"),
        (lambda: ESN(1, 2, density=1e-9, generator=0), ValueError, "density must be such that"),
        (lambda: small(excitatory=1.0), ValueError, "excitatory must leave both kinds units"),
        (lambda: small(balance=1.5), ValueError, "balance must be at most 1, got 1.5"),
        (lambda: small(gain="1"), TypeError, "gain must be a number, got str"),
        (lambda: small(gains=1), TypeError, "EIReservoir: no option 'gains'"),
        (
            lambda: small().adapt_(torch.zeros(3, 1, 2), target=0.5),
            ValueError,
            r"input must have shape \(T, K\)",
        ),
    ],
    ids=range(15),
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
