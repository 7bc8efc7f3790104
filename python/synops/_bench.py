"""``python -m synops bench``: today's best against synops, side by side on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import json
import os
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
    parser.add_argument(
        "--table",
        action="append",
        default=[],
        metavar="NAME",
        help="measure a table of benchmarks/tables against its goals: entropy, goals (of sparse), "
        "hebbian, peers, spiking (repeatable)",
    )
    parser.add_argument("--case", metavar="REGEX", help="only cases that it is found in")
    parser.add_argument(
        "--threads", type=int, nargs="+", metavar="N", help="default: 1; of a table: 1 2"
    )
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--quick", action="store_true", help="few samples; two cases an op")
    parser.add_argument(
        "--allocator",
        choices=("both", "warm", "default"),
        help="glibc's allocator kept warm, as it is by default, or both, one after the other "
        "(default: both; with --quick, of a table or on another device: warm)",
    )
    parser.set_defaults(run=run)


class Task(NamedTuple):
    """A row to measure."""

    kind: Any  # a class of the benchmarks
    case: str
    mode: str
    threads: int
    cell: Any = None  # of a table, with the goals for the row


def tasks(args: argparse.Namespace) -> list[Task]:
    """Every row that was asked for, of the suites or of tables.

    Raises:
        ValueError: no such family, table or case, or a number of threads below 1.
    """
    families, threads = args.family, args.threads or ([1, 2] if args.table else [1])
    registry = importlib.import_module("synops.benchmarks.common.registry")
    known = registry.families()
    for family in families:
        if family not in known:
            raise ValueError(f"bench: family must be one of {', '.join(known)}, got {family!r}")
    if min(threads) < 1:
        raise ValueError(f"bench: --threads must be at least 1, got {min(threads)}")
    if args.table:
        found = _of_tables(args.table, families or known, threads)
    else:
        found = _of_suites(families or known, threads, args.quick)
    todo = [task for task in found if re.search(args.case or "", task.case)]
    if not todo:
        raise ValueError(f"bench: no case of these has a name with {args.case or ''!r} in it")
    return todo


def _of_suites(families: list[str], threads: list[int], quick: bool) -> Iterator[Task]:
    registry = importlib.import_module("synops.benchmarks.common.registry")
    for count in threads:
        for family in families:
            for kind in registry.pairs(family):
                ends = [next(iter(kind.cases)), kind.smallest()]
                for case in dict.fromkeys(ends) if quick else kind.cases:
                    for mode in kind.modes:
                        yield Task(kind, case, mode, count)


def _of_tables(names: list[str], families: list[str], threads: list[int]) -> Iterator[Task]:
    tables = importlib.import_module("synops.benchmarks.common.tables")
    for cell in tables.cells(names, threads):
        if cell.kind.op.split(".")[0] in families:
            yield Task(cell.kind, cell.case, cell.mode, cell.threads, cell)


def run(args: argparse.Namespace) -> int:
    """The command; the exit status."""
    if importlib.util.find_spec("rich") is None:
        print("bench needs the package rich: pip install synops[cli]", file=sys.stderr)
        return 1
    alone = args.quick or args.table or args.device != "cpu"
    which = args.allocator or ("warm" if alone else "both")
    try:
        todo = tasks(args)
    except (ValueError, re.error) as error:
        print(error, file=sys.stderr)
        return 2
    if which != "default":
        with_warm_allocator()
    compare = importlib.import_module("synops.benchmarks.common.compare")
    load = os.getloadavg()[0]
    rows = _measure(todo, args)
    document: dict[str, Any] = {
        **machine(args.device),
        "load": [load, os.getloadavg()[0]],  # before and after
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    if args.table:
        document["goals"] = _goals(todo, rows)
    beside = []
    if which == "both" and document["allocator"] == "warm":
        document["default_allocator_rows"] = _default_rows(args)
        beside = [compare.Row(**row) for row in document["default_allocator_rows"]]
    _print(document, rows, beside)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


def _goals(todo: list[Task], rows: list[Any]) -> list[dict[str, Any]]:
    tables = importlib.import_module("synops.benchmarks.common.tables")
    return [
        outcome._asdict()
        for task, row in zip(todo, rows, strict=True)
        for outcome in tables.outcomes(task.cell, row)
    ]


def _print(document: dict[str, Any], rows: list[Any], beside: list[Any]) -> None:
    if "goals" in document:
        report = importlib.import_module("synops.benchmarks.common.table_report")
        tables = importlib.import_module("synops.benchmarks.common.tables")
        goals = [tables.Outcome(**goal) for goal in document["goals"]]
        report.print_tables(rows, goals, document["allocator"])
    else:
        report = importlib.import_module("synops.benchmarks.common.report")
        report.print_table(rows, beside, document["allocator"])


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on."""
    native = _backend._C
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
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
            compare(*task[:4], args.device, impls=task.cell and task.cell.impls, **effort)
            for task in track(todo, label, console=Console(stderr=True))
        ]
    finally:
        torch.set_num_threads(threads)


def _default_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The same rows from a process under the default allocator."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.json")
        command = [sys.executable, "-m", "synops", "bench", *args.family, "--allocator", "default"]
        command += ["--json", str(file), *(f"--table={name}" for name in args.table)]
        command += ["--case", args.case] if args.case else []
        command += ["--threads", *map(str, args.threads)] if args.threads else []
        command += ["--device", args.device, *(["--quick"] if args.quick else [])]
        subprocess.run(command, check=True, env=default_environment(), stdout=subprocess.DEVNULL)
        return json.loads(file.read_text())["rows"]
