"""`--interactions`: the pairs in the record, in the drawing and on the page; cost and failures."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

import moreaugrad as mg
import tiny_models
from moreaugrad.files.units import Units
from moreaugrad.pictures import read_settings
from moreaugrad.reports.folder import read_config, read_inputs
from moreaugrad.runs.engine import Observer, execute
from moreaugrad.runs.maps.run import MapsRun
from moreaugrad.runs.plans.common import DataPlan, ModelPlan
from moreaugrad.runs.plans.explain import ExplainPlan

SMOOTH = ["one.png", "--model", "tiny_models:smooth"]
TWO = ["photos", "--model", "tiny_models:smooth", "--method", "smoothgrad", "--noise-samples", "4"]
WHERE = "moreaugrad.runs.maps.interactions.interactions"


@pytest.fixture(autouse=True)
def images(tmp_path, monkeypatch):
    """The working folder, with a photo, and `photos/` with three."""
    (tmp_path / "photos").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    Image.fromarray(pixels).save(tmp_path / "one.png")
    np.save(tmp_path / "series.npy", np.zeros((3, 40), dtype=np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record(out, name="one"):
    return json.loads((out / "inputs" / name / "record.json").read_text(encoding="utf-8"))["maps"]


def page(out):
    return (out / "index.html").read_text(encoding="utf-8")


def test_the_record_has_what_the_function_computes(command, images):
    given = ["--methods", "smoothgrad,simple-gradient", "--interactions", "4"]
    done = command("explain", *SMOOTH, *given, "--noise-samples", "8", "--out", "o")
    assert done.code == 0, done
    x = Units(images / "o").tensors("samples/00000")["0"][None]
    model = tiny_models.smooth().module
    for explainer in (mg.SmoothGrad(model, samples=8), mg.SimpleGradient(model)):
        maps = explainer.explain(x)
        own = record(images / "o")[explainer.method]
        expected = mg.interactions(explainer, maps, most=4, per="pixel")
        found = own["interactions"]
        assert found["status"] == expected.status[0].value
        assert found["evaluations"] == int(expected.evaluations[0])
        assert found["entries"] == 4
        assert len(found["pairs"]) == 6
        for pair, other in zip(found["pairs"], expected.strongest(6), strict=True):
            assert {tuple(pair["first"]), tuple(pair["second"])} == {other.first, other.second}
            assert pair["value"] == pytest.approx(other.value, rel=1e-3, abs=1e-6)
            assert pair["error"] == pytest.approx(other.error, rel=1e-2, abs=1e-5)
        shown = read_settings(images / f"o/inputs/one/{explainer.method}.pairs.png")
        assert "of 6 pairs" in shown["picture"]["caption"]
        assert shown["picture"]["caption"] in page(images / "o")
    rows = csv.DictReader((images / "o/records.csv").read_text().splitlines())
    assert [row["interactions.evaluations"] for row in rows] == ["64", "9"]
    assert "interactions = 4" in (images / "o/config.toml").read_text(encoding="utf-8")
    assert "<dt>Pairs</dt>" in page(images / "o")


def test_without_the_option_there_are_none(command, images):
    assert command("explain", *SMOOTH, "--method", "simple-gradient", "--out", "o").code == 0
    assert "interactions" not in record(images / "o")["simple-gradient"]
    assert not list((images / "o").rglob("*.pairs.png"))
    assert "Pairs" not in page(images / "o")


def test_no_curvature_is_reported_with_a_remedy(command, images):
    kinked = ["one.png", "--model", "tiny_models:kinked", "--method", "simple-gradient"]
    done = command("explain", *kinked, "--interactions", "3", "--out", "o")
    assert done.code == 0, done
    found = record(images / "o")["simple-gradient"]["interactions"]
    assert (found["status"], found["ok"], found["pairs"]) == ("no curvature", False, [])
    assert "sigma" in found["remedy"]
    assert "interactions" in done.err
    assert found["remedy"] in done.err
    assert "no pairs: no curvature" in page(images / "o")


@pytest.mark.parametrize(
    ("method", "each"),
    [("simple-gradient", 1 + 2 * 5), ("smoothgrad", 2 * 8 * 5), ("sparse-moreaugrad", 2 * 8 * 5)],
)
def test_the_estimate_counts_them(command, images, method, each):
    given = ("explain", *SMOOTH, "--method", method, "--dry-run", "--json")
    given += ("--noise-samples", "8") if method != "simple-gradient" else ()
    without, counted = (
        json.loads(command(*given, *more).out) for more in ((), ("--interactions", "5"))
    )
    assert counted["evaluations"] - without["evaluations"] == each
    for before, after in zip(without["levels"], counted["levels"], strict=True):
        assert after["evaluations"] - before["evaluations"] == pytest.approx(each)
    assert not (images / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([*SMOOTH, "--interactions", "1"], "2 to 64"),
        ([*SMOOTH, "--interactions", "65"], "2 to 64"),
        ([*SMOOTH, "--interactions", "2.5"], "--interactions"),
        ([*SMOOTH, "--interactions", "4", "--layer", "'0'"], "layer"),
        ([*SMOOTH, "--interactions", "4", "--method", "simple-gradient", "--set",
          "backward=balanced"], "balanced"),
        (["series.npy", "--model", "tiny_models:smooth", "--interactions", "4"], "images"),
        (["--text", "A film.", "--model", "tiny_models:smooth", "--interactions", "4"], "images"),
    ],
)  # fmt: skip
def test_what_has_none_is_refused_in_one_line(command, images, arguments, says):
    done = command("explain", *arguments, "--out", "o")
    done.refused("interactions")
    assert says in done.err
    assert not list((images / "o").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("error", "says"),
    [(RuntimeError("no double backward"), "double backward"), (MemoryError(), "memory")],
)
def test_a_failure_leaves_the_maps_in_place(command, images, monkeypatch, error, says):
    plain = command("explain", *TWO, "--out", "plain")
    assert plain.code == 0, plain

    def failing(*_, **__):
        raise error

    monkeypatch.setattr(WHERE, failing)
    done = command("explain", *TWO, "--interactions", "3", "--out", "o")
    assert done.code == 1
    assert says in done.err
    assert "the interactions of 3 maps left out" in done.err
    for number in range(3):
        file = f"inputs/{number}/smoothgrad.overlay.png"
        assert (images / "o" / file).read_bytes() == (images / "plain" / file).read_bytes()
        assert not (images / f"o/inputs/{number}/smoothgrad.pairs.png").exists()
        found = record(images / "o", str(number))["smoothgrad"]
        assert found["map"] == record(images / "plain", str(number))["smoothgrad"]["map"]
        assert says in found["interactions"]["problem"]
    assert says in page(images / "o")


def test_what_fails_in_a_batch_is_computed_alone(command, images, monkeypatch):
    assert command("explain", *TWO, "--interactions", "3", "--out", "whole").code == 0

    def picky(explainer, maps, **given):
        if len(maps) > 1:
            raise RuntimeError
        return mg.interactions(explainer, maps, **given)

    monkeypatch.setattr(WHERE, picky)
    done = command("explain", *TWO, "--interactions", "3", "--out", "o")
    assert done.code == 0, done
    whole, alone = (read_inputs(Units(images / n), read_config(images / n)[1])
                    for n in ("whole", "o"))  # fmt: skip
    for one, other in zip(whole, alone, strict=True):
        pairs = [r["maps"]["smoothgrad"]["interactions"]["pairs"] for r in (one, other)]
        values = torch.tensor([[pair["value"] for pair in own] for own in pairs])
        torch.testing.assert_close(values[0], values[1])


def test_a_finished_run_is_not_computed_again(command, images, monkeypatch):
    given = ("explain", *TWO, "--interactions", "3", "--out", "o")
    assert command(*given).code == 0
    before = {f: f.read_bytes() for f in (images / "o/inputs").rglob("*") if f.is_file()}
    monkeypatch.setattr(WHERE, lambda *_, **__: pytest.fail("computed again"))
    assert command(*given).code == 0
    assert before == {f: f.read_bytes() for f in (images / "o/inputs").rglob("*") if f.is_file()}
    other = command(*given[:-4], "--interactions", "4", "--out", "o")
    other.refused("interactions")


def test_progress_counts_them(images):
    seen = []

    class Watch(Observer):
        def pace(self, done, total, what):
            seen.append((done, total))

    plan = ExplainPlan(
        data=DataPlan(files=("photos",)), model=ModelPlan(name="tiny_models:smooth"),
        methods={"smoothgrad": {"samples": 4}}, interactions=3, block=2,
    )  # fmt: skip
    execute(MapsRun(plan, watch=Watch()), images / "o")
    done = [at for at, _ in seen]
    assert done == sorted(done)
    assert {of for _, of in seen} == {3 * (4 + 2 * 4 * 3)}
    assert done[-1] == 3 * (4 + 2 * 4 * 3)


def test_a_notebook_has_the_same_option():
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = mg.explain(tiny_models.smooth(), x, "simple-gradient", interactions=3)
    assert found.rows[0]["interactions.status"] == "direct"
    assert found.rows[0]["interactions.entries"] == 3
