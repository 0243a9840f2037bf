"""What the benchmark of shrinkage says about errors and evaluations whose answer is known."""

import pytest
import torch
from benchmarks.centre import CENTRED, PLAIN, gain, squares
from benchmarks.centre_runs import References, Runs
from benchmarks.measures import interval


def runs(error: float, evaluations: int, stated: float = 0.1) -> Runs:
    like = torch.ones(2, 3, dtype=torch.float64)
    return Runs(squares=like * error**2, stated=like * stated, evaluations=like * evaluations)


def test_saved_evaluations_count_those_of_the_centre() -> None:
    curves = {
        PLAIN: {size: runs(size**-0.5, size) for size in (64, 256)},
        CENTRED: {64: runs(1 / 16, 66), 256: runs(1 / 32, 258)},
    }
    rows = torch.arange(3)
    assert squares(curves, 64, rows) == pytest.approx(4)
    for size in (64, 256):
        for found in gain(curves, size, rows).values():
            assert found == pytest.approx([4 * size / (size + 2)] * 3)


def test_stated_errors_below_half_the_true_ones() -> None:
    found = runs(0.1, 8, stated=0.04)
    assert found.calibration(torch.arange(3)) == pytest.approx([0.4, 0, 1])
    assert runs(0.1, 8, stated=0.15).calibration(torch.arange(3)) == pytest.approx([1.5, 1, 0])


def test_distance_of_references_is_relative() -> None:
    found = References.of(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 5.0]]))
    assert found.distance.item() == pytest.approx(1 / (9 + 4.5**2) ** 0.5)


def test_bootstrap_interval_of_a_mean() -> None:
    values = torch.randn(400, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    low, high = interval(lambda rows: values[rows].mean().item(), len(values))
    mean, wide = values.mean().item(), 1.96 * values.std().item() / 20
    assert [low, high] == pytest.approx([mean - wide, mean + wide], abs=0.02)
