"""Parts by name: methods, attacks, metrics, penalties, protocols and layouts of data.

A `Registry` maps a name to a `Row`, which says where a part is without loading it. Wherever such a
name is expected, `package.module:Class` names a part of your own.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, get_type_hints

from moreaugrad.settings import check_settings
from moreaugrad.settings import nearest as nearest
from moreaugrad.settings import type_words as type_words

CODE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
"""The name of a part of your own: `package.module:Class`."""


def choose(what: str, name: str, known: Iterable[str]) -> str:
    """`name` when it is known. Errors: ValueError that lists what is, and the nearest."""
    options = list(known)
    if name not in options:
        raise ValueError(
            f"{what}: expected one of {', '.join(options)}; got {name!r}{nearest(name, options)}"
        )
    return name


@dataclass(frozen=True)
class Row:
    """What a registry knows of a part without loading it.

    target: `module:Class`, or `module:function`. summary: what it is, in a few words. source: the
    paper. settings: what makes this part of the class, such as sigma = 0.
    """

    target: str
    summary: str
    source: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, part: Any) -> Self:
        """The row of a part of your own."""
        return cls(name, (inspect.getdoc(part) or "").partition("\n")[0])

    def load(self) -> Any:
        """The class or function."""
        module, name = self.target.split(":")
        return getattr(importlib.import_module(module), name)

    def needs(self) -> tuple[str, ...]:
        """What has no default, and so is no setting: the model, or a penalty's weights."""
        found = _parameters(self.load())
        return tuple(name for name, default in found.items() if default is MISSING)

    def defaults(self) -> dict[str, Any]:
        """Every setting with its default."""
        found = _parameters(self.load())
        given = {name: value for name, value in found.items() if value is not MISSING}
        return given | dict(self.settings)

    def hints(self) -> Mapping[str, Any]:
        """The declared types of the settings."""
        return get_type_hints(self.load())

    def read(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings as a configuration has them, as the class takes them."""
        return dict(settings)

    def make(self, *given: Any, **settings: Any) -> Any:
        return self.load()(*given, **settings)


R = TypeVar("R", bound=Row)


class Registry(Mapping[str, R]):
    """Rows by name, in order; `registry["package.module:Class"]` is the row of a part of your own.

    Listing names and rows loads nothing. Code of your own is imported, from the environment or the
    working folder, when its row is asked for: to name it is to consent to that. Names out of a file
    are refused before, see `refuse_code`.
    """

    def __init__(self, part: str, rows: Mapping[str, R], bases: Sequence[str] = ()) -> None:
        """part: what a row is of, in words, such as "method". bases: what the classes derive from,
        as `module:Class`; functions have none."""
        self.part, self._rows, self._bases = part, dict(rows), tuple(bases)
        self._kind = type(next(iter(rows.values())))

    def __getitem__(self, name: str) -> R:
        if self.check(name) in self._rows:
            return self._rows[name]
        names = " or ".join(base.partition(":")[2] for base in self._bases)
        expected = f"a class derived from {names}" if names else "a function"
        part = import_code(name, expected)
        bases = tuple(import_code(base, "a class") for base in self._bases)
        if bases and not (isinstance(part, type) and issubclass(part, bases)):
            raise ValueError(f"{name}: expected {expected}, got {part!r}")
        return self._kind.of(name, part)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def check(self, name: str, what: str = "", also: Iterable[str] = ()) -> str:
        """The name, where it is known or of the form of code of your own, which is not loaded.

        what: of what it is the name, in words. also: what may stand there besides.
        Errors: UnknownName.
        """
        known = [*also, *self._rows]
        if name not in known and not is_code(name):
            raise UnknownName(
                f"{what or self.part}: expected one of {', '.join(known)}, or package.module:Class "
                f"of your own; got {name!r}{nearest(name, known)}"
            )
        return name

    def build(self, name: str, *given: Any, **settings: Any) -> Any:
        """The part of that name. given: what has no default.

        Errors: UnknownName, and ValueError for a setting of another name or type.
        """
        row = self[name]
        own = row.read(settings)
        check_settings(name, list(row.defaults()), row.hints(), own)
        return row.make(*given, **(dict(row.settings) | own))


def labelled(part: str, settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Settings by label: a part of your own, `package.module:Class`, is labelled `Class`.

    part: the setting that then holds the name, such as "method". Errors: ValueError for two parts
    of one label.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, given in settings.items():
        label = name.partition(":")[2] if is_code(name) else name
        if label in found:
            raise ValueError(f"{part}s: two are called {label!r}; give one of them another label")
        found[label] = dict(given) if label == name else {part: name, **given}
    return found


class UnknownName(ValueError, KeyError):
    """A name that a registry does not have. The message lists what it has, and the nearest."""

    __str__ = ValueError.__str__


def _parameters(part: Any) -> dict[str, Any]:
    """What a class or function is called with, with defaults; MISSING where there is none."""
    if is_dataclass(part):
        return {
            item.name: item.default if item.default_factory is MISSING else item.default_factory()
            for item in fields(part)
            if item.init
        }
    # What a function may be given by position are samples; its settings come by keyword.
    return {
        item.name: item.default if item.kind is item.KEYWORD_ONLY else MISSING
        for item in inspect.signature(part).parameters.values()
    }


def is_code(name: str) -> bool:
    """Whether a name is of the form `package.module:Class`."""
    return CODE.fullmatch(name) is not None


def untrusted(name: str, file: str | Path, what: str = "") -> ValueError:
    """The error of a name out of a file whose code nobody has consented to run."""
    named = f"{name} as {what}" if what else name
    return ValueError(
        f"{file}: names {named}, code that is run when it is loaded; read that code, and give "
        "--trust (in Python: trust=True) if you trust it"
    )


def refuse_code(table: Mapping[str, Any], file: str | Path) -> None:
    """Errors: ValueError for a configuration that names a part that is not of this package.

    Any word of that form counts, in keys and values: which of them are looked up as parts is for
    others to say, and may change. Left out are the name of a network, which has its own consent,
    and a target.
    """
    for word in filter(is_code, _words(table, "")):
        raise untrusted(word, file)


def _words(value: object, where: str) -> Iterator[str]:
    """The words of a configuration's value, and of all in it. where: its key."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from key.split()
            left_out = (where, key) == ("model", "name") or key == "target"
            if not (left_out and isinstance(item, str)):
                yield from _words(item, key)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _words(item, where)
    elif isinstance(value, str):
        yield from value.split()


def import_code(name: str, expected: str, known: Iterable[str] = ()) -> Any:
    """The attribute of a module that `package.module:attribute` names.

    The module is looked for in the environment, and in the working folder too. expected: what the
    attribute has to be, and known: other first parts of names, both for messages.
    Errors: ValueError for a module that cannot be imported, and without a callable of that name.
    """
    path, _, attribute = name.partition(":")
    with working_folder():
        try:
            module = importlib.import_module(path)
        except ModuleNotFoundError as error:
            if not path.startswith(error.name or " "):
                raise ValueError(f"{name}: importing {path} failed ({error})") from error
            raise ValueError(
                f"{name}: there is no module {path!r} in the environment or the working folder"
                f"{nearest(path, known)}"
            ) from None
        except (Exception, SystemExit) as error:
            raise ValueError(f"{name}: importing {path} failed ({first_line(error)})") from error
    found = vars(module).get(attribute)
    if not callable(found):
        called = [key for key, value in vars(module).items() if callable(value)]
        raise ValueError(
            f"{name}: expected {expected} in {path}, got "
            f"{'none of that name' if found is None else type(found).__name__}"
            f"{nearest(attribute, called)}"
        )
    return found


@contextmanager
def working_folder() -> Iterator[None]:
    """Lets modules be imported from the working folder, as `python -m` does."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
