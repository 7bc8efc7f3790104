"""DynamicSparsity: layers change over with their optimizer, edges move, state goes along."""

import pytest
import torch
from dynamic_models import METHODS, OPTIMIZERS, batch, layers_of, mlp, same, started, train
from torch import nn

from synops.nn import DynamicSparsity, SparseLinear
from synops.sparse import Pattern


class TestConversion:
    def test_weights_stay(self):
        """Initial values, biases and everything else are the dense model's."""
        dense = mlp()
        model, _, sparsity = started("static")
        linear = [m for m in dense if hasattr(m, "weight")]
        for new, old in zip(layers_of(model), linear, strict=True):
            weight = new.pattern.scatter(new.values.detach())
            assert torch.equal(weight, old.weight.detach() * new.pattern.mask())
            assert torch.equal(new.bias, old.bias)
        assert abs(sparsity.density - 0.2) < 1e-3
        assert sparsity.densities.keys() == {"0", "2", "4"}

    def test_the_optimizer_trains_it(self):
        model, optimizer, _ = started()
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert trained == {id(p) for p in model.parameters()}

    def test_groups_and_state_stay(self):
        """Of a training that has begun; what a scheduler holds goes on."""
        model = mlp()
        groups = [
            {"params": [m.weight for m in model if hasattr(m, "weight")], "lr": 0.1},
            {"params": [m.bias for m in model if hasattr(m, "bias")], "lr": 0.2},
        ]
        optimizer = torch.optim.SGD(groups, lr=0.3, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        train(model, optimizer, None, range(3))
        dense = [m.weight for m in model if hasattr(m, "weight")]
        momenta = [optimizer.state[w]["momentum_buffer"].clone() for w in dense]
        biases = [m.bias for m in model if hasattr(m, "bias")]
        DynamicSparsity(model, optimizer, density=0.2, total_steps=10)
        assert [len(group["params"]) for group in optimizer.param_groups] == [3, 3]
        assert optimizer.param_groups[1]["params"] == biases
        assert not any(w in optimizer.state for w in dense)
        for layer, momentum in zip(layers_of(model), momenta, strict=True):
            carried = optimizer.state[layer.values]["momentum_buffer"]
            assert torch.equal(carried, layer.pattern.gather(momentum))
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)

    def test_sparse_layers_keep_their_patterns(self):
        mask = torch.rand(8, 24) < 0.3
        model = nn.Sequential(SparseLinear(24, 8, pattern=mask), nn.ReLU(), nn.Linear(8, 4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sparsity = DynamicSparsity(model, optimizer, "set", density=0.5, total_steps=10)
        assert torch.equal(model[0].pattern.mask(), mask)
        assert sparsity.densities["2"] == 0.5

    def test_only_some(self):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sparsity = DynamicSparsity(
            model, optimizer, density={"2": 0.1}, layers=["2"], total_steps=9
        )
        assert list(sparsity.densities) == ["2"]
        assert type(model[0]) is nn.Linear

    def test_says_what_stays_dense(self):
        model = nn.Sequential(mlp(), nn.MultiheadAttention(4, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sparsity = DynamicSparsity(model, optimizer, density=0.2, total_steps=9)
        assert "may do more than nn.Linear" in sparsity.skipped["1.out_proj"]

    def test_same_seed_same_masks(self):
        masks = [[l.pattern.mask() for l in layers_of(started("set")[0])] for _ in range(2)]  # noqa: E741
        assert same(*masks)


class TestMoving:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    @pytest.mark.parametrize("method", METHODS)
    def test_trains(self, method, optimizer):
        """Losses fall, Parameters stay the objects that they were, counts are kept."""
        model, optimizer, sparsity = started(method, optimizer)
        parameters = list(model.parameters())
        edges = {name: round(d * 1000) for name, d in sparsity.densities.items()}
        losses = train(model, optimizer, sparsity, range(60))
        assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
        assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
        assert abs(sparsity.density - 0.2) < 2e-3
        if method in ("static", "set", "rigl", "hebbian"):
            assert edges == {name: round(d * 1000) for name, d in sparsity.densities.items()}
        for layer in layers_of(model):
            assert not layer.values[layer.pattern.nnz :].any()

    @pytest.mark.parametrize("method", ["set", "rigl", "hebbian"])
    def test_carries_values_and_state(self, method):
        """Those of an edge that stays go with it; a new edge has none."""
        model, optimizer, sparsity = started(method, end=60)
        train(model, optimizer, sparsity, range(4))
        x, y = batch(4)
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        before = [
            [layer.pattern.mask(), *self.scattered(layer, optimizer)] for layer in layers_of(model)
        ]
        rate, counts = sparsity.schedule.rate(5), []
        assert sparsity.step()
        for layer, (old, *tensors) in zip(layers_of(model), before, strict=True):
            new = layer.pattern.mask()
            for was, now in zip(tensors, self.scattered(layer, optimizer), strict=True):
                assert torch.equal(now, was * new)  # 0 where the edge is new
            counts.append((int((old & ~new).sum()), int(rate * int(old.sum()))))
            assert layer.values.grad is None
        assert all(gone <= most for gone, most in counts)  # some come back at once
        assert sum(gone for gone, _ in counts) > 0

    @staticmethod
    def scattered(layer, optimizer):
        state = optimizer.state[layer.values]
        tensors = [layer.values.detach(), state["exp_avg"], state["exp_avg_sq"]]
        return [layer.pattern.scatter(t) for t in tensors]

    def test_rigl_grows_by_the_dense_gradient(self):
        """Also over several backwards of a step, and through an activation inside the layer."""
        for activation in (None, "relu", "gelu"):
            model, optimizer, sparsity = started("rigl", "sgd", prune_rate=0.3, interval=1, end=60)
            layer = model[0]
            if activation:
                layer.activation = activation
            weight = layer.pattern.scatter(layer.values.detach()).requires_grad_()
            act = {None: lambda v: v, "relu": torch.relu, "gelu": nn.functional.gelu}[activation]
            optimizer.zero_grad()
            for i in range(2):
                x, y = batch(i)
                (model(x) - y).square().mean().backward()
                hidden = act(nn.functional.linear(x, weight, layer.bias.detach()))
                (model[1:](hidden) - y).square().mean().backward()
            kept = layer.pattern.mask()
            optimizer.step()
            values = layer.pattern.scatter(layer.values.detach()).abs()
            count = sparsity.schedule.moving(1, int(kept.sum()))
            values[~kept] = torch.inf
            gone = values.flatten().topk(count, largest=False).indices
            stay = kept.flatten().clone()
            stay[gone] = False
            scores = weight.grad.abs().flatten().masked_fill(stay, -1)
            stay[scores.topk(count).indices] = True
            sparsity.step()
            assert torch.equal(layer.pattern.mask().flatten(), stay), activation

    def test_density_falls_as_gradual_pruning(self):
        model, optimizer, sparsity = started("gmp", ramp_end=40)
        entries = sum(layer.in_features * layer.out_features for layer in layers_of(model))
        for step in range(1, 61):
            train(model, optimizer, sparsity, [step])
            at = min(step // 5 * 5, 40) / 40
            want = 0.2 + 0.8 * (1 - at) ** 3
            assert abs(sparsity.density - int(want * entries) / entries) < 1e-9

    def test_a_layer_without_part_in_the_step_stays(self):
        model, optimizer, sparsity = started("rigl", interval=1)
        before = model[0].pattern.mask()
        optimizer.zero_grad()
        model[1:](torch.randn(8, 40)).square().mean().backward()
        optimizer.step()
        sparsity.step()
        assert torch.equal(model[0].pattern.mask(), before)

    def test_nothing_is_kept_between_updates(self):
        model, optimizer, sparsity = started("rigl", interval=5)
        for i in range(1, 8):
            model(batch(i)[0]).mean().backward()
            assert bool(sparsity._samples._taken) == (i == 5)
            optimizer.step()
            sparsity.step()
            assert not sparsity._samples._taken

    def test_close(self):
        """Nothing is left on the layers."""
        model, _, sparsity = started("rigl", interval=1)
        model(batch(0)[0]).mean().backward()
        sparsity.close()
        assert not sparsity._samples._taken
        assert not any(layer._forward_hooks for layer in layers_of(model))

    @pytest.mark.parametrize("method", ["rigl", "hebbian"])
    def test_what_works_in_place_behind_a_layer(self, method):
        """Gradients and similarity are those of outputs as the layer returned them."""
        masks = []
        for inplace in (False, True):
            model, optimizer, sparsity = started(method, "sgd", interval=2)
            model[1].inplace = model[3].inplace = inplace
            train(model, optimizer, sparsity, range(6))
            masks.append([layer.pattern.mask() for layer in layers_of(model)])
        assert same(*masks)

    def test_autocast(self):
        model, optimizer, sparsity = started("rigl", interval=2, end=60)
        for i in range(4):
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(batch(i)[0]).float().square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            sparsity.step()
        assert sparsity.steps == 4

    def test_half_precision(self):
        model = mlp(torch.bfloat16)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        sparsity = DynamicSparsity(
            model, optimizer, "granet", density=0.2, total_steps=20, interval=2
        )
        for i in range(20):
            x, y = batch(i, dtype=torch.bfloat16)
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()
            sparsity.step()
        assert abs(sparsity.density - 0.2) < 0.03  # of equal magnitudes all go


def test_pattern_is_another_object():
    """Who holds the old Pattern keeps it as it was."""
    model, optimizer, sparsity = started("set", interval=1)
    old: Pattern = model[0].pattern
    before = [t.clone() for t in old.tensors]
    train(model, optimizer, sparsity, range(3))
    assert same(before, list(old.tensors))
    assert not torch.equal(old.mask(), model[0].pattern.mask())
