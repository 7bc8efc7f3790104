"""The tables of the benchmarks, what their goals come to, and the masks that their cases have."""

import dataclasses

import pytest
import torch

from synops.benchmarks.common import registry, tables
from synops.benchmarks.common.call import largest_error
from synops.benchmarks.common.compare import ONE_THREAD, Row
from synops.benchmarks.common.linear import sparse_layer
from synops.benchmarks.common.sizes import LinearSize
from synops.benchmarks.common.structures import structured_mask
from synops.benchmarks.common.table_report import format_outcome


class TestStructures:
    @staticmethod
    def mask(structure, density, side=64):
        g = torch.Generator().manual_seed(0)
        return structured_mask(structure, (side, side), density, g)

    @pytest.mark.parametrize(
        ("structure", "block", "density"),
        [("rows 16x1", (16, 1), 0.25), ("rows 8x1", (8, 1), 0.05), ("bsr 16", (16, 16), 0.25)],
    )
    def test_blocks(self, structure, block, density):
        mask = self.mask(structure, density)
        height, width = block
        blocks = mask.view(64 // height, height, 64 // width, width).transpose(1, 2).flatten(2)
        assert torch.equal(blocks.any(2), blocks.all(2))
        assert blocks.any(2).sum() == round(density * 64 * 64 / (height * width))

    @pytest.mark.parametrize("structure", ["groups 4", "groups 4 interleaved"])
    def test_groups(self, structure):
        mask = self.mask(structure, 0.256)
        unit = torch.arange(64)
        group = unit % 4 if structure.endswith("interleaved") else unit // 16
        inside = group[:, None] == group
        assert mask[inside].all()
        assert mask[~inside].sum() == round(0.256 * 64 * 64) - 64 * 16
        assert mask.sum() == round(0.256 * 64 * 64)

    @pytest.mark.parametrize(
        ("structure", "density", "text"),
        [("bsr 48", 0.1, "do not fill"), ("groups 4", 0.2, "denser"), ("stars 4", 0.2, "known")],
    )
    def test_what_does_not_fit(self, structure, density, text):
        with pytest.raises(ValueError, match=text):
            self.mask(structure, density)

    @pytest.mark.parametrize("structure", ["rows 16x1", "bsr 32", "groups 4 interleaved"])
    def test_a_layer_has_it(self, structure):
        kind = tables.cells(["goals"], [1])[0].kind
        size = LinearSize(3, 64, 64, 0.256, "test", structure)
        layer = sparse_layer(size)
        g = torch.Generator().manual_seed(0)
        torch.randn(3, 64, generator=g)  # the batch is drawn first
        assert torch.equal(layer.mask(), structured_mask(structure, (64, 64), 0.256, g))
        ours, exact = kind().build("synops", size), kind().build("torch", size, torch.float64)
        for mode in kind.modes:
            assert largest_error(ours.results(mode), exact.results(mode)) < 1e-6


class TestTables:
    def test_names(self):
        assert tables.names() == ["dynamic", "entropy", "goals", "hebbian", "peers", "spiking"]
        with pytest.raises(
            ValueError,
            match="--table must be one of dynamic, entropy, goals, hebbian, peers, spiking, "
            "got 'goal'",
        ):
            tables.cells(["goal"], [1])

    def test_are_of_families(self):
        """The command measures those of the families it is asked for, all of them by default."""
        of = {cell.kind.op.split(".")[0] for cell in tables.cells(tables.names(), [1])}
        assert of <= set(registry.families())

    def test_cells_name_what_exists(self):
        for cell in tables.cells(tables.names(), [1, 2]):
            assert cell.kind.size(cell.case).work > 0
            assert cell.mode in cell.kind.modes
            assert set(cell.impls) <= {*cell.kind.impls, *cell.kind.table_impls}
            assert cell.impls[:2] == ("synops", cell.kind.baseline)

    def test_a_cell_of_two_tables_is_measured_once(self):
        cells = tables.cells(["goals", "peers"], [1, 2])
        keys = [(cell.kind.op, cell.case, cell.mode, cell.threads) for cell in cells]
        assert len(keys) == len(set(keys))
        (cell,) = (
            cell
            for cell, key in zip(cells, keys, strict=True)
            if key == ("sparse.sparse_linear", "60x784x300 d=.1", "forward", 1)
        )
        assert cell.goals["torch"] == 6.5  # in peers without a goal
        assert cell.goals["csr"] == 4

    def test_cells_of_a_case_are_neighbours(self):
        # what was built for a case serves all of them
        cases = [(cell.kind.op, cell.case) for cell in tables.cells(tables.names(), [1, 2])]
        changes = sum(a != b for a, b in zip(cases, [None, *cases], strict=False))
        assert changes == len(set(cases))

    def test_threads(self):
        one, two = tables.cells(["goals"], [1]), tables.cells(["goals"], [2])
        assert {cell.threads for cell in one} == {1}
        assert not any(ONE_THREAD in cell.goals for cell in one)
        assert any(ONE_THREAD in cell.goals for cell in two)
        assert not any(tables.SECONDS in cell.goals for cell in two)

    def test_outcomes(self):
        (cell,) = (
            cell
            for cell in tables.cells(["peers"], [1])
            if (cell.case, cell.mode) == ("60x784x300 d=.1", "forward_backward")
        )
        row = Row(
            op=cell.kind.op,
            case=cell.case,
            mode=cell.mode,
            threads=1,
            baseline="torch",
            times={"synops": 1e-3, "torch": 2e-3, "csr": 8e-3, "sparseprop": 3e-3},
            ratios={"torch": 1 / 2, "csr": 1 / 8, "sparseprop": 1 / 3},
            errors={},
        )
        found = {o.against: (o.measured, o.goal, o.met) for o in tables.outcomes(cell, row)}
        assert found == {
            "torch": (2, None, False),
            "csr": (8, 8, True),
            "csr_linear": (None, 15, False),
            "sparseprop": (3, 4, False),
            "masked_compile": (None, None, False),
        }
        busy = dataclasses.replace(row, waited=0.5)
        assert busy.disturbed
        assert not any(o.met for o in tables.outcomes(cell, busy))

    def test_format(self):
        def outcome(against, goal, measured):
            return tables.Outcome("op", "case", "forward", 1, against, goal, measured)

        assert format_outcome(outcome("torch", 8.4, 8.4)) == "[green]8.4x[/] (8.4x)"
        assert format_outcome(outcome("torch", 8.4, 5.123)) == "[red]5.12x[/] (8.4x)"
        assert format_outcome(outcome("torch", None, 5.0)) == "5x"
        assert format_outcome(outcome("torch", 4, None)) == "n/a"
        assert format_outcome(outcome("seconds", 1.5e-3, 1e-3)) == "[green]1 ms[/] (1.5 ms)"
        assert format_outcome(outcome("seconds", 1.5e-3, 2e-3)) == "[red]2 ms[/] (1.5 ms)"
