"""Tables: what is measured together, and what it should come to. The data is tables/<name>.json.

A line of a table has

- ``op`` (default sparse.sparse_linear);
- ``cases``: names of the op's cases, each with a goal; or ``shape`` and ``structure`` (default
  none), which with a density name a case, and ``goals`` by density;
- ``mode``: forward or forward_backward;
- ``against``: another implementation; ``synops_1_thread``, which is synops itself on one thread; or
  ``seconds``, the time of synops by itself;
- ``threads``: those it is about (default: all that are measured).

A goal is how many times faster than ``against`` synops should be (or the most seconds); null where
there is none. ``shape``, ``structure``, ``mode`` and ``against`` may be lists: every combination.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from .compare import ONE_THREAD, Row
from .registry import families, pairs
from .sizes import case_name
from .suite import SYNOPS, ForwardSuite

_FOLDER = Path(__file__).parents[1] / "tables"
SECONDS = "seconds"


@dataclass
class Cell:
    """One row to measure, and the goals for it by what they are against."""

    kind: type[ForwardSuite]
    case: str
    mode: str
    threads: int
    goals: dict[str, float | None] = field(default_factory=dict)

    @property
    def impls(self) -> tuple[str, ...]:
        """What it takes to measure: synops, the baseline, and what goals are against."""
        others = (name for name in self.goals if name not in (SECONDS, ONE_THREAD))
        return tuple(dict.fromkeys((SYNOPS, self.kind.baseline, *others)))


class Outcome(NamedTuple):
    """A goal beside what was measured: times faster, or seconds where ``against`` is seconds.

    ``goal`` is None where there is none, ``measured`` where ``against`` could not run. A
    row that is ``disturbed`` says nothing about a goal.
    """

    op: str
    case: str
    mode: str
    threads: int
    against: str
    goal: float | None
    measured: float | None
    disturbed: bool = False

    @property
    def met(self) -> bool:
        """Whether there is a goal and it is reached, as far as can be told."""
        if self.goal is None or self.measured is None or self.disturbed:
            return False
        return self.measured <= self.goal if self.against == SECONDS else self.measured >= self.goal


def names() -> list[str]:
    """The tables that there are."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def cells(tables: Sequence[str], threads: Sequence[int]) -> list[Cell]:
    """The cells of the tables, each once, those of a case one after the other.

    Raises:
        ValueError: no such table.
    """
    kinds = {kind.op: kind for family in families() for kind in pairs(family)}
    found: dict[tuple[str, str], dict[tuple[int, str], Cell]] = {}
    for name in tables:
        if name not in names():
            raise ValueError(f"bench: --table must be one of {', '.join(names())}, got {name!r}")
        for line in json.loads((_FOLDER / f"{name}.json").read_text())["lines"]:
            kind = kinds[line.get("op", "sparse.sparse_linear")]
            counts = [n for n in threads if n in line.get("threads", threads)]
            for case, mode, against, goal in _combinations(line):
                for count in counts:
                    of_case = found.setdefault((kind.op, case), {})
                    cell = of_case.setdefault((count, mode), Cell(kind, case, mode, count))
                    if cell.goals.get(against) is None:
                        cell.goals[against] = goal
    return [cell for of_case in found.values() for _, cell in sorted(of_case.items())]


def _combinations(line: dict[str, Any]) -> Iterator[tuple[str, str, str, float | None]]:
    """case, mode, against, goal."""

    def listed(name: str) -> list[str]:
        value = line.get(name, "unstructured")
        return value if isinstance(value, list) else [value]

    goals = line.get("cases") or {
        case_name(shape, density, structure): goal
        for shape, structure in product(listed("shape"), listed("structure"))
        for density, goal in line["goals"].items()
    }
    for (case, goal), mode, against in product(goals.items(), listed("mode"), listed("against")):
        yield case, mode, against, goal


def outcomes(cell: Cell, row: Row) -> list[Outcome]:
    """The goals of a cell beside the row that was measured for it."""
    measured = {name: 1 / value for name, value in row.ratios.items()}
    measured[SECONDS] = row.times[SYNOPS]
    return [
        Outcome(*row.key, against, goal, measured.get(against), row.disturbed)
        for against, goal in cell.goals.items()
    ]
