"""Formulas of the documentation keep their bars."""

import importlib.util
import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

markdown = pytest.importorskip("markdown")
for needed in ("latex2mathml", "mkdocs", "pymdownx"):
    pytest.importorskip(needed)

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "$" in path.read_text("utf-8"))
MATH = re.compile(r"<math\b.*?</math>", re.DOTALL)
WRITTEN = {"\u2016": r"\\[lr]?Vert|\\\|", "|": r"\\[lr]?vert|(?<!\\)\|"}
SOURCE = re.compile(r'class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</', re.DOTALL)


def module(name: str) -> ModuleType:
    sys.path.insert(0, str(DOCS))
    try:
        spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
    finally:
        sys.path.remove(str(DOCS))
    return found


mathml = module("formulas").mathml


def page(path: Path) -> tuple[list[str], list[ET.Element]]:
    """The formulas of a page as LaTeX and as they are in its HTML."""
    html = markdown.markdown(
        path.read_text("utf-8"),
        extensions=["pymdownx.arithmatex", "tables", "pymdownx.superfences", "footnotes"],
        extension_configs={"pymdownx.arithmatex": {"generic": True}},
    )
    made = module("hooks").on_page_content(html)
    return SOURCE.findall(html), [ET.fromstring(text) for text in MATH.findall(made)]


def bars(formula: ET.Element) -> list[tuple[str, str, str]]:
    """(sign, form, stretchy) of each."""
    return [
        (mo.text or "", mo.get("form", ""), mo.get("stretchy", ""))
        for mo in formula.iter("{http://www.w3.org/1998/Math/MathML}mo")
        if mo.text in ("\u2016", "\u2225", "|")
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_bars_survive(path: Path) -> None:
    sources, formulas = page(path)
    assert len(sources) == len(formulas)
    for latex, formula in zip(sources, formulas, strict=True):
        found = bars(formula)
        signs = Counter(sign for sign, _, _ in found)
        for sign, written in WRITTEN.items():
            assert signs[sign] == len(re.findall(written, latex)), latex
        grown = [grows for _, _, grows in found].count("true")
        assert grown == len(re.findall(r"\\(?:left|right)\s*(?:\\[lr]?[vV]ert|\\?\|)", latex))
        forms = [form for _, form, _ in found]
        assert forms.count("prefix") == forms.count("postfix") == len(found) / 2


def test_pages_of_methods_have_formulas() -> None:
    for path in (DOCS / "methods").glob("*.md"):
        if path.name != "index.md":
            assert page(path)[1], path.name
    for name in ("sparse-moreaugrad", "group-sparse-moreaugrad", "moreaugrad", "cafo", "caso"):
        assert any(map(bars, page(DOCS / "methods" / f"{name}.md")[1])), name


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        (r"\lVert x \rVert_2^2", [("\u2016", "prefix", "false"), ("\u2016", "postfix", "false")]),
        (r"\frac{\lvert a \rvert}{2}", [("|", "prefix", "false"), ("|", "postfix", "false")]),
        (r"\left| x \right|_1", [("|", "prefix", "true"), ("|", "postfix", "true")]),
        (r"|x| + |y|", [("|", "prefix", "false"), ("|", "postfix", "false")] * 2),
        (r"\max_i |g_i|", [("|", "prefix", "false"), ("|", "postfix", "false")]),
    ],
)
def test_each_bar_has_its_form(latex: str, expected: list[tuple[str, str, str]]) -> None:
    assert bars(ET.fromstring(mathml(latex))) == expected


def test_what_surrounds_bars_stays() -> None:
    found = mathml(r"\frac{\lVert u \rVert_2^2}{2\rho}", display=True)
    assert 'display="block"' in found
    assert "".join(ET.fromstring(found).itertext()) == "\u2016u\u2016222\u03c1"


@pytest.mark.parametrize(
    ("latex", "words"), [(r"\lVert x", "do not pair"), (r"\nosuchcommand x", "not known")]
)
def test_what_cannot_be_drawn_is_refused(latex: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mathml(latex)
