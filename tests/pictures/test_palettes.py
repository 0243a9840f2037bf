"""Colormaps that colour-blind people can read."""

import numpy as np
import pytest
from skimage.color import rgb2lab

from moreaugrad.pictures import PALETTES, SIGNED_PALETTES, Style, colour_stops, palette
from moreaugrad.pictures.levels import UPPER, colours

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
EYES = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def lab(table, eyes=None):
    rgb = np.asarray(table) / 255
    if eyes:
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        linear = np.clip(linear @ np.array(EYES[eyes]).T, 0, 1)
        rgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return rgb2lab(rgb)


@pytest.mark.parametrize("eyes", [None, *EYES])
@pytest.mark.parametrize("name", PALETTES)
def test_lightness_rises_with_the_value(name, eyes):
    lightness = lab(palette(name), eyes)[::8, 0]
    assert np.all(np.diff(lightness) > 0)
    assert lightness[-1] - lightness[0] > 60


@pytest.mark.parametrize("name", SIGNED_PALETTES)
def test_lightness_shows_the_magnitude_alone(name):
    lightness = lab(palette(name))[:, 0]
    assert np.abs(lightness - lightness[::-1]).max() < 1.5
    half = lightness[: len(lightness) // 2 + 1]
    assert np.all(np.diff(half[::8]) > 0)
    assert half[-1] - half[0] > 45


@pytest.mark.parametrize("eyes", [None, *EYES])
@pytest.mark.parametrize("name", SIGNED_PALETTES)
def test_the_sign_is_visible_to_all_eyes(name, eyes):
    table = lab(palette(name), eyes)
    levels = np.linspace(-1, 1, len(table))
    distance = np.linalg.norm(table - table[::-1], axis=1)
    assert distance[np.abs(levels) >= 0.3].min() > 20


@pytest.mark.parametrize("name", SIGNED_PALETTES)
def test_zero_has_a_colour_of_its_own(name):
    red, green, blue = colours(0.0, name).tolist()
    assert red == green == blue
    assert len(palette(name)) % 2 == 1
    assert colours([-1.0, 1.0], name).tolist() == palette(name)[[0, -1]].tolist()


def test_an_upper_part_ends_where_the_colormap_ends():
    upper = palette(f"{UPPER}magma")
    assert upper[-1].tolist() == palette("magma")[-1].tolist()
    assert lab(upper)[0, 0] > 25


def test_stops_of_a_gradient_are_colours_of_css():
    assert colour_stops("grey", 3) == ["#000000", "#808080", "#ffffff"]


def test_a_colormap_of_the_wrong_kind_or_name_is_refused():
    with pytest.raises(ValueError, match="did you mean 'magma'"):
        Style(palette="magmas")
    with pytest.raises(ValueError, match="signed palette: expected one of blue-white-orange"):
        Style(signed_palette="magma")
