"""Masks by rank, and DiffROAR of known accuracies."""

import math

import numpy as np
import pytest
import torch

from moreaugrad.metrics import diffroar, importance_ranks, keep
from toys import normal

X = normal(3, 3, 6, 5, seed=0)
MAPS = normal(3, 3, 6, 5, seed=1)
SPARSE = MAPS * (MAPS.abs() > 1.2)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.8, 1.0])
def test_the_top_is_what_is_largest_in_magnitude(ratio: float) -> None:
    kept = keep(X, importance_ranks(MAPS), ratio, fill=torch.inf) == X
    count = round(ratio * 90)
    for row in range(3):
        assert kept[row].sum() == count
        least = MAPS[row].abs()[kept[row]].min()
        assert (MAPS[row].abs() >= least).sum() == count


@pytest.mark.parametrize("unit", ["element", "pixel"])
@pytest.mark.parametrize("maps", [MAPS, SPARSE], ids=["dense", "sparse"])
def test_top_and_bottom_divide_an_image(unit: str, maps: torch.Tensor) -> None:
    ranks = importance_ranks(maps, unit=unit)
    top = keep(X, ranks, 0.3, end="top", fill=torch.inf) == X
    bottom = keep(X, ranks, 0.7, end="bottom", fill=torch.inf) == X
    assert torch.equal(top, ~bottom)


def test_pixels_keep_all_channels() -> None:
    ranks = importance_ranks(MAPS, unit="pixel")
    assert ranks.shape == (3, 1, 6, 5)
    fill = torch.tensor([7.0, 8.0, 9.0])[:, None, None]
    found = keep(X, ranks, 0.2, fill=fill)
    gone = (found == fill).all(1)
    assert gone.sum((1, 2)).tolist() == [24, 24, 24]
    size = MAPS.abs().sum(1)
    for row in range(3):
        assert size[row][gone[row]].max() < size[row][~gone[row]].min()
        assert torch.equal(found[row][:, ~gone[row]], X[row][:, ~gone[row]])


def test_ties_are_drawn_by_seed_and_id() -> None:
    blank = torch.zeros(400, 1, 4, 4)
    ranks = importance_ranks(blank, ids=range(400))
    assert torch.equal(ranks.flatten(1).sort(1).values, torch.arange(16).int().expand(400, 16))
    # A random order favours no place: each is in the top half of about half of the samples.
    top = (ranks >= 8).double().mean(0)
    assert (top - 0.5).abs().max() < 0.1
    assert torch.equal(ranks[7:9], importance_ranks(blank[:2], ids=[7, 8]))
    assert not torch.equal(ranks, importance_ranks(blank, ids=range(400), seed=1))


def test_masks_of_half_precision_and_of_none() -> None:
    found = keep(X.half(), importance_ranks(MAPS.half()), 0.5)
    assert found.dtype == torch.float16
    assert importance_ranks(MAPS[:0]).shape == (0, 3, 6, 5)


def test_diffroar_of_known_accuracies() -> None:
    top = [[0.9, 0.8], [0.7, 0.6], [0.5, 0.5]]
    bottom = [[0.3, 0.4], [0.5, 0.6], [0.6, 0.7]]
    found = diffroar(top, bottom)
    assert found.by_level == pytest.approx([0.5, 0.1, -0.15])
    assert found.deviation == pytest.approx(
        [np.std([0.6, 0.4], ddof=1), math.sqrt(0.02), 0.5**0.5 * 0.1]
    )
    assert found.mean == pytest.approx(0.15)
    # Means of the two seeds: 0.7 / 3 and 0.2 / 3; t of one degree of freedom at 95 % is 12.706.
    half = 12.7062 * np.std([0.7 / 3, 0.2 / 3], ddof=1) / math.sqrt(2)
    assert (found.low, found.high) == pytest.approx((0.15 - half, 0.15 + half), rel=1e-4)
    pairs = [t - b for row in range(3) for t in top[row] for b in bottom[row]]
    assert found.mean == pytest.approx(np.mean(pairs))


def test_one_seed_has_no_interval() -> None:
    found = diffroar([[0.9], [0.8]], [[0.4], [0.5]])
    assert found.mean == pytest.approx(0.4)
    assert math.isnan(found.low)
    assert np.isnan(found.deviation).all()


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \[B, C, H, W\]"):
        importance_ranks(MAPS.sum(1))
    with pytest.raises(ValueError, match="finite"):
        importance_ranks(MAPS / 0)
    with pytest.raises(ValueError, match="unit: expected one of element, pixel"):
        importance_ranks(MAPS, unit="patch")
    with pytest.raises(ValueError, match="ratio"):
        keep(X, importance_ranks(MAPS), 0.0)
    with pytest.raises(ValueError, match=r"ranks: expected those of inputs \[3, 3, 6, 5\]"):
        keep(X, importance_ranks(MAPS[:, :, :5]), 0.5)
    with pytest.raises(ValueError, match="end: expected one of top, bottom"):
        keep(X, importance_ranks(MAPS), 0.5, end="middle")
    with pytest.raises(ValueError, match="same shape"):
        diffroar([[0.5, 0.5]], [[0.5]])
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        diffroar([[50.0]], [[40.0]])
