"""Long runs in pieces."""

from itertools import pairwise

import pytest

from synops._chunks import chunks


@pytest.mark.parametrize("steps", [0, 1, 7, 1000])
@pytest.mark.parametrize("cost", [0, 1, 1e6, 1e8, 1e12])
def test_pieces_follow_one_another(steps, cost):
    pieces = list(chunks(steps, cost))
    assert pieces[0][0] == 0
    assert pieces[-1][1] == steps
    assert all(a[1] == b[0] for a, b in pairwise(pieces))
    assert all(begin < end for begin, end in pieces) or pieces == [(0, 0)]


def test_a_piece_is_a_fifth_of_a_second():
    assert len(list(chunks(1000, 1e6))) == 5
    assert len(list(chunks(1000, 1e3))) == 1
    assert len(list(chunks(5, 1e12))) == 5
