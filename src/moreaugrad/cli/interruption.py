"""Ctrl-C: one line and exit code 130 at any moment; while a run is at work, it is a
KeyboardInterrupt that the run answers by keeping what is finished."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from moreaugrad.cli.codes import INTERRUPTED


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
    """While open, an interruption is a KeyboardInterrupt."""
    before = _handle(signal.default_int_handler)
    try:
        yield
    finally:
        if before is not None:
            _handle(before)


def _handle(handler: object) -> object:
    """Sets what an interruption does; returns what it did, None where it cannot be set."""
    ours = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    if threading.current_thread() is threading.main_thread() and ours:
        return signal.signal(signal.SIGINT, handler)  # type: ignore[arg-type]
    return None


def _leave(number: int, frame: FrameType | None) -> None:
    # No print: the interruption may have come in the middle of another one.
    os.write(2, b"error: interrupted\n")
    os._exit(INTERRUPTED)
