"""Settings by name, checked against the names and types that a class or function declares."""

from __future__ import annotations

import difflib
import types
from abc import ABCMeta
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints


def nearest(name: str, known: Iterable[str]) -> str:
    """`'; did you mean ...?'`, or nothing when no known name is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def choose(what: str, name: str, known: Iterable[str]) -> str:
    """`name` when it is known. Errors: ValueError that lists what is, and the nearest."""
    options = list(known)
    if name not in options:
        raise ValueError(
            f"{what}: expected one of {', '.join(options)}; got {name!r}{nearest(name, options)}"
        )
    return name


WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
"""What a value of each plain type is called in a message."""


def check_settings(
    owner: str, known: Sequence[str], hints: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    """known: names of the settings; hints: their declared types.

    Errors: ValueError for a setting of another name, with the nearest, and for a plain value of
    another type: true or 1.5 where a whole number is declared, text where a number is. Tensors,
    arrays and objects are left to the class, which knows more about them.
    """
    for name, value in given.items():
        if name not in known:
            raise ValueError(
                f"{owner} has no setting {name!r}{nearest(name, known)} "
                f"(it has: {', '.join(known) or 'none'})"
            )
        hint = hints.get(name, Any)
        if not _fits(value, hint):
            raise ValueError(f"{owner}, {name}: expected {type_words(hint)}, got {value!r}")


class Checked(ABCMeta):
    """Of dataclasses whose settings are checked before an instance is made.

    Errors: ValueError for a plain value of another type than declared, as `check_settings` has it.
    """

    def __call__(cls, *args: Any, **settings: Any) -> Any:
        hints = _hints(cls)
        known = {name: value for name, value in settings.items() if name in hints}
        check_settings(cls.__name__, list(hints), hints, known)
        return super().__call__(*args, **settings)


@cache
def _hints(cls: type) -> Mapping[str, Any]:
    return get_type_hints(cls)


def type_words(hint: Any) -> str:
    """A declared type in words."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    words = (_word(part) for part in parts if part is not types.NoneType)
    return " or ".join(dict.fromkeys(words))


def _word(hint: Any) -> str:
    if hint in WORDS:
        return WORDS[hint]
    origin = get_origin(hint) or hint
    if is_dataclass(origin) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return "a table"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return "a list"
    return f"a {getattr(origin, '__name__', origin)}"


def _fits(value: object, hint: Any) -> bool:
    """Whether a value may be one of a declared type, as far as that shows."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any or hint is object:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if type(value) in WORDS or value is None:
        return hint is type(value) or (hint is float and type(value) is int)
    if isinstance(value, (list, tuple)):
        if isinstance(origin, type) and issubclass(origin, Sequence):
            items = parts or (Any,)
            return all(_fits(item, items[0]) for item in value)
        return hint not in WORDS
    return not isinstance(value, Mapping)
