"""Notebooks as pages of the site: run when it is built, with what each cell prints and shows.

They run in this process, in a namespace and an empty folder of their own: without a kernel there is
no port and no configuration of a user's Jupyter. Their pages are Markdown like all others.
"""

import ast
import contextlib
import html
import importlib.util
import io
import json
import re
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from moreaugrad.models.packages import import_torchvision

FOLDER = Path(__file__).parent / "notebooks"
BLANK_LINES = re.compile(r"\n\s*\n")
NEW_LINE = "\n"
OTHER = re.compile(r"\]\(([\w-]+)\.ipynb\)")
"""A link to another notebook, whose page is meant."""
FIGURE = """<div class="figure" markdown>
![Figure that the cell above shows]({file})
</div>"""
DOWNLOAD = """This page is a notebook that was run when the documentation was built:
[download it]({name}.ipynb)."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell that was run. value: what its last expression gave, which a notebook shows."""

    source: str
    code: bool
    printed: str = ""
    value: Any = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Notebook:
    """cells: in their order. space: the names that they defined."""

    cells: tuple[Cell, ...]
    space: Mapping[str, Any]


def pages() -> dict[str, str | bytes]:
    """The Markdown of each notebook and its figures, by their places."""
    made: dict[str, str | bytes] = {}
    for path in sorted(FOLDER.glob("*.ipynb")):
        made |= page(path.stem, run(path.read_text("utf-8"), path.name))
    return made


@cache  # for `mkdocs serve`
def run(text: str, name: str) -> Notebook:
    """Run the code of a notebook. Errors: those of its code; warnings are errors too."""
    if importlib.util.find_spec("torchvision"):
        import_torchvision()  # before transformers does, which needs all of its operators
    cells: list[Cell] = []
    space: dict[str, Any] = {"__name__": "__main__"}
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty), warnings.catch_warnings():
        warnings.simplefilter("error")
        for found in json.loads(text)["cells"]:
            source, code = "".join(found["source"]), found["cell_type"] == "code"
            shown = _run(source, f"{name}, cell {len(cells) + 1}", space) if code else {}
            cells.append(Cell(source=source, code=code, **shown))
    return Notebook(cells=tuple(cells), space=space)


def _run(source: str, name: str, space: dict[str, Any]) -> dict[str, Any]:
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, name, "exec"), space)
        expression = None if last is None else compile(ast.Expression(last.value), name, "eval")
        value = None if expression is None else eval(expression, space)
    return {"printed": printed.getvalue(), "value": value}


def page(name: str, notebook: Notebook) -> dict[str, str | bytes]:
    """The Markdown of a notebook that was run, and its figures, by their places."""
    figures: dict[str, str | bytes] = {}
    parts: list[str] = []
    for cell in notebook.cells:
        if not cell.code:
            parts.append(OTHER.sub(r"](\1.md)", cell.source))
            continue
        parts.append(f"```python\n{cell.source}\n```")
        if cell.printed:
            parts.append(_text(cell.printed))
        shown, figure = (_shown(cell.value, form) for form in ("html", "png"))
        if shown:
            parts.append(f'<div class="output">{BLANK_LINES.sub(NEW_LINE, shown)}</div>')
        elif figure:
            file = f"{name}-{len(figures) + 1}.png"
            figures[f"notebooks/{file}"] = figure
            parts.append(FIGURE.format(file=file))
        elif cell.value is not None:
            parts.append(_text(repr(cell.value)))
    parts.insert(1, DOWNLOAD.format(name=name))
    return {f"notebooks/{name}.md": "\n\n".join(parts) + "\n", **figures}


def _shown(value: Any, form: str) -> Any:
    """As Jupyter asks for it; None where the value does not have this form."""
    made = getattr(value, f"_repr_{form}_", None)
    return made and made()


def _text(shown: str) -> str:
    """Not a code block: it has no language and nothing to copy."""
    lines = html.escape(shown.rstrip(), quote=False).replace("\n\n", "\n&#8203;\n")
    return f'<pre class="output">{lines}</pre>'
