"""What mkdocs makes while it builds: tables from the code, the measurements, formulas as MathML.

Readers need no script and no network.
"""

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files, InclusionLevel

from moreaugrad.cli.app import app
from moreaugrad.explainers import METHODS

FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\s*\\[(\[](?P<latex>.*?)\\[)\]]\s*</(?P=tag)>',
    re.DOTALL,
)
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def methods_table(pages: str = "") -> str:
    """The registry as a table, each method linked to its page in the folder `pages`."""
    rows = ["| method | what it is | class | source |", "|---|---|---|---|"]
    for name, method in METHODS.items():
        found = method.load()
        settings = ", ".join(f"{key}={value!r}" for key, value in method.settings.items())
        made = f"`{found.__name__}({settings})`" if settings else f"`{found.__name__}`"
        rows.append(
            f"| [`{name}`]({pages}{found.method}.md) | {method.summary} | {made} | {method.paper} |"
        )
    return "\n".join(rows)


def options_table() -> str:
    """The options that `explain`, `compare` and `sweep` share, by what they are about."""
    command = typer.main.get_command(app).commands["explain"]  # type: ignore[attr-defined]
    panels: dict[str, list[str]] = {}
    for option in command.params:
        panel = getattr(option, "rich_help_panel", None)
        if panel:
            names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
            told = option.help.replace("\\[", "[").replace("|", "\\|")
            panels.setdefault(panel, []).append(f"| {names} | {told} |")
    return "\n\n".join(
        "\n".join([f"| {panel} | |", "|---|---|", *rows]) for panel, rows in panels.items()
    )


def measurements() -> str:
    """Links to the tables of `make bench` that are there."""
    found = [
        f"- [{path.read_text(encoding='utf-8').partition(chr(10))[0].lstrip('# ')}]"
        f"(measurements/{path.name})"
        for path in sorted(RESULTS.glob("*.md"))
    ]
    return "\n".join(found) or "none."


MADE: dict[str, Callable[[], str]] = {
    "<!-- methods -->": methods_table,
    "<!-- options -->": options_table,
    "<!-- measurements -->": measurements,
}


def on_files(files: Files, config: Any) -> Files:
    """Add the measurements, which lie outside of the documentation's folder."""
    for path in sorted(RESULTS.glob("*")):
        if path.suffix in (".md", ".png"):
            place = f"measurements/{path.name}"
            level = InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, place, abs_src_path=str(path), inclusion=level))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables where a page asks for them."""
    for place, made in MADE.items():
        if place in markdown:
            markdown = markdown.replace(place, made())
    return markdown


def on_page_content(content: str, **_: Any) -> str:
    """Replace what arithmatex marked, `\\(inline\\)` and `\\[display\\]`, with MathML."""

    def mathml(match: re.Match[str]) -> str:
        latex = html.unescape(match["latex"].strip())
        made = convert(latex, display="block" if match["tag"] == "div" else "inline")
        if "\\" in made:
            raise ValueError(f"a command of this formula is not known to latex2mathml: {latex}")
        return made

    return FORMULA.sub(mathml, content)
