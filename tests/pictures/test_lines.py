"""Maps of series as lines, and of volumes as slices: where each colour lies, and when."""

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import nn

import moreaugrad as mg
from moreaugrad.pictures import draw
from moreaugrad.pictures.arrays import draw_array, input_picture
from moreaugrad.pictures.lines import MOST_LINES, MOST_POINTS, draw_lines, is_series
from moreaugrad.pictures.slices import MOST_ROWS, heaviest, in_row, one_slice, slice_views, thinned

RNG = np.random.default_rng(0)


def drawn(values, signal, **how):
    axis = Figure().subplots()
    draw_lines(axis, values, signal, **how)
    return axis, [c for c in axis.collections if isinstance(c, LineCollection)]


def coloured(lines):
    """Times of the strokes that are not grey, and their colours."""
    colours = lines.get_colors()[:, :3]
    vivid = np.ptp(colours, axis=1) > 0.1
    times = np.array([path[:, 0].mean() for path in lines.get_segments()])
    return times[vivid], colours[vivid]


@pytest.mark.parametrize("length", [300, MOST_POINTS, 20 * MOST_POINTS + 7])
@pytest.mark.parametrize("rate", [None, 50.0])
def test_a_single_entry_is_coloured_where_it_is(length, rate):
    values = np.zeros(length)
    values[length // 3] = -2.0
    _, (lines,) = drawn(values, RNG.normal(size=length), rate=rate, view="signed")
    times, ((red, _, blue),) = coloured(lines)
    width = max(1, length / MOST_POINTS)
    assert times == pytest.approx([length // 3 / (rate or 1)], abs=width / (rate or 1))
    assert blue > red  # it lowers the score


def test_each_channel_is_a_line_coloured_by_its_own_entries():
    values = np.zeros((2, 100))
    values[1, 40] = 1.0
    axis, (first, second) = drawn(values, RNG.normal(size=(2, 100)), view="signed", rate=10)
    assert not len(coloured(first)[0])
    times, ((red, _, blue),) = coloured(second)
    assert times == pytest.approx([4.0], abs=0.1)
    assert red > blue
    assert axis.get_xlabel() == "time in s"
    assert [text.get_text() for text in axis.get_yticklabels()] == ["channel 0", "channel 1"]
    heights = [np.concatenate(one.get_segments())[:, 1] for one in (first, second)]
    assert heights[0].min() > heights[1].max()


def test_of_many_channels_the_strongest_are_drawn():
    values = np.zeros((40, 200))
    values[[3, 30], 7] = 1.0
    axis, found = drawn(values, RNG.normal(size=(40, 200)), rate=1.0)
    assert len(found) == MOST_LINES
    names = [text.get_text() for text in axis.get_yticklabels()]
    assert {"channel 3", "channel 30"} <= {*names}


@pytest.mark.parametrize("rate", [0, -8000, float("nan")])
def test_no_rate(rate):
    with pytest.raises(ValueError, match=r"rate: expected .*> 0"):
        drawn(np.ones((1, 20)), np.ones((1, 20)), rate=rate)


def test_a_map_of_zeros_is_named():
    axis, _ = drawn(np.zeros(200), np.ones(200))
    assert "map is zero" in [text.get_text() for text in axis.texts]


@pytest.mark.parametrize(
    ("shape", "rate", "expected"),
    [((2, 128), None, True), ((32, 32), None, False), ((32, 32), 8.0, True), ((9,), None, False),
     ((9,), 8.0, True), ((5000,), None, True), ((3, 8, 8), 8.0, False)],
)  # fmt: skip
def test_which_maps_are_series(shape, rate, expected):
    assert is_series(shape, rate) is expected


def test_slices_have_the_colours_of_one_map():
    values, volume = RNG.normal(size=(2, 5, 6, 7)), RNG.random((1, 5, 6, 7))
    views = slice_views(values, volume)
    assert list(views) == ["heat", "signed", "overlay", "masked"]
    for view in views.values():
        assert view.slices == range(5)
    flat = draw(values.reshape(2, 30, 7))["heat"]
    for number in range(5):
        expected = flat.pixels[6 * number : 6 * number + 6]
        np.testing.assert_array_equal(one_slice(views["heat"], number).pixels, expected)
    mass = np.abs(values).sum((0, 2, 3))
    assert heaviest(values, 2) == sorted(np.argsort(mass)[-2:].tolist())
    row = in_row(views["heat"], [1, 3])
    np.testing.assert_array_equal(row.pixels[:, :7], one_slice(views["heat"], 1).pixels)
    np.testing.assert_array_equal(row.pixels[:, -7:], one_slice(views["heat"], 3).pixels)


def test_a_tall_picture_has_fewer_slices():
    size = MOST_ROWS // 64
    values = np.zeros((1, 100, size, 2))
    values[0, 66] = 1.0
    whole = slice_views(values, values)["heat"]
    few = thinned(whole)
    assert len(few.pixels) <= MOST_ROWS
    assert few.slices == range(0, 100, 2)
    np.testing.assert_array_equal(one_slice(few, 66).pixels, one_slice(whole, 66).pixels)
    assert thinned(few) is few


def test_any_input_has_a_picture_where_it_can():
    for shape, views in {
        (2, 400): {"line", "signed"},
        (1, 4, 5, 6): {"heat", "signed", "overlay", "masked"},
        (4, 4, 5, 6): {"heat", "signed"},
        (3, 8, 8): {"heat", "signed", "overlay", "masked"},
        (7,): {"heat", "signed"},
        (1, 2, 3, 4, 5): set(),
    }.items():
        x = torch.rand(shape)
        assert set(draw_array(x, x)) == views
        assert (input_picture(x) is None) == (views in (set(), {"heat", "signed"}))


class Linear(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.register_buffer("weight", torch.randn(2, *shape, generator=torch.Generator()))

    def forward(self, x):
        return x.flatten(1) @ self.weight.flatten(1).T


def test_plots_of_series(tmp_path):
    result = mg.SimpleGradient(Linear(2, 64)).explain(torch.rand(3, 2, 64), 0)
    one = result.plot(tmp_path / "one.png", 0)
    assert [axis.get_title(loc="left") for axis in one.axes] == ["line", "signed"]
    several = result.plot(rate=8.0)
    assert {axis.get_xlabel() for axis in several.axes} == {"time in s"}
    assert len(several.axes) == 3
    strip = result.plot(index=0, view="heat")  # as an image, as before
    assert len(strip.axes[0].images) == 1
    axis = Figure().subplots()
    result.plot(index=1, ax=axis, view="signed")
    assert len(axis.collections) == 2


def test_plots_of_volumes():
    net = Linear(1, 6, 5, 4)
    result = mg.SimpleGradient(net).explain(torch.rand(2, 1, 6, 5, 4), 0)
    numbers = heaviest(result.maps[0])
    titles = [axis.get_title() for axis in result.plot(index=0).axes]
    expected = [f"{view}, slice {n}" for view in ("overlay", "signed") for n in numbers]
    assert titles == expected
    most = heaviest(result.maps[0], 1)[0]
    assert all(f"slice {most}" in axis.get_title() for axis in result.plot().axes)
    with pytest.raises(ValueError, match="overlay"):
        result.plot(view="line")


def test_a_map_of_a_volume_that_is_not_finite_says_so():
    result = mg.SimpleGradient(Linear(1, 6, 5, 4)).explain(torch.rand(2, 1, 6, 5, 4), 0)
    result.maps[0, 0, 0, 0, 0] = torch.nan
    texts = [text.get_text() for axis in result.plot().axes for text in axis.texts]
    assert "no map" in texts
