"""What hebb, oja and bcm do alike: every form against float64, arguments, transforms, errors."""

import copy
import math

import pytest
import torch
from plasticity_samples import RULES, check, run, sample

import synops
from synops.hebbian import Learned, bcm_, hebb, hebb_, oja, oja_
from synops.sparse import Pattern

KINDS = ("dense", "mask", "pattern")
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# One sample is a row at a time, others tiles of 6 rows and 64 columns (32, 16 on narrower vectors),
# four tiles a block: less than a tile, one and a rest of 1 to 5 rows, more than a block of rows; a
# vector and a rest of columns, a panel, a panel and one to three vectors.
SHAPES = [(1, 1, 1), (7, 5, 1), (3, 70, 1), (8, 64, 2), (29, 130, 3), (11, 100, 20), (2, 180, 33)]


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RULES)
def test_reference(rule, kind):
    """Types, shapes, given or computed activities, every option or none take turns."""
    for turn, (rows, cols, batch) in enumerate(SHAPES):
        for given in (True, False):
            dtype = DTYPES[(turn + given) % 4]
            s = sample(kind, rows, cols, batch, dtype, given=given, every=turn % 3 != 0)
            check(rule, s)
            check(rule, sample(kind, rows, cols, batch, given=given))


@pytest.mark.triton
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RULES)
def test_triton(rule, kind):
    """One by one or by products, more than a tile; reports."""
    one, many = (2, True, torch.float32), (17, False, torch.bfloat16)
    for batch, given, dtype in {"hebb": (one, many), "oja": (many,), "bcm": (one,)}[rule]:
        s = sample(kind, 3 if kind == "pattern" else 33, 70, batch, dtype, given=given)
        with synops.backend("triton"):
            check(rule, s)
    if rule == "hebb":
        s.pre[0, 0] = math.nan
        with pytest.raises(ValueError, match="pre must be finite"):
            run(rule, s, backend="triton")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RULES)
def test_nothing(rule, kind):
    """No rows, no columns; no samples: decay, and the threshold stays."""
    for rows, cols, batch in ((0, 4, 2), (4, 0, 2), (0, 0, 0)):
        check(rule, sample(kind, rows, cols, batch, given=False))
    s = sample(kind, 5, 9, 0, every=False)
    got = run(rule, s, decay=0.25)
    assert torch.equal(got[0].nan_to_num(0), s.weight.nan_to_num(0) * 0.75)
    if rule == "bcm":
        assert torch.equal(got[1], s.theta)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RULES)
def test_same_bits_for_any_thread_count(rule, kind, threads):
    for batch, given in ((1, True), (1, False), (3, False), (40, True)):
        s = sample(kind, 130, 520, batch, given=given)
        answers = []
        for count in (1, 2, 3, 7):
            threads(count)
            answers.append(run(rule, s))
        for other in answers[1:]:
            for a, b in zip(answers[0], other, strict=True):
                assert torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))


class TestActivities:
    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.bfloat16, torch.float64])
    def test_types(self, dtype):
        s = sample("dense", 5, 9, 4)
        pre, post = (s.pre > 0).to(dtype), (s.post > 0).to(dtype)
        want = hebb(s.weight, pre.float(), post.float(), lr=0.1)
        assert torch.equal(hebb(s.weight, pre, post, lr=0.1), want)

    @pytest.mark.parametrize("rule", RULES)
    def test_one_sample_without_a_batch(self, rule):
        s = sample("dense", 5, 9, 1, given=False)
        want = run(rule, s)
        got = run(rule, s._replace(pre=s.pre[0]))
        assert got[-1].shape == (5,)
        assert torch.equal(got[-1], want[-1][0])
        assert torch.equal(got[0], want[0])

    def test_layouts(self):
        """NaN between the elements is not read; a broadcast sample counts for each."""
        s = sample("dense", 5, 9, 4)
        wide = torch.full((8, 20), torch.nan)
        wide[::2, 1:19:2] = s.pre
        for pre in (wide[::2, 1:19:2], s.pre.t().contiguous().t()):
            assert torch.equal(hebb(s.weight, pre, s.post, lr=0.1), run("hebb", s, **_LEAST)[0])
        one = s.pre[:1].expand(4, 9)
        want = hebb(s.weight, one.contiguous(), s.post, lr=0.1)
        assert torch.equal(hebb(s.weight, one, s.post, lr=0.1), want)

    def test_post_is_that_of_the_old_weight(self):
        s = sample("dense", 5, 9, 4, given=False)
        before = s.weight.clone()
        got = oja_(s.weight, s.pre, lr=0.1)
        assert isinstance(got, Learned)
        assert got.weight is s.weight
        torch.testing.assert_close(got.post, s.pre @ before.t())


_LEAST = dict.fromkeys(("modulator", "gain_pre", "gain_post", "clip")) | {"lr": 0.1, "decay": 0.0}


class TestOptions:
    def test_factors_of_one_number(self):
        s = sample("dense", 5, 9, 4, every=False)
        want = hebb(
            s.weight, s.pre, s.post, lr=torch.full((5,), 0.2), modulator=torch.full((4,), 3.0)
        )
        for lr in (0.2, torch.tensor(0.2), torch.tensor(0.2, dtype=torch.float64)):
            for modulator in (3, torch.tensor(3.0)):
                got = hebb(s.weight, s.pre, s.post, lr=lr, modulator=modulator)
                torch.testing.assert_close(got, want)

    def test_sum(self):
        s = sample("dense", 5, 9, 4, every=False)
        got = hebb(s.weight, s.pre, s.post, lr=0.1, reduction="sum")
        torch.testing.assert_close(got, s.weight + 0.1 * s.post.t() @ s.pre)

    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("rule", RULES)
    def test_sign(self, rule, kind):
        """Never passed, bounds of zero included; the reference agrees."""
        sign = torch.tensor([1, -1, 0, 1] * 8)
        s = sample(kind, 9, 32, 5)
        column = s.options["pattern"].col.long() if kind == "pattern" else torch.arange(32)
        by = sign[column].float()
        s.weight.copy_(torch.where(by == 0, s.weight, s.weight.abs() * by))
        s = s._replace(options=s.options | {"sign": sign, "lr": 3.0})
        new = check(rule, s)[0]
        assert not (new * by < 0).any()
        assert (new == 0).any()
        free = new[by == 0] if kind == "pattern" else new[:, by == 0]
        assert (free < 0).any()
        assert (free > 0).any()

    @pytest.mark.parametrize("clip", [(None, 0.1), (-0.1, None), (-0.1, math.inf), [0.0, 0.0]])
    def test_clip(self, clip):
        s = sample("dense", 9, 70, 5, every=False)
        new = run("hebb", s, clip=clip)[0]
        lower, upper = (-math.inf if clip[0] is None else clip[0]), clip[1]
        want = run("hebb", s)[0].clamp(lower, math.inf if upper is None else upper)
        assert torch.equal(new, want)

    def test_masked_entries_keep_their_bits(self):
        for dtype in DTYPES:
            s = sample("mask", 9, 70, 5, dtype)
            kept = ~s.options["mask"]
            for in_place in (False, True):
                new = run("oja", s, in_place=in_place)[0]
                assert new[kept].isnan().all()
                assert new[~kept].isfinite().all()

    def test_what_lies_behind_the_values_is_kept(self):
        pattern = Pattern.from_mask(torch.rand(9, 20) < 0.3, capacity=100)
        weight = torch.full((100,), torch.nan)
        weight[: pattern.nnz] = torch.randn(pattern.nnz)
        pre, post = torch.randn(3, 20), torch.randn(3, 9)
        new = hebb(weight, pre, post, lr=0.1, pattern=pattern)
        short = hebb(weight[: pattern.nnz].clone(), pre, post, lr=0.1, pattern=pattern)
        assert torch.equal(new[: pattern.nnz], short)
        assert new[pattern.nnz :].isnan().all()
        hebb_(weight, pre, post, lr=0.1, pattern=pattern)
        assert torch.equal(weight.nan_to_num(7.0), new.nan_to_num(7.0))


class TestInPlace:
    def test_layouts_of_the_weight(self):
        """Rows apart, transposed, every other column: the tensor itself changes."""
        s = sample("dense", 9, 20, 4, every=False)
        want = run("oja", s)[0]
        memory = torch.full((40, 80), torch.nan)
        for weight in (memory[:9, :20], memory[:20, :9].t(), memory[:18:2, :40:2]):
            weight.copy_(s.weight)
            assert torch.equal(run("oja", s._replace(weight=weight))[0], want)
            assert oja_(weight, s.pre, s.post, lr=0.1) is weight
            assert torch.equal(weight, want)
        assert memory[30:].isnan().all()

    @pytest.mark.parametrize("rule", RULES)
    def test_a_weight_that_requires_grad(self, rule):
        s = sample("dense", 9, 20, 4)
        s.weight.requires_grad_()
        before = s.weight.detach().clone()
        with pytest.raises(ValueError, match=f"{rule}_: weight must not require grad"):
            run(rule, s, in_place=True)
        assert torch.equal(s.weight, before)
        with torch.no_grad():
            run(rule, s, in_place=True)
        assert not torch.equal(s.weight, before)

    def test_a_saved_weight_is_noticed(self):
        """autograd refuses to go through a weight that has changed since its forward."""
        weight, x = torch.randn(3, 4), torch.randn(2, 4, requires_grad=True)
        y = x @ weight.t()
        hebb_(weight, x, y, lr=0.1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()

    def test_aliases(self):
        memory = torch.randn(6, 6)
        with pytest.raises(ValueError, match="hebb_: weight must share no memory"):
            hebb_(memory, memory[:2], torch.randn(2, 6), lr=0.1)
        with pytest.raises(ValueError, match="hebb_: weight must share no memory"):
            hebb_(memory, torch.randn(1, 6), memory[:, 2], lr=0.1)
        with pytest.raises(ValueError, match="hebb_: weight must not overlap itself"):
            hebb_(torch.randn(1, 6).expand(6, 6), torch.randn(6), torch.randn(6), lr=0.1)
        with pytest.raises(ValueError, match="bcm_: theta must share no memory"):
            bcm_(torch.randn(6, 6), *[memory[0], torch.randn(6), memory[0]], tau=2.0, lr=0.1)
        both = torch.randn(6)  # read twice: allowed
        hebb_(memory, both, both, lr=0.1)

    def test_under_inference_mode(self):
        with torch.inference_mode():
            weight = torch.rand(3, 4)
            hebb_(weight, torch.rand(4), torch.rand(3), lr=0.1, sign=torch.ones(4))


@pytest.mark.usefixtures("isa")
class TestReports:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize(
        "argument", ["pre", "post", "lr", "modulator", "gain_pre", "gain_post"]
    )
    def test_not_finite(self, rule, kind, argument):
        """The last number of each; nothing has changed."""
        for batch in (1, 3):
            s = sample(kind, 7, 37, batch)
            (getattr(s, argument) if argument in ("pre", "post") else s.options[argument])[
                ..., -1
            ] = math.inf
            before = s.clone()
            name = "lr or modulator" if argument in ("lr", "modulator") else argument
            name = "a gain.*" if "gain" in name else name
            with pytest.raises(ValueError, match=f"{rule}_: {name} must be finite, got inf or NaN"):
                run(rule, s, in_place=True)
            assert torch.equal(s.weight.nan_to_num(7.0), before.weight.nan_to_num(7.0))
            assert torch.equal(s.theta, before.theta)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_overflow(self, kind, dtype):
        """The last weight passes its type's largest number, by a little; below it all is well."""
        largest = torch.finfo(dtype).max
        for batch in (1, 2):
            s = sample(kind, 7, 37, batch, dtype, every=False)
            if kind == "mask":
                s.options["mask"][-1, -1] = True
                s.weight.masked_fill_(s.options["mask"] & s.weight.isnan(), 0)
            s.pre.zero_()
            s.pre[:, -8:] = 1
            s.post.zero_()
            s.post[:, -1] = 1
            s.weight.flatten()[-1] = largest
            below, above = (largest * 2.0**-9 * f for f in (0.0, 1.1))
            run("hebb", s.clone(), in_place=True, lr=below)
            if kind == "pattern":
                s.options["pattern"].mask()
            rate = torch.tensor(above, dtype=s.pre.dtype if dtype != torch.float64 else dtype)
            with pytest.raises(OverflowError, match="hebb_: weight overflowed: lower lr"):
                run("hebb", s, in_place=True, lr=rate)
            assert not s.weight.isfinite().all()

    @pytest.mark.parametrize("rule", RULES)
    def test_a_weight_that_is_nan(self, rule):
        s = sample("dense", 7, 37, 1, given=False)
        s.weight[3, 5] = torch.nan
        with pytest.raises(OverflowError, match="weight overflowed"):
            run(rule, s)

    @pytest.mark.parametrize("kind", KINDS)
    def test_sign_of_the_weight(self, kind):
        """Checked as it comes in, in the last column too, and not where it is masked."""
        s = sample(kind, 7, 37, 2, every=False)
        s.weight.abs_()
        sign = torch.ones(37)
        if kind == "mask":
            s.weight.masked_fill_(s.weight.isnan(), -1)
            s.options["mask"][-1, -1] = True
        run("hebb", s.clone(), in_place=True, sign=sign) if kind != "mask" else None
        s.weight.flatten()[-1] = -1e-3
        before = s.weight.clone()
        with pytest.raises(ValueError, match="hebb_: weight must agree with sign"):
            run("hebb", s, in_place=True, sign=sign)
        assert torch.equal(s.weight, before)


def test_the_sign_check_remembers():
    """A weight that came out of an update is not checked again, unless it or the sign changed."""
    from synops.hebbian._plasticity import remembered

    weight, sign, pre, post = torch.rand(3, 4), torch.ones(4), torch.rand(4), torch.rand(3)
    hebb_(weight, pre, post, lr=0.1, sign=sign)
    assert remembered(weight, sign)
    assert not remembered(weight, sign.clone())
    weight[0, 0] = -1
    assert not remembered(weight, sign)
    with pytest.raises(ValueError, match="agree with sign"):
        hebb_(weight, pre, post, lr=0.1, sign=sign)
    new = hebb(weight.abs(), pre, post, lr=0.1, sign=sign)
    assert remembered(new, sign)
    sign.neg_()
    with pytest.raises(ValueError, match="agree with sign"):
        hebb_(new, pre, post, lr=0.1, sign=sign)
    copy.deepcopy(new)


class TestTransforms:
    def test_a_gradient_is_refused_and_the_references(self):
        s = sample("dense", 3, 4, 2, torch.float64, every=False)
        pre, post = s.pre.double().requires_grad_(), s.post.double()
        for leaf in (s.weight.requires_grad_(), pre):
            with pytest.raises(NotImplementedError, match="oja: a gradient is not implemented"):
                oja(s.weight, pre, post, lr=0.1).sum().backward()
            oja(s.weight, pre, post, lr=0.1, backend="reference").sum().backward()
            assert leaf.grad.isfinite().all()
            s.weight.requires_grad_(False)

    @pytest.mark.parametrize("in_place", [False, True])
    def test_compiled(self, in_place):
        torch._dynamo.reset()
        s = sample("dense", 3, 4, 2, given=False)

        def f(weight, pre):
            new, post = (oja_ if in_place else oja)(weight, pre.sin(), lr=0.1)
            return new * 2, post

        compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
        for batch in (2, 5):
            pre, one, other = torch.randn(batch, 4), s.weight.clone(), s.weight.clone()
            assert all(map(torch.equal, compiled(one, pre), f(other, pre)))
            assert torch.equal(one, other)

    def test_exported(self):
        class Layer(torch.nn.Module):
            def forward(self, weight, pre):
                return tuple(oja(weight, pre, lr=0.1))

        args = (torch.randn(3, 4), torch.randn(2, 4))
        program = torch.export.export(Layer(), args)
        assert all(map(torch.equal, program.module()(*args), Layer()(*args)))

    def test_vmap(self):
        """Over seeds, and what one of them breaks."""
        weight, pre = torch.randn(3, 5, 9), torch.randn(3, 2, 9)
        f = lambda w, x: tuple(oja(w, x, lr=0.1))  # noqa: E731
        want = [torch.stack(t) for t in zip(*map(f, weight, pre), strict=True)]
        assert all(map(torch.equal, torch.vmap(f)(weight, pre), want))
        pre[1, 0, 0] = torch.nan
        with pytest.raises(ValueError, match="oja: pre must be finite"):
            torch.vmap(f)(weight, pre)

    @pytest.mark.parametrize("rule", RULES)
    def test_opcheck(self, rule):
        args = raw(rule)
        ops = torch.ops.synops
        torch.library.opcheck(getattr(ops, rule).default, args, test_utils=_CHECKS)
        torch.library.opcheck(getattr(ops, f"{rule}_").default, args, test_utils=_CHECKS)

    def test_which(self):
        s = sample("dense", 3, 4, 2)
        assert "cpp" in str(synops.which(hebb, s.weight, s.pre, s.post, lr=0.1)).lower()


_CHECKS = ("test_schema", "test_faketensor")


def raw(rule, **changes):
    """Arguments of a rule's op, in its order."""
    pattern = changes.pop("pattern", None)
    args = {
        "weight": torch.rand(5, 7) if pattern is None else torch.rand(pattern.nnz),
        "theta": torch.rand(5),
        "pre": torch.rand(3, 7),
        "post": torch.rand(3, 5),
        "theta_rate": 0.1,
        "lr": 0.1,
        "rate": None,
        "decay": 0.0,
        "modulator": torch.rand(3),
        "gain_pre": torch.rand(7),
        "gain_post": torch.rand(5),
        "lower": -1.0,
        "upper": 1.0,
        "sign": None,
        "check_sign": True,
        "mask": None,
        "crow": None if pattern is None else pattern.crow,
        "col": None if pattern is None else pattern.col,
        "mean": True,
    } | changes
    if rule != "bcm":
        del args["theta"], args["theta_rate"]
    return tuple(args.values())


_PATTERN = Pattern.from_mask(torch.ones(5, 7).tril() > 0)
UNSAFE = [
    ({"weight": torch.rand(5, 8)}, "size 1 of pre"),
    ({"weight": torch.rand(5)}, "2 dimensions"),
    ({"weight": torch.rand(5, 7).int()}, "floating point"),
    ({"weight": torch.rand(5, 7).double()}, "pre has the wrong dtype"),
    ({"weight": torch.rand(7, 5).t()}, "weight must have rows of contiguous elements"),
    ({"weight": torch.rand(1, 7).expand(5, 7)}, "weight must have rows of contiguous elements"),
    ({"pre": torch.rand(7)}, "2 dimensions"),
    ({"pre": torch.rand(4, 7)}, "size 0 of post"),
    ({"post": torch.rand(3, 6)}, "size 1 of post"),
    ({"modulator": torch.rand(4)}, "size 0 of modulator"),
    ({"rate": torch.rand(4)}, "size 0 of rate"),
    ({"gain_pre": torch.rand(())}, "gain_pre"),
    ({"gain_post": torch.rand(4)}, "gain_post"),
    ({"sign": torch.rand(5)}, "sign"),
    ({"mask": torch.rand(5, 7)}, "mask has the wrong dtype"),
    ({"mask": torch.rand(5, 6) > 0}, "size 1 of mask"),
    ({"crow": _PATTERN.crow}, "crow and col must come together"),
    ({"pattern": _PATTERN, "weight": torch.rand(3)}, "weight must hold 15 elements"),
    ({"pattern": _PATTERN, "mask": torch.rand(5, 7) > 0}, "mask must be absent"),
    ({"pattern": _PATTERN, "col": torch.full_like(_PATTERN.col, 7)}, "col must lie in"),
    ({"pattern": _PATTERN, "col": torch.full_like(_PATTERN.col, -1)}, "col must lie in"),
    ({"pattern": _PATTERN, "crow": _PATTERN.crow.flip(0)}, "crow must ascend"),
    ({"pattern": _PATTERN, "crow": _PATTERN.crow[:-1]}, "crow must ascend"),
]


@pytest.mark.parametrize(("change", "message"), UNSAFE, ids=range(len(UNSAFE)))
def test_raw_ops(change, message):
    for rule in RULES:
        with pytest.raises(RuntimeError, match=message):
            getattr(torch.ops.synops, f"{rule}_")(*raw(rule, **change))


def test_raw_ops_report():
    """What nothing was written for, as a copy; numbers are bits."""
    nan = torch.full((3, 7), torch.nan)
    for change, bits in (
        ({"pre": nan}, 1),
        ({"modulator": nan[:, 0]}, 4),
        ({"lr": math.nan}, 4),
        ({"gain_pre": nan[0]}, 8),
        ({"lower": 1.0, "upper": -1.0}, 8),
        ({"sign": -torch.ones(7)}, 16),
    ):
        args = raw("oja", **change)
        new, _, report = torch.ops.synops.oja(*args)
        assert report.item() == bits
        assert torch.equal(new, args[0])


@pytest.mark.parametrize("rule", RULES)
def test_raw_ops_see_what_is_shared(rule):
    weight = torch.rand(5, 7)
    for shared in ({"pre": weight[:3]}, {"gain_pre": weight[4]}):
        before = weight.clone()
        report = getattr(torch.ops.synops, f"{rule}_")(*raw(rule, weight=weight, **shared))[-1]
        assert int(report) == 32
        assert torch.equal(weight, before)


WRONG = [
    ({"weight": [1.0]}, TypeError, "weight must be a torch.Tensor, got list"),
    ({"weight": torch.ones(2, 3).int()}, TypeError, "weight must be float32"),
    ({"weight": torch.ones(3)}, ValueError, r"weight must have shape \(out, in\), got \(3,\)"),
    (
        {"pre": torch.ones(4, 4)},
        ValueError,
        r"pre must have shape \(in,\) or \(B, in\) with in = 3",
    ),
    (
        {"pre": torch.ones(4, 3).int()},
        TypeError,
        "pre must be float32, .* bool or uint8, got int32",
    ),
    ({"post": torch.ones(4, 3)}, ValueError, r"post must have shape \(out,\) or \(B, out\)"),
    ({"post": torch.ones(5, 2)}, ValueError, r"post must have as many samples as pre \(4\), got 5"),
    ({"lr": None}, TypeError, "lr must be a number, got NoneType"),
    ({"lr": math.nan}, ValueError, "lr must be finite, got nan"),
    ({"lr": torch.ones(3)}, ValueError, r"lr must have shape \(\) or \(out,\) = \(2,\)"),
    ({"decay": 1.5}, ValueError, r"decay must lie in \[0, 1\], got 1.5"),
    (
        {"modulator": torch.ones(3)},
        ValueError,
        r"modulator must have shape \(\) or \(B,\) = \(4,\)",
    ),
    ({"modulator": 1e300, "lr": 1e300}, ValueError, "lr must be finite once multiplied"),
    ({"gain_pre": torch.ones(2)}, ValueError, r"gain_pre must have shape \(in,\) = \(3,\)"),
    ({"gain_post": 2.0}, TypeError, "gain_post must be a torch.Tensor, got float"),
    ({"clip": (1.0, 0.0)}, ValueError, "clip must be .* with lower <= upper, got"),
    ({"clip": (math.nan, 0.0)}, ValueError, "clip must be"),
    ({"clip": 1.0}, TypeError, r"clip must be None or \(lower, upper\), got 1.0"),
    ({"clip": ("a", 0.0)}, TypeError, "clip must hold two numbers"),
    ({"sign": torch.ones(2)}, ValueError, r"sign must have shape \(in,\) = \(3,\)"),
    ({"sign": torch.ones(3) > 0}, TypeError, "sign must be of a real type"),
    ({"sign": torch.ones(3), "clip": (0.1, 1.0)}, ValueError, "clip must hold 0 where sign is"),
    ({"mask": torch.ones(2, 3)}, TypeError, "mask must be bool, got float32"),
    ({"mask": torch.ones(3, 2) > 0}, ValueError, r"mask must have shape \(out, in\) = \(2, 3\)"),
    ({"pattern": torch.ones(2, 3)}, TypeError, "pattern must be a synops.sparse.Pattern"),
    (
        {"pattern": Pattern.from_mask(torch.ones(2, 3) > 0)},
        ValueError,
        r"weight must have shape \(nnz,",
    ),
    ({"reduction": "none"}, ValueError, "reduction must be one of mean, sum, got 'none'"),
    ({"backend": "cuda"}, ValueError, "backend"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments(change, error, message):
    args = {
        "weight": torch.rand(2, 3),
        "pre": torch.rand(4, 3),
        "post": torch.rand(4, 2),
        "lr": 0.1,
    }
    for f in (hebb, oja_):
        with pytest.raises(error, match=message):
            f(**args | change)
