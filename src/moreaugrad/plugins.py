"""Parts that other installed packages declare, as entry points of the group `moreaugrad.methods`,
`moreaugrad.attacks` or `moreaugrad.metrics`:

    [project.entry-points."moreaugrad.methods"]
    shiny = "shiny.methods:Shiny"

What packages declare is read when a name is looked up that the library does not have; a part is
imported when it is used.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distributions

NAME = re.compile(r"\w[\w-]*")
TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
"""The form `package.module:Class`."""


@dataclass(frozen=True)
class Plugin:
    """target: `package.module:Class` or `:function`. package: its name and version."""

    target: str
    package: str


@dataclass(frozen=True)
class Plugins:
    """Parts by name. notes: on those that are ignored, and why."""

    parts: Mapping[str, Plugin]
    notes: tuple[str, ...]


def plugins(group: str, taken: Collection[str], path: tuple[str, ...]) -> Plugins:
    """What installed packages declare in a group; nothing is imported.

    taken: names of the library, which no package replaces. path: `sys.path`; for each, packages are
    looked for once.
    """
    parts: dict[str, Plugin] = {}
    notes = []
    for one, package in _declared(group, path):
        why = ""
        if not NAME.fullmatch(one.name):
            why = "a name has letters, digits, _ and - alone"
        elif not TARGET.fullmatch(one.value):
            why = f"expected package.module:Class, got {one.value!r}"
        elif one.name in taken:
            why = "the library has this name"
        elif one.name in parts:
            why = f"{parts[one.name].package} has this name too"
        if why:
            notes.append(f"{one.name} of {package} is ignored: {why}")
        else:
            parts[one.name] = Plugin(one.value, package)
    return Plugins(parts, tuple(notes))


@cache
def _declared(group: str, path: tuple[str, ...]) -> list[tuple[EntryPoint, str]]:
    """Entry points and their packages, in the order of names; of two
    versions of a package, those of the one that is imported."""
    found: dict[str, list[tuple[EntryPoint, str]]] = {}
    for one in distributions(path=list(path)):
        try:
            own = one.entry_points.select(group=group)
            if own:
                found.setdefault(_called(one), [(each, _title(one)) for each in own])
        except Exception:  # damaged metadata: whatever it is, it must not break other packages
            continue
    every = [each for own in found.values() for each in own]
    return sorted(every, key=lambda each: (each[0].name, each[1]))


def _called(package: Distribution) -> str:
    """The name by which versions of a package are the same."""
    return re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()


def _title(package: Distribution) -> str:
    return f"{package.metadata['Name']} {package.version}"
