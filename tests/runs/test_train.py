"""`train` on small pictures: what it learns, writes and refuses."""

import json
import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from moreaugrad.cli.entry import run
from moreaugrad.data.dataset import IMAGENETTE
from moreaugrad.data.loading import prepare
from moreaugrad.data.writing import write_cells
from moreaugrad.models import load_model
from moreaugrad.models.weights import fit_head
from moreaugrad.penalties.catalogue import TRAINING
from moreaugrad.reports.studies import study_page
from moreaugrad.runs.engine import execute
from moreaugrad.runs.network import weights_digest
from moreaugrad.runs.plans.toml import read_plan
from moreaugrad.runs.plans.train import (
    AugmentPlan,
    LoadingPlan,
    OptimiserPlan,
    ProtocolPlan,
    StartPlan,
    TrainDataPlan,
    TrainPlan,
)
from moreaugrad.runs.train import prepare as preparing
from moreaugrad.runs.train.prepare import PreparedTrain
from moreaugrad.runs.train.run import TrainRun
from moreaugrad.training import PROTOCOLS
from toys import last

LABELS = ("blank", "cross", "dot", "stripe")
EPSILON = {"elastic-net": (0.02, 0.1)}


def draw(folder: Path, labels: tuple[str, ...] = LABELS, each: int = 6) -> Path:
    """Pictures whose class shows in their colour."""
    generator = np.random.default_rng(0)
    for place, label in enumerate(labels):
        (folder / label).mkdir(parents=True)
        for number in range(each):
            pixels = generator.integers(0, 120, (16, 18, 3), dtype=np.uint8)
            pixels[..., place % 3] += 60 + 25 * (place // 3)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    draw(folder / "train")
    draw(folder / "test", each=3)
    return folder


def plan(source: object, **more: Any) -> TrainPlan:
    given: dict[str, Any] = {
        "epochs": 1,
        "batch": 6,
        "data": TrainDataPlan(
            source=str(source), validation=0.2, images=32 if source == "cells" else None
        ),
        "model": StartPlan(name="tiny_models:normalised"),
    }
    return TrainPlan(**(given | more))


def prepared_train(chosen: TrainPlan) -> PreparedTrain:
    return TrainRun(chosen).prepared


def trained(source: object, out: Path, **more: Any) -> dict[str, torch.Tensor]:
    outcome = execute(TrainRun(plan(source, **more)), out)
    assert outcome.complete
    return load_file(out / "last.safetensors")


def protocol(name: str, penalty: str | None, scale: float = 1.0, **settings: Any) -> ProtocolPlan:
    weights = () if penalty is None else EPSILON.get(penalty, (0.05,))
    return ProtocolPlan(
        name=name, penalty=penalty, epsilon=tuple(scale * weight for weight in weights), group=4,
        settings=settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return trained("cells", tmp_path_factory.mktemp("plain") / "run")


CHOICES = [
    *(
        protocol(name, "l1" if "penalty" in kind.needs() else None)
        for name, kind in PROTOCOLS.items()
    ),
    *(protocol("fast", penalty) for penalty in TRAINING if penalty not in ("zero", "l1")),
    protocol("iterative", "group", published=True),
    protocol("iterative", "elastic-net", update="normalised-ascent", steps=2),
]


def title(chosen: ProtocolPlan) -> str:
    return "-".join([chosen.name, chosen.penalty or "none", *chosen.settings])


@pytest.mark.parametrize("chosen", CHOICES, ids=title)
def test_every_protocol_and_penalty(
    chosen: ProtocolPlan, plain: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    found = trained("cells", tmp_path / "run", protocol=chosen)
    assert all(bool(torch.isfinite(value).all()) for value in found.values())
    differ = any(not torch.equal(found[name], plain[name]) for name in plain)
    assert differ == (chosen.name != "plain")


@pytest.mark.parametrize("penalty", ["weighted-l2", "box"])
def test_a_penalty_of_maps_alone_is_refused(penalty: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"penalty: expected one of .*l1.*got {penalty}, .*maps"):
        trained("cells", tmp_path / "run", protocol=protocol("fast", penalty))


@pytest.mark.parametrize(
    "chosen",
    [
        *(protocol(name, "l1", 0) for name in ("fast", "iterative", "momentum", "penalised")),
        *(protocol("fast", penalty, 0) for penalty in ("group", "elastic-net", "squared-l2")),
        protocol("fast", "harmonisation", 0),
        protocol("free", "l1", 0, replays=1),
        protocol("gaussian-noise", None, sigma=0.0),
    ],
    ids=title,
)
def test_epsilon_0_is_plain_training(
    chosen: ProtocolPlan, plain: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    found = trained("cells", tmp_path / "run", protocol=chosen)
    assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_it_learns_and_the_best_epoch_is_reported_and_loads(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, pieces = list[object](), PreparedTrain.pieces
    monkeypatch.setattr(PreparedTrain, "pieces", lambda *of: passes.append(of) or pieces(*of))
    data = TrainDataPlan(source=str(pictures), validation=0.2, test="test")
    chosen = plan(
        pictures, epochs=6, data=data, protocol=protocol("fast", "l1"),
        optimiser=OptimiserPlan(lr=0.01, schedule="one-cycle", name="adamw"),
    )  # fmt: skip
    training = TrainRun(chosen)
    outcome, prepared = execute(training, tmp_path / "run"), training.prepared
    assert len(passes) == 6 + 2  # validation of each epoch; both parts are measured in one pass
    found = training.results(outcome.directory)
    accuracies = [record["validation"]["accuracy"] for record in found["epochs"]]
    assert accuracies[-1] > accuracies[0]
    first = accuracies.index(max(accuracies)) + 1
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert results == found["results"]
    assert results["epoch"] == first
    assert results["validation"]["accuracy"] == max(accuracies)
    assert results["test"]["count"] == 12
    assert {"sign 0.01", "own penalty"} == set(results["test"]["robustness"])

    again = load_model(f"trained:{tmp_path / 'run'}", trust=True)
    assert again.labels == LABELS
    right = count = 0
    for batch in prepared.evaluated(prepared.test).epoch(0):
        right += int((again.module(prepared.input(batch.x)).argmax(1) == batch.y).sum())
        count += len(batch)
    assert right / count == results["test"]["accuracy"]
    card = (tmp_path / "run" / "card.md").read_text(encoding="utf-8")
    assert f"{100 * right / count:.1f} % of 12" in card
    assert 'penalty = "l1"' in card
    assert f'source = "{os.path.relpath(pictures, tmp_path / "run")}"' in card
    size = again.preprocess.crop
    assert f"    resize = {again.preprocess.resize}\n    crop = {size}\n" in card
    tables = study_page(tmp_path / "run").tables
    assert [len(table.rows) for table in tables] == [4, 6]
    assert [row[2].best for _, row in tables[1].rows][first - 1]


def test_convolutions_are_channels_last_and_compute_the_same(pictures: Path) -> None:
    networks = {
        layout: prepared_train(plan(pictures, channels_last=layout)).model.module
        for layout in (None, True, False)
    }
    laid = {
        layout: {
            weight.is_contiguous(memory_format=torch.channels_last)
            for weight in network.parameters()
            if weight.ndim == 4 and weight.shape[1] > 1 < weight.shape[2]
        }
        for layout, network in networks.items()
    }
    assert laid == {None: {True}, True: {True}, False: {False}}
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(networks[True].eval()(x), networks[False].eval()(x))


@pytest.mark.parametrize(("name", "noted"), [("folded", True), ("normalised", False)])
def test_statistics_that_are_folded_into_weights_are_noted_and_may_be_kept(
    pictures: Path, tmp_path: Path, name: str, noted: bool
) -> None:
    model = StartPlan(name=f"tiny_models:{name}")
    for freeze in (False, True):
        given = prepared_train(plan(pictures, model=model, freeze_statistics=freeze))
        assert any("--freeze-statistics" in note for note in given.notes) == (noted and not freeze)
    before = load_model(model.name).module.state_dict()
    found = trained(pictures, tmp_path / "run", model=model, freeze_statistics=True)
    assert torch.equal(found["1.running_var"], before["1.running_var"])
    assert not torch.equal(found["1.weight"], before["1.weight"])


def test_gradients_are_measured_of_as_many_images_as_are_learnt_from(
    pictures: Path, tmp_path: Path
) -> None:
    data = TrainDataPlan(source=str(pictures), validation=0.2, test="test")
    training, counts = TrainRun(plan(pictures, data=data, batch=4)), []
    training.prepared.module.register_forward_pre_hook(
        lambda module, given: counts.append((given[0].requires_grad, len(given[0])))
    )
    assert execute(training, tmp_path / "run").complete
    assert max(count for learnt, count in counts if learnt) == 4
    assert max(count for learnt, count in counts if not learnt) == 12


def test_the_hinge_loss(pictures: Path, tmp_path: Path) -> None:
    fast = protocol("fast", "l1")
    hinge = trained(pictures, tmp_path / "hinge", loss="hinge", protocol=fast)
    other = trained(pictures, tmp_path / "other", protocol=fast)
    assert not torch.equal(hinge["5.weight"], other["5.weight"])


def test_the_parts_of_the_data_do_not_overlap(pictures: Path) -> None:
    prepared = prepared_train(plan(pictures))
    parts = [prepared.training, prepared.validation]
    names = [{part.describe(i) for i in range(len(part))} for part in parts]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 24


def test_test_images_are_not_trained_on(tmp_path: Path) -> None:
    """Where there is no part "test", "val" is taken for it."""
    draw(tmp_path / "train")
    draw(tmp_path / "val")
    data = TrainDataPlan(source=str(tmp_path), validation=0.2, split="val", test="test")
    with pytest.raises(ValueError, match=r"24 of 24 are among them, val/blank/0\.png the first"):
        prepared_train(plan(tmp_path, data=data))
    prepared_train(plan(tmp_path, data=replace(data, split="train")))


def test_a_training_repeats_from_its_own_configuration(pictures: Path, tmp_path: Path) -> None:
    first = trained(pictures, tmp_path / "one", protocol=protocol("fast", "elastic-net"))
    config = tmp_path / "one" / "config.toml"
    table = tomllib.loads(config.read_text(encoding="utf-8"))
    assert table["augment"]["size"] == 16
    again = ["train", "--config", str(config), "--trust", "-q", "--out", str(tmp_path / "two")]
    assert run(again) == 0
    assert all(
        torch.equal(value, first[name])
        for name, value in load_file(tmp_path / "two" / "last.safetensors").items()
    )
    assert (tmp_path / "two" / "config.toml").read_bytes() == config.read_bytes()


def test_classes_that_the_network_knows_keep_their_rows(pictures: Path, tmp_path: Path) -> None:
    some = draw(tmp_path / "some", ("stripe", "dot"))
    prepared = prepared_train(plan(some))
    old = load_model("tiny_models:normalised").module.state_dict()
    new = prepared.module.state_dict()
    # In tiny_models "stripe" is output 0 and "dot" 1; folders are in alphabetical order.
    assert torch.equal(new["5.weight"], old["5.weight"][[1, 0]])
    assert torch.equal(new["5.bias"], old["5.bias"][[1, 0]])
    assert "keeps its rows for the 2 classes" in prepared.notes[0]


def test_cells_in_a_folder_have_the_classes_of_the_builtin_network(tmp_path: Path) -> None:
    write_cells(tmp_path / "cells", counts={"train": 60}, size=16)
    model = StartPlan(name="builtin")
    read = prepared_train(plan(tmp_path / "cells", model=model, augment=AugmentPlan(size=16)))
    assert read.notes == []
    assert read.plan.model.digest == weights_digest(load_model("builtin").module)


def test_imagenette_keeps_the_rows_of_imagenet(data_folder: Path, tmp_path: Path) -> None:
    draw(tmp_path / "train", tuple(IMAGENETTE), each=2)
    weights = data_folder / "models" / "squeezenet1_0-imagenet.safetensors"
    squeezenet = StartPlan(
        name="torchvision:squeezenet1_0", weights=str(weights),
        labels=str(data_folder / "imagenet-classes.txt"),
    )  # fmt: skip
    for model in (squeezenet, replace(squeezenet, labels=None)):
        prepared = prepared_train(plan(tmp_path, model=model, augment=AugmentPlan(size=64)))
        rows = [output for output, _ in IMAGENETTE.values()]
        whole = load_model(model.name, weights=model.weights).module.state_dict()
        kept = prepared.module.state_dict()["classifier.1.weight"]
        assert torch.equal(kept, whole["classifier.1.weight"][rows])


def test_other_classes_get_a_new_last_layer(tmp_path: Path) -> None:
    other = draw(tmp_path / "other", ("apple", "pear", "plum"))
    first, again, seeded = (
        prepared_train(plan(other, seed=seed)).module.state_dict()["5.weight"] for seed in (0, 0, 1)
    )
    assert first.shape == (3, 96)
    assert torch.equal(first, again)
    assert not torch.equal(first, seeded)
    # What is trained so loads again: by the folder, or the network's name with the labels.
    execute(TrainRun(plan(other)), tmp_path / "run")
    loaded = load_model(
        "tiny_models:normalised", tmp_path / "run" / "best.safetensors",
        tmp_path / "run" / "labels.json",
    )  # fmt: skip
    assert loaded.labels == ("apple", "pear", "plum")
    by_folder = load_model(f"trained:{tmp_path / 'run'}", trust=True)
    assert by_folder.labels == loaded.labels
    assert by_folder.preprocess == loaded.preprocess
    (tmp_path / "run" / "model.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"model\.json: is damaged"):
        load_model(f"trained:{tmp_path / 'run'}")
    (tmp_path / "run" / "results.sha256").unlink()
    with pytest.raises(ValueError, match=r"expected the model\.json of a finished training"):
        load_model(f"trained:{tmp_path / 'run'}")
    with pytest.raises(ValueError, match="of a finished training"):
        load_model(f"trained:{tmp_path}")
    assert loaded.module(torch.zeros(1, 3, 16, 16)).shape == (1, 3)


def test_a_pointwise_convolution_is_a_last_layer_too() -> None:
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 5, 1), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
    )  # fmt: skip
    x = torch.ones(2, 3, 6, 6)
    before = module(x)
    assert fit_head(module, 2, rows=[4, 1]) == "1"
    torch.testing.assert_close(module(x), before[:, [4, 1]])
    with pytest.raises(ValueError, match="expected 2 rows of the 2"):
        fit_head(module, 2, rows=[0, 5])
    with pytest.raises(ValueError, match="a linear layer or a 1 x 1 convolution"):
        fit_head(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)), 2)


def test_fresh_weights_are_a_function_of_the_seed() -> None:
    builtin = StartPlan(from_scratch=True)
    data = TrainDataPlan(source="cells", images=40)
    first, again, other = (
        prepared_train(
            TrainPlan(seed=seed, batch=16, data=data, model=builtin, augment=AugmentPlan(size=16))
        )
        for seed in (0, 0, 1)
    )
    assert first.plan.model.digest == again.plan.model.digest != other.plan.model.digest
    trained_weights = prepared_train(TrainPlan(batch=16, data=data, augment=AugmentPlan(size=16)))
    assert trained_weights.plan.model.digest != first.plan.model.digest


def test_a_training_goes_on_from_another_training(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder does not need the other one, nor the folder that the command was given in."""
    monkeypatch.chdir(tmp_path)
    trained(pictures, tmp_path / "first")
    first = load_model("trained:first", trust=True)
    again = StartPlan(name="trained:first", trust=True)
    trained(pictures, tmp_path / "deep" / "second", model=again)
    table = tomllib.loads((tmp_path / "deep" / "second" / "config.toml").read_text())
    assert table["model"]["name"] == "trained:../../first"
    assert read_plan(TrainPlan, tmp_path / "deep/second/config.toml").model.name.endswith("/first")
    (tmp_path / "first").rename(tmp_path / "gone")
    second = load_model(f"trained:{tmp_path / 'deep' / 'second'}", trust=True)
    assert second.labels == first.labels == LABELS
    assert second.preprocess == first.preprocess


def test_a_refused_training_leaves_its_folder_free(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--data", str(pictures), "--model", "tiny_models:normalised",
             "--epochs", "1", "--batch-size", "6", "--optimiser", "sgd",
             "--out", str(tmp_path / "run")]  # fmt: skip
    assert run([*words, "--lr", "1e38"]) == 2
    assert not (tmp_path / "run").exists()
    capsys.readouterr()
    assert run([*words, "--lr", "0.01"]) == 0
    assert "epoch 1 of 1: loss" in capsys.readouterr().err
    assert run([*words, "--lr", "0.02"]) == 2
    assert "holds a run of another configuration" in " ".join(capsys.readouterr().err.split())


def test_a_loss_that_is_not_finite_stops_with_the_last_checkpoint_kept(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["train", "--data", str(pictures), "--model", "tiny_models:normalised", "-q",
             "--epochs", "3", "--batch-size", "6", "--optimiser", "sgd", "--lr", "1e18",
             "--checkpoint-every", "1", "--out", str(out)]  # fmt: skip
    assert run(words) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "finite" in told or "the loss has become" in told
    assert "the checkpoint of step" in told
    assert "smaller --lr" in told
    kept = load_file(out / "last.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in kept.values())
    assert not (out / "card.md").exists()


def test_unreadable_images_are_reported_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = draw(tmp_path / "in")
    (folder / "dot" / "bad.png").write_bytes(b"no picture")
    words = ["train", "--data", str(folder), "--model", "tiny_models:normalised", "-q",
             "--epochs", "1", "--batch-size", "6", "--validation", "0.2"]  # fmt: skip
    assert run([*words, "--out", str(tmp_path / "run")]) == 2
    assert "1 of the 25 images" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
    assert run([*words, "--max-unreadable", "0.1", "--out", str(tmp_path / "run")]) == 0
    assert "bad.png" in capsys.readouterr().err
    assert "cannot be read and are left out" in (tmp_path / "run" / "card.md").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--protocol", "fst"], "did you mean 'fast'"),
        (["--protocol", "fast"], "needs one of l1, group"),
        (["--protocol", "fast", "--penalty", "l2", "--epsilon", "1"], "penalty: expected one of"),
        (["--protocol", "fast", "--penalty", "l1"], "expected the numbers eta"),
        (
            ["--protocol", "fast", "--penalty", "elastic-net", "--epsilon", "1"],
            "the numbers l1, l2",
        ),
        (["--protocol", "fast", "--penalty", "l1", "--epsilon", "a"], "--epsilon: expected fin"),
        (["--protocol", "fast", "--penalty", "l1", "--epsilon=-1"], "got -1"),
        (["--penalty", "l1", "--epsilon", "1"], "the protocol plain takes none"),
        (["--epsilon", "1"], "expected a penalty with it"),
        (["--protocol", "fast", "--penalty", "l1", "--epsilon", "nan"], "epsilon: expected fin"),
        (["--images", "5"], "images and test_images: expected none"),
        (["--protocol", "fast", "--penalty", "harmonisation", "--epsilon", "1"], "has none"),
        (["--protocol", "fast", "--penalty", "l1", "--epsilon", "1", "--set", "stps=3"], "'stps'"),
        (["--validation", "1"], "validation: expected a fraction"),
        (["--batch-size", "50"], "batch: expected at most"),
        (["--shards", "9"], "shards: expected"),
        (["--lr", "0"], "lr: expected"),
        (["--optimiser", "lamb"], "optimiser: expected one of"),
        (["--schedule", "cosin"], "did you mean 'cosine'"),
        (["--amp", "float16"], "amp: expected one of bfloat16"),
        (["--augment-crop", "middle"], "crop: expected one of"),
        (["--test-split", "train"], "test: expected another part"),
        (["--model", "tiny_models:plane"], "'plain'"),
        (["--weights", "none.pt"], "no such file"),
        (["--data", "nowhere"], "nowhere"),
        (["--protocol", "fast", "--penalty", "group", "--epsilon", "1", "--group", "20"], "size"),
        (["--model", "tiny_models:flat", "--size", "8"], "not take images of 8 x 8"),
        (["--loss", "squared"], "loss: expected one of"),
        (
            ["--protocol", "free", "--penalty", "l1", "--epsilon", "1", "--set", "step=a"],
            "step: expected a number, got 'a'",
        ),
        (
            ["--protocol", "fast", "--penalty", "l1", "--epsilon", "1", "--set", "box=no"],
            "box: expected true or false, got 'no'",
        ),
        (
            ["--protocol", "fast", "--penalty", "l1", "--epsilon", "1", "--set", "space=3"],
            "space: expected a table",
        ),
        (
            ["--protocol", "iterative", "--penalty", "l1", "--epsilon", "1", "--set", "steps=true"],
            "steps: expected a whole number",
        ),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    words: list[str], told: str,
) -> None:  # fmt: skip
    start = ["train", "--data", str(pictures), "--model", "tiny_models:normalised", "-q",
             "--batch-size", "6", "--epochs", "1", "--out", str(tmp_path / "run")]  # fmt: skip
    assert run(last([*start, *words])) == 2
    found = " ".join(capsys.readouterr().err.split())
    assert told in found
    assert "Traceback" not in found
    assert not (tmp_path / "run").exists()


def test_workers_read_the_images(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = set()

    def read(*given: Any, **named: Any) -> Any:
        readers.add(named["workers"])
        return prepare(*given, **named)

    monkeypatch.setattr(preparing, "prepare", read)
    data = TrainDataPlan(source=str(pictures), validation=0.2, test="test")
    prepared = prepared_train(plan(pictures, data=data, loading=LoadingPlan(workers=1)))
    assert readers == {1}
    assert prepared.plan.data == prepared_train(plan(pictures, data=data)).plan.data


def test_an_estimate_writes_nothing(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = plan(pictures, epochs=3, protocol=protocol("free", "l1", replays=2))
    found = TrainRun(chosen).estimate()
    assert (found.batches, found.updates) == (9, 2)
    assert found.seconds > 0
    words = ["train", "--data", str(pictures), "--model", "tiny_models:normalised",
             "--batch-size", "6", "--dry-run", "--json"]  # fmt: skip
    assert run(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["batches"] == 30
    assert "keeps its rows for the 4 classes" in told["notes"][0]


def test_an_estimate_names_the_last_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = draw(tmp_path, ("apple", "pear"))
    words = ["train", "--data", str(other), "--model", "tiny_models:normalised",
             "--batch-size", "6", "--dry-run"]  # fmt: skip
    assert run(words) == 0
    assert "is a new one, for the 2 classes" in " ".join(capsys.readouterr().err.split())
    assert run([*words, "--json"]) == 0
    assert "is a new one" in json.loads(capsys.readouterr().out)["notes"][0]


def test_the_log_is_there_for_tensorboard(pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    execute(TrainRun(plan(pictures, epochs=2)), tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "events")).Reload()
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    told = events.Scalars("validation/accuracy")
    assert [event.value for event in told] == pytest.approx(
        [record["validation"]["accuracy"] for record in log]
    )
