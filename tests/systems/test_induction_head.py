"""Induction heads (Olsson et al.; Singh et al.): they appear at once, and need the token before.

200 steps at three times the learning rate of the example, 3 s a run: the loss halves at step 130 or
140 with each of four seeds, and with the clamp not before 240.
"""

import pytest
import torch
from example import load
from head_maps import ALL, loops, probabilities

STEPS = 200


class Run:
    """A course, and what was attended to at some of its steps: (tokens, layers)."""

    def __init__(self, example, clamp):
        self.at = {}
        self.course = example.train(clamp=clamp, steps=STEPS, lr=3e-3, look=self.look)

    def look(self, step, tokens, seen):
        if step in (0, 100, 140, STEPS):
            self.at[step] = tokens, seen


@pytest.fixture(scope="module")
def example():
    return load("induction_head")


@pytest.fixture(scope="module")
def runs(example):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {clamp: Run(example, clamp) for clamp in (False, True)}
    torch.set_num_threads(before)
    return found


def between(values, low, high):
    """Looks (10 steps apart) from the last below ``low`` to the first above ``high``."""
    return int((values > high).nonzero()[0]) - int((values < low).nonzero()[-1])


def test_phase_change(runs):
    """Slow before it, through in 40 steps, and nothing left to learn after it."""
    course = runs[False].course
    early = course.step <= 100
    assert (course.loss[early] > 3).all()  # log 48 = 3.87 for guessing
    assert (course.accuracy[early] < 0.25).all()
    assert 100 < course.fall() <= 180
    assert between(course.accuracy, 0.3, 0.9) <= 5
    assert course.loss[-1] < 0.2
    assert course.accuracy[-1] > 0.95


def test_heads_appear_with_it(runs):
    """The token before in layer 1, induction in layer 2: from .1 to .8."""
    scores = runs[False].course.scores
    for name, layer in (("previous_token", 0), ("induction", 1), ("prefix_matching", 1)):
        best = scores[name][:, layer].amax(1)
        assert best[0] < 0.15
        assert best[-1] > 0.6
    assert scores["induction"][-1, 0].max() < 0.2  # layer 1 has nothing to find it by


def test_entropy_falls_with_it(runs):
    """2.9 -> 2.6 -> .8 nat in layer 1. Uniform causal attention has 2.88."""
    course = runs[False].course
    uniform = torch.arange(1.0, 49).log().mean()
    assert abs(course.entropy[0, 0] - uniform) < 0.05
    assert course.entropy[10, 0] > 2.2
    assert (course.entropy[-1] < 1.4).all()


def test_clamp_delays_it(runs):
    """With the token before forbidden the same model, on the same texts, has not begun."""
    course = runs[True].course
    assert course.fall() is None
    assert course.accuracy[-1] < 0.3
    assert not course.scores["previous_token"].any()
    assert course.scores["induction"][-1].max() < 0.2
    assert course.entropy[-1, 0] > 2


@pytest.mark.parametrize("clamp", [False, True], ids=["free", "clamped"])
def test_scores_are_those_of_the_maps(example, runs, clamp):
    """Before, in and after the phase change: float32 against maps in float64."""
    assert len(runs[clamp].at) == 4
    for tokens, layers in runs[clamp].at.values():
        for layer in layers:
            p = probabilities(layer.query, layer.key, attn_mask=layer.attn_mask)
            want = loops(p, tokens)
            got = layer.scores(tokens)
            for name, score in zip(example.SCORES, got, strict=True):
                exact = want[ALL.index(name)].nanmean(0)
                torch.testing.assert_close(score.double(), exact, rtol=0, atol=1e-6)
            entropy = -torch.special.xlogy(p, p).sum(-1)
            torch.testing.assert_close(layer.entropy.double(), entropy, rtol=0, atol=1e-5)


def test_the_example_prints_and_plots(example, tmp_path, capsys):
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    file = tmp_path / "heads.png"
    before = torch.get_num_threads()
    found = example.main(["--steps", "20", "--out", str(file)])
    torch.set_num_threads(before)
    assert list(found) == ["free", "clamped"]
    assert [len(course.step) for course in found.values()] == [3, 3]
    out = capsys.readouterr().out
    for heading in ("free: no fall", "accuracy", "token before", "plot:"):
        assert heading in out
    assert file.stat().st_size > 20_000  # an empty figure has 5000
