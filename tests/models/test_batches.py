"""A recipe of maps pickles, and makes the same bytes in other processes."""

import io
import multiprocessing
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import moreaugrad as mg
import tiny_models

RECIPE = mg.BatchExplainer(
    model="tiny_models:smooth", method="smoothgrad", settings={"samples": 4}, target=1
)


def images(count: int = 4, size: int = 20) -> list[np.ndarray[Any, Any]]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(count)]


def digest(work: tuple[mg.BatchExplainer, dict[str, Any]]) -> tuple[bytes, list[str], list[int]]:
    explain, batch = work
    found = explain(batch)
    return found["map"].tobytes(), found["status"].tolist(), found["id"]


def test_spawned_processes_make_the_same_bytes() -> None:
    every = images()
    batches = [{"image": every[:2], "id": [0, 1]}, {"image": every[2:], "id": [2, 3]}]
    here = [digest((RECIPE, batch)) for batch in batches]  # which has loaded the network
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        there = pool.map(digest, [(RECIPE, batch) for batch in batches], chunksize=1)
    assert there == here
    assert here[0][0] != here[1][0]


def test_it_pickles_as_its_settings() -> None:
    RECIPE({"image": images(1)})
    found = pickle.loads(pickle.dumps(RECIPE))
    assert found == RECIPE
    assert "_loaded" not in vars(found)
    assert len(pickle.dumps(RECIPE)) < 1000


@pytest.mark.parametrize(
    ("recipe", "explainer"),
    [
        (RECIPE, lambda module: mg.SmoothGrad(module, samples=4)),
        # In pixel units, by the preprocessing.
        (
            mg.BatchExplainer(model=tiny_models.smooth, method="cafo", target=1),
            lambda module: mg.CAFO(module, std=list(tiny_models.PREPROCESS.std)),
        ),
    ],
)
def test_maps_are_those_of_the_method(recipe: mg.BatchExplainer, explainer: Any) -> None:
    every = images(2)
    loaded = tiny_models.smooth()
    x = torch.stack([loaded.preprocess(Image.fromarray(one)) for one in every])
    expected = explainer(loaded.module).explain(x, 1)
    found = recipe({"image": every, "id": ["a", "b"]})
    assert np.array_equal(found["map"], expected.maps.numpy())
    assert found["status"].tolist() == [status.value for status in expected.status]
    assert found["id"] == ["a", "b"]
    assert "image" not in found


def encoded(image: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_images_of_every_kind_are_the_same() -> None:
    every = images(2)
    inputs = [tiny_models.PREPROCESS(Image.fromarray(one)).numpy() for one in every]
    kinds: list[Any] = [
        every, np.stack(every), [Image.fromarray(one) for one in every],
        [encoded(one) for one in every], [bytearray(encoded(one)) for one in every],
        inputs, np.stack(inputs),
    ]  # fmt: skip
    maps = [RECIPE({"image": kind})["map"] for kind in kinds]
    assert all(np.array_equal(maps[0], one) for one in maps[1:])


def test_inputs_of_different_shapes_have_maps_of_their_own() -> None:
    recipe = mg.BatchExplainer(model=tiny_models.smooth, method="simple-gradient")
    inputs = [np.random.default_rng(0).random((3, size, size)) for size in (16, 24)]
    found = recipe({"image": inputs})
    assert [one.shape for one in found["map"]] == [(3, 16, 16), (3, 24, 24)]
    alone = recipe({"image": inputs[1:]})["map"][0]
    assert np.array_equal(found["map"][1], alone)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({"img": []}, "a column 'image'"),
        ({"image": []}, "at least one"),
        ({"image": [b"x"]}, "an image"),
        ({"image": [np.zeros((20, 20, 3), dtype=np.uint8), b"x"]}, "row 1 of the batch.*an image"),
        ({"image": np.zeros((1, 3, 20, 20), dtype=np.int64)}, "uint8.*int64"),
        ({"image": [np.zeros((3, 20, 20), dtype=int).tolist()]}, "uint8.*list as int64"),
        ({"image": np.zeros((1, 3, 20, 20), dtype=np.uint8)}, r"H, W, 3.*\(3, 20, 20\)"),
        ({"image": [{"bytes": b"x", "path": None}]}, "uint8.*dict"),
    ],
)
def test_other_batches_are_refused(batch: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RECIPE(batch)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="smoothgrad"):
        mg.BatchExplainer(model="tiny_models:smooth", method="smoothgrat")({"image": images(1)})


def test_its_class_has_no_metaclass() -> None:
    """Ray and Spark pickle classes by value (cloudpickle), which one whose docstring is made when
    it is asked for does not survive."""
    assert type(mg.BatchExplainer) is type
