"""What griffe, which reads the source for the API reference, does not know of this library.

Docstrings are plain text. The settings of a class, those of its bases too, are in the order and
with the words that `help` has.
"""

from enum import Enum
from typing import Any

import griffe
from reference import ENTRIES, PACKAGES, as_markdown, names

from moreaugrad.settings import settings_of

PUBLIC = {
    part: ENTRIES[f"{path}.{name}"]
    for path, package in PACKAGES.items()
    for name, part in names(package).items()
    if isinstance(part, type) and part.__module__.startswith("moreaugrad.")
}
"""The entry of each public class."""


class Docstrings(griffe.Extension):
    """Markdown from plain text, and the settings of each public class."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        self._convert(pkg)
        for part in PUBLIC:
            inherit(pkg, part)
            describe(_class(pkg, part), part)

    def _convert(self, part: griffe.Object) -> None:
        if part.docstring:
            part.docstring.value = as_markdown(part.docstring.value)
        for member in part.members.values():
            if not member.is_alias:
                self._convert(member)


def _class(pkg: griffe.Module, part: type) -> Any:
    return pkg[f"{part.__module__}.{part.__qualname__}".partition(".")[2]]


def inherit(pkg: griffe.Module, part: type) -> None:
    """Methods of bases that have no entry of their own belong to the entry of the class."""
    cls = _class(pkg, part)
    for base in part.__mro__[1:]:
        if base in PUBLIC:
            break
        if base.__module__.startswith("moreaugrad."):
            for name, member in _class(pkg, base).members.items():
                if name not in cls.members and not name.startswith("_"):
                    cls.members[name] = griffe.Alias(name, member, parent=cls, inherited=True)


def describe(cls: griffe.Class, part: type) -> None:
    """The class's text and public base, and what it is made with or consists of."""
    text = cls.docstring.value if cls.docstring else ""
    base = next((PUBLIC[base] for base in part.__mro__[1:] if base in PUBLIC), None)
    if base is not None:
        text += f"\n\nInherits from [`{base.rpartition('.')[2]}`][{base}]."
    docstring = griffe.Docstring(text, parent=cls)
    sections: list[griffe.DocstringSection] = [griffe.DocstringSectionText(text)] if text else []
    found = values(part) if issubclass(part, Enum) else settings(part)
    if found.value:
        sections.append(found)
    docstring.parsed = sections
    cls.docstring = docstring
    for one in found.value:
        cls.members.pop(one.name, None)


def settings(part: type) -> griffe.DocstringSectionParameters:
    """The fields of a dataclass, its bases' too."""
    return griffe.DocstringSectionParameters(
        [
            griffe.DocstringParameter(
                one.name,
                description=as_markdown(one.meaning),
                annotation=one.hint,
                value=one.default or None,
            )
            for one in settings_of(part)
            if not one.name.startswith("_")
        ],
        title=f"{getattr(part, '_heading', 'Attributes')}:",
    )


def values(part: type[Enum]) -> griffe.DocstringSectionParameters:
    """The members of an enumeration, with what they say."""
    return griffe.DocstringSectionParameters(
        [
            griffe.DocstringParameter(
                one.name,
                description=as_markdown(". ".join(filter(None, _words(one)))),
                annotation=repr(one.value),
            )
            for one in part
        ],
        title="Values:",
    )


def _words(one: Enum) -> tuple[str, str]:
    return getattr(one, "message", ""), getattr(one, "remedy", "")
