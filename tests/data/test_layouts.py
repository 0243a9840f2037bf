"""Small data sets in the layouts of the real ones."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moreaugrad.data.layouts import open_dataset

WNIDS = ("n01440764", "n02102040", "n03000684")


def picture(path: Path, shade: int = 0, size: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size, 3), shade, np.uint8)).save(path)


def found(path: Path, **more: str) -> list[tuple[str, str, int | None]]:
    return [(i.name, i.label, i.index) for i in open_dataset(path, **more).items]


def batch(path: Path, shades: list[int], labels: list[int]) -> None:
    data = np.repeat(np.array(shades, np.uint8)[:, None], 3072, axis=1)
    data[:, 1024:2048] = 7  # the green plane
    with path.open("wb") as file:
        pickle.dump({b"data": data, b"labels": labels}, file, protocol=2)


def test_cifar10_batches(tmp_path: Path) -> None:
    inside = tmp_path / "cifar-10-batches-py"
    inside.mkdir()
    batch(inside / "test_batch", [10, 20], [3, 1])
    for number in range(1, 6):
        batch(inside / f"data_batch_{number}", [number], [number])
    with (inside / "batches.meta").open("wb") as file:
        pickle.dump({b"label_names": [b"plane", b"car", b"bird", b"cat"]}, file, protocol=2)
    assert found(tmp_path) == [("test_batch/00000", "cat", 3), ("test_batch/00001", "car", 1)]
    data = open_dataset(tmp_path)
    assert data.layout == "cifar10"
    pixels = np.asarray(data.load(data.items[1]))
    assert pixels.shape == (32, 32, 3)
    assert pixels[5, 9].tolist() == [20, 7, 20]
    assert [item[2] for item in found(inside, split="train")] == [1, 2, 3, 4, 5]


def test_a_batch_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (print, ("taken",))

    with (tmp_path / "test_batch").open("wb") as file:
        pickle.dump({b"data": Evil()}, file)
    with pytest.raises(ValueError, match=r"expected arrays alone, got builtins.print"):
        open_dataset(tmp_path)


def test_cifar10_as_images_in_an_archive(tmp_path: Path) -> None:
    for split, count in (("train", 1), ("test", 2)):
        for label in ("airplane", "bird"):
            for n in range(count):
                picture(tmp_path / "in" / split / label / f"{n:04d}.png", 9 * n)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for file in sorted((tmp_path / "in").rglob("*.png"), reverse=True):
            archive.write(file, file.relative_to(tmp_path / "in"))
    expected = [
        ("test/airplane/0000.png", "airplane", 0), ("test/airplane/0001.png", "airplane", 0),
        ("test/bird/0000.png", "bird", 1), ("test/bird/0001.png", "bird", 1),
    ]  # fmt: skip
    assert found(tmp_path / "in") == found(tmp_path / "data.zip") == expected
    assert len(found(tmp_path / "data.zip", split="train")) == 2
    data = open_dataset(tmp_path / "data.zip")
    assert np.asarray(data.load(data.items[3])).max() == 9


def test_tiny_imagenet(tmp_path: Path) -> None:
    rows = [("val_0.png", WNIDS[2]), ("val_1.png", WNIDS[0])]
    for name, _ in rows:
        picture(tmp_path / "val" / "images" / name)
    text = "".join(f"{name}\t{wnid}\t0\t32\t44\t62\n" for name, wnid in rows)
    (tmp_path / "val" / "val_annotations.txt").write_text(text)
    (tmp_path / "wnids.txt").write_text("\n".join(reversed(WNIDS)))
    (tmp_path / "words.txt").write_text(f"{WNIDS[0]}\ttench, Tinca tinca\n")
    picture(tmp_path / "train" / WNIDS[1] / "images" / "a.png")
    assert found(tmp_path) == [
        ("val/images/val_0.png", WNIDS[2], 2),
        ("val/images/val_1.png", "tench, Tinca tinca", 0),
    ]
    assert found(tmp_path, split="train") == [(f"train/{WNIDS[1]}/images/a.png", WNIDS[1], 1)]


def test_imagenet_in_folders(tmp_path: Path) -> None:
    for wnid in WNIDS[:2]:
        picture(tmp_path / "val" / wnid / f"{wnid}.JPEG")
    names = [f"val/{wnid}/{wnid}.JPEG" for wnid in WNIDS[:2]]
    # Two of the thousand classes: their indices are not 0 and 1, and nothing says what they are.
    assert found(tmp_path) == [(names[0], WNIDS[0], None), (names[1], WNIDS[1], None)]
    mapping = "n00000001 first\nn01440764 tench\nn02102040 English springer\n"
    (tmp_path / "LOC_synset_mapping.txt").write_text(mapping)
    assert found(tmp_path) == [(names[0], "tench", 1), (names[1], "English springer", 2)]


@pytest.mark.parametrize("kind", ["none", "caffe", "kaggle"])
def test_imagenet_flat(tmp_path: Path, kind: str) -> None:
    stems = [f"ILSVRC2012_val_0000000{n}" for n in (1, 2)]
    for stem in stems:
        picture(tmp_path / "val" / f"{stem}.JPEG")
    expected = [("", None), ("", None)]
    if kind == "caffe":
        (tmp_path / "val.txt").write_text(f"{stems[0]}.JPEG 65\n{stems[1]}.JPEG 970\n")
        expected = [("", 65), ("", 970)]
    if kind == "kaggle":
        (tmp_path / "LOC_synset_mapping.txt").write_text("n01440764 tench\nn02102040 spaniel\n")
        (tmp_path / "LOC_val_solution.csv").write_text(
            "ImageId,PredictionString\n"
            f"{stems[0]},n02102040 1 2 3 4\n{stems[1]},n01440764 1 2 3 4\n"
        )
        expected = [("spaniel", 1), ("tench", 0)]
    assert [item[1:] for item in found(tmp_path)] == expected
    assert open_dataset(tmp_path).layout == "imagenet"


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        # Ten and more, and one that this part lacks: the numbers are the network's outputs.
        (("0-t-cell", "2-red", "10-blue"), {"t cell": 0, "red": 2, "blue": 10}),
        (("1-a", "2-b", "10-c"), {"a": 0, "b": 1, "c": 2}),
        (("0-a", "1-b", "other"), {"0-a": 0, "1-b": 1, "other": 2}),
        (("0-a", "0-b"), {"0-a": 0, "0-b": 1}),
        (("2019-cars", "2020-cars"), {"2019-cars": 0, "2020-cars": 1}),
    ],
)
def test_numbered_folders_name_the_classes(
    tmp_path: Path, folders: tuple[str, ...], told: dict[str, int]
) -> None:
    for folder in folders:
        picture(tmp_path / folder / "1.png")
    assert {label: index for _, label, index in found(tmp_path)} == told


def test_a_part_that_lacks_a_class_has_the_numbers_of_the_others(tmp_path: Path) -> None:
    for name in ("train/ant", "train/bee", "train/cow", "val/bee", "val/cow"):
        picture(tmp_path / name / "1.png")
    assert {label: index for _, label, index in found(tmp_path, split="train")} == {
        "ant": 0, "bee": 1, "cow": 2
    }  # fmt: skip
    assert [item[1:] for item in found(tmp_path, split="val")] == [("bee", 1), ("cow", 2)]


def test_parts_with_other_classes_have_their_own_numbers(tmp_path: Path) -> None:
    for name in ("train/ant", "train/bee", "val/cow", "val/dog"):
        picture(tmp_path / name / "1.png")
    assert [item[1:] for item in found(tmp_path, split="val")] == [("cow", 0), ("dog", 1)]


def test_a_list_of_labels_and_plain_folders(tmp_path: Path) -> None:
    picture(tmp_path / "b.png")
    picture(tmp_path / "a.png")
    assert found(tmp_path) == [("a.png", "", None), ("b.png", "", None)]
    (tmp_path / "labels.csv").write_text("file,class_index,class_name\na.png,207,retriever\n")
    with pytest.warns(UserWarning, match=r"1 images are not listed .* the first is b\.png"):
        assert found(tmp_path) == [("a.png", "retriever", 207)]
    assert len(found(tmp_path, layout="folders")) == 2


def test_what_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such folder"):
        open_dataset(tmp_path / "none")
    with pytest.raises(ValueError, match=r"in the layout of one of cub, cifar10.*found none"):
        open_dataset(tmp_path)
    with pytest.raises(ValueError, match="expected one of auto, cub, cifar10"):
        open_dataset(tmp_path, layout="mnist")
    picture(tmp_path / "val" / "a" / "x.png")
    with pytest.raises(ValueError, match="in the part 'test'"):
        open_dataset(tmp_path, split="test")


def test_a_broken_image_is_reported_when_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(b"no picture")
    data = open_dataset(tmp_path)
    with pytest.raises(ValueError, match=r"cut.png: expected an image"):
        data.load(data.items[0])
