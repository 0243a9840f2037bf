"""A second network, compared with the first: its own maps, prediction and settings."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tiny_models
from moreaugrad.cli.commands import COMMANDS, CommonOptions
from moreaugrad.cli.perform import assemble
from moreaugrad.models import LoadedModel, Preprocess
from moreaugrad.runs.engine import Outcome, execute
from moreaugrad.runs.maps.run import MapsRun
from moreaugrad.runs.plans.common import ComputePlan, DataPlan, ModelPlan
from moreaugrad.runs.plans.explain import ComparisonPlan, ExplainPlan
from moreaugrad.runs.plans.toml import plan_toml, read_plan

SMOOTH, FLAT = ModelPlan(name="tiny_models:smooth"), ModelPlan(name="tiny_models:flat")


def wide() -> LoadedModel:
    """Another size, other colours and another order of labels than `tiny_models.smooth`."""
    module = tiny_models._drawn(
        torch.nn.Sequential(
            torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 4)
        )
    )
    preprocess = Preprocess(resize=24, crop=24, mean=(0.4,) * 3, std=(0.5,) * 3)
    return LoadedModel(module=module, preprocess=preprocess, labels=tiny_models.LABELS[::-1])


WIDE = ModelPlan(name=f"{__name__}:wide")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def plan(photos: Path, second: ModelPlan, **more: Any) -> ExplainPlan:
    return ExplainPlan(
        data=DataPlan(files=(str(photos),)), model=SMOOTH,
        compute=ComputePlan(device="cpu", threads=1), methods={"simple-gradient": {}},
        compare=ComparisonPlan(
            model=second, methods={"simple-gradient": {}, "smoothgrad": {"samples": 4}}
        ),
        **more,
    )  # fmt: skip


def run(found: ExplainPlan, out: Path) -> Outcome:
    return execute(MapsRun(found), out)


def page_of(outcome: Outcome) -> str:
    return (outcome.folder / "index.html").read_text(encoding="utf-8")


def maps(folder: Path) -> dict[str, torch.Tensor]:
    return {file.stem: load_file(file)["map"] for file in sorted(folder.glob("*.safetensors"))}


def test_the_data_s_labels_need_networks_that_agree_on_them(photos: Path, tmp_path: Path) -> None:
    classes = tmp_path / "classes"
    for name, label in zip("01", tiny_models.LABELS, strict=False):
        (classes / label).mkdir(parents=True)
        (photos / f"{name}.png").rename(classes / label / "one.png")
    data = DataPlan(source=str(classes), layout="folders")
    found = dataclasses.replace(plan(photos, WIDE, target="label"), data=data)
    with pytest.raises(ValueError, match="same labels"):
        run(found, tmp_path / "both")
    assert found.compare is not None
    same = dataclasses.replace(found, compare=dataclasses.replace(found.compare, model=FLAT))
    assert not run(same, tmp_path / "same").failures


def test_each_network_is_explained_as_if_it_were_alone(photos: Path, tmp_path: Path) -> None:
    whole = plan(photos, WIDE, target="dot")
    assert not run(whole, tmp_path / "both").failures
    assert whole.compare is not None
    alone = dataclasses.replace(whole, model=WIDE, methods=whole.compare.methods, compare=None)
    run(alone, tmp_path / "alone")
    run(dataclasses.replace(whole, compare=None), tmp_path / "first")
    for number in "012":
        found = maps(tmp_path / "both/inputs" / number)
        assert set(found) == {"simple-gradient", "compared.simple-gradient", "compared.smoothgrad"}
        assert torch.equal(
            found["simple-gradient"], maps(tmp_path / "first/inputs" / number)["simple-gradient"]
        )
        for name, values in maps(tmp_path / "alone/inputs" / number).items():
            assert values.shape == (3, 24, 24)
            assert torch.equal(found[f"compared.{name}"], values)
        both, other = (
            json.loads((tmp_path / name / "inputs" / number / "record.json").read_text("utf-8"))
            for name in ("both", "alone")
        )
        targets = {label: one["target"] for label, one in both["maps"].items()}
        assert targets["simple-gradient"] == {"class": 1, "label": "dot"}
        assert targets["compared.smoothgrad"] == {"class": 2, "label": "dot"}
        assert both["compared"] == {"prediction": other["prediction"]}
        assert set(both["maps"]) == set(found)


def test_a_result_runs_again_to_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    run(plan(photos, WIDE, target="dot"), tmp_path / "a")
    again = read_plan(ExplainPlan, tmp_path / "a" / "config.toml", trust=True)
    assert again.compare is not None
    assert again.compare.target == 2
    assert again.compare.methods["smoothgrad"]["samples"] == 4
    run(again, tmp_path / "b")
    for file in sorted((tmp_path / "a").rglob("*")):
        timed = {"index.html", "index.sha256", "config.toml"}
        if file.is_file() and file.name not in timed and "times" not in file.parts:
            assert (
                file.read_bytes()
                == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()
            )
    with pytest.raises(ValueError, match="another configuration"):
        run(plan(photos, FLAT, target="dot"), tmp_path / "a")


def test_weights_are_found_from_where_the_configuration_lies(tmp_path: Path) -> None:
    second = ModelPlan(name="builtin", weights=str(tmp_path / "w.safetensors"))
    chosen = ExplainPlan(
        data=DataPlan(files=("x.png",)), methods={"smoothgrad": {}},
        compare=ComparisonPlan(model=second),
    )  # fmt: skip
    (tmp_path / "out").mkdir()
    text = plan_toml(chosen, tmp_path / "out")
    assert 'weights = "../w.safetensors"' in text
    (tmp_path / "out" / "config.toml").write_text(text, encoding="utf-8")
    read = read_plan(ExplainPlan, tmp_path / "out" / "config.toml", trust=True)
    assert read.compare is not None
    assert Path(str(read.compare.model.weights)).resolve() == tmp_path / "w.safetensors"


def test_the_page_names_the_networks(photos: Path, tmp_path: Path) -> None:
    page = page_of(run(plan(photos, FLAT), tmp_path / "o"))
    for words in (
        "2 methods of two networks on 3 images", "Network tiny_models:smooth",
        "Network tiny_models:flat", "Prediction of tiny_models:smooth",
        "Prediction of tiny_models:flat", "tiny_models:flat, simple-gradient</th>",
    ):  # fmt: skip
        assert words in page, words
    same = page_of(run(plan(photos, SMOOTH), tmp_path / "same"))
    assert "tiny_models:smooth, compared, simple-gradient</th>" in same


def test_a_network_that_cannot_be_explained_leaves_the_other(photos: Path, tmp_path: Path) -> None:
    outcome = run(plan(photos, ModelPlan(name="tiny_models:detached")), tmp_path / "o")
    keys = [failure.method for failure in outcome.failures]
    assert sorted(keys) == ["compared.simple-gradient"] * 3 + ["compared.smoothgrad"] * 3
    records = outcome.run.results(outcome.directory)["inputs"]
    made = [{k for k, one in record["maps"].items() if "map" in one} for record in records]
    assert made == [{"simple-gradient"}] * 3
    assert "Prediction of tiny_models:detached" in page_of(outcome)


def test_the_estimate_counts_both(photos: Path) -> None:
    found = MapsRun(plan(photos, FLAT)).estimate()
    assert [(c.key, c.maps, c.evaluations) for c in found.costs] == [
        ("simple-gradient", 3, 1),
        ("compared.simple-gradient", 3, 1),
        ("compared.smoothgrad", 3, 4),
    ]
    assert found.seconds == pytest.approx(found.seconds_per_evaluation * found.evaluations)


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("builtin-elastc-net", "model: .* did you mean 'builtin-elastic-net'"),
        ("tiny_models:plain", "target: expected a class"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*how images are preprocessed")
def test_what_is_wrong_with_it_is_reported_with_its_name(
    photos: Path, second: str, words: str
) -> None:
    with pytest.raises(ValueError, match=f"compare-with, {second}: {words}"):
        MapsRun(plan(photos, ModelPlan(name=second), target="dot"))


def test_ground_truth_needs_networks_of_one_size() -> None:
    cells = ExplainPlan(
        data=DataPlan(source="cells", indices=(0,)), model=SMOOTH, methods={"simple-gradient": {}},
        compare=ComparisonPlan(model=WIDE),
    )  # fmt: skip
    with pytest.raises(ValueError, match="same size"):
        MapsRun(cells)


def test_its_methods_are_checked(photos: Path) -> None:
    wrong = ComparisonPlan(model=FLAT, methods={"smothgrad": {}})
    with pytest.raises(ValueError, match=r"compare-with.* did you mean 'smoothgrad'"):
        MapsRun(dataclasses.replace(plan(photos, FLAT), compare=wrong))


def assembled(command: str, *, config: Path | None = None, **given: str) -> ExplainPlan:
    options = {f"--{name.replace('_', '-')}": text for name, text in given.items()}
    output = CommonOptions(config=None if config is None else str(config), trust=True)
    found = assemble(COMMANDS[command], options, output)
    assert isinstance(found, ExplainPlan)
    return found


def test_options_reach_both_networks(photos: Path, tmp_path: Path) -> None:
    given = assembled("explain", methods="moreaugrad", rho="0.5", compare_with="tiny_models:flat")
    given = dataclasses.replace(given, data=DataPlan(files=(str(photos),)), model=SMOOTH)
    prepared = MapsRun(given).plan
    assert prepared.compare is not None
    assert prepared.methods["moreaugrad"]["rho"] == 0.5
    assert prepared.compare.methods["moreaugrad"]["rho"] == 0.5

    file = tmp_path / "plan.toml"
    file.write_text(
        'target = 3\n[data]\nfiles = ["x.png"]\n[methods.smoothgrad]\n[compare]\ntarget = 2\n'
        '[compare.model]\nname = "tiny_models:flat"\n[compare.methods.moreaugrad]\nrho = 2.0\n'
    )
    kept = assembled("explain", config=file).compare
    assert kept is not None
    assert (kept.model.name, kept.target) == ("tiny_models:flat", 2)
    moved = assembled("explain", config=file, compare_with="tiny_models:smooth").compare
    assert moved is not None
    assert (moved.model.name, dict(moved.methods)) == (
        "tiny_models:smooth", {"moreaugrad": {"rho": 2.0}},
    )  # fmt: skip
    assert assembled("sweep", config=file, method="moreaugrad", over="rho").compare is None
