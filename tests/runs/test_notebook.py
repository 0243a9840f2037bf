"""The commands as functions: what they take, what they return, and what they leave alone."""

import importlib.util
import random
import tempfile
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import moreaugrad as mg
import tiny_models
from moreaugrad.files.units import Units

GRADIENT = "simple-gradient"


def inputs(count: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def x() -> Tensor:
    return inputs()


@pytest.fixture
def model() -> nn.Module:
    return tiny_models.smooth().module


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: `photos` with two classes of two images each."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for label in ("stripe", "dot"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(2):
            pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    return tmp_path


def images(results: mg.Results) -> list[str]:
    return [row["input"] for row in results.rows]


# What they take


def test_maps_are_those_of_the_class_to_the_byte(model: nn.Module, x: Tensor) -> None:
    settings = {"samples": 4, "sigma": 0.2}
    methods = {"smoothgrad": settings, "sparse-moreaugrad-plain": {}}
    results = mg.explain(model, x, methods, seed=3)
    expected = {
        "smoothgrad": mg.SmoothGrad(model, seed=3, **settings),
        "sparse-moreaugrad-plain": mg.build("sparse-moreaugrad-plain", model),
    }
    for method, explainer in expected.items():
        made = torch.stack([results.maps[method][row] for row in range(3)])
        assert torch.equal(made, explainer.explain(x).maps), method
    assert len(results.rows) == 6
    assert results.failures == []


def test_models_are_names_modules_and_loaded_models(model: nn.Module, x: Tensor) -> None:
    loaded = tiny_models.smooth()
    found = [mg.explain(one, x, GRADIENT) for one in ("tiny_models:smooth", model, loaded)]
    for one in found[1:]:
        for row in range(3):
            torch.testing.assert_close(one.maps[GRADIENT][row], found[0].maps[GRADIENT][row])
    assert found[0].rows[0]["target.label"] in tiny_models.LABELS
    assert found[1].rows[0]["target.label"] == f"class {found[1].rows[0]['target.class']}"


@pytest.mark.parametrize("form", ["file", "files", "folder", "glob", "path"])
def test_images_are_files_folders_and_globs(photos: Path, form: str) -> None:
    given = {
        "file": "photos/dot/0.png", "files": ["photos/dot/0.png", photos / "photos/dot/1.png"],
        "folder": "photos", "glob": "photos/*/1.png", "path": photos / "photos" / "dot",
    }[form]  # fmt: skip
    results = mg.explain("tiny_models:smooth", given, GRADIENT)
    assert len(results.rows) == {"file": 1, "files": 2, "folder": 4, "glob": 2, "path": 2}[form]
    assert results.maps[GRADIENT][0].shape == (3, 16, 16)
    evaluated = mg.evaluate("tiny_models:smooth", given, GRADIENT)
    assert len(evaluated.rows) == len(results.rows)


def test_cells_are_a_data_set_of_which_some_are_chosen() -> None:
    results = mg.explain("builtin", "cells", GRADIENT, images=2, seed=1, target="label")
    assert len(results.rows) == 2
    assert all(row["target.class"] == row["class"] for row in results.rows)
    assert {"metrics.auroc", "metrics.gini"} <= set(results.rows[0])
    evaluated = mg.evaluate("builtin", "cells", GRADIENT, images=2, seed=1, metrics="gini")
    assert images(evaluated) == images(results)


@pytest.mark.parametrize("form", ["array", "double", "bytes", "grey", "gradient"])
def test_inputs_are_tensors_and_arrays(model: nn.Module, x: Tensor, form: str) -> None:
    grey = nn.Sequential(nn.Conv2d(1, 2, 3), nn.SiLU(), nn.Flatten(), nn.Linear(392, 3)).eval()
    given = {
        "array": x.numpy(), "double": x.double(), "bytes": (x.abs() * 50).byte(),
        "grey": x[:, :1], "gradient": x.clone().requires_grad_(),
    }[form]  # fmt: skip
    net = grey if form == "grey" else model
    results = mg.explain(net, given, GRADIENT)
    found = torch.stack(list(results.maps[GRADIENT].values()))
    tensor = torch.as_tensor(given).detach().float()
    assert torch.equal(found, mg.SimpleGradient(net).explain(tensor).maps)


@pytest.mark.parametrize(
    "methods",
    [
        "smoothgrad,simple-gradient", ["smoothgrad", "simple-gradient"],
        {"smoothgrad": {"samples": 2}, "simple-gradient": {}},
        {"smoothgrad": {}, "again": {"method": "smoothgrad", "samples": 2}},
        ["moreaugrad.explainers.gradient:SmoothGrad", "simple-gradient"],
        {"moreaugrad.explainers.gradient:SmoothGrad": {"samples": 2}, "simple-gradient": {}},
    ],
)  # fmt: skip
def test_methods_are_names_settings_and_classes(
    model: nn.Module, x: Tensor, methods: mg.runs.notebook.Parts
) -> None:
    results = mg.compare(model, x, methods)
    assert len(results.maps) == 2
    assert len(results.rows) == 6
    assert "smoothgrad" in results.maps or "SmoothGrad" in results.maps


def test_compare_is_of_all_methods_by_default(model: nn.Module) -> None:
    results = mg.compare(model, inputs(1), max_evaluations=128)
    assert set(results.maps) == {name for name in mg.METHODS if name != "published-moreaugrad"}


def test_options_are_given_by_name(x: Tensor) -> None:
    results = mg.explain(
        "tiny_models:smooth", x, "smoothgrad", samples=3, score="probability", metrics="zeros",
        dtype="float64", threads=1,
    )  # fmt: skip
    assert results.rows[0]["map.evaluations"] == 3
    assert 0 <= results.rows[0]["map.score"] <= 1
    assert "metrics.zeros" in results.rows[0]
    exact = mg.SmoothGrad(tiny_models.smooth().module.double(), samples=3, score="probability")
    maps = exact.explain(x.double()).maps
    torch.testing.assert_close(results.maps["smoothgrad"][1], maps[1], rtol=1e-9, atol=1e-9)


def test_each_input_has_its_target(model: nn.Module, x: Tensor, tmp_path: Path) -> None:
    for target in ([3, 0, 1], torch.tensor([3, 0, 1])):
        results = mg.explain(model, x, GRADIENT, target=target)
        assert [row["target.class"] for row in results.rows] == [3, 0, 1]
        expected = mg.SimpleGradient(model).explain(x, torch.tensor([3, 0, 1])).maps
        assert torch.equal(results.maps[GRADIENT][2], expected[2])
    assert [r["target.class"] for r in mg.explain(model, x, GRADIENT, target=2).rows] == [2] * 3
    labelled = mg.explain(tiny_models.smooth(), x, GRADIENT, target="dot")
    assert [row["target.class"] for row in labelled.rows] == [1] * 3
    mg.explain(model, x, GRADIENT, target=[3, 0, 1], out=tmp_path / "run")
    with pytest.raises(ValueError, match="another configuration"):
        mg.explain(model, x, GRADIENT, target=[3, 0, 2], out=tmp_path / "run")


@pytest.mark.parametrize("epsilons", [0.5, [0.5, 1.0]])
def test_attacks_and_metrics(model: nn.Module, x: Tensor, epsilons: float | list[float]) -> None:
    results = mg.evaluate(
        model, x, GRADIENT, attacks={"top-k": {"steps": 2}}, metrics=["gini", "top-k"],
        epsilons=epsilons,
    )  # fmt: skip
    budgets = epsilons if isinstance(epsilons, list) else [epsilons]
    attacked = [row for row in results.rows if row["attack"] == "top-k"]
    assert len(attacked) == 3 * len(budgets)
    for row in attacked:
        assert row["attacked.ok"], row
        assert 0 <= row["metrics.top-k"] <= 1
        assert 0 < row["attacked.distance"] <= row["epsilon"] * (1 + 1e-6)
    assert set(results.maps) == {GRADIENT}  # those without an attack


def test_own_attack_and_metric(model: nn.Module, x: Tensor) -> None:
    results = mg.evaluate(
        model, x, GRADIENT, attacks="moreaugrad.attacks.baselines:GaussianNoiseAttack", epsilons=1,
        metrics=["gini", "normalised-distance"],
    )  # fmt: skip
    assert {row["attack"] for row in results.rows} == {"clean", "GaussianNoiseAttack"}


def test_pixels_bound_attacks_where_inputs_are_pixels(model: nn.Module) -> None:
    """Inputs beyond [0, 1] are somehow normalised: which of them are valid, nobody has said."""
    attack = {"attacks": "gaussian", "epsilons": 8, "metrics": "gini", "maps": 3}
    pixels = torch.sigmoid(inputs())
    for given in (pixels, 4 * pixels):
        rows = mg.evaluate(model, given, GRADIENT, **attack).rows  # type: ignore[arg-type]
        assert all(row["attacked.ok"] for row in rows if row["attack"] == "gaussian"), rows


# What they return


def test_results_are_tables(model: nn.Module, x: Tensor) -> None:
    pandas = pytest.importorskip("pandas")
    results = mg.evaluate(model, x, GRADIENT, attacks="gaussian", epsilons=1, metrics="gini")
    table = results.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert len(table) == len(results.rows) == 6
    assert table["metrics.gini"].dtype == float
    assert table.loc[table["attack"] == "clean", "epsilon"].isna().all()
    shown = results._repr_html_()
    assert shown.count("<tr>") == 7
    assert "metrics.gini" in shown
    assert len(repr(results)) < 200


def test_a_failure_is_reported_with_the_table(model: nn.Module, x: Tensor) -> None:
    x[1, 0, 0, 0] = torch.nan
    results = mg.explain(model, x, GRADIENT)
    assert list(results.maps[GRADIENT]) == [0, 2]
    assert images(results) == ["input 0", "input 2"]
    assert len(results.failures) == 1
    assert "input 1" in results.failures[0]
    assert "finite" in results._repr_html_()


def test_text_of_others_is_no_markup() -> None:
    rows = [{"input": "<b>x</b>", "index": 0, "method": "a&b"}]
    shown = mg.Results(rows=rows, maps={}, failures=["<i>"])._repr_html_()
    assert "<b>" not in shown
    assert "<i>" not in shown


def test_a_run_is_kept_and_resumed(
    model: nn.Module, x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    first = mg.compare(model, x, [GRADIENT, "smoothgrad"], out=out)
    assert first.folder == out
    assert first.page == out / "index.html"
    assert "smoothgrad" in first.page.read_text(encoding="utf-8")
    assert (out / "records.csv").is_file()

    def never(*_: object) -> None:
        raise AssertionError("a map was computed again")

    monkeypatch.setattr(mg.SmoothGrad, "explain", never)
    again = mg.compare(model, x, [GRADIENT, "smoothgrad"], out=out)
    assert again.rows == first.rows
    for method, maps in first.maps.items():
        assert all(torch.equal(again.maps[method][row], found) for row, found in maps.items())
    with pytest.raises(ValueError, match="overwrite"):
        mg.compare(model, inputs(seed=1), GRADIENT, out=out)
    assert len(mg.compare(model, inputs(seed=1), GRADIENT, out=out, overwrite=True).rows) == 3


def test_a_report_is_a_page(model: nn.Module, x: Tensor, tmp_path: Path) -> None:
    for name in ("a", "b"):
        mg.evaluate(model, x, GRADIENT, metrics="gini", out=tmp_path / name)
    page = mg.report(tmp_path / "a", str(tmp_path / "b"), out=tmp_path / "page", confidence=0.9)
    assert page == tmp_path / "page" / "index.html"
    assert "90 %" in page.read_text(encoding="utf-8")


# What they leave alone


@pytest.mark.parametrize("call", ["explain", "compare", "evaluate"])
def test_nothing_is_left_behind(
    model: nn.Module, x: Tensor, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path / "work")
    results = getattr(mg, call)(model, x, GRADIENT)
    assert (results.folder, results.page) == (None, None)
    with pytest.raises(ValueError, match="target"):
        getattr(mg, call)(model, x, GRADIENT, target=9)
    assert list(tmp_path.rglob("*")) == [tmp_path / "work"]


def test_the_model_and_the_generators_are_as_before(x: Tensor) -> None:
    model = tiny_models.normalised().module
    next(model.parameters()).requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
    threads = torch.get_num_threads()
    mg.compare(model, x, ["smoothgrad", "grad-cam", "deeplift"])
    mg.evaluate(model, x, "smoothgrad", attacks={"top-k": {"steps": 2}}, epsilons=0.5)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for module in model.modules():
        assert not module.training
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks


def test_a_mode_that_changes_nothing_is_kept(model: nn.Module, x: Tensor) -> None:
    mg.explain(model.train(), x, GRADIENT)
    assert model.training


def test_functions_are_not_replaced_by_modules_of_their_name() -> None:
    """The import of a module `moreaugrad.report` would do that; the package of pages is
    `moreaugrad.reports`."""
    importlib.import_module("moreaugrad.reports")
    for name in ("explain", "compare", "evaluate", "report"):
        assert isinstance(getattr(mg, name), types.FunctionType)
        assert importlib.util.find_spec(f"moreaugrad.{name}") is None


# Errors in one message


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"methods": "smothgrad"}, ValueError, "did you mean 'smoothgrad'"),
        ({"methods": []}, ValueError, "methods: expected names"),
        ({"methods": ""}, ValueError, "methods: expected names"),
        ({"methods": mg.SmoothGrad}, TypeError, "methods: expected names"),
        ({"methods": [3]}, TypeError, "methods: expected names.* got int"),
        ({"methods": {"smoothgrad": 3}}, TypeError, "got 3 for 'smoothgrad'"),
        ({"methods": {"smoothgrad": {"smples": 3}}}, ValueError, "did you mean 'samples'"),
        ({"methods": "nosuch.module:Class"}, ValueError, "nosuch"),
        ({"data": "none.png"}, ValueError, "none.png"),
        ({"data": []}, TypeError, "data: expected files"),
        ({"data": [inputs()]}, TypeError, "data: expected files.* got Tensor"),
        ({"data": None}, TypeError, "data: expected files.* got NoneType"),
        ({"data": inputs()[0]}, ValueError, r"\[B, C, H, W\]"),
        ({"data": inputs(0)}, ValueError, r"\[B, C, H, W\]"),
        ({"data": inputs().repeat(1, 2, 1, 1)}, ValueError, "channels"),
        ({"data": inputs() * torch.nan}, ValueError, "finite"),
        ({"model": None}, TypeError, "model: expected a name"),
        ({"model": "tiny_models:smoth"}, ValueError, "smooth"),
        ({"target": 9}, ValueError, "from 0 to 3"),
        ({"target": "cat"}, ValueError, "target: expected a class"),
        ({"target": 1.5}, ValueError, "target: expected a class"),
        ({"target": [1, 2]}, ValueError, "target: expected 3 classes"),
        ({"images": 2}, ValueError, "images: .* slice it"),
        ({"device": "cuda:99"}, ValueError, "in memory"),
        ({"samlpes": 2}, TypeError, "did you mean 'samples'"),
        ({"rho": 2}, ValueError, "no setting 'rho'"),
        ({"metrics": "gni"}, ValueError, "did you mean 'gini'"),
        ({"seed": -1}, ValueError, "seed: expected"),
    ],
)
def test_what_cannot_work_is_said_in_one_message(
    model: nn.Module, x: Tensor, changed: dict[str, object], kind: type[Exception], words: str
) -> None:
    given = {"model": model, "data": x, "methods": GRADIENT, **changed}
    with pytest.raises(kind, match=f"(?s){words}") as caught:
        mg.explain(**given)  # type: ignore[arg-type]
    assert type(caught.value) is kind or issubclass(type(caught.value), ValueError)
    assert len(str(caught.value)) < 700


def test_reports_of_no_runs_are_refused(tmp_path: Path) -> None:
    for runs in ([], [tmp_path], [tmp_path / "nosuch"]):
        with pytest.raises(ValueError, match="expected"):
            mg.report(*runs, out=tmp_path / "page")
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize("kept", [True, False])
def test_an_interruption_is_raised(
    model: nn.Module, x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """So that a cell that is stopped is no cell that has finished."""
    real, seen = Units.write, []

    def write(self: Units, *given: object) -> None:
        if len(seen) == 2 * kept:
            raise KeyboardInterrupt
        seen.append(given)
        real(self, *given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Units, "write", write)
        with pytest.raises(KeyboardInterrupt):
            mg.explain(model, x, GRADIENT, out=tmp_path / "run", block=1)
    assert len(mg.explain(model, x, GRADIENT, out=tmp_path / "run", block=1).rows) == 3
