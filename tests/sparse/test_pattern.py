"""Pattern: how it is made, what it holds, how it travels."""

import copy
import io
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layouts import LAYOUTS, SHORT, few, row_blocks
from sparse_samples import DENSITIES, DTYPES, random_mask
from torch.utils import _pytree as pytree

from synops import _library
from synops.sparse import Pattern, sparse_linear

# (out, in): nothing; around the 8 or 16 mask bytes read at a time; around tiles of 128 and 256
SHAPES = [
    (0, 0),
    (0, 5),
    (5, 0),
    (0, 400),
    (400, 0),
    (1, 1),
    (3, 7),
    (3, 8),
    (3, 9),
    (4, 15),
    (4, 16),
    (4, 17),
    (4, 31),
    (4, 33),
    (5, 128),
    (5, 129),
    (129, 5),
    (30, 257),
    (257, 30),
    (140, 300),
]


def same(a: Pattern, b: Pattern) -> bool:
    """In everything that they hold."""
    if (a.parts is None) != (b.parts is None):
        return False
    tensors = [*zip(a.tensors, b.tensors, strict=True)]
    if a.parts is not None:
        if not all(same(one, other) for one, other in zip(a.parts[:2], b.parts[:2], strict=True)):
            return False
        tensors.append((a.parts[2], b.parts[2]))
    numbers = (a.shape, a.capacity, a.block) == (b.shape, b.capacity, b.block)
    return numbers and all(torch.equal(x, y) and x.dtype == y.dtype for x, y in tensors)


def plan_of(mask, tile, tile_t):
    """row_ptr, tile_col, col_ptr, tile_row, perm written as loops over a list of entries."""
    rows, cols = mask.shape
    entries = [(r, c) for r in range(rows) for c in range(cols) if mask[r, c]]

    def plan(pairs, n, width, tile):
        """pairs (major, minor): by tile of the minor, then major, then minor."""
        order = sorted(range(len(pairs)), key=lambda j: (pairs[j][1] // tile, *pairs[j]))
        runs = [(t, m) for t in range(max(1, -(-width // tile))) for m in range(n)]
        found = [(pairs[j][1] // tile, pairs[j][0]) for j in order]
        ptr = [sum(run < r for run in found) for r in runs] + [len(pairs)]
        ints = torch.tensor(ptr, dtype=torch.int32)
        return ints, torch.tensor([pairs[j][1] % tile for j in order]).to(torch.int16), order

    row_ptr, tile_col, _ = plan(entries, rows, cols, tile)
    col_ptr, tile_row, perm = plan([(c, r) for r, c in entries], cols, rows, tile_t)
    return row_ptr, tile_col, col_ptr, tile_row, torch.tensor(perm, dtype=torch.int32)


class TestMaking:
    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("density", DENSITIES)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_against_the_reference(self, shape, density):
        mask = random_mask(*shape, density)
        pattern = Pattern.from_mask(mask)
        crow, col = _library.reference("pattern_from_mask")(mask)
        plan = _library.reference("pattern_plan")(crow, col, shape[1])
        for got, want in zip(pattern.tensors, (crow, col, *plan), strict=False):
            assert got.dtype == want.dtype
            assert torch.equal(got, want)
        assert torch.equal(pattern.mask(), mask)
        assert int(_library.reference("pattern_blocks")(crow, col)) == pattern.block[0]
        bits = _library.reference("pattern_bits")(crow, col, shape[1])
        if pattern.nnz >= 0.4 * mask.numel():
            assert torch.equal(pattern.bits, bits)
        else:
            assert pattern.bits.numel() == 0

    # one tile, up to a multiple of 16; two of 80 (160 / 2); two of 208 (of at most 256)
    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize(
        ("shape", "density", "tile", "tile_t"),
        [
            ((7, 20), 0.4, 32, 16),
            ((6, 160), 0.4, 80, 16),
            ((160, 6), 0.4, 16, 80),
            ((4, 400), 0.055, 208, 16),
        ],
    )
    def test_against_loops(self, shape, density, tile, tile_t):
        mask = random_mask(*shape, density)
        want = plan_of(mask, tile, tile_t)
        for got, one in zip(Pattern.from_mask(mask).tensors[2:7], want, strict=True):
            assert torch.equal(got, one)

    def test_bits_by_hand(self):
        mask = random_mask(6, 130, 0.7)
        words = Pattern.from_mask(mask).bits
        assert words.shape == (6, 3)
        bits = (words[..., None] >> torch.arange(64) & 1).bool().flatten(1)
        assert torch.equal(bits[:, :130], mask)
        assert not bits[:, 130:].any()

    @pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
    @pytest.mark.usefixtures("isa")
    @given(data=st.data())
    def test_any_mask(self, data):
        shape = data.draw(st.tuples(st.integers(0, 9), st.integers(0, 70)))
        bits = data.draw(
            st.lists(st.booleans(), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])
        )
        mask = torch.tensor(bits, dtype=torch.bool).view(shape)
        pattern = Pattern.from_mask(mask)
        assert torch.equal(pattern.mask(), mask)
        assert same(Pattern.from_csr(pattern.crow, pattern.col, shape), pattern)
        csr = mask.float().to_sparse_csr() if mask.numel() else None
        if csr is not None:
            assert same(Pattern.from_csr(csr.crow_indices(), csr.col_indices(), shape), pattern)

    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("byte", [1, 2, 127, 128, 129, 255])
    def test_any_true_byte(self, byte):
        """A bool tensor made by a view may hold any byte; torch takes all but 0 for True."""
        mask = random_mask(6, 45, 0.4)
        assert same(
            Pattern.from_mask((mask.to(torch.uint8) * byte).view(torch.bool)),
            Pattern.from_mask(mask),
        )

    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize(
        "view",
        [
            lambda m: m.t().contiguous().t(),
            lambda m: torch.cat([m, ~m, m], 1)[:, : m.shape[1]],
            lambda m: torch.cat([m.new_ones(1), m.flatten()])[1:].view(m.shape),
        ],
        ids=["transposed", "sliced", "odd address"],
    )
    def test_mask_layouts(self, view):
        mask = random_mask(6, 45, 0.4)
        assert same(Pattern.from_mask(view(mask)), Pattern.from_mask(mask))

    def test_expanded_mask(self):
        row = torch.rand(45) < 0.4
        assert torch.equal(Pattern.from_mask(row.expand(6, 45)).mask(), row.expand(6, 45))

    @pytest.mark.parametrize("crow_type", [torch.int32, torch.int64])
    @pytest.mark.parametrize("col_type", [torch.int32, torch.int64])
    def test_index_types_and_strides(self, crow_type, col_type):
        want = Pattern.from_mask(random_mask(6, 45, 0.4))
        crow = want.crow.to(crow_type).repeat_interleave(2)[::2]
        col = want.col.to(col_type).repeat_interleave(3)[::3]
        assert same(Pattern.from_csr(crow, col, (6, 45)), want)

    def test_shape_as_a_list_or_torch_size(self):
        want = Pattern.from_mask(random_mask(6, 45, 0.4))
        for shape in ([6, 45], torch.Size((6, 45))):
            got = Pattern.from_csr(want.crow, want.col, shape)
            assert same(got, want)
            assert type(got.shape) is tuple

    @pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
    def test_owns_its_indices(self, dtype):
        """Immutable: a caller that goes on to use its own index tensors changes nothing."""
        want = Pattern.from_mask(random_mask(6, 45, 0.4))
        crow, col = want.crow.to(dtype), want.col.to(dtype, copy=True)
        got = Pattern.from_csr(crow, col, (6, 45))
        crow.zero_()
        col.zero_()
        assert same(got, want)

    def test_owns_its_mask(self):
        mask = random_mask(6, 45, 0.4)
        kept = mask.clone()
        pattern = Pattern.from_mask(mask)
        mask.zero_()
        assert torch.equal(pattern.mask(), kept)


class TestAttributes:
    def test_numbers(self):
        mask = torch.tensor([[True, False, True], [False, False, True]])
        pattern = Pattern.from_mask(mask, capacity=5)
        assert (pattern.shape, pattern.nnz, pattern.density) == ((2, 3), 3, 0.5)
        assert pattern.capacity == 5
        assert pattern.device == torch.device("cpu")
        assert pattern.crow.tolist() == [0, 2, 3]
        assert repr(pattern) == "Pattern(shape=(2, 3), nnz=3, density=0.5)"

    @pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
    def test_empty(self, shape):
        pattern = Pattern.from_mask(torch.ones(shape, dtype=torch.bool))
        assert (pattern.nnz, pattern.density, pattern.capacity) == (0, 0, 0)
        assert pattern.mask().shape == shape
        assert pattern.crow.tolist() == [0] * (shape[0] + 1)

    def test_frozen(self):
        pattern = Pattern.from_mask(random_mask(6, 45, 0.4))
        with pytest.raises(AttributeError):
            pattern.shape = (1, 1)

    def test_identity(self):
        mask = random_mask(6, 45, 0.4)
        pattern = Pattern.from_mask(mask)
        assert pattern != Pattern.from_mask(mask)
        assert len({pattern, pattern}) == 1


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(6, 45), (5, 193), (0, 4), (4, 0), (300, 300)], ids=str)
class TestGatherScatter:
    def test_values(self, shape, dtype):
        mask = random_mask(*shape, 0.4)
        pattern = Pattern.from_mask(mask)
        weight = torch.randn(shape).to(dtype).masked_fill(~mask, torch.nan)
        values = pattern.gather(weight)
        assert torch.equal(values, weight[mask])
        assert torch.equal(pattern.scatter(values), weight.nan_to_num(0))

    def test_capacity(self, shape, dtype):
        mask = random_mask(*shape, 0.4)
        pattern = Pattern.from_mask(mask, capacity=int(mask.sum()) + 7)
        values = torch.randn(pattern.nnz).to(dtype)
        padded = torch.cat([values, values.new_full((7,), torch.nan)]).requires_grad_()
        dense = pattern.scatter(padded)
        assert torch.equal(dense, pattern.scatter(values))
        grad = torch.autograd.grad(dense.sum(), padded)[0]
        assert torch.equal(grad, torch.cat([torch.ones_like(values), values.new_zeros(7)]))

    def test_gradients(self, shape, dtype):
        mask = random_mask(*shape, 0.4)
        pattern = Pattern.from_mask(mask)
        weight = torch.randn(shape).to(dtype).t().contiguous().t().requires_grad_()
        coming = torch.randn(pattern.nnz).to(dtype)
        grad = torch.autograd.grad(pattern.gather(weight), weight, coming)[0]
        assert torch.equal(grad, torch.zeros(shape, dtype=dtype).masked_scatter(mask, coming))
        values = coming.clone().requires_grad_()
        dense = torch.randn(shape).to(dtype)
        assert torch.equal(
            torch.autograd.grad(pattern.scatter(values), values, dense)[0], dense[mask]
        )


def test_gather_and_scatter_gradgradcheck():
    pattern = Pattern.from_mask(random_mask(5, 6, 0.4), capacity=20)
    weight = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    values = torch.randn(20, dtype=torch.float64, requires_grad=True)
    for f, x in ((pattern.gather, weight), (pattern.scatter, values)):
        assert torch.autograd.gradcheck(f, x)
        assert torch.autograd.gradgradcheck(f, x)


class TestTravel:
    """What happens to objects in modules, checkpoints and processes."""

    @pytest.fixture(params=[*SHORT])
    def pattern(self, request):
        return LAYOUTS[request.param].make()

    @pytest.mark.parametrize(
        "trip",
        [
            copy.copy,
            copy.deepcopy,
            lambda p: pickle.loads(pickle.dumps(p)),
            lambda p: p.to("cpu"),
            lambda p: pytree.tree_map(torch.clone, p),
            lambda p: pytree.tree_unflatten(*reversed(pytree.tree_flatten(p))),
        ],
        ids=["copy", "deepcopy", "pickle", "to", "tree_map", "pytree"],
    )
    def test_round_trip(self, pattern, trip):
        got = trip(pattern)
        assert same(got, pattern)
        values = torch.randn(pattern.capacity)
        for batch in (2, 20):
            x = torch.randn(batch, pattern.shape[1])
            want = sparse_linear(x, values, pattern)
            assert torch.equal(sparse_linear(x, values, got), want)

    @pytest.mark.parametrize("weights_only", [False, True])
    def test_torch_save(self, pattern, weights_only):
        """weights_only, torch's default, takes classes that the caller declares safe."""
        file = io.BytesIO()
        torch.save({"pattern": pattern}, file)
        file.seek(0)
        with torch.serialization.safe_globals([Pattern]):
            assert same(torch.load(file, weights_only=weights_only)["pattern"], pattern)

    def test_deepcopy_shares_nothing(self, pattern):
        tensors = zip(copy.deepcopy(pattern).tensors, pattern.tensors, strict=True)
        assert all(a.data_ptr() != b.data_ptr() for a, b in tensors if a.numel())

    def test_to_another_device(self, pattern):
        moved = pattern.to("meta")
        assert moved.device.type == "meta"
        for name in ("shape", "nnz", "capacity", "block"):
            assert getattr(moved, name) == getattr(pattern, name)
        assert {t.device.type for t in pytree.tree_leaves(moved)} == {"meta"}
        assert "device='meta'" in repr(moved)
        assert pattern.to("cpu") is pattern

    def test_leaves_are_named(self):
        pattern = LAYOUTS["one tile"].make()
        paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(pattern)[0]]
        assert paths == [
            *(".crow", ".row_ptr", ".col_ptr", ".col", ".tile_col", ".tile_row", ".perm", ".bits")
        ]
        parted = LAYOUTS["parts"].make()
        paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(parted)[0]]
        assert len(paths) == 3 * 8 + 1
        assert paths[8::8] == [".parts[0].crow", ".parts[1].crow", ".parts[2]"]

    def test_treespec_as_json(self, pattern):
        """torch.export saves the structure of inputs as text."""
        spec = pytree.tree_structure(pattern)
        assert pytree.treespec_loads(pytree.treespec_dumps(spec)) == spec


class TestBlocks:
    """What from_mask finds, and the two ways of saying it."""

    @pytest.mark.usefixtures("isa")
    def test_found(self):
        for rows in (8, 16, 32, 64, 128):
            mask = row_blocks(rows, 3, 20, 0.3)
            assert Pattern.from_mask(mask).block == (rows, 1)
            one = mask.clone()
            one[-1, 0] = ~one[-1, 0]  # one entry of the last row
            assert Pattern.from_mask(one).block == (1, 1)
            assert Pattern.from_mask(mask[:-1]).block == (1, 1)  # no whole block
        assert Pattern.from_mask(row_blocks(4, 6, 20, 0.3)).block == (1, 1)  # too few
        assert Pattern.from_mask(row_blocks(24, 2, 20, 0.9)).block == (8, 1)

    def test_a_claim_is_checked(self):
        mask = row_blocks(16, 3, 20, 0.3)
        assert same(Pattern.from_mask(mask, block=(16, 1)), Pattern.from_mask(mask))
        assert same(Pattern.from_mask(mask, block=(1, 1)), Pattern.from_mask(mask))
        for empty in ((0, 20), (16, 0)):
            Pattern.from_mask(torch.zeros(empty, dtype=torch.bool), block=(16, 1))

    @pytest.mark.parametrize("block", [(16, 1), (8, 1), (16, 16), (3, 5), (1, 1)])
    def test_from_blocks(self, block):
        blocks = torch.rand(4, 6) < 0.5
        rows, cols = block
        mask = blocks.repeat_interleave(rows, 0).repeat_interleave(cols, 1)
        want = Pattern.from_mask(mask, block=block, capacity=int(mask.sum()) + 3)
        got = Pattern.from_blocks(blocks, block, capacity=int(mask.sum()) + 3)
        assert same(got, want)
        assert torch.equal(got.mask(), mask)

    @pytest.mark.parametrize("interleaved", [False, True])
    def test_from_groups(self, interleaved):
        """Every entry by the definition, and the block as large as the group's rows allow."""
        for rows, groups, block in ((16, 3, 16), (40, 2, 8), (5, 4, 1), (128, 1, 128), (6, 8, 1)):
            shape = (rows * groups, 3 * groups)
            pattern = Pattern.from_groups(shape, groups, interleaved=interleaved)
            mask = pattern.mask()
            for o in range(shape[0]):
                for i in range(shape[1]):
                    same_group = o % groups == i % groups if interleaved else o // rows == i // 3
                    assert mask[o, i] == same_group
            step = groups if interleaved and block > 1 else 1
            assert pattern.block == (block, step)
            assert pattern.parts is None

    def test_from_groups_with_more(self):
        for interleaved in (False, True):
            extra = few(48, 30)
            diagonal = Pattern.from_groups((48, 30), 3, interleaved=interleaved).mask()
            pattern = Pattern.from_groups((48, 30), 3, interleaved=interleaved, extra=extra)
            self.assert_parts(pattern, diagonal | extra)
            assert torch.equal(pattern.parts[0].mask(), diagonal)
            nothing = torch.zeros_like(extra)
            for none in (nothing, diagonal):
                got = Pattern.from_groups((48, 30), 3, interleaved=interleaved, extra=none)
                assert same(got, Pattern.from_groups((48, 30), 3, interleaved=interleaved))

    def assert_parts(self, pattern, mask):
        """Blocks and rest are disjoint, together the mask, and values know which is which."""
        blocks, rest, select = pattern.parts
        assert torch.equal(pattern.mask(), mask)
        assert torch.equal(blocks.mask() | rest.mask(), mask)
        assert not (blocks.mask() & rest.mask()).any()
        assert torch.equal(select, blocks.mask()[mask])
        assert blocks.block[0] >= 8
        assert pattern.block == rest.block == (1, 1)

    @pytest.mark.parametrize("byte", [1, 2, 128, 255])
    def test_mostly_blocks(self, byte):
        """A bool tensor made by a view may hold any byte."""
        mask = row_blocks(16, 4, 40, 0.5) | few(64, 40)
        odd = (mask.to(torch.uint8) * byte).view(torch.bool)
        for view in (odd, odd.t().contiguous().t()):
            self.assert_parts(Pattern.from_mask(view), mask)

    def test_too_few_in_blocks(self):
        """Half of the entries and density .05 are where parts begin to pay."""
        kept = torch.zeros(4, 100, dtype=torch.bool)
        kept[:, :10] = True
        blocks = kept.repeat_interleave(16, 0)  # 640 entries
        for more, parts in ((639, True), (641, False)):
            mask = blocks.clone()
            mask[::16, 20:].view(4, -1)[:, :0] = True
            free = torch.zeros(64, 100, dtype=torch.bool)
            free[1::2, 20:] = True  # no two neighbours: never 16 equal rows
            at = free.flatten().nonzero()[:, 0]
            mask.view(-1)[at[:: len(at) // more][:more]] = True
            assert int(mask.sum()) == 640 + more
            assert (Pattern.from_mask(mask).parts is not None) == parts
        thin = torch.zeros(64, 400, dtype=torch.bool)
        thin[:, :10] = True  # density .025
        thin[0, 20] = True
        assert Pattern.from_mask(thin).parts is None


MASK = torch.eye(3, dtype=torch.bool)
CROW, COL = torch.tensor([0, 2, 2, 4]), torch.tensor([0, 3, 1, 2])


def groups(shape=(12, 8), count=4, **options):
    return Pattern.from_groups(shape, count, **options)


def csr(crow=CROW, col=COL, shape=(3, 4), **options):
    return Pattern.from_csr(crow, col, shape, **options)


BAD = {
    "mask: no tensor": (
        lambda: Pattern.from_mask([[True]]),
        TypeError,
        "Pattern.from_mask: mask must be a torch.Tensor, got list",
    ),
    "mask: float": (
        lambda: Pattern.from_mask(MASK.float()),
        TypeError,
        "Pattern.from_mask: mask must be bool, got float32",
    ),
    "mask: sparse": (
        lambda: Pattern.from_mask(MASK.to_sparse()),
        TypeError,
        "Pattern.from_mask: mask must be a strided tensor, got torch.sparse_coo",
    ),
    "mask: 1-D": (
        lambda: Pattern.from_mask(MASK[0]),
        ValueError,
        "Pattern.from_mask: mask must have 2 dimensions (out, in), got (3,)",
    ),
    "mask: 3-D": (
        lambda: Pattern.from_mask(MASK[None]),
        ValueError,
        "Pattern.from_mask: mask must have 2 dimensions (out, in), got (1, 3, 3)",
    ),
    "mask: 0-D": (
        lambda: Pattern.from_mask(MASK[0, 0]),
        ValueError,
        "Pattern.from_mask: mask must have 2 dimensions (out, in), got ()",
    ),
    "mask: too wide": (
        lambda: Pattern.from_mask(torch.zeros(1, 1, dtype=torch.bool).expand(1, 2**31)),
        ValueError,
        "Pattern.from_mask: mask must have sides below 2^31 - 1, got (1, 2147483648)",
    ),
    "mask: capacity": (
        lambda: Pattern.from_mask(MASK, capacity=2),
        ValueError,
        "Pattern.from_mask: capacity must be at least nnz = 3, got 2",
    ),
    "mask: no integer capacity": (
        lambda: Pattern.from_mask(MASK, capacity=3.5),
        TypeError,
        "Pattern.from_mask: capacity must",
    ),
    "block: does not divide": (
        lambda: Pattern.from_mask(MASK, block=(2, 1)),
        ValueError,
        "Pattern.from_mask: block must divide the shape (3, 3), got (2, 1)",
    ),
    "block: columns do not divide": (
        lambda: Pattern.from_mask(MASK, block=(1, 2)),
        ValueError,
        "Pattern.from_mask: block must divide the shape (3, 3), got (1, 2)",
    ),
    "block: others": (
        lambda: Pattern.from_mask(MASK, block=(3, 1)),
        ValueError,
        "Pattern.from_mask: mask must be made of whole blocks of (3, 1), got",
    ),
    "block: zero": (
        lambda: Pattern.from_mask(MASK, block=(0, 1)),
        ValueError,
        "Pattern.from_mask: block must have sides of at least 1, got (0, 1)",
    ),
    "block: one number": (
        lambda: Pattern.from_mask(MASK, block=16),
        TypeError,
        "Pattern.from_mask: block must be a pair of integers (rows, columns), got 16",
    ),
    "block: three": (
        lambda: Pattern.from_mask(MASK, block=(1, 1, 1)),
        TypeError,
        "Pattern.from_mask: block must be a pair of integers (rows, columns), got (1, 1, 1)",
    ),
    "block: floats": (
        lambda: Pattern.from_mask(MASK, block=(1.0, 1)),
        TypeError,
        "Pattern.from_mask: block must be a pair of integers (rows, columns), got (1.0, 1)",
    ),
    "blocks: no tensor": (
        lambda: Pattern.from_blocks([[True]], (16, 1)),
        TypeError,
        "Pattern.from_blocks: blocks must be a torch.Tensor, got list",
    ),
    "blocks: float": (
        lambda: Pattern.from_blocks(MASK.float(), (16, 1)),
        TypeError,
        "Pattern.from_blocks: blocks must be bool, got float32",
    ),
    "blocks: 1-D": (
        lambda: Pattern.from_blocks(MASK[0], (16, 1)),
        ValueError,
        "Pattern.from_blocks: blocks must have 2 dimensions (out / rows, in / columns), got (3,)",
    ),
    "blocks: negative": (
        lambda: Pattern.from_blocks(MASK, (16, -1)),
        ValueError,
        "Pattern.from_blocks: block must have sides of at least 1, got (16, -1)",
    ),
    "groups: do not divide": (
        lambda: groups((12, 9)),
        ValueError,
        "Pattern.from_groups: groups must divide both sides of (out, in) = (12, 9), got 4",
    ),
    "groups: zero": (
        lambda: groups(count=0),
        ValueError,
        "Pattern.from_groups: groups must divide both sides of (out, in) = (12, 8), got 0",
    ),
    "groups: negative": (
        lambda: groups(count=-4),
        ValueError,
        "Pattern.from_groups: groups must divide both sides of (out, in) = (12, 8), got -4",
    ),
    "groups: float": (
        lambda: groups(count=2.0),
        TypeError,
        "Pattern.from_groups: groups must be an integer, got 2.0",
    ),
    "groups: shape": (
        lambda: groups(12),
        TypeError,
        "Pattern.from_groups: shape must be a pair of integers (out, in), got 12",
    ),
    "groups: extra of lists": (
        lambda: groups(extra=[[True]]),
        TypeError,
        "Pattern.from_groups: extra must be a torch.Tensor, got list",
    ),
    "groups: extra float": (
        lambda: groups(extra=torch.ones(12, 8)),
        TypeError,
        "Pattern.from_groups: extra must be bool, got float32",
    ),
    "groups: extra shape": (
        lambda: groups(extra=torch.ones(8, 12, dtype=torch.bool)),
        ValueError,
        "Pattern.from_groups: extra must have shape (out, in) = (12, 8), got (8, 12)",
    ),
    "groups: capacity": (
        lambda: groups(capacity=23),
        ValueError,
        "Pattern.from_groups: capacity must be at least nnz = 24, got 23",
    ),
    "csr: no tensor": (
        lambda: csr(crow=[0, 2, 2, 4]),
        TypeError,
        "Pattern.from_csr: crow must be a torch.Tensor, got list",
    ),
    "csr: int16": (
        lambda: csr(col=COL.short()),
        TypeError,
        "Pattern.from_csr: col must be int32 or int64, got int16",
    ),
    "csr: float": (
        lambda: csr(crow=CROW.float()),
        TypeError,
        "Pattern.from_csr: crow must be int32 or int64, got float32",
    ),
    "csr: 2-D": (
        lambda: csr(col=COL[None]),
        ValueError,
        "Pattern.from_csr: col must have 1 dimension, got (1, 4)",
    ),
    "csr: 0-D": (
        lambda: csr(crow=CROW[0]),
        ValueError,
        "Pattern.from_csr: crow must have 1 dimension, got ()",
    ),
    "csr: devices": (
        lambda: csr(col=COL.to("meta")),
        ValueError,
        "Pattern.from_csr: col must be on the device of crow (cpu), got meta",
    ),
    "csr: length": (
        lambda: csr(crow=CROW[:-1]),
        ValueError,
        "Pattern.from_csr: crow must have shape (out + 1,) = (4,), got (3,)",
    ),
    "csr: empty crow": (
        lambda: csr(crow=CROW[:0], shape=(0, 4)),
        ValueError,
        "Pattern.from_csr: crow must have shape (out + 1,) = (1,), got (0,)",
    ),
    "csr: begin": (
        lambda: csr(crow=CROW.clamp(min=1)),
        ValueError,
        "Pattern.from_csr: crow must begin with 0, got 1",
    ),
    "csr: end": (
        lambda: csr(crow=CROW.clamp(max=3)),
        ValueError,
        "Pattern.from_csr: crow must end with nnz = 4, got 3",
    ),
    "csr: descends": (
        lambda: csr(crow=torch.tensor([0, 3, 2, 4])),
        ValueError,
        "Pattern.from_csr: crow must not descend, got 2 at position 2",
    ),
    "csr: beyond the end inside": (
        lambda: csr(crow=torch.tensor([0, 9, 9, 4])),
        ValueError,
        "Pattern.from_csr: crow must not descend, got 4 at position 3",
    ),
    "csr: beyond int32": (
        lambda: csr(crow=torch.tensor([0, 2**32, 2**32, 4])),
        ValueError,
        "Pattern.from_csr: crow must not descend, got 4 at position 3",
    ),
    "csr: wraps int32": (
        lambda: csr(col=torch.tensor([0, 3, 1, 2**32 + 2])),
        ValueError,
        "Pattern.from_csr: col must lie in [0, 4), got 4294967298 at position 3",
    ),
    "csr: negative": (
        lambda: csr(col=torch.tensor([-1, 3, 1, 2])),
        ValueError,
        "Pattern.from_csr: col must lie in [0, 4), got -1 at position 0",
    ),
    "csr: out of range": (
        lambda: csr(col=torch.tensor([0, 3, 1, 4])),
        ValueError,
        "Pattern.from_csr: col must lie in [0, 4), got 4 at position 3",
    ),
    "csr: unsorted": (
        lambda: csr(col=torch.tensor([0, 3, 2, 1])),
        ValueError,
        "Pattern.from_csr: col must ascend strictly inside each row (sorted, no duplicates), "
        "got 1 at position 3 after 2",
    ),
    "csr: duplicate": (
        lambda: csr(col=torch.tensor([3, 3, 1, 2])),
        ValueError,
        "Pattern.from_csr: col must ascend strictly inside each row (sorted, no duplicates), "
        "got 3 at position 1 after 3",
    ),
    "csr: capacity": (
        lambda: csr(capacity=3),
        ValueError,
        "Pattern.from_csr: capacity must be at least nnz = 4, got 3",
    ),
    "csr: shape of one": (
        lambda: csr(shape=(3,)),
        TypeError,
        "Pattern.from_csr: shape must be a pair of integers (out, in), got (3,)",
    ),
    "csr: shape no pair": (
        lambda: csr(shape=3),
        TypeError,
        "Pattern.from_csr: shape must be a pair of integers (out, in), got 3",
    ),
    "csr: shape of floats": (
        lambda: csr(shape=(3.7, 4)),
        TypeError,
        "Pattern.from_csr: shape must be a pair of integers (out, in), got (3.7, 4)",
    ),
    "csr: shape of strings": (
        lambda: csr(shape="34"),
        TypeError,
        "Pattern.from_csr: shape must be a pair of integers (out, in), got 34",
    ),
    "csr: negative shape": (
        lambda: csr(shape=(-1, 4)),
        ValueError,
        "Pattern.from_csr: shape must have sides in [0, 2^31 - 1), got (-1, 4)",
    ),
    "csr: shape too large": (
        lambda: csr(shape=(3, 2**31)),
        ValueError,
        "Pattern.from_csr: shape must have sides in [0, 2^31 - 1), got (3, 2147483648)",
    ),
    "gather: no tensor": (
        lambda: csr().gather(1.0),
        TypeError,
        "Pattern.gather: weight must be a torch.Tensor, got float",
    ),
    "gather: integers": (
        lambda: csr().gather(torch.ones(3, 4, dtype=torch.int32)),
        TypeError,
        "Pattern.gather: weight must be float32, float64, bfloat16 or float16, got int32",
    ),
    "gather: shape": (
        lambda: csr().gather(torch.ones(4, 3)),
        ValueError,
        "Pattern.gather: weight must have shape (out, in) = (3, 4), got (4, 3)",
    ),
    "gather: device": (
        lambda: csr().gather(torch.ones(3, 4, device="meta")),
        ValueError,
        "Pattern.gather: weight must be on the device of",
    ),
    "scatter: length": (
        lambda: csr().scatter(torch.ones(5)),
        ValueError,
        "Pattern.scatter: values must have shape (nnz,) = (4,), got (5,)",
    ),
    "scatter: 2-D": (
        lambda: csr().scatter(torch.ones(4, 1)),
        ValueError,
        "Pattern.scatter: values must have shape (nnz,) = (4,), got (4, 1)",
    ),
    "scatter: device": (
        lambda: csr().scatter(torch.ones(4, device="meta")),
        ValueError,
        "Pattern.scatter: values must be on the device of",
    ),
    "gather: backend": (
        lambda: csr().gather(torch.ones(3, 4), backend="cuda"),
        ValueError,
        "backend: must be one of auto, cpp, triton, reference, got 'cuda'",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    "make",
    [lambda: Pattern.from_mask(MASK.to("meta")), lambda: csr(CROW.to("meta"), COL.to("meta"))],
)
def test_indices_without_data(make):
    """A meta tensor has no entries to find: an error that says so, not a Pattern of nothing."""
    with pytest.raises((RuntimeError, NotImplementedError, ValueError), match=r"[Mm]eta"):
        make()
