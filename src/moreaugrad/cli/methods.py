"""The command that lists methods, those of installed packages too."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.padding import Padding

from moreaugrad.attacks import ATTACKS
from moreaugrad.cli import screen
from moreaugrad.cli.commands import CommonOptions
from moreaugrad.cli.interruption import DONE
from moreaugrad.explainers import METHODS
from moreaugrad.metrics import METRICS
from moreaugrad.registry import Registry, Row
from moreaugrad.runs.plans.option import Plan, option
from moreaugrad.settings import settings_of

INDENTED = (0, 0, 0, 4)
SHARED = ("score", "task", "layer", "batch_size", "check")
"""Settings that every method has."""


@dataclass(frozen=True, kw_only=True)
class MethodsPlan(Plan):
    """What `methods` has of its own."""

    name: str | None = option(None, "One of them, in detail.", "METHOD")


def list_methods(plan: MethodsPlan, output: CommonOptions) -> int:
    """All methods with their settings, and the parts of installed packages; of one method, what
    each setting means.

    Errors: ValueError for an unknown name.
    """
    rows = {plan.name: METHODS[plan.name]} if plan.name else {**METHODS, **_installed(METHODS)}
    if output.json:
        screen.print_json({name: _described(row) for name, row in rows.items()})
        return DONE
    console = screen.results()
    for name, row in rows.items():
        source = f" [dim]({escape(row.source)})[/]" if row.source else ""
        console.print(f"[bold]{name}[/]", Padding(f"{escape(row.summary)}{source}", INDENTED))
        if len(rows) == 1:
            console.print("\n".join(_meanings(row)), markup=False, highlight=False)
        else:
            shown = {k: v for k, v in row.defaults().items() if k not in SHARED}
            settings = "  ".join(f"{k}={'none' if v is None else v}" for k, v in shown.items())
            console.print(Padding(f"[cyan]{escape(settings)}[/]", INDENTED))
    if len(rows) > 1:
        from moreaugrad.explainers.captum_classes import names  # loads torch

        console.print(
            f"\nAll methods: {'  '.join(SHARED)}\nSet them by the options of the same name, or by "
            "--set NAME=VALUE. What they mean: moreaugrad methods NAME\n\nOf Captum, as "
            f"captum:NAME: {', '.join(names())}"
        )
        for registry in (ATTACKS, METRICS):
            for name, row in _installed(registry).items():
                package = registry.plugins().parts[name].package
                text = f"Of {package}, {registry.part} {name}: {row.summary}"
                console.print(text, markup=False)
    return DONE


def _installed(registry: Registry[Any]) -> dict[str, Row]:
    """The parts that installed packages add, by name; a note on each that cannot be used."""
    found, declared = {}, registry.plugins()
    for note in declared.notes:
        screen.note(f"note: {registry.part} {note}")
    for name in declared.parts:
        try:
            row = registry[name]
            row.defaults()
        except Exception as error:  # whatever another package raises
            screen.note(f"note: {registry.part} {error}")
        else:
            found[name] = row
    return found


def _described(row: Row) -> dict[str, Any]:
    return {
        "summary": row.summary,
        "source": row.source,
        "settings": {key: _plain(value) for key, value in row.defaults().items()},
        "meanings": {one.name: one.meaning for one in settings_of(row.load()) if one.default},
        "fixed": dict(row.settings),
    }


def _meanings(row: Row) -> list[str]:
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
