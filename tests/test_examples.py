"""Each example runs as its users run it, and prints what it promises."""

import ast
import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = {path.stem for path in EXAMPLES.glob("*.py")}


def output(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def percent(text: str, before: str) -> float:
    """The fraction that is printed behind these words."""
    found = re.search(re.escape(before) + r" (\d+)%", text)
    assert found is not None, text
    return int(found[1]) / 100


def test_every_example_is_tested() -> None:
    assert {
        "tabular_groups", "sequence_embedding", "noise_tunnel", "quantus_metrics",
        "train_two_lines", "train_accelerate",
    } == SCRIPTS  # fmt: skip
    assert {path.name for path in EXAMPLES.glob("*.ipynb")} == {"image.ipynb"}


def test_groups_of_features_find_the_causes(capsys: pytest.CaptureFixture[str]) -> None:
    text = output("tabular_groups", capsys)
    machines = re.findall(r"^machine \d: (\w+) [\d.]+, (\w+) [\d.]+ \(", text, re.M)
    assert len(machines) == 5
    assert percent(text, "among the sensors kept:") >= 0.9


def test_letters_find_the_motif(capsys: pytest.CaptureFixture[str]) -> None:
    text = output("sequence_embedding", capsys)
    shown = re.findall(r"^[ACGTacgt]{40}$", text, re.M)
    assert len(shown) == 8
    # Chance is the motif's fraction of the sequence, 7 of 40 letters.
    assert percent(text, "that belong to the motif:") > 0.6


def test_noise_tunnel_and_ours_agree(capsys: pytest.CaptureFixture[str]) -> None:
    text = output("noise_tunnel", capsys)
    cosine = re.search(r"cosine ([\d.]+)", text)
    assert cosine is not None
    assert float(cosine[1]) > 0.99
    assert percent(text, "NoiseTunnel(SparseMoreauGrad)") < percent(text, "MoreauGrad(sigma=0.5)")


def test_two_lines_make_gradients_sparser(capsys: pytest.CaptureFixture[str]) -> None:
    text = output("train_two_lines", capsys)
    found = re.findall(r"^(\w+) training: accuracy ([\d.]+), Gini ([\d.]+)$", text, re.M)
    (plain, *before), (perturbed, *after) = found
    assert (plain, perturbed) == ("plain", "perturbed")
    assert float(after[1]) > float(before[1]) + 0.04
    assert float(before[0]) > 0.4
    assert float(after[0]) > float(before[0]) - 0.05


def test_accelerated_training_is_watched(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("accelerate")
    text = output("train_accelerate", capsys)
    found = re.findall(r"^epoch \d: .*accuracy': ([\d.]+), .*gini': ([\d.]+)", text, re.M)
    assert len(found) == 4
    (_, before), *_, (_, after) = found
    assert float(after) > float(before)


def test_quantus_scores_maps(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("quantus", reason="Quantus is not installed")
    rows = [line.split() for line in output("quantus_metrics", capsys).splitlines()[1:]]
    sparseness = {name: float(value) for name, value, *_ in rows}
    assert sparseness["sparse-moreaugrad-plain"] > sparseness["simple-gradient"]


def test_quantus_is_not_needed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "quantus", None)
    assert "Quantus is not installed" in output("quantus_metrics", capsys)


def run_cells(notebook: dict[str, Any], space: dict[str, Any]) -> list[object]:
    """The values of the cells' last expressions, which a notebook shows."""
    shown = []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]), cell["id"])
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, cell["id"], "exec"), space)
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), cell["id"], "eval"), space))
    return shown


def test_notebook_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = json.loads((EXAMPLES / "image.ipynb").read_text("utf-8"))
    assert notebook["nbformat"] == 4
    monkeypatch.chdir(EXAMPLES)
    space: dict[str, Any] = {"__name__": "__main__"}
    figures = [item for item in run_cells(notebook, space) if hasattr(item, "savefig")]
    assert len(figures) == 2
    assert all(result.ok for result in space["results"].values())
    text = capsys.readouterr().out
    scores = dict(re.findall(r"^([\w-]+) +([\d.]+)(?: average precision)?$", text, re.M))
    chance = float(scores.pop("chance"))
    assert set(scores) == set(space["names"])
    assert all(float(score) > 10 * chance for score in scores.values())


def test_notebook_shows_what_it_made() -> None:
    """Its outputs are stored for readers, small, and without traces of the machine."""
    text = (EXAMPLES / "image.ipynb").read_text("utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    images = [o for cell in cells for o in cell["outputs"] if "image/png" in o.get("data", {})]
    assert len(images) == 2
    assert len(text) < 250_000
    assert not re.search(r'"stderr"|site-packages|/home/|/tmp/', text)
