"""Plans: one dataclass is the Python plan, the TOML file and the command line."""

import contextlib
import io
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from moreaugrad.cli.app import make_app
from moreaugrad.cli.commands import EVERY
from moreaugrad.cli.entry import run
from moreaugrad.runs.plans.bench import BenchPlan
from moreaugrad.runs.plans.common import ComputePlan, DataPlan, ModelPlan, PreprocessPlan
from moreaugrad.runs.plans.explain import EvaluatePlan, ExplainPlan, SweepPlan
from moreaugrad.runs.plans.option import Plan, with_options
from moreaugrad.runs.plans.recommend import RecommendPlan
from moreaugrad.runs.plans.retrain import DiffRoarPlan, LabelsPlan, StabilityPlan
from moreaugrad.runs.plans.studies import CertifyPlan, SanityPlan
from moreaugrad.runs.plans.toml import digests, plan_toml, read_plan
from moreaugrad.runs.plans.train import OptimiserPlan, TrainPlan


@pytest.mark.parametrize("name", EVERY)
def test_no_option_has_two_meanings_in_a_command(name: str) -> None:
    every = EVERY[name].options()
    names = Counter(word for option in every for word in (*option.names, option.negative))
    del names[""]
    assert max(names.values()) == 1, [word for word, count in names.items() if count > 1]


@pytest.mark.parametrize("name", EVERY)
def test_help_is_whole_phrases_at_80_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command = EVERY[name]
    for option in command.options():
        assert option.help[0].isupper() or option.help.split()[0].strip(",.:") in option.help
        assert option.help.endswith((".", ")")), option
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        called, bound, _ = make_app(name).parse_args([*name.split(), "--help"])
        called(*bound.args, **bound.kwargs)
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for option in command.options():
        assert option.name in text.getvalue()
    answered = io.StringIO()
    with contextlib.redirect_stdout(answered):
        assert run([*name.split(), "-h"]) == 0
    assert answered.getvalue() == text.getvalue()


def test_options_reach_the_fields_whatever_their_order() -> None:
    given = {
        "--attack": ["top-k"], "--epsilons": ["1,2"], "--model": "builtin", "--rho": "0.5",
        "--set": ["top-k.steps=3", "draws=4"], "--methods": ["moreaugrad"], "--crop": "16,20",
        "--no": True, "--check": False, "--threads": "2", "--target": "3", "--data": "cells",
    }  # fmt: skip
    for items in (list(given.items()), list(given.items())[::-1]):
        plan = with_options(EvaluatePlan(), dict(items))
        assert plan.epsilons == (1.0, 2.0)
        assert plan.attacks == {"top-k": {"steps": 3}}
        assert plan.settings == {"rho": 0.5, "draws": 4, "check": False}
        assert plan.methods == {"moreaugrad": {}}
        assert plan.model.preprocess.crop == (16, 20)
        assert (plan.compute.threads, plan.target, plan.data.source) == (2, 3, "cells")


def test_lists_may_be_repeated() -> None:
    plan = with_options(ExplainPlan(), {"--export": ["npy", "csv"], "--methods": ["caso", "relex"]})
    assert plan.export == ("npy", "csv")
    assert list(plan.methods) == ["caso", "relex"]


@pytest.mark.parametrize("kind", [ExplainPlan, EvaluatePlan, TrainPlan])
def test_a_plan_is_read_as_it_was_written(kind: type, tmp_path: Path) -> None:
    plan = kind(model=type(kind().model)(name="builtin", digest="x"))
    (tmp_path / "plan.toml").write_text(plan_toml(plan, tmp_path), encoding="utf-8")
    found = read_plan(kind, tmp_path / "plan.toml", trust=True)
    assert found == plan.without_digests()
    assert found.model.named_in == str(tmp_path / "plan.toml")
    assert "trust" not in (tmp_path / "plan.toml").read_text(encoding="utf-8")


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    plan = ExplainPlan(
        data=DataPlan(files=(str(tmp_path / "a.png"),)),
        model=ModelPlan(name=f"trained:{tmp_path / 'run'}", weights=str(tmp_path / "w")),
    )
    (tmp_path / "out").mkdir()
    text = plan_toml(plan, tmp_path / "out")
    for words in ('"../a.png"', '"trained:../run"', '"../w"'):
        assert words in text
    assert 'source = "cells"' in plan_toml(ExplainPlan(data=DataPlan(source="cells")), tmp_path)


def test_what_is_named_has_a_digest() -> None:
    assert digests(EvaluatePlan)["model.weights"] == "model.digest"
    assert digests(ExplainPlan)["compare.model.labels"] == "compare.model.outputs"
    assert digests(TrainPlan)["data.source"] == "data.digest"


def test_naming_images_replaces_those_of_a_configuration() -> None:
    plan = ExplainPlan(data=DataPlan(source="cells", indices=(1, 2)))
    assert with_options(plan, {"IMAGE": ["a.png"]}).data == DataPlan(files=("a.png",))
    assert with_options(plan, {"--data": "folder"}).data == DataPlan(source="folder")
    some = with_options(plan, {"--images": "2", "IMAGE": ["a.png", "b.png", "c.png"]}).data
    assert some == DataPlan(files=("a.png", "b.png", "c.png"), images=2)
    with pytest.raises(ValueError, match="images: expected files or --data cells, got both"):
        with_options(ExplainPlan(), {"IMAGE": ["a.png"], "--data": "cells"})
    given = {"--indices": ["3"], "--data": "folder"}
    assert with_options(plan, given).data == DataPlan(source="folder", indices=(3,))
    assert with_options(plan, {"--images": "2"}).data == DataPlan(source="cells", images=2)


def test_a_new_value_takes_what_belonged_to_the_old_one_with_it() -> None:
    seen = PreprocessPlan(mean=(0.5,) * 3)
    plan = ExplainPlan(
        model=ModelPlan(name="builtin", weights="w", labels="l", preprocess=seen),
        data=DataPlan(source="cub", layout="cub", split="train", images=9),
    )
    other = with_options(plan, {"--model": "torchvision:resnet50"})
    assert other.model == ModelPlan(name="torchvision:resnet50")
    assert with_options(plan, {"--model": "builtin"}).model == plan.model  # the same network
    given = {"--weights": "v", "--model": "torchvision:resnet50"}
    assert with_options(plan, given).model == ModelPlan(name="torchvision:resnet50", weights="v")
    assert with_options(plan, {"--data": "folder"}).data == DataPlan(source="folder")
    assert with_options(plan, {"--data": "cub"}).data == plan.data

    certify = CertifyPlan(sigma=0.3, sigma_mode="absolute", radii=(0.1,), rho=0.05)
    assert with_options(certify, {"--sigma": "0.3"}) == CertifyPlan(sigma=0.3)
    absolute = with_options(certify, {"--sigma": "0.3", "--sigma-mode": "absolute"})
    assert absolute == CertifyPlan(sigma=0.3, sigma_mode="absolute")

    # A command of few images explains as few of any data set.
    assert with_options(SanityPlan(), {"--data": "folder"}).data.images == 16

    sweep = SweepPlan(over="rho", values=(0.1, 1.0), settings={"eta": 0.01})
    assert with_options(sweep, {"--over": "eta"}) == SweepPlan(over="eta")
    assert with_options(sweep, {"--over": "rho"}) == sweep
    assert with_options(sweep, {"--method": "moreaugrad"}).settings == {}


TWICE: list[tuple[type[Plan], str, str | list[str]]] = [
    (EvaluatePlan, "--indices", "1,0,1"),
    (EvaluatePlan, "--epsilons", "1,0,1"),
    (SanityPlan, "--seeds", "1,0,1"),
    (SanityPlan, "--blocks", "1,0,1"),
    (SanityPlan, "--modes", "cascading,cascading"),
    (DiffRoarPlan, "--levels", ".5,.2,.5"),
    (DiffRoarPlan, "--seeds", "1,0,1"),
    (StabilityPlan, "--exchanged", "0,.1,0"),
    (StabilityPlan, "--metrics", "dice,ssim,dice"),
    (LabelsPlan, "--metrics", "dice,ssim,dice"),
    (BenchPlan, "--batch", "1,8,1"),
    (RecommendPlan, "--checkpoint", ["a", "b", "a"]),
]


@pytest.mark.parametrize(("kind", "option", "text"), TWICE)
def test_what_is_given_twice_counts_once(
    kind: type[Plan], option: str, text: str | list[str]
) -> None:
    """Means over seeds and levels counted it twice, and tables had more cells than columns."""
    words = text.split(",") if isinstance(text, str) else text
    once = list(dict.fromkeys(words))
    one, other = (
        with_options(kind(), {option: ",".join(given) if isinstance(text, str) else given})
        for given in (words, once)
    )
    assert one == other


def test_the_name_of_a_layer_may_be_a_number() -> None:
    assert with_options(ExplainPlan(), {"--layer": "0"}).settings == {"layer": "0"}


def test_whole_numbers_are_exact() -> None:
    seed = 2**53 + 1
    assert with_options(ExplainPlan(), {"--seed": str(seed)}).seed == seed


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("--threads", "1.5", "--threads: expected a whole number"),
        ("--threads", "1,2", "--threads: expected a whole number"),
        ("--epsilons", "a", "--epsilons: expected finite numbers"),
        ("--crop", "1,2,3", "--crop: expected SIDE or HEIGHT,WIDTH"),
        ("--max-unreadable", "nan", "--max-unreadable: expected a finite number"),
        ("--batch-size", "0", "--batch-size: expected auto"),
        ("--set", ["x"], "--set: expected NAME=VALUE"),
        ("--set", ["none.x=1"], "one of the chosen parts"),
        ("--methods", ["smoothgrd"], "did you mean 'smoothgrad'"),
        ("--layout", "imagnet", "did you mean 'imagenet'"),
    ],
)
def test_text_that_is_no_value_is_refused(option: str, text: str | list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        with_options(EvaluatePlan(), {option: text})


@pytest.mark.parametrize(
    ("kind", "field", "value", "words"),
    [
        (ComputePlan, "threads", 0, "threads: expected a number from 1 to 1024, got 0"),
        (ComputePlan, "dtype", "float31", "dtype: expected one of .* did you mean 'float32'"),
        (ExplainPlan, "export", ("npy", "npz"), "export: expected one of npy, csv, nii; got 'npz'"),
        (CertifyPlan, "top", 0.0, r"top: expected a fraction in \(0, 1\], got 0.0"),
        (CertifyPlan, "sigma", math.inf, "sigma: expected a finite number > 0, got inf"),
        (TrainPlan, "epochs", 0, "epochs: expected at least 1, got 0"),
        (OptimiserPlan, "lr", math.nan, "lr: expected a finite number > 0, got nan"),
        (OptimiserPlan, "betas", (0.9, 1.0), r"betas: expected a fraction in \[0, 1\), got 1.0"),
    ],
)
def test_values_that_an_option_does_not_allow(
    kind: type, field: str, value: object, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        kind(**{field: value})


def test_options_of_all_parts_replace_what_a_run_has_spelt_out() -> None:
    attack = {"attack": "top-k", "seed": 0, "norm": "l2", "units": "input", "steps": 3}
    spelt_out = EvaluatePlan(
        model=ModelPlan(name="builtin"), attacks={"top-k": attack}, epsilons=(0.5,),
        methods={"smoothgrad": {"seed": 0, "samples": 4}, "relex": {"seed": 5}},
    )  # fmt: skip
    found = with_options(spelt_out, {"--seed": "1", "--norm": "linf"})
    assert found.methods == {"smoothgrad": {"samples": 4}, "relex": {"seed": 5}}
    assert found.attacks == {"top-k": {"attack": "top-k", "units": "input", "steps": 3}}
    assert with_options(spelt_out, {"--units": "pixel"}).attacks["top-k"].get("units") is None
    anew = with_options(spelt_out, {"--seed": "1", "--attack": ["top-k:seed=0"]})
    assert anew.attacks == {"top-k": {"seed": 0}}


def test_equal_attacks_need_labels() -> None:
    with pytest.raises(ValueError, match=r"--attack: expected a label.*top-k twice"):
        with_options(EvaluatePlan(), {"--attack": ["top-k:steps=1", "top-k:steps=2"],
                                      "--epsilons": "1"})  # fmt: skip


def test_all_metrics_are_those_without_ground_truth_unless_it_is_named() -> None:
    every = with_options(EvaluatePlan(), {"--metrics": "all"}).metrics
    fewer = with_options(EvaluatePlan(), {"--metrics": "all,-gini"}).metrics
    more = with_options(EvaluatePlan(), {"--metrics": "all,auroc"}).metrics
    assert set(every) - set(fewer) == {"gini"}
    assert set(more) - set(every) == {"auroc"}


def test_what_follows_from_a_run_s_network_and_images_follows_the_new_ones() -> None:
    before = ExplainPlan(
        model=ModelPlan(name="builtin", preprocess=PreprocessPlan(std=(0.5, 0.25, 0.25))),
        data=DataPlan(files=("a.png",)),
        methods={
            "caso": {"std": [0.5, 0.25, 0.25]}, "cafo": {"std": [1.0, 1.0, 1.0]},
            "expected-gradients": {"baselines": 0.0},
        },
    )  # fmt: skip
    other = with_options(before, {"--model": "other"}).methods
    assert other == {**before.methods, "caso": {}}
    assert with_options(before, {"--std": "1,1,1"}).methods == other
    two = with_options(before, {"IMAGE": ["a.png", "b.png"]})
    assert two.methods == {**before.methods, "expected-gradients": {}}
    drawn = replace(two, methods={"expected-gradients": {"baselines": "inputs"}})
    assert with_options(drawn, {"IMAGE": ["b.png"]}).methods == {"expected-gradients": {}}
