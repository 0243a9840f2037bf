"""Code that a file names is run with consent alone, and files elsewhere are reported."""

import json
import os
import shutil
import subprocess
import sys
import warnings

import pytest

from moreaugrad.data.layouts import open_dataset
from moreaugrad.models import load_model
from moreaugrad.models.loading import own_code
from moreaugrad.runs.maps.run import MapsRun
from moreaugrad.runs.plans.common import ModelPlan
from moreaugrad.runs.plans.explain import ExplainPlan
from moreaugrad.runs.plans.toml import read_plan
from moreaugrad.runs.plans.train import TrainPlan
from moreaugrad.runs.train import TrainRun

CODE = """
from pathlib import Path
import tiny_models

Path(__file__).with_name("ran").touch()
smooth = tiny_models.smooth
"""
REFUSED = r"names planted:smooth as its network, code .*--trust .*trust=True"


@pytest.fixture
def planted(photos, tmp_path, monkeypatch):
    """The working folder, with code that leaves a file `ran` when it is imported, a trained network
    and configurations that name it."""
    for name in ("data", "one.png", "trained"):
        copy = shutil.copytree if (photos / name).is_dir() else shutil.copy
        copy(photos / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planted.py").write_text(CODE)
    path = tmp_path / "trained" / "model.json"
    path.write_text(path.read_text().replace("tiny_models:", "planted:"))
    (tmp_path / "trained" / "config.toml").write_text(
        'batch = 4\n[data]\nsource = "cells"\nimages = 8\ntest_images = 4\nvalidation = 0.5\n'
        'test = "test"\n[augment]\nsize = 16\n[model]\nname = "planted:smooth"\n'
    )
    network = '[model]\nname = "planted:smooth"\n'
    explain = '[data]\nfiles = ["one.png"]\n[methods.simple-gradient]\n'
    (tmp_path / "explain.toml").write_text(explain + network)
    beside = '[compare.methods.simple-gradient]\n[compare.model]\nname = "planted:smooth"\n'
    (tmp_path / "beside.toml").write_text(explain + '[model]\nname = "builtin"\n' + beside)
    (tmp_path / "evaluate.toml").write_text(
        '[data]\nsource = "data"\nimages = 1\n[methods.simple-gradient]\n' + network
    )
    (tmp_path / "train.toml").write_text(
        'epochs = 1\nbatch = 1\n[data]\nsource = "data"\nsplit = "train"\nvalidation = 0.5\n'
        "[augment]\nsize = 16\n" + network
    )
    yield tmp_path
    sys.modules.pop("planted", None)


TRAINED = ("--model", "trained:trained")
GRADIENT = ("--method", "simple-gradient")
RUN = ("--out", "results")
COMMANDS = {
    "explain, trained": ("explain", "one.png", *TRAINED, *GRADIENT, *RUN),
    "explain, beside": (
        "explain", "one.png", "--model", "tiny_models:smooth", "--compare-with", "trained:trained",
        *GRADIENT, *RUN,
    ),
    "compare": ("compare", "one.png", *TRAINED, "--methods", "simple-gradient", *RUN),
    "sweep": ("sweep", "one.png", *TRAINED, "--over", "sigma", "--values", "0.1",
              "--method", "smoothgrad", "--set", "samples=2", *RUN),
    "certify": ("certify", "one.png", *TRAINED, "--sigma", "0.1", "--noise-samples", "128", *RUN),
    "evaluate": ("evaluate", "--data", "data", *TRAINED, "--methods", "simple-gradient", *RUN),
    "sanity": ("sanity", "--data", "data", *TRAINED, "--images", "1", "--seeds", "0", *RUN),
    "visualise": ("visualise", *TRAINED, "--classes", "0", "--set", "steps=1", *RUN),
    "train": ("train", "--data", "data", *TRAINED, "--batch-size", "1", "--epochs", "1",
              "--validation", "0.5", *RUN),
    "explain, configured": ("explain", "--config", "explain.toml", *RUN),
    "compare, configured": ("compare", "--config", "explain.toml", *RUN),
    "sweep, configured": ("sweep", "--config", "explain.toml", "--over", "sigma", "--values",
                          "0.1", "--method", "smoothgrad", "--set", "samples=2", *RUN),
    "beside, configured": ("explain", "--config", "beside.toml", *RUN),
    "evaluate, configured": ("evaluate", "--config", "evaluate.toml", *RUN),
    "train, configured": ("train", "--config", "train.toml", *RUN),
    "dry run": ("explain", "--config", "explain.toml", "--dry-run"),
    "retrain diffroar": ("retrain", "diffroar", "trained", "--levels", ".5", "--seeds", "0",
                         "--no-control", "--epochs", "1", *RUN),
    "retrain stability": ("retrain", "stability", "--training", "trained/config.toml",
                          "--exchanged", "0", "--epochs", "1", *RUN),
    "retrain labels": ("retrain", "labels", "--training", "trained/config.toml", "--epochs", "1",
                       *RUN),
}  # fmt: skip


@pytest.mark.parametrize("kind", COMMANDS)
def test_code_that_a_file_names_runs_with_consent_alone(command, planted, kind):
    command(*COMMANDS[kind]).refused("planted:smooth")
    assert not (planted / "ran").exists()
    assert not (planted / "results").exists()
    done = command(*COMMANDS[kind], "--trust")
    assert (planted / "ran").exists(), done
    # Eight cells are too few to train again, which is found when the network is there.
    assert done.code == 0 or kind.startswith("retrain"), done


NAMED = {
    "explain": ("--model", "planted:smooth"),
    "evaluate": ("--model", "planted:smooth"),
    "train": ("--model", "planted:smooth"),
    "beside": ("--compare-with", "planted:smooth"),
}


@pytest.mark.parametrize("kind", NAMED)
def test_naming_the_code_on_the_command_line_is_consent(command, planted, kind):
    name = "explain" if kind == "beside" else kind
    done = command(name, "--config", f"{kind}.toml", *NAMED[kind], *RUN)
    assert done.code == 0, done
    assert (planted / "ran").exists()


@pytest.mark.parametrize("kind", ["explain", "beside"])
def test_a_command_line_consents_to_what_it_names_alone(command, planted, kind):
    """The code of the other network, which the file names, is not run."""
    other = ("--model" if kind == "beside" else "--compare-with", "tiny_models:smooth")
    command("explain", "--config", f"{kind}.toml", *other, *RUN).refused("planted:smooth")
    assert not (planted / "ran").exists()


def test_a_run_goes_on_when_the_command_line_names_the_code_again(command, planted):
    words = ("evaluate", "--data", "data", "--model", "planted:smooth", "--images", "1",
             "--methods", "simple-gradient", *RUN)  # fmt: skip
    assert command(*words).code == 0
    assert command(*words).code == 0
    config = ("evaluate", "--config", "results/config.toml", *RUN)
    command(*config).refused("results/config.toml")
    assert command(*config, "--trust").code == 0
    (planted / "ran").unlink()
    sys.modules.pop("planted")
    assert command("report", "results", "--out", "page").code == 0
    assert not (planted / "ran").exists(), "a report ran the network's code"


@pytest.mark.parametrize("name", ["explain", "evaluate", "train"])
@pytest.mark.parametrize("line", ["trust = true", 'named_in = ""'])
def test_a_file_cannot_consent_for_itself(command, planted, name, line):
    path = planted / f"{name}.toml"
    path.write_text(path.read_text() + f"{line}\n")
    command(name, "--config", path, *RUN).refused("there is no such setting")
    assert not (planted / "ran").exists()


def test_consent_is_not_kept_in_a_configuration(command, planted):
    assert command("explain", "--config", "explain.toml", "--trust", *RUN).code == 0
    text = (planted / "results" / "config.toml").read_text()
    assert "planted:smooth" in text
    assert "trust" not in text
    assert "named_in" not in text


def test_in_python_consent_is_an_argument(planted):
    with pytest.raises(ValueError, match=REFUSED):
        load_model("trained:trained")
    with pytest.raises(ValueError, match=REFUSED):
        MapsRun(read_plan(ExplainPlan, "explain.toml"))
    with pytest.raises(ValueError, match=REFUSED):
        TrainRun(read_plan(TrainPlan, "train.toml"))
    assert not (planted / "ran").exists()
    assert load_model("trained:trained", trust=True).labels
    assert MapsRun(read_plan(ExplainPlan, "explain.toml", trust=True)).inputs.chosen
    assert load_model("planted:smooth").labels
    assert load_model(**ModelPlan(name="planted:smooth").arguments()).labels


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("builtin", False), ("torchvision:resnet18", False), ("timm:x:y", False),
        ("hf:a/b", False), ("trained:x:y", False), ("os:system", True), ("Torchvision:x", True),
        (" torchvision:x", True), ("torchvision.models:resnet18", True), ("timm", False),
        ("hf :x", True), ("moreaugrad.cli:main", True), ("a.b:c", True),
    ],
)  # fmt: skip
def test_all_but_the_known_sources_are_code(name, code):
    assert own_code(name) is code


def test_code_beside_the_weights_of_transformers_is_never_run(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    mark = tmp_path / "ran"
    folder = tmp_path / "network"
    folder.mkdir()
    own = {"AutoConfig": "own.Own", "AutoModelForImageClassification": "own.Model",
           "AutoImageProcessor": "own.Own"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": own}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"auto_map": own}))
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: pass\nclass Model: pass")
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # it asks, and waits for an answer
    with pytest.raises(ValueError, match=r"hf:.*network"):
        load_model(f"hf:{folder}", trust=True)
    assert not mark.exists()


def test_modules_of_the_working_folder_are_no_libraries(tmp_path):
    """`python -m` searches it first."""
    for name in ("torch", "captum", "cyclopts", "rich", "PIL", "tomli_w"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')")
    done = subprocess.run(
        [sys.executable, "-m", "moreaugrad", "methods", "--json"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("what", ["weights", "labels"])
@pytest.mark.parametrize("how", ["absolute", "above", "link"])
def test_a_trained_folder_holds_its_own_files(command, photos, tmp_path, what, how):
    trained = tmp_path / "run" / "trained"
    shutil.copytree(photos / "trained", trained)
    file = json.loads((trained / "model.json").read_text())
    elsewhere = tmp_path / file[what]
    (trained / file[what]).rename(elsewhere)
    if how == "link":
        (trained / file[what]).symlink_to(elsewhere)
    else:
        file[what] = str(elsewhere) if how == "absolute" else f"../../{file[what]}"
        (trained / "model.json").write_text(json.dumps(file))
    words = ("explain", "one.png", "--model", f"trained:{trained}", "--trust", *GRADIENT, *RUN)
    command(*words).refused("leads out of it")


PATHS = {
    "absolute": "{folder}/one.png",
    "above": "../one.png",
    "link": "link.png",
    "a link's folder": "linked/one.png",
    "a glob": "../*.png",
    "a null character": "own.png\0",
}


@pytest.mark.parametrize("kind", [*PATHS, "inside"])
def test_paths_of_a_configuration_that_leave_its_folder_are_reported(photos, tmp_path, kind):
    shutil.copy(photos / "one.png", tmp_path / "one.png")
    folder = tmp_path / "job"
    folder.mkdir()
    shutil.copy(photos / "one.png", folder / "own.png")
    (folder / "link.png").symlink_to(tmp_path / "one.png")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "circle.png").symlink_to("circle.png")
    name = PATHS.get(kind, "sub/../own.png").format(folder=tmp_path)
    (folder / "job.toml").write_text(
        f'[data]\nfiles = [{json.dumps(name)}, "own.png", "circle.png"]\n'
        "[methods.simple-gradient]\n"
        '[model]\nname = "builtin"\n'
    )
    if kind == "inside":
        (folder / "sub").mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_plan(ExplainPlan, folder / "job.toml")
        return
    with pytest.warns(UserWarning, match=r"job\.toml: names files outside of its folder") as told:
        read_plan(ExplainPlan, folder / "job.toml")
    assert [str(one.message).partition("folder: ")[2] for one in told] == [name]


LISTS = {
    "listed": {"labels.csv": "file,class_index\n{name},0\na.png,1\n"},
    "tiny-imagenet": {"val/val_annotations.txt": "{name}\tn1\n", "wnids.txt": "n1\n"},
    "cub": {"images.txt": "1 {name}\n", "image_class_labels.txt": "1 1\n",
            "train_test_split.txt": "1 0\n"},
}  # fmt: skip
FOLDERS = {"listed": "", "tiny-imagenet": "val/images", "cub": "images"}


@pytest.mark.parametrize("how", ["absolute", "above", "link"])
@pytest.mark.parametrize("layout", LISTS)
def test_names_of_a_list_that_leave_its_folder(photos, tmp_path, layout, how):
    root = tmp_path / "set"
    images = root / FOLDERS[layout]
    images.mkdir(parents=True)
    shutil.copy(photos / "one.png", tmp_path / "secret.png")
    shutil.copy(photos / "one.png", images / "a.png")
    (images / "link.png").symlink_to(tmp_path / "secret.png")
    name = {"absolute": str(tmp_path / "secret.png"), "link": "link.png",
            "above": os.path.relpath(tmp_path / "secret.png", images)}[how]  # fmt: skip
    for file, text in LISTS[layout].items():
        (root / file).write_text(text.replace("{name}", name))
    if how == "link":
        with pytest.warns(UserWarning, match=r"links to files outside of the folder.*link\.png"):
            assert open_dataset(root).layout == layout
        return
    with pytest.raises(ValueError, match=r"files below its folder, got .*secret\.png"):
        open_dataset(root)
