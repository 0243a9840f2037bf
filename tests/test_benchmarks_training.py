"""What benchmarks say about maps of trained networks, on runs whose answer is known."""

import io
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks import gallery
from benchmarks.training_attention import wanted
from benchmarks.training_maps import GRADIENT, Judged, called, clean, firsts, mean, over_seeds
from benchmarks.training_pictures import attacked, like_truth, post_processed, truths
from benchmarks.training_robustness import STEPS, _described, _lost
from benchmarks.training_rows import STUDIES
from benchmarks.training_scratch import PUBLISHED
from benchmarks.training_scratch import STUDY as SCRATCH
from benchmarks.training_truth import EMPTY, METRICS, SCORES, _magnitudes, score_of
from PIL import Image

from moreaugrad.cli.entry import run
from moreaugrad.data.cells import Cells
from moreaugrad.data.source import CELL_SEEDS
from moreaugrad.data.writing import write_cells
from moreaugrad.metrics import five_band
from moreaugrad.reports.reading import CLEAN, MapsFolder
from moreaugrad.reports.statistics import Drop, Mean
from moreaugrad.runs.plans.common import DataPlan, ModelPlan
from moreaugrad.runs.plans.explain import EvaluatePlan
from moreaugrad.runs.plans.maps import OF_LABEL
from moreaugrad.runs.plans.toml import plan_toml

NOISE = {"noise": {"attack": "gaussian", "over": "sigma", "epsilons": [0.1, 0.2]}}


def made_up(values: dict[str, list[float | None]], classes: list[int]) -> Any:
    """A run of one method; its metrics have these values on pictures of these classes."""
    records = [
        {"index": 10 * i, "metrics": {name: each[i] for name, each in values.items()}}
        for i in range(len(classes))
    ]
    samples = [{"index": 10 * i, "class": each} for i, each in enumerate(classes)]
    return SimpleNamespace(inputs=samples, by_key={(GRADIENT, CLEAN, None): records})


def test_images_without_a_cell_count_as_published_or_not_at_all() -> None:
    recall, precision, alarms = (SCORES["five-band"][name] for name in (
        "recall", "precision", "false-positive-rate"))  # fmt: skip
    values = {
        recall: [0.5, 0.1, None], precision: [0.2, None, 0.0], alarms: [0.1, 0.2, 0.6],
        "average-precision": [0.3, 0.5, None],
    }  # fmt: skip
    found = made_up(values, [1, 2, EMPTY])
    assert score_of(found, recall) == pytest.approx(30)
    assert score_of(found, recall, empty=True) == pytest.approx(20)
    assert score_of(found, precision) == pytest.approx(20)
    assert score_of(found, precision, empty=True) == pytest.approx(20 / 3)
    assert score_of(found, alarms) == pytest.approx(15)
    assert score_of(found, alarms, empty=True) == pytest.approx(30)
    # A threshold-free score has no published value for nothing: it stays out.
    assert score_of(found, "average-precision", empty=True) == pytest.approx(40)


def test_means_leave_out_what_is_undefined_and_seeds_without_a_value() -> None:
    runs = {seed: made_up({"gini": [value]}, [0]) for seed, value in enumerate((0.4, 0.6, None))}
    assert math.isnan(mean(clean(runs[2]), "gini"))
    described = over_seeds(runs, lambda one: mean(clean(one), "gini"), 2)
    # t(0.975, 1) = 12.706, standard error 0.1.
    assert described == "0.50 ± 1.27"


@pytest.mark.parametrize("study", ["cells", "gaze"])
def test_rows_of_attention_have_rising_weights(study: str) -> None:
    by_label: dict[str, list[float]] = {}
    for row in wanted(study):
        by_label.setdefault(row.label, []).append(sum(row.protocol.epsilon))
    assert next(iter(by_label)) == "plain"
    assert all(values == sorted(values) for values in by_label.values())
    assert len(wanted(study)) == len({row.stem for row in wanted(study)})


def test_rows_are_found_by_their_label() -> None:
    plain, elastic = firsts("cifar10", "plain", "elastic net")
    assert elastic == next(r for r in STUDIES["cifar10"].rows if r.label == "elastic net")
    assert (called(plain), called(elastic)) == ("plain", f"elastic net {elastic.described}")
    names = [called(row) for row in STUDIES["cifar10"].rows]
    assert len(names) == len(set(names))


def test_intervals_and_drops_are_reported_in_their_unit() -> None:
    cell = Mean(
        run="plain", method=GRADIENT, attack=CLEAN, epsilon=None, metric="zeros", better="",
        mean=0.5, low=0.25, high=0.75, count=3, undefined=0, failed=0, mean_with_failed=0.5,
    )  # fmt: skip
    assert _described([cell], "zeros", 100, 1) == "50.0 [25.0, 75.0]"
    assert _described([cell], "gini", 1, 3) == "–"
    lone = replace(cell, low=math.nan, high=math.nan)
    assert _described([lone], "zeros", 100, 1) == "50.0"
    lost_all = replace(lone, mean=math.nan, failed=3, mean_with_failed=1.0)
    assert _described([lost_all], "zeros", 1, 2) == "(1.00)"
    lost = [
        Drop(run="plain", method="b", base="a", metric=f"aopc-{steps}", drop=steps / 1000,
             low=-0.1, high=0.2, count=20)
        for steps in STEPS
    ]  # fmt: skip
    assert _lost(lost).rows == [
        ["plain", "b", "a", *(f"{steps / 10:.1f} [-10.0, 20.0]" for steps in STEPS)]
    ]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """The built-in network instead of two trained ones."""
    folder = tmp_path_factory.mktemp("judged")
    write_cells(folder / "data", counts={"test": 12}, size=64)
    plan = EvaluatePlan(
        model=ModelPlan(name="builtin"), target=OF_LABEL, methods={GRADIENT: {}}, metrics=METRICS,
        attacks=NOISE, data=DataPlan(source=str(folder / "data"), split="test"),
    )  # fmt: skip
    (folder / "plan.toml").write_text(plan_toml(plan, folder))
    out = folder / "run"
    assert run(["evaluate", "--config", str(folder / "plan.toml"), "-q", "--out", str(out)]) == 0
    rows = firsts("cells", "plain", "L1")
    return Judged(
        rows=rows, plan=plan, runs={r.stem: {0: MapsFolder.read(out, called(r))} for r in rows},
        accuracy={row.stem: {0: 90.0} for row in rows},
    )  # fmt: skip


def size(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def test_images_and_magnitudes_are_of_the_run_s_maps(found: Judged, tmp_path: Path) -> None:
    known = truths(found)
    source = Cells(size=64, seed=CELL_SEEDS["test"], count=12)
    recalls = []
    for record in clean(found.first(found.rows[0])):
        number = int(Path(record["input"]).stem)
        assert torch.allclose(known[record["index"]], source[number][2].double(), atol=1 / 255)
        if source.label(number) != EMPTY:
            values = found.first(found.rows[0]).map(record).abs().sum(0)[None]
            recalls.append(five_band(values, source[number][2][None], measure="recall").item())
    described = float(_magnitudes(found, known).rows[0][3])
    assert described == pytest.approx(100 * sum(recalls) / len(recalls), abs=0.06)

    def wide(columns: int) -> int:
        return 2 * gallery.MARGIN + gallery.LABEL + columns * (128 + gallery.GAP)

    lines = [(called(row), GRADIENT) for row in found.rows]
    runs = [found.first(row) for row in found.rows]
    made = {
        **like_truth(found, known, ["plain", "no such", "L1"], name="truth"),
        **post_processed(found, [GRADIENT], name="made"),
        **attacked(runs, lines, ["noise"], name="attacked"),
    }
    # A cell and its truth stand before the two networks' maps.
    widths = {name: size(png)[0] for name, png in made.items()}
    assert widths == {"truth.png": wide(4), "made.png": wide(1), "attacked.png": wide(2)}


def test_settings_of_the_papers_table() -> None:
    settings = [(row.label, tuple(row.protocol.epsilon)) for row in STUDIES[SCRATCH].rows]
    assert settings == list(PUBLISHED)
