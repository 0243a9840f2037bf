"""Labelled pictures: classes, labels, attention maps, parts."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from moreaugrad.data.cells import CLASS_NAMES, EMPTY, Cells
from moreaugrad.data.examples import open_examples, split_off


def picture(path: Path, shade: int = 0, side: int = 8, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (side, side, 3) if mode == "RGB" else (side, side)
    Image.fromarray(np.full(shape, shade, np.uint8), mode=mode).save(path)


def folders(root: Path, counts: dict[str, int]) -> Path:
    for place, (name, count) in enumerate(counts.items()):
        for n in range(count):
            picture(root / name / f"{n:03d}.png", 10 * place + n)
    return root


def test_cells_are_examples_with_their_true_maps() -> None:
    examples = open_examples("cells", size=32, seed=3, count=40)
    cells = Cells(size=32, seed=3, count=40)
    assert examples.classes == CLASS_NAMES
    assert len(examples) == 40
    for index in range(40):
        image, label, heat = cells[index]
        assert int(examples.labels[index]) == label
        pixels = torch.from_numpy(examples.pixels(index)[0].copy()).permute(2, 0, 1)
        assert float((pixels / 255 - image).abs().max()) <= 0.5 / 255 + 1e-6
        attention = examples.pixels(index)[1]
        assert set(np.unique(attention)) <= {0, 102, 230}
        assert ((attention == 230) == (heat.numpy() > 0.5)).all()
        assert attention.any() == (label != EMPTY)


def test_parts_of_the_cells_share_no_image() -> None:
    parts = [open_examples("cells", size=16, split=s, count=30) for s in ("train", "val", "test")]
    seen = [part.pixels(index)[0].tobytes() for part in parts for index in range(30)]
    black = sum(not any(pixels) for pixels in seen)
    assert len(set(seen)) >= len(seen) - black
    assert len(open_examples("cells")) == 4096
    assert len(open_examples("cells", split="test")) == 1024
    with pytest.raises(ValueError, match="seed: expected a number from 0 to"):
        open_examples("cells", seed=2**30)


def test_folders_without_parts_are_what_is_trained_on(tmp_path: Path) -> None:
    examples = open_examples(folders(tmp_path / "birds", {"wren": 2, "finch": 3}))
    assert examples.name == "birds"
    assert examples.classes == ("finch", "wren")
    assert examples.labels.tolist() == [0, 0, 0, 1, 1]
    assert examples.describe(4) == "wren/001.png"
    pixels, attention = examples.pixels(4)
    assert pixels.shape == (8, 8, 3)
    assert (pixels == 1).all()
    assert attention is None
    assert not examples.has_attention
    assert examples.outputs is None


def test_parts_of_folders(tmp_path: Path) -> None:
    folders(tmp_path / "train", {"a": 3, "b": 1})
    folders(tmp_path / "val", {"b": 2})
    assert len(open_examples(tmp_path)) == 4
    with pytest.raises(ValueError, match="expected a class for every image"):
        open_examples(tmp_path, split="test")  # One folder tells no classes.
    folders(tmp_path / "val", {"b": 1, "c": 1})
    with pytest.raises(ValueError, match=r"val/c/000.png: expected one of the 2 classes .*'c'"):
        open_examples(tmp_path, split="test", classes=("a", "b"))
    test = open_examples(tmp_path, split="test", classes=("c", "a", "b"))
    assert test.labels.tolist() == [2, 2, 0]
    with pytest.raises(ValueError, match="split: expected one of val, test, train; got 'tset'"):
        open_examples(tmp_path, split="tset")


def test_a_set_that_has_only_held_out_parts_is_not_trained_on(tmp_path: Path) -> None:
    folders(tmp_path / "test", {"a": 1, "b": 1})
    with pytest.raises(ValueError, match="expected images in the part 'train'"):
        open_examples(tmp_path)


def test_imagenette_names_its_classes_and_their_outputs(tmp_path: Path) -> None:
    folders(tmp_path / "train", {"n03888257": 1, "n01440764": 2})
    examples = open_examples(tmp_path)
    assert examples.classes == ("tench", "parachute")
    assert examples.outputs == (0, 701)
    assert examples.labels.tolist() == [0, 0, 1]
    some = open_examples(tmp_path, classes=("tench", "golf ball", "parachute"))
    assert some.outputs is None  # nothing says which output is the golf ball's


def test_folders_have_attention_maps_beside_them(tmp_path: Path) -> None:
    folders(tmp_path / "train", {"a": 1, "b": 1})
    for name in ("a", "b"):
        picture(tmp_path / "maps" / "train" / name / "000.png", 77, mode="L")
    examples = open_examples(tmp_path)
    assert examples.has_attention
    assert len(examples) == 2
    attention = examples.pixels(1)[1]
    assert attention.shape == (8, 8)
    assert (attention == 77).all()


def test_a_subset_keeps_classes_and_ids() -> None:
    whole = open_examples("cells", size=16, count=9)
    part = whole.subset([7, 2, 5]).subset([2, 0])
    assert part.ids.tolist() == [5, 7]
    assert part.labels.tolist() == whole.labels[[5, 7]].tolist()
    assert part.classes == whole.classes
    assert part.has_attention
    for got, expected in zip(part.pixels(1), whole.pixels(7), strict=True):
        assert np.array_equal(got, expected)
    with pytest.raises(ValueError, match="from 0 to 8, got 9"):
        whole.subset([9])


def test_split_off_takes_a_fraction_of_every_class(tmp_path: Path) -> None:
    examples = open_examples(folders(tmp_path, {"a": 20, "b": 10, "c": 2}))
    rest, off = split_off(examples, 0.2, seed=1)
    assert torch.bincount(off.labels).tolist() == [4, 2, 1]
    assert sorted(rest.ids.tolist() + off.ids.tolist()) == list(range(32))
    assert split_off(examples, 0.2, seed=1)[1].ids.tolist() == off.ids.tolist()
    assert split_off(examples, 0.2, seed=2)[1].ids.tolist() != off.ids.tolist()
    with pytest.raises(ValueError, match="fraction: expected a number between 0 and 1, got 1"):
        split_off(examples, 1)
    lone = examples.subset([0, 1, 20])
    with pytest.raises(ValueError, match=r"at least two images of each class.*'b' has 1"):
        split_off(lone, 0.5)


def test_a_damaged_training_part_is_not_replaced_by_the_test_part(tmp_path: Path) -> None:
    for name in ("test_batch", *(f"data_batch_{number}" for number in (1, 2, 4, 5))):
        pixels = np.zeros((4, 3072), np.uint8)
        with (tmp_path / name).open("wb") as file:
            pickle.dump({b"data": pixels, b"labels": [0, 0, 1, 1]}, file, protocol=2)
    with pytest.raises(ValueError, match="expected the batch data_batch_3"):
        open_examples(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="data_batch_3: expected a batch of CIFAR-10"):
        open_examples(tmp_path)


@pytest.mark.data
def test_cifar10_and_imagenette_as_they_are(data_folder: Path) -> None:
    cifar = open_examples(data_folder / "cifar10-jpeg.zip")
    assert torch.bincount(cifar.labels).tolist() == [5000] * 10
    assert cifar.classes[:3] == ("airplane", "automobile", "bird")
    assert cifar.pixels(49_999)[0].shape == (32, 32, 3)
    test = open_examples(data_folder / "cifar10-jpeg.zip", split="test", classes=cifar.classes)
    assert len(test) == 5000
    nette = open_examples(data_folder / "imagenette-128.zip")
    assert len(nette) == 9469
    assert nette.outputs == (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
    lines = (data_folder / "imagenet-classes.txt").read_text().splitlines()
    known = [lines[output].lower().replace("_", " ") for output in nette.outputs]
    assert [name.lower() in line for name, line in zip(nette.classes, known, strict=True)] == (
        [True] * 10
    )
    assert len(open_examples(data_folder / "imagenette-128.zip", split="test")) == 2925


def test_an_archive_is_read_after_a_fork(tmp_path: Path) -> None:
    root = folders(tmp_path / "in", {"a": 30, "b": 30})
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for file in root.rglob("*.png"):
            archive.write(file, file.relative_to(root))
    examples = open_examples(tmp_path / "data.zip")
    assert examples.pixels(0)[0].shape == (8, 8, 3)
    data = torch.utils.data.DataLoader(
        [(examples, n) for n in range(60)], num_workers=2, batch_size=None, collate_fn=_first
    )
    assert list(data) == [*range(30), *range(10, 40)]


def _first(pair: tuple[object, int]) -> int:
    return int(pair[0].pixels(pair[1])[0][0, 0, 0])
