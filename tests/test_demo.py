"""The command line: demo, info, and what it says to wrong arguments."""

import importlib.util
import os
import re
import struct
import subprocess
import sys

import pytest

from synops._demo import PACKAGES

needs_packages = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in PACKAGES),
    reason='the demo needs more packages: pip install "synops[demo]"',
)


def synops(*arguments, **environment):
    """``python -m synops``, and how it ended."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "synops", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=300,
    )


def png_size(file):
    """Width and height in pixels."""
    head = file.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n")
    return struct.unpack(">II", head[16:24])


@needs_packages
def test_demo_prints_its_tables_and_saves_its_plot(tmp_path):
    done = synops("demo", "sparse", "--quick", "--out", tmp_path / "plots")
    assert done.returncode == 0, done.stderr
    for heading in ("system", "today", "synops", "speed-up", "error", "ticket", "re-init"):
        assert heading in done.stdout
    verdicts = [line for line in done.stdout.splitlines() if line.startswith(("holds", "does not"))]
    assert len(verdicts) == 3
    plot = tmp_path / "plots" / "lottery_ticket.png"
    assert f"plot: {plot}" in done.stdout
    width, height = png_size(plot)
    assert width > 1000
    assert height > 400
    assert plot.stat().st_size > 30_000  # an empty figure has 5000


def test_info_prints_the_instruction_set():
    done = synops("info")
    assert done.returncode == 0, done.stderr
    assert "instruction set" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["demo", "sparce"], "must be one of sparse"),
        (["dema"], "invalid choice"),
        ([], "required"),
    ],
)
def test_wrong_arguments_exit_with_2(arguments, says):
    done = synops(*arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_missing_packages_are_named(tmp_path):
    """With a finder that does not find rich."""
    hide = tmp_path / "sitecustomize.py"
    hide.write_text(
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'rich' else find(name, *a)\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = synops("demo", "--quick", "--out", tmp_path, PYTHONPATH=path)
    assert done.returncode == 1
    assert re.search(r'demo needs rich.*: pip install "synops\[demo\]"', done.stderr)
