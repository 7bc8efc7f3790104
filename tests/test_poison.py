"""The poison of conftest.py reaches the memory that C++ outputs are made of."""

import pytest
import torch

from machine import GLIBC

SIZES = [3, 1000, 10_000_000]  # a small bin, a large bin, a mapping of its own


@pytest.fixture
def without_torch_fill():
    """Only malloc's own fill."""
    torch.utils.deterministic.fill_uninitialized_memory = False
    yield
    torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.mark.skipif(not GLIBC, reason="M_PERTURB is glibc's")
@pytest.mark.usefixtures("without_torch_fill")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", SIZES)
def test_fresh_memory_is_nan(size, dtype):
    torch.zeros(size, dtype=dtype)  # freed: the next tensor may get the same block
    assert torch.empty(size, dtype=dtype).isnan().all()


@pytest.mark.parametrize("size", SIZES)
def test_torch_fills_its_own(size):
    assert torch.empty(size).isnan().all()
