"""`certify` on small images: what it writes, that it repeats, and what it refuses."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from moreaugrad import SmoothGrad, SparsifiedSmoothGrad
from moreaugrad.certificates import (
    certify,
    certify_pixels,
    estimate_of_explanation,
    probability_curvature,
)
from moreaugrad.cli.entry import run
from moreaugrad.reports.certificates import findings, last_change
from moreaugrad.reports.pixels import three_colours
from moreaugrad.runs.certify import CertifyRun
from moreaugrad.runs.engine import Observer, Outcome, execute
from moreaugrad.runs.plans.common import DataPlan, ModelPlan
from moreaugrad.runs.plans.studies import CertifyPlan

SIGMA = 0.4
CURVES = ["sparsified", "relaxed", "sparse-moreaugrad", "moreaugrad"]
FEW = {"sigma": SIGMA, "sigma_mode": "absolute", "samples": 128, "radii": (0.0, 0.01, 0.1)}
VOTES = 100
"""Of the default method, simple-gradient."""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with two images and a truncated one."""
    folder = tmp_path / "in"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    whole = (folder / "a.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    return folder


def plan(folder: Path, *names: str, model: str = "tiny_models:smooth", **more: Any) -> CertifyPlan:
    files = tuple(str(folder / f"{name}.png") for name in names or ("a",))
    data, network = DataPlan(files=files), ModelPlan(name=model)
    return CertifyPlan(data=data, model=network, **(FEW | more))


def certified(found: CertifyPlan, out: Path, watch: Any = None) -> Outcome:
    return execute(CertifyRun(found, watch=watch), out)


def records(outcome: Outcome) -> list[dict[str, Any]]:
    return list(outcome.run.results(outcome.directory)["inputs"])


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_image_gets_its_curves_as_numbers_and_as_a_figure(images: Path, tmp_path: Path) -> None:
    prepared = CertifyRun(plan(images, "a", "b"))
    outcome = execute(prepared, tmp_path / "out")
    assert [record["input"] for record in records(outcome)] == ["a.png", "b.png"]
    record = read(tmp_path / "out/inputs/b" / "certify.json")
    assert record == json.loads(json.dumps(records(outcome)[1]))
    assert list(record["curves"]) == CURVES
    kinds = [curve["kind"] for curve in record["curves"].values()]
    assert kinds == ["certificate"] * 2 + ["estimate"] * 2
    x = prepared.network.batch([prepared.inputs.input(prepared.inputs.chosen[1], prepared.network)])
    for key, curve in record["curves"].items():
        assert curve["overlap"] == sorted(curve["overlap"], reverse=True)
        assert curve["top"] <= 76  # a tenth of 3 x 16 x 16
        expected = certify(prepared.curves[key], x, radii=FEW["radii"])
        assert curve["overlap"] == expected.overlap[0].tolist()
        assert bool(curve["reason"]) is (curve["kind"] == "estimate")
        if curve["kind"] == "estimate":
            explanation = prepared.curves[key].explain(x)
            exact = estimate_of_explanation(explanation, radii=FEW["radii"], exact=True)
            assert curve["overlap_if_exact"] == exact.overlap[0].tolist()
            assert curve["overlap_if_exact"][0] == 1
    assert record["sigma_in_pixel_range"] == [SIGMA * 0.25] * 2
    assert record["rho"] == pytest.approx(0.5 / probability_curvature(SIGMA))
    assert record["rho_limit"] == pytest.approx(2.066 * SIGMA**2, rel=1e-3)
    assert "seconds" not in json.dumps(record)
    notes = findings(records(outcome), []).notes
    for curve in record["curves"].values():
        reason = f" ({curve['reason']})" if curve["reason"] else ""
        assert notes.count(f"{curve['kind']}: {curve['statement']}{reason}") == 1
    with (tmp_path / "out/inputs/b" / "certify.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 3
    found = [float(row["overlap"]) for row in rows if row["curve"] == "relaxed"]
    assert found == record["curves"]["relaxed"]["overlap"]
    with Image.open(tmp_path / "out/inputs/b" / "certify.png") as image:
        assert image.width > 500
        settings = json.loads(next(iter(v for v in image.info.values() if "sigma" in str(v))))
        assert settings["sigma"] == SIGMA


def test_outputs_are_read_as_the_task_says(images: Path, tmp_path: Path) -> None:
    """Sigmoids instead of a softmax: for the curves, the pixels and the prediction."""
    by_task = {
        task: certified(plan(images, task=task, target=1), tmp_path / task)
        for task in ("multiclass", "multilabel")
    }
    one, other = (records(outcome)[0] for outcome in by_task.values())
    run = by_task["multilabel"].run
    assert isinstance(run, CertifyRun)
    x = run.network.batch([run.inputs.input(run.inputs.chosen[0], run.network)])
    sigmoid = run.network.model.module(x).sigmoid()[0]
    for item in other["prediction"]:
        assert item["probability"] == pytest.approx(float(sigmoid[item["class"]]), abs=1e-4)
    expected = SparsifiedSmoothGrad(
        run.network.model.module, task="multilabel", sigma=SIGMA, sigma_mode="absolute",
        samples=128, variant="sparsified", tau=0.1,
    )  # fmt: skip
    curve = certify(expected, x, 1, radii=FEW["radii"]).overlap[0].tolist()
    assert other["curves"]["sparsified"]["overlap"] == curve
    assert one["curves"] != other["curves"]
    assert all(explainer.task == "multilabel" for explainer in run.methods.values())


def test_it_repeats_to_the_same_bytes(images: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        certified(plan(images), tmp_path / name)
    for path in sorted((tmp_path / "one").rglob("*.*")):
        if path.is_file():
            other = tmp_path / "two" / path.relative_to(tmp_path / "one")
            assert path.read_bytes() == other.read_bytes(), path.name


def test_more_draws_certify_more(images: Path, tmp_path: Path) -> None:
    shares = []
    for samples in (128, 1024):
        outcome = certified(plan(images, samples=samples, tau=0.3), tmp_path / str(samples))
        shares.append(records(outcome)[0]["curves"]["sparsified"]["overlap"][1])
    assert shares[0] < shares[1]
    assert shares[1] > 0


def test_two_sample_and_named_bounds(images: Path, tmp_path: Path) -> None:
    wide = {"samples": 1024, "tau": 0.3}
    found = {}
    for statement in ("population", "two-sample"):
        named = plan(images, statement=statement, bound="clopper-pearson", **wide)
        record = records(certified(named, tmp_path / statement))[0]
        found[statement] = record["curves"]["sparsified"]["overlap"]
        bounds = [record["curves"][key]["bound"] for key in CURVES[:2]]
        assert bounds == ["clopper-pearson", "auto"]
    assert found["two-sample"][0] < found["population"][0]


def test_an_unreadable_image_is_left_out(images: Path, tmp_path: Path) -> None:
    outcome = certified(plan(images, "a", "cut", "b"), tmp_path / "out")
    assert [record["input"] for record in records(outcome)] == ["a.png", "b.png"]
    assert [failure.title for failure in outcome.failures] == ["cut.png"]
    assert "truncated" in read(tmp_path / "out/inputs/cut/certify.json")["problem"]


def test_an_interruption_keeps_what_is_finished(images: Path, tmp_path: Path) -> None:
    class Impatient:
        seen = 0

        def pace(self, done: float, total: float, doing: str) -> None:
            assert 0 <= done <= total
            if self.seen:
                raise KeyboardInterrupt
            self.seen += doing == "a.png"

        def failed(self, failure: object) -> None:
            raise AssertionError(failure)

        def news(self, text: str) -> None: ...

    outcome = certified(plan(images, "a", "b"), tmp_path / "out", Impatient())
    assert outcome.interrupted
    assert (tmp_path / "out/inputs/a" / "certify.png").exists()
    assert not (tmp_path / "out/inputs/b").exists()
    told: list[tuple[float, float]] = []
    watch = Observer()
    watch.pace = lambda done, total, doing: told.append((done, total))  # type: ignore[method-assign]
    assert certified(plan(images, "a", "b"), tmp_path / "out", watch).complete
    assert min(done / total for done, total in told) >= 0.5, "finished images count as done"


def test_an_interruption_before_anything_is_finished_leaves_nothing(
    images: Path, tmp_path: Path
) -> None:
    class Impatient:
        def pace(self, done: float, total: float, doing: str) -> None:
            raise KeyboardInterrupt

        def failed(self, failure: object) -> None: ...

        def news(self, text: str) -> None: ...

    out = tmp_path / "out"
    assert certified(plan(images), out, Impatient()).interrupted
    assert not out.exists()


def test_progress_goes_up_to_all(images: Path, tmp_path: Path) -> None:
    told: list[tuple[float, float]] = []

    class Watching:
        def pace(self, done: float, total: float, doing: str) -> None:
            told.append((done, total))

        def failed(self, failure: object) -> None: ...

        def news(self, text: str) -> None: ...

    certified(plan(images, "cut", "a"), tmp_path / "out", Watching())
    done = [one for one, _ in told]
    assert done == sorted(done)
    assert len(set(done)) > 8
    assert told[-1] == (2 * (4 * 128 + VOTES), 2 * (4 * 128 + VOTES))


def test_an_estimate_of_the_cost(images: Path) -> None:
    found = CertifyRun(plan(images, "a", "b", samples=256)).estimate()
    assert [cost.key for cost in found.costs] == [*CURVES, "simple-gradient, pixels"]
    assert found.evaluations == 2 * (4 * 256 + VOTES)
    assert found.seconds > 0


def test_radii_are_chosen_by_the_noise(images: Path) -> None:
    chosen = CertifyRun(plan(images, radii=())).plan.radii
    assert chosen[0] == 0
    assert chosen[-1] == pytest.approx(2 * SIGMA)
    assert CertifyRun(plan(images, radii=(0.2, 0.1, 0.2))).plan.radii == (0.1, 0.2)


def test_sigma_is_a_fraction_of_the_range_of_inputs(images: Path) -> None:
    """Pixel values from 0 to 1 minus .5, divided by .25: inputs from -2 to 2."""
    relative = plan(images, sigma=0.1, sigma_mode="relative", radii=(0.01,))
    assert CertifyRun(relative).plan.sigma == pytest.approx(0.4)
    assert CertifyRun(relative).plan.radii == pytest.approx((0.04,))


def test_what_changes_is_shown() -> None:
    def record(*curves: list[float | None]) -> dict[str, Any]:
        named = {str(i): {"overlap": shares} for i, shares in enumerate(curves)}
        return {"radii": [0, 1, 2, 3], "curves": named}

    assert last_change(record([1, 0.5, 0, 0], [1, 0, 0, 0])) == 2
    assert last_change(record([1, 1, 1, 1])) == 3
    assert last_change(record([None] * 4, [1, 0, 0, 0])) == 1


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"sigma": 0.0}, "sigma: expected a finite number > 0"),
        ({"samples": 64}, "samples: expected at least 128, got 64"),
        ({"rho": 0.4}, r"rho: expected more than 0 and less than 2.07 sigma\^2 = 0.33"),
        ({"rho": 0.0}, "rho: expected more than 0"),
        ({"top": 0.0}, "top: expected"),
        ({"confidence": 1.0}, "confidence: expected"),
        ({"radii": (-1.0,)}, "radii: expected"),
        ({"statement": "populaton"}, "did you mean 'population'"),
        ({"bound": "chernoff"}, "bound: expected one of"),
        ({"gamma": 0.5}, "gamma: .*from 0 to tau"),
        ({"task": "regression"}, "regression"),
        ({"task": "multilable"}, "did you mean 'multilabel'"),
        ({"target": 9}, "target: expected numbers from 0 to 3"),
        ({"votes": 20}, "votes: expected about 33 or more: .* unanimous .* 256 pixels .* got 20"),
        ({"votes": 0}, "votes: expected at least 1"),
        ({"threshold": 0.4}, "threshold: expected"),
        ({"methods": {"simple-gradiant": {}}}, "method: .*did you mean 'simple-gradient'"),
        ({"methods": {"smoothgrad": {"layer": "0"}}}, "layer: expected None"),
        ({"methods": {"a b": {"method": "smoothgrad"}}}, "'a b': expected a label"),
    ],
)
def test_bad_settings_are_reported_before_anything_is_computed(
    images: Path, more: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        CertifyRun(plan(images, **more))


def command(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run(["certify", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = (
        "--model",
        "builtin",
        "--sigma",
        "0.3",
        "--sigma-mode",
        "absolute",
        "--noise-samples",
        "128",
    )
    out = str(tmp_path / "out")
    image = str(images / "a.png")
    code, told, _ = command(image, *few, "--dry-run", capsys=capsys)
    assert code == 0
    assert "612 gradient evaluations" in told
    assert not Path(out).exists()
    code, told, _ = command(str(images), *few, "--radii", "0,0.1", "--out", out, capsys=capsys)
    assert code == 1  # one of the three cannot be read
    for words in ("sparsified (certificate)", "moreaugrad (estimate)", "input units", "0.1"):
        assert words in told
    code, _, errors = command(image, *few, "--out", out, capsys=capsys)
    assert code == 2
    assert "holds a run of another configuration" in errors
    code, told, _ = command(
        image, *few, "--radii", "0,0.1", "--out", out, "--overwrite", "--json", capsys=capsys
    )
    assert code == 0
    found = json.loads(told)
    assert found["complete"] is True
    assert list(found["inputs"][0]["curves"]) == CURVES
    assert not (Path(out) / "inputs/b").exists()


def test_the_command_refuses(images: Path, tmp_path: Path, capsys: Any) -> None:
    image, out = str(images / "a.png"), str(tmp_path / "out")
    for arguments, told in (
        ((image, "--out", out), "sigma: expected the noise's standard deviation"),
        ((image, "--sigma", "0.3"), "--out: expected a folder"),
        (("--sigma", "0.3", "--model", "builtin", "--out", out), "images: expected"),
        (
            (str(images / "cut.png"), "--model", "builtin", "--sigma", "0.3", "--out", out),
            "cut.png",
        ),
        (
            (image, "--sigma", "0.3", "--radii", "a,b", "--out", out),
            "--radii: expected finite numbers",
        ),
    ):
        code, _, errors = command(*arguments, capsys=capsys)
        assert code == 2
        assert told in errors
        assert not Path(out).exists()


PIXELS: dict[str, Any] = {
    "methods": {"simple-gradient": {}, "few": {"method": "smoothgrad", "samples": 4}}
}


def test_pixels_of_the_maps_of_methods(images: Path, tmp_path: Path) -> None:
    prepared = CertifyRun(plan(images, "a", "b", **PIXELS))
    outcome = execute(prepared, tmp_path / "out")
    found = outcome.run.results(outcome.directory)["pixels"]
    assert [(record["input"], record["method"]) for record in found] == [
        ("a.png", "simple-gradient"), ("a.png", "few"), ("b.png", "simple-gradient"),
        ("b.png", "few"),
    ]  # fmt: skip
    record = read(tmp_path / "out/inputs/b/pixels-few.json")
    assert record == json.loads(json.dumps(found[3]))
    x = prepared.network.batch([prepared.inputs.input(prepared.inputs.chosen[1], prepared.network)])
    smooth = SmoothGrad(prepared.network.model.module, samples=4)
    expected = certify_pixels(smooth, x, sigma=SIGMA, samples=VOTES, confidence=0.95)
    for name, vote in (("certified", None), ("important", True), ("unimportant", False)):
        assert record[name] == expected.fraction(FEW["radii"], vote)[0].tolist()
        at = expected.fraction([expected.within], vote)
        assert record["at_threshold"][name] == float(at)
    assert sum(record["fractions"].values()) == pytest.approx(1)
    assert record["fractions"]["important"] == float(expected.important.double().mean())
    assert record["certified"][0] > record["important"][0] > 0
    assert record["within"] == pytest.approx(SIGMA * 0.6745, rel=1e-3)
    assert (record["evaluations"], record["votes"], record["failed"]) == (400, VOTES, 0)
    stored = load_file(tmp_path / "out/inputs/b/pixels-few.safetensors")
    assert torch.equal(stored["votes"], expected.votes[0])
    assert torch.equal(stored["radius"], expected.radius[0])
    with (tmp_path / "out/inputs/b/pixels-few.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["important"]) for row in rows] == record["important"]
    with (tmp_path / "out/pixels.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 4 * 3
    with Image.open(tmp_path / "out/inputs/b/pixels-few.png") as image:
        assert image.width > 500
    table = (tmp_path / "out/table.md").read_text()
    for words in ("few, certified", "few, important", "pixels-few.png", "class explained at x"):
        assert words in table


def test_three_colours_can_be_told_apart() -> None:
    """In lightness too, for those who see no hues."""
    maps = np.array([[True, False, False]]), np.array([[False, True, False]])
    (row,) = three_colours(*maps) / 255
    light = row @ np.array([0.2126, 0.7152, 0.0722])
    assert np.abs(light[:, None] - light[None])[np.triu_indices(3, 1)].min() > 0.2
    assert row.std(1)[:2].min() > 0.1 > row.std(1)[2]


def test_pixels_resume_by_method(images: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    certified(plan(images, **PIXELS), whole)

    class Impatient(Observer):
        def pace(self, done: float, total: float, doing: str) -> None:
            if doing.startswith("few"):
                raise KeyboardInterrupt

    assert certified(plan(images, **PIXELS), out, Impatient()).interrupted
    stems = [path.stem for path in sorted((out / "inputs/a").glob("*.sha256"))]
    assert stems == ["certify", "pixels-simple-gradient"]
    begun: list[str] = []

    class Watching(Observer):
        def pace(self, done: float, total: float, doing: str) -> None:
            begun.append(doing)

    assert certified(plan(images, **PIXELS), out, Watching()).complete
    assert set(begun) == {"few, pixels", "a.png"}
    for path in sorted(whole.rglob("*.*")):
        if path.is_file():
            assert path.read_bytes() == (out / path.relative_to(whole)).read_bytes(), path.name


def test_a_method_that_does_not_suit_the_network_is_left_out(images: Path, tmp_path: Path) -> None:
    flat = plan(images, model="tiny_models:flat", methods={"simple-gradient": {}, "grad-cam": {}})
    outcome = certified(flat, tmp_path / "out")
    assert [(f.title, f.method) for f in outcome.failures] == [("a.png", "grad-cam")]
    assert len(records(outcome)) == 1
    pixels = outcome.run.results(outcome.directory)["pixels"]
    assert [record["method"] for record in pixels] == ["simple-gradient"]


def test_an_image_that_cannot_be_read_is_reported_once(images: Path, tmp_path: Path) -> None:
    seen: list[object] = []
    watch = Observer()
    watch.failed = seen.append  # type: ignore[method-assign]
    outcome = certified(plan(images, "a", "cut", **PIXELS), tmp_path / "out", watch)
    assert [str(failure) for failure in seen] == [str(failure) for failure in outcome.failures]
    assert len(seen) == 1


def test_the_command_with_methods(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code, told, _ = command(
        str(images / "a.png"), "--model", "builtin", "--sigma", "0.1", "--noise-samples", "128",
        "--methods", "simple-gradient,grad-cam", "--votes", "60", "--threshold", "0.7",
        "--out", str(out), "--json", capsys=capsys,
    )  # fmt: skip
    assert code == 0
    found = json.loads(told)["pixels"]
    assert [record["method"] for record in found] == ["simple-gradient", "grad-cam"]
    assert {record["votes"] for record in found} == {60}
    assert (out / "inputs/a/pixels-grad-cam.png").is_file()


def test_a_image_that_breaks_the_network_is_left_out(images: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 24, 3), dtype=np.uint8)).save(images / "dark.png")
    outcome = certified(plan(images, "a", "dark", model="tiny_models:picky"), tmp_path / "out")
    assert [record["input"] for record in records(outcome)] == ["a.png"]
    assert [failure.title for failure in outcome.failures] == ["dark.png"]


def test_what_runs_out_of_memory_is_tried_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    whole = plan(images)
    with monkeypatch.context() as changed:
        changed.setattr("moreaugrad.runs.certify.curve_record", full)
        with pytest.raises(MemoryError, match="batch-size"):
            certified(whole, tmp_path / "out")
    found = certified(whole, tmp_path / "out")
    assert not found.failures
    assert found.finished == found.units
