"""Gini, zeros and entropy against slow literal versions."""

import math

import pytest
import torch

from moreaugrad.metrics import entropy, gini, zeros
from toys import normal

MAPS = torch.tensor([[3.0, -1.0, 0.0, 0.5, 0.5, 2.0], [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]])


def test_gini_is_the_sum_of_all_differences() -> None:
    size = MAPS.abs().double()
    n = size.shape[1]
    pairs = (size[:, :, None] - size[:, None, :]).abs().sum((1, 2))
    assert gini(MAPS) == pytest.approx(pairs / (2 * n * size.sum(1)))


def test_gini_extremes() -> None:
    assert gini(torch.full((1, 7), 2.0)).item() == pytest.approx(0)
    assert gini(torch.eye(8)[:1]).item() == pytest.approx(1 - 1 / 8)


def test_zeros_counts_exact_zeros() -> None:
    assert zeros(MAPS).tolist() == pytest.approx([1 / 6, 5 / 6])


def test_entropy_by_hand() -> None:
    shares = [3 / 7, 1 / 7, 0.5 / 7, 0.5 / 7, 2 / 7]
    expected = -sum(p * math.log(p) for p in shares)
    assert entropy(MAPS).tolist() == pytest.approx([expected, 0])
    assert entropy(MAPS, relative=True)[0].item() == pytest.approx(expected / math.log(6))


def test_entropy_extremes() -> None:
    assert entropy(torch.full((1, 7), -2.0)).item() == pytest.approx(math.log(7))
    assert entropy(torch.full((1, 7), -2.0), relative=True).item() == pytest.approx(1)
    assert entropy(torch.ones(1, 1), relative=True).item() == 0


def test_reduction_counts_pixels() -> None:
    maps = normal(2, 3, 4, 5, seed=0)
    for metric in (gini, entropy):
        assert metric(maps, reduction="abs-sum") == pytest.approx(metric(maps.abs().sum(1)))
        assert metric(maps, reduction="abs-sum")[0] != metric(maps)[0]
