"""CUB-200-2011 with the gaze maps of CUB-GHA, as a small folder of that layout."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moreaugrad.data.examples import open_examples
from moreaugrad.data.layouts import open_dataset
from moreaugrad.data.loading import prepare

FILES = {
    1: ("001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg", 1, 0),
    2: ("001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg", 1, 1),
    3: ("002.Laysan_Albatross/Laysan_Albatross_0002_1027.jpg", 2, 1),
    4: ("002.Laysan_Albatross/Laysan_Albatross_0003_1033.jpg", 2, 0),
    5: ("010.Red_winged_Blackbird/Red_Winged_Blackbird_0079_4527.jpg", 10, 1),
}


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    root = tmp_path / "CUB_200_2011"
    for number, (name, _, _) in FILES.items():
        file = root / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shades = np.full((10 + number, 20, 3), 40 * number, np.uint8)
        Image.fromarray(shades).save(file, quality=95)
    tables = {
        "images": {number: row[0] for number, row in FILES.items()},
        "image_class_labels": {number: row[1] for number, row in FILES.items()},
        "train_test_split": {number: row[2] for number, row in FILES.items()},
        "classes": {row[1]: row[0].split("/")[0] for row in FILES.values()},
        "bounding_boxes": dict.fromkeys(FILES, "60.0 27.0 325.0 304.0"),
    }
    for name, rows in tables.items():
        text = "".join(f"{number} {value}\n" for number, value in rows.items())
        (root / f"{name}.txt").write_text(text)
    return tmp_path


def gaze(root: Path, folder: str, numbers: tuple[int, ...] = tuple(FILES)) -> None:
    (root / folder).mkdir(parents=True)
    for number in numbers:
        shades = np.tile(np.arange(20, dtype=np.uint8) * 12, (10 + number, 1))
        Image.fromarray(shades).save(root / folder / f"{number}.jpg", quality=95)


def test_parts_labels_and_classes(cub: Path) -> None:
    train = open_examples(cub)
    assert train.classes == ("Black footed Albatross", "Laysan Albatross", "Red winged Blackbird")
    assert train.labels.tolist() == [0, 1, 2]
    assert not train.has_attention
    assert train.outputs is None
    assert [int(train.pixels(index)[0].mean().round()) for index in range(3)] == [80, 120, 200]
    test = open_examples(cub / "CUB_200_2011", split="test", classes=train.classes)
    assert test.labels.tolist() == [0, 1]
    assert open_dataset(cub).layout == "cub"
    assert [item.index for item in open_dataset(cub, split="train").items] == [0, 1, 9]


@pytest.mark.parametrize("folder", ["CUB_GHA", "CUB_GHA/All_Fixation", "All_Fixation"])
def test_gaze_maps_lie_under_the_numbers_of_their_images(cub: Path, folder: str) -> None:
    gaze(cub / "CUB_200_2011", folder)
    train = open_examples(cub)
    assert train.has_attention
    for index, number in enumerate((2, 3, 5)):
        picture, attention = train.pixels(index)
        assert picture.shape == (10 + number, 20, 3)
        assert attention.shape == (10 + number, 20)
        assert np.abs(attention[5].astype(int) - 12 * np.arange(20)).max() < 8


def test_gaze_maps_may_be_png(cub: Path) -> None:
    root = cub / "CUB_200_2011"
    gaze(root, "CUB_GHA")
    shades = np.tile(np.arange(20, dtype=np.uint8) * 12, (13, 1))
    Image.fromarray(shades).save(root / "CUB_GHA" / "3.png")
    (root / "CUB_GHA" / "3.jpg").unlink()
    _, attention = open_examples(cub).pixels(1)
    assert np.array_equal(attention, shades)


def fixations(root: Path, rows: list[str], sizes: bool = True) -> None:
    (root / "fixations.csv").write_text("\n".join(["image_id,run,x,y,milliseconds", *rows]))
    if sizes:
        lines = [f"{n},20,{10 + n},{40},{2 * (10 + n)}" for n in FILES]
        head = "image_id,width,height,original_width,original_height"
        (root / "sizes.csv").write_text("\n".join([head, *lines]))


def test_fixations_become_gaussians_weighted_by_their_duration(cub: Path) -> None:
    fixations(cub / "CUB_200_2011", ["2,1,20,12,300", "2,2,4,20,150", "2,2,30,2,99", "3,1,0,0,500",
                                     "5,1,10,8,200"])  # fmt: skip
    train = open_examples(cub)
    assert train.has_attention
    _, attention = train.pixels(0)
    deviation = 75 / 1080 * 12
    expected = np.zeros((12, 20))
    for row in range(12):
        for column in range(20):
            for x, y, weight in ((10, 6, 300), (2, 10, 150)):
                square = (column - x) ** 2 + (row - y) ** 2
                expected[row, column] += weight * np.exp(-square / (2 * deviation**2))
    assert np.abs(attention - 255 * expected / expected.max()).max() <= 0.5 + 1e-9
    # Without the original sizes, points are in the pixels of the images.
    (cub / "CUB_200_2011" / "sizes.csv").unlink()
    _, attention = open_examples(cub).pixels(2)
    assert np.unravel_index(attention.argmax(), attention.shape) == (8, 10)


def test_what_is_fixated_is_part_of_an_images_digest(cub: Path) -> None:
    root, found = cub / "CUB_200_2011", []
    for rows in (["2,1,20,12,300", "5,1,2,2,300"], ["2,1,20,12,300", "5,1,9,2,300"]):
        fixations(root, rows)
        data = open_dataset(cub, split="train")
        by_name = {item.name.rpartition("/")[2]: data.digest(item) for item in data.items}
        found.append([by_name[FILES[number][0].rpartition("/")[2]] for number in (2, 5)])
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]
    sizes = (root / "sizes.csv").read_text()
    (root / "sizes.csv").write_text(sizes.replace("40", "80"))
    data = open_dataset(cub, split="train")
    assert data.digest(data.items[0]) not in found[1]


def test_fixations_that_are_lacking_or_no_numbers(cub: Path) -> None:
    root = cub / "CUB_200_2011"
    fixations(root, ["2,1,20,12,300", "3,1,2,3,20"])
    with pytest.raises(ValueError, match=r"2 of the 3 .*fixations in .* 100 ms"):
        prepare(open_examples(cub))
    for bad in (["2,1,x,12,300"], ["2,1,nan,12,300"], ["2,1"]):
        fixations(root, bad)
        with pytest.raises(ValueError, match=r"fixations.csv: expected a table with the columns"):
            open_examples(cub)
    (root / "fixations.csv").write_text("image,x,y\n1,2,3\n")
    with pytest.raises(ValueError, match=r"fixations.csv: expected a table"):
        open_examples(cub)


def test_fixations_outside_the_image_are_none(cub: Path) -> None:
    fixations(cub / "CUB_200_2011", ["2,1,9000,12,300", "3,1,20,12,300", "5,1,-70,-900,200"])
    with pytest.raises(ValueError, match=r"2 of the 3 .*expected fixations in"):
        prepare(open_examples(cub))


@pytest.mark.parametrize("size", ["2,20,12,0,24", "2,20,12,40,-24", "3,20,13,40,26"])
def test_sizes_are_those_of_the_images(cub: Path, size: str) -> None:
    root = cub / "CUB_200_2011"
    fixations(root, ["2,1,20,12,300"])
    head = "image_id,width,height,original_width,original_height"
    (root / "sizes.csv").write_text(f"{head}\n{size}")
    with pytest.raises(ValueError, match=r"sizes.csv: expected width and height > 0 of image 2"):
        open_examples(cub)


def test_the_maps_of_the_release_are_those_of_its_fixations(tmp_path: Path) -> None:
    data = os.environ.get("MOREAUGRAD_DATA")
    if not data or not (Path(data) / "cub-gha.zip").is_file():
        pytest.skip("MOREAUGRAD_DATA names no folder with cub-gha.zip")
    with zipfile.ZipFile(Path(data) / "cub-gha.zip") as archive:
        names = [n for n in archive.namelist() if n.endswith((".txt", ".csv"))]
        names += [n for n in archive.namelist() if "/001." in n]
        archive.extractall(tmp_path, names)
    released = open_dataset(Path(data) / "cub-gha.zip", split="test")
    made = open_dataset(tmp_path, split="test")
    for one, other in zip(released.items[:5], made.items[:5], strict=True):
        assert one.name == other.name
        maps = [
            np.asarray(d.load_attention(i), dtype=float)
            for d, i in ((released, one), (made, other))
        ]
        assert np.abs(maps[0] - maps[1]).mean() < 1.5  # the release is compressed
        assert np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1] > 0.999


def test_images_that_nobody_looked_at_are_left_out(cub: Path) -> None:
    gaze(cub / "CUB_200_2011", "CUB_GHA", (1, 2, 3, 4))
    with pytest.raises(ValueError, match=r"1 of the 3 .*CUB_GHA/5.jpg"):
        prepare(open_examples(cub))
    found = prepare(open_examples(cub), max_unreadable=0.5)
    assert found.labels.tolist() == [0, 1]
    assert len(found.classes) == 3


def test_lists_that_do_not_fit_are_reported(cub: Path) -> None:
    labels = cub / "CUB_200_2011" / "image_class_labels.txt"
    labels.write_text("1 1\n2 1\n")
    with pytest.raises(ValueError, match=r"expected a class and a part for image 3 \(002.Lay"):
        open_examples(cub)
    labels.write_text("1\n2\n")
    with pytest.raises(ValueError, match=r"image_class_labels.txt, line 1: expected 2 words"):
        open_examples(cub)
