"""`serve` on the command line: which inputs it takes, and what it refuses before it listens."""

import csv
import sys

import numpy as np
import pytest
from PIL import Image

from explored import CELL
from moreaugrad.explorer.server import Server
from moreaugrad.models import ArrayInput, LoadedModel
from text_models import SENTENCES, hugging_face, write

BYTES = ("--model", "text_models:Bytes", "--tokenizer", "text_models:as_bytes")
IMAGES = ("--model", "builtin")
SERIES = ("--model", "series_models:series")
LONGEST = "DistilBertForSequenceClassification"


def series():
    import tiny_models

    return LoadedModel(module=tiny_models.smooth().module, array=ArrayInput(shape=(3, 16, 16)))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "series_models", sys.modules[__name__])
    (tmp_path / "lines.txt").write_text("\n".join(SENTENCES[:2]), "utf-8")
    (tmp_path / "empty.txt").write_text(" \n", "utf-8")
    with (tmp_path / "table.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("number", "review"), *enumerate(SENTENCES[3:])])
    Image.open(CELL).save(tmp_path / "cell.png")
    np.save(tmp_path / "series.npy", np.random.default_rng(0).uniform(size=(3, 16, 16)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def served(monkeypatch):
    """The explorers that are served; none of them is listened to."""
    import uvicorn

    found, init = [], Server.__init__

    def made(server, explorer, host):
        found.append(explorer)
        init(server, explorer, host)

    monkeypatch.setattr(Server, "__init__", made)
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_: None)
    return found


@pytest.mark.parametrize(("given", "kind", "names"), [
    (("lines.txt", "table.csv", "--column", "review", "--text", "a film", *BYTES), "texts",
     ["lines.txt line 1", "lines.txt line 2", "table.csv row 1", "table.csv row 2",
      "table.csv row 3", "text 1"]),
    (("--units", "words", *BYTES), "texts", []),
    (("series.npy", *SERIES), "arrays", ["series.npy"]),
    (("cell.png", *IMAGES), "images", ["cell.png"]), (IMAGES, "images", []),
])  # fmt: skip
def test_inputs_of_every_kind_are_served(command, folder, served, given, kind, names):
    done = command("serve", *given)
    assert done.code == 0, done
    assert done.out.startswith("http://localhost:")
    (explorer,) = served
    ((info, _),) = explorer.answer({"do": "info"})
    assert info["kind"] == kind
    assert [one["name"] for one in info["images"]] == names
    if names:
        ((found, page),) = explorer.answer({"do": "open", "image": "0"})
        assert found["image"] == "0", found
        assert page
    assert explorer.text.units == ("words" if "--units" in given else "tokens")


@pytest.mark.parametrize(("given", "word"), [
    (("cell.png", "--text", "a film", *BYTES), "one or the other"),
    (("series.npy", "lines.txt", *BYTES), "one or the other"),
    (("table.csv", *BYTES), "--column"), (("table.csv", "--column", "reviews", *BYTES), "review"),
    (("empty.txt", *BYTES), "it has none"), (("gone.txt", *BYTES), "gone.txt"),
    (("--text", " ", *BYTES), "empty"), (("--text", "a film", *IMAGES), "tokenizer"),
    (("cell.png", "--units", "words", *IMAGES), "--units words: is for texts"),
    (("cell.png", "--special", *IMAGES), "--special: is for texts"),
    (("--truncate", *IMAGES), "--truncate: is for texts"),
    (("cell.png", "--rate", "100", *IMAGES), "--rate 100: is for series"),
    (("cell.png", *BYTES), "--tokenizer"), (("cell.png", *SERIES), "series or volumes"),
    (SERIES, "series or volumes"), (("--text", "a film", *SERIES), "tokenizer"),
])  # fmt: skip
def test_what_fits_not_is_refused_in_one_line(command, folder, served, given, word):
    command("serve", *given).refused(word)
    assert not served


def test_texts_that_are_too_long_are_refused(command, folder, served):
    write(hugging_face(), folder / LONGEST, LONGEST)
    long = ("serve", "--text", "film " * 60, "--model", f"hf:{LONGEST}")
    command(*long).refused("at most 40 tokens")
    assert command(*long, "--truncate").code == 0
    assert len(served) == 1
