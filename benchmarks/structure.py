"""The size and the shape of the source: what a reader has to go through.

Lines, files, classes and docstrings are read off the files; the way of one explanation is traced.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

import moreaugrad
from benchmarks.context import Context
from benchmarks.results import Result, Table

PACKAGE = "moreaugrad"
SOURCE = Path(moreaugrad.__path__[0])
SOLVERS = f"{PACKAGE}.solvers."


@dataclass
class Way:
    """What `explain` goes through: frames of the package, and types of records that are made."""

    frames: int = 0
    """Deepest, from `explain` to a solver's `solve`, both counted."""
    records: set[str] = field(default_factory=set)
    """Dataclasses that are made on the way, without the explainer itself."""
    functions: set[str] = field(default_factory=set)
    _stack: list[bool] = field(default_factory=list)

    def __call__(self, frame: FrameType, event: str, _arg: object) -> None:
        if event == "call":
            module = frame.f_globals.get("__name__", "")
            own = module.split(".")[0] == PACKAGE
            self._stack.append(own)
            self._note(frame, module if own else "")
        elif event == "return" and self._stack:
            self._stack.pop()

    def _note(self, frame: FrameType, module: str) -> None:
        code = frame.f_code
        if not module:
            return
        self.functions.add(f"{module}.{code.co_qualname}")
        if code.co_name == "__init__":
            made = type(frame.f_locals[code.co_varnames[0]])
            if is_dataclass(made):
                self.records.add(made.__name__)
        if code.co_name == "solve" and module.startswith(SOLVERS):
            self.frames = max(self.frames, sum(self._stack))


def way_of_an_explanation() -> Way:
    """That of `SparseMoreauGrad(model).explain(x)` on a small network."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Softplus(), nn.Linear(8, 3)).eval()
    explainer = moreaugrad.SparseMoreauGrad(model)
    x = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    explainer.explain(x)  # what is imported when it is first used is not counted
    way = Way()
    sys.setprofile(way)
    try:
        explainer.explain(x)
    finally:
        sys.setprofile(None)
    return way


def top_level_classes(root: Path) -> Iterator[tuple[str, str]]:
    """Name and file of each."""
    for file in sorted(root.rglob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                yield node.name, file.relative_to(root).as_posix()


def docstring_lines(text: str) -> int:
    """Lines of the docstrings of a file, those under constants and fields too."""
    expressions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr)]
    return sum(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in expressions
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )


def measured() -> dict[str, Any]:
    texts = {
        file.relative_to(SOURCE): file.read_text(encoding="utf-8")
        for file in sorted(SOURCE.rglob("*.py"))
    }
    lines = {path: len(text.splitlines()) for path, text in texts.items()}
    parts: Counter[str] = Counter()
    for path, count in lines.items():
        parts[path.parts[0] if len(path.parts) > 1 else "(root)"] += count
    classes = list(top_level_classes(SOURCE))
    names = Counter(name for name, _ in classes)
    way, total = way_of_an_explanation(), sum(lines.values())
    return {
        "source lines": total,
        "files": len(lines),
        "public top-level classes": sum(not name.startswith("_") for name, _ in classes),
        "class names defined twice": sorted(name for name, times in names.items() if times > 1),
        "docstrings, fraction of the lines": sum(map(docstring_lines, texts.values())) / total,
        "longest file": max(lines.values()),
        "lines of runs and cli": parts["runs"] + parts["cli"],
        "frames from explain to the solver": way.frames,
        "record types on that way": sorted(way.records),
        "functions on that way": len(way.functions),
        "lines by part": dict(parts.most_common()),
    }


def run(context: Context) -> Result:
    """Ignores the context: nothing of it takes time."""
    found = measured()
    rows: list[list[object]] = [
        [name, f"{len(value)}: {', '.join(value)}" if isinstance(value, list) else value]
        for name, value in found.items()
        if not isinstance(value, dict)
    ]
    return Result(
        title="Structure of the source",
        settings={},
        figures=found,
        tables=[
            Table(caption="All of `src/moreaugrad`.", header=["what", "value"], rows=rows),
            Table(
                caption="Lines by part.",
                header=["part", "lines"],
                rows=[[name, count] for name, count in found["lines by part"].items()],
            ),
        ],
    )
