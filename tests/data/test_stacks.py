"""Stacks in TIFF files: axes are those that the file names, and what it does not say is refused."""

import struct

import numpy as np
import pytest
import tifffile

import moreaugrad as mg
from moreaugrad.data.arrays import names_arrays, read_array
from moreaugrad.data.stacks import names_stack

C, D, H, W = 5, 3, 6, 7
DRAWN = np.random.default_rng(0).integers(0, 4000, (C, D, H, W)).astype(np.uint16)
GREY = {"photometric": "minisblack"}


def written(path, values, **how):
    tifffile.imwrite(path, values, **{**GREY, **how})
    return path


def named(axes):
    return {"metadata": {"axes": axes}}


CONTIG, SEPARATE = ({"planarconfig": name} for name in ("contig", "separate"))
AXES = ("CZYX", "ZCYX", "CYX", "ZYX", "YX")


@pytest.mark.parametrize(
    ("how", "axes"),
    [
        *((how, axes) for how in ({}, {"ome": True}, {"compression": "zlib"}) for axes in AXES),
        *(({"imagej": True}, axes) for axes in AXES[1:]),  # which has slices before channels
    ],
)
def test_axes_are_put_in_order(axes, how, tmp_path):
    """Values are told apart by their places, so that no two axes can be exchanged unseen."""
    taken = DRAWN[tuple(slice(None) if axis in axes else 0 for axis in "CZYX")]
    here = "".join(axis for axis in "CZYX" if axis in axes)
    path = written(tmp_path / "a.tif", taken.transpose([here.index(a) for a in axes]),
                   **how, **named(axes))  # fmt: skip
    found = read_array(path)
    np.testing.assert_array_equal(found.values, taken if "C" in axes else taken[None])
    assert found.values.dtype == np.uint16
    assert found.rate is None


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize(
    ("how", "order"),
    [(CONTIG, (1, 2, 0)), (SEPARATE, (0, 1, 2)), (CONTIG | {"tile": (16, 16)}, (1, 2, 0))],
)
def test_bands_are_channels(how, order, dtype, tmp_path):
    bands = (DRAWN[:, 0] - 2000.0).astype(dtype)
    path = written(tmp_path / "bands.tiff", bands.transpose(order), **how)
    np.testing.assert_array_equal(read_array(path).values, bands)


def test_colours_are_channels_and_alpha_is_one(tmp_path):
    for channels in (3, 4):
        pixels = DRAWN[:channels, 0].astype(np.uint8)
        path = written(tmp_path / "a.tif", pixels.transpose(1, 2, 0), photometric="rgb")
        np.testing.assert_array_equal(read_array(path).values, pixels)
    smooth = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (64, 64, 3))
    path = written(tmp_path / "b.tif", smooth, photometric="rgb", compression="jpeg")
    assert np.abs(read_array(path).values - smooth.transpose(2, 0, 1).astype(float)).max() < 8


def test_axes_of_length_one_are_left_out_except_channels(tmp_path):
    one = DRAWN[:, :1][None]
    path = written(tmp_path / "a.tif", one, **named("TCZYX"))
    np.testing.assert_array_equal(read_array(path).values, DRAWN[:, 0])
    path = written(tmp_path / "b.tif", DRAWN[:1, :, :1], **named("CZYX"))
    np.testing.assert_array_equal(read_array(path).values, DRAWN[:1, :, :1])


def test_the_largest_of_a_pyramid_is_read(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(DRAWN[:, 0], subifds=1, **GREY, **SEPARATE)
        file.write(DRAWN[:, 0, ::2, ::2], subfiletype=1, **GREY, **SEPARATE)
    np.testing.assert_array_equal(read_array(tmp_path / "a.tif").values, DRAWN[:, 0])


def two(path):
    with tifffile.TiffWriter(path) as file:
        file.write(DRAWN[0, 0])
        file.write(DRAWN[0, 0, 1:])


def generic(path):
    with tifffile.TiffWriter(path) as file:
        for page in DRAWN[0]:
            file.write(page, contiguous=False, metadata=None, **GREY)


def tagged(code, kind, value):
    count = len(value) + 1 if kind == "s" else 1
    return {"extratags": [(code, kind, count, value, True)]}


def truncated(path):
    written(path, DRAWN[:, 0], **SEPARATE)
    path.write_bytes(path.read_bytes()[:-9])


def in_two_files(path):
    """As microscopes write large ones: the second file is not read, and nothing is made up."""
    written(path.with_name("other.ome.tif"), DRAWN[0, 0], ome=True, metadata={"axes": "YX"})
    written(path, DRAWN[0, :2], ome=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as file:
        xml = file.ome_metadata
    uuid = "urn:uuid:00000000-0000-0000-0000-00000000000"
    first, second = (
        f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1"><UUID FileName="{name}">{uuid}{z}</UUID>'
        "</TiffData>"
        for z, name in enumerate((path.name, "other.ome.tif"))
    )
    start, end = xml.index("<TiffData"), xml.rindex("</Pixels>")
    written(path, DRAWN[0, 0], metadata=None, description=xml[:start] + first + second + xml[end:])


def missing(path):
    """The metadata have more slices than there are pages."""
    written(path, DRAWN[0, :2], ome=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as file:
        xml = file.ome_metadata.replace('SizeZ="2"', 'SizeZ="4"').replace(
            'PlaneCount="2"', 'PlaneCount="4"'
        )
    with tifffile.TiffWriter(path) as file:
        file.write(DRAWN[0, :2], metadata=None, description=xml, contiguous=False, **GREY)


def no_codec(path):
    path.write_bytes(
        written(path, DRAWN[0, 0], compression="zlib").read_bytes().replace(
            struct.pack("<HHIH", 259, 3, 1, 8), struct.pack("<HHIH", 259, 3, 1, 34999)
        )
    )  # fmt: skip


def circular(path, pages, to):
    """The last page is followed by an earlier one."""
    with tifffile.TiffWriter(path) as file:
        for number in range(pages):
            file.write(DRAWN[0, 0] + number, contiguous=False, metadata=None, **GREY)
    data, starts = bytearray(path.read_bytes()), []
    place = 4
    while start := struct.unpack_from("<I", data, place)[0]:
        starts.append(start)
        place = start + 2 + 12 * struct.unpack_from("<H", data, start)[0]
    struct.pack_into("<I", data, place, starts[to])
    path.write_bytes(data)


REFUSED = {
    "pages of a stack": (lambda path: written(path, DRAWN[0]), "axes"),
    "pages one by one": (generic, "axes"),
    "a time axis": (lambda path: written(path, DRAWN[0], **named("TYX")), "moments"),
    "moments of volumes": (
        lambda path: written(path, DRAWN, imagej=True, **named("TZYX")), "5 moments",
    ),
    "colours and channels": (
        lambda path: written(path, np.zeros((D, H, W, 3), np.uint8), photometric="rgb",
                             **named("CYXS")), "one axis of channels",
    ),
    "other axes": (lambda path: written(path, DRAWN[0], **named("HYX")), "HYX"),
    "two images": (two, "2 series"),
    "in two files": (in_two_files, "other pages"),
    "fewer pages than said": (missing, "missing"),
    "a palette": (
        lambda path: written(path, DRAWN[0, 0].astype(np.uint8), photometric="palette",
                             colormap=np.zeros((3, 256), np.uint16)), "PALETTE",
    ),
    "dark is bright": (
        lambda path: written(path, DRAWN[0, 0], photometric="miniswhite"), "MINISWHITE",
    ),
    "turned": (lambda path: written(path, DRAWN[0, 0], **tagged(274, "H", 6)), "orientation"),
    "complex": (lambda path: written(path, DRAWN[0, 0].astype(np.complex64)), "complex"),
    "no data": (
        lambda path: written(path, DRAWN[:, 0], **SEPARATE,
                             **tagged(42113, "s", str(DRAWN[0, 0, 0, 0]))), "no data",
    ),
    "no codec": (no_codec, "34999"),
    "followed by itself": (lambda path: circular(path, 1, 0), "page 1"),
    "pages in a circle": (lambda path: circular(path, 120, 110), "page 120"),
    "truncated": (truncated, "stack"),
    "text": (lambda path: path.write_text("no image at all"), "stack"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "not there": (lambda path: None, "no such file"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_file_does_not_say_is_refused(what, tmp_path):
    write, word = REFUSED[what]
    write(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=word) as error:
        read_array(tmp_path / "a.tif")
    assert str(error.value).startswith(str(tmp_path / "a.tif"))
    assert "\n" not in str(error.value)


def test_pages_in_a_circle_are_refused_in_images_too(tmp_path):
    circular(tmp_path / "a.tif", 120, 110)
    with pytest.raises(ValueError, match="page 120"):
        mg.load_image(tmp_path / "a.tif")


def test_too_many_values_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("moreaugrad.data.stacks.MOST_VALUES", DRAWN[:, 0].size - 1)
    monkeypatch.setattr("tifffile.TiffPageSeries.asarray", lambda *_: pytest.fail("decoded"))
    path = written(tmp_path / "a.tif", DRAWN[:, 0], **SEPARATE)
    with pytest.raises(ValueError, match="210 values"):
        read_array(path)


def test_values_that_were_not_measured_are_refused_only_where_there_are_any(tmp_path):
    path = written(tmp_path / "a.tif", DRAWN[:, 0], **SEPARATE, **tagged(42113, "s", "-9999"))
    np.testing.assert_array_equal(read_array(path).values, DRAWN[:, 0])


def test_an_input_is_made_as_of_other_arrays(tmp_path):
    path = written(tmp_path / "a.tif", DRAWN, **named("CZYX"))
    takes = mg.models.ArrayInput(shape=(C, 2, H, W), fit="start", window=(2000, 4000))
    x = takes(read_array(path))
    np.testing.assert_allclose(x, (DRAWN[:, :2] / 4000).clip(0, 1), rtol=1e-6)


def test_their_names_do_not_say_what_they_are():
    assert names_stack("A.TIFF")
    assert names_stack("stacks/*.tif")
    assert not names_arrays("a.tif")
    assert not names_stack("a.png")
