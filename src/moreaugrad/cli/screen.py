"""What people see: progress on standard error, results on standard output."""

from __future__ import annotations

import json
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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
from rich.prompt import Confirm
from rich.segment import Segment

from moreaugrad.cli.interruption import interruptible
from moreaugrad.files.foreign import UNSHOWN, shown

if TYPE_CHECKING:
    from moreaugrad.runs.engine import Failure


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


class Viewer:
    """Somebody who waits for the page, or a script.

    opens: the page is opened in a browser once it is there. yes: what will take long goes on
    without a question.
    """

    def __init__(self, *, looking: bool = False, opens: bool = False, yes: bool = False) -> None:
        self.looking, self._opens, self._yes = looking, opens, yes

    def page(self, path: Path) -> None:
        if self._opens:
            self._opens = False
            webbrowser.open(path.resolve().as_uri())

    def agreed(self, question: str) -> bool:
        terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
        return self._yes or not terminal or self._answer(question)

    def _answer(self, question: str) -> bool:
        return Confirm.ask(line(question), console=errors(), default=True)


class ProgressBar(Viewer):
    """An `Observer` that draws a bar in evaluations, with the time left."""

    def __init__(self, progress: Progress, task: TaskID, **viewer: bool) -> None:
        super().__init__(**viewer)
        self._progress, self._task = progress, task

    def _answer(self, question: str) -> bool:
        self._progress.stop()
        try:
            return super()._answer(question)
        finally:
            self._progress.start()

    def pace(self, done: float, total: float, doing: str) -> None:
        if self._progress.tasks[0].total is None:
            # What an earlier start had done took none of this one's time.
            self._progress.reset(self._task, completed=int(done))
        self._progress.update(self._task, completed=done, total=total, doing=line(doing))

    def news(self, text: str) -> None:
        self._progress.console.print(line(text))

    def failed(self, failure: Failure) -> None:
        self._progress.console.print(line(f"{failure.kind}: {failure}"), style="yellow")


class Lines(Viewer):
    """An `Observer` without a bar: a line every minute while it is open. quiet: failures alone."""

    def __init__(self, *, quiet: bool, every: float = 60.0, **viewer: bool) -> None:
        super().__init__(**viewer)
        self._quiet, self._every = quiet, every
        self._began, self._closed = time.monotonic(), threading.Event()
        self._now = (0.0, 0.0, "starting")
        self._first: tuple[float, float] | None = None

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
        text = f"{doing}: {100 * done / total:.0f} % in {duration(seconds)}"
        # What an earlier start had done took none of this one's time.
        began, before = self._first or (0.0, 0.0)
        if done <= before:
            return text
        left = (seconds - began) * (total - done) / (done - before)
        return f"{text}, about {duration(left)} left"

    def pace(self, done: float, total: float, doing: str) -> None:
        if self._first is None:
            self._first = (time.monotonic() - self._began, done)
        self._now = (done, total, doing)

    def news(self, text: str) -> None:
        if not self._quiet:
            errors().print(line(text))

    def failed(self, failure: Failure) -> None:
        note(f"{failure.kind}: {failure}")


@contextmanager
def watching(
    *, quiet: bool, opens: bool = False, yes: bool = False
) -> Iterator[ProgressBar | Lines]:  # fmt: skip
    """Progress on standard error while open; an interruption is the run's to answer."""
    terminal = not quiet and sys.stderr.isatty()
    viewer = {"looking": terminal or opens, "opens": opens, "yes": yes}
    with interruptible():
        if terminal:
            with _bar(**viewer) as bar:
                yield bar
        else:
            with Lines(quiet=quiet, **viewer) as lines:
                yield lines


@contextmanager
def _bar(**viewer: bool) -> Iterator[ProgressBar]:
    columns = (
        TextColumn("{task.fields[doing]}", style="bold"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=errors(), transient=True) as progress:
        yield ProgressBar(progress, progress.add_task("", total=None, doing="starting"), **viewer)


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
