"""Images, classes and folders of any name: results of their own, read again, none lost or mixed."""

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moreaugrad.cli.entry import run
from moreaugrad.data.images import find_images
from moreaugrad.data.layouts import open_dataset
from moreaugrad.files.foreign import readable
from moreaugrad.models import load_model
from moreaugrad.models.loading import trained_folder
from moreaugrad.reports.reading import MapsFolder
from moreaugrad.runs.names import unique_names
from moreaugrad.runs.plans.explain import EvaluatePlan, ExplainPlan
from moreaugrad.runs.plans.toml import read_plan

MODEL = ["--model", "tiny_models:smooth", "-q"]
ENDS = ["\u2028", "\u2029", "\x85", "\n", "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]
OWN = [
    "config.toml", "certify.toml", "index.html", "index", "index_files", "inputs", "results.json",
    "record.json", "environment.json", ".moreaugrad.lock", ".hidden", "samples", "report",
]  # fmt: skip
ODD = [
    "con", "CON", "aux.tar", "a b#c?d%20e&'\"", "<i>", "[x]", "caf\u00e9", "cafe\u0301", "x" * 246,
    "\u00e9" * 123, "\U0001f600" * 61, " lead", "trail ", "dot.", "-dash", "*", "a:b", "a\\b",
    "a\x1b[31mred", "a_31mred", "$\\frac{$",
]  # fmt: skip
NAMES = [*OWN, *ODD, *(f"a{end}b" for end in ENDS)]


MORE = {
    "explain": ["--method", "simple-gradient"],
    "certify": ["--sigma", "0.1", "--noise-samples", "128"],
}


def draw(folder: Path, names: Sequence[str | bytes]) -> Path:
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        with (folder / f"{os.fsdecode(name)}.png").open("wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
    return folder


def test_folders_have_names_of_any_system_and_none_twice() -> None:
    found = unique_names([*NAMES, *NAMES])
    assert len({name.casefold() for name in found}) == len(found) == 2 * len(NAMES)
    for name in found:
        assert name.isprintable()
        assert not set(name) & set('<>:"/\\|?*')
        assert name == name.strip(" .")
        assert len(name.encode()) <= 255 - len(".moreaugrad-01234567.partial")
        assert name.partition(".")[0].casefold() not in ("con", "aux", "nul", "prn", "com1")


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("photo 1", "photo 1"), ("config.toml", "config.toml"), (".hidden", "hidden"),
        ("con", "_con"), ("Con.a", "_Con.a"), ("cone", "cone"), ("a\nb", "a_b"), ("...", "input"),
        ("x" * 300, "x" * 80), ("\U0001f600" * 61, "\U0001f600" * 50), ("\udcff", "_"),
    ],
)  # fmt: skip
def test_the_name_of_a_folder(stem: str, name: str) -> None:
    assert unique_names([stem]) == [name]


def records(out: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in out.glob("inputs/*/*.json") if path.is_file()}


@pytest.mark.parametrize("command", ["explain", "certify"])
def test_every_image_has_results_of_its_own(command: str, tmp_path: Path) -> None:
    names = NAMES if command == "explain" else [*OWN[:3], "con", "a\u2028b", "$\\frac{$"]
    images, out = draw(tmp_path / "images", names), tmp_path / "run"
    draw(images / "below", ["con", "index.html"])
    files = [str(path) for path in sorted(images.rglob("*.png"))]
    words = [command, *files, *MORE[command], *MODEL, "--out", str(out)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        assert run(words) == 0
        before = records(out)
        each = 1 if command == "explain" else 2  # curves and pixels
        assert len(before) == each * len(files) == each * (len(names) + 2)
        # Again, from the configuration: the same images, and nothing but the same.
        config = out / "config.toml"
        if command == "explain":
            words = ["explain", "--config", str(config), "--trust", *words[-2:]]
        assert run([*words, "-q"]) == 0
    assert records(out) == before
    titles = [json.loads(data)["input"] for data in before.values()]
    assert sorted(titles) == sorted(each * [
        path.name if path.name not in ("con.png", "index.html.png")
        else path.relative_to(images).as_posix()
        for path in images.rglob("*.png")
    ])  # fmt: skip
    top = {"inputs", "config.toml", "environment.json", "index.html", "index.sha256"}
    if command == "explain":
        assert {str(Path(name)) for name in read_plan(ExplainPlan, config).data.files} == {
            str(out / os.path.relpath(file, out)) for file in files
        }
        top |= {"samples", "methods", "times"}
    else:
        top |= {"table.md", "tables.json", "pixels.csv"}
    assert {path.name for path in out.iterdir()} - {"records.parquet"} == {*top, "records.csv"}


def test_an_evaluation_reads_its_records_again(tmp_path: Path) -> None:
    data, out = draw(tmp_path / "data", NAMES), tmp_path / "run"
    words = ["evaluate", "--data", str(data), "--methods", "simple-gradient", "--metrics", "gini",
             *MODEL, "--out", str(out)]  # fmt: skip
    assert run(words) == 0
    assert run(words) == 0
    found = MapsFolder.read(out, "run")
    # Hidden files are no part of a data set.
    shown = [f"{name}.png" for name in NAMES if not name.startswith(".")]
    assert sorted(record["input"] for record in found.inputs) == sorted(shown)
    assert len(found.records) == len(shown)
    assert found.complete
    assert run(["report", str(out), "--out", str(tmp_path / "page")]) == 0


CLASSES = [*(f"a{end}b" for end in ENDS), "[x]", "{", " lead", "tab\tx", "q\"'", ",", "nul"]


def test_a_trained_network_has_the_labels_of_its_classes(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for place, label in enumerate(CLASSES):
            draw(tmp_path / "data" / part / label, [f"{part}-{place}-{n}\u2028" for n in range(2)])
    out = tmp_path / "run"
    words = ["train", "--data", str(tmp_path / "data"), "--test-split", "val", "--epochs", "1",
             "--batch-size", "8", "--validation", "0.5", *MODEL, "--out", str(out)]  # fmt: skip
    assert run(words) == 0
    model = load_model("tiny_models:smooth", out / "best.safetensors", out / "labels.json")
    assert model.labels == tuple(sorted(CLASSES))
    image = str(tmp_path / "data" / "val" / CLASSES[0] / "val-0-0\u2028.png")
    explain = ["explain", image, "--model", f"trained:{out}", "--trust", "--target", CLASSES[0],
               "--method", "simple-gradient", "-q", "--out", str(tmp_path / "maps")]  # fmt: skip
    assert run(explain) == 0
    record = json.loads(next((tmp_path / "maps").rglob("record.json")).read_bytes())
    assert next(iter(record["maps"].values()))["target"]["label"] == CLASSES[0]
    # The model card shows its settings as they are, each on one line.
    config = (out / "config.toml").read_bytes().decode().split("\n", 1)[1]
    card = (out / "card.md").read_bytes().decode()
    assert "".join(f"    {line}\n" if line else "\n" for line in config.split("\n")[:-1]) in card


def test_a_network_trained_before_labels_were_json_still_loads(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for label in ("a\u2028b", "one", "two"):
        draw(data / label, [f"{label}{number}" for number in range(4)])
    out = tmp_path / "run"
    assert run(["train", "--data", str(data), "--epochs", "1", "--batch-size", "4", "--validation",
                "0.3", *MODEL, "--out", str(out)]) == 0  # fmt: skip
    for name in ("labels.json", "results.sha256"):
        (out / name).unlink()
    (out / "labels.txt").write_text("a\u2028b\none\ntwo\n", encoding="utf-8")
    told = json.loads((out / "model.json").read_text(encoding="utf-8"))
    (out / "model.json").write_text(json.dumps(told | {"labels": "labels.txt"}), encoding="utf-8")
    assert load_model(f"trained:{out}", trust=True).labels == ("a\u2028b", "one", "two")


BYTES = [b"caf\xe9", b"\xff\xfe", b"ok"]
SHOWN = ["\\xff\\xfe.png", "caf\\xe9.png", "ok.png"]


@pytest.fixture
def latin(tmp_path: Path) -> Path:
    try:
        return draw(tmp_path / "latin", BYTES)
    except (OSError, UnicodeEncodeError):
        pytest.skip("the file system takes names in UTF-8 alone")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (os.fsdecode(b"caf\xe9.png"), "caf\\xe9.png"), ("\ud800", "\\ud800"),
        ("é\u2028", "é\u2028"),
        (os.fsdecode(b"\xc3\xa9\xc3"), "é\\xc3"), ("\\xff", "\\xff"),
    ],
)  # fmt: skip
def test_names_are_escaped_where_they_are_not_utf_8(text: str, shown: str) -> None:
    assert readable(text) == shown


@pytest.mark.parametrize("command", ["explain", "certify"])
def test_an_image_whose_name_is_not_utf_8_is_left_out_and_counted(
    command: str, latin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [command, str(latin), *MORE[command], *MODEL, "--out", str(tmp_path / "run")]
    assert run([*words, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["complete"]
    assert [item["input"] for item in told["inputs"]] == ["ok.png"]
    assert sorted(failure["input"] for failure in told["failures"]) == SHOWN[:2]
    assert all("in UTF-8" in failure["message"] for failure in told["failures"])
    assert run(words) == 1
    if command == "explain":
        page = (tmp_path / "run" / "index.html").read_text(encoding="utf-8")
        assert page.count("Left out: ") == 2
        assert "caf\\xe9.png: expected a name in UTF-8" in page
        config = tmp_path / "run" / "config.toml"
        assert len(read_plan(ExplainPlan, config).data.files) == 1


def test_places_are_those_of_the_configuration(latin: Path, tmp_path: Path) -> None:
    """What it cannot name, or does not choose, moves no other image to another unit of work."""
    others = draw(tmp_path / "others", [b"a", b"b", b"c"])
    config, out = tmp_path / "run" / "config.toml", str(tmp_path / "run")
    words = [
        "explain",
        str(latin),
        str(others),
        *MORE["explain"],
        *MODEL,
        "--block",
        "1",
        "--out",
        out,
    ]
    for images in ((), ("--images", "5")):
        assert run([*words, *images, "--overwrite"]) == 1
        found = MapsFolder.read(tmp_path / "run")
        assert found.complete
        named = [Path(name).name for name in read_plan(ExplainPlan, config).data.files]
        assert [record["input"] for record in found.records] == named
        assert len(named) >= 3
        before = records(tmp_path / "run")
        assert run(["explain", "--config", str(config), "--trust", "--out", out]) == 0
        assert records(tmp_path / "run") == before


def test_alone_it_is_refused_by_name(
    latin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(latin / os.fsdecode(b"caf\xe9.png"))
    assert run(["explain", image, *MODEL, "--out", str(tmp_path / "run")]) == 2
    assert "caf\\xe9.png: expected a name in UTF-8" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_data_sets_may_have_such_names(latin: Path, tmp_path: Path) -> None:
    data, out = open_dataset(latin), tmp_path / "run"
    assert [item.name for item in data.items] == SHOWN
    assert all(data.load(item).size == (16, 16) and data.digest(item) for item in data.items)
    words = ["evaluate", "--data", str(latin), "--methods", "simple-gradient", "--metrics", "gini",
             *MODEL, "--out", str(out)]  # fmt: skip
    assert run(words) == 0
    assert [record["input"] for record in MapsFolder.read(out, "run").inputs] == SHOWN
    assert run(["report", str(out), "--out", str(tmp_path / "page")]) == 0


def test_classes_may_have_such_names(latin: Path, tmp_path: Path) -> None:
    for label in (b"k\xe9", b"one"):
        draw(tmp_path / "data" / os.fsdecode(label), [b"%d\xff" % number for number in range(4)])
    out = tmp_path / "run"
    assert run(["train", "--data", str(tmp_path / "data"), "--epochs", "1", "--batch-size", "4",
                "--validation", "0.3", *MODEL, "--out", str(out)]) == 0  # fmt: skip
    assert load_model(f"trained:{out}", trust=True).labels == ("k\\xe9", "one")


def test_two_names_that_would_be_shown_alike_are_refused(latin: Path) -> None:
    draw(latin / "below", [b"caf\xe9", rb"caf\xe9"])
    with pytest.raises(ValueError, match=r"two files would be called below/caf\\xe9\.png"):
        open_dataset(latin)


def test_a_path_that_a_configuration_cannot_hold_is_refused_by_name(
    latin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = draw(tmp_path / os.fsdecode(b"d\xe9"), ["a", "b"])
    words = ["evaluate", "--data", str(named), "--methods", "simple-gradient", *MODEL]
    assert run([*words, "--out", str(tmp_path / "run")]) == 2
    assert "got source = " in (told := capsys.readouterr().err)
    assert "d\\xe9" in told
    assert not (tmp_path / "run").exists()
    # Within it, paths are relative and need not be written.
    out = named / "run"
    assert run(["explain", str(latin / "ok.png"), "--method", "simple-gradient", *MODEL,
                "--out", str(out)]) == 0  # fmt: skip
    assert (out / "index.html").is_file()


EMPTY = {
    "an image": ["explain", ""],
    "one of several": ["explain", "a.png", ""],
    "blank": ["explain", " "],
    "of certify": ["certify", "", "--sigma", "0.5"],
    "of sweep": ["sweep", "", "--over", "eta"],
    "data": ["evaluate", "--data", "", "--methods", "simple-gradient"],
    "data after an equals sign": ["evaluate", "--data=", "--methods", "simple-gradient"],
    "data of a training": ["train", "--data", ""],
    "data of a check": ["sanity", "--data", ""],
    "a run": ["report", ""],
    "results": ["explain", "a.png", "--out="],
    "weights": ["explain", "a.png", "--weights", ""],
    "a trained network": ["explain", "a.png", "--model", "trained:"],
}


@pytest.mark.parametrize("kind", EMPTY)
def test_an_empty_name_is_not_the_working_folder(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(draw(tmp_path / "work", ["a", "b"]))
    model = [] if "--model" in EMPTY[kind] else ["--model", "tiny_models:smooth"]
    out = [] if "--out=" in EMPTY[kind] else ["--out", str(tmp_path / "run")]
    assert run([*EMPTY[kind], *(model if kind != "a run" else []), *out]) == 2
    assert "empty" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_working_folder_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(draw(tmp_path / "work", ["a", "b"]))
    assert len(find_images(["."])) == len(open_dataset(".").items) == 2


def test_empty_names_are_refused_by_the_library(tmp_path: Path) -> None:
    for call in (lambda: find_images(["a.png", ""]), lambda: open_dataset(""),
                 lambda: trained_folder("trained:"), lambda: load_model("trained: ")):  # fmt: skip
        with pytest.raises(ValueError, match="got an empty one"):
            call()
    file = tmp_path / "job.toml"
    file.write_text('[data]\nfiles = ["a.png", ""]\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"job\.toml: images: .* got an empty one"):
        read_plan(ExplainPlan, file)
    file.write_text('[data]\nsource = ""\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"job\.toml: data: .* got an empty one"):
        read_plan(EvaluatePlan, file)
