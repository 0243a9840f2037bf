"""Parts by name: methods, attacks, metrics, penalties, protocols and layouts of data.

A `Registry` maps a name to a `Row`, which describes a part without loading it. Wherever such a name
is expected, `package.module:Class` names your own class, and packages that are installed may have
names of their own (see `moreaugrad.plugins`).
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, get_type_hints

from moreaugrad.plugins import TARGET, Plugins, plugins
from moreaugrad.settings import check_settings, nearest

DEPENDENCIES: Mapping[str, str] = {"captum": "captum.attr"}
"""Words before the colon that stand for a module of a package which this one needs: its code runs
anyway, so that naming it in a file needs no consent."""


def choose(what: str, name: str, known: Iterable[str]) -> str:
    """`name`. Errors: ValueError for an unknown one, with the known ones and the nearest."""
    options = list(known)
    if name not in options:
        raise ValueError(
            f"{what}: expected one of {', '.join(options)}; got {name!r}{nearest(name, options)}"
        )
    return name


@dataclass(frozen=True)
class Row:
    """What a registry knows of a part without loading it.

    target: `module:Class` or `module:function`. summary: what it is, in a few words. source: the
    paper. settings: those that this row fixes for the class, such as sigma = 0.
    """

    target: str
    summary: str
    source: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, part: Any) -> Self:
        """The row of a user's class or function, with its documentation's first sentence."""
        paragraph = " ".join((inspect.getdoc(part) or "").partition("\n\n")[0].split())
        return cls(name, re.split(r"(?<=\.) ", paragraph)[0])

    def load(self) -> Any:
        """The class or function."""
        module, name = self.target.split(":")
        return getattr(importlib.import_module(module), name)

    def needs(self) -> tuple[str, ...]:
        """Names of the required arguments: the model, or a penalty's weights."""
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
        """Settings of a configuration, converted to what the class takes."""
        return dict(settings)

    def make(self, *given: Any, **settings: Any) -> Any:
        return self.load()(*given, **settings)


R = TypeVar("R", bound=Row)


class Registry(Mapping[str, R]):
    """Rows by name, in order; `registry["package.module:Class"]` is the row of a user's own class.

    Listing names and rows loads nothing. A user's class is imported, from the environment or the
    working folder, when its row is asked for: to name it is to consent to running its module. Names
    in a file are refused before that, see `refuse_code`. What installed packages declare is looked
    up by its name, and is not among the names that are listed, nor among all.
    """

    def __init__(
        self, part: str, rows: Mapping[str, R], bases: Sequence[str] = (), group: str = ""
    ) -> None:
        """part: what a row describes, such as "method". bases: what the classes must derive from,
        as `module:Class`; none for functions. group: of the entry points of other packages."""
        self.part, self._rows, self._bases = part, dict(rows), tuple(bases)
        self._kind, self._group = type(next(iter(rows.values()))), group

    def __getitem__(self, name: str) -> R:
        if self.check(name) in self._rows:
            return self._rows[name]
        names = " or ".join(base.partition(":")[2] for base in self._bases)
        expected = f"a class derived from {names}" if names else "a function"
        if not is_code(name):
            return self._of_plugin(name, expected)
        return self._of(name, import_code(name, expected), expected)

    def _of_plugin(self, name: str, expected: str) -> R:
        """Errors: ValueError for one that does not work."""
        plugin = self.plugins().parts[name]
        try:
            part = import_code(plugin.target, expected, own=False)
            return self._of(plugin.target, part, expected)
        except Exception as error:
            raise ValueError(f"{name} of {plugin.package}: {error}") from error

    def _of(self, name: str, part: Any, expected: str) -> R:
        bases = tuple(import_code(base, "a class") for base in self._bases)
        if bases and not (isinstance(part, type) and issubclass(part, bases)):
            raise ValueError(f"{name}: expected {expected}, got {part!r}")
        return self._kind.of(_full(name), part)

    def plugins(self) -> Plugins:
        """What installed packages declare; nothing is imported."""
        if not self._group:
            return Plugins({}, ())
        return plugins(self._group, self._rows.keys(), tuple(sys.path))

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def check(self, name: str, also: Iterable[str] = ()) -> str:
        """`name`, if it is known, in `also`, or of the form `package.module:Class`; loads nothing.

        Errors: UnknownName.
        """
        known = [*also, *self._rows]
        if name in known or is_code(name):
            return name
        known += self.plugins().parts
        if name not in known:
            raise UnknownName(
                f"{self.part}: expected one of {', '.join(known)}, or your own "
                f"package.module:Class; got {name!r}{nearest(name, known)}"
            )
        return name

    def build(self, name: str, *given: Any, **settings: Any) -> Any:
        """An instance of the part. given: its required arguments.

        Errors: UnknownName, and ValueError for a setting of unknown name or of another type.
        """
        row = self[name]
        own = row.read(settings)
        check_settings(name, list(row.defaults()), row.hints(), own)
        return row.make(*given, **(dict(row.settings) | own))


def labelled(part: str, settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Settings by label: a user's `package.module:Class` is labelled `Class`.

    part: the setting that then holds the full name, such as "method". Errors: ValueError for two
    parts with one label.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, given in settings.items():
        label = name.partition(":")[2] if is_code(name) else name
        if label in found:
            raise ValueError(f"{part}s: two are called {label!r}; give one of them another label")
        found[label] = dict(given) if label == name else {part: name, **given}
    return found


class UnknownName(ValueError, KeyError):
    """A name that a registry does not have. The message lists the known names and the nearest."""

    __str__ = ValueError.__str__


def _parameters(part: Any) -> dict[str, Any]:
    """Arguments of a class or function with their defaults; MISSING where there is none."""
    if is_dataclass(part):
        return {
            item.name: item.default if item.default_factory is MISSING else item.default_factory()
            for item in fields(part)
            if item.init
        }
    # A function takes samples by position; its settings are keyword arguments.
    return {
        item.name: item.default if item.kind is item.KEYWORD_ONLY else MISSING
        for item in inspect.signature(part).parameters.values()
    }


def is_code(name: str) -> bool:
    """Whether a name is of the form `package.module:Class`."""
    return TARGET.fullmatch(name) is not None


def _full(name: str) -> str:
    """A name of the form `package.module:Class`, with the module that its first word stands for."""
    word, _, own = name.partition(":")
    return f"{DEPENDENCIES.get(word, word)}:{own}"


def untrusted(name: str, file: str | Path, what: str = "") -> ValueError:
    """The error for a file that names code which the user has not agreed to run."""
    named = f"{name} as {what}" if what else name
    return ValueError(
        f"{file}: names {named}, code that is run when it is loaded; read that code, and give "
        "--trust (in Python: trust=True) if you trust it"
    )


def refuse_code(table: Mapping[str, Any], file: str | Path) -> None:
    """Errors: ValueError for a configuration that names code from outside this package.

    Any word of the form `package.module:Class` counts, in keys and values, because this function
    does not know which of them are looked up. Exceptions are the name of a network, whose code has
    its own consent, a target, and texts to explain.
    """
    for word in filter(is_code, _words(table, "")):
        if word.partition(":")[0] not in DEPENDENCIES:
            raise untrusted(word, file)


def _words(value: object, where: str) -> Iterator[str]:
    """The words of a configuration's value, nested values included. where: its key."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from key.split()
            left_out = (where, key) == ("model", "name") or key == "target"
            texts = (where, key) == ("text", "texts")
            if not (texts or (left_out and isinstance(item, str))):
                yield from _words(item, key)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _words(item, where)
    elif isinstance(value, str):
        yield from value.split()


def import_code(name: str, expected: str, known: Iterable[str] = (), *, own: bool = True) -> Any:
    """The class or function that `package.module:attribute` names.

    The module is looked for in the environment and, if it is the user's own, in the working folder.
    For messages: expected, what the attribute has to be; known, other words that may stand before
    the colon.
    Errors: ValueError for a module that cannot be imported or has no callable of that name.
    """
    path, _, attribute = _full(name).partition(":")
    with working_folder() if own else nullcontext():
        try:
            module = importlib.import_module(path)
        except ModuleNotFoundError as error:
            if not f"{path}.".startswith(f"{error.name}."):
                raise ValueError(f"{name}: importing {path} failed ({error})") from error
            raise ValueError(
                f"{name}: there is no module {path!r} in the environment"
                f"{' or the working folder' if own else ''}{nearest(path, known)}"
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
    """While open, modules can be imported from the working folder, as with `python -m`."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
