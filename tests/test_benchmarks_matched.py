"""The robustness study's plans and tables, on values that are made up."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks import (
    envelope,
    localisation,
    matched_figure,
    matched_subsets,
    matched_summary,
    results,
)
from benchmarks import matched_plans as plans
from benchmarks.__main__ import PARTS
from benchmarks.cache import Cache
from benchmarks.context import Context
from benchmarks.matched import enough
from benchmarks.matched_plans import NETWORKS, attacks, families, lean, methods
from benchmarks.matched_tables import (
    Measured,
    Values,
    differences,
    equal_error,
    means,
    own_best,
    strongest,
    worst,
)
from benchmarks.results import Result, Table
from benchmarks.study import PROCESSES
from benchmarks.subjects import VARIABLE, MissingData

from moreaugrad import build
from moreaugrad.reports.statistics import WORST
from moreaugrad.runs.maps.aims import aimed, not_aimed_at
from moreaugrad.runs.plans.explain import EvaluatePlan


def of(*worst_of: float, aopc: float = 0.3, attacks: dict[str, Values] | None = None) -> Measured:
    images = range(len(worst_of))
    return Measured(
        attacks=attacks or {}, worst=dict(enumerate(worst_of)), aopc=dict.fromkeys(images, aopc),
        stated={"error": {0: 0.2, 1: 0.3}, "evaluations": {0: 64.0}, "converged": {0: 1.0}},
    )  # fmt: skip


def test_the_strongest_attack_is_counted_and_what_it_adds() -> None:
    found = {
        "a": of(
            0.2, 0.5, 0.1,
            attacks={
                "exact": {0: 0.2, 1: 0.5, 2: 0.4}, "search": {0: 0.6, 1: 0.5, 2: 0.7},
                "transfer": {2: 0.1}, "stein": {},
            },
        )
    }  # fmt: skip
    table = strongest(found)
    assert list(table.header) == ["method", "exact", "search", "transfer", "stein", "images"]
    # exact: alone by .4, tied, beaten; transfer: alone by .3 on the only image that it ran on.
    assert table.rows == [["a", "2 (0.133)", "1 (0.000)", "1 (0.300)", "–", 3]]
    alone = strongest({"a": of(0.2, attacks={"exact": {0: 0.2}})})
    assert alone.rows == [["a", "1", 1]]


def test_a_setting_is_reported_on_images_that_it_was_not_chosen_on() -> None:
    # Images 0, 2, 4, ... and 1, 3, 5, ...: "lucky" wins on the former alone.
    even = [1.0 if i % 2 == 0 else 0.0 for i in range(20)]
    found = {
        "m-0.1": of(*even, aopc=0.5), "m-0.2": of(*[0.6] * 20, aopc=0.2), "other": of(*[0.9] * 20),
    }  # fmt: skip
    table = own_best(found, {"m": ["m-0.1", "m-0.2"], "other": ["other"]}, {"m": "m-0.1"})
    first = table.rows[0]
    # The even half is shown what the odd one chose, m-0.2; the odd half m-0.1, which fails there.
    assert first[:3] == ["m", 2, "m-0.2, m-0.1"]
    assert str(first[3]).startswith("0.300 [")
    assert str(first[4]).startswith("0.350 [")
    assert (first[5], str(first[6])[:5], str(first[7])[:5]) == ("m-0.1", "0.500", "0.500")
    assert table.rows[1][:3] == ["other", 1, "other"]
    assert table.rows[1][5:] == ["–", "–", "–"]


def test_differences_are_of_the_same_images_and_hold_together() -> None:
    a, b = of(*[0.5, 0.3] * 6, 0.9), of(*[0.4, 0.1] * 6, aopc=0.2)
    found = {"kept": {"a": a.worst, "b": b.worst}, "aopc": {"a": a.aopc, "b": b.aopc}}
    table = differences(found, {"more": ("a", "b"), "unknown": ("a", "c")})
    (row,) = table.rows
    # t of .9875 with 11 degrees of freedom is 2.593.
    half = 2.593 * 0.05 * math.sqrt(12 / 11) / math.sqrt(12)
    assert row[:3] == ["more", "a", "b"]
    assert row[3] == f"0.150 [{0.15 - half:.3f}, {0.15 + half:.3f}]"
    assert str(row[4]).startswith("0.100 [")
    assert "97.50 %" in table.caption
    assert list(table.header[3:]) == ["kept", "aopc"]


def test_means_of_several_metrics_leave_out_what_has_no_value() -> None:
    values = {"auroc": {"a": dict.fromkeys(range(12), 0.5) | {12: math.nan}, "b": {}}}
    table = means(values | {"aopc": {"a": {0: 0.25}, "b": {0: 0.75}}})
    assert list(table.header) == ["method", "auroc", "aopc"]
    assert table.rows == [["a", "0.500 [0.500, 0.500]", "0.250"], ["b", "–", "0.750"]]


@pytest.mark.parametrize("name", localisation.SUBJECTS)
def test_localisation_asks_the_same_questions(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    own = localisation.SUBJECTS[name]
    plan = localisation.plan(own.network, own.metrics)
    assert set(own.metrics) == set(plan.metrics)
    asked = {words for words, pair in plans.QUESTIONS.items() if set(pair) <= set(plan.methods)}
    assert {
        "zeros, by the envelope", "zeros, by a threshold", "sigma .2 instead of .1"
    } <= asked  # fmt: skip


def test_questions_are_of_methods_that_are_measured() -> None:
    every = set(methods(NETWORKS["resnet20-softplus"]))
    assert {label for pair in plans.QUESTIONS.values() for label in pair} <= every


def test_too_few_images_choose_nothing() -> None:
    assert own_best({"m": of(0.1, 0.2, 0.3)}, {"m": ["m"]}, {}).rows == []


def test_equal_error_says_what_was_given_and_reached() -> None:
    (line,) = equal_error({"m": of(*[0.5] * 12)}, {"m": "40 samples"}, 0.25).rows
    assert line[:2] == ["m", "40 samples"]
    assert line[2:5] == pytest.approx([0.25, 64.0, 1.0])
    assert line[5] == "0.500 [0.500, 0.500]"


def test_samples_bring_the_error_to_the_wanted_one() -> None:
    own = replace(NETWORKS["resnet20"], evaluations=64, error=0.25)
    assert enough([0.25, 0.25], own) == 64
    assert enough([0.5, 0.5, math.nan], own) == 256
    assert enough([0.3, 0.4], own) == 2 * math.ceil(64 * (0.09 + 0.16) / 2 / 0.0625 / 2)
    assert enough([0.001], own) == 8
    with pytest.raises(ValueError, match="errors: expected"):
        enough([math.nan], own)


def test_the_table_of_the_worst_attack_has_the_faithfulness_too() -> None:
    def row(attack: str, metric: str, mean: str, failed: str = "0") -> dict[str, str]:
        return {
            "method": "m", "attack": attack, "epsilon": "0.5", "metric": metric, "mean": mean,
            "low": "", "high": "", "failed": failed, "mean_with_failed": "",
        }  # fmt: skip

    rows = [
        row("clean", "aopc", "0.4"), row("worst of the attacks", "ssim", "0.7", "1"),
        row("exact", "ssim", "0.9"),
    ]  # fmt: skip
    table = worst(rows, ["top-4-percent", "ssim"])
    assert table.rows == [["m", "–", "0.700", "0.400", "1"]]
    assert "0.5" in table.caption


@pytest.mark.parametrize("name", NETWORKS)
def test_every_plan_is_whole(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(plans, "data_folder", lambda: tmp_path)
    assert f"matched-{name}" in PARTS
    own = NETWORKS[name]
    assert set(matched_summary.METHODS.values()) <= set(methods(own))
    assert own.images >= (50 if own.source.endswith(".zip") else 20)
    for network in (own, lean(own)):
        given = methods(network)
        equal = plans.equal_error_methods(network, dict.fromkeys(network.equal, 32))
        for plan in (
            plans.plan(network, given), plans.plan(network, equal, at_equal_error=True),
            plans.pilot(network),
        ):  # fmt: skip
            assert isinstance(plan, EvaluatePlan)
            assert not plan.block or PROCESSES * plan.block == network.images
            if plan.attacks:
                spelt_out = aimed(plan.attacks, plan.metrics)
                assert list(not_aimed_at(spelt_out, plan.metrics)) == []
    by_method = families(methods(own))
    assert {"simple-gradient", "smoothgrad", "sparse-smoothgrad", "sparse-moreaugrad"} <= set(
        by_method
    )
    assert len(attacks(own)) >= 3


def test_the_summary_has_what_each_network_found(tmp_path: Path) -> None:
    context = Context(out=tmp_path, cache=Cache(tmp_path), quick=False, threads=1)
    with pytest.raises(MissingData, match="no results"):
        matched_summary.run(context)
    row = "n,smoothgrad-0.2,{attack},,{metric},high,{mean},0.1,0.9,4,0,1,0.3,True"
    header = "run,method,attack,epsilon,metric,better,mean,low,high,count,undefined,failed"
    sparse = row.replace("smoothgrad-0.2", "sparse-{sigma}")
    lines = [
        f"{header},mean_with_failed,aimed",
        *(
            sparse.format(sigma=sigma, attack=attack, metric=metric, mean=mean)
            for sigma, zeros, aopc, kept in (
                ("0.1", 0.9, 0.24, 0.2),
                ("0.2", 0.9, 0.23, 0.4),
                ("0.4", 0.9, 0.2, 0.6),
                ("all", 0.5, 0.25, 0.7),
            )
            for attack, metric, mean in (
                ("clean", "zeros", zeros),
                ("clean", "aopc", aopc),
                (WORST, "top-4-percent", kept),
            )
        ),
        row.format(attack=WORST, metric="top-4-percent", mean=0.5),
        row.format(attack="clean", metric="aopc", mean=0.25),
        row.format(attack="clean", metric="insertion", mean=0.75),
    ]
    pair = ["sparse-moreaugrad-0.2", "smoothgrad-0.2"]
    found = Result(
        title="n", settings={}, figures={"summary.csv": "\n".join(lines)},
        tables=[
            Table(caption="Maps.", header=["a"] * 4, rows=[["zeros, by the envelope", *pair, "9"]]),
            Table(caption="Differences on", header=["a"] * 5, rows=[["as", *pair, "-0.1", "0.2"]]),
            Table(
                caption="Equal error:", header=["a"] * 7,
                rows=[["smoothgrad", "8 samples", 0.3, 8.0, 1.0, "0.6", "0.25"]],
            ),
        ],
    )  # fmt: skip
    results.write(found, "matched-vit-gelu", tmp_path, {})
    more = ["rho .01", *matched_subsets.OF_SETTINGS["rho .01 instead of 1"], "-0.3", "0.4"]
    settings = replace(
        found, tables=[Table(caption="Differences on", header=["a"] * 5, rows=[more])]
    )
    results.write(settings, "settings-squeezenet", tmp_path, {})
    overlap, ssim, aopc, insertion, equal, three, *differences = matched_summary.run(context).tables
    assert not ssim.rows
    assert equal.rows == [["vit-gelu", "smoothgrad", 0.3, 8.0, "0.6", "0.25"]]
    # The third is robust and not faithful enough, the fourth has too few zeros.
    assert [line[1:3] for line in three.rows] == [
        ["most robust", "sparse-0.2"], ["most faithful", "sparse-0.1"]
    ]  # fmt: skip
    assert overlap.rows == [["vit-gelu", "–", "0.500 [0.100, 0.900] (0.300)", *"–––"]]
    assert [table.rows[0][2][:5] for table in (aopc, insertion)] == ["0.250", "0.750"]
    assert [table.rows[0][1] for table in differences] == ["-0.1", "0.2", "-0.3", "0.4"]
    assert differences[0].rows[0][0] == "zeros, by the envelope"
    assert differences[2].header[1:] == ["squeezenet"]
    assert differences[2].rows[0][0] == "rho .01 instead of 1"


def subset(kind: str, network: str) -> EvaluatePlan:
    return matched_subsets.SUBSETS[kind].plan(NETWORKS[network])


@pytest.mark.parametrize("name", [one for one in PARTS if one.startswith("settings-")])
def test_settings_differ_in_one_from_the_usual_one(name: str) -> None:
    network = name.removeprefix("settings-")
    given = subset("settings", network)
    photos = NETWORKS[network].source == "imagenet-sample"
    assert set(given.methods) == {
        each for pair in matched_subsets.OF_SETTINGS.values() for each in pair
        if not (photos and each.endswith("auto"))
    }  # fmt: skip
    usual = given.methods[matched_subsets.BASE]
    for label, each in given.methods.items():
        assert len(set(each.items()) ^ set(usual.items())) <= 2, label
    assert list(given.attacks) == [matched_subsets.SMOOTHED]
    assert list(not_aimed_at(aimed(given.attacks, given.metrics), given.metrics)) == []


@pytest.mark.parametrize("network", NETWORKS)
def test_at_equal_noise_the_same_steps_attack_all_methods(network: str) -> None:
    given = subset("equal-noise", network)
    compared = {each for pair in matched_subsets.OF_NOISE.values() for each in pair}
    assert set(given.methods) == compared | {"simple-gradient"}
    assert {given.methods[each]["sigma"] for each in compared} == {matched_subsets.DEFAULT}
    assert [each["source"] for each in given.attacks.values()] == ["smoothgrad"]
    assert given.data.images == 2 * NETWORKS[network].images == PROCESSES * given.block


def test_the_released_algorithm_has_attacks_that_it_can_face() -> None:
    given = subset("released", "resnet20-softplus")
    assert len(given.attacks) == 2
    assert all("source" in each for each in given.attacks.values())
    built = {
        label: build(settings.pop("method", label), torch.nn.Identity(), **settings)
        for label, settings in {k: dict(v) for k, v in given.methods.items()}.items()
    }
    released = [one for label, one in built.items() if label.startswith("released")]
    assert {one.map_budget() for one in (*released, built["smoothgrad-9600"])} == {9600}


def test_the_figure_has_a_point_for_each_sigma_and_both_intervals() -> None:
    def row(method: str, attack: str, metric: str, mean: float) -> dict[str, str]:
        ends = {"mean": mean, "low": mean - 0.1, "high": mean + 0.2}
        return {"method": method, "attack": attack, "metric": metric} | {
            end: str(value) for end, value in ends.items()
        }

    rows = [
        row(f"smoothgrad-{sigma}", attack, metric, mean)
        for sigma, aopc, kept in (("0.4", 0.3, 0.8), ("0.1", 0.5, 0.4))
        for attack, metric, mean in (("clean", "aopc", aopc), (WORST, "top-4-percent", kept))
    ]
    (panel,) = matched_figure.drawn({"n": rows}).axes
    assert panel.get_title() == "n"
    (line,) = panel.containers
    points, _, (across, up) = line
    assert points.get_xydata().tolist() == [[0.5, 0.4], [0.3, 0.8]]
    assert [text.get_text() for text in panel.texts] == [".1", ".4"]
    assert across.get_segments()[0][:, 0] == pytest.approx([0.4, 0.7])
    assert up.get_segments()[0][:, 1] == pytest.approx([0.3, 0.6])


def test_baselines_are_attacked_as_the_maps_of_the_study_are() -> None:
    own = NETWORKS["resnet20-softplus"]
    asked = subset("baselines", "resnet20-softplus")
    whole = plans.plan(own, methods(own))
    assert asked.attacks.items() <= whole.attacks.items()
    assert len(asked.attacks) == len(attacks(own)) - 2  # those on SSIM
    assert not set(asked.methods) & set(whole.methods)


def test_the_reach_of_the_envelope_is_compared_image_by_image() -> None:
    plan = replace(envelope.Plan(), fractions=(0.001, 0.9))
    images = torch.arange(10, dtype=torch.float64)[:, None, None]
    first = images.expand(10, 2, 1) / 20
    found = {
        "kept": torch.cat([first, first - 0.25], 2), "aopc": torch.cat([first, 2 * first], 2),
        "converged": torch.tensor([1.0, 0.5]).expand(10, 2, 2),
    }  # fmt: skip
    means, gains = envelope._tables("n", plan, found)
    assert [line[:2] for line in means.rows[:2]] == [["logit", "0.001"], ["logit", "0.9"]]
    assert [line[-1] for line in means.rows] == [1.0, 0.5, 1.0, 0.5]
    # The same on every image, and as much as the first value, which has a wide interval.
    assert gains.rows[0][2:] == ["-0.250 [-0.250, -0.250]", means.rows[0][3]]
