"""Names and messages of anybody on the terminal, on pages and in Markdown: shown, never obeyed."""

import io
import json
import re
import zipfile

import numpy as np
import pytest
from PIL import Image
from rich.progress import Progress, TextColumn

from moreaugrad.cli import screen
from moreaugrad.files.foreign import shown

OBEYED = {
    "escape": "\x1b[31m", "title": "\x1b]0;x\x07", "bell": "\x07", "backspace": "\x08",
    "return": "\r", "delete": "\x7f", "one byte": "\x9b31m", "line": "\x85", "override": "\u202e",
    "isolate": "\u2066", "separator": "\u2028", "surrogate": "\udc80",
}  # fmt: skip
# Written out once more, so that a mistake there is no mistake here.
HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
ALL = "".join(OBEYED.values()).replace("\udc80", "")
MODEL = ("--model", "tiny_models:smooth")
RUN = ("--out", "results")


@pytest.mark.parametrize("kind", OBEYED)
def test_what_is_obeyed_is_replaced(kind):
    found = shown(f"a{OBEYED[kind]}b\tc\nd")
    assert not HARMFUL.search(found)
    assert found.startswith("a\ufffd")
    assert found.endswith("b\tc\nd")


@pytest.mark.parametrize(
    "text", ["", "cat, dog", "Ärger – naïve", "猫", "مرحبا", "👩\u200d🔬", "a\nb"]
)
def test_other_text_stays_as_it_is(text):
    assert shown(text) == text


@pytest.fixture
def hostile(photos, tmp_path, monkeypatch):
    """The working folder: images, classes and labels of such names, and a model that raises one."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    for label in (f"a{ALL}", f"b{ALL}"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{number}{ALL}.png")
    (tmp_path / "data" / f"a{ALL}" / f"bad{ALL}.png").write_bytes(b"no image")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in (tmp_path / "data").rglob("*.png"):
            archive.write(file, file.relative_to(tmp_path / "data"))
    labels = [f"{name}\n{ALL}" for name in "abcd"]
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    (tmp_path / "raising.py").write_text(f"def net():\n    raise ValueError('no' + {ALL!r})\n")
    (tmp_path / "job.toml").write_text("images = [1]\n" + json.dumps(f"x{ALL[:3]}") + " = 1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


LABELS = ("--labels", "labels.json")
COMMANDS = {
    "explain": ("explain", "data", *MODEL, *LABELS, "--method", "simple-gradient", *RUN),
    "many": ("compare", "data", *MODEL, *LABELS, "--methods",
             "simple-gradient,integrated-gradients,grad-cam,smoothgrad,deeplift,moreaugrad,relex",
             "--set", "smoothgrad.samples=2", "--max-evaluations", "40", *RUN),
    "certify": ("certify", "data", *MODEL, *LABELS, "--sigma", "0.1", "--noise-samples", "128",
                *RUN),
    "evaluate": ("evaluate", "--data", "data", *MODEL, *LABELS, "--methods", "simple-gradient",
                 "--max-unreadable", "0.5", *RUN),
    "archive": ("evaluate", "--data", "set.zip", *MODEL, "--methods", "simple-gradient",
                "--max-unreadable", "0.5", *RUN),
    "train": ("train", "--data", "data", *MODEL, "--batch-size", "2", "--epochs", "1",
              "--max-unreadable", "0.5", "--validation", "0.4", *RUN),
    "sanity": ("sanity", "--data", "data", *MODEL, "--seeds", "0", *RUN),
    "visualise": ("visualise", *MODEL, *LABELS, "--set", "steps=1", *RUN),
    "missing": ("explain", f"none{ALL}.png", *MODEL, *RUN),
    "option": ("explain", "data", f"--{ALL}", *MODEL),
    "command": (f"x{ALL}",),
    "method": ("explain", "data", *MODEL, "--method", ALL, *RUN),
    "exception": ("explain", "data", "--model", "raising:net", *RUN),
    "model": ("explain", "data", "--model", f"a{ALL}:b", *RUN),
    "configuration": ("explain", "--config", "job.toml", *RUN),
    "out": ("explain", "data", *MODEL, "--out", f"data/a{ALL}/0{ALL}.png"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:the network knows none of the data's classes")
@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.parametrize("kind", COMMANDS)
def test_nothing_that_is_obeyed_is_written(command, hostile, monkeypatch, kind, form):
    monkeypatch.setenv("MOREAUGRAD_TRACEBACK", "1")
    done = command(*COMMANDS[kind], *form)
    assert not HARMFUL.search(done.out), HARMFUL.findall(done.out)
    assert not HARMFUL.search(done.err), HARMFUL.findall(done.err)
    pages = [*hostile.glob("results/*.html"), *hostile.glob("results/*.md")]
    if kind in ("explain", "evaluate", "train"):
        assert done.code in (0, 1), done
    if kind == "evaluate":
        assert command("report", "results", "--out", "page").code == 0
        pages.append(hostile / "page" / "index.html")
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not HARMFUL.search(text), (page, HARMFUL.findall(text))
        assert "\ufffd" in text or kind in ("sanity", "train") or page.suffix == ".md"
    if form and done.out:
        json.loads(done.out)


def test_a_line_of_a_name_is_no_line_of_ours(command, hostile):
    done = command(*COMMANDS["explain"])
    for line in (done.out + done.err).splitlines():
        assert not line.startswith("\ufffd")  # as the second line of a label does


def test_colours_are_ours_alone():
    """On a terminal, where the console writes escape sequences itself."""
    file = io.StringIO()
    console = screen.Screen(file=file, force_terminal=True, color_system="standard", width=80)
    console.print(f"[red]a{ALL}\udc80b[/]")
    with Progress(TextColumn("{task.fields[doing]}"), console=console) as progress:
        bar = screen.ProgressBar(progress, progress.add_task("", doing=""))
        bar.pace(1, 2, f"[bold]{ALL}")
        bar.news(f"[bold]{ALL}")
    text = file.getvalue()
    assert "\x1b[31ma" in text
    ours = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text)
    assert not HARMFUL.search(ours), HARMFUL.findall(ours)
    assert "31m" not in ours.replace("\ufffd[31m", "").replace("\ufffd31m", "")
    assert "[bold]" in ours
