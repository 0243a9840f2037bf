"""`explain` and its siblings on good and bad input: exit codes, messages, what is left behind."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from moreaugrad.pictures import read_settings
from moreaugrad.solvers.z_scores import certain

MODEL = ["--model", "tiny_models:smooth"]


@pytest.fixture(autouse=True)
def images(tmp_path, monkeypatch):
    """The working folder, with a photo, an empty folder, and `bad/` with a good and a cut one."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    (tmp_path / "bad").mkdir()
    (tmp_path / "empty").mkdir()
    for file in ("one.png", "bad/good.png"):
        Image.fromarray(pixels).save(tmp_path / file)
    whole = (tmp_path / "one.png").read_bytes()
    (tmp_path / "bad" / "cut.png").write_bytes(whole[: len(whole) // 2])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_sweep_shows_zero_as_the_limit(command, images):
    done = command(
        "sweep", "one.png", *MODEL, "--method", "sparse-moreaugrad", "--over", "eta",
        "--values", "0,0.001", "--out", "s",
    )  # fmt: skip
    assert done.code == 0, done
    assert 'type="range"' in (images / "s" / "index.html").read_text(encoding="utf-8")


def test_exported_maps_have_the_exact_values(command, images):
    done = command("explain", "one.png", *MODEL, "--method", "simple-gradient", "--export",
                   "npy,csv", "--out", "o")  # fmt: skip
    assert done.code == 0, done
    values = np.load(images / "o/inputs/one/simple-gradient.npy")
    lines = (images / "o/inputs/one/simple-gradient.csv").read_text().splitlines()
    assert lines[0] == "channel,row,column,value"
    assert [float(line.split(",")[3]) for line in lines[1:]] == values.ravel().tolist()


def test_what_is_certain_is_counted_and_drawn(command, images):
    methods = ("sparse-moreaugrad", "smoothgrad", "simple-gradient")
    given = [*MODEL, "--methods", ",".join(methods), "--noise-samples", "16"]
    done = command("explain", "one.png", *given, "--certain", "0.9", "--out", "o")
    assert done.code == 0, done
    kept = {name: load_file(images / f"o/inputs/one/{name}.safetensors") for name in methods}
    rows = csv.DictReader((images / "o/records.csv").read_text().splitlines())
    records = {row["method"]: row for row in rows}
    for name in methods[:2]:
        values, z = kept[name]["map"], kept[name]["z_scores"]
        assert (z.dtype, z.shape) == (torch.float16, values.shape)
        found = certain(z.reshape(1, -1), values.reshape(1, -1) == 0, 0.95).reshape(values.shape)
        zero = values == 0
        for column, kind in (("map.certain_signs", ~zero), ("map.certain_zeros", zero)):
            expected = float(found[kind].double().mean()) if kind.any() else None
            stated = float(records[name][column]) if records[name][column] else None
            assert stated == pytest.approx(expected, abs=1e-3)
    assert records["smoothgrad"]["map.certain_zeros"] == ""
    assert list(kept["simple-gradient"]) == ["map"]
    assert records["simple-gradient"]["map.certain_signs"] == ""
    captions = {
        name: read_settings(images / f"o/inputs/one/{name}.overlay.png")["picture"]["caption"]
        for name in methods
    }
    assert "certain at the level 0.9" in captions["smoothgrad"]
    assert "certain" not in captions["simple-gradient"]
    page = (images / "o/index.html").read_text(encoding="utf-8")
    assert page.count(captions["sparse-moreaugrad"]) >= 1
    assert "certain = 0.9" in (images / "o/config.toml").read_text(encoding="utf-8")
    bad = command("explain", "one.png", *MODEL, "--certain", "95", "--out", "p")
    bad.refused("certain")


def test_a_bad_image_is_left_out_and_the_others_are_done(command, images):
    done = command("explain", "bad", *MODEL, "--method", "simple-gradient", "--out", "o")
    assert done.code == 1
    assert "cut.png" in done.err
    assert (images / "o/inputs/good" / "simple-gradient.safetensors").exists()
    assert not (images / "o/inputs/cut").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["one.png", *MODEL, "--method", "sparse-moreugrad"], "did you mean 'sparse-moreaugrad'"),
        (["one.png", "--model", "tiny_models:smoth", "--method", "smoothgrad"], "'smooth'"),
        (["one.png", *MODEL, "--method", "smoothgrad", "--rho", "1"], "no setting 'rho'"),
        (
            ["one.png", *MODEL, "--method", "caso", "--noise-samples", "2"],
            "--noise-samples=2: caso",
        ),
        (["one.png", *MODEL, "--method", "caso", "--set", "sample=2"], "--set sample=2: caso"),
        (["one.png", *MODEL, "--method", "moreaugrad", "--rho", "-1"], "rho: expected"),
        (["one.png", *MODEL, "--method", "moreaugrad", "--sigma", "-1"], "sigma: expected"),
        (["one.png", *MODEL, "--method", "moreaugrad", "--target", "9"], "from 0 to 3"),
        (["none.png", *MODEL, "--method", "moreaugrad"], "no such file"),
        (["empty", *MODEL, "--method", "moreaugrad"], "none were found"),
        (["one.png", "--model", "tiny_models:detached", "--method", "moreaugrad"], "not depend"),
        (["one.png", *MODEL, "--methd", "moreaugrad"], "--method"),
        (["bad/cut.png", *MODEL, "--method", "simple-gradient"], "cut.png"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(command, images, arguments, says):
    done = command("explain", *arguments, "--out", "o")
    assert done.code == 2
    assert says in done.err
    assert "Traceback" not in done.err
    assert not list((images / "o").rglob("*.safetensors")), "something was half-written"


def test_a_folder_of_another_configuration_is_refused(command):
    first = ("explain", "one.png", *MODEL, "--method", "simple-gradient", "--out", "o")
    assert command(*first).code == 0
    other = command(*first, "--score", "probability")
    assert other.code == 2
    assert "overwrite" in other.err
    assert command(*first, "--score", "probability", "--overwrite").code == 0


def test_dry_run_writes_nothing(command, images):
    done = command(
        "explain", "one.png", *MODEL, "--method", "smoothgrad", "--out", "o", "--dry-run"
    )
    assert done.code == 0, done
    assert "64" in done.out + done.err
    assert not (images / "o").exists()


def test_methods_lists_the_registry(command):
    from moreaugrad import METHODS

    done = command("methods", "--json")
    assert done.code == 0
    assert all(name in done.out for name in METHODS)


def test_methods_explains_the_settings_of_one(command):
    done = command("methods", "sparse-moreaugrad-plain")
    assert "sigma = 0.0, which makes it this method" in done.out
    assert '  eta = "auto"\n    Weight of the penalty' in done.out
    found = json.loads(command("methods", "sparse-moreaugrad", "--json").out)
    assert list(found) == ["sparse-moreaugrad"]
    assert found["sparse-moreaugrad"]["meanings"]["sparsity"].startswith("Fraction of")
    command("methods", "sparse-moreau").refused("did you mean")
