"""Series and volumes on the command line: maps that are known, their figures, and bad files."""

import json
import os
import shutil
import sys
import tomllib
import wave
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import moreaugrad as mg
from moreaugrad.models import ArrayInput, LoadedModel

RATE, STEPS = 1000, 400
SLICES = (6, 5, 4)
GRADIENT = ("-m", "simple-gradient")


def weights(*shape):
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(3))


def linear(*shape):
    """Scores that are linear in an input of this shape."""
    layer = nn.Linear(int(np.prod(shape)), 2)
    layer.weight.data, layer.bias.data = weights(*shape).flatten(1), torch.zeros(2)
    return nn.Sequential(nn.Flatten(), layer)


def waves():
    array = ArrayInput(shape=(STEPS,), rate=RATE)
    return LoadedModel(module=linear(STEPS), labels=("low", "high"), array=array)


def leads():
    return linear(3, 200)


BANDS = (5, 8, 9)


def bands():
    return LoadedModel(module=linear(*BANDS), array=ArrayInput(shape=BANDS))


def bare_bands():
    return linear(*BANDS)


def volumes():
    return LoadedModel(module=linear(1, *SLICES), array=ArrayInput(shape=(1, *SLICES)))


def sound(path, values, rate=RATE):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.asarray(values) * 2**15).round().astype("<i2").tobytes())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with two sounds, a series of three channels and a volume."""
    monkeypatch.setitem(sys.modules, "arrays_models", sys.modules[__name__])
    draw = np.random.default_rng(0)
    sound(tmp_path / "one.wav", draw.uniform(-0.5, 0.5, STEPS))
    sound(tmp_path / "two.wav", draw.uniform(-0.5, 0.5, STEPS))
    np.save(tmp_path / "leads.npy", draw.normal(size=(3, 200)))
    np.save(tmp_path / "volume.npy", draw.uniform(size=(1, *SLICES)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def explained(command, *arguments, model="waves"):
    done = command("explain", *arguments, "--model", f"arrays_models:{model}", "--out", "o")
    assert done.code == 0, done.err
    return done


def map_of(name, method="simple-gradient"):
    return load_file(f"o/inputs/{name}/{method}.safetensors")["map"]


def record(name):
    return json.loads(Path(f"o/inputs/{name}/record.json").read_text("utf-8"))


def test_the_map_of_a_linear_network_is_its_weights(command, folder):
    explained(command, "one.wav", "two.wav", *GRADIENT, "--target", "high")
    for name in ("one", "two"):
        assert torch.equal(map_of(name), weights(STEPS)[1])
        assert record(name)["array"] == {"rate": RATE}
    page = Path("o/index.html").read_text("utf-8")
    assert "<dt>Line</dt>" in page
    assert "<dt>Overlay</dt>" not in page
    assert "2 inputs" in page


def test_the_input_is_the_sound(command, folder):
    explained(command, "one.wav", "-m", "integrated-gradients", "--target", "high")
    x = torch.from_numpy(mg.data.read_array("one.wav").values[0]).float()
    found = map_of("one", "integrated-gradients")
    torch.testing.assert_close(found, x * weights(STEPS)[1], rtol=1e-4, atol=1e-5)


def test_channels_of_an_array(command, folder):
    explained(command, "leads.npy", *GRADIENT, "--target", "1", model="leads")
    assert torch.equal(map_of("leads"), weights(3, 200)[1])
    with Image.open("o/inputs/leads/simple-gradient.line.png") as drawn:
        assert drawn.width > drawn.height


def test_a_volume_is_drawn_as_slices(command, folder):
    explained(command, "volume.npy", *GRADIENT, "--target", "1", model="volumes")
    assert torch.equal(map_of("volume"), weights(1, *SLICES)[1])
    heaviest = int(weights(1, *SLICES)[1].abs().sum((0, 2, 3)).argmax())
    page = Path("o/index.html").read_text("utf-8")
    assert f"Slice <output>{heaviest}</output>" in page
    assert f'max="{SLICES[0] - 1}"' in page


@pytest.mark.parametrize("form", ["float16", "sparse"])
@pytest.mark.parametrize(("name", "model"), [("volume", "volumes"), ("leads", "leads")])
def test_smaller_maps_are_drawn_as_exact_ones(command, folder, name, model, form):
    given = [f"{name}.npy", *GRADIENT, "--target", "1"]
    explained(command, *given, model=model)
    exact, page = map_of(name), Path("o/index.html").read_text("utf-8")
    explained(command, *given, "--maps-as", form, "--overwrite", model=model)
    found = mg.read_maps(f"o/inputs/{name}/simple-gradient.safetensors")["map"]
    torch.testing.assert_close(found, exact, rtol=5e-4, atol=0)
    smaller = Path("o/index.html").read_text("utf-8")
    assert smaller.count("<img") == page.count("<img")
    assert ("maps are stored" in smaller, "maps are stored" in page) == (True, False)


def test_a_scan_is_read_through_its_window(command, folder):
    nibabel = pytest.importorskip("nibabel")
    values = np.random.default_rng(0).uniform(-200, 300, SLICES[::-1]).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 2, 3, 1])), "scan.nii.gz")
    integrated = ("-m", "integrated-gradients", "--target", "1", "--window", "40,400")
    explained(command, "scan.nii.gz", *integrated, model="volumes")
    seen = ((values.transpose(2, 1, 0) + 160) / 400).clip(0, 1)
    expected = weights(1, *SLICES)[1] * torch.from_numpy(seen)[None]
    torch.testing.assert_close(map_of("scan.nii", "integrated-gradients"), expected)
    note = record("scan.nii")["note"]
    assert "3 x 2 x 1 mm" in note
    assert "level 40" in note


OBLIQUE = np.array([[0.9, 0.1, 0.3, -40], [-0.2, 1.9, 0.4, 7], [0.1, -0.3, 2.8, 12], [0, 0, 0, 1]])
"""Of no orthogonal axes: no two indices can be exchanged, and none reversed, unseen."""
INTEGRATED = ("-m", "integrated-gradients", "--target", "1", "--export", "nii")


def hot(nibabel, name, shape, at, unit="mm"):
    """A scan that is zero but for one voxel, and where that is."""
    values = np.zeros(shape, np.float32)
    values[at] = 100
    image = nibabel.Nifti1Image(values, OBLIQUE)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, name)
    return nibabel.load(name).affine @ [*at, 1]


def exported(nibabel, name):
    """A map in NIfTI, and where its only voxel that is not zero is."""
    found = nibabel.load(f"o/inputs/{name}/integrated-gradients.nii")
    (at,) = np.argwhere(found.get_fdata())
    return found, found.affine @ [*at, 1]


@pytest.mark.parametrize("unit", ["mm", "micron"])
def test_a_map_in_nifti_lies_over_its_scan(command, folder, unit):
    nibabel = pytest.importorskip("nibabel")
    place = hot(nibabel, "scan.nii.gz", SLICES[::-1], (3, 1, 4), unit)
    explained(command, "scan.nii.gz", *INTEGRATED, model="volumes")
    found, where = exported(nibabel, "scan.nii")
    scan = nibabel.load("scan.nii.gz")
    assert found.shape == scan.shape
    np.testing.assert_array_equal(found.affine, scan.affine)
    np.testing.assert_allclose(where, place)
    assert found.header.get_xyzt_units() == scan.header.get_xyzt_units()
    values = map_of("scan.nii", "integrated-gradients")
    np.testing.assert_array_equal(found.get_fdata(), values[0].permute(2, 1, 0).numpy())
    factor = 1 if unit == "mm" else 1e-3
    sizes = [factor * np.linalg.norm(scan.affine[:3, axis]) for axis in (2, 1, 0)]
    assert record("scan.nii")["maps"]["integrated-gradients"]["spacing"] == pytest.approx(sizes)


@pytest.mark.parametrize("fit", ["start", "centre"])
def test_a_map_of_a_part_of_a_scan_lies_over_that_part(command, folder, fit):
    nibabel = pytest.importorskip("nibabel")
    place = hot(nibabel, "scan.nii.gz", (9, 3, 12), (3, 2, 4))  # cut, padded, cut
    explained(command, "scan.nii.gz", *INTEGRATED, "--fit", fit, model="volumes")
    found, where = exported(nibabel, "scan.nii")
    assert found.shape == SLICES[::-1]
    np.testing.assert_allclose(where, place, rtol=1e-6)


@pytest.mark.parametrize("name", ["volume.npy", "slice.dcm"])
def test_files_without_a_place_have_no_map_in_nifti(command, folder, name):
    files = pytest.importorskip("pydicom.data")
    shutil.copy(files.get_testdata_file("CT_small.dcm", download=False), "slice.dcm")
    given = (*GRADIENT, "--export", "nii", "--model", "arrays_models:volumes", "--out", "o")
    command("explain", name, *given).refused("NIfTI")
    hot(pytest.importorskip("nibabel"), "scan.nii", SLICES[::-1], (3, 1, 4))
    done = command("explain", "scan.nii", name, *given)
    assert done.code == 1
    assert Path("o/inputs/scan/simple-gradient.nii").is_file()


def test_what_has_no_map_in_nifti_is_one_line(command, folder):
    pytest.importorskip("nibabel")
    Image.new("RGB", (64, 64)).save("photo.png")
    given = (*GRADIENT, "--export", "nii", "--out", "o")
    command("explain", "photo.png", *given, "--model", "builtin").refused("got images")
    hot(pytest.importorskip("nibabel"), "scan.nii", SLICES[::-1], (3, 1, 4))
    given = ("scan.nii", *given, "--layer", "0", "--model", "arrays_models:volumes")
    command("explain", *given).refused("layer")


def stack(path, shape, **how):
    values = np.random.default_rng(1).integers(1, 4000, shape).astype(np.uint16)
    tifffile.imwrite(path, values, photometric="minisblack", **how)
    return values


@pytest.mark.parametrize(
    "given", [("bands",), ("bare_bands", "--shape", "5,8,9")], ids=["its own", "--shape"]
)
def test_bands_of_a_tiff_file_are_an_array_for_a_network_of_arrays(command, folder, given):
    values = stack("scene.tif", BANDS, planarconfig="separate")
    np.save("same.npy", values)
    model, *shape = given
    integrated = ("-m", "integrated-gradients", "--target", "1", *shape)
    explained(command, "scene.tif", *integrated, model=model)
    found = map_of("scene", "integrated-gradients")
    expected = weights(*BANDS)[1] * torch.from_numpy(values.astype(np.float32))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-2)
    again = command("explain", "--config", "o/config.toml", "--trust", "--out", "again")
    assert again.code == 0, again.err
    explained(command, "scene.tif", "same.npy", *integrated, "--overwrite", model=model)
    torch.testing.assert_close(map_of("same", "integrated-gradients"), found)


def test_slices_of_a_tiff_file_are_a_volume(command, folder):
    stack("cells.tif", SLICES, metadata={"axes": "ZYX"})
    explained(command, "cells.tif", *GRADIENT, "--target", "1", model="volumes")
    assert torch.equal(map_of("cells"), weights(1, *SLICES)[1])
    assert f'max="{SLICES[0] - 1}"' in Path("o/index.html").read_text("utf-8")
    found = mg.compare(volumes(), "cells.tif", methods=["simple-gradient"], target=1)
    assert [row["method"] for row in found.rows] == ["simple-gradient"]


def test_a_stack_whose_axes_are_not_known_is_one_line(command, folder):
    stack("pages.tif", SLICES)
    done = command("explain", "pages.tif", "--model", "arrays_models:volumes", "--out", "o")
    done.refused("metadata={'axes': 'ZYX'}")


def test_a_photo_in_tiff_stays_an_image_for_a_network_of_images(command, folder):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for name in ("photo.tif", "photo.png"):
        Image.fromarray(pixels).save(name)
    for name in ("tif", "png"):
        given = ("explain", f"photo.{name}", *GRADIENT, "--model", "builtin", "--out", name)
        assert command(*given).code == 0
    tif, png = (
        load_file(f"{name}/inputs/photo/simple-gradient.safetensors") for name in ("tif", "png")
    )
    assert torch.equal(tif["map"], png["map"])
    command("explain", "photo.tif", "photo.png", "--model", "arrays_models:bands",
            "--out", "p").refused(".tif")  # fmt: skip


def test_one_input_has_the_map_that_it_has_with_others(command, folder):
    noisy = ("-m", "sparse-moreaugrad", "--quality", "preview")
    explained(command, "one.wav", "two.wav", *noisy)
    together = map_of("two", "sparse-moreaugrad")
    explained(command, "two.wav", *noisy, "--overwrite")
    torch.testing.assert_close(map_of("two", "sparse-moreaugrad"), together)


def test_a_run_resumes_to_the_same_bytes(command, folder):
    given = ("one.wav", "two.wav", *GRADIENT, "--block", "1")
    explained(command, *given)
    files = [file for file in Path("o").rglob("*") if file.is_file()]
    kept = {file: file.read_bytes() for file in files if file.name != "environment.json"}
    again = [file for file in kept if file.parent.name == "simple-gradient" and "1" in file.stem]
    assert again
    for file in again:
        file.unlink()
    times = {file for file in kept if "times" in file.parts or file.name == "index.html"}
    explained(command, *given)
    changed = {file for file in kept if file.read_bytes() != kept[file]} - times
    assert all(file.name.startswith(("records", "index")) for file in changed), changed


def test_what_a_network_needs_may_be_said_at_the_command_line(command, folder):
    sound("fast.wav", np.sin(np.arange(2 * STEPS) / 20), 2 * RATE)
    explained(command, "fast.wav", *GRADIENT)
    assert f"{2 * RATE} to {RATE}" in record("fast")["note"]
    sound("long.wav", np.full(STEPS + 10, 0.25))
    refused = command("explain", "long.wav", "--model", "arrays_models:waves", "--out", "p")
    refused.refused("--fit")
    explained(command, "long.wav", *GRADIENT, "--fit", "start", "--overwrite")
    assert "start" in record("long")["note"]
    bare = ("--model", "arrays_models:leads", "--out", "p")
    command("explain", "one.wav", *bare).refused("--rate")
    sound("three.wav", np.zeros(600))
    shaped = ("--shape", "3,200", "--rate", str(RATE))
    command("explain", "three.wav", *bare, *shaped).refused("3 channels")


def test_a_configuration_has_what_the_network_takes_and_runs_again(command, folder):
    explained(command, "one.wav", *GRADIENT)
    text = Path("o/config.toml").read_text("utf-8")
    takes = tomllib.loads(text)["model"]
    assert takes["array"] == {"shape": [STEPS], "rate": RATE, "fit": "exact"}
    assert "preprocess" not in takes
    done = command("explain", "--config", "o/config.toml", "--trust", "--out", "again")
    assert done.code == 0, done.err
    name = "inputs/one/simple-gradient.safetensors"
    assert Path("again", name).read_bytes() == Path("o", name).read_bytes()


BAD = {
    "empty.wav": (b"", "empty"),
    "text.wav": (b"no sound at all, only words", "WAV"),
    "missing.wav": (None, "no such file"),
    "empty.npy": (b"", "empty"),
    "text.npy": (b"1 2 3", "array"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_line(name, command, folder):
    data, word = BAD[name]
    if data is not None:
        Path(name).write_bytes(data)
    done = command("explain", name, *GRADIENT, "--model", "arrays_models:waves", "--out", "o")
    done.refused(word)
    assert not Path("o").exists()


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (np.full(STEPS, np.nan), "finite"),
        (np.zeros(STEPS + 1), "--fit"),
        (np.zeros((1, STEPS)), "batch"),
        (np.zeros(STEPS, complex), "complex"),
    ],
)
def test_bad_arrays_are_one_line(values, word, command, folder):
    np.save("bad.npy", values)
    done = command("explain", "bad.npy", *GRADIENT, "--model", "arrays_models:waves", "--out", "o")
    done.refused(word)


def test_a_truncated_sound_among_others_is_left_out(command, folder):
    Path("cut.wav").write_bytes(Path("one.wav").read_bytes()[:-7])
    done = command(
        "explain", "one.wav", "cut.wav", *GRADIENT, "--model", "arrays_models:waves", "--out", "o"
    )
    assert done.code == 1
    assert "cut.wav" in done.err
    assert "truncated" in done.err
    assert "1 input left out" in done.out + done.err


def test_kinds_of_inputs_are_kept_apart(command, folder):
    Image.new("RGB", (8, 8)).save("photo.png")
    waves = ("--model", "arrays_models:waves", "--out", "o")
    command("explain", "photo.png", *waves).refused(".wav")
    command("explain", "photo.png", "one.wav", *waves).refused("images and arrays")
    command("explain", "one.wav", "--text", "word", *waves).refused("arrays and texts")
    command("explain", "photo.png", "--rate", "8", "--model", "builtin", "--out", "o").refused(
        "--rate"
    )
    command("explain", "one.wav", "--metrics", "deletion", *waves).refused("deletion")


def test_compare_sweep_and_a_second_network(command, folder):
    done = command("compare", "one.wav", "--model", "arrays_models:waves", "--out", "c")
    assert done.code == 0, done.err
    found = {file.name.partition(".")[0] for file in Path("c/inputs/one").glob("*.safetensors")}
    assert found == {"simple-gradient", "smoothgrad", "integrated-gradients", "sparse-moreaugrad"}
    swept = command(
        "sweep", "volume.npy", "--method", "smoothgrad", "--over", "sigma", "--values", "0.1,0.2",
        "--model", "arrays_models:volumes", "--out", "s",
    )  # fmt: skip
    assert swept.code == 0, swept.err
    two = command(
        "explain", "one.wav", *GRADIENT, "--model", "arrays_models:waves", "--compare-with",
        "arrays_models:waves", "--out", "t",
    )  # fmt: skip
    assert two.code == 0, two.err


@pytest.mark.data
def test_a_word_is_explained_at_its_waveform(command, tmp_path, monkeypatch):
    data = os.environ.get("MOREAUGRAD_DATA")
    if not data:
        pytest.skip("MOREAUGRAD_DATA is not set")
    monkeypatch.syspath_prepend(str(Path(data) / "models"))
    monkeypatch.chdir(tmp_path)
    import kws_res8

    Path("names.txt").write_text("\n".join(kws_res8.LABELS), "utf-8")
    done = command(
        "explain", Path(data) / "sounds/yes_1000ms.wav", "--model", "kws_res8:network", "--shape",
        16000, "--rate", 16000, "--labels", "names.txt", *GRADIENT, "--out", "o",
    )  # fmt: skip
    assert done.code == 0, done.err
    about = record("yes_1000ms")
    assert about["prediction"][0]["label"] == "yes"
    x = kws_res8.read_wav(Path(data) / "sounds/yes_1000ms.wav")[None]
    torch.testing.assert_close(
        map_of("yes_1000ms"), mg.SimpleGradient(kws_res8.network()).attribute(x)[0],
        rtol=1e-3, atol=1e-2,
    )  # fmt: skip
