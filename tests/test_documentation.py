"""What the README and the documentation say: their code runs, their tables are the code's."""

import importlib.util
import json
import os
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import moreaugrad as mg
from moreaugrad.cli.app import make_app
from moreaugrad.cli.commands import EVERY, GROUPS
from moreaugrad.data.images import load_image
from moreaugrad.explainers import captum_classes
from moreaugrad.models import load_model
from moreaugrad.settings import settings_of
from text_models import Bytes, as_bytes, hugging_face, write
from trained import lightning

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md"))
WITH_CODE = [
    path for path in (ROOT / "README.md", *PAGES) if "```python" in path.read_text("utf-8")
]
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
CLASSES = {method.load().method: method.load() for method in mg.METHODS.values()}


def in_docs(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that looks like a clone, as far as the snippets need it."""
    images = tmp_path / "docs" / "images"
    images.mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "images" / "cell.png", images)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(path: Path) -> dict[str, Any]:
    """All Python of a page, in one namespace that holds what `docs/methods/index.md` says."""
    text = path.read_text("utf-8")
    loaded = load_model("builtin")
    x = loaded.preprocess(load_image(ROOT / "docs" / "images" / "cell.png"))[None]
    # These pages must bring all that they use.
    alone = path.name in ("README.md", "first-map.md", "tutorial.md")
    space: dict[str, Any] = (
        {"__name__": "page"} if alone else {"mg": mg, "model": loaded.module, "x": x}
    )
    for match in CODE.finditer(text):
        # Lines as in the page, so that a traceback points there.
        lines = "\n" * text[: match.start(1)].count("\n")
        exec(compile(lines + match[1], in_docs(path), "exec", dont_inherit=True), space)
    return space


def check_image(made: Path, name: str) -> None:
    """An image of the documentation shows what the code of its page draws."""
    new, shown = (
        np.asarray(Image.open(path).convert("L"), float)
        for path in (made, ROOT / "docs" / "images" / name)
    )
    assert new.shape == shown.shape
    correlation = np.corrcoef(new.ravel(), shown.ravel())[0, 1]
    assert correlation > 0.99, f"docs/images/{name} is out of date: run the page's code again"


@pytest.mark.parametrize("path", WITH_CODE, ids=in_docs)
@pytest.mark.filterwarnings("ignore:.*(worker|LeafSpec)")  # Lightning's
def test_code_runs(path: Path, clone: Path) -> None:
    if path.name in ("text.md", "coming-from.md"):
        write(hugging_face(), clone / "sentiment", "DistilBertForSequenceClassification")
        write(hugging_face(), clone / "tagger", "DistilBertForTokenClassification")
    if path.name == "targets.md":
        hugging_face()
    if path.name == "volumes.md":
        pytest.importorskip("nibabel")
    if path.name == "trainers.md":
        hugging_face()
        lightning()
        pytest.importorskip("accelerate")
    space = run(path)
    if path.name == "coming-from.md":
        run_calls(path, space)
    if path.name == "tables.md":
        for name in ("bars", "row", "swarm"):
            check_image(clone / f"{name}.png", f"table-{name}.png")
    if path.name == "README.md":
        check_image(clone / "docs" / "images" / "maps.png", "maps.png")
        assert (clone / "cell-maps.png").is_file()
        assert space["result"].ok


def run_calls(path: Path, space: dict[str, Any]) -> None:
    """The calls in the tables of a page, in the column after the other library's."""
    explainer = mg.SimpleGradient(space["model"])
    space |= {
        "mask": space["within"], "label": 1, "box": (8, 8, 40, 40), "features": torch.ones(10),
        "explainer": explainer, "explanation": explainer.explain(space["x"]),
        "maps": explainer.attribute(space["x"]), "methods": ["cafo"], "texts": [space["text"]],
    }  # fmt: skip
    cells = re.findall(r"^\| .*? \| (.*?) \|", path.read_text("utf-8"), re.MULTILINE)
    calls = [call for cell in cells for call in re.findall(r"`(?:\w+ ?= ?)?(mg\..+?\))`", cell)]
    assert len(calls) > 25
    for call in calls:
        if "(...)" not in call:
            eval(call, space)


def test_there_is_code_to_run() -> None:
    found = {in_docs(path) for path in WITH_CODE}
    methods = {f"docs/methods/{name}.md" for name in CLASSES}
    assert found >= {"README.md", "docs/tutorial.md", "docs/captum-quantus.md", *methods}


def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=in_docs)
def test_pages_hold_the_tables_of_the_code(path: Path) -> None:
    text = path.read_text("utf-8")
    assert tables().with_tables(text) == text, "run: python docs/tables.py"


def expected() -> list[tuple[str, ...]]:
    """The rows of the table of what users expect: what, linked to its page, and one line."""
    text = (ROOT / "docs" / "index.md").read_text("utf-8").partition("## Features at a glance")[2]
    return re.findall(r"^\| (.*?) \| (.*?) \|$", text.partition("\n## ")[0], re.MULTILINE)[1:]


def test_what_users_expect_is_there(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = expected()
    assert len(rows) >= 15
    adding = CODE.findall((ROOT / "docs" / "adding-a-part.md").read_text("utf-8"))
    own = next(code for code in adding if "class ClippedGradient" in code)
    imports = re.findall(r"^(?:from|import) .*$", "\n".join(adding), re.MULTILINE)
    (clone / "mine.py").write_text("\n".join([*imports, own.partition("\n\n\nexplainer")[0]]))
    monkeypatch.syspath_prepend(clone)
    loaded = load_model("builtin")
    space = {
        "mg": mg, "torch": torch, "model": loaded.module,
        "x": loaded.preprocess(load_image("docs/images/cell.png"))[None],
        "classifier": Bytes().eval(), "tokenizer": as_bytes,
        "network": nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Tanh()).eval(),
        "rows": torch.rand(2, 64), "background": torch.rand(9, 64),
        "signals": torch.rand(2, 2, 32),
    }  # fmt: skip
    for what, line in rows:
        assert LINK.findall(what), what
        code = re.findall("`([^`]+)`", line)[0]
        if code.startswith("mg."):
            eval(code, space)
        else:  # its options are tested for all pages
            assert run_line(code), code


def run_line(code: str) -> bool:
    """Whether a command has all options of a line."""
    name, *words = code.removeprefix("moreaugrad ").split()
    options = {word for word in words if OPTION.fullmatch(word)}
    return name in COMMAND_OPTIONS and options <= COMMAND_OPTIONS[name]


def test_the_gallery_has_every_method_within_its_budget() -> None:
    results = ROOT / "benchmarks" / "results"
    found = json.loads((results / "gallery-photos.json").read_text("utf-8"))
    columns = found["figures"]["columns"]
    assert list(columns) == list(mg.METHODS)
    budget = found["settings"]["evaluations"]
    assert all(max(column["evaluations"]) <= budget for column in columns.values())
    page = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    assert f"**{budget} evaluations**" in page
    images = list(results.glob("gallery-photos-*.png"))
    assert all(f"measurements/{image.name})" in page for image in images)
    assert all(name in page for name in (*mg.METHODS, *found["settings"]["photos"]))
    assert sum(image.stat().st_size for image in images) < 1_500_000


PARTS = dict.fromkeys(
    row.load() for rows in (mg.METHODS, mg.attacks.ATTACKS, mg.training.PROTOCOLS)
    for row in rows.values()
)  # fmt: skip


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_pages_have_all_settings(part: type) -> None:
    text = "\n".join(path.read_text("utf-8") for path in PAGES)
    made = tables()
    held = {found["of"] for found in made.HELD.finditer(text) if found["kind"] == "settings"}
    shown = {(one.name, one.owner) for of in held for one in settings_of(made._named(of))}
    expected = {(one.name, one.owner) for one in settings_of(part) if one.default}
    assert expected <= shown, expected - shown


@pytest.mark.parametrize("name", CLASSES)
def test_each_method_has_a_page_with_its_settings(name: str) -> None:
    text = (ROOT / "docs" / "methods" / f"{name}.md").read_text("utf-8")
    assert f"<!-- settings: explainers.{CLASSES[name].__name__} " in text


@pytest.mark.parametrize("page", ["faq.md", "tutorial.md"])
@pytest.mark.parametrize("status", mg.Status)
def test_pages_explain_each_status(status: mg.Status, page: str) -> None:
    assert f"| `{status.value}` |" in (ROOT / "docs" / page).read_text("utf-8")


OPTION = re.compile(r"(?<![\w-])--?[a-z][\w-]*")
FOREIGN = {"--quick", "--sample", "--photos", "--nproc-per-node"}
"""Options of the benchmarks and of torchrun."""
COMMAND_LINE = re.compile(r"^ {4,}(?:torchrun .*?-m )?moreaugrad .*(?:\\\n.*)*", re.MULTILINE)


def command_options(name: str) -> set[str]:
    app = make_app(name)
    for word in name.split():
        app = app[word]
    found = app.assemble_argument_collection(parse_docstring=False)
    return {option for argument in found for option in argument.names} | {"--help"}


COMMAND_OPTIONS = {name: command_options(name) for name in EVERY}


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=in_docs)
def test_command_lines_have_options_of_their_commands(path: Path) -> None:
    for line in COMMAND_LINE.findall(path.read_text("utf-8")):
        words = re.sub(r" {2,}#.*", "", line).partition("moreaugrad ")[2].split()
        name = " ".join(words[:2]) if words[0] in GROUPS else words[0]
        assert name in COMMAND_OPTIONS, f"{in_docs(path)}: {line.strip()}"
        unknown = {word for word in words if OPTION.fullmatch(word)} - COMMAND_OPTIONS[name]
        assert not unknown, f"{in_docs(path)}: {line.strip()}"


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=in_docs)
def test_options_exist(path: Path) -> None:
    known = set[str]().union(FOREIGN, *COMMAND_OPTIONS.values())
    code = "\n".join(re.findall(r"`([^`\n]+)`", path.read_text("utf-8")))
    named = {option for option in OPTION.findall(code) if option.startswith("--")}
    assert named <= known, named - known


LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
LINKED = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *PAGES,
    *sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")),
]
MADE_FROM = {
    r"docs/measurements/": "benchmarks/results/",
    r"docs/notebooks/([\w-]+?)(?:-\d+\.png|\.md)$": r"docs/notebooks/\1.ipynb",
    r"docs/reference/index\.md$": "src/moreaugrad/__init__.py",
    r"docs/reference/(.*)\.md$": r"src/moreaugrad/\1",
    r"docs/changelog\.md$": "CHANGELOG.md",
    r"docs/contributing\.md$": "CONTRIBUTING.md",
}
"""Of the pages that are made when the site is built, see `docs/hooks.py`."""


def source(path: Path, link: str) -> Path:
    """What a link of a page leads to, or what that is made from."""
    place = os.path.relpath(path.parent / link, ROOT).replace(os.sep, "/")
    for made, of in MADE_FROM.items():
        place = re.sub(f"^{made}", of, place)
    return ROOT / place


def markdown(path: Path) -> str:
    text = path.read_text("utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n".join("".join(one["source"]) for one in cells if one["cell_type"] == "markdown")


@pytest.mark.parametrize("path", LINKED, ids=in_docs)
def test_links_lead_somewhere(path: Path) -> None:
    broken = [link for link in LINK.findall(markdown(path)) if not source(path, link).exists()]
    assert not broken, f"{in_docs(path)} links to what is not there: {', '.join(broken)}"


def test_links_of_the_readme_are_found() -> None:
    assert "docs/tutorial.md" in LINK.findall((ROOT / "README.md").read_text("utf-8"))


def test_methods_of_captum_exist() -> None:
    text = "\n".join(path.read_text("utf-8") for path in PAGES)
    named = set(re.findall(r"\bcaptum:(\w+)", text)) - {"NAME"}
    assert {"KernelShap", "GuidedBackprop"} <= named <= set(captum_classes.names())


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=in_docs)
def test_names_of_the_library_exist(path: Path) -> None:
    for name in re.findall(r"\bmg\.(\w+)", path.read_text("utf-8")):
        assert name in mg.__all__, f"{in_docs(path)} speaks of mg.{name}"


def test_the_ways_of_derivatives_are_those_of_the_classes() -> None:
    text = (ROOT / "docs" / "derivatives.md").read_text("utf-8")
    shown: dict[str, tuple[str, ...]] = {}
    for methods, ways in re.findall(r"^\| (`[^|]*) \| ([^|]*) \|$", text, re.MULTILINE):
        shown |= dict.fromkeys(re.findall("`([^`]+)`", methods), (*re.findall("`([^`]+)`", ways),))
    shown.pop("through", None)
    assert shown == {name: method.load().derivatives for name, method in mg.METHODS.items()}
