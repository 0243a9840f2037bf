"""Overlaps of tops against sets, ties and small tops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from moreaugrad.metrics import dice, jaccard, top_k_intersection, top_k_ties
from moreaugrad.metrics.sparsity import top
from toys import normal

VECTORS = hnp.arrays(np.float64, 14, elements=st.integers(-3, 3).map(float))
CLEAN = torch.tensor([[5.0, -4.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]])


def literal(values: np.ndarray, k: int) -> set[int]:
    """The k first of a stable order by falling magnitude, zeros left out."""
    order = sorted(range(values.size), key=lambda i: (-abs(values.ravel()[i]), i))
    return {i for i in order[:k] if values.ravel()[i] != 0}


@given(VECTORS, st.integers(0, 16))
def test_the_top_is_that_of_a_stable_sort(values: np.ndarray, k: int) -> None:
    assert set(np.flatnonzero(top(values, k)).tolist()) == literal(values, k)


@given(VECTORS, VECTORS, st.sampled_from([0.1, 0.4, 0.75, 1.0]))
def test_overlaps_are_those_of_sets(a: np.ndarray, b: np.ndarray, ratio: float) -> None:
    one, other = torch.from_numpy(a)[None], torch.from_numpy(b)[None]
    filled = [np.count_nonzero(each) for each in (a, b)]
    first, second = (
        literal(a, math.floor(ratio * filled[0])),
        literal(b, math.floor(ratio * filled[1])),
    )
    found = dice(one, other, ratio=ratio).item()
    if not all(filled) or not first | second:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(2 * len(first & second) / (len(first) + len(second)))
    same = literal(b, len(first))
    found = top_k_intersection(one, other, ratio=ratio).item()
    if not all(filled) or not first:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(len(first & same) / len(first))
    first, second = literal(a, math.floor(ratio * 14)), literal(b, math.floor(ratio * 14))
    found = jaccard(one, other, ratio=ratio).item()
    if not all(filled) or not first | second:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(len(first & second) / len(first | second))


def test_k_counts_the_clean_maps_entries() -> None:
    other = torch.tensor([[5.0, 0, 0, 0, 0, 4, 3, 2, 1, 1]])
    # k = floor(0.4 x 5) = 2: {0, 1} and {0, 5}.
    assert top_k_intersection(CLEAN, other).item() == pytest.approx(1 / 2)
    # k = floor(0.4 x 6) = 2 of the other's six.
    assert top_k_intersection(other, CLEAN).item() == pytest.approx(1 / 2)
    # k = floor(0.4 x 10) = 4: {0, 1, 2, 3} and {0, 5, 6, 7}.
    assert top_k_intersection(CLEAN, other, nonzero=False).item() == pytest.approx(1 / 4)


def test_equal_tops_have_equal_dice_and_intersection() -> None:
    a, b = normal(3, 50, seed=0), normal(3, 50, seed=1)
    assert dice(a, b) == pytest.approx(top_k_intersection(a, b))


def test_magnitudes_count_not_signs() -> None:
    assert top_k_intersection(CLEAN, -CLEAN).item() == 1


def test_a_top_of_more_than_the_nonzero_entries_is_all_of_them() -> None:
    assert top_k_intersection(CLEAN, CLEAN, count=8).item() == 1
    fewer = CLEAN * (CLEAN.abs() > 2)
    assert top_k_intersection(CLEAN, fewer, count=8).item() == pytest.approx(3 / 5)
    assert top_k_intersection(fewer, CLEAN, count=8).item() == 1


def test_zeros_are_never_in_the_top() -> None:
    first, last = torch.zeros(1, 10), torch.zeros(1, 10)
    first[0, 0], last[0, 9] = 1, 1
    assert top_k_intersection(first, last, ratio=1.0, nonzero=False).item() == 0
    assert jaccard(first, last, ratio=1.0).item() == 0


def test_an_empty_top_is_undefined() -> None:
    one = torch.eye(10)[:1]
    for metric in (top_k_intersection, dice):
        assert metric(one, one).isnan().all()  # floor(0.4 x 1) = 0
    assert jaccard(one, one, ratio=0.05).isnan().all()
    assert top_k_ties(one).isnan().all()


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.1, math.nan])
def test_a_ratio_that_is_no_share_is_refused(ratio: float) -> None:
    for metric in (top_k_intersection, dice, jaccard):
        with pytest.raises(ValueError, match="ratio: expected a number above 0 and up to 1"):
            metric(CLEAN, CLEAN, ratio=ratio)
    with pytest.raises(ValueError, match="count: expected at least 1"):
        top_k_intersection(CLEAN, CLEAN, count=0)


def test_a_ratio_is_not_rounded_down_for_its_binary_digits() -> None:
    a = torch.arange(1.0, 101)[None]
    assert 0.29 * 100 < 29
    assert top_k_intersection(a, a.flip(1), ratio=0.29).item() == 0
    assert top_k_ties(torch.cat([a[:, :71], torch.full((1, 29), 500.0)], 1), ratio=0.29).item() == 0


def test_ties_are_reported() -> None:
    maps = torch.tensor([[3.0, 1, 1, 1, 1], [3.0, 2, 1, 1, 1], [2.0, 2, 2, 2, 2]])
    # k = 2: one of four equal ones; none; two of five.
    assert top_k_ties(maps).tolist() == pytest.approx([1 / 2, 0, 1])
