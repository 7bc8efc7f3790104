"""three_factor_sequence against a loop over three_factor, to the bit, and as it is called."""

import math

import pytest
import torch
from three_factor_samples import sample

import synops
from close import assert_close
from synops import _chunks
from synops.hebbian import (
    three_factor,
    three_factor_,
    three_factor_sequence,
    three_factor_sequence_,
)
from synops.sparse import Pattern

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# (steps, batch, out, in). One step; a vector of steps and a rest, two tiles of columns; more steps
# than a block has (of samples that share a trace: 7 of 9), rows of two groups; a tile to itself.
SIZES = [
    (1, None, 7, 21),
    (19, None, 5, 70),
    (9, 9, 13, 37),
    (70, 1, 2, 64),
    (3, 2, 1, 3),
]


def sequence(size, dtype, *, kind="dense", per_sample=False, modulator="steps", seed=0):
    """(weight, eligibility, pre, post) and options, with a modulator of this form."""
    steps, batch, rows, cols = size
    tensors, options = sample((rows, cols), batch, dtype, kind=kind, per_sample=per_sample)
    g = torch.Generator().manual_seed(seed)
    many = () if batch is None else (batch,)
    x = torch.randn(steps, *many, cols, generator=g).to(dtype)
    y = torch.randn(steps, *many, rows, generator=g).to(dtype)
    shape = {
        "number": None,
        "units": (rows,),
        "steps": (steps, rows),
        "scalars": (steps, 1),
        "samples": (steps, batch or 1, rows),
        "sample_scalars": (steps, batch or 1, 1),
    }[modulator]
    m = 0.75
    if shape is not None:
        m = torch.randn(shape, generator=g).to(options["lr"].dtype)
        m = m * (torch.rand(shape, generator=g) < 0.7)  # 0: weights are left alone
    return (*tensors[:2], x, y), options | {"modulator": m}


def step_of(modulator, t):
    """What three_factor takes for step t."""
    if not isinstance(modulator, torch.Tensor) or modulator.dim() < 2:
        return modulator
    return modulator[t, 0] if modulator.shape[1:] == (1,) else modulator[t]


def loop(tensors, options, rule=three_factor):
    w, e, pre, post = tensors
    for t in range(pre.shape[0]):
        of_step = options | {"modulator": step_of(options["modulator"], t)}
        w, e = rule(w, e, pre[t], post[t], **of_step)
    return w, e


def assert_equal(got, want):
    for a, b in zip(got, want, strict=True):
        bits = torch.int64 if a.dtype == torch.float64 else None
        bits = bits or (torch.int32 if a.dtype == torch.float32 else torch.int16)
        assert torch.equal(a.view(bits), b.view(bits))  # signs of 0, too


def cases(dtype, kind):
    """Every size with every form of a modulator that fits; options take turns."""
    turn = 0
    for size in SIZES:
        for per_sample in (False, True):
            forms = ["number", "units", "steps", "scalars"]
            alone = not per_sample and (size[1] or 1) > 1
            for form in forms if alone else [*forms, "samples", "sample_scalars"]:
                turn += 1
                tensors, options = sequence(
                    size, dtype, kind=kind, per_sample=per_sample, modulator=form
                )
                if turn % 3 == 1:
                    options |= {"clip": None, "sign": None}
                if turn % 3 == 2:
                    options |= {"lr": 0.3, "sign": None, "gain_pre": None}
                    options |= {"gain_post": None, "reduction": "sum"}
                if turn % 2:
                    options |= {"decay": 0.0}
                yield tensors, options


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("kind", ["dense", "mask", "pattern"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_loop(dtype, kind):
    for tensors, options in cases(dtype, kind):
        want = loop(tensors, options)
        assert_equal(three_factor_sequence(*tensors, **options), want)
        weight, trace = tensors[0].clone(), tensors[1].clone()
        same = three_factor_sequence_(weight, trace, *tensors[2:], **options)
        assert same.weight is weight
        assert same.eligibility is trace
        assert_equal(same, want)


@pytest.mark.parametrize("kind", ["dense", "mask", "pattern"])
def test_reference(kind):
    """Which is a loop over the reference of a step."""
    for tensors, options in cases(torch.float64, kind):
        options |= {"backend": "reference"}
        assert_equal(three_factor_sequence(*tensors, **options), loop(tensors, options))


@pytest.mark.triton
@pytest.mark.parametrize("kind", ["dense", "mask", "pattern"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_triton(dtype, kind):
    for size, per_sample, form in (
        ((4, None, 5, 21), False, "steps"),
        ((3, 2, 5, 21), False, "scalars"),
        ((3, 2, 5, 21), True, "samples"),
        ((2, 3, 5, 21), True, "units"),
    ):
        tensors, options = sequence(size, dtype, kind=kind, per_sample=per_sample, modulator=form)
        if form == "steps":
            options |= {"decay": 0.0, "sign": None, "clip": None}
        options |= {"backend": "triton"}
        got = three_factor_sequence(*tensors, **options)
        w, e = (t.double() for t in loop(tensors, options))  # its halves are rounded alike
        scale = torch.full_like(w, 3 + 4 * size[0] * float(e.abs().max()))
        assert_close(got.weight, w, dtype, 16 * size[0], scale)
        scale = torch.full_like(e, 1 + float(e.abs().max()))
        assert_close(got.eligibility, e, tensors[1].dtype, 16 * size[0], scale)


class TestSizes:
    def test_more_than_is_packed_at_once(self):
        """Two megabytes of pre are; of threads nothing depends."""
        for kind in ("dense", "pattern"):
            tensors, options = sequence((17, None, 3, 70000), torch.float32, kind=kind)
            assert_equal(three_factor_sequence(*tensors, **options), loop(tensors, options))

    def test_of_threads(self, threads):
        for kind in ("dense", "pattern"):
            for per_sample in (False, True):
                size = (40, 3, 50, 300)
                tensors, options = sequence(size, torch.float32, kind=kind, per_sample=per_sample)
                answers = []
                for count in (1, 2, 3, 7):
                    threads(count)
                    answers.append(three_factor_sequence(*tensors, **options))
                for other in answers[1:]:
                    assert_equal(other, answers[0])

    @pytest.mark.parametrize("shape", [(0, 5), (4, 0), (0, 0)])
    def test_no_units(self, shape):
        w, e = torch.ones(shape), torch.ones(shape)
        x, y = torch.ones(3, shape[1]), torch.ones(3, shape[0])
        assert three_factor_sequence(w, e, x, y, lr=1, trace_decay=0).weight.shape == shape

    def test_no_steps(self):
        """What was given, whatever it is."""
        w, e = torch.tensor([[1.0, math.nan]]), torch.ones(1, 2)
        args = (torch.ones(0, 2), torch.ones(0, 1))
        options = {"lr": 1.0, "trace_decay": 0.5, "sign": -torch.ones(2)}
        for backend in ("cpp", "reference"):
            got = three_factor_sequence(w, e, *args, **options, backend=backend)
            assert_equal(got, (w, e))
            assert got.weight.data_ptr() != w.data_ptr()
        with pytest.raises(ValueError, match="agree with sign"):  # which nothing has checked
            three_factor(got.weight, e, torch.ones(2), torch.ones(1), **options)

    @pytest.mark.parametrize("kind", ["dense", "mask", "pattern"])
    def test_no_samples(self, kind):
        for per_sample in (False, True):
            for decay in (0.0, 0.25):
                tensors, options = sequence(
                    (3, 0, 7, 21),
                    torch.float32,
                    kind=kind,
                    per_sample=per_sample,
                    modulator="units",
                )
                if per_sample:
                    tensors = (tensors[0], tensors[1][:0], *tensors[2:])
                options |= {"decay": decay}
                assert_equal(three_factor_sequence(*tensors, **options), loop(tensors, options))

    def test_layouts(self):
        """Slices, transposes and other types of activities."""
        (w, e, pre, post), options = sequence((5, 2, 7, 21), torch.float32)
        want = three_factor_sequence(w, e, pre, post, **options)
        other = pre.transpose(0, 1).contiguous().transpose(0, 1)
        last = post.permute(2, 0, 1).contiguous().permute(1, 2, 0)
        options["modulator"] = options["modulator"].t().contiguous().t()
        assert_equal(three_factor_sequence(w, e, other, last, **options), want)
        room = torch.full((7, 30), math.nan)
        room[:, :21] = w
        turned = e.t().contiguous().t()
        three_factor_sequence_(room[:, :21], turned, pre, post, **options)
        assert torch.equal(room[:, :21], want.weight)
        assert torch.equal(turned, want.eligibility)
        assert room[:, 21:].isnan().all()
        columns = w.t().contiguous().t()
        three_factor_sequence_(columns, e.clone(), pre, post, **options)
        assert torch.equal(columns, want.weight)
        spikes = pre > 0
        want = three_factor_sequence(w, e, spikes.float(), post, **options)
        assert_equal(three_factor_sequence(w, e, spikes, post, **options), want)

    def test_capacity_is_not_read(self):
        pattern = Pattern.from_mask(torch.rand(7, 21) < 0.4, capacity=140)
        w, e = torch.full((140,), math.nan), torch.full((140,), math.nan)
        w[: pattern.nnz], e[: pattern.nnz] = 0.5, 0.25
        options = {"lr": 0.1, "trace_decay": 0.9, "pattern": pattern}
        got = three_factor_sequence(w, e, torch.ones(3, 21), torch.ones(3, 7), **options)
        assert got.weight[: pattern.nnz].isfinite().all()
        assert got.weight[pattern.nnz :].isnan().all()
        three_factor_sequence_(w, e, torch.ones(3, 21), torch.ones(3, 7), **options)
        assert torch.equal(w.nan_to_num(), got.weight.nan_to_num())


class TestGate:
    @pytest.mark.parametrize("kind", ["dense", "pattern"])
    def test_shut(self, kind):
        """Steps whose factor is 0 leave weights to the bit, even beyond the clip, even NaN."""
        for per_sample in (False, True):
            form = "samples" if per_sample else "steps"
            (w, e, pre, post), options = sequence(
                (6, 2, 7, 21), torch.float32, kind=kind, per_sample=per_sample, modulator=form
            )
            options |= {"decay": 0.0, "clip": (-0.1, 0.1), "sign": None}
            options["modulator"][..., 2:5] = 0
            row = torch.arange(7)[:, None].expand(7, 21)
            if kind == "pattern":
                row = options["pattern"].gather(row.float()).long()
            shut = (row >= 2) & (row < 5)
            w[tuple(shut.nonzero()[0])] = math.nan
            got = three_factor_sequence(w, e, pre, post, **options)
            assert torch.equal(got.weight[shut].nan_to_num(7), w[shut].nan_to_num(7))
            assert (got.weight[~shut].abs() <= 0.1).all()


class TestReports:
    def test_overflow(self):
        """Of a weight, and of a trace of a row whose weights are left alone."""
        for kind in ("dense", "pattern"):
            (w, e, pre, post), options = sequence((9, None, 7, 21), torch.float32, kind=kind)
            options |= {"lr": 1e38, "modulator": 1.0, "clip": None, "sign": None}
            with pytest.raises(OverflowError, match="three_factor_sequence: weight overflowed"):
                three_factor_sequence(w, e, pre * 100, post, **options)
            options |= {"lr": 0.0, "trace_decay": 1.0, "reduction": "sum"}
            pre[3], post[3] = 1e25, 1e25
            with pytest.raises(OverflowError):
                three_factor_sequence(w, e, pre, post, **options)

    @pytest.mark.parametrize("pieces", [False, True])
    def test_nothing_is_written_before(self, pieces, monkeypatch):
        """NaN in the last step of any of the arguments."""
        if pieces:
            monkeypatch.setattr(_chunks, "_NANOSECONDS", 1)
        for kind in ("dense", "pattern"):
            (w, e, pre, post), options = sequence((4, 2, 7, 21), torch.float32, kind=kind)
            before = w.clone(), e.clone()
            for name in ("pre", "post", "lr", "modulator", "gain_pre", "gain_post"):
                given = {"pre": pre, "post": post, **options}
                given[name] = given[name].clone()
                given[name].view(-1)[-1] = math.nan
                rule = rf"three_factor_sequence_: .*{name}.* must be finite"
                with pytest.raises(ValueError, match=rule):
                    three_factor_sequence_(w, e, **given)
                assert_equal((w, e), before)
                with pytest.raises(ValueError, match="must be finite"):
                    three_factor_sequence(w, e, **given, backend="reference")
            with pytest.raises(ValueError, match="weight must agree with sign"):
                three_factor_sequence_(w, e, pre, post, **options | {"sign": -options["sign"]})
            assert_equal((w, e), before)

    @pytest.mark.triton
    @pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")  # numpy's, which interprets
    def test_triton(self):
        (w, e, pre, post), options = sequence((3, None, 7, 21), torch.float32)
        before = w.clone(), e.clone()
        options |= {"backend": "triton"}
        pre[-1, -1] = math.nan
        with pytest.raises(ValueError, match="pre must be finite"):
            three_factor_sequence_(w, e, pre, post, **options)
        assert_equal((w, e), before)
        pre[-1, -1] = 3e38
        with pytest.raises(OverflowError):
            three_factor_sequence(w, e, pre, post * 100, **options)


class TestPieces:
    @pytest.mark.parametrize("kind", ["dense", "pattern"])
    def test_nothing_tells(self, kind, monkeypatch):
        """A run is cut so that Ctrl-C can stop it."""
        for per_sample, form in ((False, "steps"), (True, "samples"), (False, "units")):
            tensors, options = sequence(
                (7, 2, 7, 21), torch.float32, kind=kind, per_sample=per_sample, modulator=form
            )
            want = three_factor_sequence(*tensors, **options)
            with monkeypatch.context() as patch:
                patch.setattr(_chunks, "_NANOSECONDS", 100)
                assert_equal(three_factor_sequence(*tensors, **options), want)
                w, e = tensors[0].clone(), tensors[1].clone()
                three_factor_sequence_(w, e, *tensors[2:], **options)
                assert_equal((w, e), want)

    def test_stopped(self, monkeypatch):
        """What was written stays written, also where the op works on a copy."""
        (w, e, pre, post), options = sequence((4, None, 7, 21), torch.float32)
        monkeypatch.setattr(_chunks, "_NANOSECONDS", 1)
        options |= {"clip": None, "sign": None, "lr": 1e20, "modulator": 1.0}
        pre[2:] *= 1e20
        want = loop((w, e, pre[:2], post[:2]), options, three_factor)
        want = list(want)
        with pytest.raises(OverflowError):
            three_factor_(want[0], want[1], pre[2], post[2], **options)
        columns = w.t().contiguous().t()
        with pytest.raises(OverflowError):
            three_factor_sequence_(columns, e, pre, post, **options)
        assert_equal((columns.contiguous(), e), want)


class TestInPlace:
    def options(self):
        return {"lr": 0.1, "trace_decay": 0.9}

    def test_requires_grad(self):
        w, e = torch.ones(4, 5, requires_grad=True), torch.ones(4, 5)
        args = (torch.ones(3, 5), torch.ones(3, 4))
        with pytest.raises(ValueError, match="weight must not require grad"):
            three_factor_sequence_(w, e, *args, **self.options())
        with torch.no_grad():
            three_factor_sequence_(w, e, *args, **self.options())
        assert not torch.equal(w, torch.ones(4, 5))

    def test_aliases(self):
        w, e = torch.ones(4, 5), torch.ones(4, 5)
        x, y = torch.ones(3, 5), torch.ones(3, 4)
        for args in (
            (w, w, x, y),
            (w, e, w[:3], y),
            (w, e, e[:3], y),
            (w, e[:1].expand(4, 5), x, y),
        ):
            with pytest.raises(ValueError, match=r"three_factor_sequence_: \w+ must"):
                three_factor_sequence_(*args, **self.options())
        assert torch.equal(w, torch.ones(4, 5))


class TestTransforms:
    def test_a_gradient_is_refused_and_the_references(self):
        tensors, options = sequence((3, None, 4, 5), torch.float64)
        tensors[2].requires_grad_()
        with pytest.raises(NotImplementedError, match="three_factor_sequence: a gradient"):
            three_factor_sequence(*tensors, **options).weight.sum().backward()
        got = three_factor_sequence(*tensors, **options, backend="reference")
        got.weight.sum().backward()
        assert tensors[2].grad.isfinite().all()

    def test_compiled_and_exported(self):
        torch._dynamo.reset()

        def run(w, e, x, y):
            return three_factor_sequence_(w, e, x.sin(), y, lr=0.1, trace_decay=0.9)

        class Rule(torch.nn.Module):
            def forward(self, w, e, x, y):
                return tuple(three_factor_sequence(w, e, x, y, lr=0.1, trace_decay=0.9))

        w, e, x, y = sequence((3, 2, 4, 5), torch.float32)[0]
        want = run(w.clone(), e.clone(), x, y)
        compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
        assert_equal(compiled(w.clone(), e.clone(), x, y), want)
        program = torch.export.export(Rule(), (w, e, x, y))
        assert_equal(program.module()(w, e, x, y), Rule()(w, e, x, y))

    def test_vmap(self):
        args = tuple(torch.randn(2, *n) for n in ((4, 5), (4, 5), (3, 5), (3, 4)))
        f = lambda *a: tuple(three_factor_sequence(*a, lr=0.1, trace_decay=0.9))  # noqa: E731
        for i, got in enumerate(torch.vmap(f)(*args)):
            assert torch.equal(got, torch.stack([f(*a)[i] for a in zip(*args, strict=True)]))

    def test_opcheck(self):
        torch.library.opcheck(torch.ops.synops.three_factor_sequence.default, raw())
        args = raw(kind="pattern")
        torch.library.opcheck(torch.ops.synops.three_factor_sequence_.default, args)

    def test_which(self):
        tensors, options = sequence((3, None, 4, 5), torch.float32)
        said = synops.which(three_factor_sequence, *tensors, **options)
        assert "cpp" in str(said).lower()


def raw(kind="dense", **changes):
    """Arguments of the op, in its order."""
    (w, e, x, y), o = sequence((3, 2, 7, 21), torch.float32, kind=kind)
    p = o.get("pattern")
    args = {"weight": w, "eligibility": e, "pre": x, "post": y, "trace_decay": 0.9, "lr": 0.5}
    args |= {"rate": o["lr"], "decay": 0.1, "modulator": o["modulator"]}
    args |= {"gain_pre": o["gain_pre"], "gain_post": o["gain_post"], "lower": -2.0, "upper": 2.0}
    args |= {"sign": o["sign"], "check_sign": True, "mask": None}
    args |= {"crow": p and p.crow, "col": p and p.col, "mean": True}
    return tuple((args | changes).values())


# What a step does not check for it.
UNSAFE = [
    ("dense", {"pre": torch.ones(2, 21)}, "pre must have 3 dimensions"),
    ("dense", {"post": torch.ones(4, 2, 7)}, "steps of post"),
    ("dense", {"post": torch.ones(3, 1, 7)}, "batch of post"),
    ("dense", {"modulator": torch.ones(2, 7)}, "size 0 of modulator"),
    ("dense", {"modulator": torch.ones(3, 6)}, "last size of modulator"),
    ("dense", {"modulator": torch.ones(3, 2, 7)}, "needs a trace for each sample"),
    ("dense", {"modulator": torch.ones(3, 1, 2, 7)}, "at most 3 dimensions"),
    ("dense", {"weight": torch.ones(7, 20)}, "size 1 of weight"),
    ("dense", {"gain_pre": torch.ones(7)}, "gain_pre"),
    ("pattern", {"crow": torch.zeros(7, dtype=torch.int32)}, "crow"),
]


@pytest.mark.parametrize(("kind", "change", "message"), UNSAFE, ids=range(len(UNSAFE)))
def test_raw_op(kind, change, message):
    for op in (torch.ops.synops.three_factor_sequence, torch.ops.synops.three_factor_sequence_):
        with pytest.raises(RuntimeError, match=f"three_factor_sequence: .*{message}"):
            op(*raw(kind, **change))


@pytest.mark.parametrize("column", [21, -1, 2**31 - 1])
def test_raw_columns(column):
    args = list(raw("pattern"))
    before = args[0].clone()
    args[-2] = args[-2].clone()
    args[-2][-1] = column
    with pytest.raises(RuntimeError, match="col must lie in"):
        torch.ops.synops.three_factor_sequence_(*args)
    assert torch.equal(args[0], before)


ONES = {"weight": torch.ones(4, 5), "eligibility": torch.ones(4, 5), "pre": torch.ones(3, 5)}
ONES |= {"post": torch.ones(3, 4), "lr": 0.1, "trace_decay": 0.9}
FORMS = r"modulator must have shape \(\) or \(out,\) = \(4,\) for all steps"
WRONG = [
    ({"pre": torch.ones(5)}, ValueError, r"pre must have shape \(T, in\) or \(T, B, in\)"),
    ({"pre": torch.ones(3, 4)}, ValueError, "pre must have shape"),
    ({"post": torch.ones(2, 4)}, ValueError, "post must have as many steps and samples as pre"),
    ({"post": torch.ones(3, 2, 4)}, ValueError, "post must have as many steps and samples as pre"),
    ({"post": torch.ones(3, 4).int()}, TypeError, "post must be float32"),
    ({"eligibility": torch.ones(2, 4, 5)}, ValueError, "eligibility must have shape"),
    ({"trace_decay": 1.1}, ValueError, r"trace_decay must lie in \[0, 1\], got 1.1"),
    ({"modulator": torch.ones(3)}, ValueError, FORMS),
    ({"modulator": torch.ones(3, 5)}, ValueError, FORMS),
    ({"modulator": torch.ones(4, 4)}, ValueError, FORMS),
    ({"modulator": torch.ones(3, 2, 4)}, ValueError, FORMS),
    ({"modulator": torch.ones(3, 1, 1, 4)}, ValueError, FORMS),
    ({"modulator": "up"}, TypeError, "modulator must be a number"),
    ({"lr": math.inf}, ValueError, "lr must be finite"),
    ({"mask": torch.ones(4, 4) > 0}, ValueError, "mask must have shape"),
    ({"reduction": "max"}, ValueError, "reduction must be one of mean, sum"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments(change, error, message):
    for rule in (three_factor_sequence, three_factor_sequence_):
        args = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in ONES.items()}
        with pytest.raises(error, match=f"{rule.__name__}: {message}"):
            rule(**args | change)


def test_a_factor_for_each_sample_needs_a_trace_for_each():
    args = ONES | {"pre": torch.ones(3, 2, 5), "post": torch.ones(3, 2, 4)}
    with pytest.raises(ValueError, match="where they share an eligibility"):
        three_factor_sequence(**args, modulator=torch.ones(3, 2, 4))
    args["eligibility"] = torch.ones(2, 4, 5)
    three_factor_sequence(**args, modulator=torch.ones(3, 2, 1))
