"""`report` on runs whose numbers are chosen by hand, and its page in a browser."""

import csv
import math
import re
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from moreaugrad.cli.entry import run
from moreaugrad.files.units import Units, record_lines, tensor_bytes
from moreaugrad.reports import statistics
from moreaugrad.reports.curves import charts
from moreaugrad.reports.folder import unit_stem
from moreaugrad.reports.reading import MapsFolder
from moreaugrad.reports.statistics import WORST, Intervals, means
from moreaugrad.runs.engine import Outcome, execute
from moreaugrad.runs.plans.explain import ReportPlan
from moreaugrad.runs.report import ReportRun

METHODS = ("simple-gradient", "smoothgrad")
BUDGETS = (0.5, 1.0)
NASTY = "<script>alert(1)</script>.png"
DISTANCES = {
    # method, attack: values of four pictures at the two budgets; None is undefined, "failed" and
    # "problem" are attacks without a result, the first with an unchanged map.
    ("simple-gradient", "noise"): ([0.1, 0.2, 0.3, 0.6], [0.2, 0.3, 0.4, 0.7]),
    ("simple-gradient", "top-k"): ([0.3, 0.1, None, 0.8], ["failed", 0.5, "failed", 0.9]),
    ("smoothgrad", "noise"): ([0.0, 0.1, 0.1, 0.2], [0.1, 0.1, 0.2, 0.2]),
    ("smoothgrad", "top-k"): (["problem"] * 4, ["problem"] * 4),
}


def plan(**more: Any) -> dict[str, Any]:
    return {
        "data": {"source": "images", "images": 5}, "block": 5, "epsilons": list(BUDGETS),
        "model": {"name": "tiny_models:smooth",
                  "preprocess": {"mean": [0.5] * 3, "std": [0.25] * 3}},
        "methods": {name: {"method": name} for name in METHODS},
        "metrics": {"gini": {"metric": "gini"},
                    "normalised-distance": {"metric": "normalised-distance"}},
        "attacks": {"noise": {"attack": "gaussian"}, "top-k": {"attack": "top-k"}},
    } | more  # fmt: skip


def report(runs: list[Path], out: Path, *, overwrite: bool = False, **settings: Any) -> Outcome:
    plan = ReportPlan(runs=tuple(map(str, runs)), **settings)
    return execute(ReportRun(plan), out, overwrite=overwrite)


def page_of(outcome: Outcome) -> Path:
    return outcome.folder / "index.html"


def save(units: Units, stem: str, records: Any, tensors: dict[str, torch.Tensor]) -> None:
    units.write(
        stem, {f"{stem}.jsonl": record_lines(records), f"{stem}.safetensors": tensor_bytes(tensors)}
    )


def head(index: int, method: str, attack: str, epsilon: float | None) -> dict[str, Any]:
    return {"input": name(index), "index": index, "method": method, "attack": attack,
            "epsilon": epsilon}  # fmt: skip


def name(index: int) -> str:
    return NASTY if index == 0 else f"{index}.png"


def attacked(value: Any) -> dict[str, Any]:
    if value == "problem":
        return {"problem": "has no derivative of its map"}
    lost = value == "failed"
    told = {"status": "no gradient" if lost else "improved", "ok": not lost, "distance": 0.5,
            "evaluations": 10}  # fmt: skip
    return {
        "attacked": told | ({"message": "the gradient is zero"} if lost else {}),
        "map": {"status": "direct", "ok": True, "failed": False, "evaluations": 1},
        "metrics": {"gini": 0.5, "normalised-distance": 0.0 if lost else value},
    }


def make_run(folder: Path, *, units: int = 3, **more: Any) -> Path:
    """Four pictures and a broken one; the last `units` of pictures and methods are finished."""
    store = Units(folder)
    folder.mkdir()
    text = "# Written by moreaugrad evaluate.\n" + tomli_w.dumps(plan(**more))
    (folder / "config.toml").write_text(text, encoding="utf-8")
    generator = torch.Generator().manual_seed(0)
    prediction = [{"class": 0, "label": "dot", "probability": 0.75}]
    samples = [
        {"input": name(i), "index": i, "label": "cat", "prediction": prediction} for i in range(4)
    ]
    broken = {"input": "broken.png", "index": 4, "problem": "is no picture"}
    inputs = {str(i): torch.randn(3, 16, 16, generator=generator) for i in range(4)}
    save(store, unit_stem(0), [*samples, broken], inputs)
    for method in METHODS[: units - 1]:
        records, tensors = [], {}
        for index in range(4):
            target = {"class": 0, "label": "dot"}
            found = {"status": "direct", "ok": index > 0, "failed": False, "evaluations": 1}
            gini = None if index == 3 else 0.1 * (index + 1)
            clean = {"target": target, "map": found, "metrics": {"gini": gini}}
            records.append(head(index, method, "clean", None) | clean)
            tensors[f"{index}/clean/map"] = torch.randn(3, 16, 16, generator=generator)
            for attack in ("noise", "top-k"):
                for place, epsilon in enumerate(BUDGETS):
                    value = DISTANCES[method, attack][place][index]
                    records.append(head(index, method, attack, epsilon) | attacked(value))
                    if value != "problem":
                        key = f"{index}/{attack}/{epsilon:g}"
                        tensors[f"{key}/map"] = torch.randn(3, 16, 16, generator=generator)
                        tensors[f"{key}/input"] = inputs[str(index)] + 0.1
        save(store, unit_stem(0, method), records, tensors)
    return folder


def test_the_images_of_a_large_report_are_next_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run #1?%20")
    monkeypatch.setattr("moreaugrad.reports.page.MAPS_INSIDE", 3)
    made = report([run], tmp_path / "page")
    linked = set(re.findall(r'<img src="(index_files/[^"]+)"', page_of(made).read_text("utf-8")))
    files = {f"index_files/{path.name}" for path in (tmp_path / "page/index_files").iterdir()}
    assert linked == files
    assert len(linked) > 3
    # Smaller again: the files that no longer belong to it are gone.
    report([run], tmp_path / "page", gallery=0, overwrite=True)
    assert not (tmp_path / "page" / "index_files").exists()


def test_a_metric_that_no_attack_is_aimed_at_is_marked(tmp_path: Path) -> None:
    """The attack top-k is aimed at no distance; noise is aimed at nothing, and not marked."""
    aims = {}
    for kind in ("top-k", "matched"):
        attack = {
            "attack": kind,
            **({"metric": "normalised-distance"} if kind == "matched" else {}),
        }
        attacks = {"noise": {"attack": "gaussian"}, "top-k": attack}
        made = report([make_run(tmp_path / kind, attacks=attacks)], tmp_path / f"{kind}-page")
        text = page_of(made).read_text("utf-8")
        aims[kind] = text.count("not aimed at</th>"), rows(page_of(made))
    assert aims["matched"][0] == 0
    assert aims["top-k"][0] == 2 + 2  # top-k and the worst of the attacks, at two budgets
    for kind in aims:
        found = MapsFolder.read(tmp_path / kind)
        marked = {
            chart.title: "not aimed at" in chart.svg
            for chart in charts(means(found, Intervals()), ["normalised-distance"], "L2")
        }
        assert marked == {"noise": False, "top-k": kind == "top-k", WORST: kind == "top-k"}
    simple, distance = METHODS[0], "normalised-distance"
    for kind, aimed in (("top-k", "False"), ("matched", "True")):
        found = aims[kind][1]
        assert found[simple, "top-k", "0.5", distance]["aimed"] == aimed
        assert found[simple, WORST, "0.5", distance]["aimed"] == aimed
        assert found[simple, "noise", "0.5", distance]["aimed"] == ""
        assert found[simple, "clean", "", "gini"]["aimed"] == ""


def rows(page: Path) -> dict[tuple[str, str, str, str], dict[str, str]]:
    with (page.parent / "summary.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    return {(r["method"], r["attack"], r["epsilon"], r["metric"]): r for r in found}


def test_numbers_are_those_by_hand(tmp_path: Path) -> None:
    made = report([make_run(tmp_path / "run")], tmp_path / "page")
    assert made.complete
    found = rows(page_of(made))

    def told(method: str, attack: str, epsilon: str, metric: str) -> list[float]:
        row = found[method, attack, epsilon, metric]
        names = ("mean", "count", "undefined", "failed", "mean_with_failed")
        return [float(row[key] or "nan") for key in names]

    distance = "normalised-distance"
    simple, smooth = METHODS
    assert told(simple, "clean", "", "gini") == pytest.approx([0.2, 3, 1, 0, 0.2])
    assert told(simple, "clean", "", "converged") == pytest.approx([0.75, 4, 0, 0, 0.75])
    assert told(simple, "noise", "0.5", distance) == pytest.approx([0.3, 4, 0, 0, 0.3])
    assert told(simple, "top-k", "0.5", distance) == pytest.approx([0.4, 3, 1, 0, 0.4])
    # Two of four failed; with their unchanged maps the mean would be half as large.
    assert told(simple, "top-k", "1.0", distance) == pytest.approx([0.7, 2, 0, 2, 0.35])
    assert told(smooth, "top-k", "0.5", distance) == pytest.approx(
        [math.nan, 0, 0, 4, math.nan], nan_ok=True
    )
    # The larger distance of the two attacks, picture by picture: 0.3, 0.2, undefined, 0.8.
    mean = (0.3 + 0.2 + 0.8) / 3
    assert told(simple, WORST, "0.5", distance) == pytest.approx([mean, 3, 1, 0, mean])
    assert told(simple, WORST, "1.0", distance) == pytest.approx([0.5, 4, 0, 0, 0.5])
    assert told(smooth, WORST, "1.0", distance) == pytest.approx([0.15, 4, 0, 0, 0.15])
    assert (simple, WORST, "1.0", "gini") not in found


def test_images_that_no_attack_changed_count_as_unchanged_in_one_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DISTANCES, (METHODS[0], "noise"), [[0.3] * 4, [0.2, "failed", 0.4, 0.6]])
    monkeypatch.setitem(
        DISTANCES, (METHODS[0], "top-k"), [[0.3] * 4, [0.4, "failed", "problem", 0.2]]
    )
    page = page_of(report([make_run(tmp_path / "run")], tmp_path / "page"))
    row = rows(page)[METHODS[0], WORST, "1.0", "normalised-distance"]
    assert (row["count"], row["failed"]) == ("3", "1")
    assert float(row["mean"]) == pytest.approx((0.4 + 0.4 + 0.6) / 3)
    assert float(row["mean_with_failed"]) == pytest.approx((0.4 + 0 + 0.4 + 0.6) / 4)


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    for out in ("one", "two"):
        report([folder], tmp_path / out)
    for file in ("index.html", "summary.csv", "tables.tex"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_file_of_maps_is_read_once_for_each_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real, seen = make_run(tmp_path / "run"), Units.tensors, list[str]()

    def tensors(self: Units, stem: str) -> dict[str, torch.Tensor]:
        seen.append(stem)
        return real(self, stem)

    monkeypatch.setattr(Units, "tensors", tensors)
    report([path], tmp_path / "page", gallery=4)
    assert [seen.count(unit_stem(0, method)) for method in METHODS] == [4, 4]


def test_latex_escapes_and_marks_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "LEAST", 2)
    report([make_run(tmp_path / "run")], tmp_path / "page")
    text = (tmp_path / "page" / "tables.tex").read_text(encoding="utf-8")
    assert text.count(r"\begin{tabular}") == text.count(r"\bottomrule") == 1 + 3 * 2
    assert r"95 \% intervals" in text
    line = next(line for line in text.splitlines() if r"\textbf{0.100}" in line)
    assert line.startswith("smoothgrad & ")
    assert r"0.700 \small[$-$1.841 to 3.241] \small(2 failed" in text


def test_an_incomplete_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path / "run", units=2)
    assert run(["report", str(folder), "--out", str(tmp_path / "page")]) == 1
    assert "run is not complete: 2 of 3 units" in " ".join(capsys.readouterr().err.split())
    text = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "run is not complete: 2 of 3 units are finished" in text


def test_several_runs_stand_side_by_side(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name) for name in ("one", "two")]
    made = report(folders, tmp_path / "page", gallery=0)
    text = page_of(made).read_text(encoding="utf-8")
    assert text.count(">one, simple-gradient<") == text.count(">two, simple-gradient<") == 7
    assert "Robustness of 2 methods on 2 runs" in text
    assert 'class="input"' not in text


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "empty", units=1)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.txt").write_text("x")
    for given, out, message in (
        (tmp_path / "nothing", tmp_path / "page", "there is no such folder"),
        (tmp_path / "thesis", tmp_path / "page", r"holds no config\.toml"),
        (folder, tmp_path / "page", "none yet"),
        (make_run(tmp_path / "run"), tmp_path / "thesis", "holds other files"),
    ):
        with pytest.raises(ValueError, match=message):
            report([given], out)
    assert not (tmp_path / "page").exists()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    return page_of(report([make_run(folder / "run")], folder / "page", gallery=2))


def test_the_page_says_what_failed(drawn: Path) -> None:
    text = drawn.read_text(encoding="utf-8")
    assert "2 failed (0.350 with them)" in text
    assert "1 undefined" in text
    assert "has no derivative of its map" in text
    assert "1 of 5 images could not be read and are left out (broken.png)" in text
    assert NASTY not in text


@pytest.mark.chromium
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_in_a_browser(chromium: Any, drawn: Path, width: int) -> None:
    chromium.open(drawn, width=width)
    assert chromium.ask("document.documentElement.scrollWidth") <= width
    assert chromium.ask("[...document.images].every(image => image.naturalWidth > 0)")
    # Two attacks and the worst; two photos, and in four views two clean and three attacked maps.
    assert chromium.ask("document.querySelectorAll('.chart img').length") == 3
    assert chromium.ask("document.images.length") == 3 + 2 + 2 * (2 + 3) * 4
    assert chromium.ask("document.querySelectorAll('section.summary tbody tr').length") == 7 * 2
    shown = "[...document.querySelectorAll('.tile-title')].map(e => e.textContent)"
    assert chromium.ask(shown)[:3] == [
        "simple-gradient", "simple-gradient, noise 1", "simple-gradient, top-k 1",
    ]  # fmt: skip
    fetched = [
        event["params"]["request"]["url"]
        for event in chromium.events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in fetched if not url.startswith("data:")] == [drawn.as_uri()]
    bad = ("Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening")
    assert [event for event in chromium.events if event["method"] in bad] == []
