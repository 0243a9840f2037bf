"""The command line as a user runs it: results, bad input, and running a result again."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from moreaugrad.cli import entry, perform
from moreaugrad.runs.plans.explain import ExplainPlan

TESTS = Path(__file__).parent
SEARCHED = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
MODEL = ["--model", "tiny_models:smooth"]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": SEARCHED,
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    command = [sys.executable, "-m", "moreaugrad", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with a photo."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    return tmp_path


def test_explain_writes_map_images_record_and_page(photos: Path) -> None:
    done = run(
        "explain", "one.png", *MODEL, "--method", "sparse-moreaugrad", "--out", "o",
        "--export", "npy", cwd=photos,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = photos / "o"
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "sparse-moreaugrad" in page
    folder = out / "inputs" / "one"
    maps = next(iter(load_file(folder / "sparse-moreaugrad.safetensors").values()))
    assert (maps == 0).double().mean().item() == pytest.approx(0.9, abs=0.01)
    exported = np.load(folder / "sparse-moreaugrad.npy")
    assert np.array_equal(exported.reshape(-1), maps.reshape(-1).numpy())
    record = json.dumps(json.loads((folder / "record.json").read_text(encoding="utf-8")))
    assert "converged" in record
    assert "seconds" not in record
    assert (folder / "sparse-moreaugrad.heat.png").stat().st_size > 0


def test_a_result_runs_again_to_the_same_bytes(photos: Path) -> None:
    methods = "simple-gradient,smoothgrad,group-sparse-moreaugrad"
    first = run("compare", "one.png", *MODEL, "--methods", methods, "--out", "a", cwd=photos)
    assert first.returncode == 0, first.stderr
    again = run(
        "compare", "one.png", "--config", "a/config.toml", "--trust", "--out", "b", cwd=photos
    )
    assert again.returncode == 0, again.stderr
    kept = sorted((photos / "a" / "inputs" / "one").iterdir())
    assert len([path for path in kept if path.suffix == ".safetensors"]) == 3
    for path in kept:
        other = photos / "b" / "inputs" / "one" / path.name
        assert path.read_bytes() == other.read_bytes(), path.name


def test_help_does_not_import_torch() -> None:
    code = "import sys, moreaugrad.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


QUICK = {
    "simple-gradient": {}, "sparse-gradient": {}, "deeplift": {}, "smoothgrad": {"samples": 4},
    "integrated-gradients": {"steps": 4}, "moreaugrad": {"sigma": 0},
    "sparse-moreaugrad": {"sigma": 0}, "group-sparse-moreaugrad": {"tolerance": 0.5},
}  # fmt: skip
"""The demo's methods with settings of coarse maps; those by which it is scored are unchanged."""


def quick(plan: ExplainPlan) -> ExplainPlan:
    assert plan.methods.keys() == QUICK.keys()
    assert plan.sweep is not None
    assert plan.compare is not None
    sweep = replace(plan.sweep, images=1, settings=QUICK[plan.sweep.method])
    methods = {name: QUICK[name] for name in plan.compare.methods}
    return replace(plan, methods=QUICK, sweep=sweep, compare=replace(plan.compare, methods=methods))


def test_demo_scores_maps_by_the_ground_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = quick(perform.demo_plan())
    monkeypatch.setattr(perform, "demo_plan", lambda: plan)
    assert entry.run(["demo", "--out", str(tmp_path / "demo")]) == 0
    page = (tmp_path / "demo" / "index.html").read_text(encoding="utf-8")
    assert "AUROC" in page
    assert page.count("Network builtin-elastic-net") == 6
    scores: dict[str, list[float]] = {}
    for file in (tmp_path / "demo").glob("inputs/*/record.json"):
        record = json.loads(file.read_text(encoding="utf-8"))
        assert "compared.sparse-moreaugrad" in record["maps"]
        for key, found in record["maps"].items():
            assert found["target"]["label"] == record["label"]
            if found["metrics"]["auroc"] is not None:  # a map of zeros has none
                scores.setdefault(key, []).append(found["metrics"]["auroc"])
    plain, trained = (np.mean(scores[f"{head}simple-gradient"]) for head in ("", "compared."))
    assert trained > plain
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "index.html" in capsys.readouterr().out
