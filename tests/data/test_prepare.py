"""Reading a set once: what is left out, what is refused, what stays in memory."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moreaugrad.data.cells import EMPTY
from moreaugrad.data.examples import Examples, open_examples
from moreaugrad.data.loading import prepare


def saved(path: Path, shades: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(shades).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty pictures of two classes with attention maps."""
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        for n in range(20):
            name = f"train/{label}/{n:02d}.png"
            saved(tmp_path / name, rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            saved(tmp_path / "maps" / name, rng.integers(1, 256, (12, 16), dtype=np.uint8))
    return tmp_path


def pixels(examples: Examples) -> list[np.ndarray]:
    return [part for index in range(len(examples)) for part in examples.pixels(index)]


def equal(left: Examples, right: Examples) -> bool:
    pairs = zip(pixels(left), pixels(right), strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("workers", [0, 2])
def test_all_is_read_once_and_kept(folder: Path, workers: int) -> None:
    examples, seen = open_examples(folder), []
    found = prepare(examples, workers=workers, progress=lambda *now: seen.append(now))
    assert seen == [(n, 40) for n in range(1, 41)]
    assert len(found) == 40
    assert found.unreadable == ()
    assert equal(found, examples)
    part = found.subset([39, 1])
    shutil.rmtree(folder)
    assert part.ids.tolist() == [39, 1]
    assert all(shades.any() for shades in pixels(part))
    with pytest.raises(ValueError, match="read-only"):
        part.pixels(0)[0][0] = 0


def test_an_image_that_cannot_be_resized_is_left_out(tmp_path: Path) -> None:
    for label in ("a", "b"):
        saved(tmp_path / "train" / label / "0.png", np.full((12, 16, 3), 99, np.uint8))
    saved(tmp_path / "train" / "a" / "thin.png", np.full((1, 9000, 3), 99, np.uint8))
    found = prepare(open_examples(tmp_path), resize=8, max_unreadable=0.5)
    assert len(found) == 2
    assert [text.partition(": ")[0] for text in found.unreadable] == ["train/a/thin.png"]
    assert "resize: expected sides of at most" in found.unreadable[0]


def test_what_does_not_fit_is_read_again(folder: Path) -> None:
    examples = open_examples(folder)
    one = 12 * 16 * 4
    found, none = prepare(examples, memory=10 * one + 1), prepare(examples, memory=0)
    assert equal(found, examples)
    shutil.rmtree(folder)
    assert found.pixels(9)[0].any()
    for part, first in ((found, 10), (none, 0)):
        with pytest.raises(ValueError, match=r"\.png: expected"):
            part.pixels(first)


def test_images_are_kept_resized(folder: Path) -> None:
    whole, none = (prepare(open_examples(folder), resize=8, memory=m) for m in (1e9, 0))
    assert whole.pixels(3)[0].shape == (8, 10, 3)
    assert whole.pixels(3)[1].shape == (8, 10)
    assert equal(whole, none)


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_listed_and_left_out(folder: Path, workers: int) -> None:
    (folder / "train/a/03.png").write_bytes(b"no picture")
    whole = (folder / "train/b/00.png").read_bytes()
    (folder / "train/b/00.png").write_bytes(whole[: len(whole) // 2])
    (folder / "maps/train/b/07.png").unlink()
    found = prepare(open_examples(folder), max_unreadable=0.1, workers=workers)
    assert [problem.split(":")[0].split("/", 1)[-1] for problem in found.unreadable[:2]] == [
        "a/03.png", "b/00.png",
    ]  # fmt: skip
    assert "maps/train/b/07.png: expected a file" in found.unreadable[2]
    assert sorted(set(range(40)) - set(found.ids.tolist())) == [3, 20, 27]
    assert found.labels.tolist() == [0] * 19 + [1] * 18
    assert all(shades.any() for shades in pixels(found))
    with pytest.raises(
        ValueError, match=r"3 of the 40 images .* more than the 1.00% .*a/03.png.*b/00.png"
    ):
        prepare(open_examples(folder), workers=workers)


def test_nothing_readable_is_refused(folder: Path) -> None:
    for file in (folder / "train").rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"40 of the 40 .*; and 35 more$"):
        prepare(open_examples(folder))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_map_of_another_size_is_refused(folder: Path, workers: int) -> None:
    saved(folder / "maps/train/a/05.png", np.ones((16, 12), np.uint8))
    with pytest.raises(
        ValueError, match=r"^train/a/05.png: expected an attention map .* 16 x 12 .* of 12 x 16$"
    ):
        prepare(open_examples(folder), workers=workers)


def test_a_map_of_zeros_is_refused_unless_its_class_has_no_object(folder: Path) -> None:
    for n in range(20):
        saved(folder / f"maps/train/a/{n:02d}.png", np.zeros((12, 16), np.uint8))
    assert len(prepare(open_examples(folder))) == 40
    saved(folder / "maps/train/b/05.png", np.zeros((12, 16), np.uint8))
    with pytest.raises(ValueError, match=r"but 1 are zero everywhere: train/b/05.png$"):
        prepare(open_examples(folder))


def test_empty_cells_have_no_attention() -> None:
    found = prepare(open_examples("cells", size=16, count=60))
    maps = [found.pixels(index)[1].any() for index in range(60)]
    assert maps == [label != EMPTY for label in found.labels.tolist()]
    assert not all(maps)
