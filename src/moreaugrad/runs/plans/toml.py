"""Plans as TOML files and back.

Paths in a file are relative to the folder it lies in, so that a folder can be moved with what it
refers to, or begin with an environment variable.
"""

from __future__ import annotations

import os
import types
import warnings
from collections.abc import Collection, Mapping
from dataclasses import Field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from moreaugrad.files.foreign import lies_within, read_toml
from moreaugrad.registry import refuse_code
from moreaugrad.runs.plans.common import ModelPlan
from moreaugrad.runs.plans.option import Plan, kinds, plan_in
from moreaugrad.settings import nearest, type_words

T = TypeVar("T")
P = TypeVar("P", bound=Plan)


def read_plan(kind: type[P], path: str | Path, *, trust: bool = False) -> P:
    """The plan of a TOML file; warns of paths that lead out of its folder: absolute ones, those
    with `..` and links.

    trust: whether code that it names may be run, see `ModelPlan`.
    Errors: ValueError that names the file and what is wrong in it.
    """
    file, outside = Path(path), list[str]()
    table = read_toml(file)

    def find(name: str) -> str:
        found = _found_from(file, name)
        if not lies_within(found, file.parent):
            outside.append(name)
        return found

    def trusted(part: Any) -> Any:
        if isinstance(part, ModelPlan):
            return replace(part, named_in=str(file), trust=trust)
        return part

    try:
        if not trust:
            refuse_code(table, file)
        plan = from_table(kind, table).without_digests()
    except RecursionError:
        raise ValueError(
            f"{file}: expected the settings of a run, got tables nested too deeply"
        ) from None
    except (ValueError, TypeError) as error:
        words = str(error)
        raise ValueError(words if words.startswith(f"{file}:") else f"{file}: {words}") from None
    plan = plan.moved(find)
    if outside:
        warnings.warn(
            f"{file}: names files outside of its folder: {', '.join(outside)}", stacklevel=2
        )
    found: P = plan.each(trusted)
    return found


def plan_toml(plan: Plan, folder: Path) -> str:
    """The plan as the text of a TOML file in `folder`."""
    moved = plan.moved(lambda name: _relative(name, folder))
    return tomli_w.dumps(to_table(moved), multiline_strings=False)


def to_table(value: Any) -> dict[str, Any]:
    """A dataclass as nested plain values. None and empty parts are left out: they are defaults."""
    found = {item.name: _plain(getattr(value, item.name)) for item in _kept(value)}
    return {name: item for name, item in found.items() if item not in (None, [], {}, "")}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return to_table(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _kept(value: Any) -> list[Field[Any]]:
    """The fields of a dataclass that files have."""
    return [item for item in fields(value) if item.metadata.get("kept", True)]


def from_table(kind: type[T], table: Mapping[str, Any], where: str = "") -> T:
    """The dataclass of a table. Errors: ValueError for unknown names and values of a wrong type."""
    known, of_types = _kept(kind), get_type_hints(kind)
    hints = {item.name: of_types[item.name] for item in known}
    for name in table:
        if name not in hints:
            raise ValueError(f"{where}{name}: there is no such setting{nearest(name, hints)}")
    given = {name: of_type(item, hints[name], f"{where}{name}") for name, item in table.items()}
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(f"{where.rstrip('.') or 'the plan'}: {error}") from None


def of_type(value: Any, hint: Any, where: str) -> Any:
    """The value as a hint asks for it. Errors: ValueError for one of a wrong type."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        for kind in (known := kinds(hint)):
            try:
                return of_type(value, kind, where)
            except ValueError:
                # With one kind its own message says most, for example of a nested table.
                if len(known) == 1:
                    raise
        raise ValueError(f"{where}: expected {type_words(hint)}, got {value!r}")
    if is_dataclass(hint) and isinstance(value, Mapping):
        return from_table(hint, value, f"{where}.")  # type: ignore[arg-type]
    if origin is tuple and isinstance(value, list):
        if parts[-1] is Ellipsis:
            return tuple(of_type(item, parts[0], where) for item in value)
        if len(value) == len(parts):
            return tuple(of_type(a, b, where) for a, b in zip(value, parts, strict=True))
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {key: of_type(item, parts[1], f"{where}.{key}") for key, item in value.items()}
    if hint is float and type(value) in (int, float):
        return float(value)
    if type(value) is hint:
        return value
    raise ValueError(f"{where}: expected {type_words(hint)}, got {value!r}")


def _relative(name: str, folder: Path) -> str:
    """A path as it is written in a file of `folder`."""
    try:
        return Path(os.path.relpath(name, folder)).as_posix()
    except ValueError:  # on another drive
        return str(Path(name).resolve())


def _found_from(file: Path, name: str) -> str:
    """A path that a file gives. Errors: ValueError for an environment variable that is not set."""
    whole = os.path.expandvars(name)
    if whole.startswith("$"):
        variable = name[1:].partition("/")[0].strip("{}")
        raise ValueError(f"{file}: {name}: the environment variable {variable} is not set")
    return str(file.parent / whole)


def digests(kind: type[Plan], where: str = "") -> dict[str, str]:
    """The settings that are paths, with those that are digests of what they name; both with dots.

    Such a path does not distinguish runs: another copy of the repository has another one.
    """
    found: dict[str, str] = {}
    hints = get_type_hints(kind)
    for item in fields(kind):
        nested, path = plan_in(hints[item.name]), item.metadata.get("path")
        if isinstance(path, str):
            found[f"{where}{item.name}"] = f"{where}{path}"
        elif nested is not None:
            found |= digests(nested, f"{where}{item.name}.")
    return found


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], named: Mapping[str, str] | None = None
) -> list[str]:
    """What each setting that two tables have in different ways is in the one and in the other.

    named: see `digests`. Where a table lacks the digest, the path counts instead.
    """
    ignored = set()
    for path, digest in (named or {}).items():
        known = _at(before, digest) is not None and _at(now, digest) is not None
        ignored.add(path if known else digest)
    return _different(before, now, "", ignored)


def _different(
    before: Mapping[str, Any], now: Mapping[str, Any], where: str, ignored: Collection[str]
) -> list[str]:
    found = []
    for name in sorted({*before, *now}):
        old, new, place = before.get(name), now.get(name), f"{where}{name}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += _different(old, new, f"{place}.", ignored)
        elif old != new and place not in ignored:
            found.append(f"{place} is {_shown(old)} there, {_shown(new)} here")
    return found


def _at(table: Any, place: str) -> Any:
    for name in place.split("."):
        table = table.get(name) if isinstance(table, Mapping) else None
    return table


def _shown(value: object) -> str:
    return "not set" if value is None else "set" if isinstance(value, Mapping) else str(value)
