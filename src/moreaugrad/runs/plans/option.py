"""Plans, and the fields of plans that are options of the command line."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

Settings = Mapping[str, Any]
NUMBERS, NAMES = "NUMBERS", "NAMES"
"""What lists of values are called in the help; such an option can also be repeated."""
Read = Callable[[Any, Any], Any]
"""From a field's value and the text of an option (a list of texts, if it can be repeated) to a new
value. Errors: ValueError."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """names: with hyphens, the first is the usual one. default: in words, where the value does not
    say it. read: where the type does not tell how. repeated: it may be given several times."""

    names: tuple[str, ...]
    help: str
    group: str
    default: str = ""
    read: Read | None = None
    repeated: bool = False
    metavar: str = "TEXT"
    is_flag: bool = False
    negative: str = ""
    """Of a flag: the option for no."""

    @property
    def name(self) -> str:
        return self.names[0]


def option(
    default: Any,
    help: str,
    *names: str,
    group: str = "",
    shown: str = "",
    read: Read | None = None,
    repeated: bool = False,
    negative: str = "",
    metavar: str = "",
    path: str | bool = False,
) -> Any:
    """A field that is an option. path: it names files or folders, relative to that of the TOML
    file; a text is the field next to it that keeps a digest of what is named."""
    given = {
        "names": names, "help": help, "group": group, "default": shown, "read": read,
        "repeated": repeated, "negative": negative, "metavar": metavar,
    }  # fmt: skip
    return _field(default, {"option": given, "path": path})


def part(kind: type[Plan], **given: Any) -> Any:
    """A field that is a plan of its own, by default with these values."""
    return dataclasses.field(default_factory=partial(kind, **given))


def named(default: Any, digest: str) -> Any:
    """A field that names files or folders, and is no option by itself; see `option`."""
    return _field(default, {"path": digest})


def filled() -> Any:
    """A field that the run fills in, by which runs of different content differ."""
    return _field("", {"digest": True})


def unkept(default: Any) -> Any:
    """A field that TOML files do not have, and that tells no plan from another; a plan is given by
    its class."""
    how = {"default_factory": default} if isinstance(default, type) else {"default": default}
    return dataclasses.field(compare=False, metadata={"kept": False}, **how)


def _field(default: Any, metadata: Mapping[str, Any]) -> Any:
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A frozen dataclass of plain values, tuples, mappings and further plans."""

    GROUP: ClassVar[str] = ""
    """The heading of its options, where they have none of their own."""
    EDITS: ClassVar[Mapping[str, Option]] = {}
    """Options that are no fields; see `edited`."""

    def edited(self, name: str, value: Any) -> Self:
        """The plan with such an option. Errors: ValueError."""
        raise KeyError(name)

    def moved(self, move: Callable[[str], str]) -> Self:
        """The plan with every path in it changed."""
        changed: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Plan):
                changed[item.name] = value.moved(move)
            elif item.metadata.get("path") and value:
                several = not isinstance(value, str)
                changed[item.name] = tuple(map(move, value)) if several else move(value)
        return replace(self, **changed)

    def without_digests(self) -> Self:
        """The plan as before it was prepared: a run makes its own digests."""
        changed: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Plan):
                changed[item.name] = value.without_digests()
            elif item.metadata.get("digest"):
                changed[item.name] = ""
        return replace(self, **changed)

    def each(self, change: Callable[[Any], Any]) -> Any:
        """`change` of the plan with all plans in it changed."""
        found = {
            item.name: value.each(change)
            for item in fields(self)
            if isinstance(value := getattr(self, item.name), Plan)
        }
        return change(replace(self, **found))


def options(
    kind: type[Plan], hidden: Sequence[str] = (), where: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Option]]:
    """The options of a plan and of the plans in it, with the names of the fields on the way.

    hidden: names of fields that are left out, with all that is in them.
    """
    hints = get_type_hints(kind)
    for item in fields(kind):
        if item.name in hidden:
            continue
        given, place = item.metadata.get("option"), (*where, item.name)
        if item.name in kind.EDITS:
            yield place, kind.EDITS[item.name]
        elif given:
            yield place, _made(item, given, kind.GROUP, hints[item.name])
        elif nested := plan_in(hints[item.name]):
            yield from options(nested, hidden, place)
    names = {item.name for item in fields(kind)}
    for name, edit in kind.EDITS.items():
        if name not in names:
            yield (*where, name), edit


def _made(item: dataclasses.Field[Any], given: Mapping[str, Any], group: str, hint: Any) -> Option:
    names = given["names"] or (f"--{item.name.replace('_', '-')}",)
    value = None if item.default is dataclasses.MISSING else item.default
    usual = value is None or value is False or value in ("", ())
    words = given["default"] or ("" if usual else in_words(value))
    made = {**given, "names": names, "group": given["group"] or group, "default": words}
    made["metavar"] = given["metavar"] or _metavar(hint)
    made["repeated"] = given["repeated"] or made["metavar"] in (NUMBERS, NAMES)
    return Option(**made, is_flag=hint is bool or bool in get_args(hint))


def _metavar(hint: Any) -> str:
    """What a value of a type is called in the help."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kinds = [part for part in parts if part is not types.NoneType]
    if get_origin(kinds[0]) is tuple:
        return NUMBERS if {int, float} & {*get_args(kinds[0])} else NAMES
    if any(get_origin(kind) is tuple for kind in kinds):
        return "SIDE"
    return "TEXT" if str in kinds else "NUMBER" if {int, float} & {*kinds} else NAMES


def in_words(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (tuple, list)):
        return ",".join(map(in_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def plan_in(hint: Any) -> type[Plan] | None:
    """The plan that a field of this type holds, or may hold."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    plans = [part for part in parts if isinstance(part, type) and issubclass(part, Plan)]
    return plans[0] if plans else None
