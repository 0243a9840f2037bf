"""A second network beside the first: its own maps, prediction and settings, on the same inputs."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tiny_models
from moreaugrad.cli.jobs import explain_job, sweep_job
from moreaugrad.cli.options import Options
from moreaugrad.models import LoadedModel, Preprocess
from moreaugrad.runs import (
    BesidePlan,
    CellsPlan,
    ComputePlan,
    Job,
    ModelPlan,
    estimate,
    job_toml,
    prepare,
    read_job,
    run,
)  # fmt: skip

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


def job(photos: Path, beside: ModelPlan, **more: object) -> Job:
    return Job(
        images=(str(photos),), model=SMOOTH, compute=ComputePlan(device="cpu", threads=1),
        methods={"simple-gradient": {}},
        beside=BesidePlan(
            model=beside, methods={"simple-gradient": {}, "smoothgrad": {"samples": 4}}
        ),
        **more,
    )  # fmt: skip


def maps(folder: Path) -> dict[str, torch.Tensor]:
    return {file.stem: load_file(file)["map"] for file in sorted(folder.glob("*.safetensors"))}


def test_each_network_is_explained_as_if_it_were_alone(photos: Path, tmp_path: Path) -> None:
    whole = job(photos, WIDE, target="dot")
    assert not run(prepare(whole), tmp_path / "both").failures
    assert whole.beside is not None
    alone = dataclasses.replace(whole, model=WIDE, methods=whole.beside.methods, beside=None)
    run(prepare(alone), tmp_path / "alone")
    run(prepare(dataclasses.replace(whole, beside=None)), tmp_path / "first")
    for number in "012":
        found = maps(tmp_path / "both/inputs" / number)
        assert set(found) == {"simple-gradient", "beside.simple-gradient", "beside.smoothgrad"}
        assert torch.equal(
            found["simple-gradient"], maps(tmp_path / "first/inputs" / number)["simple-gradient"]
        )
        for name, values in maps(tmp_path / "alone/inputs" / number).items():
            assert values.shape == (3, 24, 24)
            assert torch.equal(found[f"beside.{name}"], values)
        both, other = (
            json.loads((tmp_path / name / "inputs" / number / "record.json").read_text("utf-8"))
            for name in ("both", "alone")
        )
        assert both["target"] == {"class": 1, "label": "dot"}
        assert both["beside"] == {key: other[key] for key in ("model", "prediction", "target")}
        assert both["beside"]["target"] == {"class": 2, "label": "dot"}
        assert set(both["maps"]) == set(found)


def test_a_result_runs_again_to_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    first = prepare(job(photos, WIDE, target="dot"))
    run(first, tmp_path / "a")
    again = read_job(tmp_path / "a" / "config.toml", trust=True)
    assert again.beside is not None
    assert again.beside.target == 2
    assert again.beside.methods["smoothgrad"]["samples"] == 4
    run(prepare(again), tmp_path / "b")
    for file in sorted((tmp_path / "a").rglob("*")):
        if file.is_file() and file.name not in ("index.html", "index.sha256", "config.toml"):
            assert (
                file.read_bytes()
                == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()
            )
    with pytest.raises(ValueError, match="another configuration"):
        run(prepare(job(photos, FLAT, target="dot")), tmp_path / "a")


def test_weights_are_found_from_where_the_configuration_lies(tmp_path: Path) -> None:
    plan = ModelPlan(name="builtin", weights=str(tmp_path / "w.safetensors"))
    chosen = Job(
        images=("x.png",), methods={"smoothgrad": {}},
        beside=BesidePlan(model=plan, methods={"smoothgrad": {}}),
    )  # fmt: skip
    (tmp_path / "out").mkdir()
    text = job_toml(chosen, tmp_path / "out")
    assert 'weights = "../w.safetensors"' in text
    (tmp_path / "out" / "config.toml").write_text(text, encoding="utf-8")
    read = read_job(tmp_path / "out" / "config.toml", trust=True)
    assert read.beside is not None
    assert Path(str(read.beside.model.weights)).resolve() == tmp_path / "w.safetensors"


def test_the_page_names_the_networks(photos: Path, tmp_path: Path) -> None:
    page = run(prepare(job(photos, FLAT)), tmp_path / "o").page.read_text(encoding="utf-8")
    for words in (
        "2 methods of two networks on 3 pictures", "Network tiny_models:smooth",
        "Network tiny_models:flat", "Prediction of tiny_models:smooth",
        "Prediction of tiny_models:flat", '<th scope="rowgroup">tiny_models:flat</th>',
    ):  # fmt: skip
        assert words in page, words
    same = run(prepare(job(photos, SMOOTH)), tmp_path / "same").page.read_text(encoding="utf-8")
    assert '<th scope="rowgroup">tiny_models:smooth, beside</th>' in same


def test_a_network_that_cannot_be_explained_leaves_the_other(photos: Path, tmp_path: Path) -> None:
    outcome = run(prepare(job(photos, ModelPlan(name="tiny_models:detached"))), tmp_path / "o")
    keys = [failure.method for failure in outcome.failures]
    assert keys == ["beside.simple-gradient"] * 3 + ["beside.smoothgrad"] * 3
    assert [set(record["maps"]) for record in outcome.records] == [{"simple-gradient"}] * 3
    assert "target" not in outcome.records[0]["beside"]
    assert "Prediction of tiny_models:detached" in outcome.page.read_text(encoding="utf-8")


def test_the_estimate_counts_both(photos: Path) -> None:
    found = estimate(prepare(job(photos, FLAT)))
    assert [(c.key, c.maps, c.evaluations) for c in found.costs] == [
        ("simple-gradient", 3, 1), ("beside.simple-gradient", 3, 1), ("beside.smoothgrad", 3, 4),
    ]  # fmt: skip
    assert found.seconds == pytest.approx(found.seconds_per_evaluation * found.evaluations)


@pytest.mark.parametrize(
    ("beside", "told"),
    [
        ("builtin-elastc-net", "model: .* did you mean 'builtin-elastic-net'"),
        ("tiny_models:plain", "target: expected a class"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*how pictures are prepared")
def test_what_is_wrong_beside_is_told_with_its_name(photos: Path, beside: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"beside, {beside}: {told}"):
        prepare(job(photos, ModelPlan(name=beside), target="dot"))


def test_true_maps_need_networks_of_one_size() -> None:
    cells = Job(
        cells=CellsPlan(indices=(0,)), model=SMOOTH, methods={"simple-gradient": {}},
        beside=BesidePlan(model=WIDE, methods={"simple-gradient": {}}),
    )  # fmt: skip
    with pytest.raises(ValueError, match="same size"):
        prepare(cells)


def test_methods_are_needed() -> None:
    with pytest.raises(ValueError, match="beside: expected at least one method"):
        BesidePlan(model=FLAT, methods={})
    with pytest.raises(ValueError, match=r"beside: method: .* did you mean 'smoothgrad'"):
        BesidePlan(model=FLAT, methods={"smothgrad": {}})


def test_options_reach_both_networks(tmp_path: Path) -> None:
    given = explain_job(["x.png"], ["moreaugrad"], Options(rho=0.5), "tiny_models:flat")
    assert given.beside is not None
    assert given.beside.model == FLAT
    assert given.methods == given.beside.methods == {"moreaugrad": {"rho": 0.5}}

    file = tmp_path / "job.toml"
    file.write_text(
        'images = ["x.png"]\ntarget = 3\n[methods.smoothgrad]\n[beside]\ntarget = 2\n'
        '[beside.model]\nname = "tiny_models:flat"\n[beside.methods.moreaugrad]\nrho = 2.0\n'
    )
    kept = explain_job([], None, Options(config=file, sigma=0.5)).beside
    assert kept == BesidePlan(
        model=FLAT, target=2, methods={"moreaugrad": {"rho": 2.0, "sigma": 0.5}}
    )
    asked = explain_job([], None, Options(config=file, target="1"))
    assert asked.beside is not None
    assert (asked.target, asked.beside.target) == (1, None)
    moved = explain_job([], None, Options(config=file, target="1"), "tiny_models:smooth").beside
    assert moved == BesidePlan(model=SMOOTH, methods={"moreaugrad": {"rho": 2.0}})
    named = explain_job([], ["moreaugrad", "deeplift"], Options(config=file)).beside
    assert named is not None
    assert named.methods == {"moreaugrad": {"rho": 2.0}, "deeplift": {}}
    assert sweep_job([], "moreaugrad", "rho", [1.0], Options(config=file)).beside is None
