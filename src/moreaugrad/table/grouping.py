"""Columns that belong together, by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from moreaugrad.files.foreign import some
from moreaugrad.settings import nearest

Groups = Mapping[str, Sequence[str]]
"""The names of columns by the name of their group."""


@dataclass(frozen=True, eq=False)
class Grouping:
    """A partition of a table's columns: named groups, and the rest alone.

    columns: the names of all. names: of the groups, in the order of their first columns. members:
    the numbers of each group's columns.
    """

    columns: tuple[str, ...]
    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, groups: Groups, columns: Sequence[str]) -> Grouping:
        """Errors: TypeError for another form; ValueError for an unknown column, one that is in two
        groups, an empty group, and a group with the name of another column."""
        if not isinstance(groups, Mapping):
            raise TypeError(
                "groups: expected a mapping such as {'city': ['city_Paris', 'city_Rome']}, got "
                f"{type(groups).__name__}"
            )
        place = {name: at for at, name in enumerate(columns)}
        group_of: dict[str, str] = {}
        for group, names in groups.items():
            if isinstance(names, str) or not len(names):
                raise ValueError(f"groups: expected a list of columns for {group!r}, got {names!r}")
            for name in map(str, names):
                if name not in place:
                    raise ValueError(
                        f"groups: expected names of columns, got {name!r} in {group!r}"
                        f"{nearest(name, columns)}; columns: {some(columns)}"
                    )
                if name in group_of:
                    raise ValueError(
                        f"groups: expected each column in one group, got {name!r} in "
                        f"{group_of[name]!r} and in {group!r}"
                    )
                group_of[name] = str(group)
        named = set(group_of.values())
        members: dict[str, list[int]] = {}
        for name in columns:
            group = group_of.get(name, name)
            if name not in group_of and name in named:
                raise ValueError(
                    f"groups: expected other names than those of columns outside of the group, got "
                    f"{name!r}"
                )
            members.setdefault(group, []).append(place[name])
        return cls(tuple(columns), tuple(members), tuple(map(tuple, members.values())))

    @cached_property
    def label(self) -> Tensor:
        """The number of each column's group, `[D]`."""
        found = torch.empty(len(self.columns), dtype=torch.long)
        for number, places in enumerate(self.members):
            found[list(places)] = number
        return found

    def sums(self, maps: Tensor) -> Tensor:
        """`[N, D]` to `[N, G]`."""
        if len(self.names) == maps.shape[1]:
            return maps
        return maps.new_zeros(len(maps), len(self.names)).index_add_(1, self.label, maps)


def origins(columns: Sequence[str], sources: Sequence[str]) -> dict[str, list[str]]:
    """The transformed columns by the column that they are made of, as far as names show it.

    `city_Paris` and `onehot__city_Paris`, the form of scikit-learn, are made of `city`: the longest
    name that begins theirs. A column that alone is made of another one is a group too; one that is
    made of none known is in no group.
    """
    found: dict[str, list[str]] = {}
    for column in columns:
        inner = column.partition("__")[2]
        known = column if column in sources else _source(inner, sources)
        source = known or _source(column, sources)
        if source:
            found.setdefault(source, []).append(column)
    return found


def _source(column: str, sources: Sequence[str]) -> str:
    known = [own for own in sources if column == own or column.startswith(f"{own}_")]
    return max(known, key=len, default="")
