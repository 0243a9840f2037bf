"""The methods of the registry on the screen, and what the settings of one mean."""

from __future__ import annotations

import textwrap
from typing import Any

from rich.markup import escape
from rich.padding import Padding

from moreaugrad.cli import screen
from moreaugrad.explainers import METHODS
from moreaugrad.settings import settings_of


def list_methods(name: str | None, *, as_json: bool) -> None:
    """All methods with their settings; of one, what each setting means.

    Errors: ValueError for an unknown name.
    """
    rows = METHODS if name is None else {name: METHODS[name]}
    if as_json:
        screen.print_json({name: _described(name) for name in rows})
        return
    console = screen.results()
    for name, row in rows.items():
        source = f" [dim]({escape(row.source)})[/]" if row.source else ""
        console.print(f"[bold]{name}[/]", Padding(f"{escape(row.summary)}{source}", INDENTED))
        if len(rows) == 1:
            console.print("\n".join(_meanings(name)), markup=False, highlight=False)
        else:
            shown = {k: v for k, v in row.defaults().items() if k not in SHARED}
            settings = "  ".join(f"{k}={'none' if v is None else v}" for k, v in shown.items())
            console.print(Padding(f"[cyan]{escape(settings)}[/]", INDENTED))
    if len(rows) > 1:
        console.print(
            f"\nAll methods: {'  '.join(SHARED)}\nSet them by the options of the same name, or by "
            "--set NAME=VALUE. What they mean: moreaugrad methods NAME"
        )


INDENTED = (0, 0, 0, 4)
SHARED = ("score", "task", "layer", "batch_size", "check")
"""Settings that every method has."""


def _described(name: str) -> dict[str, Any]:
    row = METHODS[name]
    return {
        "summary": row.summary,
        "source": row.source,
        "settings": {key: _plain(value) for key, value in row.defaults().items()},
        "meanings": {one.name: one.meaning for one in settings_of(row.load()) if one.default},
        "fixed": dict(row.settings),
    }


def _meanings(name: str) -> list[str]:
    row = METHODS[name]
    lines = []
    for one in settings_of(row.load()):
        if one.default:
            default = row.settings.get(one.name, one.default)
            fixed = ", which makes it this method" if one.name in row.settings else ""
            lines.append(f"\n  {one.name} = {default}{fixed}")
            lines += textwrap.wrap(one.meaning, 72, initial_indent="    ", subsequent_indent="    ")
    return lines


def _plain(value: object) -> Any:
    return value if isinstance(value, (str, int, float, bool, list, type(None))) else str(value)
