"""The benchmarks run, their names stay, and what they measure with measures right."""

import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
from argparse import ArgumentParser
from functools import partial
from pathlib import Path

import pytest
import torch

from synops import _bench, _restart
from synops.benchmarks import publish
from synops.benchmarks.common import disturbance, interleave, memory, registry
from synops.benchmarks.common import suite as suites
from synops.benchmarks.common.call import largest_error
from synops.benchmarks.common.compare import ONE_THREAD, Row, compare
from synops.benchmarks.common.public import public
from synops.benchmarks.common.report import format_speedup, format_time

ROOT = Path(__file__).parents[1]
GLIBC = platform.libc_ver()[0] == "glibc"
SUITES = [suite for family in registry.families() for suite in registry.suites(family)]

_LINEAR = (
    "128x1024x1024 d=.1",
    "128x1024x1024 d=.2",
    "128x1024x1024 d=.05",
    "128x1024x1024 d=.01",
    "60x784x300 d=.1",
    "512x768x3072 d=.1",
    "1x8x8 d=.5",
)
_LINEAR_THREADED = ("128x1024x1024 d=.1", "512x768x3072 d=.1")
_LINEAR_MEMORY = ("8x4096x4096 d=.01",)
_PATTERN = ("128x1024x1024 d=.1", "128x1024x1024 d=.01", "60x784x300 d=.1", "1x8x8 d=.5")
_MASKED = ("synops", "torch", "compile", "premultiplied", "synops_bool")
_SPARSE = ("synops", "torch", "compile", "csr", "sparseprop")
# asv stores results by class, method, implementation and case. Lines are added, never changed.
_TOKEN = ("synops", "torch", "compile", "softmax")
_TOKENS = ("32x151936", "512x151936", "2048x32000", "4096x128", "1000000x10")
_PRODUCT = ("128x1024x1024 d=.1", "128x1024x1024 d=.01")
_ATTENTION = (
    "4x16x512x64",
    "4x16x512x64 causal",
    "1x16x2048x64",
    "1x16x2048x64 causal",
    "1x1x8x8",
)
_SEQUENCES = ("100x32x1024", "100x128x1024", "100x1x8")
_RECURRENT = ("20x256x500", "400x10x500", "20x1x8")
_ATTENDING = ("synops", "torch", "two_calls", "eager")
_FAST_WEIGHTS = ("8x1024x64", "8x1024x128", "8x1024x64 gated", "1x4096x64", "1x8x4")
_RETRIEVING = ("synops", "torch", "eager", "layers")
_THREE_FACTOR = ("synops", "torch", "in_place", "compile", "functional")
_PLASTIC = (
    "1x1024x1024",
    "1x4096x4096",
    "1x300x784",
    "32x1024x1024",
    "1x1024x1024 d=.1",
    "1x4096x4096 d=.1",
    "1x8x8",
)
_THREE_FACTORS = ("synops", "in_place", "steps", "torch", "compile")
_PLASTIC_RUNS = (
    "100x1x1024x1024",
    "100x1x300x784",
    "100x32x1024x1024",
    "100x1x1024x1024 d=.1",
    "100x1x8x8",
)
NAMES = {
    "hebbian.soft_hebb.SoftHebb": (
        ("synops", "torch", "compile", "official"),
        (
            "1x4096x4096",
            "256x4096x4096",
            "1x1024x1024",
            "1x2000x784",
            "100x2000x784",
            "1x4096x4096 amax",
            "256x4096x4096 amax",
            "4x8x8",
        ),
    ),
    "hebbian.soft_hebb.SoftHebb2Threads": (
        ("synops", "torch", "compile", "official"),
        ("1x4096x4096", "256x4096x4096", "1x4096x4096 amax", "256x4096x4096 amax", "4x8x8"),
    ),
    "hebbian.soft_hebb_conv2d.SoftHebbConv2d": (
        ("synops", "torch", "official"),
        ("10x1x28x28 to 96", "10x3x32x32 to 96", "2x1x4x4 to 4"),
    ),
    "sparse.dynamic_sparsity.DynamicSparsity": (
        ("synops", "torch", "projected", "masked"),
        (
            "128x784-300-100-10 d=.1",
            "128x784-2048-2048-10 d=.1",
            "100 steps 128x784-300-100-10 d=.1 rigl",
            "100 steps 128x784-2048-2048-10 d=.1 rigl",
            "2 steps 8x16-16-4 d=.5 rigl",
        ),
    ),
    "sparse.dynamic_sparsity.SparseTrainingState": (
        ("synops", "torch"),
        (
            "8x2048x2048 d=.2",
            "8x2048x2048 d=.1",
            "8x2048x2048 d=.05",
            "8x2048x2048 d=.01",
        ),
    ),
    "sparse.grow_topk.GrowTopk": (
        ("synops", "torch", "sorted"),
        ("320x2048x2048 d=.256", "128x1024x1024 d=.1", "100x784x300 d=.1", "4x8x8 d=.5"),
    ),
    "sparse.magnitude_threshold.MagnitudeThreshold": (
        ("synops", "torch", "topk", "sort"),
        ("1x512x512x3x3 keep=.1", "8x1024x1024 keep=.1", "1x8x8 keep=.5"),
    ),
    "sparse.prune_and_grow.PruneAndGrow": (
        ("synops", "torch", "sorted"),
        ("1024x1024 d=.1", "1024x1024 d=.01", "2048x2048 d=.256", "300x784 d=.1", "8x8 d=.5"),
    ),
    "entropy.token_stats.TokenStats": (_TOKEN, _TOKENS),
    "entropy.token_stats.TokenStats2Threads": (_TOKEN, _TOKENS[:3]),
    "entropy.linear_token_stats.LinearTokenStats": (
        ("synops", "torch", "compile", "gemm", "cross_entropy"),
        (
            "512x896x151936",
            "256x896x16384",
            "4x8x16",
            "512x896x151936 bf16",
            "256x896x16384 bf16",
            "1x896x151936",
            "1x896x151936 bf16",
            "8x896x151936",
            "8x896x151936 bf16",
        ),
    ),
    "entropy.linear_token_stats.LinearTokenStats2Threads": (
        ("synops", "torch", "compile", "gemm", "cross_entropy"),
        (
            "512x896x151936",
            "512x896x151936 bf16",
            "4x8x16",
            "1x896x151936",
            "1x896x151936 bf16",
        ),
    ),
    "entropy.linear_token_stats.LinearTokenStatsTraining": (
        ("synops", "torch", "compile"),
        ("256x896x16384 training", "4x8x16 training"),
    ),
    "entropy.linear_token_stats.LinearTokenStatsMemory": (
        ("synops", "torch", "gemm"),
        ("512x64x32768",),
    ),
    "entropy.attention_with_stats.AttentionWithStats": (_ATTENDING, _ATTENTION),
    "entropy.attention_with_stats.AttentionWithStats2Threads": (_ATTENDING, _ATTENTION),
    "entropy.attention_with_stats.AttentionWithStatsMemory": (
        ("synops", "torch", "eager"),
        ("1x16x2048x64", "1x1x32768x64"),
    ),
    "entropy.head_scores.HeadScores": (
        ("synops", "torch", "attention"),
        ("1x16x2048x64", "1x16x2048x64 zipf", "32x4x48x16"),
    ),
    "hebbian.stdp.STDP": (
        ("synops", "torch", "compile", "spikingjelly", "bindsnet"),
        (
            "1x1x1024x1024 2%",
            "1x1x1024x1024 .1%",
            "1x1x1024x1024 20%",
            "1x1x4096x4096 2%",
            "1x1x4096x4096 .1%",
            "1x1x4096x4096 20%",
            "1x32x1024x1024 2%",
            "100x1x1024x1024 2%",
            "250x1x784x400 2%",
            "1x1x4096x4096 2% d=.1",
            "1x1x16x16 20%",
        ),
    ),
    "hebbian.stdp.STDP2Threads": (
        ("synops", "torch", "compile", "spikingjelly", "bindsnet"),
        ("1x1x1024x1024 2%", "1x1x4096x4096 2%", "1x1x4096x4096 20%", "1x1x16x16 20%"),
    ),
    "sparse.masked_linear.MaskedLinear": (_MASKED, _LINEAR),
    "sparse.masked_linear.MaskedLinear2Threads": (_MASKED, _LINEAR_THREADED),
    "sparse.masked_linear.MaskedLinearMemory": (("synops", "torch"), _LINEAR_MEMORY),
    "sparse.mlp.MLP": (
        ("synops", "torch", "synops_unchained"),
        ("4 layers 128x1024x1024 d=.01", "2 layers 1x8x8 d=.5"),
    ),
    "sparse.pattern.PatternFromMask": (("synops", "torch"), _PATTERN),
    "sparse.pattern.PatternGather": (("synops", "torch"), _PATTERN),
    "sparse.pattern.PatternScatter": (("synops", "torch"), _PATTERN),
    "sparse.sddmm.SDDMM": (("synops", "torch"), _PRODUCT),
    "sparse.sparse_linear.SparseLinear": (_SPARSE, _LINEAR),
    "sparse.sparse_linear.SparseLinear2Threads": (_SPARSE, _LINEAR_THREADED),
    "sparse.sparse_linear.SparseLinearMemory": (("synops", "torch", "csr"), _LINEAR_MEMORY),
    "sparse.spmm.SpMM": (("synops", "torch"), _PRODUCT),
    "sparse.unit_stats.UnitStats": (
        ("synops", "torch", "sum"),
        ("256x1024", "4096x1024", "100000x21", "1x8"),
    ),
    "sparse.unit_stats.Monitor": (
        ("synops", "torch", "extra_forward", "plain"),
        ("256x50x1024x1024x21", "256x39200x50x1024x1024x21", "4x8x16x16x3"),
    ),
    "hebbian.delta_rule.DeltaRule": (("synops", "torch", "loop", "compile"), _FAST_WEIGHTS),
    "hebbian.delta_rule.DeltaRule2Threads": (("synops", "torch", "loop", "compile"), _FAST_WEIGHTS),
    "spiking.leaky_rnn.LeakyRNN": (("synops", "torch", "compile"), _RECURRENT),
    "spiking.leaky_rnn.LeakyRNN2Threads": (("synops", "torch", "compile"), _RECURRENT),
    "spiking.ei_reservoir.EIReservoir": (
        ("synops", "torch", "scipy", "coo"),
        ("400x500 adapting", "400x500", "100x2000 adapting", "4x20 adapting"),
    ),
    "spiking.esn.ESN": (
        ("synops", "torch", "scipy", "reservoirpy"),
        (
            "200x1x1000 d=.1",
            "50x32x1000 d=.1",
            "500x1x1000 d=.01",
            "50x32x1000 d=.01",
            "100x1x5000 d=.01",
            "20x32x5000 d=.01",
            "500x1x1008 d=.1 rows 16x1",
            "5x1x16 d=.5",
        ),
    ),
    "spiking.esn.ESN2Threads": (
        ("synops", "torch", "scipy", "reservoirpy"),
        ("50x32x1000 d=.1", "20x32x5000 d=.01", "5x1x16 d=.5"),
    ),
    "spiking.izhikevich.Izhikevich": (
        ("synops", "torch", "numpy", "numba"),
        ("1000x2000", "4000x1000", "20000x400", "40x20"),
    ),
    "spiking.izhikevich.Izhikevich2Threads": (
        ("synops", "torch", "numpy", "numba"),
        ("20000x400", "100000x100", "32x1000x500", "40x20"),
    ),
    "spiking.lif.LIF": (("synops", "torch", "compile"), _SEQUENCES),
    "spiking.lif.LIF2Threads": (("synops", "torch", "compile"), _SEQUENCES),
    "spiking.recurrent_lif.RecurrentLIF": (
        ("synops", "torch"),
        (
            "100x32x1024",
            "100x128x1024",
            "100x32x1024 triangle",
            "100x128x1024 triangle",
            "100x32x1024 d=.1",
            "100x1x8",
        ),
    ),
    "spiking.recurrent_lif.RecurrentLIF2Threads": (("synops", "torch"), _SEQUENCES),
    "spiking.alif.ALIF": (("synops", "torch"), _SEQUENCES),
    "spiking.cuba_lif.CubaLIF": (("synops", "torch"), _SEQUENCES),
    "hebbian.three_factor.ThreeFactor": (_THREE_FACTOR, _PLASTIC),
    "hebbian.three_factor.ThreeFactor2Threads": (_THREE_FACTOR, _PLASTIC),
    "hebbian.three_factor_sequence.ThreeFactorSequence": (_THREE_FACTORS, _PLASTIC_RUNS),
    "hebbian.three_factor_sequence.ThreeFactorSequence2Threads": (_THREE_FACTORS, _PLASTIC_RUNS),
    "hebbian.hebb.Hebb": (
        ("synops", "torch", "as_written", "compile", "add"),
        (
            "1x4096x4096",
            "1x1024x1024",
            "1x300x784",
            "32x1024x1024",
            "32x4096x4096",
            "256x1024x1024",
            "256x4096x4096",
            "32x4096x4096 d=.1",
            "32x1024x1024 d=.1",
            "1x8x16",
        ),
    ),
    "hebbian.hebb.Hebb2Threads": (
        ("synops", "torch", "as_written", "compile", "add"),
        (
            "1x4096x4096",
            "1x1024x1024",
            "1x300x784",
            "32x1024x1024",
            "32x4096x4096",
            "256x1024x1024",
            "256x4096x4096",
            "32x4096x4096 d=.1",
            "32x1024x1024 d=.1",
            "1x8x16",
        ),
    ),
    "hebbian.oja.Oja": (
        ("synops", "torch", "as_written", "compile", "add", "forward"),
        (
            "1x4096x4096",
            "1x1024x1024",
            "1x300x784",
            "32x1024x1024",
            "32x4096x4096",
            "256x1024x1024",
            "256x4096x4096",
            "1x4096x4096 forward",
            "1x1024x1024 forward",
            "1x8x16",
        ),
    ),
    "hebbian.oja.Oja2Threads": (
        ("synops", "torch", "as_written", "compile", "add", "forward"),
        (
            "1x4096x4096",
            "1x1024x1024",
            "1x300x784",
            "32x1024x1024",
            "32x4096x4096",
            "256x1024x1024",
            "256x4096x4096",
            "1x4096x4096 forward",
            "1x1024x1024 forward",
            "1x8x16",
        ),
    ),
    "hebbian.bcm.BCM": (
        ("synops", "torch", "compile"),
        (
            "1x4096x4096",
            "1x1024x1024",
            "32x1024x1024",
            "1x8x16",
        ),
    ),
    "hebbian.bcm.BCM2Threads": (
        ("synops", "torch", "compile"),
        (
            "1x4096x4096",
            "1x1024x1024",
            "32x1024x1024",
            "1x8x16",
        ),
    ),
    "hebbian.hopfield_retrieve.HopfieldRetrieve": (
        _RETRIEVING,
        (
            "256 of 1000x64",
            "32 of 1000x64",
            "1 of 1000x64",
            "256 of 10000x64",
            "1 of 10000x64",
            "256 of 1000x512",
            "1 of 1000x512",
            "2 of 8x8",
        ),
    ),
    "hebbian.hopfield_retrieve.HopfieldRetrieve2Threads": (
        _RETRIEVING,
        ("256 of 1000x64", "256 of 10000x64", "256 of 1000x512", "2 of 8x8"),
    ),
}
METHODS = {
    suites.ForwardSuite: ["time_forward", "track_ratio_forward"],
    suites.TrainingSuite: [
        "time_forward",
        "time_forward_backward",
        "track_ratio_forward",
        "track_ratio_forward_backward",
    ],
    suites.MemorySuite: [
        "peakmem_forward_backward",
        "track_allocated_forward",
        "track_allocated_forward_backward",
    ],
    suites.StateSuite: ["track_bytes_per_entry"],
}


@pytest.fixture(autouse=True)
def threads():
    """Benchmarks set the number of threads; the tests after them have theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def name_of(suite):
    return f"{suite.__module__.partition('benchmarks.')[2]}.{suite.__qualname__}"


def methods_of(suite):
    return sorted(name for name in dir(suite) if re.match("time_|track_|peakmem_", name))


def python(*arguments, **environment):
    """A fresh interpreter; its standard output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**_restart.default_environment(), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestNames:
    def test_classes(self):
        hint = "add a new class to NAMES; a class that is gone takes its results with it"
        assert sorted(map(name_of, SUITES)) == sorted(NAMES), hint

    @pytest.mark.parametrize("suite", SUITES, ids=name_of)
    def test_parameters_are_appended_only(self, suite):
        assert suite.params == [list(names) for names in NAMES[name_of(suite)]]

    @pytest.mark.parametrize("suite", SUITES, ids=name_of)
    def test_methods(self, suite):
        base = next(kind for kind in suite.__mro__ if kind in METHODS)
        assert methods_of(suite) == METHODS[base]

    @pytest.mark.parametrize("suite", SUITES, ids=name_of)
    def test_tracked_values_have_a_unit(self, suite):
        tracked = [m for m in methods_of(suite) if m.startswith("track_")]
        assert tracked
        assert all(getattr(suite, m).unit for m in tracked)


CHOICES = [
    pytest.param(suite, impl, id=f"{suite.__name__}-{impl}")
    for suite in SUITES
    for impl in suite.impls
    if impl != suites.COMPILE  # test_compiled: seconds each
]
COMPILED = [
    pytest.param(suite, impl, id=f"{suite.__name__}-{impl}")
    for suite in registry.pairs("sparse")
    for impl in (*suite.impls, *suite.table_impls)
    if suites.COMPILE in impl
]


class TestRunning:
    """Every class and implementation once, on the smallest case."""

    @pytest.mark.parametrize(("suite", "impl"), CHOICES)
    def test_as_asv_does(self, suite, impl, monkeypatch):
        fast = partial(interleave.interleave, seconds=0.0, min_rounds=1, min_sample=1e-5)
        monkeypatch.setattr(suites, "interleave", fast)
        bench, case = suite(), suite.smallest()
        if issubclass(suite, (suites.MemorySuite, suites.StateSuite)) and not GLIBC:
            pytest.skip("resident memory is read on Linux")
        for method in methods_of(suite):
            try:
                bench.setup(impl, case)
            except NotImplementedError as missing:
                pytest.skip(str(missing))
            value = getattr(bench, method)(impl, case)
            if method.startswith("track_ratio"):
                assert value > 0
        assert torch.get_num_threads() == suite.threads

    def test_more_threads_are_timed_by_the_wall_clock(self):
        timed = [suite for suite in SUITES if issubclass(suite, suites.ForwardSuite)]
        clocks = {(suite.threads, suite().timer.__name__) for suite in timed}
        assert clocks == {(1, "thread_time"), (2, "perf_counter")}

    @pytest.mark.parametrize("suite", SUITES, ids=name_of)
    def test_setup_works_once(self, suite):
        # asv repeats it before every timed call
        if not issubclass(suite, suites.ForwardSuite):
            pytest.skip("nothing is timed")
        bench = suite()
        bench.setup("synops", suite.smallest())
        first = bench.call
        bench.setup("synops", suite.smallest())
        assert bench.call is first
        assert bench.number >= 1

    @pytest.mark.parametrize("kind", list(registry.pairs("sparse")), ids=name_of)
    def test_implementations_agree(self, kind):
        for mode in kind.modes:
            row = compare(kind, kind.smallest(), mode, seconds=0.0, min_sample=1e-5)
            assert row.errors.keys() == row.times.keys() == {*row.ratios, "synops"}
            assert max(row.errors.values()) < 1e-6, row
            assert row.baseline in row.times

    @pytest.mark.parametrize("kind", list(registry.pairs("hebbian")), ids=name_of)
    def test_updates_agree(self, kind):
        impls = {"synops", kind.baseline}
        row = compare(kind, kind.smallest(), "forward", impls=impls, seconds=0.0, min_sample=1e-5)
        assert row.errors.keys() == impls
        assert max(row.errors.values()) < 1e-5, row

    def test_implementations_of_tables_agree(self):
        (kind,) = (kind for kind in registry.pairs("sparse") if kind.table_impls)
        impls = {"synops", "torch", *kind.table_impls}  # masked_compile: test_compiled
        for mode in kind.modes:
            row = compare(kind, kind.smallest(), mode, impls=impls, seconds=0.0, min_sample=1e-5)
            assert row.errors.keys() == {"synops", "torch", "csr_linear"}
            assert max(row.errors.values()) < 1e-6, row

    def test_more_threads_are_beside_one(self):
        kind = next(registry.pairs("sparse"))
        row = compare(kind, kind.smallest(), "forward", 2, seconds=0.0, min_sample=1e-5)
        assert ONE_THREAD in row.ratios.keys() & row.times.keys() & row.errors.keys()
        assert row.best_other != ONE_THREAD
        assert torch.get_num_threads() == 2

    @pytest.mark.slow
    @pytest.mark.parametrize(("suite", "impl"), COMPILED)
    def test_compiled(self, suite, impl):
        size = suite.cases["128x1024x1024 d=.1"]
        call = suite().build(impl, size, torch.float32)
        exact = suite().build("torch", size, torch.float64)
        for mode in suite.modes:
            assert largest_error(call.results(mode), exact.results(mode)) < 1e-5

    def test_what_a_version_lacks_is_not_applicable(self):
        assert public("sparse.Pattern").__name__ == "Pattern"
        with pytest.raises(NotImplementedError, match=r"no sparse\.nothing"):
            public("sparse.nothing")

    def test_modules_import_as_in_asv(self):
        # as top-level `benchmarks`, without what the environments of asv do not have
        code = """
import importlib, pkgutil, sys
sys.modules["rich"] = None
import benchmarks
for found in pkgutil.walk_packages(benchmarks.__path__, "benchmarks."):
    importlib.import_module(found.name)
assert "benchmarks.sparse.sparse_linear" in sys.modules
assert "synops.benchmarks" not in sys.modules
"""
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        python("-c", code, PYTHONPATH=path)


class Clock:
    """A timer that moves only when something is called; ``slowdown`` is what other processes do."""

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def __call__(self):
        return self.now

    def function(self, name, cost):
        def run():
            self.calls.append(name)
            self.now += cost * (1 + len(self.calls) // 100)

        return run


class TestInterleave:
    def test_ratio_of_known_costs(self):
        def work(n):
            return lambda: sum(range(n))

        times = interleave.interleave(
            [work(10_000), work(40_000)], interleave.timer_for(1), seconds=0.5
        )
        assert interleave.ratio(*times) == pytest.approx(1 / 4, rel=0.15)

    def test_a_machine_that_gets_slower_does_not_move_the_ratio(self):
        clock = Clock()
        functions = [clock.function("a", 1e-3), clock.function("b", 2e-3)]
        first, second = interleave.interleave(functions, clock, seconds=0.0, min_rounds=40)
        assert first[-1] > 2 * first[0]
        assert interleave.ratio(first, second) == pytest.approx(1 / 2, rel=0.05)

    def test_samples_alternate_and_last(self):
        clock = Clock()
        functions = [clock.function("a", 1e-3), clock.function("b", 1.0)]
        interleave.interleave(functions, clock, seconds=0.0, min_rounds=3, min_sample=5e-3)
        turns = re.sub(r"(.)\1+", r"\1", "".join(clock.calls[-18:]))
        assert turns in ("abab", "baba", "ababa", "babab", "ab", "aba", "bab")
        assert clock.calls.count("a") >= 15

    def test_repeats_last_as_long_as_asked(self):
        clock = Clock()
        repeats = interleave.repeats_for(clock.function("a", 1e-3), clock, 5e-3)
        assert 5 <= repeats <= 12
        assert interleave.repeats_for(clock.function("a", 1.0), clock, 5e-3) == 1

    def test_threads_of_each_function(self):
        seen = []
        functions = [lambda i=i: seen.append((i, torch.get_num_threads())) for i in range(2)]
        timer = interleave.timer_for(2)
        interleave.interleave(functions, timer, seconds=0.0, min_sample=1e-6, threads=[2, 1])
        assert set(seen) == {(0, 2), (1, 1)}

    def test_clocks(self):
        assert interleave.timer_for(1).__name__ == "thread_time"
        assert interleave.timer_for(2).__name__ == "perf_counter"


class TestDisturbance:
    def test_only_quiet_rounds_count(self, monkeypatch):
        clock = Clock()
        waits = iter([0, 0, 0, 9, 9, 9, 9, 18])  # before and after each of four rounds
        monkeypatch.setattr(disturbance, "waited", lambda: next(waits))
        functions = [clock.function("a", 1e-3), clock.function("b", 2e-3)]
        noted = disturbance.Disturbance()
        first, second = interleave.interleave(
            functions,
            clock,
            seconds=0.0,
            min_rounds=4,
            min_sample=1e-4,
            disturbance=noted,
        )
        assert noted.quiet() == [0, 2]
        assert noted.best(2) == [0, 2]
        assert noted.share(2) <= disturbance.QUIET < noted.share(4)
        assert len(first) == len(second) == 4  # for fewer than asked are quiet

    def test_the_least_disturbed_where_none_is_quiet(self):
        noted = disturbance.Disturbance()
        noted.shares = [0.5, 0.1, 0.9, 0.3]
        assert noted.best(2) == [1, 3]
        assert noted.share(2) == 0.3

    @pytest.mark.parametrize(("patience", "rounds"), [(1e9, 22), (0.0, 2)])
    def test_it_goes_on_until_enough_are_quiet(self, monkeypatch, patience, rounds):
        shares = iter([1.0] * 20 + [0.0] * 2)
        noted = disturbance.Disturbance()
        monkeypatch.setattr(noted, "begin", lambda: None)
        monkeypatch.setattr(noted, "end", lambda: noted.shares.append(next(shares)))
        monkeypatch.setattr(interleave, "_PATIENCE", patience)
        clock = Clock()
        (times,) = interleave.interleave(
            [clock.function("a", 1e-3)], clock, seconds=1e-9, min_rounds=2, disturbance=noted
        )
        assert len(noted.shares) == rounds
        assert len(times) == 2

    def test_waiting_is_seen(self):
        noted = disturbance.disturbance_for(2)
        if noted is None:
            pytest.skip("the system does not tell")
        assert disturbance.disturbance_for(1) is None
        assert disturbance.disturbance_for(2, "cuda") is None
        threads = 2 * os.cpu_count()  # so that they cannot all run
        code = "import time; t = time.time()\nwhile time.time() < t + 0.4: pass"
        others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(threads)]
        noted.begin()
        while any(other.poll() is None for other in others):
            sum(range(1000))
        noted.end()
        assert noted.shares[0] > disturbance.QUIET


@pytest.mark.skipif(not GLIBC, reason="resident memory is read on Linux")
class TestMemory:
    def test_peak_growth_sees_what_is_freed_again(self):
        def allocate():
            torch.ones(32 * 2**20 // 4).sum()

        for _ in range(2):  # memory that the first call left behind does not hide the second
            assert memory.peak_growth(allocate) == pytest.approx(32 * 2**20, rel=0.1)
        assert memory.peak_growth(lambda: None) < 2**20

    @pytest.mark.parametrize(
        ("op", "impl", "method", "least", "most"),
        [
            # the dense weight is 67 MB; kept entries, indices and scratch memory are a few
            ("SparseLinearMemory", "synops", "track_allocated_forward", 0, 8),
            ("SparseLinearMemory", "synops", "track_allocated_forward_backward", 0, 8),
            ("SparseLinearMemory", "torch", "track_allocated_forward_backward", 64, 100),
            ("MaskedLinearMemory", "synops", "track_allocated_forward", 0, 8),
            ("MaskedLinearMemory", "torch", "track_allocated_forward", 64, 100),
        ],
    )
    def test_nothing_of_size_out_by_in(self, op, impl, method, least, most):
        (suite,) = (s for s in SUITES if s.__name__ == op)
        bench = suite()
        bench.setup(impl, suite.smallest())
        assert least <= getattr(bench, method)(impl, suite.smallest()) <= most

    @pytest.mark.parametrize("case", ["8x2048x2048 d=.2", "8x2048x2048 d=.01"])
    def test_training_keeps_so_much_for_each_edge(self, case):
        (suite,) = (s for s in SUITES if s.__name__ == "SparseTrainingState")
        found = {}
        for impl in suite.impls:
            bench = suite()
            bench.setup(impl, case)
            found[impl] = bench.track_bytes_per_entry(impl, case)
        density = suite.cases[case].density
        assert 28 < found["synops"] < 48
        assert found["torch"] > 28 / density


def test_largest_error_is_relative_to_the_scale_of_each_tensor():
    exact = (torch.tensor([0.0, 100.0]).double(), torch.tensor([0.5]).double())
    got = (torch.tensor([1.0, 100.0]), torch.tensor([0.5]))
    assert largest_error(got, exact) == pytest.approx(0.01)
    assert largest_error((torch.empty(0),), (torch.empty(0).double(),)) == 0.0
    assert largest_error((torch.ones(1),), (torch.zeros(1).double(),)) == 1.0


def test_formats():
    assert [format_time(t) for t in (2.0, 3.14159e-3, 2.5e-6)] == ["2 s", "3.14 ms", "2.5 us"]
    assert format_speedup(0.25) == "4x"


class TestAllocator:
    def test_asv_has_the_variables_of_the_commands(self):
        text = (ROOT / "asv.conf.json").read_text()
        config = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.M))
        assert config["matrix"]["env_nobuild"] == {k: [v] for k, v in _restart.WARM.items()}

    @pytest.mark.skipif(not GLIBC, reason="the variables are glibc's")
    def test_restarts_once_with_its_arguments(self):
        code = """
import sys
from synops._restart import allocator, with_warm_allocator
print(allocator(), sys.argv[1:])
with_warm_allocator()
print("ran on")
"""
        argv = "['a b', '--c']"
        printed = python("-c", code, "a b", "--c").splitlines()
        assert printed == [f"default {argv}", f"warm {argv}", "ran on"]


class TestCommand:
    def run(self, *arguments):
        parser = ArgumentParser()
        _bench.add_parser(parser.add_subparsers())
        args = parser.parse_args(["bench", *arguments])
        return args.run(args)

    def test_quick_json(self, tmp_path):
        file = tmp_path / "new" / "bench.json"
        table = python("-m", "synops", "bench", "sparse", "--quick", "--json", str(file))
        document = json.loads(file.read_text())
        rows = [Row(**row) for row in document["rows"]]
        assert {row.op for row in rows} == {kind.op for kind in registry.pairs("sparse")}
        assert all(row.op in table for row in rows)
        assert document["torch"] == torch.__version__
        assert document["allocator"] == ("warm" if GLIBC else "default")
        assert f"allocator: {document['allocator']}" in table
        assert {"date", "processor", "instruction set", "synops"} <= document.keys()

    def test_table_json(self, tmp_path):
        file = tmp_path / "goals.json"
        arguments = ("--table", "goals", "--case", r"^60x784x300 d=.1$", "--quick")
        table = python("-m", "synops", "bench", *arguments, "--json", str(file))
        document = json.loads(file.read_text())
        assert [Row(**row).key for row in document["rows"]] == [
            ("sparse.sparse_linear", "60x784x300 d=.1", mode, threads)
            for threads in (1, 2)
            for mode in ("forward", "forward_backward")
        ]
        assert [goal["goal"] for goal in document["goals"]] == [6.5, 7, 6.5, 7]
        for row, goal in zip(document["rows"], document["goals"], strict=True):
            assert goal["measured"] == pytest.approx(1 / row["ratios"]["torch"])
            assert f"{goal['measured']:.3g}x ({goal['goal']:.3g}x)" in table
        assert re.search(r"goals met: \d of 2 at 1 thread, \d of \d at 2 threads", table)

    def test_both_allocators(self, tmp_path, monkeypatch):
        kind = next(registry.pairs("sparse"))
        row = compare(kind, kind.smallest(), "forward", seconds=0.0, min_sample=1e-5)
        file = tmp_path / "bench.json"
        monkeypatch.setattr(_bench, "with_warm_allocator", lambda: None)
        monkeypatch.setattr(_bench, "allocator", lambda: "warm")
        monkeypatch.setattr(_bench, "_measure", lambda todo, args: [row])
        monkeypatch.setattr(_bench, "_default_rows", lambda args: [row.__dict__])
        assert self.run("--json", str(file)) == 0
        document = json.loads(file.read_text())
        assert document["rows"] == document["default_allocator_rows"]

    def test_unknown_family(self, capsys):
        assert self.run("sparce") == 2
        assert "family must be one of" in capsys.readouterr().err

    def test_unknown_table(self, capsys):
        assert self.run("--table", "goal") == 2
        assert "--table must be one of dynamic, entropy, goals, hebbian" in capsys.readouterr().err

    @pytest.mark.parametrize("regex", ["9x9", "("])
    def test_no_case(self, capsys, regex):
        assert self.run("--case", regex) == 2
        assert capsys.readouterr().err

    def test_no_threads(self, capsys):
        assert self.run("--threads", "0") == 2
        assert "at least 1" in capsys.readouterr().err

    def test_without_rich(self, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "rich", None)
        assert self.run() == 1
        assert "pip install synops[cli]" in capsys.readouterr().err


class TestPages:
    PAGE = """
<link rel="stylesheet" href="https://cdn.example/dist/css/bootstrap.min.css" integrity="sha256-x">
<script src="https://cdn.example/jquery-3.3.1.min.js" crossorigin="anon" onerror="f()"></script>
<script src="graphdisplay.js"></script>
<a href="https://example.org/">a link to follow</a>
"""

    def test_scripts_come_from_beside_the_page(self):
        page = publish.localize(self.PAGE)
        assert len(publish.remote(self.PAGE)) == 2
        assert publish.remote(page) == []
        assert 'href="vendor/bootstrap@3.1.1/dist/css/bootstrap.min.css">' in page
        assert 'src="vendor/jquery@3.3.1/dist/jquery.min.js" onerror="f()">' in page
        assert '<script src="graphdisplay.js">' in page
        assert "https://example.org/" in page

    def test_a_script_that_is_not_known(self):
        with pytest.raises(KeyError, match=r"new\.js"):
            publish.localize('<script src="https://cdn.example/new.js">')

    def test_the_page_of_asv(self):
        if importlib.util.find_spec("asv") is None:
            pytest.skip("asv is not installed")
        folder = Path(importlib.util.find_spec("asv").origin).parent / "www"
        assert publish.remote(publish.localize((folder / "index.html").read_text())) == []
