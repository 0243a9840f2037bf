"""What mkdocs makes while it builds: tables from the code, the measurements, formulas as MathML.

Readers need no script and no network.
"""

import html
import re
from collections.abc import Callable, Iterator
from typing import Any

import notebooks
from formulas import mathml
from mkdocs.structure.files import File, Files, InclusionLevel
from reference import pages, with_links
from tables import (
    RESULTS,
    ROOT,
    measurements,
    methods_table,
    metrics_table,
    options_table,
    result_table,
)

from moreaugrad.explainers import METHODS

FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\s*\\[(\[](?P<latex>.*?)\\[)\]]\s*</(?P=tag)>'
    r"(?P<after>[.,;:)]*)",
    re.DOTALL,
)

RESULT = re.compile(r"<!-- result (?P<part>\S+) (?P<table>\d+) -->")
"""A table of a part of the benchmarks, the first is 1."""


MADE: dict[str, Callable[[], str]] = {
    "<!-- methods -->": methods_table,
    "<!-- options -->": options_table,
    "<!-- certify options -->": lambda: options_table("certify", only="Certificate"),
    "<!-- recommend options -->": lambda: options_table("recommend", only="Recommendation"),
    "<!-- evaluate options -->": lambda: "\n\n".join(
        options_table("evaluate", only=panel) for panel in ("Data", "Evaluation")
    ),
    "<!-- metrics -->": metrics_table,
    "<!-- measurements -->": measurements,
}


UNLINKED = ("reference/", "measurements/", "coming-from")
"""Pages without automatic links: those that have their own, or name classes of other libraries."""

ROOT_PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
"""Pages of the site that lie at the root of the repository, where readers of code look for them."""


def on_config(config: Any) -> Any:
    """Add a page for each class of methods, and for each package of the reference."""
    methods = dict.fromkeys(f"methods/{row.load().method}.md" for row in METHODS.values())
    sections = dict(_sections(config["nav"]))
    sections["Methods"] += methods
    sections["API"] += list(pages())[1:]
    return config


def _sections(nav: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Titles and entries of the sections, and of those inside of them."""
    for entry in nav:
        for title, inside in entry.items() if isinstance(entry, dict) else ():
            if isinstance(inside, list):
                yield title, inside
                yield from _sections(inside)


def on_files(files: Files, config: Any) -> Files:
    """Add the reference, the notebooks, and pages from outside of the documentation's folder."""
    for place, text in (pages() | notebooks.pages()).items():
        files.append(File.generated(config, place, content=text))
    for place, name in ROOT_PAGES.items():
        text = (ROOT / name).read_text("utf-8").replace("](docs/", "](")
        files.append(File.generated(config, place, content=text))
    for path in sorted(RESULTS.glob("*")):
        if path.suffix in (".md", ".png", ".svg"):
            place = f"measurements/{path.name}"
            level = InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, place, abs_src_path=str(path), inclusion=level))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put the tables where a page asks for them, and link the names of the library."""
    for place, made in MADE.items():
        if place in markdown:
            markdown = markdown.replace(place, made())
    markdown = RESULT.sub(lambda match: result_table(*match.groups()), markdown)
    return markdown if page.file.src_uri.startswith(UNLINKED) else with_links(markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Replace what arithmatex marked, `\\(inline\\)` and `\\[display\\]`, with MathML."""

    def made(match: re.Match[str]) -> str:
        display = match["tag"] == "div"
        formula = mathml(html.unescape(match["latex"].strip()), display=display)
        if display:  # wider than a phone: it scrolls, the page does not
            return f'<div class="formula">{formula}</div>{match["after"]}'
        return f'<span class="formula">{formula}{match["after"]}</span>'

    return FORMULA.sub(made, content)
