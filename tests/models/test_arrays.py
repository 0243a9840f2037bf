"""How values of files become inputs of networks of series and volumes."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from moreaugrad.data.arrays import ArrayFile
from moreaugrad.data.scans import Geometry
from moreaugrad.models import ArrayInput, LoadedModel, load_model


def line():
    return nn.Linear(4, 2)


def heard(values, takes, rate=100):
    return takes.prepared(ArrayFile(np.asarray(values, float), rate))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(["start", "centre"]))
def test_cut_and_padded_is_as_written_out(old, new, fit):
    values = np.arange(1.0, old + 1)
    found = ArrayInput(shape=(new,), fit=fit)(ArrayFile(values)).tolist()
    # One side of a long row of zeros with the values in it.
    row = [0.0] * 20 + values.tolist() + [0.0] * 20
    start = 20 + (round((old - new) / 2) if fit == "centre" else 0)
    assert found == row[start : start + new]


def test_volumes_are_cut_along_each_axis_but_not_the_channels():
    values = np.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4)
    takes = ArrayInput(shape=(1, 2, 2, -1), fit="centre")
    np.testing.assert_array_equal(takes(ArrayFile(values)), values[:, :, 0:2])
    with pytest.raises(ValueError, match=r"\[3, 2, 2, any\].*channels first"):
        ArrayInput(shape=(3, 2, 2, -1), fit="centre")(ArrayFile(values))


@settings(deadline=None, max_examples=50)
@given(st.tuples(*[st.integers(1, 6)] * 3), st.sampled_from(["start", "centre"]))
def test_voxels_that_are_kept_stay_where_they_are(sizes, fit):
    affine = np.random.default_rng(1).normal(size=(4, 4))
    affine[3] = 0, 0, 0, 1
    values = np.arange(1.0, 2 * 3 * 4 + 1).reshape(1, 2, 3, 4)
    found = ArrayFile(values, geometry=Geometry(affine, "micron"))
    takes = ArrayInput(shape=(1, *sizes), fit=fit)
    made = takes.geometry(found)
    assert made.unit == "micron"
    for new in np.argwhere(takes(found).numpy()[0]):
        (old,) = np.argwhere(values[0] == takes(found).numpy()[0][tuple(new)])
        places = [a @ [*at[::-1], 1] for a, at in ((affine, old), (made.affine, new))]
        np.testing.assert_allclose(*places)
    assert takes.geometry(ArrayFile(values)) is None


@pytest.mark.parametrize("shape", [(5,), (3,), (1, 4), (2, 2)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected the shape .*got \[4\]"):
        ArrayInput(shape=shape)(ArrayFile(np.zeros(4)))


@pytest.mark.parametrize("rate", [173.61, 44100.0])
def test_a_tone_keeps_its_pitch_at_any_rate(rate):
    time = np.arange(8000) / 8000
    tone = ArrayFile(np.sin(2 * np.pi * 20 * time)[None], rate=8000)
    x = ArrayInput(shape=(-1,), rate=rate)(tone).numpy()
    assert abs(len(x) - rate) <= 1
    inner = slice(len(x) // 4, 3 * len(x) // 4)  # away from the zeros around it
    expected = np.sin(2 * np.pi * 20 * np.arange(len(x)) / rate)
    np.testing.assert_allclose(x[inner], expected[inner], atol=0.01)


def test_sounds_are_mixed_resampled_and_said_to_be():
    times = np.arange(400) / 400
    tone = np.sin(2 * np.pi * 5 * times)
    takes = ArrayInput(shape=(-1,), rate=100.0)
    found, notes = heard([tone, 0 * tone], takes, rate=400)
    assert found.shape == (100,)
    expected = torch.tensor(tone[::4] / 2, dtype=torch.float32)
    assert float((found - expected)[10:-10].abs().max()) < 2e-3
    assert any("2 channels" in note for note in notes)
    assert any("400 to 100" in note for note in notes)
    same, notes = heard([tone], takes, rate=100)
    assert same.tolist() == torch.tensor(tone, dtype=torch.float32).tolist()
    assert not notes


def test_channels_stay_in_a_network_of_several():
    both, _ = heard([[1, 2], [3, 4]], ArrayInput(shape=(2, -1), rate=100))
    assert both.tolist() == [[1, 2], [3, 4]]
    one, _ = heard([[1, 2], [3, 4]], ArrayInput(shape=(1, -1), rate=100))
    assert one.tolist() == [[2, 3]]
    with pytest.raises(ValueError, match="expected 2 channels"):
        heard([[1, 2]], ArrayInput(shape=(2, -1), rate=100))


@pytest.mark.parametrize("takes", [ArrayInput(), ArrayInput(shape=(4,)), ArrayInput(rate=100),
                                   ArrayInput(shape=(1, 4, 4), rate=100)])  # fmt: skip
def test_a_sound_needs_a_shape_and_a_rate(takes):
    with pytest.raises(ValueError, match="--rate"):
        heard([[1, 2, 3, 4]], takes)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="1 of 3"):
        ArrayInput()(ArrayFile(np.array([0, value, 0])))


@pytest.mark.parametrize("wrong", [{"shape": (0,)}, {"shape": (-2,)}, {"rate": 0.0}, {"fit": "pad"},
                                   {"rate": float("nan")}])  # fmt: skip
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ArrayInput(**wrong)


def test_a_large_array_is_refused_or_cut_before_it_is_read(tmp_path):
    # A file with holes: 64 GiB that are not on the disk, let alone in memory.
    path = tmp_path / "large.npy"
    shape = (1, 2**12, 2**11, 2**11)
    large = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    del large
    from moreaugrad.data.arrays import read_array

    try:
        found = read_array(path)
    except ValueError as error:
        assert "MiB" in str(error)  # noqa: PT017
        return
    with pytest.raises(ValueError, match="--fit"):
        ArrayInput(shape=(1, 8, 8, 8))(found)
    assert ArrayInput(shape=(1, 8, 8, 8), fit="centre")(found).shape == (1, 8, 8, 8)


def test_a_network_of_arrays_has_no_warning_about_images():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_model(f"{__name__}:line", array={"shape": (4,), "rate": 8.0})
    assert found.array == ArrayInput(shape=(4,), rate=8.0)
    assert found.input_shape == (4,)


def test_fields_are_those_of_the_source_unless_given(monkeypatch):
    own = LoadedModel(module=nn.Linear(4, 2), array=ArrayInput(shape=(4,), rate=8.0))
    monkeypatch.setattr(f"{__name__}.line", lambda: own)
    assert load_model(f"{__name__}:line").array == own.array
    assert load_model(f"{__name__}:line", array={"fit": "start"}).array == ArrayInput(
        shape=(4,), rate=8.0, fit="start"
    )
