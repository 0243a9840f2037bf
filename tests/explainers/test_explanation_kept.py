"""What becomes of an explanation: parts of it, files, tables, other devices and precisions."""

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import toys
from moreaugrad import (
    METHODS,
    Explanation,
    GroupSparseMoreauGrad,
    IntegratedGradients,
    MoreauGrad,
    SimpleGradient,
    SmoothGrad,
    SparseMoreauGrad,
    build,
)
from moreaugrad.files.tensors import read_tensors, write_tensors
from moreaugrad.runs.maps.block import map_record

MODEL = toys.network((5, 8, 3))


def normal(*shape: int) -> Tensor:
    return toys.normal(*shape, seed=3)


X = normal(4, 5)
MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 4 + [False], [True] * 5])


def same(one: Any, other: Any) -> bool:
    """To the bit, NaN and the kinds of containers too."""
    if isinstance(one, Tensor):
        return (
            isinstance(other, Tensor)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and one.numpy().tobytes() == other.numpy().tobytes()
            if one.dtype is not torch.bfloat16
            else torch.equal(one.view(torch.int16), other.view(torch.int16))
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return isinstance(other, tuple) and all(map(same, one, other)) and len(one) == len(other)
    plain = isinstance(one, float) or type(one) is type(other)  # those of numpy become Python's
    return plain and one == other


def differing(one: Explanation, other: Explanation) -> list[str]:
    names = [item.name for item in fields(one)]
    return [name for name in names if not same(getattr(one, name), getattr(other, name))]


def two(a: Tensor, b: Tensor) -> Tensor:
    return MODEL(torch.cat([a, b], 1))


def segments(x: Tensor) -> Tensor:
    """Outputs `[B, 3, 2]`."""
    return torch.stack([MODEL(x), MODEL(-x)], dim=2)


def images() -> Explanation:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    return GroupSparseMoreauGrad(net, sigma=0).explain(normal(2, 3, 8, 8).float())


MADE: dict[str, Callable[[], Explanation]] = {
    "plain": lambda: SimpleGradient(MODEL).explain(X),
    "z-scores": lambda: SmoothGrad(MODEL, samples=8).explain(X, 1),
    "details": lambda: SparseMoreauGrad(MODEL, rho="auto", max_evaluations=64).explain(X, 1),
    "inputs": lambda: SmoothGrad(two, samples=8).explain((X[:, :2], X[:, 2:]), 1),
    "one input as a tuple": lambda: SimpleGradient(MODEL).explain((X,), 1),
    "mask": lambda: SmoothGrad(MODEL, samples=8).explain(X, 1, mask=MASK),
    "position": lambda: SimpleGradient(segments).explain(X, (1, 0)),
    "regression": lambda: SimpleGradient(MODEL, task="regression").explain(X, 1),
    "one logit": lambda: SimpleGradient(lambda x: MODEL(x)[:, :1]).explain(X),
    "layer": lambda: SimpleGradient(MODEL, layer="0").explain(X, 1),
    "baselines": lambda: IntegratedGradients(MODEL, steps=4).explain(X, 1, baselines=0.25),
    "labels": lambda: SimpleGradient(MODEL).explain(X).with_labels(["é", "</script>", "\u2028"]),
    "numpy's numbers": lambda: SmoothGrad(MODEL, samples=4, sigma=np.float64(0.2)).explain(X, 1),
    "bfloat16": lambda: SimpleGradient(toys.network((5, 3)).bfloat16()).explain(X.bfloat16()),
    "not finite": lambda: SimpleGradient(lambda x: (x * 0).sqrt()).explain(X[:, :3], 1),
    "images": images,
    "none": lambda: SimpleGradient(MODEL).explain(X)[:0],
}


@pytest.mark.parametrize("kind", MADE)
def test_a_saved_explanation_is_the_same_to_the_bit(kind: str, tmp_path: Path) -> None:
    made = MADE[kind]()
    made.save(tmp_path / "it.safetensors")
    found = Explanation.load(tmp_path / "it.safetensors")
    assert differing(made, found) == []
    assert repr(found) == repr(made)


@pytest.mark.parametrize("method", METHODS)
def test_settings_of_every_method_survive(method: str, tmp_path: Path) -> None:
    settings = build(method, MODEL).settings()
    made = SimpleGradient(MODEL).explain(X)
    object.__setattr__(made, "settings", settings)
    made.save(tmp_path / "it")
    assert same(Explanation.load(tmp_path / "it").settings, settings)


def test_a_loaded_explanation_can_be_differentiated(tmp_path: Path) -> None:
    explainer = MoreauGrad(MODEL, sigma=0, rho=0.1)
    made = explainer.explain(X, 1)
    made.save(tmp_path / "it")
    found = Explanation.load(str(tmp_path / "it"))
    assert torch.equal(explainer.vjp(found, found.maps), explainer.vjp(made, made.maps))


def rewritten(data: bytes, edit: Callable[[dict[str, Any]], Any], path: Path) -> None:
    """A file whose text is edited, with a digest that fits."""
    path.write_bytes(data)
    text, tensors = read_tensors(path, "it")
    write_tensors(path, tensors, json.dumps(edit(json.loads(text))))


DAMAGED: dict[str, Callable[[bytes, Path], object]] = {
    "cut": lambda data, path: path.write_bytes(data[:-9]),
    "cut in its header": lambda data, path: path.write_bytes(data[:100]),
    "few bytes": lambda data, path: path.write_bytes(data[:5]),
    "empty": lambda data, path: path.write_bytes(b""),
    "a changed bit": lambda data, path: path.write_bytes(data[:-3] + b"\x01" + data[-2:]),
    "text": lambda data, path: path.write_bytes(b"maps, of some kind"),
    "a pickle": lambda data, path: torch.save({"maps": X}, path),
    "another program's": lambda data, path: save_file({"maps": X}, path),
    "a checkpoint": lambda data, path: write_tensors(path, {"maps": X}, "12"),
    "a list": lambda data, path: write_tensors(path, {"maps": X}, "[1]"),
    "a newer format": lambda data, path: rewritten(data, lambda t: t | {"format": 9}, path),
    "an unknown status": lambda data, path: rewritten(data, lambda t: t | {"status": ["x"]}, path),
    "an unknown field": lambda data, path: rewritten(data, lambda t: t | {"more": 1}, path),
    "a missing field": lambda data, path: rewritten(
        data, lambda t: {k: v for k, v in t.items() if k != "method"}, path
    ),
    "a folder": lambda data, path: path.mkdir(),
    "nothing": lambda data, path: None,
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_other_files_give_one_clear_error(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    MADE["z-scores"]().save(path)
    data = path.read_bytes()
    path.unlink()
    DAMAGED[kind](data, path)
    with pytest.raises(ValueError, match=r"explanation|damaged") as caught:
        Explanation.load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_an_explanation_that_cannot_be_saved_leaves_the_old_file(tmp_path: Path) -> None:
    made, path = MADE["plain"](), tmp_path / "it"
    made.save(path)
    before = path.read_bytes()
    object.__setattr__(made, "settings", {"baselines": object()})
    with pytest.raises(ValueError, match=r"settings: expected values that JSON"):
        made.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# Samples.

NUMBERS = st.lists(st.integers(-6, 5), max_size=8)
SLICES = st.slices(6)
SIX = SmoothGrad(two, samples=8).explain((normal(6, 2), normal(6, 3)), [0, 1, 2, 0, 1, 2])


@settings(deadline=None, max_examples=60)
@given(first=NUMBERS, then=SLICES)
def test_parts_of_parts_are_parts(first: list[int], then: slice) -> None:
    """As a numpy array of the sample numbers is indexed."""
    rows = np.arange(6)[np.array(first, dtype=int)][then].tolist()
    found = SIX[first][then]
    assert len(found) == len(rows) == len(list(found))
    assert found.status == tuple(SIX.status[row] for row in rows)
    for name in ("target", "score", "error", "probabilities", "seconds"):
        assert torch.equal(getattr(found, name), getattr(SIX, name)[rows]), name
    for name in ("maps", "inputs", "z_scores"):
        for part, whole in zip(getattr(found, name), getattr(SIX, name), strict=True):
            assert torch.equal(part, whole[rows])
    assert found.settings == SIX.settings
    assert f"{len(rows)} sample" in repr(found)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_numbers_and_masks_in_any_form(kind: Callable[[list[Any]], Any]) -> None:
    mask = [True, False, False, True, False, True]
    for index, rows in ((kind([4, -1, 4]), [4, 5, 4]), (kind(mask), [0, 3, 5])):
        assert torch.equal(SIX[index].score, SIX.score[rows])
    assert len(SIX[kind([False] * 6)]) == 0
    for index in (kind([6]), kind([-7]), kind([True, False])):
        with pytest.raises(IndexError, match="expected a"):
            SIX[index]
    for index in (kind([1.0]), kind([[1]])):
        with pytest.raises(TypeError, match="expected the number"):
            SIX[index]


def test_labels_are_of_all_classes_in_every_part() -> None:
    found = SIX.with_labels(("a", "b", "c"))[[5]]
    assert found.label(2) == "c"
    assert found.label(7) == "class 7"
    with pytest.raises(ValueError, match=r"labels: expected 3 names, got 2"):
        SIX.with_labels(["a", "b"])


# Numbers for others.


def test_probabilities_are_those_of_the_network() -> None:
    assert torch.allclose(MADE["plain"]().probabilities, MODEL(X).softmax(1))
    assert torch.allclose(MADE["position"]().probabilities, MODEL(X).softmax(1))
    single = torch.sigmoid(MODEL(X)[:, :1])
    assert torch.allclose(MADE["one logit"]().probabilities, torch.cat([1 - single, single], 1))
    each = SimpleGradient(MODEL, task="multilabel").explain(X, 1)
    assert torch.allclose(each.probabilities, MODEL(X).sigmoid())
    assert MADE["regression"]().probabilities is None


def test_a_table_has_a_row_for_each_sample() -> None:
    pytest.importorskip("pandas")
    found = MADE["details"]().with_labels(["a", "b", "c"])
    table = found.to_pandas()
    assert len(table) == 4
    assert list(table["label"]) == ["b"] * 4
    for row, record in enumerate(table.to_dict("records")):
        assert record["probability"] == pytest.approx(float(found.probabilities[row, 1]))
        for name, value in map_record(found, row).items():
            if name != "details":
                assert record[name] == value
        assert record["details.rho"] == pytest.approx(float(found.details["rho"][row]))
    assert len(found[:0].to_pandas()) == 0


def test_a_table_of_entries_leaves_padding_out() -> None:
    pytest.importorskip("pandas")
    found = MADE["mask"]()
    table = found.to_pandas(entries=True)
    assert len(table) == int(MASK.sum())
    for row in table.to_dict("records"):
        place = int(row["sample"]), int(row["axis_0"])
        assert MASK[place]
        assert row["map"] == float(found.maps[place])
        assert row["input"] == float(X[place])
        assert row["z_score"] == float(found.z_scores[place])
    few = MADE["inputs"]().to_pandas(entries=1)
    assert len(few) == 8  # of each sample and input
    largest = torch.stack([part.abs().amax(1) for part in MADE["inputs"]().parts], 1).flatten()
    assert few["map"].abs().tolist() == largest.tolist()


def test_arrays_are_of_each_input() -> None:
    arrays = MADE["inputs"]().numpy()
    assert [array.shape for array in arrays] == [(4, 2), (4, 3)]
    assert MADE["bfloat16"]().numpy().dtype == np.float32


def test_another_precision_is_that_of_the_entries() -> None:
    made = MADE["mask"]()
    found = made.to(torch.float32)
    assert {found.maps.dtype, found.inputs.dtype, found.z_scores.dtype} == {torch.float32}
    assert torch.equal(found.maps, made.maps.float())
    assert (found.error.dtype, found.target.dtype, found.mask.dtype) == (
        torch.float64, torch.long, torch.bool,
    )  # fmt: skip
    assert differing(made, made.cpu()) == []
    assert isinstance(MADE["inputs"]().to(dtype=torch.float16).maps, tuple)
    away = MADE["details"]().to("meta")
    assert {away.maps.device.type, away.target.device.type} == {"meta"}
    assert away.details["rho"].device.type == "meta"
    with pytest.raises(ValueError, match="dtype: expected a floating-point"):
        made.to(torch.int32)
