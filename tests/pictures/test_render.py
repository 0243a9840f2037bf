"""Views of maps: what each pixel shows."""

import numpy as np
import pytest
import torch

from moreaugrad.pictures import (
    PALETTES,
    SIGNED_PALETTES,
    Style,
    as_photo,
    draw,
    heatmap,
    masked,
    normalise,
    overlay,
    palette,
    photo,
    reduce,
)
from moreaugrad.pictures.render import NEUTRAL

RNG = np.random.default_rng(0)
IMAGE = RNG.random((12, 10, 3))


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_heat_is_the_palette_at_the_level(channels):
    values = RNG.normal(size=(channels, 12, 10))
    picture = heatmap(torch.from_numpy(values))
    level = normalise(np.abs(values).sum(0))
    table = palette("magma")
    assert np.array_equal(picture.pixels, table[np.round(255 * level).astype(int)])
    assert picture.scale.high == pytest.approx(np.percentile(np.abs(values).sum(0), 99))
    assert picture.scale.low == pytest.approx(np.abs(values).sum(0).min())


def test_signed_shows_the_sign_of_the_channel_sum():
    values = np.zeros((3, 4, 4))
    values[0, 0, 0], values[1, 1, 1] = 2, -2
    values[:2, 2, 2] = 5, -5
    picture = heatmap(values, signed=True)
    table = palette("blue-white-orange")
    assert picture.pixels[0, 0].tolist() == table[-1].tolist()
    assert picture.pixels[1, 1].tolist() == table[0].tolist()
    assert picture.pixels[2, 2].tolist() == table[127].tolist()
    assert (picture.scale.low, picture.scale.high) == (-2, 2)


def test_grey_maps_of_two_axes_need_no_channel():
    values = RNG.normal(size=(12, 10))
    assert np.array_equal(heatmap(values).pixels, heatmap(values[None]).pixels)


def test_a_map_of_zeros_is_neutral_and_says_so():
    for view in draw(np.zeros((3, 12, 10)), IMAGE).values():
        assert view.caption.startswith("map is zero")
    for signed in (False, True):
        picture = heatmap(np.zeros((3, 12, 10)), signed=signed)
        assert np.all(picture.pixels == NEUTRAL)
    for name in PALETTES + SIGNED_PALETTES:
        assert NEUTRAL not in [tuple(row) for row in palette(name).tolist()]


def test_a_single_entry_in_many_zeros_is_seen():
    values = np.zeros((3, 40, 40))
    values[2, 11, 13] = -1e-9
    heat, signed = heatmap(values), heatmap(values, signed=True)
    assert heat.pixels[11, 13].tolist() == palette("magma")[-1].tolist()
    assert signed.pixels[11, 13].tolist() == palette("blue-white-orange")[0].tolist()
    assert np.count_nonzero((heat.pixels != heat.pixels[0, 0]).any(-1)) == 1


def test_bars_stand_for_entries():
    picture = heatmap(np.array([0.0, 4.0, -2.0]), signed=True)
    rows = (picture.pixels != 236).any(-1).sum(0)
    width = picture.pixels.shape[1] // 3
    heights = rows[width // 2 :: width]
    assert heights[0] == 1
    assert heights[1] - 1 == pytest.approx(2 * (heights[2] - 1), abs=2)
    middle = picture.pixels.shape[0] // 2
    above = (picture.pixels[:middle] != 236).any(-1).any(0)
    assert above[width // 2 :: width].tolist() == [False, True, False]


def test_many_bars_share_columns_and_keep_the_largest():
    values = np.zeros(50_000)
    values[31_234] = 1
    picture = heatmap(values)
    assert picture.pixels.shape[1] <= 1024
    assert (picture.pixels[20] != 236).any()


def test_a_signal_of_few_channels_is_a_visible_strip():
    values = RNG.normal(size=(2, 500))
    picture = heatmap(values)
    height, width = picture.pixels.shape[:2]
    assert width == 500
    assert width / height < 10
    assert np.array_equal(picture.pixels[0], picture.pixels[height // 2 - 1])


def test_overlay_leaves_zeros_to_the_grey_photo():
    values = np.zeros((3, 12, 10))
    values[0, 5, 5] = 1
    plain = overlay(np.zeros((3, 12, 10)), IMAGE).pixels
    shown = overlay(values, IMAGE).pixels
    changed = (plain != shown).any(-1)
    assert np.argwhere(changed).tolist() == [[5, 5]]
    assert np.all(plain == plain[..., :1])
    strongest = palette("magma")[-1].astype(float)
    assert np.abs(shown[5, 5] - strongest).max() <= 0.1 * 255 + 1
    opaque = overlay(values, IMAGE, style=Style(opacity=1.0)).pixels
    assert opaque[5, 5].tolist() == strongest.tolist()


def test_an_overlay_fades_what_is_not_certain():
    """Opacity falls to a quarter, in proportion to the magnitude that is not certain."""
    values = np.zeros((3, 12, 10))
    values[0, 2:5, 5] = 1
    values[1, 4, 5] = -1
    z = np.where(values == 0, 9.0, 0.5)
    z[0, 2, 5] = 9  # certain; as is half of the third pixel
    z[1, 4, 5] = 9
    style = Style(certain=0.95)
    plain, shown = overlay(values, IMAGE, style=style), overlay(values, IMAGE, z_scores=z)
    assert np.array_equal(plain.pixels, shown.pixels)  # both are needed
    assert "certain" not in plain.caption + shown.caption
    faded = overlay(values, IMAGE, style=style, z_scores=z)
    grey = overlay(np.zeros_like(values), IMAGE).pixels.astype(float)
    full, part = (picture.pixels - grey for picture in (plain, faded))
    for row, left in ((2, 1.0), (3, 0.25), (4, 0.25 + 0.75 * 0.5)):
        assert np.abs(part[row, 5] - left * full[row, 5]).max() < 1.5
    assert not part[np.ix_([0, 9], [5])].any()
    assert "50.0% of it is certain at the level 0.95" in faded.caption
    unknown = overlay(values, IMAGE, style=style, z_scores=np.full_like(z, np.nan))
    assert "0.0% of it is certain" in unknown.caption
    views = draw(values, IMAGE, style, torch.from_numpy(z).half())
    assert np.array_equal(views["overlay"].pixels, faded.pixels)


def test_masked_keeps_the_photo_where_the_map_is_largest():
    values = RNG.normal(size=(3, 12, 10))
    pixels = as_photo(IMAGE).pixels
    reduced = reduce(values)
    shown = masked(values, IMAGE, style=Style(keep=0.25))
    kept = reduced >= np.sort(reduced, axis=None)[-30]
    assert kept.sum() == 30
    assert np.array_equal(shown.pixels[kept], pixels[kept])
    faded = shown.pixels[~kept].astype(int)
    assert np.all(faded == faded[:, :1])
    assert np.ptp(faded) < 60
    assert shown.caption == "25.0% of the pixels kept, where the map is largest"


def test_masked_never_keeps_zeros_and_breaks_ties_by_place():
    values = np.zeros((12, 10))
    values[2, 3] = 1
    pixels = as_photo(IMAGE).pixels
    shown = masked(values, IMAGE, style=Style(keep=1.0)).pixels
    assert np.argwhere((shown == pixels).all(-1)).tolist() == [[2, 3]]
    many = RNG.integers(1, 4, size=(60, 50)).astype(float)
    image = RNG.random((60, 50, 3))
    ranked = sorted(range(3000), key=lambda place: -many.flat[place])
    tied = masked(many, image, style=Style(keep=0.5)).pixels == as_photo(image).pixels
    assert np.flatnonzero(tied.all(-1)).tolist() == sorted(ranked[:1500])


def test_inputs_become_photos():
    inside = torch.rand(3, 6, 5)
    assert np.array_equal(
        photo(inside).pixels, (255 * inside.double().permute(1, 2, 0)).round().numpy()
    )
    outside = photo(torch.randn(1, 6, 5)).pixels
    assert (outside.min(), outside.max()) == (0, 255)
    assert np.all(outside == outside[..., :1])
    assert photo(torch.randn(6, 5, 4)) is None
    assert photo(torch.randn(6)) is None


def test_draw_gives_the_views_by_name():
    values = RNG.normal(size=(3, 12, 10))
    assert list(draw(values)) == ["heat", "signed"]
    views = draw(values, torch.from_numpy(IMAGE))
    assert list(views) == ["heat", "signed", "overlay", "masked"]
    assert all(picture.view == name for name, picture in views.items())
    assert all(picture.pixels.shape == (12, 10, 3) for picture in views.values())
    assert all(picture.pixels.dtype == np.uint8 for picture in views.values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: heatmap(np.ones((2, 3, 4, 4))), r"got shape \[2, 3, 4, 4\]: draw the samples"),
        (lambda: heatmap(np.ones((3, 0, 4))), r"at least one entry, got shape \[3, 0, 4\]"),
        (lambda: heatmap(np.float64(3)), r"got shape \[\]"),
        (lambda: overlay(np.ones((3, 4, 4)), IMAGE), r"map's size \[4, 4\], got \[12, 10\]: crop"),
        (lambda: masked(np.ones((3, 4, 4)), IMAGE), r"map's size \[4, 4\], got \[12, 10\]: crop"),
        (lambda: overlay(np.ones((12, 10)), IMAGE.transpose(2, 0, 1)), "photo\\(\\) makes one"),
        (lambda: overlay(np.ones((12, 10)), 3 * IMAGE - 1), "undo the model's normalisation"),
        (lambda: Style(percentile=0), r"percentile: expected a number in \(0, 100\], got 0"),
        (lambda: Style(keep=2), r"keep: expected a number in \(0, 1\], got 2"),
        (lambda: Style(opacity=float("nan")), "opacity: expected a number"),
        (lambda: Style(certain=95), "certain: expected a level between 0 and 1, got 95"),
        (lambda: Style(palette="blue-white-orange"), "palette: expected one of magma"),
        (lambda: Style(reduction="sum"), "expected one of abs-sum, max-abs"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
