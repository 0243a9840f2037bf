"""The command `recommend`: what it measures within which time, and what it writes."""

import json
import math
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import moreaugrad as mg
import tiny_models
from moreaugrad.cli.entry import run
from moreaugrad.metrics import METRICS
from moreaugrad.reports.comparisons import interval_of_mean, may_be_best
from moreaugrad.reports.reading import MapsFolder
from moreaugrad.runs.maps.block import evaluations, title
from moreaugrad.runs.maps.run import MapsRun
from moreaugrad.runs.plans.common import ModelPlan
from moreaugrad.runs.plans.option import with_options
from moreaugrad.runs.plans.recommend import RecommendDataPlan, RecommendPlan
from moreaugrad.runs.plans.toml import from_table, to_table
from moreaugrad.runs.recommend import RecommendRun, fit
from moreaugrad.runs.recommend.fit import WITHIN, Size, Timing, costs, fitting, left_out, sizes

METHODS = "simple-gradient,smoothgrad,sparse-gradient"
LEAST_IMAGES = 6
"""At a confidence of 95 %."""
SHORT = ["--threads", "1", "--noise-samples", "4", "--attack-steps", "2", "--sigmas", "0.2", "-q"]


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recommend") / "photos"
    folder.mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def words(photos, out, *more, methods=METHODS, model="tiny_models:smooth"):
    return ["recommend", "--data", str(photos), "--model", model, *SHORT, "--methods", methods,
            "--time", "1h", "--out", str(out), *more]  # fmt: skip


@pytest.fixture(scope="session")
def finished(photos):
    out = photos.parent / "finished"
    assert run(words(photos, out)) == 0
    return out


@pytest.fixture(scope="session")
def record(finished):
    return json.loads((finished / "recommendation.json").read_text("utf-8"))


def plan(**given):
    usual = {"model": ModelPlan(name="builtin"), "data": RecommendDataPlan(source="cells")}
    return RecommendPlan(**(usual | given))


# Candidates


def test_candidates_are_methods_at_noise_levels_and_sparsities():
    methods = {name: {} for name in ("simple-gradient", "smoothgrad", "sparse-moreaugrad")}
    found = plan(methods=methods, sigmas=(0.2, 0.1), sparsities=(0.9, 0.95)).candidates()
    assert list(found) == [
        "simple-gradient", "smoothgrad-0.2", "sparse-moreaugrad-0.2-90zeros", "smoothgrad-0.1",
        "sparse-moreaugrad-0.1-90zeros", "sparse-moreaugrad-0.2-95zeros",
        "sparse-moreaugrad-0.1-95zeros",
    ]  # fmt: skip
    assert found["smoothgrad-0.1"] == {"method": "smoothgrad", "samples": 32, "sigma": 0.1}
    assert found["simple-gradient"] == {"method": "simple-gradient"}
    sparse = found["sparse-moreaugrad-0.1-95zeros"]
    assert (sparse["sigma"], sparse["sparsity"], sparse["tolerance"]) == (0.1, 0.95, "preview")


def test_settings_that_are_given_are_kept():
    given = {"--methods": ["smoothgrad"], "--sigma": "0.4", "--set": ["smoothgrad.samples=8"]}
    found = with_options(plan(), given)
    assert found.candidates() == {"smoothgrad": {"method": "smoothgrad", "samples": 8}}
    assert found.settings == {"sigma": 0.4}


def test_methods_without_noise_stay_without():
    methods = {"sparse-moreaugrad-plain": {}, "sparse-moreaugrad": {"sigma": 0}}
    found = plan(methods=methods).candidates()
    assert [one.get("sigma") for one in found.values()] == [None, 0]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5m", 90), ("2h", 7200), ("45 s", 45)]
)
def test_times_are_read(text, seconds):
    found = with_options(plan(), {"--time": text})
    assert found.time == seconds
    assert from_table(RecommendPlan, to_table(found)) == found


def test_eight_images_are_usual():
    assert with_options(RecommendPlan(), {"--data": "cells"}).data.images == 8


# What fits into the time


def test_sizes_shrink_in_the_documented_order():
    asked = plan(methods={n: {} for n in METHODS.split(",")} | {"integrated-gradients": {}},
                 sigmas=(0.2, 0.1), steps=4)  # fmt: skip
    found = list(sizes(asked, LEAST_IMAGES + 1))
    every = tuple(asked.candidates())
    assert found == [
        Size(images=LEAST_IMAGES + 1, steps=4, labels=every),
        Size(images=LEAST_IMAGES + 1, steps=4, labels=every[:4]),
        Size(images=LEAST_IMAGES, steps=4, labels=every[:4]),
        Size(images=LEAST_IMAGES, steps=3, labels=every[:4]),
        Size(images=LEAST_IMAGES, steps=2, labels=every[:4]),
        Size(images=LEAST_IMAGES, steps=2, labels=every[:4], exact=False),
        Size(images=LEAST_IMAGES, steps=2, labels=every[:3], exact=False),
    ]
    assert left_out(asked, LEAST_IMAGES + 1, found[0]) == []
    assert len(left_out(asked, LEAST_IMAGES + 1, found[-1])) == 4


def test_fewer_images_than_intervals_need_are_all_kept():
    assert {size.images for size in sizes(plan(), 4)} == {4}


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.9, 0.95, 0.975, 0.99, 0.995])
def test_no_want_of_time_leaves_fewer_images_than_the_confidence_needs(confidence):
    least = min(size.images for size in sizes(plan(confidence=confidence), 40))
    apart = np.stack([np.ones(least), np.zeros(least)], axis=1)
    assert may_be_best(apart)[1] <= 1 - confidence
    assert not math.isnan(interval_of_mean(np.arange(least), confidence)[0])
    assert math.isnan(interval_of_mean(np.arange(min(9, least - 1)), confidence)[0])


TIMING = Timing(each=0.01, attacking=0.03)


@pytest.fixture(scope="module")
def cells():
    return RecommendRun(
        plan(methods={"simple-gradient": {}, "smoothgrad": {}, "sparse-moreaugrad": {}})
    )


@pytest.mark.parametrize("fraction", [2, 0.9, 0.5, 0.3])
def test_what_is_measured_fits_or_is_the_least(cells, fraction):
    whole = next(sizes(cells.plan, 8))
    total = sum(cost.seconds for cost in costs(cells.plan, cells.setup, whole, TIMING))
    asked = from_table(RecommendPlan, to_table(cells.plan) | {"time": fraction * total})
    size, found = fitting(asked, cells.setup, TIMING)
    assert sum(cost.seconds for cost in found) <= WITHIN * fraction * total
    before = list(sizes(asked, 8))[: list(sizes(asked, 8)).index(size)]
    for larger in before:
        spent = costs(asked, cells.setup, larger, TIMING)
        assert sum(cost.seconds for cost in spent) > WITHIN * fraction * total
    hurried = from_table(RecommendPlan, to_table(asked) | {"time": 1e-6})
    least = fitting(hurried, cells.setup, TIMING)
    assert least[0] == list(sizes(asked, 8))[-1]


def test_without_their_own_derivatives_maps_are_attacked_by_transfers(cells):
    whole = next(sizes(cells.plan, 8))
    fewer = replace(whole, exact=False)
    for size, names in (
        (whole, {"exact", "transfer", "smoothed"}),
        (fewer, {"transfer", "smoothed"}),
    ):
        assert set(cells._evaluation(cells.plan, size).plan.attacks) == names
    keys = {cost.key for cost in costs(cells.plan, cells.setup, fewer, TIMING)}
    assert not [key for key in keys if "exact" in key]
    assert {cost.key for cost in costs(cells.plan, cells.setup, whole, TIMING)} > keys


def test_attacks_take_as_long_as_one_took(cells, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(fit, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    monkeypatch.setattr(fit, "seconds_per_evaluation", lambda *_: 0.5)
    first = cells.inputs.first(cells.network)
    smooth = cells.setup.methods[1]  # SmoothGrad, the first with noise
    attack = next(a.attack for a in cells.setup.attacks[smooth.label] if a.label == "smoothed")
    spent = replace(attack, steps=1).budget() + evaluations(smooth)
    assert Timing.of(cells.setup, first) == Timing(each=0.5, attacking=1 / spent)


def test_without_an_attack_its_time_is_guessed(cells, monkeypatch):
    monkeypatch.setattr(fit, "seconds_per_evaluation", lambda *_: 0.5)
    without = {label: [replace(a, attack=None) for a in every]
               for label, every in cells.setup.attacks.items()}  # fmt: skip
    found = Timing.of(replace(cells.setup, attacks=without), cells.inputs.first(cells.network))
    assert found == Timing(each=0.5, attacking=0.5 * fit.HARDER)


def test_the_estimate_is_of_what_the_evaluation_may_take(cells):
    """Of methods whose evaluations are known beforehand it is the evaluation's own."""
    whole = next(sizes(cells.plan, 8))
    setup = cells._evaluation(cells.plan, whole).setup
    own = {
        title(method, attack): evaluations(method, attack)
        for method in setup.methods
        for attack in (None, *setup.attacks[method.label])
    }
    for cost in costs(cells.plan, cells.setup, whole, TIMING):
        assert cost.maps == 8
        if "moreaugrad" not in cost.key and "AOPC" not in cost.key:
            assert cost.evaluations == own[cost.key]


def test_a_dry_run_says_what_is_left_out(photos, tmp_path, capsys):
    command = words(photos, tmp_path / "out", "--dry-run", "--json", "--sigmas", ".2,.1")
    command[command.index("1h")] = "0.001s"
    assert run(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["inputs"] == LEAST_IMAGES
    assert "1 of 4 candidates (smoothgrad-0.1)" in " ".join(found["notes"])
    assert not (tmp_path / "out").exists()


# What it finds


def test_numbers_are_those_of_the_evaluation(finished, record):
    found = MapsFolder.read(finished / "evaluation")
    assert found.complete
    for one in record["candidates"]:
        records = [r for r in found.records if r["method"] == one["label"]]
        clean = [r for r in records if r["attack"] == "clean"]
        for criterion, metric in (
            ("sparsity", "zeros"),
            ("gini", "gini"),
            ("faithfulness", "aopc"),
        ):
            mean = np.mean([r["metrics"][metric] for r in clean])
            assert one["values"][criterion]["mean"] == pytest.approx(mean)
        assert one["values"]["cost"]["mean"] == np.mean([r["map"]["evaluations"] for r in clean])
        worst = {}
        for r in records:
            if r["attack"] != "clean" and r["attacked"]["ok"]:
                value = r["metrics"]["top-k"]
                worst[r["index"]] = min(value, worst.get(r["index"], math.inf))
        assert one["values"]["robustness"]["mean"] == pytest.approx(np.mean(list(worst.values())))
        assert one["values"]["robustness"]["count"] == len(worst) == 8
    assert len(record["candidates"]) == 3


def test_attacks_are_matched_and_of_the_stated_size(finished, record):
    config = MapsFolder.read(finished / "evaluation").config
    assert record["epsilon"] == pytest.approx(0.009 * math.sqrt(3 * 16 * 16), rel=5e-3)
    assert config["epsilons"] == [record["epsilon"]]
    for attack in config["attacks"].values():
        assert (attack["attack"], attack["metric"], attack["units"]) == (
            "matched",
            "top-k",
            "pixel",
        )
        assert attack["measure"] == {"ratio": 0.04, "nonzero": False}
    records = MapsFolder.read(finished / "evaluation").records
    lengths = [r["attacked"]["distance"] for r in records if "attacked" in r]
    assert max(lengths) <= record["epsilon"] * 1.001


def test_a_network_with_kinks_is_attacked_by_a_smooth_one(photos, tmp_path):
    out = tmp_path / "out"
    assert run(words(photos, out, "--images", "2", model="tiny_models:kinked")) == 0
    found = MapsFolder.read(out / "evaluation")
    assert all(attack["surrogate"] == 30 for attack in found.config["attacks"].values())
    attacked = [r for r in found.records if "attacked" in r and r["method"] == "simple-gradient"]
    assert all(r["attacked"]["ok"] for r in attacked)


def test_each_purpose_has_a_candidate_that_suits_it(record):
    by_label = {one["label"]: one for one in record["candidates"]}
    found = {one["purpose"]: one for one in record["purposes"]}
    assert set(found) == {"sparse", "robust", "faithful", "quick"}
    assert found["sparse"]["chosen"] == "sparse-gradient"
    assert found["sparse"]["considered"] == ["sparse-gradient"]
    for one in found.values():
        assert one["chosen"] in one["tied"]
        assert one["best"] in one["tied"]
        spent = [by_label[label]["values"]["cost"]["mean"] for label in one["tied"]]
        assert by_label[one["chosen"]]["values"]["cost"]["mean"] == min(spent)


def test_the_page_and_the_table_say_it(finished, record):
    page = (finished / "index.html").read_text("utf-8")
    table = (finished / "table.md").read_text("utf-8")
    for one in record["candidates"]:
        assert one["label"] in page
        assert one["label"] in table
    for one in record["purposes"]:
        assert one["title"] in page
    assert "moreaugrad explain IMAGE --model tiny_models:smooth" in page
    assert "confidence" in page


def test_what_it_says_to_run_runs(record, photos, tmp_path):
    model = tiny_models.smooth().module
    x = torch.zeros(1, 3, 16, 16)
    for one in record["candidates"]:
        found = eval(one["python"], {"mg": mg, "model": model, "x": x})
        assert found.maps.shape == x.shape
        command = one["command"].replace("IMAGE", str(photos / "0.png")).split()
        command[-1] = str(tmp_path / one["label"])
        assert run([*command[1:], "-q"]) == 0
        config = (tmp_path / one["label"] / "config.toml").read_text("utf-8")
        for name, value in one["settings"].items():
            assert re.search(rf'^{name} = "?{re.escape(str(value))}"?$', config, re.MULTILINE)


def test_what_it_says_to_run_has_the_networks_own_options(photos, weights, tmp_path):
    out = tmp_path / "out"
    more = ["--images", "2", "--weights", str(weights[0]), "--crop", "12", "--mean", ".5,.5,.4"]
    assert run(words(photos, out, *more, methods="simple-gradient,smoothgrad")) == 0
    one, _ = json.loads((out / "recommendation.json").read_text("utf-8"))["candidates"]
    assert f"--weights {weights[0]} --crop 12 --mean 0.5,0.5,0.4 --method" in one["command"]


def test_what_it_says_to_run_has_the_seed_and_the_target(photos, tmp_path):
    out = tmp_path / "out"
    more = ["--images", "2", "--seed", "7", "--target", "2"]
    assert run(words(photos, out, *more, methods="simple-gradient,smoothgrad")) == 0
    candidates = json.loads((out / "recommendation.json").read_text("utf-8"))["candidates"]
    assert all("--target 2 --seed 7" in one["command"] for one in candidates)
    assert candidates[0]["python"].endswith("model).explain(x, target=2)")
    model, x = tiny_models.smooth().module, torch.zeros(1, 3, 16, 16)
    found = eval(candidates[1]["python"], {"mg": mg, "model": model, "x": x})
    assert found.settings["seed"] == 7
    assert int(found.target[0]) == 2


def test_in_python_it_gives_what_the_preprocessing_divides_by(photos, tmp_path):
    out = tmp_path / "out"
    more = ["--images", "2", "--std", ".5,.5,.4"]
    assert run(words(photos, out, *more, methods="smooth-cafo")) == 0
    (one,) = json.loads((out / "recommendation.json").read_text("utf-8"))["candidates"]
    assert "--std 0.5,0.5,0.4" in one["command"]
    found = eval(one["python"].removesuffix(".explain(x)"),
                 {"mg": mg, "model": tiny_models.smooth().module})  # fmt: skip
    measured = MapsFolder.read(out / "evaluation").config["methods"][one["label"]]
    assert list(found.std) == measured["std"] == [0.5, 0.5, 0.4]


def test_its_configuration_repeats_it_with_more_images(finished, tmp_path, monkeypatch):
    again = ["recommend", "--config", str(finished / "config.toml"), "--trust", "-q"]
    assert run([*again, "--out", str(tmp_path / "again")]) == 0
    same = [(f / "table.md").read_bytes() for f in (finished, tmp_path / "again")]
    assert same[0] == same[1]
    out = tmp_path / "fewer"
    assert run([*again, "--images", "2", "--out", str(out)]) == 0
    found = json.loads((out / "recommendation.json").read_text("utf-8"))
    assert found["images"] == 2
    assert all(one["values"]["robustness"]["tied"] for one in found["candidates"])
    assert "cannot tell candidates apart" in (out / "index.html").read_text("utf-8")


def test_a_short_time_measures_less_and_says_so(photos, tmp_path):
    command = words(photos, tmp_path / "out", "--sigmas", ".2,.1")
    command[command.index("1h")] = "0.01s"
    assert run(command) == 0
    found = json.loads((tmp_path / "out" / "recommendation.json").read_text("utf-8"))
    assert found["images"] == LEAST_IMAGES
    assert len(found["candidates"]) == 3
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "1 of 4 candidates (smoothgrad-0.1)" in page
    assert f"{8 - LEAST_IMAGES} of 8 images" in page


def test_a_resumed_run_keeps_what_was_chosen(photos, tmp_path, monkeypatch):
    """Whatever the clock says the second time."""
    out = tmp_path / "out"
    command = words(photos, out, "--sigmas", ".2,.1", "--images", "2")
    real = MapsRun.do

    def stopped(self, unit, directory):
        if "smoothgrad-0.1" in unit:
            raise KeyboardInterrupt
        return real(self, unit, directory)

    monkeypatch.setattr(MapsRun, "do", stopped)
    assert run(command) == 130
    monkeypatch.setattr(MapsRun, "do", real)
    monkeypatch.setattr(RecommendRun, "_timing", lambda self: Timing(each=1e6, attacking=1e6))
    assert run(command) == 0
    found = json.loads((out / "recommendation.json").read_text("utf-8"))
    assert len(found["candidates"]) == 4


def test_failures_are_counted_and_named(photos, tmp_path):
    """A method without a derivative has the transfer alone; one that does not suit the network has
    no map."""
    out, methods = tmp_path / "out", "simple-gradient,grad-cam,deeplift"
    command = words(photos, out, "--images", "2", methods=methods, model="tiny_models:flat")
    samples = command.index("--noise-samples")
    assert run(command[:samples] + command[samples + 2 :]) == 1
    found = json.loads((out / "recommendation.json").read_text("utf-8"))
    by_label = {one["label"]: one for one in found["candidates"]}
    for criterion in ("robustness", "faithfulness", "cost"):
        lost = by_label["grad-cam"]["values"][criterion]
        assert (lost["mean"], lost["count"], lost["failed"]) == (None, 0, 2)
        assert "grad-cam" not in [one["chosen"] for one in found["purposes"]]
    assert any("grad-cam" in text for text in found["failures"])
    assert any("deeplift under exact" in text for text in found["failures"])
    page = (out / "index.html").read_text("utf-8")
    assert "2 failed" in page


# Other networks


@pytest.fixture(scope="session")
def weights(photos):
    """Those of the network itself, and others."""
    module = tiny_models.smooth().module
    files = [photos.parent / "same.safetensors", photos.parent / "other.safetensors"]
    save_file(module.state_dict(), files[0])
    generator = torch.Generator().manual_seed(5)
    changed = {
        name: value + 0.3 * torch.randn(value.shape, generator=generator)
        for name, value in module.state_dict().items()
    }
    save_file(changed, files[1])
    return files


def test_stability_is_the_overlap_with_other_networks(photos, weights, tmp_path):
    out, same = tmp_path / "out", tmp_path / "same"
    assert run(words(photos, out, "--images", "3", "--checkpoint", str(weights[1]))) == 0
    found = json.loads((out / "recommendation.json").read_text("utf-8"))
    runs = [MapsFolder.read(out / name) for name in ("evaluation", "networks/0")]
    overlap = METRICS.build("top-k", ratio=0.04, nonzero=False)
    for one in found["candidates"]:
        maps = [
            {r["index"]: r for r in each.records
             if r["method"] == one["label"] and r["attack"] == "clean"}
            for each in runs
        ]  # fmt: skip
        classes = [{i: r["target"]["class"] for i, r in each.items()} for each in maps]
        assert classes[0] == classes[1]
        values = [
            float(overlap(runs[0].map(maps[0][i])[None], runs[1].map(maps[1][i])[None])[0])
            for i in maps[0]
        ]
        assert one["values"]["stability"]["mean"] == pytest.approx(np.mean(values))
        assert np.mean(values) < 0.9
    assert "stable" in [one["purpose"] for one in found["purposes"]]
    # The same file with other weights in it.
    changing = tmp_path / "changing.safetensors"
    for given in weights[::-1]:
        shutil.copy(given, changing)
        assert run(words(photos, same, "--images", "3", "--checkpoint", str(changing))) == 0
    found = json.loads((same / "recommendation.json").read_text("utf-8"))
    assert all(one["values"]["stability"]["mean"] == 1 for one in found["candidates"])


def test_a_network_that_fails_costs_no_more_than_its_own_maps(photos, weights, tmp_path, capsys):
    """The rest of what was computed has its page."""
    broken = tmp_path / "broken.safetensors"
    state = tiny_models.smooth().module.state_dict()
    save_file({name: value * math.nan for name, value in state.items()}, broken)
    out = tmp_path / "out"
    checkpoints = ["--checkpoint", str(broken), "--checkpoint", str(weights[0])]
    methods = "simple-gradient,smoothgrad"
    command = words(photos, out, "--images", "2", *checkpoints, methods=methods)
    for _ in range(2):  # also when it is resumed
        assert run(command) == 1
        err = capsys.readouterr().err
        assert "not measured: checkpoint" in err
        assert "broken.safetensors" in err
        assert "image left out" not in err
        found = json.loads((out / "recommendation.json").read_text("utf-8"))
        assert [text for text in found["failures"] if "broken.safetensors" in text]
        assert found["checkpoints"] == 1
        assert found["candidates"][0]["values"]["stability"]["mean"] == 1
    assert "broken.safetensors" in (out / "index.html").read_text("utf-8")


def test_weights_that_do_not_fit_are_refused(photos, tmp_path, capsys):
    save_file({"x": torch.zeros(2)}, tmp_path / "wrong.safetensors")
    more = ["--checkpoint", str(tmp_path / "wrong.safetensors")]
    assert run(words(photos, tmp_path / "out", *more)) == 2
    assert "wrong.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# Elsewhere


@pytest.mark.parametrize("damage", ["", "{", "{}", "[]", '{"purposes": [1]}', None])
def test_a_damaged_recommendation_is_refused_in_one_line(finished, tmp_path, capsys, damage):
    left = tmp_path / "left"
    left.mkdir()
    (left / "config.toml").write_bytes((finished / "config.toml").read_bytes())
    if damage is not None:
        (left / "recommendation.json").write_text(damage)
    assert run(["report", str(left), "--out", str(tmp_path / "page")]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "recommendation.json" in told
    assert "TRACEBACK" not in told


def test_the_function_is_the_command(photos, finished, record, tmp_path):
    given = {"samples": 4, "steps": 2, "sigmas": (0.2,), "threads": 1}
    found = mg.recommend("tiny_models:smooth", photos, METHODS, time=3600, **given)
    assert (found.folder, found.page, found.failures) == (None, None, [])
    assert found.chosen == {one["purpose"]: one["chosen"] for one in record["purposes"]}
    for row, one in zip(found.rows, record["candidates"], strict=True):
        assert row["label"] == one["label"]
        assert row["robustness"] == one["values"]["robustness"]["mean"]
        assert row["faithfulness.low"] == one["values"]["faithfulness"]["low"]
    explainer = found.build("sparse", tiny_models.smooth().module)
    assert isinstance(explainer, mg.SimpleGradient)
    assert explainer.keep == 0.1
    with pytest.raises(ValueError, match="robust"):
        found.build("nosuch", tiny_models.smooth().module)


def test_a_network_in_memory_is_attacked_in_its_own_units(tmp_path):
    """Inputs beyond [0, 1]: the size of the attack is a fraction of their range."""
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    module, out = tiny_models.smooth().module, tmp_path / "out"
    found = mg.recommend(module, x, ["simple-gradient"], steps=1, rms=0.02, out=out)
    extent = float(x.max() - x.min())
    expected = 0.02 * math.sqrt(3 * 16 * 16) * extent
    assert found.record["epsilon"] == pytest.approx(expected, rel=5e-3)
    records = MapsFolder.read(out / "evaluation").records
    assert max(r["attacked"]["distance"] for r in records if "attacked" in r) <= expected * 1.01
    assert found.record["images"] == 2
    assert found.page == out / "index.html"
    with pytest.raises(ValueError, match="in memory"):
        mg.recommend(module, x, ["simple-gradient"], checkpoints=("w.safetensors",))
