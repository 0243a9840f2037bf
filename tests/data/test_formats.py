"""Images of kinds that are not read: refused by their contents, and no program is ever started."""

import io
import os
import zipfile
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from moreaugrad.cli.entry import run
from moreaugrad.data.images import load_image
from moreaugrad.data.layouts import open_dataset
from moreaugrad.files.foreign import IMAGE_FORMATS, MOST_PIXELS, open_image

SCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n"
HEADER = b"\xc5\xd0\xd3\xc6" + (30).to_bytes(4, "little") + len(SCRIPT).to_bytes(4, "little")
POSTSCRIPT = {
    "EPS": SCRIPT,
    "EPS with a header": HEADER + bytes(18) + SCRIPT,
    "PS": SCRIPT.replace(b" EPSF-3.0", b""),
    "PDF": b"%PDF-1.4\n1 0 obj <<>> endobj\ntrailer <<>>\n%%EOF\n",
}
SUFFIXES = ["png", "jpg", "tif"]


@pytest.fixture(autouse=True)
def ghostscript(tmp_path, monkeypatch):
    """A program `gs` that says when it was started."""
    folder, mark = tmp_path / "bin", tmp_path / "started"
    folder.mkdir()
    (folder / "gs").write_text(f"#!/bin/sh\necho $@ >> {mark}\nexit 0\n")
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # Pillow remembers what it found
    yield
    assert not mark.exists(), f"Ghostscript was started: {mark.read_text()}"


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", POSTSCRIPT)
def test_postscript_is_refused_whatever_it_is_called(tmp_path, kind, suffix):
    (tmp_path / f"cat.{suffix}").write_bytes(POSTSCRIPT[kind])
    with pytest.raises(ValueError, match=rf"cat\.{suffix}: .*in no supported format: PNG, JPEG"):
        load_image(tmp_path / f"cat.{suffix}")


@pytest.mark.parametrize("packed", [False, True])
def test_postscript_in_a_data_set_is_refused(tmp_path, packed):
    names = ["a/EPS.png", "b/EPS.jpg", "a/PS.tif", "b/PDF.png"]
    contents = dict(zip(names, POSTSCRIPT.values(), strict=True))
    if packed:
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
    else:
        for name, content in contents.items():
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / name).write_bytes(content)
    data = open_dataset(tmp_path / ("set.zip" if packed else "set"))
    assert len(data.items) == 4
    for item in data.items:
        with pytest.raises(ValueError, match="in no supported format"):
            data.load(item)


def test_postscript_among_images_is_left_out(tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (64, 64), "teal").save(folder / "a.png")
    (folder / "b.png").write_bytes(SCRIPT)
    assert run(["explain", str(folder), "--model", "builtin", "--method", "simple-gradient",
                "--out", str(tmp_path / "out")]) == 1  # fmt: skip
    assert "b.png" in capsys.readouterr().err
    assert (tmp_path / "out/inputs/a/record.json").is_file()


def saved(kind):
    """An image in a format that Pillow writes; None where it writes none."""
    data = io.BytesIO()
    try:
        Image.new("RGB", (32, 32), "teal").save(data, kind)
    except Exception:
        return None
    return data.getvalue()


Image.init()
WRITTEN = {kind: data for kind in sorted(Image.SAVE) if (data := saved(kind))}
# JPEG's reader finds out itself whether a file holds several images.
READ = {*IMAGE_FORMATS, "MPO"}


@pytest.mark.parametrize("kind", WRITTEN)
def test_listed_formats_are_read_and_no_others(tmp_path, kind):
    (tmp_path / "a.png").write_bytes(WRITTEN[kind])
    if kind in READ:
        assert load_image(tmp_path / "a.png").size == (32, 32)
    else:
        with pytest.raises(ValueError, match=r"a\.png: .*in no supported format"):
            load_image(tmp_path / "a.png")


def test_a_format_that_pillow_was_built_without_is_no_format(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(WRITTEN["AVIF"])
    monkeypatch.setattr("PIL.AvifImagePlugin.SUPPORTED", False)
    with pytest.raises(ValueError, match=r"a\.png: .*in no supported format"):
        load_image(tmp_path / "a.png")
    monkeypatch.delitem(Image.OPEN, "AVIF")
    with pytest.raises(ValueError, match=r"a\.png: .*in no supported format"):
        load_image(tmp_path / "a.png")


def bomb(kind, side):
    """A file of a few bytes that says it has so many pixels."""
    small = bytearray(WRITTEN[kind])
    if kind == "PNG":
        small[16:24] = 2 * side.to_bytes(4, "big")
        small[29:33] = zlib.crc32(small[12:29]).to_bytes(4, "big")
    elif kind == "BMP":
        small[18:26] = 2 * side.to_bytes(4, "little")
    elif kind == "GIF":
        small[6:10] = 2 * side.to_bytes(2, "little")
    else:
        return f"P6 {side} {side} 255\n".encode() + bytes(9)
    return bytes(small)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "PPM"])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    for side in (12_000, 20_000):  # above this bound, and above Pillow's own
        (tmp_path / "a.png").write_bytes(bomb(kind, side))
        with pytest.raises(ValueError, match=r"a\.png: .*pixels"):
            load_image(tmp_path / "a.png")


@pytest.mark.parametrize("shape", [(2**14, 2**14), (64, 64, 2**15)])
def test_a_deep_tiff_of_too_much_is_refused_before_it_is_decoded(tmp_path, monkeypatch, shape):
    monkeypatch.setattr("tifffile.TiffPage.asarray", lambda *_: pytest.fail("decoded"))
    made = np.zeros((16, 16, 5), np.uint16) if len(shape) == 3 else np.zeros((16, 16), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", made, photometric="minisblack", planarconfig="contig")
    wanted = {"ImageWidth": shape[1], "ImageLength": shape[0]}
    if len(shape) == 3:
        wanted["SamplesPerPixel"] = shape[2]
        monkeypatch.setattr("moreaugrad.data.deep.MOST_PIXELS", 2**12)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        for name, value in wanted.items():
            tiff.pages[0].tags[name].overwrite(value)
    with pytest.raises(ValueError, match=r"a\.tif: .*pixels"):
        load_image(tmp_path / "a.tif")


def test_images_are_opened_within_the_bound(tmp_path):
    Image.new("L", (300, 200)).save(tmp_path / "a.png")
    with open_image(tmp_path / "a.png") as image:
        assert image.size == (300, 200)
    assert MOST_PIXELS >= 10_000 * 10_000
