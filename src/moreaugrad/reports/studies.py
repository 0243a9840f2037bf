"""Results of studies as tables: in a file, in Markdown, and as a page."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch

from moreaugrad.files.foreign import open_image, read_json
from moreaugrad.files.units import Record, Units
from moreaugrad.pictures import photo
from moreaugrad.reports.content import Entry, Page, Section, Table
from moreaugrad.reports.folder import read_config, table_files

RESULTS, TABLES, MARKDOWN = "results.json", "tables.json", "table.md"
LOG = "log.jsonl"
"""Of a training: a record of each epoch."""
STUDY_FILES = (RESULTS, TABLES, MARKDOWN, "records.*")
MARKED = re.compile(r"([\\`*_\[\]#])")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a study found. images: titles of images and their files, below its folder."""

    title: str
    lead: str = ""
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    images: Sequence[tuple[str, str]] = ()

    def files(self) -> dict[str, bytes]:
        """As `tables.json`, of which a report is made, and in Markdown."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        return {TABLES: text.encode(), MARKDOWN: self.markdown().encode()}

    def write(self, units: Units, results: Record) -> None:
        """The same, and the numbers for scripts; where they are similarities of maps, also as a
        table. Errors: OSError of the file system."""
        text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        table = table_files(results["similarity"]) if "similarity" in results else {}
        for name, data in {RESULTS: text.encode(), **table, **self.files()}.items():
            units.put(name, data)

    def markdown(self) -> str:
        lines = [f"# {escaped(self.title)}", *(["", self.lead] if self.lead else [])]
        for table in self.tables:
            if table.title:
                lines += ["", f"## {escaped(table.title)}"]
            lines += ["", *table_lines(table)]
        for title, file in self.images:
            lines += ["", f"![{escaped(title)}]({quote(file, errors='surrogateescape')})"]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Findings:
        """Errors: ValueError for a study that is not finished."""
        file = folder / TABLES
        if not file.is_file():
            raise ValueError(f"{folder}: expected a finished run, but it holds no {TABLES}")
        found = read_json(file, "the tables of a study")
        try:
            tables = [
                Table(
                    title=table["title"], head=table["head"], columns=table["columns"],
                    rows=[(label, [Entry(**entry) for entry in row])
                          for label, row in table["rows"]],
                )
                for table in found["tables"]
            ]  # fmt: skip
            return cls(
                title=found["title"], lead=found["lead"], tables=tables, notes=found["notes"],
                images=[(title, file) for title, file in found["images"]],
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}: expected the tables of a study") from error


def table_lines(table: Table) -> list[str]:
    """A table in Markdown."""
    columns = [table.head, *table.columns]
    lines = [f"| {' | '.join(map(escaped, columns))} |", "|---|" + "---:|" * len(table.columns)]
    for label, entries in table.rows:
        cells = [escaped(label), *map(_cell, entries)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cell(entry: Entry) -> str:
    more = [f"({part})" for part in (entry.interval, entry.note) if part]
    return escaped(" ".join([entry.text or "–", *more]))


def study_page(folder: Path) -> Page:
    """Errors: ValueError for a study that is not finished."""
    from moreaugrad.reports.curves import epoch_charts

    command, config, text = read_config(folder)
    found = Findings.read(folder)
    sections = []
    for title, file in found.images:
        try:
            with (folder / file).open("rb") as opened, open_image(opened) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, ValueError) as error:
            what = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ValueError(f"{folder / file}: expected an image of the run ({what})") from error
        values = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
        sections.append(Section(title=title, photo=photo(values)))
    log = folder / LOG
    records = [json.loads(line) for line in log.read_bytes().splitlines()] if log.is_file() else []
    model = config.get("model", config.get("training", {}).get("model", {}))
    return Page(
        title=found.title, lead=found.lead, sections=sections, tables=list(found.tables),
        notes=list(found.notes), settings=text, charts=epoch_charts(records),
        facts={"command": command, **({"model": model["name"]} if "name" in model else {})},
    )  # fmt: skip


def escaped(text: str) -> str:
    """A name for a line or a table's cell of Markdown, on one line.

    Entities stand for what not every reader of Markdown lets a backslash precede.
    """
    shown = "".join(char if char.isprintable() else " " for char in text)
    plain = html.escape(" ".join(shown.split()), quote=False)
    return MARKED.sub(r"\\\1", plain).replace("|", "&#124;").replace("~", "&#126;")
