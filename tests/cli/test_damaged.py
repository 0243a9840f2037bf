"""One damaged thing among the data: left out, reported and counted, whatever the command."""

import json
import os
import socket
import struct
import zipfile
import zlib

import pytest
from PIL import Image, ImageFile

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n%%EOF\n"
AVIF = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(200)


def bomb(whole):
    """A PNG that says it has four hundred million pixels."""
    head = whole[12:16] + 2 * struct.pack(">I", 20_000) + whole[24:29]
    return whole[:12] + head + struct.pack(">I", zlib.crc32(head)) + whole[33:]


CONTENTS = {
    "avif.png": lambda _: AVIF,
    "truncated.png": lambda whole: whole[: len(whole) // 2],
    "empty.png": lambda _: b"",
    "text.png": lambda _: b"dear reader",
    "eps.png": lambda _: EPS,
    "bomb.png": bomb,
    "zeros.png": lambda _: bytes(4096),
    "webp.png": lambda _: b"RIFF\xff\xff\xff\x7fWEBPVP8 " + bytes(99),
    "tiff.png": lambda _: b"II*\0\x08\0\0\0\xff\xff" + bytes(40),
    "jpeg.png": lambda _: b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(40),
}


@pytest.fixture
def damaged(photos, tmp_path, monkeypatch):
    """The names of what is no image in a folder of two classes, with three good images in each."""
    whole = (photos / "one.png").read_bytes()
    for label in ("dot", "stripe"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "data" / label / f"{number}.png").write_bytes(whole)
    place = tmp_path / "data" / "dot"
    for name, made in CONTENTS.items():
        (place / name).write_bytes(made(whole))
    os.mkfifo(place / "pipe.png")
    (place / "device.png").symlink_to("/dev/zero")
    (place / "nowhere.png").symlink_to("missing.png")
    (place / "itself.png").symlink_to("itself.png")
    (place / "folder.png").mkdir()  # searched like any other, and not counted
    with (place / "endless.png").open("wb") as file:
        file.truncate(2**42)
    monkeypatch.chdir(place)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.png")
    monkeypatch.chdir(tmp_path)
    others = {"pipe", "device", "nowhere", "itself", "endless", "socket"}
    return {*CONTENTS, *(f"{name}.png" for name in others)}


MODEL = ("--model", "tiny_models:smooth")
RUN = ("--out", "results")
SETS = ("--data", "data", *MODEL, *RUN)
COMMANDS = {
    "explain": ("explain", "data", *MODEL, "--method", "simple-gradient", *RUN),
    "compare": ("compare", "data", *MODEL, "--methods", "simple-gradient", *RUN),
    "sweep": ("sweep", "data", *MODEL, "--method", "smoothgrad", "--over", "sigma", "--values",
              "0.1", "--set", "samples=2", *RUN),
    "certify": ("certify", "data", *MODEL, "--sigma", "0.1", "--noise-samples", "128", *RUN),
    "evaluate": ("evaluate", *SETS, "--methods", "simple-gradient", "--max-unreadable", "0.9"),
    "sanity": ("sanity", *SETS, "--images", "99", "--seeds", "0", "--metrics", "spearman",
               "--max-unreadable", "0.9"),
    "train": ("train", *SETS, "--batch-size", "2", "--epochs", "1", "--validation", "0.4",
              "--max-unreadable", "0.9"),
}  # fmt: skip


def count(kind, done):
    """How many are said to be left out in what the command has written."""
    told = json.loads(done.out)
    if kind in ("explain", "compare", "sweep", "certify"):
        return len(told["failures"])
    if kind == "evaluate":
        return sum(failure["method"] is None for failure in told["failures"])
    if kind == "sanity":
        return told["unreadable"]
    (note,) = [note for note in told["notes"] if "cannot be read" in note]
    return int(note.split()[0])


@pytest.mark.parametrize("kind", COMMANDS)
def test_what_is_no_image_is_left_out_and_counted(command, damaged, kind):
    done = command(*COMMANDS[kind], "--json")
    assert done.code == (0 if kind == "train" else 1), done
    assert "Traceback" not in done.err
    assert count(kind, done) == len(damaged)
    assert not [name for name in damaged if name not in done.err]
    assert "folder.png" not in done.err


ANY_SIZE = """
from torch import nn
from moreaugrad.models import LoadedModel, Preprocess

def net():
    layers = nn.Conv2d(3, 4, 5), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    labels = ("dot", "stripe")
    return LoadedModel(module=nn.Sequential(*layers), preprocess=Preprocess(), labels=labels)
"""


@pytest.mark.parametrize("name", ["0small.png", "small.png"])
@pytest.mark.parametrize("kind", ["explain", "compare", "certify", "evaluate"])
def test_an_image_that_the_network_cannot_process_is_left_out(
    command, tmp_path, monkeypatch, kind, name
):
    (tmp_path / "any_size.py").write_text(ANY_SIZE)
    monkeypatch.chdir(tmp_path)
    for label in ("dot", "stripe"):
        (tmp_path / "data" / label).mkdir(parents=True)
        Image.new("RGB", (20, 20), "teal").save(tmp_path / "data" / label / "a.png")
    Image.new("RGB", (2, 2), "teal").save(tmp_path / "data" / "dot" / name)
    words = ["any_size:net" if word == MODEL[1] else word for word in COMMANDS[kind]]
    done = command(*words, "--json")
    assert done.code == 1, done
    assert name in done.err
    assert count(kind, done) == 1


def packed(path, whole):
    """A zip of good images, and of members that cannot be unpacked or decoded; their names."""
    bad = {"dot/encrypted.png": (6, 1), "dot/unknown.png": (8, 97), "dot/deflated.png": (8, 8)}
    with zipfile.ZipFile(path, "w") as archive:
        for label in ("dot", "stripe"):
            for number in range(3):
                archive.writestr(f"{label}/{number}.png", whole)
        for name in [*bad, "dot/damaged.png"]:
            archive.writestr(name, whole)
        archive.writestr("dot/zeros.png", bytes(2**27), zipfile.ZIP_DEFLATED)
        archive.writestr("dot/eps.png", EPS)
        archive.writestr("dot/bzip.png", whole, zipfile.ZIP_BZIP2)
    data = bytearray(path.read_bytes())
    for name, (field, value) in bad.items():
        local, central = data.find(name.encode()) - 30, data.rfind(name.encode()) - 46
        struct.pack_into("<H", data, local + field, value)
        struct.pack_into("<H", data, central + field + 2, value)
    data[data.find(b"dot/damaged.png") + 200] ^= 0xFF
    path.write_bytes(data)
    return {*bad, "damaged.png", "zeros.png", "eps.png", "bzip.png"}


@pytest.mark.parametrize("kind", ["evaluate", "sanity", "train"])
def test_what_cannot_be_unpacked_is_left_out_and_counted(
    command, photos, tmp_path, monkeypatch, kind
):
    bad = packed(tmp_path / "set.zip", (photos / "one.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    words = ["set.zip" if word == "data" else word for word in COMMANDS[kind]]
    done = command(*words, "--json")
    assert done.code == (0 if kind == "train" else 1), done
    assert count(kind, done) == len(bad)
    assert not [name for name in bad if name not in done.err]


def test_memory_that_one_image_lacks_is_its_own(command, photos, tmp_path, monkeypatch):
    load = ImageFile.ImageFile.load

    def hungry(image):
        if image.size == (7, 7):
            raise MemoryError
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", hungry)
    for name, side in (("a", 7), ("b", 20)):
        Image.new("RGB", (side, side), "teal").save(tmp_path / f"{name}.png")
    done = command("explain", tmp_path, *MODEL, "--method", "simple-gradient", *RUN)
    assert done.code == 1, done
    assert "a.png: expected an image that fits into memory" in done.err
