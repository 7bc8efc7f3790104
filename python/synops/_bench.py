"""``python -m synops bench``: today's best against synops, side by side on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import json
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import torch

from . import __version__, _backend
from ._restart import allocator, default_environment, with_warm_allocator

DESCRIPTION = """\
Times synops against the best form that torch has today, in turns in one process, and checks both
against float64. CPU time at 1 thread, wall time at more; medians."""


def add_parser(subparsers: Any) -> None:
    """Adds ``bench`` to the command line."""
    parser = subparsers.add_parser(
        "bench", help="today's best against synops on this machine", description=DESCRIPTION
    )
    parser.add_argument("family", nargs="*", help="sparse, ... (default: all)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], metavar="N")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--quick", action="store_true", help="two cases an op, few samples")
    parser.add_argument(
        "--allocator",
        choices=("both", "warm", "default"),
        help="glibc's allocator kept warm, as it is by default, or both, one after the other "
        "(default: both; with --quick or on another device: warm)",
    )
    parser.set_defaults(run=run)


class Task(NamedTuple):
    """A row to measure."""

    kind: Any  # a class of the benchmarks
    case: str
    mode: str
    threads: int


def tasks(families: list[str], threads: list[int], quick: bool) -> Iterator[Task]:
    """Every row that was asked for.

    Raises:
        ValueError: no such family, or a number of threads below 1.
    """
    registry = importlib.import_module("synops.benchmarks.common.registry")
    known = registry.families()
    for family in families:
        if family not in known:
            raise ValueError(f"bench: family must be one of {', '.join(known)}, got {family!r}")
    if min(threads) < 1:
        raise ValueError(f"bench: --threads must be at least 1, got {min(threads)}")
    for count in threads:
        for family in families or known:
            for kind in registry.pairs(family):
                ends = [next(iter(kind.cases)), kind.smallest()]
                for case in dict.fromkeys(ends) if quick else kind.cases:
                    for mode in kind.modes:
                        yield Task(kind, case, mode, count)


def run(args: argparse.Namespace) -> int:
    """The command; the exit status."""
    if importlib.util.find_spec("rich") is None:
        print("bench needs the package rich: pip install synops[cli]", file=sys.stderr)
        return 1
    which = args.allocator or ("warm" if args.quick or args.device != "cpu" else "both")
    try:
        todo = list(tasks(args.family, args.threads, args.quick))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if which != "default":
        with_warm_allocator()
    compare = importlib.import_module("synops.benchmarks.common.compare")
    rows = _measure(todo, args)
    document = {**machine(args.device), "rows": [dataclasses.asdict(row) for row in rows]}
    beside = []
    if which == "both" and document["allocator"] == "warm":
        document["default_allocator_rows"] = _default_rows(args)
        beside = [compare.Row(**row) for row in document["default_allocator_rows"]]
    report = importlib.import_module("synops.benchmarks.common.report")
    report.print_table(rows, beside, document["allocator"])
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on."""
    native = _backend._C
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": "cpu" if device == "cpu" else torch.cuda.get_device_name(device),
        "instruction set": native.cpu_capability() if native else None,
        "allocator": allocator(),
        "synops": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)$", info.read_text(), re.M) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _measure(todo: list[Task], args: argparse.Namespace) -> list[Any]:
    from rich.console import Console
    from rich.progress import track

    compare = importlib.import_module("synops.benchmarks.common.compare").compare
    effort = {"seconds": 0.2, "min_sample": 1e-3} if args.quick else {}
    threads = torch.get_num_threads()
    label = f"bench, {allocator()} allocator"
    try:
        return [
            compare(*task, args.device, **effort)
            for task in track(todo, label, console=Console(stderr=True))
        ]
    finally:
        torch.set_num_threads(threads)


def _default_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The same rows from a process under the default allocator."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.json")
        command = [sys.executable, "-m", "synops", "bench", *args.family, "--allocator", "default"]
        command += ["--json", str(file), "--threads", *map(str, args.threads)]
        command += ["--device", args.device, *(["--quick"] if args.quick else [])]
        subprocess.run(command, check=True, env=default_environment(), stdout=subprocess.DEVNULL)
        return json.loads(file.read_text())["rows"]
