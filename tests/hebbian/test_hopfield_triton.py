"""The Triton kernel of hopfield_retrieve, through the public function with backend="triton".

On a GPU, or interpreted on the CPU: ``TRITON_INTERPRET=1 pytest -m triton``.
"""

import pytest
import torch
from hopfield_samples import CASES, DTYPES, Answer, Case, check, doubled, run, sample

from synops._library import launcher

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Tiles of 16 rows and 32 patterns: an interpreted program takes milliseconds.
SMALL = {
    "one of each": CASES["one of each"],
    "tiles and a rest": Case((19, 5), (40, 5), steps=2),
    "values": Case((2, 2, 3, 4), (2, 9, 4), (9, 20), (2,), steps=2),
    "stopping": Case((5, 4), (9, 4), (9, 3), steps=4, tolerance=0.05),
    "long patterns": Case((3, 300), (4, 300), steps=2),  # by torch's products
    "no rows": CASES["no rows"],
}
EVERY_DTYPE = ("values",)


@pytest.mark.triton
@pytest.mark.parametrize(
    ("name", "dtype"),
    [(n, t) for n in SMALL for t in (DTYPES if n in EVERY_DTYPE else DTYPES[1:2])],
    ids=str,
)
def test_reference(name, dtype):
    s = sample(SMALL[name], dtype)
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("the interpreter cuts to bfloat16 where a GPU rounds")
    there = s._replace(
        **{
            name: None if t is None else t.to(DEVICE)
            for name, t in s._asdict().items()
            if name in s._fields[:4]
        },
        grads=tuple(t.to(DEVICE) for t in s.grads),
    )
    got = run(there, "triton")
    found = type(got.found)(*(t.cpu() for t in got.found))
    check(Answer(found, tuple(t.cpu() for t in got.grads)), run(doubled(s), "reference"), s, dtype)


@pytest.mark.triton
def test_bad_input():
    state, x, beta = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 6, 8), torch.ones(1)
    call = launcher("hopfield_retrieve")
    for args in (
        (state[0], x, None, beta, 1),
        (state, x[:, :, :0], None, beta, 1),
        (state, x[..., :3], None, beta, 1),
        (state, x.double(), None, beta, 1),
        (state, x, x[:, :1], beta, 1),
        (state, x, None, torch.ones(3), 1),
        (state, x, None, beta, 0),
    ):
        with pytest.raises(RuntimeError, match="hopfield_retrieve: "):
            call(*args, -1.0, True, False)
