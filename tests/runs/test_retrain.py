"""Studies that train networks: what they change, that they go on, and that they tell the truth."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from moreaugrad.cli.entry import run
from moreaugrad.data.augment import Augment
from moreaugrad.data.examples import open_examples
from moreaugrad.metrics import importance_ranks
from moreaugrad.metrics.roar import BOTTOM, TOP
from moreaugrad.runs.directory import RunDirectory
from moreaugrad.runs.engine import execute
from moreaugrad.runs.plans.retrain import DiffRoarPlan, LabelsPlan, StabilityPlan
from moreaugrad.runs.plans.toml import plan_toml, read_plan
from moreaugrad.runs.plans.train import (
    AugmentPlan,
    ProtocolPlan,
    StartPlan,
    TrainDataPlan,
    TrainPlan,
)
from moreaugrad.runs.processes import Processes
from moreaugrad.runs.retrain import diffroar
from moreaugrad.runs.retrain.diffroar import DiffRoarRun, Ranks, masked_examples
from moreaugrad.runs.retrain.pairs import LabelsRun, StabilityRun, drawn, exchange, shuffled
from moreaugrad.runs.retrain.run import settled_training
from moreaugrad.runs.train import prepare as preparing
from moreaugrad.runs.train.run import Trainer
from toys import normal

TESTS = Path(__file__).parents[1]
SEARCHED = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
SIDE, WHERE = 16, {"cross": (0, 0), "dot": (0, 8), "stripe": (8, 0), "blank": (8, 8)}
"""Each class has a bright square of its own, at a place of its own; the rest is noise."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(1)
    for part, count in (("train", 40), ("val", 20)):
        for label, (row, column) in WHERE.items():
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(64, 192, (SIDE, SIDE, 3), dtype=np.uint8)
                pixels[row + 2 : row + 5, column + 2 : column + 5] = 255
                Image.fromarray(pixels).save(folder / part / label / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    assert run(["train", "--data", str(data), "--test-split", "val", "--model", "tiny_models:flat",
                "--from-scratch", "--epochs", "3", "--batch-size", "16", "--lr", "0.003",
                "--no-flip", "-q", "--out", str(out)]) == 0  # fmt: skip
    return out


def test_processes_have_a_gpu_each_or_share_them(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, device: str, **__: object) -> None:
        raise InterruptedError(device)

    monkeypatch.setattr(preparing, "load_model", stop)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    network = StartPlan(name="builtin")
    training = TrainPlan(
        data=TrainDataPlan(source=str(data), test="val"), model=network, device="cuda"
    )
    for rank, own in ((0, "cuda"), (1, "cuda:1"), (3, "cuda:3"), (4, "cuda"), (6, "cuda:2")):
        study = StabilityRun(
            StabilityPlan(training=training), Processes(rank=rank + 7, size=14, local_rank=rank)
        )
        with pytest.raises(InterruptedError, match=f"^{own}$"):
            study.start(0)
    assert Processes(rank=1, size=2, local_rank=1).own("cpu") == "cpu"
    assert Processes(rank=1, size=2, local_rank=1).own("cuda:0") == "cuda:0"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert Processes(rank=1, size=2, local_rank=1).own("cuda") == "cuda"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def roar(trained: Path, out: Path, *more: str) -> list[str]:
    return ["retrain", "diffroar", str(trained), "--trust", "--levels", ".1,.9", "--seeds", "0,1",
            "-q", *more, "--out", str(out)]  # fmt: skip


@pytest.fixture(scope="module")
def roared(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("roar") / "run"
    assert run(roar(trained, out)) == 0
    return out


def test_masks_keep_what_is_ranked(data: Path) -> None:
    examples = open_examples(data, split="train").subset([5, 3, 90])
    ranks = importance_ranks(normal(3, 3, SIDE, SIDE, seed=2)).numpy()
    order = np.argsort(examples.ids.numpy())
    known = Ranks(ids=examples.ids.numpy()[order], values=ranks[order].astype(np.uint16))
    fill = torch.tensor([1, 2, 3], dtype=torch.uint8)
    held = Augment.evaluation(SIDE)
    for end in (TOP, BOTTOM):
        masked = masked_examples(examples, held, known, 0.25, end, fill)
        for place in range(3):
            picture, attention = masked.pixels(place)
            assert attention is None
            whole = examples.pixels(place)[0]
            first = ranks[place] < 192 if end == BOTTOM else ranks[place] >= 576
            kept = (first if end == TOP else ranks[place] < 192).transpose(1, 2, 0)
            assert kept.sum() == 192
            assert np.array_equal(picture, np.where(kept, whole, fill.numpy()))
    assert np.array_equal(
        masked_examples(examples, held, known, 1.0, TOP, fill).pixels(2)[0], examples.pixels(2)[0]
    )


def test_permuted_labels_are_as_many_and_wrong(data: Path) -> None:
    examples = open_examples(data, split="train")
    found = shuffled(examples, 0)
    assert torch.equal(found.labels.bincount(), examples.labels.bincount())
    assert 0.1 < (found.labels == examples.labels).double().mean() < 0.4
    assert not torch.equal(found.labels, shuffled(examples, 1).labels)
    assert found.describe(7) == examples.describe(7)


def test_exchanged_images_come_from_the_reserve(data: Path) -> None:
    examples, reserve = open_examples(data, split="train"), open_examples(data, split="val")
    found = exchange(examples, reserve, 16, 3)
    assert len(found) == 160
    names = [found.describe(i) for i in range(160)]
    came = [name for name in names if name.startswith("val/")]
    assert came == [reserve.describe(i) for i in drawn(80, 16, 3, 1)]
    assert len(set(names)) == 160
    assert len(set(found.ids.tolist())) == 160
    for place in (0, 150):
        assert found.classes[int(found.labels[place])] in names[place]
        whole = Image.open(data / names[place])
        assert np.array_equal(found.pixels(place)[0], np.asarray(whole))
    assert exchange(examples, reserve, 0, 3) is examples


def test_what_diffroar_writes(roared: Path) -> None:
    found = json.loads((roared / "results.json").read_text())
    assert min(found["all"]) > 0.9
    assert set(found["orders"]) == {"simple-gradient", "random"}
    for order in found["orders"].values():
        gaps = np.subtract(order["top"], order["bottom"])
        assert order["by_level"] == pytest.approx(gaps.mean(1))
        assert order["low"] < order["mean"] < order["high"]
    table = (roared / "table.md").read_text()
    assert "| simple-gradient, 10 % kept |" in table
    assert "| random, 90 % kept |" in table
    assert {path.name for path in roared.iterdir()} == {
        "config.toml", "environment.json", "records", "results.json", "table.md", "tables.json",
        "index.html", "index.sha256",
    }  # fmt: skip


def test_diffroar_distinguishes_a_good_order_from_a_bad_one(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Known:
        """Ranks the places of all four squares first (or last), so that masks tell no label."""

        def __init__(self, sign: int) -> None:
            self.sign = sign

        def attribute(self, x: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
            places = torch.zeros(SIDE, SIDE)
            for row, column in WHERE.values():
                places[row + 2 : row + 5, column + 2 : column + 5] = 1
            generator = torch.Generator().manual_seed(len(x))
            noise = torch.rand(x.shape, generator=generator)
            return noise + (places if self.sign > 0 else 1 - places)

    known = {label: Known(int(label)) for label in ("+1", "-1")}
    monkeypatch.setattr(diffroar, "explainers", lambda *_: known)
    training = read_plan(TrainPlan, trained / "config.toml", trust=True)
    plan = DiffRoarPlan(
        explained=str(trained), training=training, levels=(0.1,), seeds=(0, 1),
        methods={label: {} for label in known},
    )  # fmt: skip
    study = DiffRoarRun(plan)
    found = study.results(execute(study, tmp_path / "run").directory)["orders"]
    assert found["+1"]["mean"] > 0.4
    assert found["-1"]["mean"] < -0.4
    assert abs(found["random"]["mean"]) < 0.2


def test_an_interrupted_study_goes_on_to_the_same_bytes(
    trained: Path, roared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real, seen = tmp_path / "run", Trainer.step, []

    def step(self: Trainer, *given: object, **named: object) -> object:
        seen.append(given)
        if len(seen) == 122:
            raise KeyboardInterrupt
        return real(self, *given, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        assert run(roar(trained, out)) == 130
    assert not (out / "table.md").exists()
    assert (out / "ranks").exists()
    before = len(list((out / "records").glob("*.json")))
    assert 2 <= before < 19
    # The training that was cut has its checkpoint, and is not begun again.
    assert len(list((out / "training").iterdir())) == 1
    assert run(roar(trained, out)) == 0
    ours, theirs = tree(out), tree(roared)
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} <= {"config.toml"}


def test_other_settings_are_refused(
    trained: Path, roared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(roar(trained, roared, "--unit", "pixel")) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "unit is element there, pixel here" in told


def test_where_the_data_lie_is_no_setting(
    data: Path, trained: Path, roared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, moved = tmp_path / "roar", tmp_path / "elsewhere"
    shutil.copytree(roared, out)
    shutil.copytree(trained, moved / "run")
    shutil.copytree(data, moved / "data")
    config = moved / "run" / "config.toml"
    text = config.read_text(encoding="utf-8")
    old = tomllib.loads(text)["data"]["source"]
    config.write_text(text.replace(f'"{old}"', '"../data"'), encoding="utf-8")
    assert run(roar(moved / "run", out)) == 0
    ours, theirs = tree(out), tree(roared)
    assert ours.pop("config.toml") != theirs.pop("config.toml")
    for name in ("index.html", "index.sha256"):  # which shows the configuration
        assert ours.pop(name) != theirs.pop(name)
    assert ours == theirs
    Image.new("RGB", (SIDE, 3)).save(moved / "data" / "val" / "dot" / "0.png")
    assert run(roar(moved / "run", out)) == 2
    assert "training.data.digest is" in " ".join(capsys.readouterr().err.split())


def stability(trained: Path, out: Path) -> list[str]:
    return ["retrain", "stability", "--training", str(trained / "config.toml"), "--trust",
            "--images", "12", "--exchanged", "0,.1", "--epochs", "1", "-q", "--out", str(out),
            "--methods", "simple-gradient,smoothgrad", "--set", "smoothgrad.samples=4"]  # fmt: skip


def test_two_processes_find_the_same_stability(trained: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(stability(trained, one)) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "PYTHONPATH": SEARCHED, "OMP_NUM_THREADS": "1",
                   "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # fmt: skip
    code = [sys.executable, "-m", "moreaugrad", *stability(trained, two)]
    started = [
        subprocess.Popen(code, env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(timeout=240) for process in started] == [0, 0]
    assert tree(one) == tree(two)
    found = json.loads((one / "results.json").read_text())
    assert [network["exchanged"] for network in found["networks"]] == [0, 0, 0.1, 0.1]
    rows = {(row["group"], row["metric"]): row for row in found["similarity"]}
    assert rows["0% exchanged", "ssim"]["defined"] == 12
    assert 0 < rows["10% exchanged", "spearman"]["mean"] < 1
    assert {row["method"] for row in found["similarity"]} == {"simple-gradient", "smoothgrad"}
    told = tomllib.loads((one / "config.toml").read_text())["methods"]
    assert told == {"simple-gradient": {}, "smoothgrad": {"samples": 4}}


def test_networks_are_compared_on_what_none_has_learnt(data: Path) -> None:
    plan = TrainPlan(
        batch=16, data=TrainDataPlan(source=str(data), test="val"), augment=AugmentPlan(size=SIDE),
        model=StartPlan(name="tiny_models:flat"),
    )  # fmt: skip
    study = StabilityRun(StabilityPlan(training=plan, seeds=(0, 1, 2), exchanged=(0.0, 0.1)))
    used, tested, learnt = set(), [], set()
    for arm in study.units.values():
        changed = study.change(arm, study.start(arm.seed), RunDirectory(Path(), "", StabilityPlan))
        assert changed.test is not None
        names = [changed.training.describe(i) for i in range(len(changed.training))]
        used |= set(names)
        assert sum(name.startswith("val/") for name in names) == round(arm.exchanged * 144)
        if not arm.exchanged:
            learnt.add(tuple(names))
        tested.append({changed.test.describe(i) for i in range(len(changed.test))})
    assert all(names == tested[0] for names in tested)
    assert not tested[0] & used
    assert len(tested[0]) > 40
    assert len(learnt) == 1  # the seed alone makes the difference


def test_permuted_labels_are_reported(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(["retrain", "labels", "--training", str(trained / "config.toml"), "--trust",
                "--seeds", "0,1", "--images", "10", "--epochs", "12", "-q",
                "--out", str(out)]) == 0  # fmt: skip
    found = json.loads((out / "results.json").read_text())
    own, permuted = found["networks"][0], found["networks"][2]
    assert own["training_accuracy"] > 0.8
    assert own["accuracy"] > 0.8
    assert permuted["permuted"]
    assert permuted["training_accuracy"] > 0.95
    assert permuted["accuracy"] < 0.6
    rows = {(row["group"], row["metric"]): row["mean"] for row in found["similarity"]}
    assert rows["permuted labels", "spearman-signed"] < rows["another seed", "spearman-signed"]
    table = (out / "table.md").read_text()
    assert "| permuted labels, seed 0 | 100.0 |" in table
    assert "train for more epochs" not in table
    again = LabelsRun(read_plan(LabelsPlan, out / "config.toml", trust=True))
    text = (out / "config.toml").read_text(encoding="utf-8")
    assert text.partition("\n")[2] == plan_toml(again.plan, out)
    weak = [network | {"training_accuracy": 0.94} for network in found["networks"]]
    training = read_plan(TrainPlan, trained / "config.toml", trust=True)
    study = LabelsRun(LabelsPlan(training=training))
    (note,) = study.findings(found | {"networks": weak}).notes
    assert "2 of the networks on permuted labels know fewer than 95.0 %" in note


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["stability", "--seeds", "0"], "seeds: expected 2 or more different numbers"),
        (["stability", "--exchanged", "0.9"], "leave some of the 80 test images"),
        (["stability", "--metrics", "gini"], "metrics: expected one of normalised-distance"),
        (["labels", "--seeds", "0,0.5"], "expected whole numbers"),
        (["labels", "--seeds", "3,3"], "seeds: expected 2 or more different numbers"),
        (["labels", "--methods", "gradients"], "method: expected one of"),
        (["labels", "--set", "kept=.5"], "simple-gradient has no setting 'kept'; did you mean"),
        (["labels", "--set", "keep=2"], "in (0, 1], got 2"),
        (["stability", "--set", "keep=all"], "keep: expected a number, got 'all'"),
    ],
)
def test_bad_studies_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    more: list[str], message: str,
) -> None:  # fmt: skip
    kind, *options = more
    config = ["--trust", "--training", str(trained / "config.toml")]
    assert run(["retrain", kind, *config, *options, "-q", "--out", str(tmp_path / "x")]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_diffroar_takes_the_test_part_of_the_configuration(data: Path, tmp_path: Path) -> None:
    """Where the explained training was measured on none."""
    explained = TrainPlan(data=TrainDataPlan(source=str(data)), augment=AugmentPlan(size=SIDE))
    (tmp_path / "config.toml").write_text(plan_toml(explained, tmp_path))
    (tmp_path / "best.safetensors").write_bytes(b"")
    tested = replace(explained, data=replace(explained.data, test="val"))
    study = DiffRoarRun(DiffRoarPlan(explained=str(tmp_path), training=tested))
    assert study.explained.data.test == study.plan.training.data.test == "val"
    with pytest.raises(ValueError, match="given by --training"):
        DiffRoarRun(DiffRoarPlan(explained=str(tmp_path), training=explained))


def test_diffroar_refuses_penalties_of_attention(data: Path, tmp_path: Path) -> None:
    """Masked images have no attention maps."""
    plain = TrainPlan(data=TrainDataPlan(source=str(data)), augment=AugmentPlan(size=SIDE))
    (tmp_path / "config.toml").write_text(plan_toml(plain, tmp_path))
    (tmp_path / "best.safetensors").write_bytes(b"")
    protocol = ProtocolPlan(name="fast", penalty="harmonisation", epsilon=(0.1,))
    guided = replace(plain, protocol=protocol, data=replace(plain.data, test="val"))
    with pytest.raises(ValueError, match=r"attention maps.*harmonisation"):
        DiffRoarRun(DiffRoarPlan(explained=str(tmp_path), training=guided))


def test_diffroar_needs_a_finished_training(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[data]\nsource = "{data}"\n')
    assert run(roar(tmp_path, tmp_path / "x")) == 2
    assert "holds no best.safetensors" in " ".join(capsys.readouterr().err.split())
    assert run(["retrain", "labels", "--training", str(config), "--out", str(tmp_path / "x")]) == 2
    assert "data.test: expected a part" in " ".join(capsys.readouterr().err.split())


def test_labels_and_the_start_are_part_of_a_study(tmp_path: Path, trained: Path) -> None:
    folder, names = tmp_path / "data", ("train/a.png", "train/b.png", "test/c.png")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIDE, SIDE)).save(folder / name)
    own = shutil.copytree(trained, tmp_path / "own")
    found = []
    for labels, touched in (((0, 1, 1), False), ((1, 0, 1), False), ((1, 0, 1), True)):
        rows = [f"{name},{label}" for name, label in zip(names, labels, strict=True)]
        (folder / "labels.csv").write_text("\n".join(["file,class_index", *rows]))
        training = TrainPlan(
            data=TrainDataPlan(source=str(folder), layout="listed", test="test"),
            model=StartPlan(name=f"trained:{own}", from_scratch=touched),
        )
        settled = settled_training(LabelsPlan(), training)
        found.append((settled.data.digest, settled.model.digest))
    assert found[0][0] != found[1][0] == found[2][0]
    assert found[0][1] == found[1][1] != ""
    assert found[2][1] == ""


def test_a_method_that_does_not_suit_the_network_is_refused_before_training(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def begun(*_: object) -> None:
        pytest.fail("a training has begun")

    monkeypatch.setattr("moreaugrad.runs.train.run.TrainRun.work", begun)
    command = ["retrain", "stability", "--training", str(trained / "config.toml"), "--trust",
               "--seeds", "0,1", "--exchanged", "0", "--images", "2", "--methods", "grad-cam",
               "--out", str(tmp_path / "out")]  # fmt: skip
    assert run(command) == 2
    assert "grad-cam" in capsys.readouterr().err
