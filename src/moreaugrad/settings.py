"""Settings: fields of dataclasses, documented where they are declared and checked when given.

A setting is a field, and what it means is the string below it:

    rho: float = 1.0
    \"\"\"Reach of the envelope, in units of input^2 / score.\"\"\"

`help`, the command line and the tables of the documentation read these strings.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import sys
import textwrap
import types
from abc import ABCMeta
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Union, get_args, get_origin, get_type_hints


def nearest(name: str, known: Iterable[str]) -> str:
    """`'; did you mean ...?'`, or nothing when no known name is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def expect(holds: bool, name: str, expected: str, got: object) -> None:
    """Errors: ValueError "name: expected ..., got ..." unless the condition holds."""
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {got!r}")


WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
"""What a value of each plain type is called in a message."""


def check_settings(
    owner: str, known: Sequence[str], hints: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    """Check the settings that a user gave to `owner`.

    known: names of its settings; hints: their declared types. Errors: ValueError for an unknown
    name, with the nearest known one, and for a plain value of another type, such as text where a
    number is declared. Tensors, arrays and objects are left to the class to check.
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


def type_words(hint: Any) -> str:
    """A declared type in words, such as "a number or text"."""
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
    """Whether a value can be of a declared type; True where plain types do not decide it."""
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
            if origin is not tuple or Ellipsis in items:
                items = items[:1] * len(value)
            return all(map(_fits, value, items))  # how many there are, the class checks
        return hint not in WORDS
    if isinstance(value, Mapping):
        kind = origin or hint
        return isinstance(kind, type) and issubclass(kind, Mapping)
    return True


@dataclass(frozen=True)
class Setting:
    """A field of a class, as the documentation shows it.

    hint, default: as in the source; default "" means that a value is required. owner: the class
    that gives the field this default.
    """

    name: str
    hint: str
    default: str
    meaning: str
    owner: type


def settings_of(cls: type) -> list[Setting]:
    """The settings of a dataclass: the required ones, then its own, then the inherited ones."""
    known = [item for item in fields(cls) if item.init] if is_dataclass(cls) else []
    found = []
    for item in known:
        owners = [base for base in cls.__mro__ if item.name in inspect.get_annotations(base)]
        texts = (_meanings(base).get(item.name) for base in owners)
        meaning = next((text for text in texts if text), "")
        hint = item.type if isinstance(item.type, str) else inspect.formatannotation(item.type)
        found.append(Setting(item.name, hint, _default(item), meaning, owners[0]))
    return sorted(found, key=lambda one: (bool(one.default), cls.__mro__.index(one.owner)))


def _default(item: Field[Any]) -> str:
    value = item.default
    if item.default_factory is not MISSING:
        value = item.default_factory()
    if value is MISSING:
        return ""
    if inspect.isfunction(value):
        return value.__name__
    return f'"{value}"' if isinstance(value, str) else repr(value)


@cache
def _meanings(cls: type) -> Mapping[str, str]:
    """The string below each field that the class itself declares; none without its source."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
        (node,) = ast.parse(source).body
    except (OSError, TypeError, SyntaxError):
        return {}
    assert isinstance(node, ast.ClassDef)
    found = {}
    for field, below in pairwise(node.body):
        match below:
            case ast.Expr(ast.Constant(str(text))) if isinstance(field, ast.AnnAssign):
                found[ast.unparse(field.target)] = inspect.cleandoc(text)
    return found


def _documentation(cls: Documented) -> str:
    """The class's own docstring, and all settings with their defaults, inherited ones too."""
    own = inspect.cleandoc(vars(cls).get("__doc__") or cls.__name__)
    # `dataclass` only asks whether there is one: reading sources then would slow every import.
    if sys._getframe(1).f_globals.get("__name__") == "dataclasses":
        return own
    lines = []
    for one in settings_of(cls):
        lines.append(f"    {one.name}: {one.hint}" + (one.default and f" = {one.default}"))
        lines.append(textwrap.indent(one.meaning, " " * 8))
    heading = ("", f"{cls._heading}:") if lines else ()
    return "\n".join([own, *heading, *filter(None, lines)])


class Documented(ABCMeta):
    # The metaclass of dataclasses whose docstring ends with a list of their fields. The list is
    # made when it is asked for, because the fields exist only once the decorator has run.
    # heading: its title; "Attributes" for results, whose fields are no settings. checked: also
    # check the types of settings before an instance is made. Subclasses inherit both.
    __doc__ = property(_documentation)
    _heading = "Settings"
    _checked = False

    def __new__(mcs, name: str, bases: Any, namespace: Any, **options: Any) -> Any:
        own = {f"_{option}": value for option, value in options.items()}
        return super().__new__(mcs, name, bases, {**namespace, **own})

    def __init__(cls, name: str, bases: Any, namespace: Any, **options: Any) -> None:
        super().__init__(name, bases, namespace)

    @property
    def __signature__(cls) -> inspect.Signature:
        _, *given = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
        return inspect.Signature(given)

    def __call__(cls, *args: Any, **settings: Any) -> Any:
        if cls._checked:
            hints = _hints(cls)
            known = {name: value for name, value in settings.items() if name in hints}
            check_settings(cls.__name__, list(hints), hints, known)
        return super().__call__(*args, **settings)


@cache
def _hints(cls: type) -> Mapping[str, Any]:
    return get_type_hints(cls)
