"""Jobs as TOML files and back.

Paths in a file are relative to the folder it lies in, so that a folder can be moved with what it
refers to.
"""

from __future__ import annotations

import os
import types
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from moreaugrad.files.foreign import lies_within, read_toml
from moreaugrad.models.trained import TRAINED, trained_folder
from moreaugrad.registry import nearest, refuse_code, type_words
from moreaugrad.runs.job import Job, ModelPlan

T = TypeVar("T")
N = TypeVar("N", bound=ModelPlan)


def read_job(path: str | Path, *, trust: bool = False) -> Job:
    """The job of a TOML file; warns of paths that lead out of its folder.

    trust: whether code that it names may be run, see `ModelPlan`.
    Errors: ValueError that names the file and what is wrong in it.
    """
    file, table = Path(path), read_toml(path)
    if not trust:
        refuse_code(table, file)
    try:
        job = from_table(Job, table)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}") from None
    # The digests are of another start; this one makes its own.
    job = replace(
        job, files="", network="", outputs="",
        beside=job.beside and replace(job.beside, network="", outputs=""),
    )  # fmt: skip
    with finding(file, beside_file) as find:
        job = _moved(job, find)
    source: dict[str, Any] = {"named_in": str(file), "trust": trust}
    beside = job.beside and replace(job.beside, model=replace(job.beside.model, **source))
    return replace(job, model=replace(job.model, **source), beside=beside)


def job_toml(job: Job, folder: Path) -> str:
    """The job as the text of a TOML file in `folder`."""
    moved = _moved(job, lambda name: relative(name, folder))
    return tomli_w.dumps(to_table(moved), multiline_strings=False)


def to_table(value: Any) -> dict[str, Any]:
    """A dataclass as nested plain values. None and empty parts are left out: they are defaults."""
    found = {item.name: _plain(getattr(value, item.name)) for item in _kept(value)}
    return {name: item for name, item in found.items() if item not in (None, [])}


def from_table(cls: type[T], table: Mapping[str, Any], where: str = "") -> T:
    """The dataclass of a table. Errors: ValueError for unknown names and values of a wrong type."""
    known, of_types = _kept(cls), get_type_hints(cls)
    hints = {item.name: of_types[item.name] for item in known}
    for name in table:
        if name not in hints:
            raise ValueError(f"{where}{name}: there is no such setting{nearest(name, hints)}")
    given = {name: of_type(item, hints[name], f"{where}{name}") for name, item in table.items()}
    try:
        return cls(**given)
    except TypeError as error:
        raise ValueError(f"{where.rstrip('.') or 'the job'}: {error}") from None


def _kept(value: Any) -> list[Field[Any]]:
    """The fields of a dataclass that files have."""
    return [item for item in fields(value) if item.metadata.get("kept", True)]


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return to_table(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def of_type(value: Any, hint: Any, where: str) -> Any:
    """The value as a hint asks for it. Errors: ValueError for one of a wrong type."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        options = [part for part in parts if part is not types.NoneType]
        problems = []
        for part in options:
            try:
                return of_type(value, part, where)
            except ValueError as error:
                problems.append(error)
        # With one option its own message says most, for example of a nested table.
        if len(options) == 1:
            raise problems[0]
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


def _moved(job: Job, move: Callable[[str], str]) -> Job:
    """The job with every path in it changed."""
    beside = job.beside and replace(job.beside, model=moved_network(job.beside.model, move))
    images = tuple(map(move, job.images))
    return replace(job, images=images, model=moved_network(job.model, move), beside=beside)


def moved_network(plan: N, move: Callable[[str], str]) -> N:
    """Which network, with every path in it changed."""
    folder = trained_folder(plan.name)
    return replace(
        plan,
        name=plan.name if folder is None else f"{TRAINED}:{move(folder)}",
        weights=plan.weights and move(plan.weights),
        labels=plan.labels and move(plan.labels),
    )


def relative(name: str, folder: Path) -> str:
    """A path as it is told from within `folder`."""
    try:
        return Path(os.path.relpath(name, folder)).as_posix()
    except ValueError:  # on another drive
        return str(Path(name).resolve())


def beside_file(file: Path, name: str) -> str:
    """A path that a file gives, relative to its folder."""
    return str(file.parent / name)


def found_from(file: Path, name: str) -> str:
    """A path that a file gives: relative to its folder, or behind an environment variable.

    Errors: ValueError for a variable that is not set.
    """
    whole = os.path.expandvars(name)
    if whole.startswith("$"):
        variable = name[1:].partition("/")[0].strip("{}")
        raise ValueError(f"{file}: {name}: the environment variable {variable} is not set")
    return str(file.parent / whole)


@contextmanager
def finding(file: Path, find: Callable[[Path, str], str]) -> Iterator[Callable[[str], str]]:
    """What finds the paths that a file gives; in the end it warns, in one line, of those that lead
    out of the file's folder: absolute ones, those with `..` and links."""
    outside: list[str] = []

    def found(name: str) -> str:
        path = find(file, name)
        if not lies_within(path, file.parent):
            outside.append(name)
        return path

    yield found
    if outside:
        warnings.warn(
            f"{file}: names files outside of its folder: {', '.join(outside)}", stacklevel=3
        )


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], named: Mapping[str, str] | None = None
) -> list[str]:
    """What each setting that two tables do not share is in the one and in the other.

    named: by a setting that is a path, where the digest of what it names is kept, both with dots.
    Such a path is no setting: another copy of the repository has another one. Where a table of an
    older version lacks the digest, the path counts in its place.
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
