"""Confidence sets of the best, exact intervals and Pareto fronts, against literal ones."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from moreaugrad.reports.comparisons import (
    EXACT,
    front,
    images_needed,
    interval_of_mean,
    may_be_best,
)
from moreaugrad.reports.statistics import Intervals

few = st.integers(min_value=-4, max_value=4).map(float)


def drawn(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def literal_p(values, place):
    """The definition, one flip and one candidate after the other."""

    def statistic(signs):
        found = []
        for other in range(values.shape[1]):
            pairs = [
                (sign, row[other] - row[place])
                for sign, row in zip(signs, values, strict=True)
                if not math.isnan(row[other] - row[place])
            ]
            if other != place and len(pairs) >= 2:
                length = math.sqrt(sum(d * d for _, d in pairs))
                found.append(sum(sign * d for sign, d in pairs) / length if length else 0.0)
        return max(found, default=math.nan)

    observed = statistic([1] * len(values))
    flips = list(itertools.product((1, -1), repeat=len(values)))
    if math.isnan(observed):
        return math.nan
    return sum(statistic(flip) >= observed - 1e-9 for flip in flips) / len(flips)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("lost", [0, 5])
def test_p_is_the_literal_one(seed, lost):
    values = drawn(seed, 6, 4)
    values.flat[np.random.default_rng(seed).permutation(values.size)[:lost]] = np.nan
    expected = [literal_p(values, place) for place in range(4)]
    assert may_be_best(values) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("seed", range(3))
def test_two_candidates_are_scipys_paired_permutation_test(seed):
    values = drawn(seed, 8, 2)
    found = stats.permutation_test(
        (values[:, 1], values[:, 0]), lambda a, b: np.mean(a - b), permutation_type="samples",
        alternative="greater", n_resamples=np.inf,
    )  # fmt: skip
    assert may_be_best(values)[0] == pytest.approx(found.pvalue)


def test_a_gap_on_every_image_is_as_significant_as_so_few_images_allow():
    for count in (3, 5, 8):
        worse = drawn(0, count)
        assert may_be_best(np.stack([worse + 1, worse], 1))[1] == pytest.approx(2.0**-count)


def test_equal_candidates_are_all_the_best():
    assert may_be_best(np.ones((5, 3))) == pytest.approx([1, 1, 1])


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.float64, (5, 4), elements=few), st.permutations(range(4)), st.permutations(range(5))
)
def test_the_order_of_candidates_and_images_changes_nothing(values, columns, rows):
    found = may_be_best(values)
    assert may_be_best(values[:, columns]) == pytest.approx(found[columns])
    assert may_be_best(values[rows]) == pytest.approx(found)
    assert may_be_best(3 * values + 2) == pytest.approx(found)


@settings(max_examples=40, deadline=None)
@given(arrays(np.float64, (5, 4), elements=few))
def test_the_best_mean_is_never_left_out(values):
    assert may_be_best(values)[values.mean(0).argmax()] > 0.05


@pytest.mark.parametrize("count", [6, EXACT + 3])
def test_equally_good_candidates_are_left_out_as_rarely_as_stated(count):
    """The first of four, which share what is hard about an image; all are equally good."""
    rng, times = np.random.default_rng(1), 200
    shared = [rng.normal(size=(count, 1)) + rng.normal(size=(count, 4)) for _ in range(times)]
    left_out = sum(may_be_best(values)[0] <= 0.05 for values in shared)
    assert left_out / times < 0.05 + 3 * math.sqrt(0.05 * 0.95 / times)
    assert left_out > 0


def test_what_shares_no_images_is_not_compared():
    values = np.array([[1, np.nan], [2, np.nan], [np.nan, 1], [np.nan, 2]])
    assert np.isnan(may_be_best(values)).all()
    assert np.isnan(may_be_best(values[:, :1])).all()


@pytest.mark.parametrize(("confidence", "count"), [(0.95, 5), (0.5, 2), (0.75, 2), (0.99, 7)])
def test_fewer_images_separate_nothing(confidence, count):
    assert images_needed(confidence) == count
    for images in (count - 1, count):
        values = np.stack([np.arange(images) + 1.0, np.arange(images)], 1)
        if images >= 2:
            assert (may_be_best(values)[1] <= 1 - confidence + 1e-9) == (images >= count)


@pytest.mark.parametrize("count", [6, 8, 9])
def test_intervals_of_few_are_what_flips_do_not_reject(count):
    values = drawn(3, count)
    low, high = interval_of_mean(values, 0.95)

    def rejected(mean):
        """By both one-sided tests at 2.5 %."""
        flips = np.array(list(itertools.product((1, -1), repeat=count)))
        sums, observed = flips @ (values - mean), (values - mean).sum()
        return min(np.mean(sums >= observed - 1e-9), np.mean(sums <= observed + 1e-9)) <= 0.025

    for edge, outside in ((low, -1e-4), (high, 1e-4)):
        assert rejected(edge + outside)
        assert not rejected(edge - outside)
    assert low < values.mean() < high


def test_intervals_of_more_are_students_and_of_fewer_none():
    values = drawn(4, 20)
    assert interval_of_mean(values, 0.9) == Intervals(confidence=0.9).of_mean(values)
    assert np.isnan(interval_of_mean(values[:5], 0.95)).all()
    assert interval_of_mean(values[:6], 0.95) == (values[:6].min(), values[:6].max())
    assert np.isnan(interval_of_mean([], 0.95)).all()


def test_intervals_of_few_cover_as_stated():
    rng, times = np.random.default_rng(5), 500
    spans = [interval_of_mean(rng.uniform(-1, 1, 8), 0.95) for _ in range(times)]
    covered = sum(low <= 0 <= high for low, high in spans) / times
    assert abs(covered - (1 - 12 / 256)) < 4 * math.sqrt(0.05 * 0.95 / times)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, (6, 3), elements=few | st.just(math.nan)))
def test_a_front_is_what_nothing_beats(points):
    found = front(points)
    for place, point in enumerate(points):
        beaten = any(
            all(o >= p for o, p in zip(other, point, strict=True))
            and any(o > p for o, p in zip(other, point, strict=True))
            for other in points
        )
        assert found[place] == (not beaten and not np.isnan(point).any())
    whole = points[~np.isnan(points).any(1)]
    if len(whole):
        assert found.any()
        assert np.array_equal(front(whole)[front(whole)], front(whole[front(whole)]))


def test_one_axis_has_its_best_points_alone():
    assert front([[1.0], [3.0], [3.0], [math.nan]]).tolist() == [False, True, True, False]
