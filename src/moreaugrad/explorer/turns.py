"""One device for several users: network passes by turns, and none for those who have left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count

REMEMBERED = 256
"""Users whose last turn is known."""


class Gone(Exception):
    """The request was given up."""


class Turns:
    """Who has waited since its own last pass for longest goes first, however much others ask."""

    def __init__(self) -> None:
        self._changed, self._numbers, self._busy = threading.Condition(), count(1), False
        self._waiting: dict[int, str] = {}
        self._served: dict[str, int] = {}

    def take(self, user: str, gone: Callable[[], bool]) -> None:
        """Waits for a turn. Errors: Gone as soon as `gone` is true."""
        with self._changed:
            ticket = next(self._numbers)
            self._waiting[ticket] = user
            while not gone() and (self._busy or self._next() != ticket):
                self._changed.wait(0.1)
            del self._waiting[ticket]
            if gone():
                self._changed.notify_all()
                raise Gone
            self._busy = True
            self._served.pop(user, None)
            self._served[user] = next(self._numbers)
            if len(self._served) > REMEMBERED:
                del self._served[next(iter(self._served))]

    def _next(self) -> int:
        return min(self._waiting, key=lambda t: (self._served.get(self._waiting[t], 0), t))

    def give(self) -> None:
        """Ends a turn."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()


class Turn:
    """While open, the device is a user's; called between passes, it lets others in."""

    def __init__(self, turns: Turns, user: str, gone: Callable[[], bool]) -> None:
        self._turns, self._user, self._gone, self._held = turns, user, gone, False

    def __enter__(self) -> Turn:
        self._turns.take(self._user, self._gone)
        self._held = True
        return self

    def __call__(self, evaluations: int = 0) -> None:
        self.__exit__()
        self.__enter__()

    def __exit__(self, *_: object) -> None:
        if self._held:
            self._held = False
            self._turns.give()
