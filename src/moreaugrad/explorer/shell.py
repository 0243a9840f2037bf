"""What shells of the explorer share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any

from moreaugrad.explorer.core import Explorer, Message
from moreaugrad.explorer.turns import Gone
from moreaugrad.registry import first_line


def static(name: str) -> bytes:
    """A file of the page."""
    return files("moreaugrad.explorer").joinpath("static", name).read_bytes()


def answered(
    explorer: Explorer, asked: Any, body: bytes, user: str, gone: Callable[[], bool]
) -> Iterator[Message]:
    """As `Explorer.answer`, with an error as a message too."""
    try:
        yield from explorer.answer(asked, body, user, gone)
    except Gone:
        pass
    except ValueError as error:
        yield {"refused": str(error)}, b""
    except Exception as error:  # models are code of others, which may raise anything
        yield {"refused": first_line(error)}, b""
