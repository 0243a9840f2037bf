"""The faithfulness that a method loses of its base's, on numbers chosen by hand."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch

from moreaugrad.cli.entry import run
from moreaugrad.files.units import Units, record_lines, tensor_bytes
from moreaugrad.reports.folder import unit_stem
from moreaugrad.reports.reading import MapsFolder
from moreaugrad.reports.statistics import Intervals, bases, drops

AOPC: dict[str, list[float | None]] = {
    "simple-gradient": [0.4, 0.2, 0.6, None, 0.9],
    "smoothgrad": [0.3, 0.2, 0.4, 0.5, None],
    "sparse-moreaugrad": [0.2, 0.1, 0.4, 0.5, 0.1],
    "cafo": [-0.2, -0.1, 0.1, 0.0, None],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = Units(tmp_path / "run")
    store.path.mkdir()
    plan = {
        "data": {"source": "images", "images": 5}, "block": 5,
        "model": {"name": "tiny_models:smooth"},
        "methods": {name: {"method": name} for name in AOPC},
        "metrics": {"aopc": {"metric": "aopc"}, "deletion": {"metric": "deletion"},
                    "gini": {"metric": "gini"}},
    }  # fmt: skip
    text = "# Written by moreaugrad evaluate.\n" + tomli_w.dumps(plan)
    (store.path / "config.toml").write_text(text, encoding="utf-8")
    names = [{"input": f"{i}.png", "index": i} for i in range(5)]
    seen = {"prediction": [{"class": 0, "label": "dot", "probability": 0.75}]}
    stem = unit_stem(0)
    samples = record_lines([name | seen for name in names])
    kept = tensor_bytes({"0": torch.zeros(3, 16, 16)})
    store.write(stem, {f"{stem}.jsonl": samples, f"{stem}.safetensors": kept})
    for method, values in AOPC.items():
        records = [
            name
            | {"method": method, "attack": "clean", "epsilon": None,
               "map": {"status": "direct", "ok": True, "failed": False, "evaluations": 1},
               "metrics": {"aopc": value, "deletion": 0.5, "gini": 0.5}}
            for name, value in zip(names, values, strict=True)
        ]  # fmt: skip
        stem = unit_stem(0, method)
        store.write(stem, {f"{stem}.jsonl": record_lines(records)})
    return store.path


def test_drops_are_those_by_hand(folder: Path) -> None:
    given = {"smoothgrad": "simple-gradient", "sparse-moreaugrad": "smoothgrad"}
    found = drops(MapsFolder.read(folder, "run"), given, Intervals())
    assert [(each.method, each.metric, each.count) for each in found] == [
        ("smoothgrad", "aopc", 3),
        ("sparse-moreaugrad", "aopc", 4),
    ]
    first, second = found
    # Pictures 0 to 2: means 0.4 and 0.3; 0 to 3: 0.35 and 0.3.
    assert first.drop == pytest.approx(0.25)
    assert second.drop == pytest.approx(0.05 / 0.35)
    assert math.isnan(first.low)  # of three pictures


def test_a_share_of_nothing_is_undefined(folder: Path) -> None:
    (found,) = drops(MapsFolder.read(folder, "run"), {"smoothgrad": "cafo"}, Intervals())
    assert np.isnan([found.drop, found.low, found.high]).all()


def test_where_nothing_can_be_lost_there_is_no_interval(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Intervals, "of_ratio", lambda *_: (1.2, 1.4))  # of enough images
    (found,) = drops(MapsFolder.read(folder, "run"), {"smoothgrad": "cafo"}, Intervals())
    assert np.isnan([found.drop, found.low, found.high]).all()


def test_a_method_without_results_has_no_drop(folder: Path) -> None:
    for file in (folder / unit_stem(0, "cafo")).parent.iterdir():
        file.unlink()
    (found,) = drops(MapsFolder.read(folder, "run"), {"cafo": "smoothgrad"}, Intervals())
    assert found.count == 0
    assert math.isnan(found.drop)


def test_bases_are_named_for_one_or_for_all(folder: Path) -> None:
    whole = MapsFolder.read(folder, "run")
    assert bases(whole, ["smoothgrad=simple-gradient"]) == {"smoothgrad": "simple-gradient"}
    assert bases(whole, ["simple-gradient", "sparse-moreaugrad=smoothgrad"]) == {
        "smoothgrad": "simple-gradient",
        "sparse-moreaugrad": "smoothgrad",
        "cafo": "simple-gradient",
    }
    with pytest.raises(ValueError, match="base: expected one of simple-gradient"):
        bases(whole, ["smoothgrad=gradient"])


def test_the_report_shows_drops(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page"
    code = ["report", str(folder), "--base", "sparse-moreaugrad=smoothgrad", "--out", str(page)]
    assert run(code) == 0
    with (page / "drops.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["method"], row["base"], row["count"]) == ("sparse-moreaugrad", "smoothgrad", "4")
    assert float(row["drop"]) == pytest.approx(1 / 7)
    text = (page / "index.html").read_text(encoding="utf-8")
    assert "sparse-moreaugrad of smoothgrad" in text
    assert "14.3 %" in text
    assert run(["report", str(folder), "--out", str(tmp_path / "other")]) == 0
    assert not (tmp_path / "other" / "drops.csv").exists()
