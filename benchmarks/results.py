"""What a part hands back, and how it is written: JSON for programs, Markdown for people."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from moreaugrad.files.atomic import write_atomically


@dataclass(frozen=True, kw_only=True)
class Table:
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]

    def markdown(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        body = "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)
        return f"{self.caption}\n\n{body}\n"


@dataclass(frozen=True, kw_only=True)
class Result:
    """`settings` and `figures` are JSON-able; `pictures` are PNG bytes by file name."""

    title: str
    settings: dict[str, Any]
    figures: dict[str, Any]
    tables: Sequence[Table]
    notes: Sequence[str] = ()
    pictures: dict[str, bytes] = field(default_factory=dict)


def write(result: Result, name: str, folder: Path, machine: dict[str, Any]) -> Path:
    """NAME.json, NAME.md and the images in `folder`; returns the path of the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in result.pictures.items():
        write_atomically(folder / file, data)
    record = {
        "part": name,
        "title": result.title,
        "machine": machine,
        "settings": result.settings,
        "figures": result.figures,
        "tables": [asdict(table) for table in result.tables],
        "notes": list(result.notes),
    }
    text = json.dumps(_plain(record), indent=1, ensure_ascii=False)
    write_atomically(folder / f"{name}.json", text.encode())
    lines = [f"# {result.title}\n"]
    lines += [table.markdown() for table in result.tables]
    lines += [f"- {note}" for note in result.notes]
    lines += [f"\n![{file}]({file})" for file in result.pictures]
    lines += ["\n" + "; ".join(f"{key}: {value}" for key, value in machine.items()), ""]
    path = folder / f"{name}.md"
    write_atomically(path, "\n".join(lines).encode())
    return path


def read(name: str, folder: Path) -> dict[str, Any] | None:
    """What `write` wrote of an earlier part, or None where it was not run."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value).replace("|", "\\|")
    if not math.isfinite(value):
        return "–"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _plain(value: Any) -> Any:
    """JSON has no NaN: it becomes null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
