"""Localisation against slow literal versions, and where it is undefined."""

import math

import pytest
import torch

from moreaugrad.metrics import auroc, average_precision, pointing_game

MAPS = torch.tensor([[3.0, -1.0, 0.0, 0.5, 0.5, 2.0], [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]])
MASK = torch.tensor([[1, 0, 0, 1, 0, 1], [0, 0, 1, 1, 0, 0]])


def test_auroc_counts_pairs() -> None:
    for row in range(2):
        inside, outside = MAPS[row][MASK[row] == 1], MAPS[row][MASK[row] == 0]
        wins = [(a > b).item() + 0.5 * (a == b).item() for a in inside for b in outside]
        assert auroc(MAPS, MASK)[row].item() == pytest.approx(sum(wins) / len(wins))


def test_average_precision_walks_down_the_thresholds() -> None:
    for row in range(2):
        values, truth = MAPS[row], MASK[row] == 1
        total, before = 0.0, 0.0
        for level in values.unique().flip(0):
            chosen = values >= level
            recall = (chosen & truth).sum().item() / truth.sum().item()
            total += (recall - before) * (chosen & truth).sum().item() / chosen.sum().item()
            before = recall
        assert average_precision(MAPS, MASK)[row].item() == pytest.approx(total)


def test_the_truth_scores_itself() -> None:
    truth = MASK.float()
    for metric in (auroc, average_precision, pointing_game):
        assert metric(truth, MASK).tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("bad", [torch.zeros(1, 6), torch.full((1, 6), math.nan)])
def test_zero_and_broken_maps_have_no_score(bad: torch.Tensor) -> None:
    for metric in (auroc, average_precision, pointing_game):
        assert metric(bad, MASK[:1]).isnan().all()


def test_a_mask_of_all_or_nothing_has_no_score() -> None:
    for mask in (torch.zeros(1, 6), torch.ones(1, 6)):
        assert auroc(MAPS[:1], mask).isnan().all()


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="same shape"):
        auroc(MAPS, MASK[:, :3])
