"""The command line in this process, so that hundreds of command lines take seconds."""

import dataclasses
import shutil
import signal

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

import tiny_models
from moreaugrad.cli.entry import run
from moreaugrad.models.loading import Trained

PATIENCE = 60
"""Seconds after which a command counts as hung; it takes a fraction of one. What it fails with then
is no Exception, which the command would answer."""


@dataclasses.dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    def refused(self, *words):
        """Exit code 2, and one line that says why, with at least one of the words in it."""
        lines = [line for line in self.err.splitlines() if not line.startswith("note:")]
        assert self.code == 2, self
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: "), self.err
        assert "MOREAUGRAD_TRACEBACK" not in lines[0], (
            "this kind of error has no message of its own"
        )
        assert any(word in lines[0] for word in words), (words, self.err)


@pytest.fixture
def command(capsys, monkeypatch):
    """Runs a command line; fails where it hangs or lets an exception out."""
    monkeypatch.setenv("COLUMNS", "500")

    def hung(*_):
        pytest.fail("the command hangs")

    def done(*arguments):
        before = signal.signal(signal.SIGALRM, hung)
        signal.alarm(PATIENCE)
        try:
            code = run([str(argument) for argument in arguments])
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err.strip())

    return done


@pytest.fixture(scope="session")
def made_photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    for label in ("stripe", "dot"):
        (folder / "data" / label).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(pixels).save(folder / "data" / label / f"{number}.png")
    Image.fromarray(pixels).save(folder / "one.png")
    trained = folder / "trained"
    trained.mkdir()
    model = tiny_models.smooth()
    save_file(model.module.state_dict(), trained / "best.safetensors")
    (trained / "labels.txt").write_text("\n".join(model.labels), encoding="utf-8")
    told = Trained(
        model="tiny_models:smooth", weights="best.safetensors", labels="labels.txt",
        preprocess=model.preprocess,
    )  # fmt: skip
    (trained / "model.json").write_text(told.text(), encoding="utf-8")
    (trained / "config.toml").write_text(
        'batch = 1\n[data]\nsource = "../data"\nvalidation = 0.5\ntest = "train"\nsplit = "val"\n'
        '[augment]\nsize = 16\n[model]\nname = "tiny_models:smooth"\n',
        encoding="utf-8",
    )
    done = run([
        "evaluate", "--data", str(folder / "data"), "--model", "tiny_models:smooth", "--quiet",
        "--methods", "simple-gradient", "--out", str(folder / "evaluated"),
    ])  # fmt: skip
    assert done == 0
    return folder


@pytest.fixture
def photos(made_photos, monkeypatch):
    """The working folder: `one.png`, `data` with two classes, and the folders of a training and of
    an evaluation. The folder `results` is not there."""
    monkeypatch.chdir(made_photos)
    shutil.rmtree("results", ignore_errors=True)
    return made_photos
