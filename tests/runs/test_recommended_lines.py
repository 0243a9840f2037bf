"""The command lines and the Python that `recommend` prints: what they make is what was measured."""

import importlib
import json
import shlex

import numpy as np
import pytest
import torch
from PIL import Image

import moreaugrad as mg
import tiny_models
from moreaugrad.cli.entry import run
from moreaugrad.runs.network import weights_digest
from moreaugrad.runs.plans.common import ComputePlan, ModelPlan, PreprocessPlan
from moreaugrad.runs.plans.maps import COMMON
from moreaugrad.runs.plans.option import of_text, shown
from moreaugrad.runs.plans.recommend import RecommendDataPlan, RecommendPlan
from moreaugrad.runs.recommend import RecommendRun
from moreaugrad.runs.recommend.fit import left_out, sizes

NETWORK = ModelPlan(name="tiny_models:smooth")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lines")
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return sorted(map(str, folder.iterdir()))


def prepared(photos, methods, **given):
    data = RecommendDataPlan(files=tuple(photos))
    usual = {"model": NETWORK, "data": data, "methods": {name: {} for name in methods}}
    return RecommendRun(RecommendPlan(**(usual | given)))


def candidates(found):
    return list(found._candidates(next(sizes(found.plan, len(found.inputs.chosen)))))


@pytest.mark.parametrize(
    ("methods", "settings"),
    [
        (("sparse-moreaugrad", "sparse-moreaugrad-plain"), {"sigma": 0.2}),
        (("sparse-moreaugrad", "integrated-gradients"), {"tolerance": "fine"}),
        (("smoothgrad", "sparse-gradient"), {"samples": 8}),
        (("simple-gradient", "smoothgrad"), {"check": False, "batch_size": None}),
        (("smoothgrad", "smooth-caso"), {}),
    ],
)
def test_they_make_what_was_measured(photos, tmp_path, methods, settings):
    found = prepared(photos[:2], methods, settings=settings, sigmas=(0.2, 1 / 3))
    measured = {one.label: one.explainer.settings() for one in found.setup.methods}
    model = tiny_models.smooth().module
    for one in candidates(found):
        line = one.python.removesuffix(".explain(x)")
        assert eval(line, {"mg": mg, "model": model}).settings() == measured[one.label]
        typed = shlex.split(one.command.replace("IMAGE", photos[0]))[1:]
        assert run([*typed, "--dry-run", "--out", str(tmp_path / one.label), "-q"]) == 0


def test_flags_and_precision_are_those_of_the_command_line(photos):
    compute = ComputePlan(dtype="bfloat16")
    first, _ = candidates(
        prepared(photos, ("smoothgrad",), settings={"check": False}, compute=compute,
                 sigmas=(0.1, 0.2))
    )  # fmt: skip
    assert COMMON["check"].negative in first.command.split()
    assert "--dtype bfloat16" in first.command


def test_numbers_keep_all_their_digits(photos):
    mean = (0.48145466, 0.4578275, 0.40821073)
    model = ModelPlan(name=NETWORK.name, preprocess=PreprocessPlan(mean=mean))
    (one,) = candidates(prepared(photos, ("simple-gradient",), model=model))
    words = shlex.split(one.command)
    assert of_text("--mean", words[words.index("--mean") + 1], tuple[float, ...]) == mean
    assert [shown(value) for value in (900.0, 0.1, 1 / 3)] == ["900", "0.1", repr(1 / 3)]


def test_two_noise_levels_have_two_labels(photos):
    close = (0.2, 0.2000000000000001)
    found = prepared(photos, ("smoothgrad",), sigmas=close).plan.candidates()
    assert [one["sigma"] for one in found.values()] == list(close)


def test_baselines_are_inputs_of_the_reader(photos):
    found = prepared(photos, ("expected-gradients",), sigmas=(0.2,))
    (one,) = candidates(found)
    assert "baselines" not in one.command
    x = torch.cat(found.inputs.few(found.network, 9))
    named = {"mg": mg, "model": tiny_models.smooth().module, "baselines": x}
    explainer = eval(one.python.removesuffix(".explain(x)"), named)
    assert torch.equal(explainer.baselines, found.setup.methods[0].explainer.baselines)


def test_a_better_quality_is_not_cut_short(photos):
    methods = ("sparse-moreaugrad", "smoothgrad", "caso")
    found = prepared(photos, methods, settings={"tolerance": "fine"}, sigmas=(0.2,))
    first, second, third = found.setup.methods
    assert first.explainer.max_evaluations is None
    assert second.explainer.samples == 32
    assert third.explainer.max_evaluations == 256


def test_a_configuration_of_files_measures_all_of_them_again(photos, tmp_path):
    short = ["--threads", "1", "--attack-steps", "1", "-q"]
    first = ["recommend", *photos, "--model", NETWORK.name, "--methods", "simple-gradient"]
    assert run([*first, *short, "--images", "10", "--out", str(tmp_path / "first")]) == 0
    config = str(tmp_path / "first" / "config.toml")
    again = ["recommend", "--config", config, "--trust", *short]
    assert run([*again, "--out", str(tmp_path / "again")]) == 0
    tables = [(tmp_path / name / "table.md").read_bytes() for name in ("first", "again")]
    assert tables[0] == tables[1]
    found = json.loads((tmp_path / "again" / "recommendation.json").read_text("utf-8"))
    assert (found["images"], found["source"]) == (10, "files")
    page = (tmp_path / "again" / "index.html").read_text("utf-8")
    assert "recommend photos/*.jpg --config config.toml" in page
    more = ["recommend", *photos, "--config", config, "--trust", "--images", "12", *short]
    assert run([*more, "--out", str(tmp_path / "more")]) == 0
    found = json.loads((tmp_path / "more" / "recommendation.json").read_text("utf-8"))
    assert found["images"] == 12


def test_a_network_in_memory_has_no_command_line(tmp_path):
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = tiny_models.smooth().module
    found = mg.recommend(
        model, x, ["expected-gradients"], steps=1, samples=2, sigmas=(0.2,), out=tmp_path / "out"
    )
    page = found.page.read_text("utf-8")
    assert "moreaugrad explain IMAGE" not in page
    assert "--config config.toml" not in page
    with pytest.raises(ValueError, match="baselines"):
        found.build("robust", model)
    assert torch.equal(found.build("robust", model, baselines=x).baselines, x)


def test_methods_named_in_python_have_the_settings_of_the_command():
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = mg.recommend(tiny_models.smooth().module, x, ["integrated-gradients"], steps=1)
    assert found.rows[0]["settings"]["steps"] == 32


def test_methods_without_derivatives_are_attacked_by_the_steps_of_others(photos):
    found = prepared(photos, ("deeplift",), sigmas=(0.2,))
    assert set(found.setup.plan.attacks) == {"transfer", "smoothed"}
    whole = next(sizes(found.plan, len(photos)))
    assert left_out(found.plan, len(photos), whole) == []  # nothing for want of time


def test_without_anything_to_recommend_it_says_so_and_fails(photos, tmp_path):
    out = tmp_path / "out"
    command = ["recommend", photos[0], "--model", "tiny_models:constant", "--methods",
               "simple-gradient", "--attack-steps", "1", "--out", str(out), "-q"]  # fmt: skip
    for _ in range(2):  # also when it is repeated
        assert run(command) == 1
    assert "Nothing can be recommended" in (out / "index.html").read_text("utf-8")


def test_a_time_may_be_a_text():
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = tiny_models.smooth().module
    found = mg.recommend(model, x, ["simple-gradient"], steps=1, time="2m")
    assert found.record["time"] == 120
    with pytest.raises(ValueError, match="time: expected"):
        mg.recommend(model, x, ["simple-gradient"], time="soon")


def test_where_a_function_is_in_memory_is_no_part_of_a_network():
    class Shown(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.function = lambda x: x

        def extra_repr(self):
            return str(self.function)

    first, second = Shown(), Shown()
    assert str(first) != str(second)
    assert weights_digest(first) == weights_digest(second)


def test_another_activation_is_another_network(tmp_path):
    """With the same weights."""
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    smooth = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 4), torch.nn.SiLU())
    other = torch.nn.Sequential(smooth[0], smooth[1], torch.nn.ReLU())
    mg.evaluate(smooth, x, ["simple-gradient"], metrics=["gini"], out=tmp_path / "out")
    with pytest.raises(ValueError, match="model"):
        mg.evaluate(other, x, ["simple-gradient"], metrics=["gini"], out=tmp_path / "out")


class Scaled(torch.nn.Module):
    """A temperature that is a plain number, and a mean that no checkpoint holds."""

    def __init__(self, scale=1.0, mean=0.0):
        super().__init__()
        self.scale = scale
        self.register_buffer("mean", torch.tensor(mean), persistent=False)

    def forward(self, x):
        return (x - self.mean) * self.scale


def test_numbers_that_are_no_weights_are_part_of_a_network():
    digests = [weights_digest(Scaled(**given)) for given in ({}, {"scale": 2.0}, {"mean": 0.5})]
    assert len(set(digests)) == 3
    assert weights_digest(Scaled()) == digests[0]


def test_what_a_network_computes_is_part_of_it(tmp_path, monkeypatch):
    """Its code, but not the comments in it."""
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for name, line in (("one", "x.tanh()"), ("two", "x.tanh()  # rounded"), ("three", "x.sin()")):
        code = f"class Net(torch.nn.Module):\n    def forward(self, x):\n        return {line}\n"
        (tmp_path / f"net_{name}.py").write_text("import torch\n" + code)
        found.append(weights_digest(importlib.import_module(f"net_{name}").Net()))
    assert found[0] == found[1] != found[2]
