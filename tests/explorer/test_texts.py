"""Texts, series and volumes in the explorer: maps that are drawn on the server, and their page."""

import base64
import io
import json
import re
import shlex
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import moreaugrad as mg
from browser import Browser
from explored import PANE, choose, complaints, serving, settled, slide, status, text, until
from moreaugrad.explorer.core import Explorer
from moreaugrad.models import ArrayInput, LoadedModel
from moreaugrad.runs.maps.setup import opened
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.common import ComputePlan, DataPlan
from moreaugrad.runs.plans.explain import ExplainPlan
from moreaugrad.runs.plans.option import given_options
from moreaugrad.runs.plans.texts import ReaderPlan, TextPlan
from text_models import SENTENCES, Bytes, as_bytes, hugging_face, write

NASTY = "A <img src=x onerror=document.title='taken'> film, \"'& \u202e good"
QUICK = {"sigma": 0.05, "rho": 0.1, "quality": "preview"}
MODEL = ReaderPlan(name="text_models:Bytes", tokenizer="text_models:as_bytes")


def explorer_of(model: ReaderPlan, *texts: str, **how: Any) -> Explorer:
    """As `serve` makes it."""
    plan = ExplainPlan(
        model=model, text=TextPlan(texts=texts, **how), compute=ComputePlan(threads=1)
    )
    network = Network.load(plan.model, plan.compute)
    inputs = opened(plan, network) if texts else None
    assert plan.text is not None
    return Explorer(
        network=network, inputs=inputs, options=given_options(plan.model), text=plan.text
    )


def answers(explorer: Explorer, body: bytes = b"", **asked: Any) -> list[Any]:
    return list(explorer.answer(asked, body))


def refused(explorer: Explorer, body: bytes = b"", **asked: Any) -> str:
    return str(answers(explorer, body, **asked)[-1][0]["refused"])


def last(explorer: Explorer, **asked: Any) -> tuple[Any, str]:
    """The recipes, and the page of the last frame."""
    (recipes, _), *frames = answers(explorer, do="explain", **{"image": "0", **asked})
    assert [header["done"] for header, _ in frames] == [False] * (len(frames) - 1) + [True]
    return recipes, frames[-1][1].decode()


@pytest.fixture
def explorer() -> Explorer:
    return explorer_of(MODEL, *SENTENCES[:2], NASTY)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Language models of three kinds."""
    transformers, root = hugging_face(), tmp_path_factory.mktemp("language")
    for name in (SEQUENCES, TOKENS, NEXT):
        (root / name).mkdir()
        write(transformers, root / name, name)
    return root


SEQUENCES, TOKENS, NEXT = (
    "DistilBertForSequenceClassification", "BertForTokenClassification", "GPT2LMHeadModel",
)  # fmt: skip


@pytest.fixture(params=[SEQUENCES, TOKENS, NEXT])
def language(request: pytest.FixtureRequest, folder: Path) -> Any:
    """The name of a model in a folder, the model and its tokenizer."""
    transformers, place = hugging_face(), folder / request.param
    model = getattr(transformers, request.param).from_pretrained(place).eval()
    return f"hf:{place}", model, transformers.AutoTokenizer.from_pretrained(place)


def test_it_says_that_inputs_are_texts(explorer: Explorer) -> None:
    ((info, _),) = answers(explorer, do="info")
    assert info["kind"] == "texts"
    assert [one["name"] for one in info["images"]] == ["text 1", "text 2", "text 3"]
    assert info["state"]["method"] == "group-sparse-moreaugrad"
    assert {"smoothgrad", "integrated-gradients"} < set(info["methods"])
    assert "grad-cam" not in info["methods"]


def test_a_text_has_its_prediction(explorer: Explorer) -> None:
    ((found, page),) = answers(explorer, do="open", image="1")
    with torch.no_grad():
        ids = torch.tensor([as_bytes(SENTENCES[1])["input_ids"]])
        expected = Bytes().eval()(ids, torch.ones_like(ids)).softmax(1)[0].tolist()
    assert found["probabilities"] == pytest.approx(dict(enumerate(expected)), abs=1e-6)
    assert found["names"] == {0: "0", 1: "1"}
    assert unescape(re.sub("<[^>]*>", "", page.decode())) == SENTENCES[1]


OWN = {"rho": 0.1, "tolerance": "preview", "sigma": 0.05}


@pytest.mark.parametrize(("asked", "settings", "how"), [
    ({"sparsity": 0.5}, {**OWN, "sparsity": 0.5, "groups": "words"}, {"units": "words"}),
    ({"target": 1}, {**OWN, "target": 1, "sparsity": 0.9, "values": "norm"}, {"values": "norm"}),
    ({"target": 0, "against": 1}, {**OWN, "target": 0, "score": "against:1"}, {}),
    ({"method": "integrated-gradients"}, {"method": "integrated-gradients"}, {}),
    ({"method": "smoothgrad", "seed": 3}, {"method": "smoothgrad", "sigma": 0.05, "seed": 3}, {}),
])  # fmt: skip
def test_the_last_frame_is_the_explanation(asked: Any, settings: Any, how: Any) -> None:
    explorer = explorer_of(MODEL, *SENTENCES[:2], **how)
    state = {"method": "group-sparse-moreaugrad", **QUICK, **asked}
    _, found = last(explorer, image="1", **state)
    (expected,) = mg.text.explain(Bytes().eval(), as_bytes, SENTENCES[1], **settings)
    assert found == expected._repr_html_()
    assert "rgba" in found


def test_who_asks_at_once_gets_its_own_target(explorer: Explorer) -> None:
    state = {"do": "explain", "image": "0", "method": "smoothgrad", **QUICK}
    first, second = (explorer.answer({**state, "target": target}) for target in (0, 1))
    next(first)
    for target, answer in ((1, second), (0, first)):
        *_, (_, page) = answer
        assert f"target: {target} ".encode() in page


def test_special_tokens_and_kinds_of_models(language: Any) -> None:
    """Without a target: the predicted class, that of the first token, or the next token."""
    name, model, tokenizer = language
    explorer = explorer_of(ReaderPlan(name=name), "Paris is good", special=True)
    ((opened_, _),) = answers(explorer, do="open", image="0")
    tokens, generates = TOKENS in name, NEXT in name
    assert len(opened_["probabilities"]) == (0 if tokens else 5 if generates else 3)
    targets = [(None, (None, 1) if tokens else None)]
    targets += [("bad@good", ("bad", "good"))] if tokens else [(" good film", " good film")]
    if not tokens and not generates:
        targets[1] = ("so-so", "so-so")
    for asked, target in targets:
        recipes, found = last(explorer, method="simple-gradient", target=asked)
        (expected,) = mg.text.explain(
            model, tokenizer, "Paris is good", "simple-gradient", target=target, special=True
        )
        assert found == expected._repr_html_()
        assert ("[CLS]" in found) is not generates
        assert "held constant" not in found
        space: dict[str, Any] = {}
        exec(recipes["python"], space)
        assert space["result"][0]._repr_html_() == found


@pytest.mark.parametrize("form", ["command", "toml"])
def test_the_command_and_the_file_give_the_map(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moreaugrad.cli.entry import run

    monkeypatch.chdir(tmp_path)
    given = "-5 stars, 'A great' $HOME film"
    explorer = explorer_of(MODEL, SENTENCES[0], given, units="words", special=True, truncate=True)
    asked = {**QUICK, "target": 1, "method": "group-sparse-moreaugrad", "sparsity": 0.5}
    recipes, found = last(explorer, image="1", **asked)
    words = shlex.split(recipes["command"])
    assert {"--special", "--truncate"} < set(words)
    if form == "toml":
        Path("run.toml").write_text(recipes["toml"], "utf-8")
        words = ["moreaugrad", "explain", "--config", "run.toml", "--trust", "--out", "maps"]
    assert run(words[1:]) == 0
    (record,) = map(json.loads, Path("maps/samples/00000.jsonl").read_text("utf-8").splitlines())
    assert record["text"] == given
    (line,) = Path("maps/methods/group-sparse-moreaugrad/00000.jsonl").read_text().splitlines()
    pieces = [piece for row in json.loads(line)["tokens"]["lines"] for piece in row]
    titles = re.findall(r'title="([+-][^"]+)"', found)
    assert titles == [f"{value:+.4g}" for _, value, *_ in pieces if value is not None]


def test_a_typed_text_is_read_as_the_others_are() -> None:
    explorer = explorer_of(MODEL, units="words")
    name = "typed"
    ((found, _),) = answers(explorer, NASTY.encode(), do="open", name=name)
    assert found["name"] == name
    _, page = last(explorer, image=found["image"], method="simple-gradient")
    (expected,) = mg.text.explain(
        Bytes().eval(), as_bytes, NASTY, "simple-gradient", groups="words"
    )
    assert page == expected._repr_html_()
    assert "<img" not in page
    assert "\u202e" not in page


def test_bad_texts_are_refused(folder: Path) -> None:
    model = ReaderPlan(name=f"hf:{folder / SEQUENCES}")
    explorer = explorer_of(model, "a film", "a very long film " * 9)
    assert "at most 40 tokens" in refused(explorer, do="open", image="1")
    assert "at most 40 tokens" in refused(explorer, b"a very long film " * 9, do="open", name="x")
    assert "at least one token" in refused(explorer, b" ", do="open", name="x")
    assert "target" in refused(explorer, do="explain", image="0", target="goood")
    assert "layer" in refused(explorer, do="explain", image="0", method="grad-cam")
    for action in ("edit", "curves", "attack", "arrays"):
        assert "do: expected" in refused(explorer, do=action, image="0", how="mean", target=0)
    short = explorer_of(model, "a very long film " * 9, truncate=True)
    assert "truncated" in last(short, method="simple-gradient")[1]


def volumes() -> LoadedModel:
    generator = torch.Generator().manual_seed(3)
    layer = nn.Linear(120, 2)
    layer.weight.data = torch.randn(2, 120, generator=generator)
    module = nn.Sequential(nn.Flatten(), layer).eval()
    return LoadedModel(module=module, labels=("low", "high"), array=ArrayInput(shape=(1, 6, 5, 4)))


def test_volumes_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "of_volumes", sys.modules[__name__])
    file = tmp_path / "volume.npy"
    np.save(file, np.random.default_rng(0).uniform(size=(1, 6, 5, 4)))
    model = ReaderPlan(name="of_volumes:volumes")
    plan = ExplainPlan(model=model, data=DataPlan(files=(str(file),))).with_arrays()
    network = Network.load(plan.model, ComputePlan(threads=1))
    explorer = Explorer(network=network, inputs=opened(plan, network), options=given_options(model))
    ((info, _),) = answers(explorer, do="info")
    assert info["kind"] == "arrays"
    ((found, page),) = answers(explorer, do="open", image="0")
    assert len(found["probabilities"]) == 2
    assert page.startswith(b'<div>input</div><img src="data:image/png;base64,')
    recipes, drawn = last(explorer, method="simple-gradient", target=1)
    space: dict[str, Any] = {}
    exec(recipes["python"], space)
    weight = volumes().module[1].weight[1].reshape(1, 6, 5, 4)  # type: ignore[index]
    assert torch.equal(space["result"].maps[0], weight.detach())
    views = re.findall(r"<div>([\w-]+)</div><img src=\"data:image/png;base64,([^\"]+)\"", drawn)
    assert {"heat", "signed"} < {name for name, _ in views}
    for _, data in views:
        assert Image.open(io.BytesIO(base64.b64decode(data))).size[1] >= 5
    assert "on the command line" in refused(explorer, b"x", do="open", name="x.npy")
    assert shlex.split(recipes["command"])[2] == str(file)


@pytest.fixture
def page(chromium: Browser, explorer: Explorer) -> Iterator[Browser]:
    with serving(explorer) as address:
        chromium.open(address)
        settled(chromium, "window.explorer?.panes?.[0]")
        yield chromium
        assert complaints(chromium) == []
        chromium.open("about:blank")


DRAWN = f"{PANE}.get('drawn')"


def shown(page: Browser) -> dict[str, str]:
    """The colours of the pieces by their titles, as the browser shows them."""
    found: dict[str, str] = page.ask(
        f"""Object.fromEntries([...{DRAWN}.querySelectorAll('span[title]')]
        .map(e => [e.title, getComputedStyle(e).backgroundColor]))"""
    )
    return found


@pytest.mark.chromium
def test_the_page_shows_highlighted_texts(page: Browser) -> None:
    settings = {"sparsity": 0.5, "labels": None}
    (expected,) = mg.text.explain(Bytes().eval(), as_bytes, SENTENCES[0], **settings)
    html = expected._repr_html_()
    pieces = re.findall(r'background:(rgba[^;"]+)[^>]*title="([^"]+)"', html)
    assert len(pieces) > 3
    colours = shown(page)
    for colour, title in pieces:
        red, *_ = re.findall(r"\d+", colour)
        assert re.findall(r"\d+", colours[title])[0] == red
    plain = unescape(re.sub("<[^>]*>", "", html.replace("\n", "")))
    assert page.ask(f"{DRAWN}.textContent").replace("\n", "") == plain
    for hidden in ("figure", "measure", "budget", "view", "file"):
        where = f"explorer.get('{hidden}')"
        where = f"{PANE}.get('{hidden}')" if hidden in ("figure", "view") else where
        assert not page.ask(f"{where}.checkVisibility()")
    assert page.ask("explorer.get('images').options.length") == 3
    assert status(page).startswith("converged")
    assert "--text" in text(page, "text")


@pytest.mark.chromium
def test_controls_solve_a_text_again(page: Browser) -> None:
    before = shown(page)
    slide(page, "sparsity", 40)
    settled(page, f"{PANE}.state.sparsity > .9")
    assert len(re.findall("rgba", str(shown(page)))) < len(re.findall("rgba", str(before)))
    page.ask(f"{PANE}.get('method').value = 'smoothgrad'; {PANE}.get('method').onchange()")
    settled(page)
    assert page.ask("explorer.get('sparsity').disabled")
    page.ask("explorer.get('classes').querySelectorAll('li')[1].children[0].click()")
    settled(page, f"{PANE}.state.target === explorer.shown[1]")
    assert f"target: {page.ask('explorer.shown[1]')}" in page.ask(f"{DRAWN}.textContent")
    choose(page, "other", "no such class")
    until(page, "!explorer.get('error').hidden")
    assert "target" in text(page, "error")


@pytest.mark.chromium
def test_hostile_texts_are_text(page: Browser) -> None:
    for name, value, end in (("images", "2", "good"), ("typed", f"{NASTY} again", "again")):
        choose(page, name, value)
        settled(page, f"{DRAWN}.textContent.includes('onerror') && explorer.name !== 'text 1'")
        until(page, f"{DRAWN}.textContent.includes('{end}')")
        assert "<img src=x" in page.ask(f"{DRAWN}.textContent")
        assert page.ask("document.querySelectorAll('img').length") == 0
        assert page.ask("document.title") == "moreaugrad explorer"
    assert "again" in page.ask("explorer.get('images').selectedOptions[0].textContent")


@pytest.mark.chromium
@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_sticks_out(chromium: Browser, explorer: Explorer, width: int) -> None:
    with serving(explorer) as address:
        chromium.open(address, width=width)
        settled(chromium, "window.explorer?.panes?.[0]")
        chromium.ask(f"{PANE}.get('compare').click()")
        assert chromium.ask("document.documentElement.scrollWidth") <= width
        chromium.open("about:blank")


@pytest.mark.chromium
def test_without_texts_the_page_has_a_field(chromium: Browser) -> None:
    with serving(explorer_of(MODEL)) as address:
        chromium.open(address)
        until(chromium, "window.explorer?.panes?.[0]")
        assert not chromium.ask("explorer.get('drop').checkVisibility()")
        choose(chromium, "typed", "A film.")
        settled(chromium)
        assert "A film." in chromium.ask(f"{DRAWN}.textContent")
        chromium.open("about:blank")
