"""The helpers of close.py accept what is right and refuse what is not."""

import pytest
import torch

from close import ULPS, accumulator, assert_close, assert_grad_close

DTYPES = list(ULPS)


@pytest.fixture
def want():
    return torch.randn(400, dtype=torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("check", [assert_close, assert_grad_close])
class TestBoth:
    def test_rounding_passes(self, check, want, dtype):
        check(want.to(dtype), want, dtype, 1)

    def test_empty_passes(self, check, dtype):
        check(torch.empty(0, 3, dtype=dtype), torch.empty(0, 3, dtype=torch.float64), dtype, 0)

    def test_zero_passes(self, check, dtype):
        check(torch.zeros(3, dtype=dtype), torch.zeros(3, dtype=torch.float64), dtype, 1)

    def test_one_wrong_element_fails(self, check, want, dtype):
        got = want.to(dtype, copy=True)
        got[7] += 16 * max(1, got[7].abs()) * torch.finfo(dtype).eps
        with pytest.raises(AssertionError, match=r"1 of 400 elements are off, first \(7,\)"):
            check(got, want, dtype, 1)

    @pytest.mark.parametrize("poison", [torch.nan, torch.inf])
    def test_poison_fails(self, check, want, dtype, poison):
        got = want.to(dtype, copy=True)
        got[0] = poison
        with pytest.raises(AssertionError, match="elements are off"):
            check(got, want, dtype, 10**6)

    def test_not_zero_fails(self, check, dtype):
        got = torch.tensor([0.0, torch.finfo(dtype).smallest_normal], dtype=dtype)
        with pytest.raises(AssertionError):
            check(got, torch.zeros(2, dtype=torch.float64), dtype, 1)

    def test_other_shape_fails(self, check, want, dtype):
        with pytest.raises(AssertionError, match="shape"):
            check(want.to(dtype)[:1], want, dtype, 1)  # would broadcast

    def test_other_dtype_fails(self, check, want, dtype):
        other = torch.float16 if dtype != torch.float16 else torch.float32
        with pytest.raises(AssertionError, match="dtype"):
            check(want.to(other), want, dtype, 1)

    def test_reference_below_float64_fails(self, check, want, dtype):
        with pytest.raises(AssertionError, match="float64"):
            check(want.to(dtype), want.float(), dtype, 1)

    def test_reference_with_nan_fails(self, check, dtype):
        nan = torch.full((2,), torch.nan, dtype=torch.float64)
        with pytest.raises(AssertionError, match="finite"):
            check(nan.to(dtype), nan, dtype, 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sums_fail(dtype):
    """What the table is for: 1000 terms summed in half precision are not within 1 ulp."""
    terms = torch.randn(50, 1000).to(dtype)
    total = terms[:, 0].clone()
    for i in range(1, 1000):
        total = total + terms[:, i]
    with pytest.raises(AssertionError, match="elements are off"):
        assert_close(total, terms.double().sum(1), dtype, 1000)


def test_float32_sums_pass():
    terms = torch.randn(50, 1000)
    assert_close(terms.sum(1), terms.double().sum(1), torch.float32, 1000)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_bias_shows_in_the_vector(dtype):
    """Every element inside its own tolerance, all to the same side."""
    want = (
        2.0 ** torch.randint(-3, 4, (400,)).double()
    )  # powers of 2: the next number is 1 ulp away
    ulps = max(1, int(0.75 * ULPS[dtype].element))
    got = (want * (1 + ulps * torch.finfo(dtype).eps)).to(dtype)
    assert_close(got, want, dtype, 1)
    with pytest.raises(AssertionError, match="relative L2"):
        assert_grad_close(got, want, dtype, 1)


def test_a_sum_that_cancels_has_the_error_of_its_terms():
    terms = torch.randn(40, 1000)
    terms[:, -1] = 0
    terms[:, -1] = -terms.double().sum(1).float()
    want = terms.double().sum(1)  # about 1e-6, of partial sums of about 30
    scale = terms.double().square().sum(1).sqrt()
    assert_close(terms.sum(1), want, torch.float32, 1000, scale)
    with pytest.raises(AssertionError, match="elements are off"):
        assert_close(terms.sum(1), want, torch.float32, 1000)
    with pytest.raises(AssertionError, match="elements are off"):
        assert_close(terms.sum(1) + 0.1, want, torch.float32, 1000, scale)


def test_accumulator():
    assert accumulator(torch.float64) == torch.float64
    assert {accumulator(d) for d in DTYPES if d != torch.float64} == {torch.float32}
