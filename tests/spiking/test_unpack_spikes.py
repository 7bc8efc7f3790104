"""unpack_spikes: against numpy's."""

import numpy as np
import pytest
import torch

from synops.spiking import unpack_spikes


@pytest.mark.parametrize("neurons", [0, 1, 7, 8, 9, 100])
def test_is_numpys(neurons):
    bits = torch.randint(256, (3, 2, (neurons + 7) // 8), dtype=torch.uint8)
    want = np.unpackbits(bits.numpy(), axis=-1, count=neurons, bitorder="little")
    got = unpack_spikes(bits, neurons)
    assert got.dtype == torch.float32
    assert np.array_equal(got.numpy(), want)
    assert unpack_spikes(bits.transpose(0, 1), neurons, torch.bool).dtype == torch.bool


@pytest.mark.parametrize(
    ("bits", "neurons", "error", "message"),
    [
        (torch.ones(2, 2), 9, TypeError, "bits must be uint8, got float32"),
        ([1], 8, TypeError, "bits must be a torch.Tensor"),
        (torch.ones((), dtype=torch.uint8), 8, ValueError, "bits must have shape"),
        (
            torch.ones(2, dtype=torch.uint8),
            17,
            ValueError,
            "neurons must fit 2 bytes a row, got 17",
        ),
        (torch.ones(2, dtype=torch.uint8), 8, ValueError, "neurons must fit 2 bytes a row, got 8"),
        (torch.ones(2, dtype=torch.uint8), 9.0, TypeError, "neurons must be an int, got float"),
    ],
)
def test_wrong_arguments(bits, neurons, error, message):
    with pytest.raises(error, match=message):
        unpack_spikes(bits, neurons)
