"""three_factor against float64, against the loops people write, and as it is called."""

import math

import pytest
import torch
from three_factor_samples import sample, wide

import synops
from close import assert_close
from synops.hebbian import three_factor, three_factor_
from synops.sparse import Pattern

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# A vector and its rest in every instruction set, less than one, six rows and a rest; a panel of 64
# columns and a rest.
SHAPES = ((7, 21), (1, 3), (13, 70))
# Alone, two, more than the six that a tile of rows holds.
BATCHES = (None, 1, 2, 9)


def check(tensors, options, **rest):
    """In place and not, against the reference in float64."""
    got = three_factor(*tensors, **options, **rest)
    exact = {k: wide(v) for k, v in options.items()}
    want = three_factor(*map(wide, tensors), **exact, backend="reference")
    terms = 4 * max(1, tensors[2].numel() // max(1, tensors[2].shape[-1]))
    # the parts of a sum may be larger than what is left of it between bounds
    scale = torch.full_like(want.weight, 3 + float(want.eligibility.abs().max() * 4))
    assert_close(got.weight, want.weight, tensors[0].dtype, terms, scale)
    scale = torch.full_like(want.eligibility, 1 + float(want.eligibility.abs().max()))
    assert_close(got.eligibility, want.eligibility, tensors[1].dtype, terms, scale)
    weight, trace = tensors[0].clone(), tensors[1].clone()
    same = three_factor_(weight, trace, *tensors[2:], **options, **rest)
    assert same.weight is weight
    assert same.eligibility is trace
    assert torch.equal(weight, got.weight)
    assert torch.equal(trace, got.eligibility)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("kind", ["dense", "mask", "pattern"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reference(dtype, kind):
    """Every batch and shape; options take turns."""
    turn = 0
    for shape in SHAPES:
        for batch in BATCHES:
            for per_sample in (False, True):
                turn += 1
                tensors, options = sample(shape, batch, dtype, kind=kind, per_sample=per_sample)
                if turn % 3 == 1:
                    options |= {"clip": None, "sign": None, "decay": 0.0}
                if turn % 3 == 2:
                    options |= {"modulator": -0.5, "lr": 0.3, "sign": None}
                    options |= {"gain_pre": None, "gain_post": None, "reduction": "sum"}
                check(tensors, options)


@pytest.mark.triton
@pytest.mark.parametrize("kind", ["dense", "mask", "pattern"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_triton(dtype, kind):
    for batch, per_sample in ((None, False), (2, False), (3, True)):
        tensors, options = sample((7, 21), batch, dtype, kind=kind, per_sample=per_sample)
        check(tensors, options, backend="triton")
        if batch == 2:
            options |= {"sign": None, "clip": None, "modulator": torch.zeros(7), "decay": 0.0}
            check(tensors, options, backend="triton")


@pytest.mark.triton
@pytest.mark.filterwarnings("ignore:overflow")  # numpy's, which interprets
def test_triton_reports():
    """Nothing is written when an argument is not finite; overflow is told."""
    (w, e, pre, post), _ = sample((7, 21), None, torch.float32)
    options = {"lr": 1.0, "trace_decay": 0.5, "backend": "triton"}
    with pytest.raises(OverflowError):
        three_factor(w, e, pre * 1e30, post * 1e30, **options)
    before = w.clone(), e.clone()
    for change, name in (({"pre": pre * math.inf}, "pre"), ({"post": post * math.nan}, "post")):
        with pytest.raises(ValueError, match=f"{name} must be finite"):
            three_factor_(w, e, **({"pre": pre, "post": post} | change), **options)
        assert torch.equal(w, before[0])
        assert torch.equal(e, before[1])
    with pytest.raises(ValueError, match="weight must agree with sign"):
        three_factor_(w, e, pre, post, sign=-w[0].sign(), **options)


def test_loop():
    """The formula as it is written, over a few steps."""
    (w, e, _, _), _ = sample((6, 9), None, torch.float64)
    want_w, want_e = w.clone(), e.clone()
    for _ in range(5):
        pre, post, error = torch.randn(9).double(), torch.randn(6).double(), torch.randn(6).double()
        w, e = three_factor(w, e, pre, post, lr=0.1, trace_decay=0.8, modulator=error, clip=(-1, 1))
        want_e = 0.8 * want_e + torch.outer(post, pre)
        want_w = (want_w + 0.1 * error[:, None] * want_e).clamp(-1, 1)
    torch.testing.assert_close(w, want_w, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(e, want_e, rtol=1e-13, atol=1e-14)


def test_e_prop():
    """Of a leaky linear layer, traces of each sample times the error of each are the gradient."""
    torch.manual_seed(1)
    steps, batch, outer, inner, leak = 7, 3, 4, 5, 0.8
    x = torch.randn(steps, batch, inner).double()
    target = torch.randn(steps, batch, outer).double()
    weight = torch.randn(outer, inner).double().requires_grad_()
    v, loss = torch.zeros(batch, outer).double(), 0
    for x_t, y in zip(x, target, strict=True):
        v = leak * v + x_t @ weight.t()
        loss = loss + (v - y).square().sum() / 2
    (want,) = torch.autograd.grad(loss, weight)

    with torch.no_grad():
        v, change = torch.zeros(batch, outer).double(), torch.zeros(outer, inner).double()
        e = torch.zeros(batch, outer, inner).double()
        for x_t, y in zip(x, target, strict=True):
            v = leak * v + x_t @ weight.t()
            three_factor_(
                change,
                e,
                x_t,
                torch.ones(batch, outer),
                lr=1.0,
                trace_decay=leak,
                modulator=v - y,
                reduction="sum",
            )
    torch.testing.assert_close(change, want, rtol=1e-12, atol=1e-12)


class TestBits:
    def test_of_threads(self, threads):
        cases = [((300, 260), None, "dense"), ((300, 260), 5, "mask"), ((400, 500), 2, "pattern")]
        for shape, batch, kind in cases:
            for dtype in (torch.float32, torch.bfloat16):
                tensors, options = sample(shape, batch, dtype, kind=kind)
                answers = []
                for count in (1, 2, 3, 7):
                    threads(count)
                    answers.append(three_factor(*tensors, **options))
                for other in answers[1:]:
                    assert all(map(torch.equal, answers[0], other))

    def test_of_layouts(self):
        """Slices of rows, expanded and strided activities; NaN in between is not read."""
        (w, e, pre, post), options = sample((7, 21), 4, torch.float32)
        want = three_factor(w, e, pre, post, **options)
        room = torch.full((7, 40), math.nan)
        room[:, 9:30] = w
        x = torch.full((4, 42), math.nan)
        x[:, ::2] = pre
        got = three_factor_(
            room[:, 9:30], e.clone(), x[:, ::2], post.t().contiguous().t(), **options
        )
        assert torch.equal(got.weight, want.weight)
        assert room[:, :9].isnan().all()
        assert room[:, 30:].isnan().all()
        turned = three_factor(w.t().contiguous().t(), e, pre, post, **options)
        assert torch.equal(turned.weight, want.weight)
        w2, e2 = w.t().contiguous().t(), e.t().contiguous().t()
        got = three_factor_(w2, e2, pre, post, **options)
        assert got.weight is w2
        assert torch.equal(w2, want.weight)
        assert torch.equal(e2, want.eligibility)

    def test_masked_entries_are_left_alone(self):
        (w, e, pre, post), options = sample((7, 21), 4, torch.float32, kind="mask")
        want = three_factor(w, e, pre, post, **options)
        gone = ~options["mask"]
        w[gone], e[gone] = math.nan, math.inf
        got = three_factor(w, e, pre, post, **options)
        kept = options["mask"]
        assert torch.equal(got.weight[kept], want.weight[kept])
        assert torch.equal(got.eligibility[kept], want.eligibility[kept])
        assert got.weight[gone].isnan().all()
        assert got.eligibility[gone].isinf().all()

    def test_capacity_is_not_read(self):
        pattern = Pattern.from_mask(torch.rand(7, 21) < 0.4, capacity=140)
        w, e = torch.full((140,), math.nan), torch.full((140,), math.nan)
        w[: pattern.nnz], e[: pattern.nnz] = 0.5, 0.25
        options = {"lr": 0.1, "trace_decay": 0.9, "pattern": pattern}
        got = three_factor(w, e, torch.ones(21), torch.ones(7), **options)
        assert got.weight[: pattern.nnz].isfinite().all()
        assert got.weight[pattern.nnz :].isnan().all()
        three_factor_(w, e, torch.ones(21), torch.ones(7), **options)
        assert torch.equal(w.nan_to_num(), got.weight.nan_to_num())


class TestGate:
    @pytest.mark.parametrize("kind", ["dense", "pattern"])
    def test_shut(self, kind):
        """Eligibility goes on, weights stay to the bit, even beyond the clip; but for decay."""
        for batch, per_sample in ((None, False), (3, False), (3, True)):
            (w, e, pre, post), options = sample(
                (7, 21), batch, torch.float32, kind=kind, per_sample=per_sample
            )
            options |= {"decay": 0.0, "clip": (-0.1, 0.1), "sign": None}
            options["modulator"][..., 2:5] = 0
            row = torch.arange(7)[:, None].expand(7, 21)
            if kind == "pattern":
                row = options["pattern"].gather(row.float()).long()
            shut = (row >= 2) & (row < 5)
            got = three_factor(w, e, pre, post, **options)
            assert torch.equal(got.weight[shut], w[shut])
            assert (got.weight[~shut].abs() <= 0.1).all()
            full = three_factor(w, e, pre, post, **options | {"modulator": 1.0})
            assert torch.equal(got.eligibility, full.eligibility)
            decayed = three_factor(w, e, pre, post, **options | {"decay": 0.5})
            assert torch.equal(decayed.weight[shut], (0.5 * w[shut]).clamp(-0.1, 0.1))


class TestSizes:
    @pytest.mark.parametrize("shape", [(0, 5), (4, 0), (0, 0)])
    def test_no_units(self, shape):
        w, e = torch.ones(shape), torch.ones(shape)
        got = three_factor(w, e, torch.ones(shape[1]), torch.ones(shape[0]), lr=1, trace_decay=0)
        assert got.weight.shape == shape

    def test_no_samples(self):
        """Nothing happens but decay."""
        w, e = torch.ones(4, 5), torch.ones(4, 5)
        options = {"lr": 1.0, "trace_decay": 0.5}
        got = three_factor(w, e, torch.ones(0, 5), torch.ones(0, 4), **options)
        assert torch.equal(got.eligibility, 0.5 * e)
        assert torch.equal(got.weight, 1.5 * w)
        none = torch.ones(0, 4, 5)
        got = three_factor(w, none, torch.ones(0, 5), torch.ones(0, 4), **options)
        assert torch.equal(got.weight, w)

    def test_spikes(self):
        w, e = torch.randn(4, 5), torch.randn(4, 5)
        pre, post = torch.rand(5) < 0.5, torch.rand(4) < 0.5
        options = {"lr": 1.0, "trace_decay": 0.5}
        want = three_factor(w, e, pre.float(), post.float(), **options)
        for dtype in (torch.bool, torch.uint8, torch.float16):
            got = three_factor(w, e, pre.to(dtype), post.to(dtype), **options)
            assert torch.equal(got.weight, want.weight)


class TestReports:
    def test_overflow(self):
        for kind in ("dense", "pattern"):
            (w, e, pre, post), _ = sample((7, 21), 2, torch.float32, kind=kind)
            rest = {"pattern": _["pattern"]} if kind == "pattern" else {}
            with pytest.raises(OverflowError, match="three_factor: weight overflowed: lower lr"):
                three_factor(
                    w,
                    e,
                    pre,
                    post,
                    lr=3e38,
                    trace_decay=0.5,
                    modulator=1e5 / 1e5,
                    **rest,
                    gain_pre=torch.full((21,), 1e30),
                )
        half = torch.full((3, 4), 6e4, dtype=torch.float16)
        with pytest.raises(OverflowError):
            three_factor(
                half, torch.ones(3, 4), torch.ones(4), torch.ones(3), lr=1e4, trace_decay=1
            )

    def test_nothing_is_written_before(self):
        """NaN in any of the arguments, in place."""
        for kind in ("dense", "pattern"):
            (w, e, pre, post), options = sample((7, 21), 2, torch.float32, kind=kind)
            before = w.clone(), e.clone()
            for name in ("pre", "post", "lr", "modulator", "gain_pre", "gain_post"):
                given = {"pre": pre, "post": post, **options}
                given[name] = given[name].clone()
                given[name].view(-1)[-1] = math.nan
                with pytest.raises(ValueError, match=rf"three_factor_: .*{name}.* must be finite"):
                    three_factor_(w, e, **given)
                assert torch.equal(w, before[0])
                assert torch.equal(e, before[1])
            given = {"pre": pre, "post": post, **options}
            against = -given["sign"]
            with pytest.raises(ValueError, match="weight must agree with sign"):
                three_factor_(w, e, **given | {"sign": against})
            assert torch.equal(w, before[0])


class TestInPlace:
    def options(self):
        return {"lr": 0.1, "trace_decay": 0.9}

    def test_requires_grad(self):
        w, e = torch.ones(4, 5, requires_grad=True), torch.ones(4, 5)
        with pytest.raises(ValueError, match="weight must not require grad"):
            three_factor_(w, e, torch.ones(5), torch.ones(4), **self.options())
        with torch.no_grad():
            three_factor_(w, e, torch.ones(5), torch.ones(4), **self.options())
        assert not torch.equal(w, torch.ones(4, 5))

    def test_aliases(self):
        w, e = torch.ones(4, 5), torch.ones(4, 5)
        for args in (
            (w, w, torch.ones(5), torch.ones(4)),
            (w, e, w[0], torch.ones(4)),
            (w, e, e[0], torch.ones(4)),
            (w, e, torch.ones(5), w.view(-1)[:4]),
            (w[:1].expand(4, 5), e, torch.ones(5), torch.ones(4)),
            (w, e[:1].expand(4, 5), torch.ones(5), torch.ones(4)),
        ):
            with pytest.raises(ValueError, match=r"three_factor_: (weight|eligibility) must"):
                three_factor_(*args, **self.options())
        assert torch.equal(w, torch.ones(4, 5))

    def test_pre_may_be_post(self):
        x = torch.randn(4)
        w, e = torch.ones(4, 4), torch.ones(4, 4)
        got = three_factor_(w, e, x, x, **self.options())
        torch.testing.assert_close(got.eligibility, 0.9 + torch.outer(x, x))


class TestTransforms:
    def test_a_gradient_is_refused_and_the_references(self):
        for i in range(4):
            tensors, options = sample((4, 5), None, torch.float64)
            tensors[i].requires_grad_()
            with pytest.raises(NotImplementedError, match="three_factor: a gradient"):
                three_factor(*tensors, **options).weight.sum().backward()
            three_factor(*tensors, **options, backend="reference").weight.sum().backward()
            assert tensors[i].grad.isfinite().all()

    def test_compiled(self):
        torch._dynamo.reset()

        def step(w, e, x, y):
            return three_factor_(w, e, x.sin(), y, lr=0.1, trace_decay=0.9, clip=(-1.0, 1.0))

        compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
        w, e = torch.randn(4, 5), torch.randn(4, 5)
        x, y = torch.randn(5), torch.randn(4)
        want = step(w.clone(), e.clone(), x, y)
        compiled(w, e, x, y)
        assert torch.equal(w, want.weight)
        assert torch.equal(e, want.eligibility)

    def test_exported(self):
        class Rule(torch.nn.Module):
            def forward(self, w, e, x, y):
                return tuple(three_factor(w, e, x, y, lr=0.1, trace_decay=0.9))

        args = (torch.randn(4, 5), torch.randn(4, 5), torch.randn(3, 5), torch.randn(3, 4))
        program = torch.export.export(Rule(), args)
        assert all(map(torch.equal, program.module()(*args), Rule()(*args)))

    def test_vmap(self):
        args = (torch.randn(3, 4, 5), torch.randn(3, 4, 5), torch.randn(3, 5), torch.randn(3, 4))
        f = lambda *a: tuple(three_factor(*a, lr=0.1, trace_decay=0.9))  # noqa: E731
        for i, got in enumerate(torch.vmap(f)(*args)):
            assert torch.equal(got, torch.stack([f(*a)[i] for a in zip(*args, strict=True)]))

    def test_opcheck(self):
        torch.library.opcheck(torch.ops.synops.three_factor.default, raw())
        torch.library.opcheck(torch.ops.synops.three_factor_.default, raw(kind="pattern"))

    def test_which(self):
        (w, e, x, y), options = sample((4, 5), None, torch.float32)
        assert "cpp" in str(synops.which(three_factor, w, e, x, y, **options)).lower()


NAMES = [
    "weight",
    "eligibility",
    "pre",
    "post",
    "trace_decay",
    "lr",
    "rate",
    "decay",
    "modulator",
    "gain_pre",
    "gain_post",
    "lower",
    "upper",
    "sign",
    "check_sign",
    "mask",
    "crow",
    "col",
    "mean",
]


def raw(kind="dense", **changes):
    """Arguments of the op, in its order."""
    (w, e, x, y), o = sample((7, 21), 2, torch.float32, kind=kind)
    p = o.get("pattern")
    rest = (0.9, 0.5, o["lr"], 0.1, o["modulator"], o["gain_pre"], o["gain_post"], -2.0, 2.0)
    index = (None, None) if p is None else (p.crow, p.col)
    args = dict(zip(NAMES, (w, e, x, y, *rest, o["sign"], True, None, *index, True), strict=True))
    return tuple((args | changes).values())


UNSAFE = [
    ("dense", {"weight": torch.ones(7, 20)}, "weight"),
    ("dense", {"weight": torch.ones(7)}, "weight must have 2 dimensions"),
    ("dense", {"weight": torch.ones(7, 21).int()}, "weight must be a floating point"),
    ("dense", {"eligibility": torch.ones(7, 20)}, "eligibility"),
    ("dense", {"eligibility": torch.ones(3, 7, 21)}, "eligibility"),
    ("dense", {"eligibility": torch.ones(7, 21).double()}, "eligibility has the wrong dtype"),
    ("dense", {"pre": torch.ones(2, 20)}, "weight"),
    ("dense", {"pre": torch.ones(21)}, "pre must have 2 dimensions"),
    ("dense", {"post": torch.ones(3, 7)}, "post"),
    ("dense", {"rate": torch.ones(6)}, "rate"),
    ("dense", {"modulator": torch.ones(6)}, "modulator"),
    ("dense", {"modulator": torch.ones(2, 7)}, "needs a trace for each sample"),
    ("dense", {"gain_pre": torch.ones(7)}, "gain_pre"),
    ("dense", {"sign": torch.ones(7)}, "sign"),
    ("dense", {"mask": torch.ones(7, 20) > 0}, "mask"),
    ("dense", {"mask": torch.ones(7, 21)}, "mask has the wrong dtype"),
    ("dense", {"trace_decay": 1.5}, "trace_decay"),
    ("dense", {"decay": math.nan}, "decay"),
    ("dense", {"lower": 3.0}, "lower must not exceed upper"),
    ("dense", {"crow": torch.zeros(8, dtype=torch.int32)}, "crow and col"),
    ("pattern", {"crow": torch.zeros(7, dtype=torch.int32)}, "crow"),
    ("pattern", {"crow": torch.zeros(8, dtype=torch.int64)}, "crow"),
    ("pattern", {"weight": torch.ones(3), "eligibility": torch.ones(3)}, "weight must hold"),
    ("pattern", {"mask": torch.ones(7, 21) > 0}, "mask needs a dense weight"),
]


@pytest.mark.parametrize(("kind", "change", "message"), UNSAFE, ids=range(len(UNSAFE)))
def test_raw_op(kind, change, message):
    for op in (torch.ops.synops.three_factor, torch.ops.synops.three_factor_):
        with pytest.raises(RuntimeError, match=message):
            op(*raw(kind, **change))


@pytest.mark.parametrize("column", [21, -1, 2**31 - 1])
def test_raw_columns(column):
    args = dict(zip(NAMES, raw("pattern"), strict=True))
    args["col"] = args["col"].clone()
    args["col"][-1] = column
    with pytest.raises(RuntimeError, match="col must lie in"):
        torch.ops.synops.three_factor(*args.values())


ONES = {"weight": torch.ones(4, 5), "eligibility": torch.ones(4, 5), "pre": torch.ones(5)}
ONES |= {"post": torch.ones(4), "lr": 0.1, "trace_decay": 0.9}
WRONG = [
    ({"weight": [1.0]}, TypeError, "weight must be a torch.Tensor, got list"),
    ({"weight": torch.ones(4)}, ValueError, r"weight must have shape \(out, in\)"),
    ({"eligibility": torch.ones(4, 4)}, ValueError, "eligibility must have shape"),
    ({"eligibility": torch.ones(4, 5).double()}, TypeError, "eligibility must be float32"),
    ({"eligibility": None}, TypeError, "eligibility must be a torch.Tensor"),
    ({"pre": torch.ones(4)}, ValueError, "pre must have shape"),
    ({"pre": torch.ones(2, 5)}, ValueError, "post must have as many samples"),
    ({"post": torch.ones(4).int()}, TypeError, "post must be float32"),
    ({"trace_decay": 1.1}, ValueError, r"trace_decay must lie in \[0, 1\], got 1.1"),
    ({"trace_decay": math.nan}, ValueError, "trace_decay must be finite"),
    ({"trace_decay": "0"}, TypeError, "trace_decay must be a number"),
    ({"lr": math.inf}, ValueError, "lr must be finite"),
    ({"modulator": torch.ones(5)}, ValueError, "modulator must have shape"),
    ({"modulator": math.nan}, ValueError, "modulator must be finite"),
    ({"clip": (1, -1)}, ValueError, "clip must be"),
    ({"reduction": "max"}, ValueError, "reduction must be one of mean, sum"),
    ({"mask": torch.ones(4, 4) > 0}, ValueError, "mask must have shape"),
    ({"sign": torch.ones(4)}, ValueError, "sign must have shape"),
    ({"pattern": torch.ones(4, 5)}, TypeError, "pattern must be a synops.sparse.Pattern"),
    ({"backend": "cuda"}, ValueError, "backend"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments(change, error, message):
    for rule in (three_factor, three_factor_):
        args = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in ONES.items()}
        with pytest.raises(error, match=f"{rule.__name__}: {message}|^backend"):
            rule(**args | change)


def test_a_factor_for_each_sample_needs_a_trace_for_each():
    args = ONES | {"pre": torch.ones(3, 5), "post": torch.ones(3, 4)}
    with pytest.raises(ValueError, match="where samples share an eligibility"):
        three_factor(**args, modulator=torch.ones(3, 4))
    args["eligibility"] = torch.ones(3, 4, 5)
    three_factor(**args, modulator=torch.ones(3, 1))
