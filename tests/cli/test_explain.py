"""`explain` and its siblings on good and bad input: exit codes, messages, what is left behind."""

import json

import numpy as np
import pytest
from PIL import Image

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
