"""The API reference has an entry for each public name, with its text and its settings."""

import importlib
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import moreaugrad as mg
from moreaugrad.settings import settings_of

ROOT = Path(__file__).parents[1]
STUBS = sorted((ROOT / "src" / "moreaugrad").rglob("*.pyi"))
IMPORTED = re.compile(r"\b(\w+) as \1\b")


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module("reference")
    finally:
        sys.path.remove(str(ROOT / "docs"))


@pytest.mark.parametrize("stub", STUBS, ids=lambda path: path.parent.name)
def test_each_public_name_has_one_entry(stub: Path, reference: ModuleType) -> None:
    package = ".".join(stub.parent.relative_to(ROOT / "src").parts)
    shown = re.findall(r"^::: (\S+)$", "\n".join(reference.pages().values()), re.MULTILINE)
    assert len(shown) == len(set(shown))
    for name in IMPORTED.findall(stub.read_text("utf-8")):
        part = getattr(importlib.import_module(package), name)
        if inspect.ismodule(part):
            assert reference.place(part.__name__) in reference.pages()
        else:
            assert reference.ENTRIES[f"{package}.{name}"] in shown, name


def test_each_page_lists_its_package(reference: ModuleType) -> None:
    page = reference.pages()["reference/index.md"]
    assert "[`SparseMoreauGrad`][moreaugrad.explainers.SparseMoreauGrad]" in page
    assert "::: moreaugrad.explainers.SparseMoreauGrad" not in page
    assert "::: moreaugrad.Results" in page


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A `Penalty` R.", "A [`Penalty`][moreaugrad.penalties.Penalty] R."),
        ("`mg.build(name)` it", "[`mg.build(name)`][moreaugrad.explainers.build] it"),
        ("`build` and `keep` are words", "`build` and `keep` are words"),
        ("[`Penalty`](a.md) has a link", "[`Penalty`](a.md) has a link"),
        ("# The `Penalty`\n\n```\n`Penalty`\n```", "# The `Penalty`\n\n```\n`Penalty`\n```"),
    ],
)
def test_names_in_prose_lead_to_their_entries(
    text: str, expected: str, reference: ModuleType
) -> None:
    assert reference.with_links(text) == expected


def test_docstrings_are_plain_text(reference: ModuleType) -> None:
    text = "u* = argmin_v\n\n>>> x = [\n...     1]\n\nSource: none."
    expected = "u\\* = argmin\\_v\n\n```python\nx = [\n    1]\n```\n\n*Source:* none."
    assert reference.as_markdown(text) == expected


def test_entries_have_text_and_settings(reference: ModuleType) -> None:
    griffe = pytest.importorskip("griffe")
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        extensions = griffe.load_extensions(importlib.import_module("docstrings").Docstrings)
    finally:
        sys.path.remove(str(ROOT / "docs"))
    package = griffe.load("moreaugrad", search_paths=[ROOT / "src"], extensions=extensions)
    for entry in set(reference.ENTRIES.values()):
        part = package[entry.partition(".")[2]]
        assert part.docstring is not None, entry
        if part.is_class:
            sections = part.docstring.parsed
            assert sections, entry
    assert {"save", "certain", "ok"} <= set(package["Explanation"].members)
    sparse = package["SparseMoreauGrad"].docstring.parsed
    assert sparse[0].value.endswith("Inherits from [`Moreau`][moreaugrad.explainers.Moreau].")
    shown = [(one.name, one.default) for one in sparse[-1].value]
    assert shown == [(one.name, one.default or None) for one in settings_of(mg.SparseMoreauGrad)]
    assert [one.name for one in package["Status"].docstring.parsed[-1].value] == [
        one.name for one in mg.Status
    ]
