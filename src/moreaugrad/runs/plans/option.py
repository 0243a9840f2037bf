"""Plans, whose fields are options of the command line, and values as they are written there."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Any, ClassVar, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from moreaugrad.files.foreign import number_name
from moreaugrad.registry import choose
from moreaugrad.runs.plans.text import numbers, words
from moreaugrad.settings import expect

NUMBERS, NAMES = "NUMBERS", "NAMES"
"""What lists of values are called in the help; such an option can also be repeated."""
Read = Callable[[Any, Any], Any]
"""From a field's value and the text of an option (a list of texts, if it can be repeated) to a new
value. Errors: ValueError."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """names: with hyphens, the first is the usual one. default: in words, where the value does not
    say it. read: where the type does not say how. repeated: it may be given several times.
    negative: of a flag, the option for no. within: the interval of its numbers, such as "[0, 1)";
    choices: its possible words; both are checked when a plan is made. distinct: of values that are
    given several times, a plan keeps the first. offers: words that completion offers besides.
    clears: other fields of its plan, which get their defaults again where it is given; resets:
    those that do where it is given another value than before."""

    names: tuple[str, ...]
    help: str
    group: str = ""
    default: str = ""
    read: Read | None = None
    repeated: bool = False
    metavar: str = ""
    is_flag: bool = False
    negative: str = ""
    within: str = ""
    choices: Sequence[str] = ()
    distinct: bool = False
    offers: Sequence[str] = ()
    clears: Sequence[str] = ()
    resets: Sequence[str] = ()

    @property
    def name(self) -> str:
        return self.names[0]

    def check(self, name: str, value: Any) -> None:
        """Errors: ValueError for a number outside of the interval, or another word."""
        for one in value if isinstance(value, tuple) else (value,):
            if self.within:
                expect(_lies_within(self.within, one), name, _in_words(self.within), one)
            if self.choices:
                choose(name, one, self.choices)


def _lies_within(interval: str, value: float) -> bool:
    low, high = map(float, interval[1:-1].split(","))
    above = value >= low if interval.startswith("[") else value > low
    return above and (value <= high if interval.endswith("]") else value < high)


def _in_words(interval: str) -> str:
    low, high = interval[1:-1].split(", ")
    if high == "inf":
        return f"at least {low}" if interval.startswith("[") else f"a finite number > {low}"
    return f"a fraction in {interval}" if high == "1" else f"a number from {low} to {high}"


def option(
    default: Any, help: str, *names: str, shown: str = "", path: str | bool = False,
    kept: bool = True, **given: Any,
) -> Any:  # fmt: skip
    """A field that is an option; see `Option`. shown: its default in words. path: it names files
    or folders, relative to that of the TOML file; a text is the field next to it that keeps a
    digest of what is named. kept: see `unkept`."""
    made = Option(names=names, help=help, default=shown, **given)
    return _field(default, kept, option=made, path=path)


def part(kind: type[Plan]) -> Any:
    """A field that is a plan of its own."""
    return dataclasses.field(default_factory=kind)


def whole(kind: type[Plan]) -> Any:
    """A field that is a plan whose fields are no options."""
    return _field(kind, whole=True)


def filled() -> Any:
    """A field that the run fills in, by which runs of different content differ."""
    return _field("", digest=True)


def unkept(default: Any) -> Any:
    """A field that TOML files do not have, and that two plans may differ in and still be equal;
    a plan is given by its class."""
    return _field(default, kept=False)


def _field(default: Any, kept: bool = True, **metadata: Any) -> Any:
    made = default if isinstance(default, type) else lambda: default
    how = {"default_factory": made} if isinstance(default, (type, dict)) else {"default": default}
    return dataclasses.field(compare=kept, metadata={"kept": kept, **metadata}, **how)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A frozen dataclass of plain values, tuples, mappings and further plans.

    Errors: ValueError for a value that its option does not allow.
    """

    GROUP: ClassVar[str] = ""
    """The heading of its options, where they have none of their own."""
    EDITS: ClassVar[Mapping[str, Option]] = {}
    """Options that are no fields; see `edited`."""

    def __post_init__(self) -> None:
        for item in fields(self):
            given, value = item.metadata.get("option"), getattr(self, item.name)
            if given and value is not None:
                if given.distinct:
                    value = tuple(dict.fromkeys(value))
                    object.__setattr__(self, item.name, value)
                name = given.name.lstrip("-").replace("-", "_") if given.names else item.name
                expect(value != () or not item.default, name, "at least one", value)
                given.check(name, value)

    def edited(self, name: str, value: Any) -> Self:
        """The plan with such an option. Errors: ValueError."""
        raise KeyError(name)

    def given(self) -> dict[str, Any]:
        """The fields that are not None, by name."""
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in found.items() if value is not None}

    def each(self, change: Callable[[Any], Any]) -> Any:
        """`change` of the plan with all plans in it changed."""
        found = {
            name: value.each(change) for name, value in self.given().items()
            if isinstance(value, Plan)
        }  # fmt: skip
        return change(replace(self, **found))

    def moved(self, move: Callable[[str], str]) -> Self:
        """The plan with every path in it changed."""
        found: Self = self.each(lambda plan: plan.with_paths(move))
        return found

    def following(self, before: Self, changed: Collection[str]) -> Self:
        """The plan after options have changed fields of `before`: what its other fields have spelt
        out of the old values follows the new ones."""
        return self

    def with_paths(self, move: Callable[[str], str]) -> Self:
        """The same of its own fields alone."""
        changed: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.metadata.get("path") and value:
                several = not isinstance(value, str)
                changed[item.name] = tuple(map(move, value)) if several else move(value)
        return replace(self, **changed)

    def without_digests(self) -> Self:
        """The plan as before it was prepared: a run makes its own digests."""
        found: Self = self.each(
            lambda plan: replace(
                plan, **{one.name: "" for one in fields(plan) if one.metadata.get("digest")}
            )
        )
        return found


P = TypeVar("P", bound=Plan)


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
        if given:
            yield place, _spelt_out(given, item, kind.GROUP, hints[item.name])
        elif not item.metadata.get("whole") and (nested := plan_in(hints[item.name])):
            yield from options(nested, hidden, place)
    for name, edit in kind.EDITS.items():
        yield (*where, name), edit


def given_options(plan: Plan) -> dict[str, str | bool]:
    """The options that do not have their default, as texts by their names; True for a flag. Flags
    for no are left out."""
    found: dict[str, str | bool] = {}
    usual = type(plan)()
    for place, option in options(type(plan)):
        value, default = (_at(place, each) for each in (plan, usual))
        if value not in (default, None) and value is not False:
            found[option.name] = True if option.is_flag else shown(value)
    return found


def _at(place: tuple[str, ...], plan: Plan) -> Any:
    """A value in a plan; None where the part that has it is left out."""
    return reduce(lambda part, name: part and getattr(part, name), place, plan)


def _spelt_out(given: Option, item: dataclasses.Field[Any], group: str, hint: Any) -> Option:
    usual = item.default in (None, "", (), dataclasses.MISSING) or item.default is False
    metavar = given.metavar or _metavar(hint)
    return replace(
        given, names=given.names or (f"--{item.name.replace('_', '-')}",),
        group=given.group or group, default=given.default or ("" if usual else shown(item.default)),
        metavar=metavar, repeated=given.repeated or metavar in (NUMBERS, NAMES),
        is_flag=bool in kinds(hint),
    )  # fmt: skip


def _metavar(hint: Any) -> str:
    """What a value of a type is called in the help."""
    found = kinds(hint)
    if get_origin(found[0]) is tuple:
        return NUMBERS if {int, float} & {*get_args(found[0])} else NAMES
    if any(get_origin(kind) is tuple for kind in found):
        return "SIDE"
    return "TEXT" if str in found else "NUMBER" if {int, float} & {*found} else NAMES


def shown(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(shown, value))
    return number_name(value) if isinstance(value, float) else str(value)


def kinds(hint: Any) -> list[Any]:
    """The types that a declared one allows, without None."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return [part for part in parts if part is not types.NoneType]


def plan_in(hint: Any) -> type[Plan] | None:
    """The plan that a field of this type holds, or may hold."""
    plans = (kind for kind in kinds(hint) if isinstance(kind, type) and issubclass(kind, Plan))
    return next(plans, None)


def with_options(plan: P, given: Mapping[str, Any], hidden: Sequence[str] = ()) -> P:
    """The plan with options, texts or truth values by their names, instead of its own values.

    Errors: ValueError that names the option, for text that is no value of its type.
    """
    found = {place: (o, given[o.name]) for place, o in options(type(plan), hidden)
             if o.name in given}  # fmt: skip
    return _changed(plan, found)


def _changed(plan: P, found: Mapping[tuple[str, ...], tuple[Option, Any]]) -> P:
    """All fields at once, because some go together; then what edits them."""
    hints, usual, changed = get_type_hints(type(plan)), type(plan)(), dict[str, Any]()
    for name in dict.fromkeys(place[0] for place in found if place[0] not in plan.EDITS):
        before = changed.get(name, getattr(plan, name))
        if (name,) not in found:
            kind = plan_in(hints[name])
            assert kind is not None
            rest = {place[1:]: what for place, what in found.items() if place[0] == name}
            changed[name] = _changed(kind() if before is None else before, rest)
            continue
        option, text = found[name,]
        read = option.read
        value = read(before, text) if read else of_text(option.name, text, hints[name])
        others = (*option.clears, *(option.resets if value != before else ()))
        changed = {other: getattr(usual, other) for other in others} | changed | {name: value}
    if changed:
        plan = replace(plan, **changed).following(plan, changed)
    for name in plan.EDITS:
        if (name,) in found:
            plan = plan.edited(name, found[name,][1])
    return plan


def of_text(name: str, text: Any, hint: Any) -> Any:
    """The value of a type that a text stands for. Errors: ValueError with the option's name."""
    if isinstance(text, bool):
        return text
    found = kinds(hint)
    several = get_origin(found[0]) is tuple
    if isinstance(text, list) and not name.startswith("-"):  # words without an option's name
        if not several and len(text) != 1:
            raise ValueError(f"{name}: expected one, got {', '.join(text)}")
        return tuple(text) if several else text[0]
    text = ",".join(text) if isinstance(text, list) else text
    if several:
        return _tuple(name, text, *get_args(found[0]))
    if str in found:
        return int(text) if int in found and text.removeprefix("-").isdecimal() else text
    kind, sides = int if int in found else float, len(found) > 1  # SIDE or HEIGHT,WIDTH
    one = "SIDE or HEIGHT,WIDTH in pixels" if sides else (
        "a whole number" if kind is int else "a finite number"
    )  # fmt: skip
    values = numbers(name, text, kind, one)
    if len(values) > 1 + sides:
        raise ValueError(f"{name}: expected {one}; got {text!r}")
    return values[0] if len(values) == 1 else tuple(values)


def _tuple(name: str, text: str, kind: Any, *rest: Any) -> tuple[Any, ...]:
    plain = kind in (int, float)
    found = numbers(name, text, kind) if plain else [of_text(name, w, kind) for w in words(text)]
    if Ellipsis not in rest and len(found) != 1 + len(rest):
        raise ValueError(f"{name}: expected {1 + len(rest)} values with commas, got {text!r}")
    return tuple(found)
