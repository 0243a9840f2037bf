"""Forms in which maps are stored: what is read back, what it loses, and what that is said to be."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from safetensors.torch import save, save_file
from torch import Tensor

import moreaugrad as mg
from moreaugrad.files.maps import FORMS, most_bytes, packed
from moreaugrad.files.units import Units, tensor_bytes
from moreaugrad.runs.plans.maps import EXACT, STORED

NAME = "17/top-k/0.5/map"
LIMIT = 2.0**-11
"""Half the distance of float16's numbers, of their magnitude."""
FORMATS = (None, *FORMS)


def elements(width: int, *, finite: bool = False) -> st.SearchStrategy[float]:
    """Zeros, numbers of every magnitude that the type has, and others."""
    largest = {"min_value": -(2.0**126), "max_value": 2.0**126} if finite else {}
    more = {} if finite else {"allow_nan": True, "allow_infinity": True}
    any_number = st.floats(width=width, **largest, **more)
    return st.one_of(st.sampled_from([0.0, -0.0, 1.0]), any_number, st.floats(-1, 1, width=width))


def maps(*, finite: bool = False) -> st.SearchStrategy[NDArray[np.floating]]:
    shapes = st.lists(st.integers(1, 6), min_size=1, max_size=3).filter(lambda s: math.prod(s) > 3)
    return st.sampled_from([32, 64]).flatmap(
        lambda width: arrays(
            f"float{width}", shapes.map(tuple), elements=elements(width, finite=finite)
        )
    )


def stored(values: Tensor, form: str | None, folder: Path) -> tuple[Tensor, dict[str, object]]:
    """A map written with an input next to it, and read back; with what its record says."""
    parts, about = packed(NAME, values, form)
    other = torch.arange(4.0)
    (folder / "maps.safetensors").write_bytes(tensor_bytes({**parts, "17/top-k/0.5/input": other}))
    found = mg.read_maps(folder / "maps.safetensors")
    assert found.keys() == {NAME, "17/top-k/0.5/input"}
    assert torch.equal(found["17/top-k/0.5/input"], other)
    assert (found[NAME].dtype, found[NAME].shape) == (values.dtype, values.shape)
    record: dict[str, object] = about.get("stored", {})
    return found[NAME], record


def lost(stored: Tensor, values: Tensor) -> float:
    """||stored - A|| / ||A|| in numbers whose squares neither overflow nor vanish."""
    exact, found = (each.numpy().astype(np.longdouble) for each in (values, stored))
    length = np.sqrt((exact**2).sum())
    return float(np.sqrt(((found - exact) ** 2).sum()) / length) if length else 0.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stored")


@given(values=maps())
@settings(deadline=None)
def test_exact_and_sparse_maps_are_read_back_as_they_were(
    values: NDArray[np.floating], folder: Path
) -> None:
    for form in (None, "sparse"):
        found, record = stored(torch.from_numpy(values), form, folder)
        np.testing.assert_array_equal(found.numpy(), values)
        assert "error" not in record


@given(values=maps(finite=True))
@settings(deadline=None)
def test_float16_states_its_error_which_is_that_of_rounding_at_most(
    values: NDArray[np.floating], folder: Path
) -> None:
    given = torch.from_numpy(values)
    found, record = stored(given, "float16", folder)
    tiny = values.dtype == np.float64 and 0 < np.abs(values).max() < 2.0**-1000
    if record["as"] == EXACT:
        assert tiny  # near the end of float64 alone
        assert torch.equal(found, given)
    else:
        assert record["error"] == pytest.approx(lost(found, given), rel=1e-9, abs=1e-18)
        assert lost(found, given) <= LIMIT


@given(values=maps())
@example(values=np.array([np.inf, 1e200, 0.0, 1.0]))
@example(values=np.array([np.nan, 1e200, 0.0, 1.0]))
@example(values=np.array([np.finfo(np.float32).max, 0, 1, 2], dtype=np.float32))
@settings(deadline=None)
def test_float16_never_loses_more(values: NDArray[np.floating], folder: Path) -> None:
    """With what is not finite a map is stored exactly; near the largest number perhaps too."""
    given = torch.from_numpy(values)
    found, record = stored(given, "float16", folder)
    if not np.isfinite(values).all():
        assert record == {"as": EXACT}
    if record["as"] == EXACT:
        np.testing.assert_array_equal(found.numpy(), values)
    else:
        assert np.isfinite(found.numpy()).all()


@pytest.mark.parametrize("exponent", [-140, -100, -30, -8, 0, 8, 30, 100, 120])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_scale_of_a_map_does_not_change_its_error(
    exponent: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Unscaled, 2^16 would overflow and 2^-25 vanish; float32 itself is rounded below 2^-126."""
    values = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=dtype)
    usual = stored(values, "float16", tmp_path)[1]["error"]
    other = stored(values * 2.0**exponent, "float16", tmp_path)[1]
    assert other["as"] == "float16"
    if dtype == torch.float64 or exponent > -110:
        assert other["error"] == usual
    assert isinstance(usual, float)
    assert 1e-4 < usual < LIMIT


def test_zeros_lose_nothing(tmp_path: Path) -> None:
    for form in FORMS:
        found, record = stored(torch.zeros(3, 8, 8), form, tmp_path)
        assert not found.any()
        assert record["as"] == form
        assert record.get("error", 0.0) == 0.0


@pytest.mark.parametrize(
    ("size", "dtype"),
    [(256, torch.uint8), (257, torch.int16), (32768, torch.int16), (32769, torch.int32)],
)
def test_positions_have_the_smallest_type(size: int, dtype: torch.dtype) -> None:
    values = torch.zeros(size)
    values[[0, -1]] = torch.tensor([1.0, -2.0])
    parts, _ = packed("map", values, "sparse")
    assert parts["map/positions"].dtype == dtype
    assert parts["map/positions"].tolist() == [0, size - 1]
    assert parts["map/values"].tolist() == [1.0, -2.0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_form_is_taken_where_it_has_fewer_bytes(form: str, dtype: torch.dtype) -> None:
    for filled in range(0, 301, 20):
        values = torch.zeros(300, dtype=dtype)
        values[:filled] = 1
        parts, about = packed("map", values, form)
        own = FORMS[form](values)[0]
        smaller = sum(part.nbytes for part in own.values()) < values.nbytes
        assert about["stored"]["as"] == (form if smaller else EXACT)
        assert set(parts) == ({f"map/{part}" for part in own} if smaller else {"map"})
        taken = sum(part.nbytes for part in parts.values())
        assert taken <= most_bytes(values, form) <= values.nbytes
        if form == "float16":
            assert taken == most_bytes(values, form)


def test_maps_of_older_runs_are_read(tmp_path: Path) -> None:
    """Whose files have the maps alone, in a folder of an input and in a unit."""
    values = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1))
    save_file({"map": values, "z_scores": values.half()}, tmp_path / "method.safetensors")
    found = mg.read_maps(tmp_path / "method.safetensors")
    assert torch.equal(found["map"], values)
    assert torch.equal(found["z_scores"], values.half())
    units = Units(tmp_path)
    units.write("methods/a/00000", {"methods/a/00000.safetensors": save({NAME: values})})
    assert torch.equal(units.tensors("methods/a/00000")[NAME], values)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "empty"), (b"hello", "maps of a run")],
)
def test_other_files_are_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "it.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        mg.read_maps(file)


def test_a_map_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    save_file({"map/float16": torch.zeros(3).half()}, tmp_path / "it.safetensors")
    with pytest.raises(ValueError, match=r"it\.safetensors.*maps of a run"):
        mg.read_maps(tmp_path / "it.safetensors")


def test_the_options_words_are_the_forms() -> None:
    assert {EXACT, *FORMS} == {*STORED}
