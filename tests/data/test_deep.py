"""Images of more than 8 bits: read at their own depth, and what is left out is reported."""

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from moreaugrad.data.deep import DeepImage
from moreaugrad.data.images import decode_grey, eight_bits, load_image
from moreaugrad.models import Preprocess

RAMP = np.linspace(0, 65535, 16 * 32).round().astype(np.uint16).reshape(16, 32)


def write(path, values, **more):
    """16 bits by the suffix: PNG by imagecodecs, TIFF by tifffile, PGM by hand."""
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(values))
    elif path.suffix == ".pgm":
        height, width = values.shape
        path.write_bytes(f"P5 {width} {height} 65535\n".encode() + values.astype(">u2").tobytes())
    else:
        tifffile.imwrite(path, values, **more)
    return path


def read(path):
    """In [0, 1], `[H, W, 3]`."""
    found = load_image(path)
    assert isinstance(found, DeepImage)
    return np.asarray(found) / 255


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_of_grey_keep_their_levels(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", RAMP)
    np.testing.assert_allclose(read(path), np.repeat(RAMP[..., None] / 65535, 3, 2), atol=1e-7)
    x = Preprocess()(load_image(path))
    assert len(np.unique(x)) == 512


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_of_colour_keep_their_levels(tmp_path, suffix):
    colours = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], -1)
    more = {"photometric": "rgb"} if suffix == "tif" else {}
    path = write(tmp_path / f"a.{suffix}", colours, **more)
    np.testing.assert_allclose(read(path), colours / 65535, atol=1e-7)


@pytest.mark.parametrize(
    "more",
    [
        {"compression": "lzw"}, {"compression": "zlib", "predictor": True}, {"byteorder": ">"},
        {"bigtiff": True}, {"tile": (16, 16)},
    ],
)  # fmt: skip
def test_tiff_files_of_any_kind_are_read(tmp_path, more):
    path = write(tmp_path / "a.tif", RAMP, **more)
    np.testing.assert_allclose(read(path)[..., 0], RAMP / 65535, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_from_zero_to_one_are_read_as_they_are(tmp_path, dtype):
    path = write(tmp_path / "a.tif", (RAMP / 65535).astype(dtype))
    np.testing.assert_allclose(read(path)[..., 1], (RAMP / 65535).astype(dtype), atol=1e-7)


def test_planes_that_lie_apart_are_joined(tmp_path):
    planes = np.stack([RAMP, RAMP // 2, RAMP // 4])
    path = write(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_allclose(read(path), planes.transpose(1, 2, 0) / 65535, atol=1e-7)


def test_zero_is_white_where_the_file_says_so(tmp_path):
    path = write(tmp_path / "a.tif", RAMP, photometric="miniswhite")
    np.testing.assert_allclose(read(path)[..., 0], 1 - RAMP / 65535, atol=1e-7)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_transparency_is_seen_over_white(tmp_path, suffix):
    alpha = np.full_like(RAMP, 65535)
    alpha[:, 16:] = 0
    alpha[0] = 13107  # a fifth
    more = {"photometric": "minisblack", "extrasamples": ["unassalpha"], "planarconfig": "contig"}
    path = write(
        tmp_path / f"a.{suffix}", np.stack([RAMP, alpha], -1), **(more if suffix == "tif" else {})
    )
    share = alpha / 65535
    expected = RAMP / 65535 * share + (1 - share)
    np.testing.assert_allclose(read(path)[..., 0], expected, atol=1e-6)


def test_a_transparent_level_of_a_sixteen_bit_png_is_white(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png", transparency=int(RAMP[3, 5]))
    found = read(tmp_path / "a.png")
    assert (found[3, 5] == 1).all()
    np.testing.assert_allclose(found[3, 6], RAMP[3, 6] / 65535, atol=1e-6)


def test_premultiplied_colours_are_not_multiplied_again(tmp_path):
    half = np.full((4, 4), 32768, np.uint16)
    pixels = np.stack([half // 2, half // 2, half // 2, half], -1)
    path = write(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["assocalpha"])
    np.testing.assert_allclose(read(path), 0.25 + 0.5, atol=1e-4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_obeyed_as_pillow_does(tmp_path, orientation):
    small = (RAMP >> 8).astype(np.uint8)
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "deep.tif", small.astype(np.uint16) * 257, extratags=tag)
    tifffile.imwrite(tmp_path / "flat.tif", small, extratags=tag)
    deep, flat = load_image(tmp_path / "deep.tif"), load_image(tmp_path / "flat.tif")
    np.testing.assert_allclose(np.asarray(deep), np.asarray(flat), atol=1e-4)


def test_further_pages_and_channels_are_reported(tmp_path):
    path = write(tmp_path / "stack.tif", np.stack([RAMP] * 5), photometric="minisblack")
    with pytest.warns(UserWarning, match=r"stack.tif: the first of its 5 pages"):
        np.testing.assert_allclose(read(path)[..., 0], RAMP / 65535, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_channels_that_are_left_out_are_reported(dtype, tmp_path):
    bands = np.stack([RAMP.astype(dtype)] * 5, -1)
    path = write(tmp_path / "bands.tif", bands, photometric="rgb", planarconfig="contig")
    with pytest.warns(UserWarning, match="3 of its 5 channels"):
        load_image(path)
    path = write(tmp_path / "a.tif", bands[..., :4], photometric="rgb", extrasamples=["unassalpha"])
    load_image(path)  # without a warning


def test_twelve_bits_in_sixteen_are_read_and_reported_as_dark(tmp_path):
    path = write(tmp_path / "a.png", RAMP >> 4)
    with pytest.warns(UserWarning, match=r"reach 6.2% of their range"):
        assert len(np.unique(read(path))) == 512


@pytest.mark.parametrize(
    "values",
    [
        np.full((4, 4), 1.5, np.float32), np.full((4, 4), np.nan, np.float32),
        np.full((4, 4), -1, np.float32), np.full((4, 4), 7, np.int16),
        np.full((4, 4), 10**6, np.int32), np.full((4, 4), -1, np.int8),
    ],
)  # fmt: skip
def test_values_without_a_range_are_refused(tmp_path, values):
    with pytest.raises(ValueError, match=r"a.tif: .*no known range"):
        load_image(write(tmp_path / "a.tif", values))


def test_preprocessing_a_deep_image_is_that_of_its_eight_bits_up_to_rounding(tmp_path):
    y, x = np.mgrid[:40, :50]
    colours = np.stack([x * 1310, y * 1638, x * 600 + y * 500], -1).astype(np.uint16)
    path = write(tmp_path / "a.png", colours)
    deep = load_image(path)
    flat = eight_bits(deep)
    for interpolation in ("nearest", "bilinear", "bicubic", "lanczos"):
        for settings in ({"resize": 20, "crop": 16}, {"resize": (33, 21), "crop": (64, 12)}):
            preprocess = Preprocess(interpolation=interpolation, **settings)
            np.testing.assert_allclose(preprocess(deep), preprocess(flat), atol=2 / 255)
    grey = Preprocess(mean=(0.0,), std=(1.0,), resize=20)
    np.testing.assert_allclose(grey(deep), grey(flat), atol=2 / 255)
    np.testing.assert_array_equal(decode_grey(path, "a"), np.asarray(flat.convert("L")))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_dark_colours_are_reported_whatever_their_transparency(tmp_path, suffix):
    opaque = np.full_like(RAMP, 65535)
    more = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    dark = np.stack([RAMP >> 4] * 3 + [opaque], axis=2)
    path = write(tmp_path / f"a.{suffix}", dark, **more)
    with pytest.warns(UserWarning, match=r"reach 6.2% of their range"):
        read(path)
    # Black on a transparent background is not dark.
    black = np.stack([np.zeros_like(RAMP)] * 3 + [RAMP], axis=2)
    assert read(write(tmp_path / f"b.{suffix}", black, **more)).max() > 0.9
