"""Reduction, the percentile clip and the words for a map, against literal versions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moreaugrad.pictures import describe, normalise, reduce


def literal_percentile(values, percentile):
    """Linear interpolation between the two neighbours in the sorted list."""
    ordered = sorted(values)
    position = percentile / 100 * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def literal_normalise(picture, percentile=99):
    flat = [value for row in picture for value in row]
    low, high = min(flat), literal_percentile(flat, percentile)
    if high <= low:
        high = max(flat)
    if high <= low:
        return [[0.0 for _ in row] for row in picture]
    return [[min(max((v - low) / (high - low), 0), 1) for v in row] for row in picture]


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_reductions_are_channelwise(channels):
    rng = np.random.default_rng(channels)
    values = rng.normal(size=(2, channels, 5, 4))
    for how, rule in (
        ("abs-sum", lambda entries: sum(abs(e) for e in entries)),
        ("sum", sum),
        ("max-abs", lambda entries: max(abs(e) for e in entries)),
    ):
        found = reduce(torch.from_numpy(values), how)
        assert found.shape == (2, 5, 4)
        for b, i, j in np.ndindex(2, 5, 4):
            assert found[b, i, j] == pytest.approx(rule(values[b, :, i, j]))


def test_maps_without_channels_keep_their_shape():
    values = np.array([[-1.0, 2.0], [0.0, -3.0]])
    assert reduce(values).tolist() == [[1, 2], [0, 3]]
    assert reduce(values, "sum").tolist() == values.tolist()
    assert reduce(values[0], "max-abs").tolist() == [1, 2]


def test_unknown_reduction_names_the_nearest():
    with pytest.raises(ValueError, match="'abs_sum'; did you mean 'abs-sum'"):
        reduce(np.ones((3, 2, 2)), "abs_sum")


PICTURES = arrays(np.float64, (7, 5), elements=st.floats(0, 1e3, width=32))


@given(PICTURES, st.sampled_from([50, 90, 99, 100]))
@settings(max_examples=60, deadline=None)
def test_normalise_is_the_percentile_clip(picture, percentile):
    found = normalise(picture, percentile)
    assert found == pytest.approx(np.array(literal_normalise(picture.tolist(), percentile)))


def test_a_sparse_map_is_scaled_to_its_maximum():
    picture = np.zeros((50, 50))
    picture[3, 4], picture[7, 9] = 2.0, 0.5
    assert np.percentile(picture, 99) == 0
    found = normalise(picture)
    assert (found[3, 4], found[7, 9], np.count_nonzero(found)) == (1, 0.25, 2)


def test_zero_and_constant_maps_become_zero():
    assert not normalise(np.zeros((4, 4))).any()
    assert not normalise(np.full((4, 4), 7.0)).any()
    assert not normalise(np.zeros((4, 4)), signed=True).any()
    # Rounding noise on a constant is no structure.
    assert not normalise(1 + 1e-15 * np.arange(16.0).reshape(4, 4)).any()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("factor", [1e-30, 1e-12, 1e20])
def test_the_image_does_not_depend_on_the_scale_of_the_map(factor, signed):
    values = np.random.default_rng(0).normal(size=(9, 9))
    values = values if signed else np.abs(values)
    found, expected = normalise(factor * values, signed=signed), normalise(values, signed=signed)
    assert found == pytest.approx(expected)
    assert np.abs(expected).max() == 1


def test_a_batch_is_its_samples():
    values = (
        np.random.default_rng(0).normal(size=(4, 6, 5)) * np.array([1, 10, 0, 1e-9])[:, None, None]
    )
    for signed in (False, True):
        given = values if signed else np.abs(values)
        alone = np.stack([normalise(sample, signed=signed) for sample in given])
        assert np.array_equal(normalise(given, signed=signed), alone)


def test_signed_levels_are_odd_and_keep_the_zero():
    values = np.random.default_rng(0).normal(size=(9, 9))
    values[0] = 0
    found = normalise(values, signed=True)
    assert np.array_equal(found, -normalise(-values, signed=True))
    assert np.array_equal(found == 0, values == 0)
    assert np.array_equal(np.sign(found), np.sign(values))


def test_bars_start_at_zero_and_are_not_clipped():
    found = normalise(np.array([1.0, 2.0, 4.0]))
    assert found.tolist() == [0.25, 0.5, 1]


def test_maps_in_words():
    assert describe(np.zeros((3, 9, 9))) == "map is zero"
    values = np.zeros((3, 9, 9))
    values[:, 1, 7] = -1
    assert describe(values) == (
        "1 of 81 pixels are not zero, their weight lies around the upper right"
    )
    assert describe(np.ones((9, 9))).endswith("lies around the middle")
    assert describe(np.array([0, -3, 1])) == (
        "2 of 3 entries are not zero, the largest is number 1"
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_maps_that_are_not_finite_are_refused(bad):
    values = np.zeros((3, 4, 4))
    values[0, 1, 1] = bad
    for draw in (reduce, normalise, describe):
        with pytest.raises(ValueError, match="1 of 48 entries are NaN or infinite: look at"):
            draw(values)
