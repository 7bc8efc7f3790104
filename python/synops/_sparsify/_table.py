"""What sparsify_ did and why: a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

UNCHANGED = "unchanged"


class Row(NamedTuple):
    """One layer.

    Attributes:
        name: as in ``model.named_modules()``.
        shape: ``(out, in)``; None where the module does not say.
        density: kept fraction of the weight; None where it cannot be looked at.
        form: ``"sparse"``, ``"dense"`` (the mask multiplied in) or ``"unchanged"``.
        speedup: its time before over its time now; None where nothing was measured.
        reason: why this form.
        times: seconds a call of each form that was measured, the one it had first.
    """

    name: str
    shape: tuple[int, int] | None
    density: float | None
    form: str
    speedup: float | None
    reason: str
    times: dict[str, float]


@dataclass(frozen=True, repr=False)
class Table:
    """The rows of a conversion; prints as a table.

    Attributes:
        rows: one a layer, in the order of ``model.named_modules()``.
        conditions: what was measured, in words.
    """

    rows: tuple[Row, ...]
    conditions: str

    @property
    def speedup(self) -> float:
        """Of all layers that were measured, one call each; 1 if none was."""
        before = after = 0.0
        for row in self.rows:
            if row.times:
                held = next(iter(row.times.values()))
                before += held
                after += row.times.get(row.form, held)
        return before / after if after else 1.0

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Row:
        """The row of a layer, by its name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def __repr__(self) -> str:
        lines = [("layer", "out x in", "density", "form", "speed-up", "why")]
        for row in self.rows:
            lines.append(
                (
                    row.name,
                    "-" if row.shape is None else "{} x {}".format(*row.shape),
                    "-" if row.density is None else f"{row.density:.3g}",
                    row.form,
                    "-" if row.speedup is None else f"{row.speedup:.2f}x",
                    row.reason,
                )
            )
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        forms = [row.form for row in self.rows]
        counts = ", ".join(f"{forms.count(form)} {form}" for form in dict.fromkeys(forms))
        summary = f"{counts}; all that was measured: {self.speedup:.2f}x ({self.conditions})"
        return "\n".join([*table, summary])
