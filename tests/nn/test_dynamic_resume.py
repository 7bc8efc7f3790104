"""DynamicSparsity through files, copies, compilers and several processes."""

import copy
import io

import pytest
import torch
from dynamic_models import METHODS, batch, layers_of, same, snapshot, started, train
from torch import nn

from synops.nn import DynamicSparsity


class TestCompact:
    def test_same_results(self):
        """With room behind the edges and without."""
        runs = []
        for compact in (False, True):
            model, optimizer, sparsity = started("granet")
            train(model, optimizer, sparsity, range(30))
            if compact:
                sparsity.compact_()
                for layer in layers_of(model):
                    assert layer.values.shape == layer.col.shape
                    assert optimizer.state[layer.values]["exp_avg"].shape == layer.col.shape
            losses = train(model, optimizer, sparsity, range(30, 60))
            runs.append([losses, [layer.pattern.mask() for layer in layers_of(model)]])
        assert same(*runs)


class TestResume:
    @pytest.mark.parametrize("method", METHODS)
    def test_bit_for_bit(self, method):
        """Saved in the middle and loaded into a new process's objects, also once compacted."""
        for compact in (False, True):
            whole = started(method)
            train(*whole, range(33))
            if compact:
                whole[2].compact_()
            file = io.BytesIO()
            torch.save([part.state_dict() for part in whole], file)
            want = train(*whole, range(33, 60))
            again = started(method, density=0.2)
            model, optimizer, sparsity = again
            file.seek(0)
            states = torch.load(file, weights_only=True)
            sparsity.load_state_dict(states[2])
            model.load_state_dict(states[0])
            optimizer.load_state_dict(states[1])
            assert train(*again, range(33, 60)) == want
            assert same(snapshot(*whole[:2]), snapshot(*again[:2]))

    def test_of_something_else(self):
        _, _, sparsity = started("rigl")
        with pytest.raises(ValueError, match="method must be 'rigl', got 'set'"):
            sparsity.load_state_dict(started("set")[2].state_dict())
        model = nn.Sequential(nn.Linear(24, 4), nn.ReLU())
        other = DynamicSparsity(
            model, torch.optim.SGD(model.parameters(), lr=1), density=0.5, total_steps=9
        )
        with pytest.raises(ValueError, match="layers must be"):
            sparsity.load_state_dict(other.state_dict())


class TestEcosystem:
    def test_copies_of_the_model(self):
        """While it is watched: a copy, and one through a file."""
        model, optimizer, sparsity = started("rigl")
        train(model, optimizer, sparsity, range(7))
        x = batch(0)[0]
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
            assert torch.equal(other(x), model(x))
            other(x).mean().backward()

    # dynamo looks at the gradient of what crosses from one graph to the next
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
    def test_compiled(self):
        """The same training, whether updates look into compiled code or not."""
        runs = []
        for compiled in (False, True):
            torch._dynamo.reset()
            model, optimizer, sparsity = started("rigl", "sgd", interval=3, end=60)
            f = torch.compile(model, backend="aot_eager") if compiled else model
            runs.append(train(f, optimizer, sparsity, range(9)))
        assert runs[0] == pytest.approx(runs[1], rel=1e-5)

    def test_repr(self):
        text = repr(started("rigl")[2])
        assert text.startswith("DynamicSparsity(rigl, step 0, density 0.2)\n  0: (40, 24), density")
