"""sdist, wheel and editable install hold the whole package and work from any directory."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROBE = """
import pathlib, sys, torch, synops
from synops import sparse
import synops._backend as b
assert b.native_error is None, b.native_error
assert synops._node.error is None, synops._node.error
x = torch.randn(6, 5)
pattern = sparse.Pattern.from_mask(torch.rand(4, 5) < .5)
values = torch.randn(pattern.nnz)
want = torch.nn.functional.linear(x, pattern.scatter(values))
torch.testing.assert_close(sparse.sparse_linear(x, values, pattern), want)
print(pathlib.Path(synops.__file__).parent)
"""
# Stands in for the compiler: notes what it is told, compiles the sources in $REAL, makes the
# modules those of this checkout, and leaves everything else empty.
COMPILER = """#!/bin/sh
out= source= shared=
previous=
for argument; do
    case $previous in -o) out=$argument ;; esac
    case $argument in *.cpp) source=$argument ;; -shared) shared=1 ;; esac
    previous=$argument
done
if [ -n "$shared" ]; then
    echo "link $*" >> "$PLAN"
    cp "$BUILT/$(basename "$out")" "$out"
elif [ -n "$source" ] && [ -n "$out" ]; then
    echo "compile $*" >> "$PLAN"
    case " $REAL " in *" $(basename "$source") "*) exec c++ "$@" ;; esac
    : > "$out"
else
    exec c++ "$@"
fi
"""
# An op and a kernel: with the stable ABI's macro, and with at::vec.
REAL = ("magnitude_threshold.cpp", "magnitude_threshold_DEFAULT.cpp")


def run(*command, cwd, **environment):
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env=environment or None, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def tracked(*folders):
    return run("git", "ls-files", *folders, cwd=ROOT).splitlines()


def test_from_the_directory_above(tmp_path):
    """A folder called synops in the working directory must not shadow the package."""
    (tmp_path / "synops").symlink_to(ROOT)
    where = run(sys.executable, "-c", PROBE, cwd=tmp_path)
    assert Path(where).resolve() == (ROOT / "python" / "synops").resolve()


def unpacked(folder):
    """The sdist of this checkout."""
    run(sys.executable, "setup.py", "-q", "sdist", "-d", folder, cwd=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def check_wheel(source, folder, **environment):
    """The wheel of a source holds the package, and works where it is installed."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    command = [*pip, "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", folder, "."]
    run(*command, cwd=source, **{**os.environ, **environment})
    (wheel,) = folder.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in tracked("kernels", "python/synops"):
        if path.endswith((".py", ".typed")):
            inside = path.removeprefix("python/")
            inside = f"synops/{inside}" if inside.startswith("kernels/") else inside
            assert inside in names, f"{path} is missing in the wheel"
    target = folder / "site"
    run(*pip, "install", "-q", "--no-deps", "--target", target, wheel, cwd=folder)
    where = run(sys.executable, "-c", PROBE, cwd=folder, PYTHONPATH=str(target), PATH="/usr/bin")
    assert Path(where) == target / "synops"


@pytest.mark.slow
def test_sdist_makes_a_whole_wheel(tmp_path):
    """The sources that this checkout was built from, byte for byte, and a command for each.

    So compiling them gives what the build here gave, and the modules of the checkout may stand for
    it: that takes 20 s instead of 150 (make full).
    """
    source = unpacked(tmp_path)
    csrc = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    for path in (*csrc, *(ROOT / name for name in ("setup.py", "pyproject.toml", "MANIFEST.in"))):
        inside = source / path.relative_to(ROOT)
        assert inside.exists(), f"{inside} is missing in the sdist"
        assert inside.read_bytes() == path.read_bytes(), inside
    compiler, plan = tmp_path / "c++", tmp_path / "plan"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    built = {"BUILT": str(ROOT / "python" / "synops"), "PLAN": str(plan), "REAL": " ".join(REAL)}
    built["CCACHE_DISABLE"] = "1"  # torch compiles through it where it is, three times a file here
    check_wheel(source, tmp_path, CXX=str(compiler), CC=str(compiler), **built)
    lines = plan.read_text().splitlines()
    stems = sorted(
        re.search(r"(\w+)\.cpp\b", line)[1] for line in lines if line.startswith("compile")
    )
    ops = [path.stem for path in csrc if path.suffix == ".cpp" and "sanitize" not in path.parts]
    kernels = [path.stem for path in csrc if path.suffix == ".inc"]
    sets = {stem.rpartition("_")[2] for stem in stems if stem.rpartition("_")[2].isupper()}
    assert "DEFAULT" in sets
    assert stems == sorted([*ops, *(f"{kernel}_{isa}" for kernel in kernels for isa in sets)])
    assert {f"{stem}.cpp" for stem in stems} > set(REAL)
    linked = [line for line in lines if line.startswith("link")]
    assert len(linked) == 2
    for stem in stems:
        assert any(f"/{stem}.o " in f"{line} " for line in linked), f"{stem} is not linked"


@pytest.mark.full
def test_sdist_compiles(tmp_path):
    check_wheel(unpacked(tmp_path), tmp_path)
