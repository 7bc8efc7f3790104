"""The demo's section on entropy, with tiny models in place of the 176 MB of real ones."""

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from tiny_models import VOCABULARY, batch, pair

from synops._demo import entropy, language_model
from synops._demo.context import Context


@pytest.fixture
def tiny(monkeypatch):
    """The decoder that the section is given."""
    _, model = pair("llama")
    ids = torch.randint(1, VOCABULARY, (1, 64), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(language_model, "smollm2", lambda: model)
    monkeypatch.setattr(language_model, "smollm2_tokens", lambda: ids)
    monkeypatch.setattr(language_model, "minilm_batch", lambda n: batch("bert"))
    return model


@pytest.mark.parametrize("encoder", [True, False], ids=["with MiniLM", "without"])
def test_section(tiny, encoder, monkeypatch, tmp_path):
    bert = pair("bert")[1].bert
    monkeypatch.setattr(language_model, "minilm", lambda: bert if encoder else None)
    with Context(tmp_path, quick=True) as context:
        report = entropy.run(context)
    assert [row.case for row in report.rows] == ["64 tokens", "63 tokens"]
    assert all(0 < row.error < 1e-5 for row in report.rows)
    assert [claim.holds for claim in report.claims] == [True, True]
    description, memory = report.results
    found = dict(description.rows)
    assert float(found["perplexity"]) > 1
    assert found["heads below .5"].endswith("of 8")
    assert memory.rows[0][0] == "64"
    (plot,) = report.files
    assert plot.stat().st_size > 20_000


def test_exact_outputs_are_those_of_eager_attention(tiny):
    """The section's own reference."""
    ids = language_model.smollm2_tokens()
    with torch.no_grad():
        eager, exact = entropy.outputs(tiny, "eager", ids), entropy.exact_outputs(tiny, ids)
    for name in ("hidden", "logits", "entropies"):
        got, want = getattr(eager, name), getattr(exact, name)
        assert want.dtype == torch.float64
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)
