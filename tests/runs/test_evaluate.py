"""`evaluate` on small images: what it writes, and what it refuses."""

import html
import json
import re
import tomllib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from moreaugrad.attacks import GaussianNoiseAttack
from moreaugrad.cli.entry import run
from moreaugrad.data.dataset import choose_images
from moreaugrad.data.layouts import open_dataset
from moreaugrad.explainers import METHODS, build
from moreaugrad.metrics import gini
from moreaugrad.runs.engine import Observer, Outcome, execute
from moreaugrad.runs.maps import setup
from moreaugrad.runs.maps.run import MapsRun
from moreaugrad.runs.plans.common import DataPlan, ModelPlan
from moreaugrad.runs.plans.explain import EvaluatePlan
from moreaugrad.runs.plans.toml import differences, read_plan
from moreaugrad.runs.processes import Processes

NOISE = {"attack": "gaussian", "over": "sigma", "epsilons": [0.02, 0.1]}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of three images; one more cannot be read."""
    generator = np.random.default_rng(0)
    for label in ("blank", "dot"):
        (tmp_path / "in" / label).mkdir(parents=True)
        for number in range(3):
            pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "in" / label / f"{number}.png")
    (tmp_path / "in" / "dot" / "bad.png").write_bytes(b"no image")
    return tmp_path / "in"


def plan(folder: Path, **more: Any) -> EvaluatePlan:
    given: dict[str, Any] = {
        "data": DataPlan(source=str(folder), max_unreadable=0.2),
        "block": 4,
        "model": ModelPlan(name="tiny_models:smooth"),
        "methods": {"simple-gradient": {}, "smoothgrad": {"samples": 4}},
        "metrics": {"gini": {}, "normalised-distance": {}},
        "attacks": {"noise": NOISE},
    }
    return EvaluatePlan(**(given | more))


def prepare(found: EvaluatePlan) -> MapsRun:
    return MapsRun(found, command="evaluate")


def evaluate(found: EvaluatePlan, out: Path, **how: Any) -> Outcome:
    return execute(prepare(found), out, **how)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_records_maps_and_images(images: Path, tmp_path: Path) -> None:
    prepared = prepare(plan(images))
    outcome = execute(prepared, tmp_path / "run")
    assert (outcome.finished, outcome.units) == (6, 6)
    assert [failure.title for failure in outcome.failures] == ["dot/bad.png"]
    assert sorted(tree(tmp_path / "run").keys() - {"records.parquet"}) == sorted(
        ["config.toml", "environment.json", "records.csv"]
        + [f"{part}/0000{block}.{kind}" for block in (0, 1)
           for kind in ("jsonl", "safetensors", "sha256")
           for part in ("samples", "methods/simple-gradient", "methods/smoothgrad")]
    )  # fmt: skip

    samples = lines(tmp_path / "run" / "samples" / "00001.jsonl")
    assert [sample["input"] for sample in samples] == ["dot/1.png", "dot/2.png", "dot/bad.png"]
    assert samples[0] | {"label": "dot", "class": 1, "index": 4} == samples[0]
    assert "no supported format" in samples[2]["problem"]
    x = load_file(tmp_path / "run" / "samples" / "00001.safetensors")["4"][None]
    logits = prepared.network.model.module(x)
    assert samples[0]["prediction"][0]["class"] == int(logits.argmax())

    records = lines(tmp_path / "run" / "methods" / "smoothgrad" / "00001.jsonl")
    heads = [(r["input"], r["attack"], r["epsilon"]) for r in records]
    assert heads == [
        (name, attack, epsilon)
        for name in ("dot/1.png", "dot/2.png")
        for attack, epsilon in (("clean", None), ("noise", 0.02), ("noise", 0.1))
    ]
    tensors = load_file(tmp_path / "run" / "methods" / "smoothgrad" / "00001.safetensors")
    explainer = build("smoothgrad", prepared.network.model.module, samples=4)
    clean = explainer.explain(x, ids=[4])
    torch.testing.assert_close(tensors["4/clean/map"], clean.maps[0])
    assert records[0]["metrics"] == {"gini": pytest.approx(float(gini(clean.maps)))}
    assert records[0]["map"]["evaluations"] == 4
    result = GaussianNoiseAttack(explainer, sigma=0.1, space=prepared.network.space).attack(
        x, ids=[4]
    )
    torch.testing.assert_close(tensors["4/noise/0.1/input"], result.inputs[0])
    torch.testing.assert_close(tensors["4/noise/0.1/map"], result.attacked.maps[0])
    a, b = (maps.abs() / maps.norm() for maps in (clean.maps, result.attacked.maps))
    found = records[2]["metrics"]["normalised-distance"]
    assert found == pytest.approx(float((a - b).norm()), rel=1e-4)
    assert records[2]["attacked"]["distance"] == pytest.approx(float((result.inputs - x).norm()))


def test_a_run_repeats_from_its_own_configuration(images: Path, tmp_path: Path) -> None:
    evaluate(plan(images, data=DataPlan(source=str(images), images=4)), tmp_path / "one")
    config = tomllib.loads((tmp_path / "one" / "config.toml").read_text(encoding="utf-8"))
    assert config["methods"]["smoothgrad"]["sigma"] > 0
    assert config["attacks"]["noise"] == NOISE | {
        "norm": "l2", "units": "input", "seed": 0, "sigma_mode": "relative", "preserve_class": True,
    }  # fmt: skip
    again = ["evaluate", "--config", str(tmp_path / "one" / "config.toml"), "--trust", "-q"]
    assert run([*again, "--out", str(tmp_path / "two")]) == 1  # one image is left out
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_more_samples_contain_the_fewer(images: Path) -> None:
    data = open_dataset(images)
    for seed in range(5):
        found = [{one.index for one in choose_images(data, n, seed=seed)} for n in range(1, 8)]
        assert [len(chosen) for chosen in found] == list(range(1, 8))
        assert all(a < b for a, b in pairwise(found))
    assert choose_images(data, 3, seed=0) != choose_images(data, 3, seed=1)
    assert len(choose_images(data)) == len(choose_images(data, 100)) == 7


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_each_unit_is_that_of_one_process(size: int) -> None:
    units = list(range(7))
    shares = [Processes(rank=rank, size=size).share(units) for rank in range(size)]
    assert [unit for share in shares for unit in share] == units
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_another_configuration_is_refused_and_distinguished(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    evaluate(plan(images), out)
    before = tree(out)
    other = plan(images, methods={"smoothgrad": {"samples": 5}})
    with pytest.raises(ValueError, match=r"methods.simple-gradient is set there, not set here; "
                       r"methods.smoothgrad.samples is 4 there, 5 here"):  # fmt: skip
        evaluate(other, out)
    with pytest.raises(ValueError, match=r"model.digest is \w+ there, \w+ here"):
        evaluate(plan(images, model=ModelPlan(name="tiny_models:normalised")), out)
    assert tree(out) == before
    evaluate(other, out, overwrite=True)
    assert not (out / "methods" / "simple-gradient").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="holds other files"):
        evaluate(other, tmp_path / "full")


def test_paths_of_a_configuration(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '[methods.simple-gradient]\n[model]\nname = "tiny_models:smooth"\n'
    (tmp_path / "a.toml").write_text(f'{text}[data]\nsource = "in"\n')
    assert len(prepare(read_plan(EvaluatePlan, tmp_path / "a.toml", trust=True)).inputs.chosen) == 7
    (tmp_path / "b.toml").write_text(f'{text}[data]\nsource = "$PICTURES/dot"\n')
    with pytest.raises(ValueError, match="variable PICTURES is not set"):
        read_plan(EvaluatePlan, tmp_path / "b.toml")
    monkeypatch.setenv("PICTURES", str(images))
    assert len(prepare(read_plan(EvaluatePlan, tmp_path / "b.toml", trust=True)).inputs.chosen) == 4
    (tmp_path / "c.toml").write_text(f"blocks = 3\n{text}")
    with pytest.raises(ValueError, match=r"c.toml: blocks: there is no such setting; did you mean"):
        read_plan(EvaluatePlan, tmp_path / "c.toml")


def test_differences_name_what_is_missing() -> None:
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}, "d": "x"}) == [
        "a.c is 2 there, not set here",
        "d is not set there, x here",
    ]


def test_a_path_is_no_setting_where_a_digest_is_kept() -> None:
    named = {"a.path": "digest"}
    first: dict[str, Any] = {"a": {"path": "x"}, "digest": "1"}
    second: dict[str, Any] = {"a": {"path": "y"}, "digest": "1"}
    assert differences(first, second) == ["a.path is x there, y here"]
    assert differences(first, second, named) == []
    assert differences(first, second | {"digest": "2"}, named) == ["digest is 1 there, 2 here"]
    older = {"a": {"path": "x"}}
    assert differences(older, first, named) == []
    assert differences(older, second, named) == ["a.path is x there, y here"]


def test_too_many_unreadable_images_fail(images: Path, tmp_path: Path) -> None:
    for number in range(2):
        (images / "dot" / f"{number}.png").write_bytes(b"no image either")
    with pytest.raises(ValueError, match="3 of 7 images cannot be read"):
        evaluate(plan(images, methods={"relex": {}}), tmp_path / "run")
    assert not (tmp_path / "run" / "methods").exists()
    allowed = plan(
        images,
        data=DataPlan(source=str(images), max_unreadable=0.5),
        methods={"simple-gradient": {}},
    )
    assert len(evaluate(allowed, tmp_path / "more").failures) == 3
    for file in images.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="and 6 more"):
        prepare(allowed)


def test_what_does_not_suit_is_recorded(images: Path, tmp_path: Path) -> None:
    methods = {"simple-gradient": {}, "grad-cam": {}}
    flat = plan(images, methods=methods, model=ModelPlan(name="tiny_models:flat"))
    evaluate(flat, tmp_path / "run")
    records = lines(tmp_path / "run" / "methods" / "grad-cam" / "00000.jsonl")
    assert len(records) == 4
    assert all("convolution" in record["problem"] for record in records)
    records = lines(tmp_path / "run" / "methods" / "simple-gradient" / "00000.jsonl")
    assert all("metrics" in record for record in records)


def test_a_metric_without_a_value_is_null(images: Path, tmp_path: Path) -> None:
    """Every entry of the map is zero where eta is large."""
    methods = {"sparse-moreaugrad-plain": {"eta": 1e6, "sparsity": 0.0}}
    evaluate(
        plan(images, methods=methods, data=DataPlan(source=str(images), images=2)), tmp_path / "run"
    )
    folder = tmp_path / "run" / "methods" / "sparse-moreaugrad-plain"
    records = lines(folder / "00000.jsonl")
    assert [record["metrics"]["gini"] for record in records] == [None] * len(records)
    assert records[1]["metrics"]["normalised-distance"] is None


def test_failed_maps_in_the_means_are_named(images: Path, tmp_path: Path) -> None:
    """An image of one grey value has no range, and so no noise relative to it. A zero map has no
    Gini index: it is undefined, and in no mean."""
    Image.new("RGB", (24, 20), (90, 90, 90)).save(images / "blank" / "grey.png")
    methods = {"simple-gradient": {}, "smoothgrad": {"samples": 4}}
    outcome = evaluate(plan(images, methods=methods), tmp_path / "run")
    (found,) = (note for note in outcome.notes if "means include" in note)
    assert "smoothgrad: 1 of 7 maps" in found
    assert "noise is zero" in found
    assert run(["report", str(tmp_path / "run"), "--out", str(tmp_path / "page")]) == 0
    assert found in html.unescape((tmp_path / "page" / "index.html").read_text(encoding="utf-8"))
    methods = {"none": {"method": "sparse-moreaugrad", "eta": 1e6, "sparsity": 0.0,
                        "sigma": 0.1}}  # fmt: skip
    undefined = plan(images, methods=methods, metrics={"gini": {}}, attacks={})
    assert not any("means include" in n for n in evaluate(undefined, tmp_path / "no").notes)


FEW = {"metric": "top-k", "ratio": 0.04, "nonzero": False}


def test_matched_attacks_are_aimed_at_each_metric(images: Path, tmp_path: Path) -> None:
    found = plan(
        images, metrics={"gini": {}, "few": FEW, "ssim": {}}, epsilons=(0.5,),
        methods={"simple-gradient": {}},
        attacks={"matched": {"steps": 2}, "random": {"attack": "random-search", "metric": "few",
                                                     "steps": 2}},
    )  # fmt: skip
    prepared = prepare(found)
    aims = {
        label: (own["attack"], own["metric"], own.get("measure", {}))
        for label, own in prepared.plan.attacks.items()
    }
    few = {"ratio": 0.04, "nonzero": False}
    assert aims == {
        "matched-few": ("matched", "top-k", few),
        "matched-ssim": ("matched", "ssim", {}),
        "random": ("random-search", "top-k", few),
    }
    assert prepared.notes == []
    outcome = execute(prepared, tmp_path / "run")
    records = [row for path in (outcome.folder / "methods").rglob("*.jsonl") for row in lines(path)]
    rows = [row for row in records if row["attack"] == "matched-few"]
    assert len(rows) == 6
    for row in rows:
        assert row["attacked"]["after"] == pytest.approx(row["metrics"]["few"], abs=2e-6)
    # The configuration of the run is the same run again.
    again = read_plan(EvaluatePlan, tmp_path / "run" / "config.toml", trust=True)
    assert prepare(again).plan.attacks == prepared.plan.attacks


def test_steps_of_a_method_by_name_have_the_noise_of_the_attacked_one(images: Path) -> None:
    methods = {
        "simple-gradient": {}, "sparse-moreaugrad": {"sigma": 0.3}, "published-moreaugrad": {},
        "own": {"method": "smoothgrad", "sigma": 0.2},
    }  # fmt: skip
    attacks = {"named": {"attack": "top-k", "source": "smoothgrad"},
               "labelled": {"attack": "top-k", "source": "own"}}  # fmt: skip
    found = prepare(plan(images, methods=methods, attacks=attacks, epsilons=(0.5,))).setup.attacks
    levels = {
        (method, one.label): one.attack.source.sigma for method, own in found.items() for one in own
    }
    assert levels == {
        ("simple-gradient", "named"): METHODS["smoothgrad"].defaults()["sigma"],
        ("sparse-moreaugrad", "named"): 0.3, ("own", "named"): 0.2,
        ("published-moreaugrad", "named"): METHODS["published-moreaugrad"].defaults()["sigma"],
        **{(method, "labelled"): 0.2 for method in methods},
    }  # fmt: skip


def test_what_no_attack_is_aimed_at_is_named(images: Path) -> None:
    more = {"metrics": {"few": FEW, "top-k": {}, "ssim": {}}, "epsilons": (0.5,)}
    (note,) = prepare(plan(images, attacks={"exact": {"attack": "top-k"}}, **more)).notes
    assert re.search(r"aimed at few, ssim:.*exact.*matched", note)
    assert prepare(plan(images, attacks={"noise": NOISE}, **more)).notes == []
    assert prepare(plan(images, attacks={}, **more | {"epsilons": ()})).notes == []


def test_a_matched_attack_needs_a_metric(images: Path) -> None:
    attacks = {"matched": {"epsilons": [0.5]}}
    with pytest.raises(ValueError, match=r"metrics: expected some that matched can.*got gini"):
        prepare(plan(images, metrics={"gini": {}}, attacks=attacks))


def test_no_attack_is_lost_to_one_of_its_label(images: Path) -> None:
    attacks = {"matched": {}, "matched-ssim": {"attack": "gaussian"}}
    more = {"metrics": {"top-k": {}, "ssim": {}}, "epsilons": (0.5,)}
    for given in (attacks, dict(reversed(attacks.items()))):
        with pytest.raises(ValueError, match=r"attack: .*labels.*matched-ssim.*LABEL=NAME"):
            prepare(plan(images, attacks=given, **more))


def test_what_an_attack_is_aimed_at_is_a_name(images: Path) -> None:
    attacks = {"matched": {"metric": ["top-k"]}}
    with pytest.raises(ValueError, match=r"metric.*\['top-k'\]"):
        prepare(plan(images, attacks=attacks, epsilons=(0.5,)))


def test_labels_and_labelled_parts(images: Path, tmp_path: Path) -> None:
    methods = {"logit": {"method": "simple-gradient"},
               "probability": {"method": "simple-gradient", "score": "probability"}}  # fmt: skip
    by_label = plan(images, target="label", methods=methods, maps=1)
    evaluate(by_label, tmp_path / "run")
    records = lines(tmp_path / "run" / "methods" / "probability" / "00001.jsonl")
    assert records[0]["target"] == {"class": 1, "label": "dot"}
    kept = load_file(tmp_path / "run" / "methods" / "logit" / "00000.safetensors")
    assert {name.split("/")[0] for name in kept} == {"0"}
    assert not (tmp_path / "run" / "methods" / "logit" / "00001.safetensors").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"methods": {}}, "methods: expected names"),
        ({"attacks": {"gausian": {}}}, "did you mean 'gaussian'"),
        ({"attacks": {"top-k": {}}}, "epsilons: expected numbers >= 0 for the attack top-k"),
        ({"attacks": {}, "epsilons": (0.5,)}, "epsilons: expected an attack"),
        ({"attacks": {"clean": NOISE}}, "another label"),
        ({"attacks": {"noise": NOISE | {"sigme": 1}}}, "no setting 'sigme'"),
        ({"metrics": {"ginni": {}}}, "did you mean 'gini'"),
        ({"metrics": {"auroc": {}}}, "needs ground truth"),
        ({"metrics": {"gini": {"reduction": "mean"}}}, "gini: reduction: expected one of"),
        ({"metrics": {"few": {"metric": "top-k", "ratio": 2}}}, "few: ratio: expected"),
        ({"metrics": {"aopc": {"steps": 0}}}, "aopc: steps: expected at least 1"),
        ({"metrics": {"soft-stability": {"top": 0.0}}}, "soft-stability: top: expected"),
        (
            {"metrics": {"aopc": {}}, "methods": {"simple-gradient": {"layer": "2"}}},
            "aopc: maps: expected one for each input of shape",
        ),
        ({"methods": {"a/b": {"method": "relex"}}}, "expected a label"),
        ({"data": {"images": 0}}, "images: expected at least 1"),
        ({"data": {"layout": "imagenet"}}, "in the layout of imagenet"),
        ({"data": {"source": "nowhere"}}, "there is no such folder"),
        ({"data": {"indices": (9,)}}, "indices: expected numbers from 0 to 6"),
    ],
)
def test_bad_plans_are_refused(images: Path, more: dict[str, Any], message: str) -> None:
    more = dict(more)
    data = {"source": str(images), **more.pop("data", {})}

    def refused() -> None:
        prepare(plan(images, data=DataPlan(**data), **more))

    with pytest.raises(ValueError, match=message):
        refused()


def test_a_dry_run_counts_and_writes_nothing(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = prepare(plan(images, metrics={"gini": {}, "aopc": {}}))
    found = {cost.key: cost for cost in prepared.estimate().costs}
    assert any("aopc" in note and "gini" not in note for note in prepared.notes)
    assert list(found)[3:] == ["smoothgrad", "smoothgrad, noise 0.02", "smoothgrad, noise 0.1"]
    assert found["smoothgrad"].evaluations == 4
    assert found["smoothgrad, noise 0.1"].evaluations == 4 + 100
    assert found["smoothgrad"].maps == 7
    few = "gaussian:over=sigma,epsilons=[0.1,0.2],preserve_class=false"
    command = ["evaluate", "--data", str(images), "--model", "tiny_models:smooth",
               "--methods", "simple-gradient", "--metrics", "gini,zeros",
               "--attack", f"few={few}"]  # fmt: skip
    out = tmp_path / "run"
    assert run([*command, "--out", str(out), "--dry-run", "--json"]) == 0
    estimate = json.loads(capsys.readouterr().out)
    assert [cost["key"] for cost in estimate["costs"]] == [
        "simple-gradient", "simple-gradient, few 0.1", "simple-gradient, few 0.2",
    ]  # fmt: skip
    assert estimate["evaluations"] == 7 * (1 + 1 + 1)
    assert not out.exists()
    assert run([*command, "--out", str(out), "-q"]) == 1  # one of the images cannot be read
    tensors = [t for file in out.rglob("*.safetensors") for t in load_file(file).values()]
    assert estimate["kept"] == sum(t.nbytes for t in tensors) * 7 / 6


def test_maps_of_many_images_are_kept_where_it_is_asked_for(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "KEPT", 7)
    assert prepare(plan(images)).plan.maps is None
    monkeypatch.setattr(setup, "KEPT", 6)
    with pytest.warns(UserWarning, match="up to 6 images, and of 7 where --maps"):
        many = prepare(plan(images))
    assert many.plan.maps == 0
    assert many.estimate().kept == 0
    assert prepare(plan(images, maps=7)).plan.maps == 7


def test_settings_by_the_command_line(images: Path, tmp_path: Path) -> None:
    command = ["evaluate", "--data", str(images), "--model", "tiny_models:smooth", "-q",
               "--methods", "smoothgrad,simple-gradient", "--metrics", "gini",
               "--attack", "gaussian", "--attack", "b=gaussian:sigma=0.2", "--epsilons", "1,0.5",
               "--set", "smoothgrad.samples=3", "--set", "gaussian.preserve_class=false",
               "--units", "pixel", "--seed", "7", "--images", "2"]  # fmt: skip
    assert run([*command, "--out", str(tmp_path / "run")]) == 0
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text(encoding="utf-8"))
    assert config["methods"]["smoothgrad"]["samples"] == 3
    assert config["methods"]["smoothgrad"]["seed"] == config["seed"] == 7
    assert config["attacks"]["gaussian"]["preserve_class"] is False
    assert (
        config["attacks"]["b"] | {"sigma": 0.2, "units": "pixel", "seed": 7}
        == (config["attacks"]["b"])
    )
    assert run([*command, "--set", "b.sigme=1", "--out", str(tmp_path / "no")]) == 2
    assert run([*command, "--attack", "top-k:steps", "--out", str(tmp_path / "no")]) == 2
    assert not (tmp_path / "no").exists()


def test_what_an_attack_will_take_is_learnt_from_the_method_before(images: Path) -> None:
    seen: list[tuple[str, float, float]] = []

    class Watch(Observer):
        def pace(self, done: float, total: float, doing: str) -> None:
            seen.append((doing, done, total))

    loose = {"method": "sparse-moreaugrad", "max_evaluations": 2000, "tolerance": 0.5}
    found = plan(
        images, methods={"a": loose, "b": {**loose, "rho": 0.02}}, block=10,
        attacks={"m": {"attack": "matched", "metric": "normalised-distance", "steps": 2}},
        epsilons=(0.5,),
    )  # fmt: skip
    execute(MapsRun(found, watch=Watch(), command="evaluate"), images.parent / "out")
    spent = seen[-1][1]
    assert seen[0][2] > 3 * spent
    before = [total for doing, _, total in seen if doing.startswith("a, ")]
    assert 0.5 * spent < before[-1] < 2 * spent


def test_attacks_that_share_budgets_measure_them_alike(images: Path) -> None:
    l2, linf = {"attack": "top-k", "steps": 1}, {"attack": "top-k", "steps": 1, "norm": "linf"}

    def attacked(**more: Any) -> list[str]:
        found = prepare(plan(images, epsilons=(0.5,), **more)).setup.attacks["simple-gradient"]
        return [str(one.attack.settings().get("norm")) for one in found if one.attack is not None]

    with pytest.raises(ValueError, match=r"l2 in input units \(a\), linf in input units \(b\)"):
        attacked(attacks={"a": l2, "b": linf})
    with pytest.raises(ValueError, match="epsilons="):
        attacked(attacks={"a": l2, "b": {**l2, "units": "pixel"}})
    with pytest.raises(ValueError, match="l2"):
        attacked(attacks={"a": {**l2, "norm": "l2"}, "b": l2}, norm="linf")
    assert attacked(attacks={"a": l2, "b": {**linf, "epsilons": [0.1]}}) == ["l2", "linf"]
    assert attacked(attacks={"a": l2, "b": linf}, norm="linf") == ["linf", "linf"]
    assert attacked(attacks={"a": l2, "noise": {**NOISE, "norm": "linf"}})[0] == "l2"


def test_faithfulness_to_a_regression_is_of_its_output(images: Path, tmp_path: Path) -> None:
    aopc = {"aopc": {"size": 8, "steps": 3, "draws": 1}}
    regression = {"simple-gradient": {"task": "regression"}, "smoothgrad": {"samples": 4}}
    found = plan(images, methods=regression, metrics=aopc, attacks={}, target=1)
    for more, score in (({"settings": {"task": "regression"}}, "logit"), ({}, "probability")):
        prepared = prepare(replace(found, **more))
        assert prepared.plan.metrics["aopc"]["score"] == score  # one for all methods
    evaluate(replace(found, settings={"task": "regression"}), tmp_path / "run")
    records = lines(tmp_path / "run" / "methods" / "simple-gradient" / "00000.jsonl")
    assert all(isinstance(record["metrics"]["aopc"], float) for record in records)
    asked = replace(found, metrics={"aopc": {**aopc["aopc"], "score": "probability"}})
    assert prepare(asked).plan.metrics["aopc"]["score"] == "probability"
