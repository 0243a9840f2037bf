"""Distances and correlations against slow literal versions, scipy, and by properties."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from moreaugrad.metrics import (
    cosine,
    mass_centre_shift,
    normalised_distance,
    pearson,
    spearman,
)
from moreaugrad.metrics.maps import ranks
from toys import normal

A, B = normal(4, 3, 5, 6, seed=0), normal(4, 3, 5, 6, seed=1)
A[1] = A[1].round()  # equal entries, zeros among them
VECTORS = hnp.arrays(
    np.float64,
    st.integers(2, 12),
    elements=st.integers(-3, 3).map(float),  # many ties
)


def test_normalised_distance_by_hand() -> None:
    a, b = torch.tensor([[3.0, -4.0]]), torch.tensor([[0.0, 2.0]])
    # (0.6, 0.8) and (0, 1); signed (0.6, -0.8) and (0, 1).
    assert normalised_distance(a, b).item() == pytest.approx(math.hypot(0.6, 0.2))
    assert normalised_distance(a, b, signed=True).item() == pytest.approx(math.hypot(0.6, 1.8))


@pytest.mark.parametrize("signed", [False, True])
def test_distance_and_cosine_agree(signed: bool) -> None:
    distance = normalised_distance(A, B, signed=signed)
    assert distance**2 == pytest.approx(2 - 2 * cosine(A, B, signed=signed))


def test_the_range_of_the_distance_is_reached() -> None:
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert normalised_distance(one, -one, signed=True).item() == pytest.approx(2)
    assert normalised_distance(one, other).item() == pytest.approx(math.sqrt(2))
    assert normalised_distance(one, -one).item() == 0


def test_reduction_is_over_channels() -> None:
    for metric in (normalised_distance, cosine, pearson, spearman):
        assert metric(A, B, reduction="abs-sum") == pytest.approx(
            metric(A.abs().sum(1), B.abs().sum(1))
        )
    with pytest.raises(ValueError, match="reduction"):
        cosine(A, B, reduction="mean")


@pytest.mark.parametrize("signed", [False, True])
def test_correlations_are_those_of_scipy(signed: bool) -> None:
    for row in range(len(A)):
        a, b = (each[row].flatten().numpy() for each in (A, B))
        if not signed:
            a, b = np.abs(a), np.abs(b)
        one = slice(row, row + 1)
        assert pearson(A[one], B[one], signed=signed).item() == pytest.approx(
            scipy.stats.pearsonr(a, b).statistic
        )
        assert spearman(A[one], B[one], signed=signed).item() == pytest.approx(
            scipy.stats.spearmanr(a, b).statistic
        )


@given(VECTORS)
def test_equal_entries_share_their_rank(values: np.ndarray) -> None:
    assert ranks(values).tolist() == scipy.stats.rankdata(values).tolist()


@given(VECTORS, st.integers(0, 10**6))
def test_any_growing_function_keeps_ranks(values: np.ndarray, seed: int) -> None:
    a = torch.from_numpy(values)[None]
    other = normal(1, values.size, seed=seed)
    found = spearman(a, other, signed=True)
    grown = spearman(a.exp() - 3, other, signed=True)
    if not (values != 0).any():
        assert found.isnan().all()
    elif np.ptp(values) == 0:
        assert found.isnan().all()
        assert grown.isnan().all()
    else:
        assert grown == pytest.approx(found)
        assert -1 <= found.item() <= 1


def test_a_constant_map_has_no_correlation() -> None:
    constant = torch.full((1, 90), 0.1, dtype=torch.float32)  # its mean is rounded
    for metric in (pearson, spearman):
        assert metric(constant, A[:1].reshape(1, 90).float()).isnan().all()
    assert cosine(constant, constant).item() == pytest.approx(1)


def test_a_reduction_that_cancels_is_undefined() -> None:
    opposite = torch.stack([A[:1, 0], -A[:1, 0]], 1)
    assert cosine(opposite, opposite, reduction="sum").isnan().all()
    assert cosine(opposite, opposite, reduction="abs-sum").item() == pytest.approx(1)


def mass_centre(map_: Tensor) -> tuple[float, float]:
    total, row_sum, column_sum = 0.0, 0.0, 0.0
    for row in range(map_.shape[1]):
        for column in range(map_.shape[2]):
            mass = map_[:, row, column].abs().sum().item()
            total, row_sum, column_sum = (
                total + mass,
                row_sum + mass * row,
                column_sum + mass * column,
            )
    return row_sum / total, column_sum / total


def test_mass_centre_shift_is_in_pixels() -> None:
    expected = [math.dist(mass_centre(a), mass_centre(b)) for a, b in zip(A, B, strict=True)]
    assert mass_centre_shift(A, B) == pytest.approx(torch.tensor(expected))
    spot = torch.zeros(1, 3, 5, 6)
    spot[0, 1, 1, 1] = -2
    moved = spot.roll((3, 4), (2, 3))
    assert mass_centre_shift(spot, moved).item() == pytest.approx(5)
    assert mass_centre_shift(torch.eye(7)[:1], torch.eye(7)[4:5]).item() == pytest.approx(4)
