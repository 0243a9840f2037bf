"""Random changes: what is kept, and that the map goes where the picture goes."""

import numpy as np
import pytest

from moreaugrad.data.augment import Augment, fitted

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)


def changed(augment: Augment, picture=PICTURE, attention=None, *, seed=0, epoch=0, key=0):
    return augment((picture, attention), seed=seed, epoch=epoch, key=key)


def smooth(height: int, width: int) -> np.ndarray:
    """A picture without edges, which a resize hardly changes."""
    y, x = np.mgrid[:height, :width]
    shades = 128 + 100 * np.sin(x / 9) * np.cos(y / 7)
    return shades.round().astype(np.uint8)


@pytest.mark.parametrize(
    "augment",
    [
        Augment(size=24),
        Augment(size=24, crop="centre", flip=False),
        Augment(size=24, resize=30, pad=4),
        Augment(size=24, crop="resized"),
        Augment(size=24, crop="resized", resize=32, rotate=40),
        Augment(size=24, resize=(48, 30), rotate=20),
    ],
)
def test_the_map_goes_where_the_image_goes(augment: Augment) -> None:
    shades = smooth(40, 60)
    picture = np.repeat(shades[..., None], 3, axis=2)
    for epoch in range(8):
        got, attention = changed(augment, picture, shades, epoch=epoch)
        assert got.shape == (24, 24, 3)
        assert attention.shape == (24, 24)
        assert np.array_equal(got[..., 0], attention)


def test_colours_and_blur_are_the_images_alone() -> None:
    shades = smooth(24, 24)
    picture = np.repeat(shades[..., None], 3, axis=2)
    for more in ({"blur": 2.0}, {"brightness": 0.5}, {"contrast": 0.5}):
        augment = Augment(size=24, crop="centre", flip=False, **more)
        got, attention = changed(augment, picture, shades)
        assert np.array_equal(attention, shades)
        assert not np.array_equal(got[..., 0], shades)
    grey, _ = changed(Augment(size=24, crop="centre", flip=False, saturation=1.0), key=3)
    plain, _ = changed(Augment.evaluation(24), key=3)
    assert not np.array_equal(grey, plain)
    means = plain.mean(axis=(0, 1))
    brighter = Augment(size=24, crop="centre", flip=False, brightness=0.2)
    factors = [changed(brighter, key=key)[0].mean(axis=(0, 1)) / means for key in range(40)]
    assert np.min(factors) > 0.78
    assert np.max(factors) < 1.2
    assert np.ptp(factors) > 0.2


def test_a_crop_is_a_part_of_the_image() -> None:
    augment = Augment(size=24, resize=(40, 60), flip=False)
    seen = set()
    for key in range(60):
        got, _ = changed(augment, key=key)
        places = [
            (top, left)
            for top in range(17)
            for left in range(37)
            if np.array_equal(PICTURE[top : top + 24, left : left + 24], got)
        ]
        assert len(places) == 1
        seen |= set(places)
    tops, lefts = zip(*seen, strict=True)
    assert min(tops) <= 2
    assert max(tops) >= 14
    assert min(lefts) <= 4
    assert max(lefts) >= 32


def test_flips_come_half_of_the_time() -> None:
    square = PICTURE[:24, :24]
    flipped = 0
    for key in range(200):
        got, _ = changed(Augment(size=24), square, key=key)
        assert np.array_equal(got, square) or np.array_equal(got, square[:, ::-1])
        flipped += np.array_equal(got, square[:, ::-1])
    assert 70 < flipped < 130  # a standard deviation of 7


def test_padding_is_black_and_moves_the_image() -> None:
    square = np.full((24, 24, 3), 255, np.uint8)
    rows = set()
    for key in range(80):
        got, attention = changed(Augment(size=24, pad=4), square, square[..., 0], key=key)
        assert set(np.unique(got)) <= {0, 255}
        assert np.array_equal(got[..., 0], attention)
        rows.add(int((got[:, 12, 0] == 0).sum()))
    assert rows == {0, 1, 2, 3, 4}


def test_the_evaluation_form_is_resize_and_centre_crop() -> None:
    got, _ = changed(Augment.evaluation(32, resize=40))
    assert np.array_equal(got, PICTURE[4:36, 14:46])
    assert np.array_equal(got, changed(Augment.evaluation(32, resize=40), epoch=9, seed=3)[0])
    assert changed(Augment.evaluation(20))[0].shape == (20, 20, 3)
    assert changed(Augment.evaluation(64), PICTURE[:, :50])[0].shape == (64, 64, 3)


def test_a_kept_resize_changes_nothing() -> None:
    for augment in (Augment(size=20), Augment(size=20, resize=(30, 26), rotate=10)):
        kept = fitted((PICTURE, None), augment.first)
        for key in range(5):
            assert np.array_equal(
                changed(augment, key=key)[0], augment(kept, seed=0, epoch=0, key=key)[0]
            )
    assert Augment(size=20, crop="resized").first is None


def test_resized_crops_have_the_areas_they_should() -> None:
    y, x = np.mgrid[:100, :150]
    ramps = np.stack([y, x, 0 * x], axis=2).astype(np.uint8)
    augment = Augment(size=64, crop="resized", flip=False)
    areas, aspects = [], []
    for key in range(200):
        got, _ = changed(augment, ramps, key=key)
        # From the middle of the first to that of the last pixel.
        high = (float(got[-1, 32, 0]) - float(got[0, 32, 0])) * 64 / 63
        wide = (float(got[32, -1, 1]) - float(got[32, 0, 1])) * 64 / 63
        areas.append(high * wide / 15_000)
        aspects.append(wide / high)
    assert 0.05 < min(areas) < 0.2
    assert 0.8 < max(areas) < 1.1
    assert 0.7 < min(aspects) < 0.85
    assert 1.2 < max(aspects) < 1.45


def test_a_crop_keeps_some_attention_where_there_is_any() -> None:
    attention = np.zeros((60, 60), np.uint8)
    attention[:20, :20] = 200
    picture = np.zeros((60, 60, 3), np.uint8)
    augment = Augment(size=30, resize=60, flip=False)
    kept = [changed(augment, picture, attention, key=key)[1].any() for key in range(100)]
    # A crop misses the corner with probability 1 - (20/31)^2 = .58, ten of ten with .005.
    assert np.mean(kept) > 0.95
    assert not changed(augment, picture, 0 * attention)[1].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size: expected at least one pixel, got 0"),
        ({"size": 32, "resize": 24}, "resize: expected at least the 32 pixels"),
        ({"size": 32, "resize": (64, 24)}, "resize: expected at least the 32 pixels"),
        ({"size": 32, "crop": "middle"}, "crop: expected one of random, centre, resized"),
        ({"size": 32, "rotate": 270}, "rotate: expected a number from 0 to 180, got 270"),
        ({"size": 32, "contrast": -0.1}, "contrast: expected a number from 0 to 1, got -0.1"),
        ({"size": 32, "blur": float("nan")}, "blur: expected a number >= 0, got nan"),
        ({"size": 32, "pad": -1}, "pad: expected a number >= 0, got -1"),
    ],
)
def test_bad_settings_are_refused(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augment(**settings)
