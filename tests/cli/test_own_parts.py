"""Parts of your own, named `package.module:Class` wherever a name is expected."""

import sys
import tomllib

import pytest
import torch

import moreaugrad as mg
from moreaugrad.registry import UnknownName, labelled, refuse_code
from moreaugrad.runs.maps.metrics import Measures, make_metric, metric_settings
from moreaugrad.runs.maps.run import MapsRun
from moreaugrad.runs.plans.common import DataPlan, ModelPlan
from moreaugrad.runs.plans.explain import EvaluatePlan, ExplainPlan

CODE = '''
"""Parts that the package does not have."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

import moreaugrad as mg
from moreaugrad.attacks.descent import DescentAttack
from moreaugrad.attacks.objectives import WeightedFraction
from moreaugrad.data import Files, Item
from moreaugrad.explainers.gradient import SimpleGradient
from moreaugrad.score.inputs import per_sample
from moreaugrad.training import Fast

Path(__file__).with_name("ran").touch()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Scaled(SimpleGradient):
    """The gradient times a number."""

    factor: float = 2.0

    method: ClassVar[str] = "scaled"

    def _maps(self, bound):
        found = super()._maps(bound)
        return replace(found, values=self.factor * found.values)


@dataclass(frozen=True, eq=False)
class Euclidean(mg.Penalty):
    """R(u) = weight ||u||_2."""

    weight: float

    def value(self, u):
        return self.weight * u.flatten(1).norm(dim=1)

    def prox(self, u, tau):
        length = per_sample(u.flatten(1).norm(dim=1), u)
        return u * (1 - self.weight * per_sample(tau, u) / length).clamp_min(0)

    def conjugate(self, d):
        inside = d.flatten(1).norm(dim=1) <= self.weight * (1 + 1e-6)
        return d.new_zeros(len(d)).masked_fill(~inside, torch.inf)

    def maximiser(self, g):
        return self.weight * g / per_sample(g.flatten(1).norm(dim=1), g).clamp_min(1e-30)


def largest_fraction(maps: Tensor, *, power: float = 1.0) -> Tensor:
    """max |A|^p / sum |A|^p."""
    size = maps.flatten(1).double().abs() ** power
    return size.amax(1) / size.sum(1)


def agreement(a: Tensor, b: Tensor) -> Tensor:
    """Fraction of entries of the same sign."""
    return (a.sign() == b.sign()).flatten(1).double().mean(1)


def largest(maps: Tensor, *, reduction: str = "none") -> Tensor:
    """The largest entry, or the largest pixel's sum over channels."""
    return (maps.sum(1) if reduction == "sum" else maps).flatten(1).amax(1).double()


def most(values: Tensor, mask: Tensor) -> Tensor:
    """The largest place, whatever the mask."""
    return values.flatten(1).amax(1).double()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FirstHalf(DescentAttack):
    """D = the fraction of the map's magnitude in the first half of its entries."""

    name: ClassVar[str] = "first-half"

    def _goal(self, clean, bound):
        weight = (torch.arange(clean.shape[1]) < clean.shape[1] // 2).double()
        return WeightedFraction(weight=weight.expand(len(clean), -1))


@dataclass(frozen=True, kw_only=True, eq=False)
class Halved(Fast):
    """Half of the fast perturbation."""

    def _search(self, problem, penalty):
        delta, g = super()._search(problem, penalty)
        return delta / 2, g


def one_class(tree, split):
    """All images, of class 1."""
    items = [Item(name=name, index=1) for name in tree.files("") if name.endswith(".png")]
    return Files(layout="one-class", items=items, tree=tree)
'''
NETWORK = ("--model", "tiny_models:smooth")


@pytest.fixture
def own(photos, monkeypatch):
    """The working folder with a module `own` that leaves a file `ran` when it is imported."""
    (photos / "own.py").write_text(CODE, encoding="utf-8")
    (photos / "ran").unlink(missing_ok=True)
    yield photos
    sys.modules.pop("own", None)
    (photos / "own.py").unlink()


def config_of(folder):
    return tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))


def test_in_python(own):
    x, model = torch.randn(2, 3, 16, 16), mg.load_model("tiny_models:smooth").module
    scaled = mg.build("own:Scaled", model, factor=3.0)
    torch.testing.assert_close(scaled.attribute(x), 3 * mg.SimpleGradient(model).attribute(x))
    found = mg.attacks.build("own:FirstHalf", scaled, epsilon=0.5, steps=3).attack(x)
    assert (found.after < found.before).all()
    maps = torch.tensor([[1.0, 2.0, 1.0]])
    assert mg.metrics.build("own:largest_fraction", power=2.0)(maps) == pytest.approx(4 / 6)
    penalty = mg.penalties.build("own:Euclidean", 0.5)
    protocol = mg.training.build("own:Halved", penalty)
    perturbed = protocol.perturb(model, x, torch.tensor([0, 1]))
    torch.testing.assert_close(perturbed.norm, torch.full((2,), 0.25))
    data = mg.data.open_dataset("data", layout="own:one_class")
    assert {item.index for item in data.items} == {1}


MOREAU = "moreaugrad.explainers.moreau:Moreau"


def test_a_penalty_in_a_method(own):
    x, model = torch.randn(2, 3, 16, 16), mg.load_model("tiny_models:smooth").module
    expected = mg.Moreau(model, sigma=0, penalty=mg.penalties.build("own:Euclidean", 0.01))
    maps = expected.attribute(x)
    settings = expected.settings()
    assert settings["penalty"] == {"name": "own:Euclidean", "weight": 0.01}
    for penalty in ("own:Euclidean 0.01", settings["penalty"]):
        found = mg.build(MOREAU, model, **settings | {"penalty": penalty})
        assert torch.equal(found.attribute(x), maps)
    groups = mg.build(MOREAU, model, penalty={"name": "group", "eta": 0.1, "size": 4})
    assert (groups.penalty.eta, groups.penalty.size) == (0.1, 4)
    assert mg.build(MOREAU, model).settings()["penalty"] == {"name": "zero"}


@pytest.mark.parametrize(
    ("penalty", "words"),
    [
        ("", "expected one of l1"),
        ("l1", "the numbers eta"),
        ("l1 much", "could not convert"),
        ("l1 -1", "got -1"),
        ({"eta": 1.0}, "expected one of l1"),
        ({"name": "l1", "size": 1}, "the numbers eta"),
        ({"name": "l1", "eta": 1.0, "size": 1}, "no setting 'size'"),
        ("harmonisation 1", "expected a Penalty"),
    ],
)
def test_a_penalty_that_cannot_be_made_is_reported(penalty, words):
    with pytest.raises((ValueError, TypeError), match=words):
        mg.build(MOREAU, mg.load_model("tiny_models:smooth").module, penalty=penalty)


@pytest.mark.parametrize(("method", "setting"), [(MOREAU, "sigma=0"), ("caso", "lambda1=0.01")])
def test_a_penalty_in_a_method_by_command(command, own, method, setting):
    penalty = ("--set", "penalty=own:Euclidean 0.01", "--set", setting)
    done = command("explain", "one.png", "--method", method, *penalty, *NETWORK, "--out", "results")
    assert done.code == 0, done
    (config,) = config_of(own / "results")["methods"].values()
    assert config["penalty"] == {"name": "own:Euclidean", "weight": 0.01}
    (own / "ran").unlink()
    again = ("explain", "--config", "results/config.toml", "--out", "results")
    command(*again).refused("own:", "Moreau")
    assert command(*again, "--trust", "--overwrite").code == 0


def test_a_row_says_what_is_known_of_it(own):
    row = mg.METHODS["own:Scaled"]
    assert row.summary == "The gradient times a number."
    assert mg.METHODS["captum:Occlusion"].summary.endswith("the difference in output.")
    assert row.defaults() == mg.METHODS["simple-gradient"].defaults() | {"factor": 2.0}
    assert mg.penalties.PENALTIES["own:Euclidean"].needs() == ("weight",)
    kinds = {name: mg.metrics.METRICS[f"own:{name}"].kind
             for name in ("largest_fraction", "agreement")}  # fmt: skip
    assert kinds == {"largest_fraction": "map", "agreement": "pair"}
    assert "own:Scaled" not in mg.METHODS
    assert len(mg.METHODS) == len(list(mg.METHODS))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: mg.build("own:Skaled", None), "Scaled"),
        (lambda: mg.build("owm:Scaled", None), "no module 'owm'"),
        (lambda: mg.build("own:Euclidean", None), "derived from Explainer"),
        (lambda: mg.build("own:largest_fraction", None), "derived from Explainer"),
        (lambda: mg.attacks.build("own:Scaled", None), "derived from Attack"),
        (lambda: mg.training.build("own:Euclidean"), "derived from Protocol"),
        (lambda: mg.penalties.build("own:Scaled", 1.0), "derived from Penalty or GuidedPenalty"),
        (lambda: mg.penalties.build("own:Euclidean"), "the numbers weight"),
        (lambda: mg.build("own:Scaled", None, faktor=1.0), "did you mean 'factor'"),
        (lambda: mg.build("own:Scaled", None, factor="much"), "factor: expected a number"),
        (lambda: mg.metrics.build("own:agreement", power=1.0), "it has: none"),
    ],
)
def test_a_wrong_name_or_setting_is_reported(own, build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_a_name_that_is_not_known_is_a_key_and_a_value_error():
    with pytest.raises(UnknownName, match="'simple-gradient'"):
        mg.METHODS["simple-gradent"]
    assert mg.METHODS.get("simple-gradent") is None
    assert issubclass(UnknownName, (KeyError, ValueError))


def test_explain_and_compare(command, own):
    for number, words in enumerate([
        ("explain", "one.png", "--method", "own:Scaled", "--set", "factor=3"),
        ("compare", "one.png", "--methods", "simple-gradient,own:Scaled", "--set", "factor=3"),
    ]):  # fmt: skip
        out = own / "results" / str(number)
        done = command(*words, *NETWORK, "--out", out)
        assert done.code == 0, done
        config = config_of(out)["methods"]["Scaled"]
        assert (config["method"], config["factor"]) == ("own:Scaled", 3.0)
        assert list(out.rglob("*Scaled*"))
        assert not list(out.rglob("*:*")), "no such name of a file can be written everywhere"


def test_sweep(command, own):
    done = command("sweep", "one.png", "--method", "own:Scaled", "--over", "factor", "--values",
                   "1,2", *NETWORK, "--out", "results")  # fmt: skip
    assert done.code == 0, done


def test_the_reduction_of_a_metric_is_the_one_given(own):
    """That of a setting of the function was left out, and every other than the sum was abs-sum."""
    maps = torch.tensor([[[[1.0, -4.0]], [[2.5, 3.0]]]])
    like = dict.fromkeys(("explainer", "space", "x", "ids", "truths"))

    def measured(name, reduction, **more):
        settings = metric_settings(name, {"metric": f"own:{name}", "reduction": reduction})
        measures = Measures(metrics=[make_metric(name, settings)], **like | more)
        return measures._of_map(measures.metrics[0], maps).tolist()

    assert [measured("largest", how) for how in ("none", "sum")] == [[3.0], [3.5]]
    truths = [torch.ones(1, 2)]
    found = [measured("most", how, truths=truths) for how in ("sum", "abs-sum", "max-abs")]
    assert found == [[3.5], [7.0], [4.0]]
    with pytest.raises(ValueError, match="most, reduction: expected one of"):
        measured("most", "mean", truths=truths)


def test_evaluate_with_an_attack_and_report(command, own):
    words = (
        "evaluate", "--data", "data", "--images", "2", "--layout", "own:one_class", *NETWORK,
        "--methods", "own:Scaled", "--metrics", "own:largest_fraction,own:agreement",
        "--attack", "own:FirstHalf:steps=2", "--epsilons", "0.5", "--set", "Scaled.factor=3",
        "--out", "results",
    )  # fmt: skip
    done = command(*words)
    assert done.code == 0, done
    config = config_of(own / "results")
    assert config["methods"]["Scaled"]["factor"] == 3.0
    assert config["attacks"]["FirstHalf"]["attack"] == "own:FirstHalf"
    assert config["metrics"]["agreement"]["kind"] == "pair"
    assert command(*words).code == 0, "the command that names them resumes"
    # A report reads, and runs no code.
    sys.modules.pop("own")
    (own / "ran").unlink()
    assert command("report", "results", "--out", "results/page").code == 0
    assert not (own / "ran").exists()
    again = ("evaluate", "--config", "results/config.toml", "--out", "results")
    command(*again).refused("own:")
    assert not (own / "ran").exists()
    assert command(*again, "--trust").code == 0


def test_train(command, own):
    for number, words in enumerate([("fast",), ("own:Halved",)]):
        done = command(
            "train", "--data", "data", *NETWORK, "--batch-size", "1", "--epochs", "1",
            "--validation", "0.5", "--protocol", *words,
            "--penalty", "own:Euclidean", "--epsilon", "0.5", "--out", f"results/{number}",
        )  # fmt: skip
        assert done.code == 0, done


TRAIN = (
    'epochs = 1\nbatch = 1\n[data]\nsource = "data"\nvalidation = 0.5\n[augment]\nsize = 16\n'
    "[protocol]\n"
)
FILES = {
    "explain": '[data]\nfiles = ["one.png"]\n[methods.mine]\nmethod = "own:Scaled"\n',
    "explain, by the name": '[data]\nfiles = ["one.png"]\n[methods."own:Scaled"]\n',
    "sweep": '[data]\nfiles = ["one.png"]\n[sweep]\nmethod = "own:Scaled"\nover = "factor"\n'
             "values = [1.0, 2.0]\n",
    "evaluate": '[data]\nsource = "data"\nimages = 1\n[methods.simple-gradient]\n[metrics.mine]\n'
                'metric = "own:largest_fraction"\n',
    "evaluate, attack": 'epsilons = [0.5]\n[data]\nsource = "data"\nimages = 1\n'
                        '[methods.simple-gradient]\n[attacks.a]\nattack = "own:FirstHalf"\n'
                        "steps = 1\n",
    "evaluate, layout": '[data]\nsource = "data"\nimages = 1\nlayout = "own:one_class"\n'
                        "[methods.simple-gradient]\n",
    "train": TRAIN + 'name = "fast"\npenalty = "own:Euclidean"\nepsilon = [0.5]\n',
    "train, protocol": TRAIN + 'name = "own:Halved"\npenalty = "l1"\nepsilon = [0.5]\n',
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_a_file_names_them_and_they_run_with_consent_alone(command, own, kind):
    name = kind.partition(",")[0]
    (own / "plan.toml").write_text(FILES[kind])
    verb = "explain" if name == "sweep" else name
    words = (verb, "--config", "plan.toml", *NETWORK, "--out", "results")
    command(*words).refused("own:")
    assert not (own / "ran").exists()
    assert not (own / "results").exists()
    done = command(*words, "--trust")
    assert done.code == 0, done
    assert (own / "ran").exists()


def test_plans_label_them(own):
    plan = EvaluatePlan(methods={"own:Scaled": {"factor": 3.0}})
    assert plan.methods == {"Scaled": {"method": "own:Scaled", "factor": 3.0}}
    files, network = DataPlan(files=("one.png",)), ModelPlan(name="tiny_models:smooth")
    given = ExplainPlan(data=files, methods={"own:Scaled": {}}, model=network)
    assert MapsRun(given).plan.methods["Scaled"]["method"] == "own:Scaled"
    with pytest.raises(ValueError, match="two are called"):
        labelled("method", {"a:Same": {}, "b:Same": {}})


@pytest.mark.parametrize(
    ("table", "refused"),
    [
        ({"methods": {"own:Scaled": {}}}, True),
        ({"methods": {"a": {"method": "own:Scaled"}}}, True),
        ({"methods": {"model": {"method": "own:Scaled"}}}, True),
        ({"methods": {"target": {"method": "own:Scaled"}}}, True),
        ({"methods": {"a": {"penalty": "own:Euclidean 0.5"}}}, True),
        ({"methods": {"a": {"penalty": {"name": "own:Euclidean", "weight": 0.5}}}}, True),
        ({"protocol": {"name": "own:Halved"}}, True),
        ({"metrics": ["gini", "own:agreement"]}, True),
        ({"a": [[{"b": "own:x"}]]}, True),
        ({"model": {"name": "own:network"}}, False),
        ({"beside": {"model": {"name": "own:network"}}}, False),
        ({"target": "class:one", "compute": {"device": "cuda:1"}, "images": ["a/b:c.png"]}, False),
    ],
)
def test_any_word_of_a_file_that_may_be_looked_up_is_refused(table, refused):
    if not refused:
        refuse_code(table, "file.toml")
        return
    with pytest.raises(ValueError, match=r"file\.toml: names own:.*--trust"):
        refuse_code(table, "file.toml")
