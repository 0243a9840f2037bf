"""What people see: progress on standard error, results on standard output."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table

from moreaugrad.cli.interruption import interruptible
from moreaugrad.files.names import UNSHOWN, shown

if TYPE_CHECKING:
    from moreaugrad.runs import Outcome
    from moreaugrad.runs.results import Failure

MANY = 40
"""Maps from which on the summary tells of methods, not of each map."""


class Screen(Console):
    """All that people read on the terminal goes through here: no text that is printed, whoever
    wrote it, controls the terminal."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else shown(text), style, control)


def errors() -> Console:
    return Screen(stderr=True, highlight=False, soft_wrap=True)


def results() -> Console:
    return Screen(highlight=False)


def line(text: str) -> str:
    """Text for a line of its own, or a part of one, without markup."""
    return escape(" ".join(text.split()))


def note(text: str, style: str = "yellow") -> None:
    errors().print(line(text), style=style)


class ProgressBar:
    """A `Watch` that draws a bar in evaluations, with the time left."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def pace(self, done: float, total: float, doing: str) -> None:
        self._progress.update(self._task, completed=done, total=total, doing=line(doing))

    def said(self, news: str) -> None:
        self._progress.console.print(line(news))

    def failed(self, failure: Failure) -> None:
        self._progress.console.print(line(f"left out: {failure}"), style="yellow")


class Lines:
    """A `Watch` without a bar: a line every minute while it is open. quiet: failures alone."""

    def __init__(self, *, quiet: bool, every: float = 60.0) -> None:
        self._quiet, self._every = quiet, every
        self._began, self._closed = time.monotonic(), threading.Event()
        self._now = (0.0, 0.0, "starting")

    def __enter__(self) -> Lines:
        if not self._quiet:
            threading.Thread(target=self._log, name="Lines", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()

    def _log(self) -> None:
        while not self._closed.wait(self._every):
            errors().print(line(self.line(time.monotonic() - self._began)))

    def line(self, seconds: float) -> str:
        """How far it is after so many seconds."""
        done, total, doing = self._now
        if not 0 < done <= total:
            return f"{doing}: {duration(seconds)} so far"
        left = seconds * (total - done) / done
        return (
            f"{doing}: {100 * done / total:.0f} % in {duration(seconds)}, about {duration(left)} "
            "left"
        )

    def pace(self, done: float, total: float, doing: str) -> None:
        self._now = (done, total, doing)

    def said(self, news: str) -> None:
        if not self._quiet:
            errors().print(line(news))

    def failed(self, failure: Failure) -> None:
        note(f"left out: {failure}")


@contextmanager
def watching(*, quiet: bool) -> Iterator[ProgressBar | Lines]:
    """Progress on standard error while open; an interruption is the run's to answer."""
    with interruptible():
        if quiet or not sys.stderr.isatty():
            with Lines(quiet=quiet) as lines:
                yield lines
        else:
            with _bar() as bar:
                yield bar


@contextmanager
def _bar() -> Iterator[ProgressBar]:
    columns = (
        TextColumn("{task.fields[doing]}", style="bold"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=errors(), transient=True) as progress:
        yield ProgressBar(progress, progress.add_task("", total=None, doing="starting"))


def summary(outcome: Outcome) -> None:
    """The maps in a table, what fell short, and where the page is."""
    console = results()
    count = sum(len(record["maps"]) for record in outcome.records)
    if count <= MANY:
        _each(outcome, console)
    else:
        console.print(_methods(outcome))
    for line in outcome.short(failed=True):
        note(f"failed: {line}")
    for line in outcome.short(failed=False):
        note(line, style="")
    if outcome.failures:
        note(f"{len(outcome.failures)} left out, see above")
    inputs = len(outcome.records)
    console.print(
        f"{count} maps of {inputs} input{'s' if inputs > 1 else ''} in {outcome.seconds:.0f} s"
    )
    # A line of its own, never wrapped: terminals make it a link.
    console.print(f"Page: {escape(str(outcome.page))}", soft_wrap=True)


def _each(outcome: Outcome, console: Console) -> None:
    """A table for each input, their columns under each other."""
    widest = max(len(key) for record in outcome.records for key in record["maps"])
    for record in outcome.records:
        maps = record["maps"]
        scored = _scored(maps.values())
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("", no_wrap=True, min_width=widest)
        table.add_column("status", no_wrap=True, min_width=12)
        for name in ("zeros", "error", "evaluations", *scored):
            table.add_column(name, justify="right", no_wrap=True, min_width=7)
        for key, found in maps.items():
            table.add_row(
                escape(key),
                f"[yellow]{found['status']}[/]" if found["failed"] else found["status"],
                _percent(found.get("zeros")),
                _percent(found.get("error")),
                str(found["evaluations"]),
                *(_number(found.get("scores", {}).get(name)) for name in scored),
            )
        console.print(f"[bold]{line(record['input'])}[/]  {line(_explained(record))}")
        if "beside" in record:
            other = record["beside"]
            console.print(f"beside, {line(other['model'])}: {line(_explained(other))}")
        console.print(table)
        console.print()


def _scored(maps: Iterable[dict[str, Any]]) -> list[str]:
    """The scores that any of the maps has."""
    return sorted({name for found in maps for name in found.get("scores", ())})


def _explained(record: dict[str, Any]) -> str:
    target = record.get("target")
    if target is None:
        return ""
    for item in record["prediction"]:
        if item["class"] == target["class"]:
            return f"explained: {target['label']} ({_percent(item['probability'])})"
    return f"explained: {target['label']}"


def _methods(outcome: Outcome) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("map", overflow="fold")  # keys differ at their ends
    scored = _scored(one for record in outcome.records for one in record["maps"].values())
    for name in ("as stated", "Gini", "zeros", "error", "evaluations", *scored):
        table.add_column(name, justify="right")
    found: dict[str, list[dict[str, Any]]] = {}
    for record in outcome.records:
        for key, one in record["maps"].items():
            found.setdefault(key, []).append(one)
    for key, ones in found.items():
        table.add_row(
            escape(key),
            f"{sum(one['ok'] for one in ones)} of {len(ones)}",
            _number(_mean(one.get("gini") for one in ones)),
            _percent(_mean(one.get("zeros") for one in ones)),
            _percent(_mean(one.get("error") for one in ones)),
            f"{_mean(one['evaluations'] for one in ones):.0f}",
            *(_number(_mean(one.get("scores", {}).get(name) for one in ones)) for name in scored),
        )
    return table


def _mean(values: Iterator[float | None]) -> float:
    given = [value for value in values if value is not None]
    return math.fsum(given) / len(given) if given else math.nan


def _percent(share: float | None) -> str:
    return "" if share is None or math.isnan(share) else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.3f}"


def summary_json(outcome: Outcome) -> None:
    """The records and what went wrong, as JSON."""
    told = {
        "folder": str(outcome.folder),
        "page": str(outcome.page) if outcome.records else None,
        "complete": not outcome.failures and not outcome.interrupted,
        "interrupted": outcome.interrupted,
        "seconds": round(outcome.seconds, 3),
        "inputs": outcome.records,
        "failures": [
            {"input": failure.title, "method": failure.method or None, "message": failure.message}
            for failure in outcome.failures
        ],
        "not_as_stated": [*outcome.short(failed=True), *outcome.short(failed=False)],
    }
    print_json(told)


def print_json(value: Any) -> None:
    """Characters that are not to be shown, or that standard output does not have, are written as
    JSON's escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, allow_nan=False)
    sys.stdout.write(UNSHOWN.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"
