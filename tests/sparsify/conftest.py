"""What the tests of sparsify_ share: one thread, and forms that are faster by decree."""

import pytest

from synops import _sparsify
from synops._sparsify._forms import Measured


@pytest.fixture(autouse=True)
def one_thread(threads):
    threads(1)


@pytest.fixture
def faster(monkeypatch):
    """Makes one form the fastest, whatever the clock says; returns what was measured."""

    def choose(fastest):
        calls = []

        def measure(layer, forms, rows, training):
            calls.append((layer.names[0], tuple(forms), rows, training))
            speedups = {form: 4.0 if form == fastest else 0.5 for form in forms}
            return Measured({"masked": 4.0} | {f: 4.0 / s for f, s in speedups.items()}, speedups)

        monkeypatch.setattr(_sparsify, "measure", measure)
        return calls

    return choose


@pytest.fixture
def sparse(faster):
    """The sparse form is faster."""
    return faster("sparse")
