"""The arithmetic of the benchmarks, on vectors whose answer is known. No timings."""

import math

import pytest
import torch
from benchmarks.accuracy import floor
from benchmarks.cache import Cache
from benchmarks.measures import (
    bounded,
    evaluations_at,
    exponent,
    jackknife,
    squared_error,
    support_iou,
    within_factor,
    zeros,
)
from benchmarks.references import Reference, Setting
from benchmarks.results import Table


def test_error_is_free_of_the_references_own_noise() -> None:
    size, truth = 40_000, torch.ones(1, 40_000, dtype=torch.float64)
    a, b, own = (torch.randn(1, size, dtype=torch.float64) for _ in range(3))
    found = squared_error(truth + 0.1 * own, truth + 0.5 * a, truth + 0.5 * b)
    # Cross terms of size 0.5^2 / sqrt(n) remain; a single reference would give 0.26.
    assert found.item() == pytest.approx(0.01, abs=4 * 0.25 / math.sqrt(size))
    assert squared_error(truth, truth, truth).item() == 0


def test_error_is_relative_and_per_sample() -> None:
    truth = torch.tensor([[3.0, 4.0], [30.0, 40.0]])
    moved = truth + torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert squared_error(moved, truth, truth).tolist() == pytest.approx([1 / 25, 1 / 2500])


def test_support_iou_and_zeros() -> None:
    c = torch.tensor([[1.0, -2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    reference = torch.tensor([[5.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert support_iou(c, reference).tolist() == pytest.approx([1 / 3, 1.0])
    assert zeros(c).tolist() == [0.5, 1.0]


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    blocks = torch.randn(8, 3, 5, dtype=torch.float64) + 2
    expected = (blocks.var(0) / 8).sum(1).sqrt() / blocks.mean(0).norm(dim=1)
    assert jackknife(blocks, lambda mean: mean).tolist() == pytest.approx(expected.tolist())


def test_threshold_of_a_gradient_is_the_penalty_s() -> None:
    setting = Setting(rho=2.0, eta=0.5)
    gradient = torch.tensor([[2.0, -0.4, -1.5]])
    # A = -u / rho, u = soft(-rho g, rho eta): the gradient with its entries shrunk by eta.
    assert setting.map(gradient).tolist() == [[1.5, 0.0, -1.0]]
    assert setting.prox(gradient).tolist() == [[-3.0, 0.0, 2.0]]


def test_floor_is_the_error_of_a_mean_of_n_draws() -> None:
    size, setting = 4000, Setting(eta=0.0)
    # Blocks of 16 draws of a gradient whose entries are 1, each draw with noise of size 4.
    gradients = 1 + torch.randn(2, 32, size, dtype=torch.float64)
    solution = torch.ones(2, size, dtype=torch.float64)
    reference = Reference(
        a=solution,
        b=solution,
        mean=solution,
        gradient=solution,
        split=torch.zeros(2, dtype=torch.bool),
    )
    found = [floor(gradients, count, setting, reference) for count in (1, 4)]
    assert [item["rms"] for item in found] == pytest.approx([1, 0.5], rel=0.05)
    assert [item["repeats"] for item in found] == [32, 8]


def test_equal_evaluations_are_read_off_the_curve() -> None:
    sizes, errors = [512, 2048, 8192], [0.2, 0.1, 0.05]
    assert evaluations_at(0.1, sizes, errors) == pytest.approx(2048)
    assert evaluations_at(0.2 / math.sqrt(2), sizes, errors) == pytest.approx(1024)
    assert evaluations_at(0.4, sizes, errors) == pytest.approx(128)
    assert evaluations_at(0.025, sizes, errors) == pytest.approx(32768)


def test_shares_of_stated_errors() -> None:
    stated, true = torch.tensor([0.1, 0.1, 0.1, 0.1]), torch.tensor([0.04, 0.06, 0.15, 0.3])
    assert within_factor(stated, true) == 0.5
    assert bounded(stated, true) == 0.5


def test_exponent_of_a_line_and_of_a_square() -> None:
    assert exponent([1, 2, 4], [3, 6, 12]) == pytest.approx(1)
    assert exponent([1, 2, 4], [1, 4, 16]) == pytest.approx(2)


def test_cache_computes_a_piece_once(tmp_path) -> None:
    asked = []

    def compute(names):
        asked.extend(names)
        return [{"size": torch.tensor(float(len(name)))} for name in names]

    cache = Cache(tmp_path)
    first = cache.fetch("kind", {"rho": 1}, ["a", "bb"], compute, at_once=1)
    again = cache.fetch("kind", {"rho": 1}, ["bb", "ccc"], compute, at_once=1)
    assert first["size"].tolist() == [1, 2]
    assert again["size"].tolist() == [2, 3]
    cache.fetch("kind", {"rho": 2}, ["a"], compute, at_once=1)
    assert asked == ["a", "bb", "ccc", "a"]


def test_table_is_markdown() -> None:
    table = Table(caption="Errors.", header=["n", "error"], rows=[[512, 0.12345], [8, math.nan]])
    assert table.markdown().splitlines() == [
        "Errors.", "", "| n | error |", "| --- | --- |", "| 512 | 0.123 |", "| 8 | – |",
    ]  # fmt: skip
