"""Values as they are written on the command line: numbers, sizes, lists, settings."""

from __future__ import annotations

import contextlib
import math
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from moreaugrad.runs.plans.option import Option, Plan, options, plan_in

P = TypeVar("P", bound=Plan)


def with_options(plan: P, given: Mapping[str, Any], hidden: Sequence[str] = ()) -> P:
    """The plan with options, texts or truth values by their names, in place of its own values.

    Errors: ValueError that names the option, for text that is no value of its type.
    """
    found = {place: (o, given[o.name]) for place, o in options(type(plan), hidden)
             if o.name in given}  # fmt: skip
    return _changed(plan, found)


def _changed(plan: P, found: Mapping[tuple[str, ...], tuple[Option, Any]]) -> P:
    """All fields at once, because some go together; then what edits them."""
    hints, changed = get_type_hints(type(plan)), dict[str, Any]()
    for name in dict.fromkeys(place[0] for place in found):
        if name in plan.EDITS:
            continue
        own = found.get((name,))
        if own is None:
            nested = getattr(plan, name)
            kind = plan_in(hints[name])
            assert kind is not None
            rest = {place[1:]: what for place, what in found.items() if place[0] == name}
            changed[name] = _changed(kind() if nested is None else nested, rest)
        elif own[0].read is not None:
            changed[name] = own[0].read(getattr(plan, name), own[1])
        else:
            changed[name] = of_text(own[0].name, own[1], hints[name])
    if changed:
        plan = replace(plan, **changed)
    for name in plan.EDITS:
        if (name,) in found:
            plan = plan.edited(name, found[(name,)][1])
    return plan


def of_text(name: str, text: Any, hint: Any) -> Any:
    """The value of a type that a text stands for. Errors: ValueError with the option's name."""
    if isinstance(text, bool):
        return text
    if isinstance(text, list) and not name.startswith("-"):  # words without an option's name
        if get_origin(hint) is tuple:
            return tuple(text)
        if len(text) != 1:
            raise ValueError(f"{name}: expected one, got {', '.join(text)}")
        return text[0]
    if isinstance(text, list):
        text = ",".join(text)
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kinds = [part for part in parts if part is not types.NoneType]
    if get_origin(kinds[0]) is tuple:
        return _tuple(name, text, kinds[0])
    if any(get_origin(kind) is tuple for kind in kinds):  # SIDE or HEIGHT,WIDTH
        found = whole_numbers(name, text)
        if len(found) > 2:
            raise ValueError(f"{name}: expected SIDE or HEIGHT,WIDTH in pixels, got {text!r}")
        return found[0] if len(found) == 1 else (found[0], found[1])
    if str in kinds:
        decimal = int in kinds and text.lstrip("-").isdecimal()
        return int(text) if decimal else _number_or_text(text, kinds)
    if int in kinds:
        return _single(name, whole_numbers(name, text), "a whole number", text)
    return _single(name, numbers(name, text), "a number", text)


def _number_or_text(text: str, kinds: Sequence[Any]) -> Any:
    if float in kinds:
        with contextlib.suppress(ValueError):
            return float(text)
    return text


def _single(name: str, found: list[Any], what: str, text: str) -> Any:
    if len(found) != 1:
        raise ValueError(f"{name}: expected {what}, got {text!r}")
    return found[0]


def _tuple(name: str, text: str, hint: Any) -> tuple[Any, ...]:
    kind, *rest = get_args(hint)
    if kind in (int, float):
        found: list[Any] = (whole_numbers if kind is int else numbers)(name, text)
    else:
        found = [of_text(name, word, kind) for word in words(text)]
    if rest and rest[0] is not Ellipsis and len(found) != 1 + len(rest):
        raise ValueError(f"{name}: expected {1 + len(rest)} values with commas, got {text!r}")
    return tuple(found)


def words(text: str) -> tuple[str, ...]:
    """Those between commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def numbers(name: str, text: str) -> list[float]:
    """`0,0.1,1` as numbers. Errors: ValueError, also for one that is infinite or NaN."""
    with contextlib.suppress(ValueError):
        found = [float(word) for word in text.split(",")]
        if all(map(math.isfinite, found)):
            return found
    raise ValueError(f"{name}: expected finite numbers, separated by commas; got {text!r}")


def whole_numbers(name: str, text: str) -> list[int]:
    """`0,1,2` as whole numbers. Errors: ValueError."""
    with contextlib.suppress(ValueError):
        found = numbers(name, text)
        if all(value == int(value) for value in found):
            return list(map(int, found))
    raise ValueError(f"{name}: expected whole numbers, separated by commas; got {text!r}")


def setting(name: str, text: str) -> tuple[str, Any]:
    """`NAME=VALUE`. Errors: ValueError for another form."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ValueError(f"{name}: expected NAME=VALUE, got {text!r}")
    return key.strip(), typed(value.strip())


def typed(text: str) -> Any:
    """A value as TOML has it; `8,16` and `[a,b]` are lists; what is neither is text.

    Errors: ValueError for lists nested too deeply to be read.
    """
    for attempt in (text, f"[{text}]" if "," in text else text):
        try:
            found = tomllib.loads(f"value = {attempt}")
        except tomllib.TOMLDecodeError:
            continue
        except RecursionError:
            raise ValueError(
                f"expected a value, got a list nested too deeply: {text[:20]!r}..."
            ) from None
        if len(found) == 1 and isinstance(found["value"], (bool, int, float, str, list)):
            return found["value"]
    if text.startswith("[") and text.endswith("]"):
        return [typed(word.strip()) for word in text[1:-1].split(",")]
    return text


def given_settings(plan: Plan) -> dict[str, Any]:
    """The fields of a plan that are not None, by name."""
    found = {item.name: getattr(plan, item.name) for item in fields(plan)}
    return {name: value for name, value in found.items() if value is not None}
