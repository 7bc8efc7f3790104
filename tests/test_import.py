"""Who imports whom, what ``import synops`` costs, and what is left without the C++ part."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from synops._schema import TABLE

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "synops"
FAMILIES = set(TABLE)


def sources(folder):
    """Every .py below a folder, without following the link to kernels/."""
    return [
        p
        for p in sorted(folder.rglob("*.py"))
        if folder == ROOT / "kernels" or "kernels" not in p.parts
    ]


def imports(path):
    """Absolute names of what a file imports, at any depth: "synops.sparse._pattern.Pattern", ..."""
    inside = path.resolve().relative_to(ROOT)
    if inside.parts[0] == "python":
        inside = inside.relative_to("python")
    elif inside.parts[0] == "kernels":
        inside = Path("synops") / inside
    package = inside.with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def offences(files, allowed):
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports(path)
        if not allowed(path, name)
    ]


def under(name, *packages):
    return any(name == p or name.startswith(p + ".") for p in packages)


def test_the_reader_of_imports():
    """The other tests here are as good as this function."""
    found = set(imports(PACKAGE / "sparse" / "_sparse_linear.py"))
    assert {
        "torch.Tensor",
        "synops.sparse._pattern.Pattern",
        "synops._bilinear.BilinearOp",
    } <= found
    assert len(sources(PACKAGE)) > 15
    assert len(sources(PACKAGE / "_reference")) > 4


def test_triton_is_imported_in_kernels_only():
    files = sources(PACKAGE) + sources(ROOT / "benchmarks")
    assert offences(files, lambda _, name: not under(name, "triton")) == []


def test_kernels_import_triton_torch_and_themselves():
    """And the reference, for what a launcher leaves to it."""
    allowed = ("torch", "triton", "synops.kernels", "synops._reference", *sys.stdlib_module_names)
    files = sources(ROOT / "kernels")
    assert files, "kernels/ has no Python files yet"
    assert offences(files, lambda _, name: under(name, *allowed)) == []


def test_references_import_torch_and_themselves():
    allowed = ("torch", "synops._reference", *sys.stdlib_module_names)
    files = sources(PACKAGE / "_reference")
    assert offences(files, lambda _, name: under(name, *allowed)) == []


def test_families_use_each_other_through_the_public_api():
    def allowed(path, name):
        parts = name.split(".")
        family = path.relative_to(PACKAGE).parts[0]
        if parts[0] != "synops" or len(parts) < 2 or parts[1] not in FAMILIES - {family}:
            return True
        return not any(part.startswith("_") for part in parts[2:])

    files = [p for f in FAMILIES | {"nn"} for p in sources(PACKAGE / f)]
    assert offences(files, allowed) == []


def test_references_are_families_of_their_own():
    def allowed(path, name):
        family = path.relative_to(PACKAGE / "_reference").parts[0]
        return not under(name, *(f"synops._reference.{f}" for f in FAMILIES - {family}))

    assert offences(sources(PACKAGE / "_reference"), allowed) == []


def test_benchmarks_use_the_public_api():
    """They must import under old and new commits alike."""

    def allowed(_, name):
        return not (under(name, "synops") and any(p.startswith("_") for p in name.split(".")))

    files = sources(ROOT / "benchmarks")
    assert files, "benchmarks/ has no Python files yet"
    assert offences(files, allowed) == []


def python(code, **environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith("SYNOPS_")} | environment
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)


HEAVY = ("triton", "rich", "matplotlib", "pandas", "torch._dynamo", "transformers")


def test_import_leaves_out():
    """Before: torch may bring in some of them itself."""
    seen = f"print(*sorted(set({HEAVY}) & sys.modules.keys()), sep=',')"
    before, after = python(f"import sys, torch; {seen}; import synops; {seen}").stdout.split("\n")[
        :2
    ]
    assert after == before


def test_import_is_quick():
    """Below 0.3 s beside torch, in one of 3 processes (2 s each).

    Without the collector: it looks through all of torch's objects now and then (0.18 s), and that
    this falls into one import or another says nothing about it.
    """
    code = (
        "import gc, time, torch; gc.disable(); t = time.process_time(); import synops;"
        " print(time.process_time() - t)"
    )
    assert any(float(python(code).stdout) < 0.3 for _ in range(3))


BROKEN = {
    # no module of that name is found
    "missing": (
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'synops._C': raise ModuleNotFoundError(f'No module named {name!r}')\n"
    ),
    # as the dynamic loader puts it when torch is another
    "broken": (
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'synops._C': raise ImportError('undefined symbol: aoti_torch_x')\n"
    ),
}
USE = """
import sys
sys.meta_path.insert(0, Block())
import torch, synops
from synops.sparse import Pattern, masked_linear, sparse_linear
"""


# In one process, which takes 3 s to import: what is said, what raises, what computes.
WITHOUT = """
print(synops.which("sparse_linear"))
print(synops.show_config())
def message(f):
    try:
        f()
    except RuntimeError as error:
        return str(error)
pattern = Pattern.from_mask(torch.eye(3, dtype=torch.bool))
args = torch.ones(2, 3), torch.ones(3), pattern
grad = torch.ones(2, 3), torch.ones(3, requires_grad=True), pattern
print("asked for:")
print(message(lambda: sparse_linear(*args, backend="cpp")))
print(message(lambda: sparse_linear(*grad, backend="cpp")))
print(message(lambda: synops.which("sparse_linear", backend="cpp")))
print(message(lambda: synops.set_cpu_capability("AVX2")))

mask = torch.rand(9, 12) < .4
pattern = Pattern.from_mask(mask)
x = torch.randn(5, 12, requires_grad=True)
weight = torch.randn(9, 12, requires_grad=True)
bias = torch.randn(9)
want = torch.nn.functional.linear(x, weight * mask, bias)
grads = torch.autograd.grad(want.square().sum(), (x, weight))
for output in (
    sparse_linear(x, pattern.gather(weight), pattern, bias),
    masked_linear(x, weight, mask, bias),
    masked_linear(x, weight, pattern, bias),
):
    torch.testing.assert_close(output, want)
    got = torch.autograd.grad(output.square().sum(), (x, weight))
    torch.testing.assert_close(got, grads)
with torch.no_grad():
    torch.testing.assert_close(masked_linear(x, weight, mask, bias), want)
assert torch.equal(pattern.mask(), mask)
"""


@pytest.mark.parametrize("block", BROKEN.values(), ids=BROKEN)
def test_without_cpp(block):
    """The reference computes; what to do is said, and that asking for C++ cannot be met."""
    done = python(block + USE + WITHOUT)
    assert done.returncode == 0, done.stderr
    said, asked = done.stdout.split("asked for:\n")
    hint = "pip install --no-build-isolation ."
    assert said.count(hint) == 2
    assert "backend='reference'" in said
    lines = asked.splitlines()
    assert len(lines) == 4
    assert all(hint in line for line in lines)


def test_family_modules_are_public():
    """Every public name of a family is in its __all__ and importable."""
    import importlib

    for family in FAMILIES:
        module = importlib.import_module(f"synops.{family}")
        for name in module.__all__:
            assert getattr(module, name).__doc__, f"{family}.{name} has no docstring"
