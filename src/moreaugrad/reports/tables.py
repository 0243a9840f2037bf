"""Tables of means and of single methods: for a page, as CSV, as LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any

from moreaugrad.attacks.catalogue import CLEAN
from moreaugrad.files.foreign import number_name
from moreaugrad.metrics.catalogue import heading
from moreaugrad.pictures.wording import NARROW, RAISED, count, duration, percent, score
from moreaugrad.reports.content import Entry, Section, Table, Tile
from moreaugrad.reports.statistics import HIGH, LOW, Drop, Mean

ARROWS = {HIGH: " ↑", LOW: " ↓", "": ""}
SPECIAL = str.maketrans(
    {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
     "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
     "↑": r"$\uparrow$", "↓": r"$\downarrow$", "−": "$-$", "×": r"$\times$", NARROW: r"\,",
     **{raised: f"$^{{{plain}}}$" for plain, raised in RAISED.items()}}
)  # fmt: skip
"""Characters that LaTeX reads as commands, or does not have."""


def mean_tables(found: Sequence[Mean], *, several: bool) -> list[Table]:
    """A table for each attack at a budget, with a row for each method and a column for each metric.

    Attacks are in the order of the first run's plan, budgets ascend. several: runs, which the rows
    then name.
    """
    order = list(dict.fromkeys(mean.attack for mean in found))
    groups: dict[tuple[str, float | None], list[Mean]] = {}
    for mean in sorted(found, key=lambda one: (order.index(one.attack), one.epsilon or 0)):
        groups.setdefault((mean.attack, mean.epsilon), []).append(mean)
    return [_mean_table(key, group, several=several) for key, group in groups.items()]


def _mean_table(key: tuple[str, float | None], group: Sequence[Mean], *, several: bool) -> Table:
    columns: dict[str, dict[tuple[str, str], Mean]] = {}
    for mean in group:
        columns.setdefault(mean.metric, {})[mean.run, mean.method] = mean
    best = {metric: _best(list(column.values())) for metric, column in columns.items()}
    rows = dict.fromkeys((mean.run, mean.method) for mean in group)
    return Table(
        title=table_title(*key),
        head="run, method" if several else "method",
        columns=[column_heading(next(iter(column.values()))) for column in columns.values()],
        rows=[
            (
                f"{run}, {method}" if several else method,
                [_entry(column.get((run, method)), best[name]) for name, column in columns.items()],
            )
            for run, method in rows
        ],
    )


def column_heading(mean: Mean) -> str:
    """The metric, in which direction it is better, and whether the attack is aimed at another."""
    aside = ", not aimed at" if mean.aimed is False else ""
    return heading(mean.metric) + ARROWS[mean.better] + aside


def table_title(attack: str, epsilon: float | None) -> str:
    if attack == CLEAN:
        return "Maps of the clean images"
    return attack if epsilon is None else f"{attack}, budget {number_name(epsilon)}"


def _best(column: Sequence[Mean]) -> float:
    """The best mean; NaN where nothing is better, or nothing to compare with."""
    means = [mean.mean for mean in column if not math.isnan(mean.mean)]
    if len(means) < 2 or column[0].better not in (HIGH, LOW):
        return math.nan
    return max(means) if column[0].better == HIGH else min(means)


def _entry(mean: Mean | None, best: float) -> Entry:
    if mean is None:
        return Entry()
    notes = [f"{mean.undefined} undefined"] if mean.undefined else []
    if mean.failed:
        other = mean.mean_with_failed
        same = math.isnan(other) or other == mean.mean
        notes.append(f"{mean.failed} failed" + ("" if same else f" ({score(other)} with them)"))
    return Entry(
        text="" if math.isnan(mean.mean) else score(mean.mean),
        interval="" if math.isnan(mean.low) else f"{score(mean.low)} to {score(mean.high)}",
        best=mean.mean == best,
        note=", ".join(notes),
    )


def drops_table(found: Sequence[Drop]) -> Table:
    """Rows by method, columns by metric."""
    metrics = list(dict.fromkeys(each.metric for each in found))
    several = len({each.run for each in found}) > 1
    rows: dict[str, dict[str, Drop]] = {}
    for each in found:
        head = f"{each.run}, " if several else ""
        rows.setdefault(f"{head}{each.method} of {each.base}", {})[each.metric] = each
    return Table(
        title="Loss of faithfulness, relative to the base",
        head="method of its base",
        columns=[f"{heading(name)} ↓" for name in metrics],
        rows=[(label, [_lost(row.get(name)) for name in metrics]) for label, row in rows.items()],
    )


def _lost(found: Drop | None) -> Entry:
    if found is None or math.isnan(found.drop):
        return Entry()
    span = "" if math.isnan(found.low) else f"{100 * found.low:.1f} to {100 * found.high:.1f} %"
    return Entry(text=f"{100 * found.drop:.1f} %", interval=span)


def summary_table(sections: Sequence[Section]) -> Table:
    """Means over the inputs of what the tiles of each method and network say.

    Networks, and the methods of each, are in the order of their first tile; columns without any
    figure are left out.
    """
    networks: dict[str, dict[str, list[Tile]]] = {}
    for section in sections:
        for answer in section.answers:
            for tile in answer.tiles:
                methods = networks.setdefault(answer.network, {})
                methods.setdefault(tile.title, []).append(tile)
    labels = [f"{n}, {m}" if n else m for n, methods in networks.items() for m in methods]
    groups = [tiles for methods in networks.values() for tiles in methods.values()]
    scores = dict.fromkeys(name for tiles in groups for tile in tiles for name in tile.scores)
    usable = [Entry(text=f"{sum(tile.ok for tile in tiles)} of {len(tiles)}") for tiles in groups]
    columns = {
        "usable": usable,
        **{heading(name): _scored(groups, name) for name in scores},
        "Gini": _averaged(groups, lambda tile: tile.gini, score),
        "zeros": _averaged(groups, lambda tile: tile.zeros, percent),
        "estimated error": _averaged(groups, lambda tile: tile.error, percent),
        "evaluations": _averaged(groups, lambda tile: tile.evaluations, count),
        "time": _averaged(groups, lambda tile: tile.seconds, duration),
    }
    kept = {
        name: column for name, column in columns.items() if any(e.text or e.note for e in column)
    }
    return Table(
        title=f"Mean over {len(sections)} inputs" if len(sections) > 1 else "Methods",
        head="network, method" if any(networks) else "method",
        columns=list(kept),
        rows=[(label, [c[row] for c in kept.values()]) for row, label in enumerate(labels)],
    )


def _averaged(
    groups: Sequence[Sequence[Tile]],
    value: Callable[[Tile], float | None],
    words: Callable[[float], str],
) -> list[Entry]:
    means = [_mean([value(tile) for tile in tiles]) for tiles in groups]
    return [Entry(text="" if math.isnan(mean) else words(mean)) for mean in means]


def _scored(groups: Sequence[Sequence[Tile]], name: str) -> list[Entry]:
    """Scores against the ground truth, with the best and the number of undefined ones."""
    values = [[tile.scores.get(name) for tile in tiles] for tiles in groups]
    means = list(map(_mean, values))
    known = [mean for mean in means if not math.isnan(mean)]
    best = max(known) if len(known) > 1 else math.nan
    undefined = [sum(v is not None and math.isnan(v) for v in group) for group in values]
    return [
        Entry(
            text="" if math.isnan(mean) else score(mean), best=mean == best,
            note=f"{missing} undefined" if missing else "",
        )
        for mean, missing in zip(means, undefined, strict=True)
    ]  # fmt: skip


def _mean(values: Sequence[float | None]) -> float:
    defined = [value for value in values if value is not None and not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def csv_text(kind: type[Any], found: Sequence[Any]) -> str:
    """A row for each record of a dataclass; what is undefined is empty."""
    text = io.StringIO()
    rows = csv.writer(text)
    names = [item.name for item in fields(kind)]
    rows.writerow(names)
    for one in found:
        values = [getattr(one, name) for name in names]
        rows.writerow("" if isinstance(v, float) and math.isnan(v) else v for v in values)
    return text.getvalue()


def latex(tables: Sequence[Table], confidence: float) -> str:
    """The tables for LaTeX with booktabs."""
    lines = ["% needs \\usepackage{booktabs}"]
    for table in tables:
        lines += [*_latex_lines(table, confidence), ""]
    return "\n".join(lines)


def _latex_lines(table: Table, confidence: float) -> Iterator[str]:
    caption = (
        f"{table.title}. Means over images with {100 * confidence:g} % intervals (Student's t)."
    )
    yield r"\begin{table}"
    yield rf"\caption{{{_escaped(caption)}}}"
    yield rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}"
    yield r"\toprule"
    yield " & ".join(map(_escaped, [table.head, *table.columns])) + r" \\"
    yield r"\midrule"
    for label, entries in table.rows:
        yield " & ".join([_escaped(label), *map(_latex_cell, entries)]) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield r"\end{table}"


def _latex_cell(entry: Entry) -> str:
    text = _escaped(entry.text) or "--"
    if entry.best:
        text = rf"\textbf{{{text}}}"
    if entry.interval:
        text += rf" \small[{_escaped(entry.interval)}]"
    return text + (rf" \small({_escaped(entry.note)})" if entry.note else "")


def _escaped(text: str) -> str:
    return text.translate(SPECIAL)
