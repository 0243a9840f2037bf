"""Palettes keep their promise for eyes that see fewer colours."""

import matplotlib
import numpy as np
import pytest
from skimage.color import rgb2lab

from moreaugrad.pictures import PALETTES, palette

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
UNSIGNED = [name for name, value in PALETTES.items() if not value.signed]
SIGNED = [name for name, value in PALETTES.items() if value.signed]


def lab(table, eyes=None):
    rgb = np.asarray(table) / 255
    if eyes:
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        linear = np.clip(linear @ np.array(EYES[eyes]).T, 0, 1)
        rgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return rgb2lab(rgb)


@pytest.mark.parametrize("eyes", [None, *EYES])
@pytest.mark.parametrize("name", UNSIGNED)
def test_lightness_rises_with_the_value(name, eyes):
    lightness = lab(PALETTES[name].table, eyes)[::8, 0]
    assert np.all(np.diff(lightness) > 0)
    assert lightness[-1] - lightness[0] > 60


@pytest.mark.parametrize("name", SIGNED)
def test_lightness_tells_the_magnitude_alone(name):
    lightness = lab(PALETTES[name].table)[:, 0]
    assert np.abs(lightness - lightness[::-1]).max() < 1.5
    half = lightness[: len(lightness) // 2 + 1]
    assert np.all(np.diff(half[::8]) > 0)
    assert half[-1] - half[0] > 45


@pytest.mark.parametrize("eyes", [None, *EYES])
@pytest.mark.parametrize("name", SIGNED)
def test_the_sign_can_be_told_by_all_eyes(name, eyes):
    colours = lab(PALETTES[name].table, eyes)
    levels = np.linspace(-1, 1, len(colours))
    distance = np.linalg.norm(colours - colours[::-1], axis=1)
    assert distance[np.abs(levels) >= 0.3].min() > 20


@pytest.mark.parametrize("name", ["magma", "cividis"])
def test_tables_are_those_of_matplotlib(name):
    full = matplotlib.colormaps[name](np.arange(256))[:, :3] * 255
    assert np.abs(PALETTES[name].table - full).max() < 7


@pytest.mark.parametrize("name", SIGNED)
def test_zero_has_a_colour_of_its_own(name):
    chosen = PALETTES[name]
    red, green, blue = chosen.colours(np.array(0.0)).tolist()
    assert red == green == blue
    assert len(chosen.table) % 2 == 1
    assert chosen.colours(np.array([-1.0, 1.0])).tolist() == chosen.table[[0, -1]].tolist()


def test_an_upper_part_ends_where_the_palette_ends():
    upper = PALETTES["magma"].upper
    assert upper.table[-1].tolist() == PALETTES["magma"].table[-1].tolist()
    assert lab(upper.table)[0, 0] > 25


def test_a_palette_of_the_wrong_kind_or_name_is_refused():
    with pytest.raises(ValueError, match="did you mean 'magma'"):
        palette("magmas", signed=False)
    with pytest.raises(ValueError, match="signed palette: expected one of blue-white-orange"):
        palette("magma", signed=True)
