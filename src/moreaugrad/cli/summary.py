"""What a command says when it is done: tables for people, JSON for scripts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from moreaugrad.cli import screen
from moreaugrad.cli.screen import duration, line, note, results
from moreaugrad.metrics.catalogue import heading
from moreaugrad.runs.plans.explain import EvaluatePlan, ExplainPlan

if TYPE_CHECKING:
    from moreaugrad.runs.engine import Outcome

MANY = 40
"""Maps from which on the summary is of methods, not of each map."""


def print_summary(outcome: Outcome) -> None:
    """What was made, what is missing from it, and where it is."""
    for text in outcome.notes:
        note(f"note: {text}")
    console = results()
    if isinstance(outcome.run.plan, ExplainPlan | EvaluatePlan):
        records = outcome.run.results(outcome.directory).get("inputs", ())
        if isinstance(outcome.run.plan, ExplainPlan):
            _maps(records, console)
        _used_up(records)
    table = outcome.folder / "table.md"
    if table.is_file() and not outcome.interrupted:
        console.print(table.read_text(encoding="utf-8"), markup=False, soft_wrap=True)
    reports = outcome.run.command == "report"
    if outcome.failures and not reports:
        from moreaugrad.runs.engine import LEFT_OUT
        from moreaugrad.runs.maps.interactions import WITHOUT

        found = Counter((failure.kind, not failure.method) for failure in outcome.failures)
        unread, lost, lacking = (
            found[kind] for kind in ((LEFT_OUT, True), (LEFT_OUT, False), (WITHOUT, False))
        )
        kind = getattr(outcome.run.plan, "kind", "")
        what = {"texts": "text", "arrays": "input"}.get(kind, "image")
        counts = [_count(unread, what)] * (unread > 0) + [_count(lost, "map")] * (lost > 0)
        counts += [f"the interactions of {_count(lacking, 'map')}"] * (lacking > 0)
        if counts:
            note(f"{' and '.join(counts)} left out, see above")
    if outcome.units and not reports:
        console.print(
            f"{outcome.finished} of {outcome.units} units are finished, in "
            f"{duration(outcome.seconds)}"
        )
    # Lines of their own, never wrapped: terminals make them links.
    page = outcome.folder / "index.html"
    what = f"Page: {page}" if page.is_file() else f"Folder: {outcome.folder}"
    console.print(escape(what), soft_wrap=True)
    if outcome.run.command == "evaluate":
        folder = escape(str(outcome.folder))
        console.print(f"Draw it: moreaugrad report {folder} --out PAGE_DIR", soft_wrap=True)


def print_json(outcome: Outcome) -> None:
    """The same for scripts."""
    page = outcome.folder / "index.html"
    screen.print_json(
        {
            "folder": str(outcome.folder),
            "page": str(page) if page.is_file() else None,
            "complete": outcome.complete,
            "interrupted": outcome.interrupted,
            "units": outcome.units,
            "finished": outcome.finished,
            "seconds": round(outcome.seconds, 3),
            "notes": outcome.notes,
            "failures": [
                {"input": failure.title, "method": failure.method or None,
                 "message": failure.message}
                for failure in outcome.failures
            ],
            **outcome.run.results(outcome.directory),
        }
    )  # fmt: skip


def print_estimate(found: Any, notes: Sequence[str], *, as_json: bool) -> None:
    """What a run would cost."""
    if as_json:
        totals = {name: getattr(found, name) for name in ("evaluations", "seconds")}
        levels = [asdict(level) for level in found.levels]
        screen.print_json({**asdict(found), **totals, "levels": levels, "notes": list(notes)})
        return
    for text in notes:
        note(f"note: {text}")
    console = results()
    rows = [
        (cost.key, [str(cost.maps), str(cost.evaluations), duration(cost.seconds)])
        for cost in found.costs
    ]
    _print(console, "map", ["maps", "evaluations each, at most", "time, at most"], rows)
    console.print(found.words(duration), soft_wrap=True)
    memory = "" if found.memory is None else f"{found.memory / 1e9:.2g} GB"
    rows = [
        (
            f"{each.level} ({each.tolerance:g}){', chosen' if each.chosen else ''}",
            [f"{each.evaluations:.0f}", duration(each.seconds), memory],
        )
        for each in found.levels
    ]
    if rows:
        console.print("\nBy estimate, from the error after a few steps on the first images:")
        _print(console, "quality", ["evaluations a map", "time", "memory"], rows)


def _maps(records: Sequence[Mapping[str, Any]], console: Console) -> None:
    from moreaugrad.solvers.solution import EVALUATIONS_NEEDED

    count = sum(len(record["maps"]) for record in records)
    if count > MANY:
        _table(records, console)
    else:
        for record in records:
            console.print(f"[bold]{line(record['input'])}[/]  {line(_explained(record))}")
            _table([record], console)
            _texts(record, console)
            console.print()
    shown = [
        (f"{record['input']}, {what}: {found['message']}; {found['remedy']}", found["failed"])
        for record in records
        for label, one in record["maps"].items()
        for part, what in (("map", label), ("interactions", f"{label}, interactions"))
        if "message" in (found := one.get(part, {}))
        and EVALUATIONS_NEEDED not in found.get("details", {})
    ]
    for text, failed in sorted(shown, key=lambda item: not item[1]):
        note(f"failed: {text}" if failed else text, style="yellow" if failed else "")
    console.print(f"{_count(count, 'map')} of {_count(len(records), 'input')}")


def _texts(record: Mapping[str, Any], console: Console) -> None:
    """The highlighted texts of an input by each method, where colours can be seen."""
    from moreaugrad.text.drawing import terminal
    from moreaugrad.text.explanation import drawn

    for label, one in record["maps"].items():
        if "tokens" in one and console.color_system:
            highlighted = terminal(drawn(one["tokens"], [label]))
            console.print(Text.from_ansi(highlighted), soft_wrap=True)


def _used_up(records: Sequence[Mapping[str, Any]]) -> None:
    """One line for each method of which maps used up their evaluations."""
    from moreaugrad.solvers.solution import EVALUATIONS_NEEDED, enough

    for label in dict.fromkeys(label for record in records for label in record["maps"]):
        maps = [r["maps"][label].get("map", {}) for r in records if label in r["maps"]]
        short = [one for one in maps if EVALUATIONS_NEEDED in one.get("details", {})]
        if short:
            error = 100 * median(one["error"] for one in short)
            remedy = enough(max(one["details"][EVALUATIONS_NEEDED] for one in short))
            note(
                f"budget used for {len(short)} of {_count(len(maps), 'map')} of {label}, at a "
                f"median error of {error:.2g} %; {remedy}", style="",
            )  # fmt: skip


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _table(records: Sequence[Mapping[str, Any]], console: Console) -> None:
    """The maps of one input; of several, means over them."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        for label, one in record["maps"].items():
            if "map" in one:
                found.setdefault(label, []).append(one)
    metrics = dict.fromkeys(
        name for ones in found.values() for one in ones for name in one.get("metrics", ())
    )
    alone, rows = len(records) == 1, []
    for label, ones in found.items():
        maps = [one["map"] for one in ones]
        converged = f"{sum(each['ok'] for each in maps)} of {len(maps)}"
        cells = [
            maps[0]["status"] if alone else converged,
            _percent(_mean(each.get("zeros") for each in maps)),
            _percent(_mean(each.get("error") for each in maps)),
            f"{_mean(each['evaluations'] for each in maps):.0f}",
            *(_number(_mean(one["metrics"].get(name) for one in ones)) for name in metrics),
        ]
        rows.append((label, cells))
    columns = [
        "status" if alone else "converged",
        "zeros",
        "error",
        "evaluations",
        *map(heading, metrics),
    ]
    _print(console, "" if alone else "map", columns, rows)


def _print(
    console: Console, head: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]
) -> None:
    """A table whose labels are whole: where the terminal is too narrow, the last columns go to a
    second table below."""
    widths = [
        max(len(name), *(len(cells[place]) for _, cells in rows), 0)
        for place, name in enumerate(columns)
    ]
    label = max((len(name) for name, _ in rows), default=0)
    left = list(range(len(columns)))
    while left:
        room, taken = console.width - max(label, len(head)), list[int]()
        while left and (not taken or room >= widths[left[0]] + 2):
            room -= widths[left[0]] + 2
            taken.append(left.pop(0))
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        table.add_column(escape(head), no_wrap=True, min_width=label)
        for place in taken:
            table.add_column(columns[place], justify="right", no_wrap=True)
        for name, cells in rows:
            table.add_row(escape(name), *(escape(cells[place]) for place in taken))
        console.print(table, soft_wrap=True)


def _explained(record: Mapping[str, Any]) -> str:
    target = next((one["target"] for one in record["maps"].values() if "target" in one), None)
    if target is None:
        return ""
    for item in record["prediction"]:
        if item["class"] == target["class"]:
            return f"explained: {target['label']} ({_percent(item['probability'])})"
    return f"explained: {target['label']}"


def _mean(values: Iterable[float | None]) -> float:
    given = [value for value in values if value is not None]
    return math.fsum(given) / len(given) if given else math.nan


def _percent(fraction: float) -> str:
    return "" if math.isnan(fraction) else f"{100 * fraction:.1f} %"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"
