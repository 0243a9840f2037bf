"""What the README and the documentation say: their code runs, their tables are the code's."""

import importlib.util
import re
import shutil
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import moreaugrad as mg
from moreaugrad.data.images import load_image
from moreaugrad.explainers.moreau import Moreau
from moreaugrad.models import load_model

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md"))
WITH_CODE = [
    path for path in (ROOT / "README.md", *PAGES) if "```python" in path.read_text("utf-8")
]
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SETTING = re.compile(r"^\| `(\w+)` \| `([^`]*)` \|", re.MULTILINE)
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
    # The README and the tutorial must bring all that they use.
    alone = path.name in ("README.md", "tutorial.md")
    space: dict[str, Any] = (
        {"__name__": "page"} if alone else {"mg": mg, "model": loaded.module, "x": x}
    )
    for match in CODE.finditer(text):
        # Lines as in the page, so that a traceback points there.
        lines = "\n" * text[: match.start(1)].count("\n")
        exec(compile(lines + match[1], in_docs(path), "exec", dont_inherit=True), space)
    return space


@pytest.mark.parametrize("path", WITH_CODE, ids=in_docs)
def test_code_runs(path: Path, clone: Path) -> None:
    space = run(path)
    if path.name == "README.md":
        made, shown = (
            np.asarray(Image.open(root / "docs" / "images" / "maps.png").convert("L"), float)
            for root in (clone, ROOT)
        )
        assert made.shape == shown.shape
        likeness = np.corrcoef(made.ravel(), shown.ravel())[0, 1]
        assert likeness > 0.99, "docs/images/maps.png is not what the snippet makes: run it again"
        assert (clone / "cell-maps.png").is_file()
        assert space["result"].ok


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


def test_readme_has_the_table_of_the_registry() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    table = re.search(
        r"^<!-- methods: begin.*?-->\n(.*?)\n<!-- methods: end -->", text, re.M | re.S
    )
    assert table is not None
    expected = tables().methods_table("docs/methods/")
    assert table[1] == expected, f"the README's table of methods should read\n{expected}"


def settings_of(page: str) -> dict[str, str]:
    text = (ROOT / "docs" / "methods" / f"{page}.md").read_text("utf-8")
    return dict(SETTING.findall(text))


@pytest.mark.parametrize("name", CLASSES)
def test_a_page_tells_the_settings(name: str) -> None:
    found = settings_of("index")
    if issubclass(CLASSES[name], Moreau):
        found |= settings_of("moreaugrad")
    for other in CLASSES:  # pages of what a class is made of, and at last its own
        if issubclass(CLASSES[name], CLASSES[other]) and other != name:
            found |= settings_of(other)
    found |= settings_of(name)
    known = {item.name: item.default for item in fields(CLASSES[name])[1:] if item.init}
    assert found == {key: f'"{v}"' if isinstance(v, str) else repr(v) for key, v in known.items()}


@pytest.mark.parametrize("status", mg.Status)
def test_the_tutorial_tells_of_each_status(status: mg.Status) -> None:
    assert f"| `{status.value}` |" in (ROOT / "docs" / "tutorial.md").read_text("utf-8")


LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=in_docs)
def test_links_lead_somewhere(path: Path) -> None:
    for target in LINK.findall(path.read_text("utf-8")):
        assert (ROOT / target).exists(), f"{path.name} links to {target}, which is not there"


def test_links_of_the_readme_are_found() -> None:
    assert "docs/tutorial.md" in LINK.findall((ROOT / "README.md").read_text("utf-8"))


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=in_docs)
def test_names_of_the_library_exist(path: Path) -> None:
    for name in re.findall(r"\bmg\.(\w+)", path.read_text("utf-8")):
        assert name in mg.__all__, f"{in_docs(path)} speaks of mg.{name}"


def test_the_ways_of_derivatives_are_those_of_the_classes() -> None:
    text = (ROOT / "docs" / "derivatives.md").read_text("utf-8")
    told: dict[str, tuple[str, ...]] = {}
    for methods, ways in re.findall(r"^\| (`[^|]*) \| ([^|]*) \|$", text, re.MULTILINE):
        told |= dict.fromkeys(re.findall("`([^`]+)`", methods), (*re.findall("`([^`]+)`", ways),))
    told.pop("through", None)
    assert told == {name: method.load().derivatives for name, method in mg.METHODS.items()}
