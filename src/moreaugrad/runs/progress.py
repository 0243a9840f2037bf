"""How far a run is, and who is informed of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What could not be done: an input (no method), or one map of it. kind: what it is called
    before the message."""

    title: str
    message: str
    method: str = ""
    kind: str = "left out"

    def __str__(self) -> str:
        what = f"{self.title}, {self.method}" if self.method else self.title
        # The messages of the readers of files begin with the file's path.
        return (
            self.message
            if not self.method and self.title in self.message
            else f"{what}: {self.message}"
        )


class Watch(Protocol):
    """Is informed of a run: `done` of about `total` evaluations, news, and what failed."""

    def pace(self, done: float, total: float, doing: str) -> None: ...

    def news(self, text: str) -> None: ...

    def failed(self, failure: Failure) -> None: ...


class Unwatched:
    """Informs nobody."""

    def pace(self, done: float, total: float, doing: str) -> None: ...

    def news(self, text: str) -> None: ...

    def failed(self, failure: Failure) -> None: ...


class Newsless:
    """Passes on all to a watch but the news."""

    def __init__(self, watch: Watch) -> None:
        self.pace, self.failed = watch.pace, watch.failed

    def news(self, text: str) -> None: ...
