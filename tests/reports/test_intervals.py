"""Intervals cover as often as they say, from ten values on."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from moreaugrad.reports.statistics import Intervals

Rows = np.ndarray


def percentiles(rows: Rows) -> tuple[Rows, Rows]:
    """The percentile bootstrap of each row's mean, which covers too seldom."""
    picks = np.random.default_rng(0).integers(0, rows.shape[1], (300, rows.shape[1]))
    low, high = np.percentile(rows[:, picks].mean(2), [2.5, 97.5], axis=1)
    return low, high


def student(rows: Rows) -> tuple[Rows, Rows]:
    low, high = zip(*(Intervals().of_mean(row) for row in rows), strict=True)
    return np.array(low), np.array(high)


# Scores as metrics give them: Gini indices, overlaps near one, differences of probabilities.
SCORES: dict[str, tuple[Callable[[np.random.Generator, tuple[int, int]], Rows], float]] = {
    "normal": (lambda rng, size: rng.normal(0.6, 0.1, size), 0.6),
    "overlap": (lambda rng, size: rng.beta(4, 2, size), 4 / 6),
    "uniform": (lambda rng, size: rng.uniform(0, 1, size), 0.5),
}


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("count", [10, 20])
def test_means_are_covered_as_often_as_stated(kind: str, count: int) -> None:
    draw, mean = SCORES[kind]
    rows = draw(np.random.default_rng(1), (4000, count))
    low, high = student(rows)
    assert 0.935 <= np.mean((low <= mean) & (mean <= high)) <= 0.965


@pytest.mark.parametrize("kind", SCORES)
def test_the_percentile_bootstrap_would_not_cover(kind: str) -> None:
    draw, mean = SCORES[kind]
    low, high = percentiles(draw(np.random.default_rng(1), (2000, 10)))
    assert np.mean((low <= mean) & (mean <= high)) < 0.93


@pytest.mark.parametrize("confidence", [0.8, 0.99])
def test_another_confidence(confidence: float) -> None:
    rows = np.random.default_rng(2).normal(0, 1, (4000, 12))
    hits = [low <= 0 <= high for low, high in map(Intervals(confidence=confidence).of_mean, rows)]
    assert np.mean(hits) == pytest.approx(confidence, abs=0.02)


def test_it_is_students_interval() -> None:
    values = np.random.default_rng(3).uniform(0, 1, 17)
    expected = stats.t.interval(0.95, 16, values.mean(), stats.sem(values))
    assert Intervals().of_mean(values.tolist()) == pytest.approx(expected)


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_fewer_than_ten_values_have_none(count: int) -> None:
    values = [0.1 * i for i in range(count)]
    assert all(map(math.isnan, Intervals().of_mean(values)))
    assert all(map(math.isnan, Intervals().of_ratio(values, values)))


def test_equal_values_have_no_width() -> None:
    assert Intervals().of_mean([0.5] * 10) == (0.5, 0.5)


@pytest.mark.parametrize("count", [10, 25])
def test_ratios_are_covered_as_often_as_stated(count: int) -> None:
    generator, hits = np.random.default_rng(4), []
    for _ in range(3000):
        base = generator.beta(3, 3, count)
        own = base * generator.uniform(0.5, 1.1, count)  # in pairs: .8 of the base on average
        low, high = Intervals().of_ratio(base, own)
        hits.append(low <= 0.8 <= high)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.015)


def test_a_ratio_is_what_a_test_does_not_reject() -> None:
    generator = np.random.default_rng(5)
    base, own = generator.uniform(0.2, 1, 14), generator.uniform(0.1, 0.7, 14)
    for end in Intervals().of_ratio(base, own):
        assert stats.ttest_1samp(own - end * base, 0).pvalue == pytest.approx(0.05)


def test_a_ratio_to_what_may_be_zero_has_none() -> None:
    base = np.random.default_rng(6).normal(0.05, 1, 12)
    assert all(map(math.isnan, Intervals().of_ratio(base, base + 1)))
    assert Intervals().of_ratio([0.5] * 12, [0.25] * 12) == (0.5, 0.5)


def test_a_confidence_in_percent_is_refused() -> None:
    with pytest.raises(ValueError, match="confidence"):
        Intervals(confidence=95)
