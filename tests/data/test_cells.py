"""Synthetic cells: reproducible, with maps that say where the object and its feature are."""

import numpy as np
import pytest
import scipy.ndimage
import skimage.transform
import torch

from moreaugrad.data import cells as cells_module
from moreaugrad.data.cells import (
    BLUE,
    CLASS_NAMES,
    CROSS,
    EMPTY,
    FEATURE,
    LOCALISATION,
    PLAIN,
    RED,
    TAIL,
    TAILS,
    Cells,
)


def of_class(cells, label, wanted):
    """The first samples of one class."""
    found = (index for index in range(len(cells)) if cells.label(index) == label)
    return [cells[index] for index, _ in zip(found, range(wanted), strict=False)]


def touches_frame(heat):
    edges = torch.cat([heat[0], heat[-1], heat[:, 0], heat[:, -1]])
    return bool((edges > 0).any())


@pytest.mark.parametrize("size", [48, 64, 100])
def test_a_sample_is_an_image_a_label_and_a_map(size):
    for index in range(30):
        image, label, heat = Cells(size=size, seed=3)[index]
        assert image.shape == (3, size, size)
        assert heat.shape == (size, size)
        assert image.dtype == heat.dtype == torch.float32
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
        assert set(heat.unique().tolist()) <= set(np.float32([0, 0.4, 0.9]).tolist())
        assert 0 <= label < len(CLASS_NAMES)


def test_a_sample_depends_on_seed_and_index_alone(untouched_generators):
    cells = Cells(size=48, seed=5)
    with untouched_generators():
        forward = [cells[index] for index in range(8)]
        backward = [Cells(size=48, seed=5, count=9)[index] for index in reversed(range(8))]
    for (image, label, heat), (again, same, map_again) in zip(
        forward, reversed(backward), strict=True
    ):
        assert torch.equal(image, again)
        assert torch.equal(heat, map_again)
        assert label == same
    other = Cells(size=48, seed=6)
    assert not any(torch.equal(other[index][0], forward[index][0]) for index in range(8))


def test_labels_are_uniform():
    cells = Cells(size=64, count=5000)
    counts = np.bincount([cells.label(index) for index in range(5000)], minlength=10)
    # 5000 draws of probability .1: a standard deviation of 21
    assert np.abs(counts - 500).max() < 100
    assert cells.label(17) == cells[17][1]


def test_every_class_but_empty_has_a_feature_on_its_object():
    cells = Cells(size=64, seed=1)
    for label in range(10):
        for _, _, heat in of_class(cells, label, 4):
            feature, rest = heat > 0.5, (heat > 0) & (heat < 0.5)
            assert bool(feature.any()) == bool(rest.any()) == (label != EMPTY)


@pytest.mark.parametrize(("label", "tails"), TAILS.items())
def test_tails_are_counted_by_the_map(label, tails):
    cells = Cells(size=256, seed=1, count=3000)
    whole = [heat for _, _, heat in of_class(cells, label, 12) if not touches_frame(heat)]
    counts = [scipy.ndimage.label(heat.numpy() > 0.5)[1] for heat in whole]
    # The wobbling coordinates may split a tail; most are whole.
    assert len(counts) >= 3
    assert np.median(counts) == tails


@pytest.mark.parametrize("size", [64, 256])
def test_crosses_seldom_break_even_in_small_images(size):
    heats = [heat for _, _, heat in of_class(Cells(size=size, seed=2, count=600), CROSS, 60)]
    parts = [scipy.ndimage.label(heat.numpy() > 0.5, np.ones((3, 3)))[1] for heat in heats]
    assert np.mean(np.equal(parts, 1)) > 0.9


@pytest.mark.parametrize("label", range(RED, BLUE + 1))
def test_rectangles_have_their_colour_on_the_feature(label):
    for image, _, heat in of_class(Cells(size=128, seed=4), label, 5):
        inside = scipy.ndimage.binary_erosion(heat.numpy() > 0.5)
        means = image.numpy()[:, inside].mean(1)
        assert int(means.argmax()) == label - RED
        assert means.max() > 0.4


def test_the_border_is_the_feature_of_a_plain_cell_and_not_of_one_with_a_cross():
    for _, _, heat in of_class(Cells(size=128, seed=1), PLAIN, 3):
        filled = scipy.ndimage.binary_fill_holes(heat.numpy() > 0.5)
        if not touches_frame(heat):
            assert (filled >= (heat.numpy() > 0)).all()
    for _, _, heat in of_class(Cells(size=128, seed=1), CROSS, 3):
        if not touches_frame(heat):
            outline = (heat.numpy() > 0) & ~scipy.ndimage.binary_erosion(heat.numpy() > 0)
            assert (heat.numpy()[outline] < 0.5).mean() > 0.5


def test_the_map_covers_what_is_drawn_on_a_dark_background():
    seen = 0
    for index in range(120):
        image, label, heat = Cells(size=64, seed=8)[index]
        norm = image.norm(dim=0) / 3
        if label != EMPTY and float((norm == 0).float().mean()) > 0.3:  # nothing behind it
            seen += 1
            assert float(((norm > 0.05) == (heat > 0)).float().mean()) > 0.99
    assert seen > 20


def test_the_same_object_at_another_size():
    large, small = Cells(size=512, seed=9), Cells(size=64, seed=9)
    overlaps = []
    for index in range(12):
        a = large[index][2].view(64, 8, 64, 8).mean((1, 3)) > LOCALISATION / 2
        b = small[index][2] > 0
        if a.any():
            overlaps.append(float((a & b).sum() / (a | b).sum()))
    assert len(overlaps) > 8
    assert min(overlaps) > 0.8


def test_the_feature_is_as_large_as_asked_for():
    cells = Cells(size=64, seed=1, min_feature_fraction=0.01)
    for index in range(60):
        _, label, heat = cells[index]
        assert label == EMPTY or float((heat > 0.5).float().mean()) >= 0.01
    tails = of_class(Cells(size=64, seed=1), TAIL, 20)
    assert min(float((heat > 0.5).float().mean()) for _, _, heat in tails) >= 0.003


def test_placing_equals_rotate_then_shift():
    rng = np.random.default_rng(0)
    masks = np.zeros((2, 64, 64))
    masks[0, 10:40, 20:30], masks[1] = 1, rng.random((64, 64)) < 0.5
    turned = cells_module._place(masks, np.deg2rad(37.0), (80.0, -120.0))  # 10 and -15 pixels
    for mask, got in zip(masks, turned, strict=True):
        expected = skimage.transform.rotate(mask, 37.0, order=1)
        expected = scipy.ndimage.shift(expected, (-15, 10), order=1)
        np.testing.assert_allclose(got, expected, atol=1e-9)


@pytest.mark.parametrize("cells", [8, 11, 16])
def test_smooth_fields_equal_a_bilinear_resize(cells):
    grid = np.random.default_rng(0).normal(size=(cells, cells))
    expected = skimage.transform.resize(grid, (96, 96), order=1, mode="reflect")
    np.testing.assert_allclose(cells_module._smooth(grid, 96), expected, atol=1e-9)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="at least 16 pixels, got 8"):
        Cells(size=8)
    with pytest.raises(ValueError, match="min_feature_fraction: expected"):
        Cells(min_feature_fraction=0.5)
    with pytest.raises(ValueError, match=">= 0"):
        Cells(seed=-1)
    with pytest.raises(IndexError, match="from 0 to 4, got 5"):
        Cells(size=16, count=5)[5]
    assert len(list(Cells(size=16, count=5))) == 5


def test_values_of_the_map_are_those_of_the_paper():
    assert (LOCALISATION, FEATURE) == (0.4, 0.9)
