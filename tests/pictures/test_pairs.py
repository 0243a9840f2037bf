"""The picture of pairs of pixels."""

import numpy as np
import pytest

from moreaugrad.pictures.pairs import MOST, pair_views

GREY = np.full((8, 8, 3), 0.5)


def pair(first, second, value, error=0.1):
    return {"first": first, "second": second, "value": value, "error": error}


def drawn(*pairs, status="direct"):
    return pair_views({"interactions": {"status": status, "pairs": list(pairs)}}, GREY)["pairs"]


def coloured(picture, row, column):
    """How much redder than blue the picture is in the middle of a pixel of the image."""
    size = picture.pixels.shape[0] / 8
    where = tuple(int((at + 0.5) * size) for at in (row, column))
    red, _, blue = picture.pixels[where].astype(int)
    return red - blue


def test_lines_are_between_the_pixels_in_the_colour_of_the_sign():
    shown = drawn(pair([1, 1], [1, 6], 2.0), pair([6, 1], [6, 6], -1.0))
    for column in (1, 3, 6):
        assert coloured(shown, 1, column) > 80
        assert coloured(shown, 6, column) < -80
        assert abs(coloured(shown, 3, column)) < 5
    assert "2 of 2 pairs" in shown.caption


def test_what_is_within_its_error_is_left_out():
    shown = drawn(pair([1, 1], [1, 6], 2.0), pair([6, 1], [6, 6], -1.0, error=0.6))
    assert coloured(shown, 1, 3) > 80
    assert abs(coloured(shown, 6, 3)) < 5
    assert "1 of 2 pairs" in shown.caption
    unknown = drawn(pair([6, 1], [6, 6], -1.0, error=None))
    assert abs(coloured(unknown, 6, 3)) < 5


def test_the_strongest_of_many_are_drawn():
    many = [pair([row, 0], [row, 3], 2.0) for row in range(7)] * 3
    shown = drawn(*many, pair([7, 0], [7, 3], 1.0))
    assert f"the {MOST} strongest" in shown.caption
    assert abs(coloured(shown, 7, 2)) < 5


@pytest.mark.parametrize("status", ["no curvature", "direct"])
def test_without_pairs_the_status_is_said(status):
    shown = drawn(status=status)
    assert status in shown.caption
    assert np.ptp(shown.pixels.astype(int), axis=2).max() == 0


def test_there_is_no_view_without_interactions():
    assert pair_views({}, GREY) == {}
    assert pair_views({"interactions": {"problem": "memory"}}, GREY) == {}
