"""Each example runs as its users run it, and prints what it promises."""

import re
import runpy
import sys
from pathlib import Path

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
        "batches_datasets", "batches_ray", "batches_spark", "array_submitit",  # test_pipelines.py
    } == SCRIPTS  # fmt: skip


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


def test_accelerated_training_is_watched(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    text = output("train_accelerate", capsys)
    names = ("accuracy", "gini")
    numbers = ".*".join(rf"watch/{name}': ([\d.]+)" for name in names)
    printed = re.findall(rf"^epoch \d: .*{numbers}", text, re.M)
    assert len(printed) == 4
    (_, before), *_, (_, after) = printed
    assert float(after) > float(before)
    events = EventAccumulator(str(tmp_path / "logs" / "cells"))
    events.Reload()
    for name, values in zip(names, zip(*printed, strict=True), strict=True):
        logged = {one.step: one.value for one in events.Scalars(f"watch/{name}")}
        expected = dict(enumerate(map(float, values), start=1))
        assert logged == pytest.approx(expected, abs=6e-4)


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
