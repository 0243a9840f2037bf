"""Progress of a computation: a function that is called with it, or a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[float, int], None]
"""Called with the number of samples done, parts of them counted, and with that of all."""


@contextmanager
def reporting(progress: Progress | bool | None, title: str) -> Iterator[Progress | None]:
    """What to call with the progress made; for True, a bar on standard error while open.

    Errors: TypeError for anything but a function, a truth value or None.
    """
    if progress is None or progress is False:
        yield None
    elif progress is not True:
        if not callable(progress):
            raise TypeError(
                "progress: expected True for a bar, or a function of (samples done, samples), got "
                f"{type(progress).__name__}"
            )
        yield progress
    else:
        import rich.progress
        from rich.console import Console

        console = Console(stderr=True)
        columns = rich.progress.Progress.get_default_columns()
        with rich.progress.Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, of: bar.update(task, completed=done, total=of)
