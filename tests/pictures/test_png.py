"""Files carry the exact pixels and the settings, and are whole or not there."""

import numpy as np
import pytest
from PIL import Image

from moreaugrad.files.atomic import write_atomically
from moreaugrad.pictures import draw, heatmap, read_settings

RNG = np.random.default_rng(0)


def test_every_view_comes_back_pixel_by_pixel(tmp_path):
    views = draw(RNG.normal(size=(3, 30, 40)), RNG.random((30, 40, 3)))
    for name, picture in views.items():
        picture.save(tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.mode == "P" or name in ("overlay", "masked")
            assert np.array_equal(np.asarray(image.convert("RGB")), picture.pixels)


def test_settings_come_back(tmp_path):
    path = tmp_path / "map.png"
    picture = heatmap(RNG.normal(size=(3, 8, 8)))
    settings = {"method": "sparse-moreaugrad", "rho": 1.0, "label": "Küche \u2028 <b>", "n": None}
    picture.save(path, settings)
    found = read_settings(path)
    drawn = found.pop("picture")
    assert found == settings
    assert drawn["palette"] == "magma"
    assert drawn["percentile"] == 99
    assert drawn["high"] == picture.scale.high
    assert drawn["caption"] == picture.caption


def test_the_same_image_is_the_same_file():
    picture = heatmap(RNG.normal(size=(3, 8, 8)))
    assert picture.png({"a": 1, "b": 2}) == picture.png({"b": 2, "a": 1})


def test_a_foreign_image_has_no_settings(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "other.png")
    with pytest.raises(ValueError, match=r"other\.png carries no settings"):
        read_settings(tmp_path / "other.png")
    (tmp_path / "text.png").write_text("text")
    for name in ("text.png", "none.png"):
        with pytest.raises(ValueError, match=name):
            read_settings(tmp_path / name)


def test_settings_that_are_not_json_leave_the_old_file(tmp_path):
    path = tmp_path / "map.png"
    picture = heatmap(np.ones((4, 4)))
    picture.save(path, {"run": 1})
    with pytest.raises(TypeError):
        picture.save(path, {"run": object()})
    assert read_settings(path)["run"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["map.png"]


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    write_atomically(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_files_have_the_rights_of_new_files(tmp_path):
    write_atomically(tmp_path / "ours", b"")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        write_atomically(tmp_path / "missing" / "page.html", b"")
