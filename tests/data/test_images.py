"""Pictures as people have them: every kind of file is read as RGB, or refused with a reason."""

import os

import numpy as np
import pytest
from PIL import Image

from moreaugrad.data.images import find_images, load_image


@pytest.fixture
def photo():
    """A smooth coloured picture, 40 wide and 24 high, bright at the top left."""
    y, x = np.mgrid[:24, :40]
    planes = [255 - 5 * x, 255 - 9 * y, 3 * x + 2 * y]
    return Image.fromarray(np.stack(planes, -1).clip(0, 255).astype(np.uint8))


def values(image):
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def test_rgb_is_read_as_it_is(photo, tmp_path):
    photo.save(tmp_path / "a.png")
    np.testing.assert_array_equal(values(load_image(tmp_path / "a.png")), values(photo))


def test_cmyk_jpeg_keeps_its_colours(photo, tmp_path):
    photo.convert("CMYK").save(tmp_path / "a.jpg", quality=98)
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.mode == "CMYK"
    assert np.abs(values(load_image(tmp_path / "a.jpg")) - values(photo)).mean() < 4


def test_palette_and_grey_become_rgb(photo, tmp_path):
    photo.quantize(64).save(tmp_path / "p.png")
    photo.convert("L").save(tmp_path / "l.png")
    photo.convert("1").save(tmp_path / "one.png")
    assert np.abs(values(load_image(tmp_path / "p.png")) - values(photo)).mean() < 16
    grey = values(load_image(tmp_path / "l.png"))
    assert (grey[..., 0] == grey[..., 2]).all()
    assert set(values(load_image(tmp_path / "one.png")).ravel()) == {0, 255}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_seen_over_white(tmp_path, mode):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    image.paste((10, 10, 10, 0), (4, 0, 8, 8))
    image.convert(mode).save(tmp_path / "a.png")
    got = values(load_image(tmp_path / "a.png"))
    assert (got[:, 4:] == 255).all()
    assert (got[:, :4] == 0).all()


def test_a_half_transparent_pixel_is_mixed_with_white(tmp_path):
    Image.new("RGBA", (2, 2), (0, 0, 0, 51)).save(tmp_path / "a.png")
    assert set(values(load_image(tmp_path / "a.png")).ravel()) == {204}


@pytest.mark.parametrize(
    ("orientation", "undo"), [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90)]
)
def test_exif_orientation_is_obeyed(photo, tmp_path, orientation, undo):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo.transpose(undo).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(values(load_image(tmp_path / "a.png")), values(photo))


def test_damaged_exif_data_do_not_matter(photo, tmp_path):
    photo.save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\x00\x00\x01")
    assert load_image(tmp_path / "a.jpg").size == photo.size


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_the_first_of_several_frames_is_read_and_reported(photo, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    others = [Image.new("RGB", photo.size, colour) for colour in ("black", "navy")]
    photo.save(path, save_all=True, append_images=others)
    with pytest.warns(UserWarning, match=rf"a.{suffix}: the first of its 3"):
        assert values(load_image(path)).mean() > 50


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif"])
def test_a_truncated_image_is_refused(photo, tmp_path, suffix):
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    photo.resize((200, 200)).save(whole)
    content = whole.read_bytes()
    for share in (0.02, 0.5):
        cut.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ValueError, match=rf"cut\.{suffix}: "):
            load_image(cut)


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("dear reader")
    for name, reason in (
        ("empty.png", "the file is empty"),
        ("text.jpg", "in no supported format"),
        ("tex.jpg", "there is no such file; did you mean 'text.jpg'"),
        (".", "it is a folder"),
    ):
        with pytest.raises(ValueError, match=reason):
            load_image(tmp_path / name)


@pytest.fixture
def folder(photo, tmp_path):
    for name in ("b.JPEG", "a.png", "deep/c.jpg", ".hidden/d.png", "notes.txt", "e.weird"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        photo.save(path, format="PNG")
    return tmp_path


def names(files):
    return [file.name for file in files]


def test_folders_are_searched_to_the_bottom(folder):
    assert names(find_images([folder])) == ["a.png", "b.JPEG", "c.jpg"]


def test_a_folder_that_cannot_be_read_is_reported(folder, monkeypatch):
    scan = os.scandir

    def refusing(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.warns(UserWarning, match=r"deep: the folder cannot be read \(Permission denied\)"):
        assert names(find_images([folder])) == ["a.png", "b.JPEG"]


def test_what_is_no_regular_file_is_found_to_be_reported(folder):
    os.mkfifo(folder / "pipe.png")
    (folder / "nowhere.png").symlink_to("missing")
    (folder / "folder.png").mkdir()
    found = find_images([folder])
    assert names(found) == ["a.png", "b.JPEG", "c.jpg", "nowhere.png", "pipe.png"]
    for file, reason in ((found[3], "no such file"), (found[4], "a named pipe")):
        with pytest.raises(ValueError, match=reason):
            load_image(file)


def test_globs_and_files_are_taken_in_order_and_once(folder):
    assert names(find_images([folder / "*.png"])) == ["a.png"]
    assert names(find_images([str(folder / "**" / "*.jpg")])) == ["c.jpg"]
    assert names(find_images([folder / "e.weird", folder, folder / "a.png"])) == [
        "e.weird", "a.png", "b.JPEG", "c.jpg",
    ]  # fmt: skip


def test_a_file_named_like_a_glob_is_found(photo, tmp_path):
    photo.save(tmp_path / "a[1].png")
    assert names(find_images([tmp_path / "a[1].png"])) == ["a[1].png"]


def test_finding_nothing_is_an_error(folder, tmp_path):
    (tmp_path / "none").mkdir()
    for paths, reason in (
        ([tmp_path / "none"], "none were found in .*none; folders are searched for"),
        ([folder / "*.bmp"], "none were found"),
        ([], "an empty list"),
        ([folder / "a.pn"], "there is no such file; did you mean 'a.png'"),
        ([folder / "missing" / "a.png"], "there is no such file"),
    ):
        with pytest.raises(ValueError, match=reason):
            find_images(paths)


@pytest.mark.data
def test_real_photos_are_read(data_folder):
    files = find_images([data_folder / "imagenet-sample"])
    assert len(files) == 306
    assert all(load_image(file).mode == "RGB" for file in files[::20])
