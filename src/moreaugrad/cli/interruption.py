"""Exit codes, and signals that end a command: Ctrl-C (SIGINT), SIGTERM and SIGHUP.

At any moment they are one line and the exit code 128 + the signal's number. While a run is at work
the first is a KeyboardInterrupt, which the run answers by keeping what is finished, and the second
ends it at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

DONE, PARTLY, REFUSED, INTERRUPTED = 0, 1, 2, 130
"""Exit codes. INTERRUPTED is that of Ctrl-C; other signals have others, see `exit_code`."""
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP")
           if hasattr(signal, name)]  # fmt: skip
"""Windows has no SIGHUP."""
TORCHRUN = "TORCHELASTIC_RUN_ID"
"""Environment variable of processes that torchrun started."""

_received: int | None = None


class Interrupted(Exception):
    """A run was interrupted that had nothing to keep."""


@contextmanager
def leaving() -> Iterator[None]:
    """From here to the end of the process an interruption ends it at once.

    Imports take seconds, and some turn a KeyboardInterrupt into errors of their own; nothing has
    been written by then. The handler stays when the block is left, for the interpreter's shutdown.
    """
    _handle(_leave)
    try:
        yield
    finally:
        _handle(_leave)


@contextmanager
def interruptible() -> Iterator[None]:
    """While open, the first interruption is a KeyboardInterrupt. Errors: Interrupted where that is
    not answered; the command line's library would end with a code of its own, without a word."""
    before = _handle(_interrupt)
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def forget() -> None:
    """Begins anew: nothing has been received."""
    global _received
    _received = None


def received() -> bool:
    """Whether an interruption has come."""
    return _received is not None


def exit_code() -> int:
    """Of the interruption that has come; where none has, that of Ctrl-C."""
    return INTERRUPTED if _received is None else 128 + _received


def _handle(handler: object) -> dict[int, object]:
    """Sets what interruptions do; returns what they did. Those that are ignored, as SIGHUP under
    nohup, stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    ours = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in ours}  # type: ignore[arg-type]


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _received
    _received = number
    _handle(_leave)
    raise KeyboardInterrupt


def _leave(number: int, frame: FrameType | None) -> None:
    if received() and TORCHRUN in os.environ:
        # It passes on what its processes have received already, and kills those that do not end.
        return
    with suppress(OSError):
        # No print: the interruption may have come in the middle of another one.
        os.write(2, b"error: interrupted\n")
    os._exit(128 + number)


def _in_a_worker() -> None:
    """A forked process leaves Ctrl-C and hang-ups, which reach it too, to the one that forked it,
    and is ended by SIGTERM without a word."""
    for number in SIGNALS:
        if signal.getsignal(number) in (_interrupt, _leave):
            ends = number == signal.SIGTERM
            signal.signal(number, signal.SIG_DFL if ends else signal.SIG_IGN)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_worker)
