"""One device for several users: network passes by turns, and none for those who have left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

REMEMBERED = 256
"""Users whose last turn is known."""


class Gone(Exception):
    """The request was given up."""


class Turns:
    """Who has waited since its own last pass for longest goes first, however much others ask."""

    def __init__(self) -> None:
        self._changed, self._numbers = threading.Condition(), count(1)
        self._waiting: dict[int, str] = {}
        self._served: dict[str, int] = {}
        self._busy = False

    @contextmanager
    def turn(self, user: str, gone: Callable[[], bool]) -> Iterator[Callable[[int], None]]:
        """While open, the device is this user's; the function given lets others in between passes.

        Errors: Gone, at the begin and from that function, as soon as `gone` is true.
        """
        self._take(user, gone)
        held = True

        def between(evaluations: int = 0) -> None:
            nonlocal held
            self._release()
            held = False
            self._take(user, gone)
            held = True

        try:
            yield between
        finally:
            if held:
                self._release()

    def _take(self, user: str, gone: Callable[[], bool]) -> None:
        with self._changed:
            ticket = next(self._numbers)
            self._waiting[ticket] = user
            try:
                while not gone() and (self._busy or self._next() != ticket):
                    self._changed.wait(0.1)
            finally:
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

    def _release(self) -> None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
