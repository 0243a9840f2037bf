"""Cells as tables: for a page, as CSV, as LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

from moreaugrad.files.names import number_name
from moreaugrad.reports.content import Entry, Table
from moreaugrad.reports.reading import CLEAN
from moreaugrad.reports.statistics import HIGH, LOW, Mean
from moreaugrad.reports.wording import score

ARROWS = {HIGH: " ↑", LOW: " ↓", "": ""}
SPECIAL = str.maketrans(
    {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
     "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """The cells of an attack at a budget, as rows by (run, method) and columns by metric."""

    attack: str
    epsilon: float | None
    rows: dict[tuple[str, str], dict[str, Mean]]

    @property
    def title(self) -> str:
        if self.attack == CLEAN:
            return "Maps of the clean images"
        budget = "" if self.epsilon is None else f", budget {number_name(self.epsilon)}"
        return self.attack + budget

    @property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows.values() for name in row))

    def arrow(self, metric: str) -> str:
        """Which way is better."""
        return ARROWS[next(row[metric].better for row in self.rows.values() if metric in row)]


def blocks(found: Sequence[Mean]) -> list[Block]:
    """Attacks in the order of the first run's plan, the budgets of each from small to large."""
    made: dict[tuple[str, float | None], Block] = {}
    order = list(dict.fromkeys(cell.attack for cell in found))
    for cell in sorted(found, key=lambda c: (order.index(c.attack), c.epsilon or 0)):
        block = made.setdefault((cell.attack, cell.epsilon), Block(cell.attack, cell.epsilon, {}))
        block.rows.setdefault((cell.run, cell.method), {})[cell.metric] = cell
    return list(made.values())


def best(block: Block, metric: str) -> float:
    """The best mean of a column; NaN where nothing is better, or nothing to compare with."""
    column = [row[metric] for row in block.rows.values() if metric in row]
    means = [cell.mean for cell in column if not math.isnan(cell.mean)]
    if len(means) < 2 or column[0].better not in (HIGH, LOW):
        return math.nan
    return max(means) if column[0].better == HIGH else min(means)


def page_table(block: Block, *, several: bool) -> Table:
    """`several` runs: each row tells its own."""
    return Table(
        title=block.title,
        head="run, method" if several else "method",
        columns=[name + block.arrow(name) for name in block.metrics],
        rows=[
            (
                f"{run}, {method}" if several else method,
                [_entry(row.get(name), best(block, name)) for name in block.metrics],
            )
            for (run, method), row in block.rows.items()
        ],
    )


def _entry(cell: Mean | None, top: float) -> Entry:
    if cell is None:
        return Entry()
    notes = [f"{cell.undefined} undefined"] if cell.undefined else []
    if cell.failed:
        other = cell.mean_with_failed
        same = math.isnan(other) or other == cell.mean
        notes.append(f"{cell.failed} failed" + ("" if same else f" ({score(other)} with them)"))
    return Entry(
        text="" if math.isnan(cell.mean) else score(cell.mean),
        interval="" if math.isnan(cell.low) else f"{score(cell.low)} to {score(cell.high)}",
        best=cell.mean == top,
        note=", ".join(notes),
    )


def csv_text(found: Sequence[Mean]) -> str:
    """A row for each cell; what is undefined is empty."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    names = [item.name for item in fields(Mean)]
    rows.writerow(names)
    for cell in found:
        rows.writerow(_shown(getattr(cell, name)) for name in names)
    return text.getvalue()


def _shown(value: object) -> object:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def latex(found: Sequence[Block], confidence: float, *, several: bool) -> str:
    """A booktabs table for each block."""
    return "% needs \\usepackage{booktabs}\n" + "\n".join(
        "\n".join(_latex_lines(block, confidence, several)) + "\n" for block in found
    )


def _latex_lines(block: Block, confidence: float, several: bool) -> Iterator[str]:
    names = block.metrics
    arrows = {" ↑": r" $\uparrow$", " ↓": r" $\downarrow$", "": ""}
    head = ["run", "method"] if several else ["method"]
    yield r"\begin{table}"
    caption = (
        f"{block.title}. Means over images with {100 * confidence:g} % intervals (Student's t)."
    )
    yield rf"\caption{{{_escaped(caption)}}}"
    yield rf"\begin{{tabular}}{{{'l' * len(head)}{'r' * len(names)}}}"
    yield r"\toprule"
    columns = [*head, *(_escaped(name) + arrows[block.arrow(name)] for name in names)]
    yield " & ".join(columns) + r" \\"
    yield r"\midrule"
    for (run, method), row in block.rows.items():
        label = [run, method] if several else [method]
        shown = [_latex_cell(row.get(name), best(block, name)) for name in names]
        yield " & ".join([*map(_escaped, label), *shown]) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield r"\end{table}"


def _latex_cell(cell: Mean | None, top: float) -> str:
    if cell is None or math.isnan(cell.mean):
        return "--"
    words: Callable[[float], str] = "{:.3f}".format
    text = rf"\textbf{{{words(cell.mean)}}}" if cell.mean == top else words(cell.mean)
    if not math.isnan(cell.low):
        text += rf" \small[{words(cell.low)}, {words(cell.high)}]"
    lost = cell.undefined + cell.failed
    return text + (rf"\textsuperscript{{({lost} left out)}}" if lost else "")


def _escaped(text: str) -> str:
    return text.translate(SPECIAL)
