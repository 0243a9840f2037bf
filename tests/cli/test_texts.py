"""Texts on the command line: the maps of `text.explain`, their page, tables and errors."""

import csv
import json
import os
import re
import shutil
import sys
from html import unescape

import pytest
import torch
from safetensors.torch import load_file

import moreaugrad as mg
from moreaugrad.models import LoadedModel
from moreaugrad.reports.folder import MARK
from text_models import SENTENCES, Bytes, as_bytes, hugging_face, write

SEQUENCES, TOKENS, NEXT = (
    "DistilBertForSequenceClassification", "BertForTokenClassification", "GPT2LMHeadModel",
)  # fmt: skip
OTHER = "RobertaForSequenceClassification"
SPARSE = {"sigma": 0, "rho": 0.05, "sparsity": 0.5}
PLAIN = ["-m", "simple-gradient"]
BYTES = ["--model", "text_models:Bytes", "--tokenizer", "text_models:as_bytes"]


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    transformers, root = hugging_face(), tmp_path_factory.mktemp("language")
    for name in (SEQUENCES, TOKENS, NEXT, OTHER):
        (root / name).mkdir()
        write(transformers, root / name, name)
    return root


@pytest.fixture
def folder(written, tmp_path, monkeypatch):
    """The working folder, with language models and files of texts."""
    for one in written.iterdir():
        (tmp_path / one.name).symlink_to(one)
    (tmp_path / "lines.txt").write_text(
        "\ufeff" + "\r\n".join([SENTENCES[0], " ", *SENTENCES[1:3], ""]), "utf-8"
    )
    with (tmp_path / "table.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([("number", "review"), *enumerate(SENTENCES[3:])])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def model_of(name):
    transformers = hugging_face()
    model = getattr(transformers, name).from_pretrained(name).eval()
    return model, transformers.AutoTokenizer.from_pretrained(name)


def records(out, method):
    lines = (out / f"methods/{method}/00000.jsonl").read_text("utf-8").splitlines()
    return list(map(json.loads, lines))


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_smaller_maps_of_texts(command, folder):
    given = ["lines.txt", "--model", f"hf:{SEQUENCES}", *PLAIN]
    for out, more in (("exact", []), ("small", ["--maps-as", "float16"])):
        assert command("explain", *given, *more, "--out", out).code == 0
    files = sorted((folder / "exact/inputs").glob("*/*.safetensors"))
    assert len(files) == 3
    for file in files:
        small = folder / "small" / file.relative_to(folder / "exact")
        exact, found = (mg.read_maps(path)["map"] for path in (file, small))
        torch.testing.assert_close(found, exact, rtol=5e-4, atol=0)
    assert "maps are stored as float16" in (folder / "small/index.html").read_text("utf-8")


def test_maps_are_those_of_explain_in_python(command, folder):
    texts = [*SENTENCES, "more than one, in \N{SNOWMAN} quotes"]
    done = command(
        "compare", "lines.txt", "table.csv", "--column", "review", "--text", texts[-1],
        "--model", f"hf:{SEQUENCES}", "--methods", "group-sparse-moreaugrad,integrated-gradients",
        "--sigma", "0", "--rho", "0.05", "--sparsity", "0.5", "--units", "words", "--out", "o",
    )  # fmt: skip
    assert done.code == 0, done
    model, tokenizer = model_of(SEQUENCES)
    table = list(csv.DictReader((folder / "o/records.csv").read_text("utf-8").splitlines()))
    for method, settings in (("group-sparse-moreaugrad", SPARSE), ("integrated-gradients", {})):
        expected = mg.text.explain(model, tokenizer, texts, method, groups="words", **settings)
        found = records(folder / "o", method)
        assert len(found) == len(texts)
        for one, record in zip(expected, found, strict=True):
            place = folder / "o" / samples(folder / "o")[record["index"]]["folder"]
            close(load_file(place / f"{method}.safetensors")["map"], one.explanation.maps[0])
            assert record["target"]["label"] == one.target
            assert record["map"]["status"] == one.status
            assert record["tokens"]["value"] == one.value
            text = (place / f"{method}.tokens.csv").read_text("utf-8")
            rows = list(csv.DictReader(text.splitlines()))
            assert [row["token"] for row in rows] == list(one.tokens)
            close(torch.tensor([float(row["value"]) for row in rows]), one.values)
            drawn = "".join(piece[0] for line in record["tokens"]["lines"] for piece in line)
            assert drawn == f"[CLS]{one.sentences[0]}[SEP]"
        assert [row["text"] for row in table if row["method"] == method] == texts


def samples(out):
    lines = (out / "samples/00000.jsonl").read_text("utf-8").splitlines()
    return {record["index"]: record for record in map(json.loads, lines)}


def test_the_page_shows_highlighted_texts_with_predictions(command, folder):
    text = "A <b>boring</b> film"
    done = command("explain", "--text", text, "--model", f"hf:{SEQUENCES}", *PLAIN, "--target",
                   "so-so", "--out", "o")  # fmt: skip
    assert done.code == 0, done
    page = (folder / "o/index.html").read_text("utf-8")
    (record,) = records(folder / "o", "simple-gradient")
    shown = re.search(r'<div class="text">(.*?)</div></div>', page, re.DOTALL)[1]
    assert unescape(re.sub("<[^>]*>", "", shown)) == f"[CLS]{text}[SEP]"
    values = [piece[1] for piece in record["tokens"]["lines"][0] if piece[1] is not None]
    assert re.findall(r'title="([+-][^"]+)"', shown) == [f"{value:+.4g}" for value in values]
    largest = max(values, key=abs)
    assert "0.600" in re.search(rf'<span style="([^"]*)" title="{re.escape(f"{largest:+.4g}")}"',
                                shown)[1]  # fmt: skip
    for label in ("bad", "good", "so-so"):
        assert f'<span class="name">{label}' in page
    assert "so-so <em>explained</em>" in page
    assert "special tokens were held constant" in page
    assert "Masked" not in page, "a legend of images"


def test_a_run_resumes_to_the_same_files(command, folder):
    given = ["lines.txt", "--model", f"hf:{SEQUENCES}", "--methods",
             "simple-gradient,group-sparse-moreaugrad", "--max-evaluations", "64", "--block", "2",
             "--out", "o"]  # fmt: skip
    assert command("explain", *given).code in (0, 1)
    kept = contents(folder / "o")
    for name in ("methods/simple-gradient/00001.sha256", "samples/00001.jsonl", "index.html"):
        (folder / "o" / name).unlink()
    assert command("explain", *given).code in (0, 1)
    assert contents(folder / "o") == kept
    other = command("explain", "--config", "o/config.toml", "--out", "again")
    assert other.code in (0, 1), other
    assert records(folder / "again", "simple-gradient") == records(folder / "o", "simple-gradient")
    rows = list(csv.DictReader((folder / "o/records.csv").read_text("utf-8").splitlines()))
    assert [row["text"] for row in rows] == [*SENTENCES[:2]] * 2 + [SENTENCES[2]] * 2
    (folder / "lines.txt").write_text("\n".join(SENTENCES[3:]), "utf-8")
    command("explain", *given).refused("data.digest")


def contents(out):
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.parts[len(out.parts)] in ("samples", "methods", "inputs")
    }


def test_texts_alone_are_as_among_others(command, folder):
    given = ["--model", f"hf:{SEQUENCES}", "-m", "smoothgrad", "--noise-samples", "4"]
    assert command("explain", "lines.txt", *given, "--out", "all").code == 0
    alone = ["--text", SENTENCES[2], *given, "--out", "one"]
    assert command("explain", *alone).code == 0
    found = [load_file(next(folder.glob(place))) for place in (
        "all/inputs/lines.txt line 4/*.safetensors", "one/inputs/*/*.safetensors",
    )]  # fmt: skip
    close(found[0]["map"], found[1]["map"])


@pytest.mark.parametrize(
    ("name", "target", "expected", "label"),
    [
        (TOKENS, "good@Paris", ("good", "Paris"), "good"),
        (TOKENS, "@1", (None, 1), None),
        (NEXT, " France is", " France is", " France is"),
        (NEXT, None, None, None),
    ],
)
def test_targets_of_tokens_and_phrases(name, target, expected, label, command, folder):
    text = "Paris is the capital of"
    given = [] if target is None else ["--target", target]
    done = command("explain", "--text", text, "--model", f"hf:{name}", *PLAIN, *given, "--out", "o")
    assert done.code == 0, done
    (record,) = records(folder / "o", "simple-gradient")
    (one,) = mg.text.explain(*model_of(name), text, "simple-gradient", target=expected)
    assert record["target"]["label"] == (label or one.target)
    assert record["map"]["score"] == pytest.approx(one.score, rel=1e-4)
    found = load_file(next((folder / "o/inputs").glob("*/*.safetensors")))
    close(found["map"], one.explanation.maps[0])
    if name == TOKENS:
        page = (folder / "o/index.html").read_text("utf-8")
        assert f"the token “{one.tokens[one.place]}”" in page


def test_long_texts_are_read_in_part_only_where_that_is_asked(command, folder):
    long = "wonderful film " * 40
    given = ["explain", "--text", "film", "--text", long, "--model", f"hf:{SEQUENCES}", *PLAIN]
    refused = command(*given, "--out", "o")
    assert refused.code == 1
    assert re.search("text 2: .*40 tokens.*--truncate", refused.err)
    assert "text 2: " in (folder / "o/index.html").read_text("utf-8")
    done = command(*given, "--truncate", "--out", "p")
    assert done.code == 0, done
    assert re.search("only their beginning.*1 of 2.*text 2", done.err)
    assert "Only 40 of" in (folder / "p/index.html").read_text("utf-8")
    assert 'title="not read by the model"' in (folder / "p/index.html").read_text("utf-8")


def test_a_phrase_has_room_only_where_that_is_asked(command, folder):
    texts, phrase = ["--text", "film", "--text", "x" * 40], " wonderful, good"
    given = ["explain", *texts, "--model", f"hf:{NEXT}", "--target", phrase, *PLAIN]
    assert re.search("text 2: .*phrase.*--truncate", command(*given, "--out", "o").err)
    assert "text 2" in command(*given, "--truncate", "--out", "p").err
    assert len(records(folder / "p", "simple-gradient")) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["table.csv"], "number, review"),
        (["table.csv", "--column", "reviews"], "did you mean 'review'"),
        (["lines.txt", "--column", "review"], "column 'review'"),
        (["missing.txt"], "no such file"),
        (["*.tsv"], "there are none"),
        (["binary.txt"], "UTF-8"),
        (["nulls.txt"], "binary"),
        (["blank.txt"], "it has none"),
        (["lines.txt", "photo.png"], "got photo.png and lines.txt"),
        (["--text", "film", "--data", "cells"], "--data cells"),
        (["photo.png"], "got photo.png"),
        ([], "got none"),
        (["photo.png", "--units", "words"], "--units words: is for texts"),
        (["blank.csv"], "at least one token"),
        (["commas.csv"], "row 2, as many as columns, got 3: quote"),
        (["open.csv"], "unexpected end"),
        (["semicolons.csv"], "one column 'number;review'"),
        (["twice.csv", "--column", "review"], "review, review"),
        (["--text", "film", "--target", "god"], "did you mean 'good'"),
        (["--text", "film", "--tokenizer", OTHER], "model's own tokenizer"),
        (["--text", "film", "--tokenizer", "./nowhere"], "--tokenizer"),
        (["--text", "film", "--model", "builtin"], "language model"),
        (["--text", "film", "--model", f"hf:{TOKENS}"], "CLASS@TOKEN"),
        (["--text", "film", "-m", "grad-cam"], "token vectors"),
        (["--text", "film", "--metrics", "deletion"], "deletion"),
        (["--text", "film", "--units", "letters"], "tokens, words"),
        (
            [
                "--text",
                "film",
                "-m",
                "smoothgrad,moreaugrad",
                "--set",
                "smoothgrad.layer=distilbert",
            ],
            "layer: expected one for all",
        ),
        (["--text", "film", "--compare-with", "builtin"], "compare-with, builtin: texts"),
    ],
)
def test_bad_input_is_one_line(arguments, words, command, folder):
    (folder / "binary.txt").write_bytes(b"\x89PNG\xff\xfe")
    (folder / "nulls.txt").write_bytes(b"film\0")
    (folder / "blank.txt").write_text(" \n\n")
    (folder / "blank.csv").write_text("review\n \n")
    (folder / "commas.csv").write_text("review\ngood\nA good, very good, film\n")
    (folder / "open.csv").write_text('review\n"good film\nboring\n')
    (folder / "semicolons.csv").write_text("number;review\n1;good film\n")
    (folder / "twice.csv").write_text("review,review\ngood,boring\n")
    (folder / "photo.png").write_bytes(b"\x89PNG\xff\xfe")
    model = [] if "--model" in arguments else ["--model", f"hf:{SEQUENCES}"]
    method = [] if "-m" in arguments else PLAIN
    command("explain", *arguments, *model, *method, "--out", "o").refused(words)
    assert not (folder / "o").exists()


@pytest.mark.parametrize("name", ["evaluate", "sweep", "sanity"])
def test_other_commands_refuse_texts(name, command, folder):
    command(name, "lines.txt", "--model", f"hf:{SEQUENCES}", "--out", "o").refused("explain")


def test_modules_with_a_tokenizer_of_their_own(command, alone):
    done = command("explain", "--text", "a fine film", *BYTES, *PLAIN, "--out", "o")
    assert done.code == 0, done
    (one,) = mg.text.explain(Bytes().eval(), as_bytes, "a fine film", "simple-gradient")
    close(load_file(next(alone.glob("o/inputs/*/*.safetensors")))["map"], one.explanation.maps[0])
    estimate = command("explain", "--text", "a fine film", *BYTES, *PLAIN, "--dry-run")
    assert estimate.code == 0, estimate


def test_a_configuration_needs_consent_for_a_tokenizer_and_none_for_texts(command, alone):
    config = alone / "c.toml"
    text = '[text]\ntexts = ["see os:system"]\n[methods.simple-gradient]\n[model]\n'
    config.write_text(text + 'name = "hf:nowhere"\ntokenizer = "text_models:as_bytes"\n')
    command("explain", "--config", config, "--out", "o").refused("--trust")
    config.write_text(text + 'name = "hf:./nowhere"\n')
    command("explain", "--config", config, "--out", "o").refused("nowhere: expected a folder")


def test_networks_are_compared_each_with_its_own_tokenizer(command, folder):
    done = command("explain", "--text", SENTENCES[1], "--model", f"hf:{SEQUENCES}",
                   "--compare-with", f"hf:{OTHER}", *PLAIN, "--target", "good",
                   "--out", "o")  # fmt: skip
    assert done.code == 0, done
    (record,) = records(folder / "o", "compared.simple-gradient")
    (one,) = mg.text.explain(*model_of(OTHER), SENTENCES[1], "simple-gradient", target="good")
    values = [piece[1] for piece in record["tokens"]["lines"][0] if piece[1] is not None]
    close(torch.tensor(values), one.values)


def test_in_python(alone):
    (alone / "lines.txt").write_text("a fine film\nthe book", "utf-8")
    model = LoadedModel(module=Bytes().eval(), tokenizer=as_bytes, labels=("bad", "good"))
    found = mg.explain(model, "lines.txt", "group-sparse-moreaugrad", units="words", **SPARSE)
    expected = mg.text.explain(
        model.module, as_bytes, ["a fine film", "the book"], groups="words", **SPARSE
    )
    for index, one in enumerate(expected):
        close(found.maps["group-sparse-moreaugrad"][index], one.explanation.maps[0])
    assert {row["target.label"] for row in found.rows} <= {"bad", "good"}


def test_a_terminal_shows_few_texts(command, alone, monkeypatch):
    given = ["explain", "--text", "a fine film", *BYTES, *PLAIN, "--out", "o"]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    shown = command(*given).out
    assert "\x1b[" in shown
    assert "a fine film" in re.sub(r"\x1b\[[0-9;]*m", "", shown)
    monkeypatch.delenv("FORCE_COLOR")
    assert "a fine film" not in command(*given).out


def test_the_classifier_of_bytes(command, alone, monkeypatch):
    data = os.environ.get("MOREAUGRAD_DATA")
    if not data:
        pytest.skip("MOREAUGRAD_DATA is not set")
    shutil.copy(f"{data}/models/bytes-labels.txt", alone)
    (alone / "own.py").write_text(
        "from bytes_magika import PADDING, read_bytes\n"
        "def tokenize(text):\n"
        "    ids = read_bytes(text.encode()).tolist()\n"
        "    return {'input_ids': ids, 'attention_mask': [int(one != PADDING) for one in ids]}\n"
    )
    monkeypatch.syspath_prepend(f"{data}/models")
    monkeypatch.delitem(sys.modules, "own", raising=False)
    code = "import os\n\ndef names(folder):\n    return sorted(os.listdir(folder))\n"
    done = command("explain", "--text", code, "--model", "bytes_magika:network", "--tokenizer",
                   "own:tokenize", "--labels", "bytes-labels.txt", *PLAIN,
                   "--out", "o")  # fmt: skip
    assert done.code == 0, done
    (record,) = records(alone / "o", "simple-gradient")
    assert record["target"]["label"] == "python"
    assert MARK.match((alone / "o/config.toml").read_text("utf-8"))
