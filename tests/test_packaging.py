"""sdist, wheel and editable install hold the whole package and work from any directory."""

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


def run(*command, cwd, **environment):
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env=environment or None, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def test_from_the_directory_above(tmp_path):
    """A folder called synops in the working directory must not shadow the package."""
    (tmp_path / "synops").symlink_to(ROOT)
    where = run(sys.executable, "-c", PROBE, cwd=tmp_path)
    assert Path(where).resolve() == (ROOT / "python" / "synops").resolve()


@pytest.mark.slow
def test_sdist_makes_a_whole_wheel(tmp_path):
    dist = tmp_path / "dist"
    run(sys.executable, "setup.py", "-q", "sdist", "-d", dist, cwd=ROOT)
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    source = tmp_path / archive.name.removesuffix(".tar.gz")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", dist, ".", cwd=source)
    (wheel,) = dist.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = run("git", "ls-files", "kernels", "python/synops", cwd=ROOT).splitlines()
    for path in tracked:
        if path.endswith((".py", ".typed")):
            inside = path.removeprefix("python/")
            inside = f"synops/{inside}" if inside.startswith("kernels/") else inside
            assert inside in names, f"{path} is missing in the wheel"
    target = tmp_path / "site"
    run(*pip, "install", "-q", "--no-deps", "--target", target, wheel, cwd=tmp_path)
    where = run(sys.executable, "-c", PROBE, cwd=tmp_path, PYTHONPATH=str(target), PATH="/usr/bin")
    assert Path(where) == target / "synops"
