"""Runs whose maps are stored smaller: what is read from their folders, said about them, resumed."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import moreaugrad as mg
from moreaugrad.cli.entry import run
from moreaugrad.reports.reading import MapsFolder, stored_words
from moreaugrad.runs.plans.explain import EvaluatePlan, ExplainPlan

IMAGES, BLOCK = 3, 2
FORMS = ("float16", "sparse")
METHODS = "smoothgrad,sparse-moreaugrad-plain"
Runs = Callable[[str, str], Path]


def words(command: str, folder: Path, form: str, out: Path, *more: str) -> list[str]:
    given = ["--metrics", "gini"]
    if command == "evaluate":
        given = ["--metrics", "gini,normalised-distance",
                 "--attack", "gaussian:over=sigma,epsilons=[0.05,0.1]"]  # fmt: skip
    return [
        command, "--data", str(folder), "--model", "tiny_models:smooth", "--threads", "1",
        "--methods", METHODS, "--set", "smoothgrad.samples=4", "--block", str(BLOCK), *given,
        *(["--maps-as", form] if form else []), "--out", str(out), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored") / "images"
    folder.mkdir()
    generator = np.random.default_rng(5)
    for number in range(IMAGES):
        pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def runs(images: Path) -> Runs:
    """Folders of finished runs, by command and form; each is made once."""

    def finished(command: str, form: str) -> Path:
        out = images.parent / f"{command}-{form}"
        if not out.exists():
            assert run(words(command, images, form, out, "-q")) == 0
        return out

    return finished


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def maps(folder: Path) -> list[tuple[dict[str, Any], Tensor]]:
    """Records with the maps that are read for them."""
    found = MapsFolder.read(folder)
    pairs = [(dict(record), found.map(record)) for record in found.records]
    assert all(values is not None for _, values in pairs)
    return [(record, values) for record, values in pairs if values is not None]


def said(folder: Path) -> str:
    """What the page, or the page of a report, says of how maps are stored."""
    page = folder / "index.html"
    if not page.exists():
        page = folder.with_name(f"{folder.name}-page") / "index.html"
        assert run(["report", str(folder), "--out", str(page.parent), "-q"]) == 0
    found = re.findall(r"maps are stored [^<]*", page.read_text("utf-8"))
    return found[0] if found else ""


def norm(values: Tensor) -> float:
    return float(values.double().norm())


@pytest.mark.parametrize("command", ["compare", "evaluate"])
@pytest.mark.parametrize("form", FORMS)
def test_maps_are_read_as_they_were_and_the_loss_is_stated(
    command: str, form: str, runs: Runs
) -> None:
    exact, small = maps(runs(command, "")), maps(runs(command, form))
    assert len(exact) == len(small) == IMAGES * 2 * (3 if command == "evaluate" else 1)
    errors, kinds = [], []
    for (plain, values), (record, stored) in zip(exact, small, strict=True):
        kinds.append(record.pop("stored"))
        assert record == plain
        assert stored.dtype == values.dtype
        if form == "sparse":
            assert torch.equal(stored, values)
            zeros = float((values == 0).double().mean())
            # An entry has two bytes of its position and four of its value, instead of four.
            assert kinds[-1] == {"as": "sparse" if zeros > 0.4 else "exact"}
        else:
            errors.append(norm(stored - values) / norm(values))
            assert kinds[-1] == {"as": form, "error": pytest.approx(errors[-1], rel=1e-9)}
            assert errors[-1] > 1e-5
    page = said(runs(command, form))
    assert page.startswith(stored_words(form, [{"stored": kind} for kind in kinds]))
    if form == "float16":
        found = re.search(r"float16: relative error at most (\S+?)\.?$", page.strip())
        assert found
        assert max(errors) <= float(found[1]) <= 1.1 * max(errors)
    else:
        assert (
            f"{len(kinds) // 2} of {len(kinds)} are stored exactly" in page
        )  # those of SmoothGrad
    assert not said(runs(command, ""))


@pytest.mark.parametrize("command", ["compare", "evaluate"])
@pytest.mark.parametrize("form", FORMS)
def test_nothing_else_changes(command: str, form: str, runs: Runs) -> None:
    """Images, predictions, z-scores and attacked inputs are those of the exact run."""
    exact, small = (tree(runs(command, each)) for each in ("", form))
    assert exact.keys() == small.keys()
    same = re.compile(r"samples/|.*\.png$")
    names = list(filter(same.match, exact))
    assert names
    assert [name for name in names if exact[name] != small[name]] == []
    files = [Path(name) for name in exact if name.endswith(".safetensors")]
    assert files
    for file in files:
        plain, stored = (load_file(runs(command, each) / file) for each in ("", form))
        for name in filter(lambda each: not each.endswith("map"), plain):
            assert torch.equal(plain[name], stored[name])


@pytest.mark.parametrize("form", FORMS)
def test_files_have_the_maps_of_a_block(form: str, runs: Runs) -> None:
    """And each under its attacks."""
    for out in (runs("evaluate", ""), runs("evaluate", form)):
        files = sorted((out / "methods").rglob("*.safetensors"))
        assert len(files) == 2 * -(-IMAGES // BLOCK)
        for file in files:
            kept = [name for name in mg.read_maps(file) if name.endswith("/map")]
            assert len(kept) <= BLOCK * 3


@pytest.mark.parametrize("form", FORMS)
def test_the_summary_says_it(
    form: str, images: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    out = runs("compare", form)
    capsys.readouterr()
    assert run(words("compare", images, form, out, "--json")) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert [note for note in notes if note in said(out) and "maps are stored" in note]
    assert run(words("compare", images, form, out)) == 0
    assert "maps are stored as" in " ".join(capsys.readouterr().err.split())


def test_another_form_is_refused_in_one_line(
    images: Path, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for before, now in (("", "float16"), ("float16", "sparse"), ("sparse", "")):
        out = tmp_path / f"run-{before}"
        shutil.copytree(runs("evaluate", before), out)
        kept = tree(out)
        capsys.readouterr()
        assert run(words("evaluate", images, now, out, "-q")) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"maps_as is {before or 'not set'} there, {now or 'not set'} here" in line
        assert tree(out) == kept


def test_a_run_without_the_option_is_one_of_exact_maps(images: Path, runs: Runs) -> None:
    """So that folders of before it are resumed."""
    assert "maps_as" not in (runs("evaluate", "") / "config.toml").read_text("utf-8")
    assert run(words("evaluate", images, "exact", runs("evaluate", ""), "-q")) == 0
    for kind in (ExplainPlan, EvaluatePlan):
        assert kind(maps_as="exact") == kind()


@pytest.mark.parametrize("form", FORMS)
def test_shards_and_resumed_runs_have_the_same_bytes(
    form: str, images: Path, runs: Runs, tmp_path: Path
) -> None:
    plain = tree(runs("evaluate", form))
    out = images.parent / f"shards-{form}"  # next to the other: configurations hold paths
    for shard in ("0/2", "1/2"):
        run(words("evaluate", images, form, out, "--shard", shard, "-q"))
    assert tree(out) == plain
    (out / "methods" / "smoothgrad" / "00000.safetensors").unlink()
    file = out / "methods" / "sparse-moreaugrad-plain" / "00001.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="is damaged"):
        assert run(words("evaluate", images, form, out, "-q")) == 0
    assert tree(out) == plain


def test_the_estimate_has_the_bytes_of_the_form(
    images: Path, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def estimate(form: str) -> tuple[dict[str, Any], int]:
        capsys.readouterr()
        given = words("evaluate", images, form, tmp_path / "no", "--dry-run")
        assert run([*given, "--json"]) == 0
        files = runs("evaluate", form).rglob("*.safetensors")
        taken = sum(each.nbytes for file in files for each in load_file(file).values())
        return json.loads(capsys.readouterr().out), taken

    exact, taken = estimate("")
    assert exact["kept"] == taken
    half, taken = estimate("float16")
    assert half["kept"] == taken < 0.8 * exact["kept"]
    assert not half["kept_at_most"]
    sparse, taken = estimate("sparse")
    assert taken < sparse["kept"] == exact["kept"]
    assert sparse["kept_at_most"]
    assert run(words("evaluate", images, "sparse", tmp_path / "no", "--dry-run")) == 0
    assert re.search(r"at most \S+ MB of maps", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("form", "stored", "expected"),
    [
        (None, [{}], ""),
        ("float16", [{}], ""),
        ("float16", [("float16", 0.0)], "float16: relative error at most 0"),
        ("float16", [("float16", 2.001e-4), ("float16", 1e-4)], "relative error at most 2.1e-4"),
        ("float16", [("float16", 2.05e-4), "exact"], "at most 2.1e-4; 1 of 2 are stored exactly"),
        ("float16", ["exact"], "stored exactly.*rounding"),
        ("sparse", ["sparse", {}], "not zero, without loss$"),
        (
            "sparse",
            ["sparse", "exact", "exact"],
            "2 of 3 are stored exactly, .*more bytes",
        ),
        ("sparse", ["exact"], "stored exactly.*more bytes"),
    ],
)
def test_words_of_what_is_stored(form: str | None, stored: list[Any], expected: str) -> None:
    records = []
    for one in stored:
        kind, *error = (one,) if isinstance(one, str) else one or (None,)
        found = {"as": kind, **({"error": error[0]} if error else {})}
        records.append({"stored": found} if kind else {})
    text = stored_words(form, records)
    assert re.search(expected, text) if expected else not text


@pytest.mark.parametrize("form", FORMS)
def test_results_in_python_are_the_stored_maps(form: str) -> None:
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 3), torch.nn.SiLU()).eval()
    plain = mg.explain(model, x, ["simple-gradient"])
    small = mg.explain(model, x, ["simple-gradient"], maps_as=form)
    for index, values in plain.maps["simple-gradient"].items():
        torch.testing.assert_close(small.maps["simple-gradient"][index], values, rtol=5e-4, atol=0)
    assert {row["stored.as"] for row in small.rows} == {"float16" if form == "float16" else "exact"}
