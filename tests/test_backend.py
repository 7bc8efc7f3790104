"""Choosing what runs: backend=, synops.backend, the environment, which, show_config."""

import os
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import synops
from machine import ISAS
from synops.sparse import Pattern, masked_linear, sparse_linear


@pytest.fixture
def call():
    """(function, input, values, pattern)."""
    pattern = Pattern.from_mask(torch.rand(6, 8) < 0.4)
    return sparse_linear, torch.randn(5, 8), torch.randn(pattern.nnz), pattern


def python(code, **environment):
    """Runs code in a fresh process; returns the finished process."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SYNOPS_", "TRITON_"))}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env | environment
    )


@pytest.fixture
def ran(monkeypatch):
    """The names of the references that were called."""
    from synops.sparse._sparse_linear import _op

    names = []
    inner = _op._reference

    def spy(*args):
        names.append("sparse_linear")
        return inner(*args)

    monkeypatch.setattr(_op, "_reference", spy)
    return names


class TestChoice:
    def test_keyword(self, call, ran):
        f, *args = call
        want = f(*args, backend="cpp")
        assert ran == []
        torch.testing.assert_close(f(*args, backend="reference"), want)
        assert ran == ["sparse_linear"]

    def test_context(self, call, ran):
        f, *args = call
        with synops.backend("reference"):
            f(*args)
            assert len(ran) == 1
            f(*args, backend="cpp")  # the call's own choice wins
            assert len(ran) == 1
            with synops.backend("auto"):
                f(*args)
                assert len(ran) == 1
            f(*args)
            assert len(ran) == 2
        f(*args)
        assert len(ran) == 2

    def test_a_mode_does_not_replace_it(self, call):
        f, *args = call
        with FlopCounterMode(display=False), pytest.raises(RuntimeError, match="cannot run here"):
            f(*args, backend="triton")

    @pytest.mark.parametrize("backend", ["auto", "cpp", "reference"])
    def test_a_mode_keeps_the_gradient(self, call, backend):
        f, x, values, pattern = call
        values.requires_grad_()
        with FlopCounterMode(display=False):
            got = f(x, values, pattern, backend=backend)
        (grad,) = torch.autograd.grad(got.sum(), values)
        (want,) = torch.autograd.grad(f(x, values, pattern).sum(), values)
        torch.testing.assert_close(grad, want)

    def test_context_ends_with_an_exception(self, call, ran):
        f, *args = call
        with pytest.raises(KeyError), synops.backend("reference"):
            raise KeyError
        f(*args)
        assert ran == []

    @pytest.mark.parametrize("grad", [False, True])
    @pytest.mark.parametrize("name", ["auto", "cpp", "reference"])
    def test_backward_takes_the_backend_of_the_forward(self, call, name, grad):
        f, x, values, pattern = call
        values = values.requires_grad_()
        x.requires_grad_(grad)
        with synops.backend(name):
            output = f(x, values, pattern)
        got = torch.autograd.grad(output.square().sum(), values)[0]
        want = torch.autograd.grad(f(x, values, pattern).square().sum(), values)[0]
        torch.testing.assert_close(got, want)

    def test_triton_on_the_cpu_is_refused(self, call):
        """Never replaced silently, with or without a gradient."""
        f, x, values, pattern = call
        for grad in (False, True):
            with pytest.raises(RuntimeError, match="backend 'triton' cannot run here"):
                f(x, values.requires_grad_(grad), pattern, backend="triton")

    def test_cpp_elsewhere_is_refused(self, call):
        f, x, values, pattern = call
        args = (x.to("meta"), values.to("meta"), pattern.to("meta"))
        with pytest.raises(RuntimeError, match=r"backend 'cpp' cannot run here.*CPU.*meta"):
            f(*args, backend="cpp")


class TestUnknown:
    MESSAGE = "backend: must be one of auto, cpp, triton, reference, got 'cuda'"

    def test_context(self):
        with pytest.raises(ValueError, match=self.MESSAGE), synops.backend("cuda"):
            pass

    def test_keyword(self, call):
        f, *args = call
        with pytest.raises(ValueError, match=self.MESSAGE):
            f(*args, backend="cuda")

    def test_which(self):
        with pytest.raises(ValueError, match=self.MESSAGE):
            synops.which("sparse_linear", backend="cuda")

    def test_environment(self):
        run = python("import synops", SYNOPS_BACKEND="cuda")
        assert run.returncode != 0
        assert self.MESSAGE in run.stderr

    def test_not_a_string(self, call):
        f, *args = call
        with pytest.raises((TypeError, ValueError), match="backend: must be one of"):
            f(*args, backend=["cpp"])


class TestCpuCapability:
    @pytest.mark.usefixtures("isa")
    def test_is_shown(self, isa):
        assert f"instruction set {isa}" in synops.show_config()
        assert isa in synops.which("sparse_linear").reason

    @pytest.mark.parametrize("name", ["AVX1024", "", "avx2", "NEON"])
    def test_unknown(self, name):
        with pytest.raises(ValueError, match=f"AVX512, AVX2 or DEFAULT.*got '{name}'"):
            synops.set_cpu_capability(name)
        assert ISAS[0] in synops.show_config()

    @pytest.mark.parametrize("name", ISAS)
    def test_environment(self, name):
        """And that of the backend, in the same process: none, or the reference."""
        backend = {"SYNOPS_BACKEND": "reference"} if name == ISAS[0] else {}
        code = "import synops; print(synops.show_config(), synops.which('sparse_linear').backend)"
        run = python(code, SYNOPS_CPU_CAPABILITY=name, **backend)
        assert f"instruction set {name}" in run.stdout
        assert run.stdout.split()[-1] == ("reference" if backend else "cpp")

    def test_unknown_in_the_environment(self):
        """A misspelt request must not run something else without a word."""
        run = python("import synops; print(synops.show_config())", SYNOPS_CPU_CAPABILITY="AVX3")
        assert "AVX3" in run.stderr


class TestWhich:
    def test_answer(self, call):
        f, *args = call
        answer = synops.which(f, *args)
        assert (answer.op, answer.backend) == ("sparse_linear", "cpp")
        assert ISAS[0] in answer.reason
        assert f"{torch.get_num_threads()} threads" in answer.reason

    def test_names_and_functions(self):
        assert synops.which("sparse_linear") == synops.which(sparse_linear)

    @pytest.mark.parametrize("name", ["auto", "reference"])
    def test_context(self, call, name):
        f, *args = call
        with synops.backend(name):
            assert synops.which(f, *args).backend == {"auto": "cpp"}.get(name, name)

    def test_unknown_op(self):
        with pytest.raises(KeyError, match="no op called 'sparse_lienar'"):
            synops.which("sparse_lienar")

    def test_another_device(self):
        answer = synops.which(sparse_linear, torch.ones(1, 8, device="meta"))
        assert answer.backend == "reference"
        assert "meta" in answer.reason

    def test_refusals(self):
        x = torch.ones(1, 8)
        with pytest.raises(RuntimeError, match="needs a GPU, or TRITON_INTERPRET=1"):
            synops.which(sparse_linear, x, backend="triton")
        with pytest.raises(RuntimeError, match="must be on the CPU, got meta"):
            synops.which(sparse_linear, x.to("meta"), backend="cpp")

    @pytest.mark.parametrize("topology", [lambda mask: mask, Pattern.from_mask])
    @pytest.mark.parametrize(
        ("kept", "backend"), [(59, "cpp"), (60, "cpp"), (61, "dense"), (100, "dense")]
    )
    def test_dense_route(self, kept, backend, topology):
        """The break-even density .6 itself is sparse."""
        mask = (torch.arange(100) < kept).view(10, 10)
        args = (torch.randn(4, 10), torch.randn(10, 10), topology(mask))
        answer = synops.which(masked_linear, *args)
        assert answer.backend == backend
        assert f"density {kept / 100:.3g}" in answer.reason
        by_keyword = synops.which(masked_linear, args[0], weight=args[1], mask=args[2])
        assert by_keyword == answer

    def test_dense_route_is_for_auto_only(self):
        args = (torch.randn(4, 10), torch.randn(10, 10), torch.ones(10, 10, dtype=torch.bool))
        assert synops.which(masked_linear, *args, backend="cpp").backend == "cpp"
        assert synops.which(masked_linear, *args, backend="reference").backend == "reference"
        assert synops.which(masked_linear, *(a.to("meta") for a in args)).backend == "reference"

    def test_dense_route_is_what_runs(self):
        """Counts the products that torch does in a call."""
        mask = torch.ones(10, 10, dtype=torch.bool)
        for backend, expected in (("auto", True), ("cpp", False)):
            with torch.no_grad(), torch.profiler.profile() as profile:
                masked_linear(torch.randn(4, 10), torch.randn(10, 10), mask, backend=backend)
            assert any("aten::linear" in e.name for e in profile.events()) is expected

    def test_sparse_linear_says_when_dense_is_faster(self):
        """DESIGN 3: above the break-even density it is slower than dense, and which says so."""
        pattern = Pattern.from_mask(torch.ones(10, 10, dtype=torch.bool))
        answer = synops.which(sparse_linear, torch.randn(4, 10), torch.randn(100), pattern)
        assert answer.backend == "cpp"
        assert "dense" in answer.reason


def test_show_config():
    text = synops.show_config()
    for part in (
        synops.__version__,
        torch.__version__,
        "instruction set",
        "threads",
        "C++ part",
        "autograd        C++ node",
        "cpu",
    ):
        assert part in text
