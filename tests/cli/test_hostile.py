"""Files, folders and code that anybody may have written: one line, no traceback, no hang."""

import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

MODEL = ("--model", "tiny_models:smooth")
EXPLAIN = ("explain", "one.png", "--method", "simple-gradient", "--out", "results")
DEEP = 20000 * "["


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def cyclic():
    found = {}
    found["state_dict"] = found
    return found


def checkpoint(path, content):
    torch.save(content, path)
    return path.read_bytes()


def safetensors(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
WEIGHTS = {
    "empty": b"",
    "text": b"dear reader",
    "deep header": safetensors(b'{"a":' + 5000 * b'{"a":' + b"1" + 5001 * b"}"),
    "header of another type": safetensors([1, 2]),
    "offsets out of the file": safetensors({"a": TENSOR | {"data_offsets": [0, 2**62]}}),
    "negative shape": safetensors({"a": TENSOR | {"shape": [-2]}}, bytes(8)),
    "unknown type": safetensors({"a": TENSOR | {"dtype": "F7"}}, bytes(8)),
    "length beyond the file": struct.pack("<Q", 2**60) + b'{"a":1}',
    "pickle": pickle.dumps({"a": 1}),
    "deep pickle": b"\x80\x02" + 5000 * b"]" + 4999 * b"a" + b".",
    "damaged archive": b"PK\x03\x04" + bytes(100),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights(command, photos, tmp_path, kind):
    file = written(tmp_path / "w.pt", WEIGHTS[kind])
    command(*EXPLAIN, *MODEL, "--weights", file).refused("w.pt")


@pytest.mark.parametrize("content", [cyclic(), [1], {"state_dict": {"a": 1}}, None])
def test_checkpoints_of_other_things(command, photos, tmp_path, content):
    checkpoint(tmp_path / "w.pt", content)
    command(*EXPLAIN, *MODEL, "--weights", tmp_path / "w.pt").refused("w.pt")


JSON = {
    "empty": "",
    "deep": DEEP,
    "no text": b"\xff\xfe\x00",
    "object": '{"a": 1}',
    "beyond the outputs": json.dumps(list("abcdef")),
}


@pytest.mark.parametrize("kind", JSON)
def test_labels(command, photos, tmp_path, kind):
    file = written(tmp_path / "labels.json", JSON[kind])
    command(*EXPLAIN, *MODEL, "--labels", file).refused("labels.json")


CONFIGURATIONS = {
    "empty": "",
    "deep": "images = " + DEEP,
    "dotted": "a" + 3000 * ".a" + " = 1",
    "no text": b"\xff\xfe\x00",
    "list": "[[model]]\nname = 1",
    "true": "page_images = true",
    "unknown": "nosuch = 1",
    "no methods": 'images = ["one.png"]',
    "other values": 'images = ["{folder}/one.png"]\n[methods.smoothgrad]\nsamples = true',
}


@pytest.mark.parametrize("name", ["explain", "evaluate", "train"])
@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_configurations(command, photos, tmp_path, name, kind):
    content = CONFIGURATIONS[kind]
    if isinstance(content, str):
        content = content.replace("{folder}", os.path.relpath(photos, tmp_path))
    file = written(tmp_path / "job.toml", content)
    more = () if name == "train" else MODEL
    done = command(name, *more, "--config", file, "--out", "results")
    done.refused("job.toml", "samples", "images", "methods")


def test_a_training_without_data_is_refused(command, photos, tmp_path):
    file = written(tmp_path / "job.toml", "epochs = 1")
    command("train", "--config", file, "--out", "results").refused("--data")


CARDS = {
    "itself": {"model": "trained:{folder}"},
    "deep": DEEP,
    "list": [],
    "no names": {},
    "preprocess": {"preprocess": {"crop": "x"}},
    "sizes": {"preprocess": {"crop": 10**9}},
    "outside": {"weights": ["a"]},
}


@pytest.mark.parametrize("kind", CARDS)
def test_folders_of_trainings(command, photos, tmp_path, kind):
    usual = json.loads((photos / "trained" / "model.json").read_text())
    change = CARDS[kind]
    if isinstance(change, dict) and change:
        change = usual | change
    text = change if isinstance(change, str) else json.dumps(change)
    written(tmp_path / "model.json", text.replace("{folder}", str(tmp_path)))
    command(*EXPLAIN, "--model", f"trained:{tmp_path}").refused("model.json")


@pytest.mark.parametrize("option", ["--config", "--labels", "--weights", "image", "data", "within"])
def test_named_pipes_do_not_hang(command, photos, tmp_path, option):
    (tmp_path / "pipe").mkdir()
    pipe = tmp_path / "pipe" / "p.png"
    os.mkfifo(pipe)
    if option == "image":
        done = command("explain", pipe, *MODEL, "--out", "results")
    elif option in ("data", "within"):
        data = pipe if option == "data" else pipe.parent
        done = command(
            "evaluate", "--data", data, *MODEL, "--methods", "smoothgrad", "--out", "results"
        )
    else:
        done = command(*EXPLAIN, *MODEL, option, pipe)
    done.refused("p.png")


FACTORIES = """
import sys
from torch import nn

class Raising(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error

class Lines(nn.Module):
    def forward(self, x):
        return {"a": x}

errors = [KeyError("a"), AssertionError(), AttributeError("x"), ZeroDivisionError("y"),
          StopIteration(), ModuleNotFoundError("no z"), Exception("w"), RecursionError("deep")]
for error in errors:
    def factory(error=error):
        raise error
    globals()["make_" + type(error).__name__] = factory
    globals()["model_" + type(error).__name__] = lambda error=error: Raising(error)
make_SystemExit = lambda: sys.exit(3)
model_SystemExit = lambda: Raising(SystemExit(3))
nothing = lambda: None
other = lambda: Lines()
needs = lambda argument: None
table = lambda: nn.Linear(10, 3)
words = lambda: nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(4, 2))
"""
ERRORS = (
    "KeyError", "AssertionError", "AttributeError", "ZeroDivisionError", "StopIteration",
    "ModuleNotFoundError", "Exception", "RecursionError", "SystemExit",
)  # fmt: skip
MADE = [f"{kind}_{error}" for kind in ("make", "model") for error in ERRORS]


@pytest.mark.filterwarnings("ignore:.*does not say how images are preprocessed")
@pytest.mark.parametrize("name", [*MADE, "nothing", "other", "needs", "table", "words", "sys"])
def test_code_of_others(command, photos, tmp_path, monkeypatch, name):
    written(tmp_path / "hostile_factories.py", FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    done = command(*EXPLAIN, "--model", f"hostile_factories:{name}")
    done.refused(name, name.partition("_")[2], "model", "output", "code")


UNIMPORTABLE = {
    "fails": "raise KeyError('a')",
    "ends": "import sys; sys.exit(1)",
    "lacks": "import no_x",
}


@pytest.mark.parametrize("kind", UNIMPORTABLE)
def test_modules_that_cannot_be_imported(command, photos, tmp_path, monkeypatch, kind):
    name, content = f"hostile_{kind}", UNIMPORTABLE[kind]
    written(tmp_path / f"{name}.py", content)
    monkeypatch.syspath_prepend(tmp_path)
    command(*EXPLAIN, "--model", f"{name}:factory").refused(name)


def batch(**changes):
    usual = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}
    return pickle.dumps(usual | {key.encode(): value for key, value in changes.items()})


LISTED = "file,class_index\na.png,"
FLAT = {"ILSVRC2012_val_00000001.png": None}
DATA = {
    "CIFAR without keys": {"test_batch": pickle.dumps({b"a": 1})},
    "CIFAR of another type": {"test_batch": pickle.dumps([1, 2])},
    "CIFAR with floats": {"test_batch": batch(data=np.zeros((2, 3072)))},
    "CIFAR of another shape": {"test_batch": batch(data=np.zeros((2, 7), np.uint8))},
    "CIFAR with negative labels": {"test_batch": batch(labels=[0, -1])},
    "CIFAR with large labels": {"test_batch": batch(labels=[0, 10])},
    "CIFAR with boolean labels": {"test_batch": batch(labels=[False, True])},
    "CIFAR with other labels": {"test_batch": batch(labels=["a", None])},
    "CIFAR with a label too few": {"test_batch": batch(labels=[0])},
    "CIFAR with other names": {
        "test_batch": batch(), "batches.meta": pickle.dumps({b"label_names": 3}),
    },
    "CIFAR nested": {"test_batch": b"\x80\x02" + 5000 * b"]" + 4999 * b"a" + b"."},
    "a field too long": {"labels.csv": f"{LISTED}0\n{'x' * 200000},1\n", "a.png": None},
    "a class that is no number": {"labels.csv": f"{LISTED}cat\n", "a.png": None},
    "a negative class": {"labels.csv": f"{LISTED}-1\n", "a.png": None},
    "a short line": {"labels.csv": "file,class_index\na.png\n", "a.png": None},
    "a file elsewhere": {"labels.csv": "file,class_index\n../a.png,0\n", "a.png": None},
    "a list that is no text": {"labels.csv": b"\xff\xfe\x00", "a.png": None},
    "Tiny-ImageNet's list cut off": {
        "val/val_annotations.txt": "a.png\n", "val/images/a.png": None,
    },
    "ImageNet's list cut off": {"val.txt": "ILSVRC2012_val_00000001.png\n", **FLAT},
    "ImageNet's list with a class 1000": {"val.txt": "ILSVRC2012_val_00000001.png 1000\n", **FLAT},
    "Kaggle's list without its columns": {"LOC_val_solution.csv": "a,b\n1,2\n", **FLAT},
    "Kaggle's list with an empty field": {
        "LOC_val_solution.csv": "ImageId,PredictionString\na,\n", **FLAT,
    },
    "CUB's class 0": {
        "images.txt": "1 a/a.png\n", "image_class_labels.txt": "1 0\n",
        "train_test_split.txt": "1 0\n", "images/a/a.png": None,
    },
    "CUB's lists empty": {
        "images.txt": "1\n", "image_class_labels.txt": "", "train_test_split.txt": "1 0\n",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", DATA)
def test_data_sets(command, photos, tmp_path, kind):
    for name, content in DATA[kind].items():
        path = written(tmp_path / "set" / name, content or b"")
        if content is None:
            Image.new("RGB", (20, 20)).save(path)
    done = command(
        "evaluate", "--data", tmp_path / "set", *MODEL, "--methods", "simple-gradient",
        "--out", "results",
    )  # fmt: skip
    done.refused(str(tmp_path))


def archive(path, names, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name in names:
            file.writestr(name, b"content" * 20)
    return bytearray(path.read_bytes())


def flagged(data, offset, value):
    """With a field of every header, local and central, set."""
    for signature, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        place = data.find(signature)
        while place >= 0:
            data[place + offset + shift : place + offset + shift + 2] = struct.pack("<H", value)
            place = data.find(signature, place + 4)
    return data


ARCHIVES = {
    "cut off": lambda path: archive(path, ["a.png"])[:60],
    "encrypted": lambda path: flagged(archive(path, ["a.png"]), 6, 1),
    "of an unknown method": lambda path: flagged(archive(path, ["a.png"]), 8, 97),
    "damaged inside": lambda path: archive(path, ["a.png"]).replace(b"contentcontent", b"x" * 14),
    "damaged deflate": lambda path: flagged(archive(path, ["a.png"]), 8, 8),
    "above itself": lambda path: archive(path, ["../x.png", "a.png"]),
    "absolute": lambda path: archive(path, ["/x.png", "a.png"]),
    "with an empty part": lambda path: archive(path, ["a//x.txt"]),
    "empty": lambda path: archive(path, []),
    "no images": lambda path: archive(path, ["a.txt"]),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives(command, photos, tmp_path, kind):
    path = tmp_path / "set.zip"
    path.write_bytes(ARCHIVES[kind](path))
    done = command(
        "evaluate", "--data", path, *MODEL, "--methods", "simple-gradient", "--out", "results"
    )
    done.refused("set.zip", "a.png")


IMAGES = {
    "empty": b"",
    "text": b"dear reader",
    "a PNG's beginning": b"\x89PNG\r\n\x1a\n" + bytes(16) + b"\x10" + bytes(20),
    "a TIFF's beginning": b"II*\0" + bytes(20),
    "a TIFF that refers to itself": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    "a GIF's beginning": b"GIF89a" + bytes(10),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images(command, photos, tmp_path, kind):
    file = written(tmp_path / "bad.png", IMAGES[kind])
    command("explain", file, *MODEL, "--out", "results").refused("bad.png")


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain", "one.png", "--out", "results"),
        ("compare", "one.png", "--out", "results"),
        ("sweep", "one.png", "--out", "results"),
        ("certify", "one.png", "--sigma", "0.5", "--out", "results"),
        ("evaluate", "--data", "data", "--methods", "smoothgrad", "--out", "results"),
        ("sanity", "--data", "data", "--out", "results"),
        ("visualise", "--out", "results"),
    ],
)
def test_nothing_is_explained_by_a_network_that_nobody_chose(command, photos, arguments):
    command(*arguments).refused("--model")
