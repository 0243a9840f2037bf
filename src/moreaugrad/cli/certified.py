"""Certificates on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from moreaugrad.cli import screen

if TYPE_CHECKING:
    from moreaugrad.runs.certify import CertifyOutcome

COLUMNS = 6
"""Radii that a table shows."""


def summary(outcome: CertifyOutcome) -> None:
    """A table for each picture, what its lines say, and where the files are."""
    console = screen.results()
    for record in outcome.records:
        low, high = record["sigma_in_pixel_range"]
        pixels = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g} by channel"
        title = f"[bold]{screen.line(record['input'])}[/]"
        console.print(f"{title}  explained: {screen.line(record['target']['label'])}")
        console.print(
            f"sigma {record['sigma']:g} in input units, {pixels} for pixels in 0 to 1; "
            f"rho {record['rho']:.3g}, below {record['rho_limit']:.3g}"
        )
        console.print(_table(record))
        console.print()
    for kind, words in _statements(outcome.records):
        console.print(f"{kind}: {escape(words)}")
    if outcome.failures:
        screen.note(f"{len(outcome.failures)} left out, see above")
    console.print(f"Folder: {escape(str(outcome.folder))}", soft_wrap=True)


def _table(record: dict[str, Any]) -> Table:
    """Overlaps in percent, at radii evenly over the range in which something changes."""
    from moreaugrad.runs.certify.curves import last_change, lines

    last = last_change(record)
    steps = min(COLUMNS, last + 1)
    shown = sorted({round(last * step / max(1, steps - 1)) for step in range(steps)})
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("% that stays within", no_wrap=True)
    for index in shown:
        table.add_column(f"{record['radii'][index]:.12g}", justify="right", no_wrap=True)
    for key, exact, shares in lines(record):
        name = "  were its map exact" if exact else key
        cells = (
            "" if share is None else f"{100 * share:.1f}"
            for share in map(shares.__getitem__, shown)
        )
        table.add_row(f"{name} ({record['curves'][key]['kind']})", *cells)
    return table


def _statements(records: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Kind and words, once for each kind and class; an estimate with what is not proven of it."""
    found: dict[tuple[str, int], str] = {}
    for record in records:
        for curve in record["curves"].values():
            reason = f" ({curve['reason']})" if curve["reason"] else ""
            key = curve["kind"], record["target"]["class"]
            found.setdefault(key, curve["statement"] + reason)
    return [(kind, words) for (kind, _), words in found.items()]


def summary_json(outcome: CertifyOutcome) -> None:
    """The records and what went wrong, as JSON."""
    screen.print_json(
        {
            "folder": str(outcome.folder),
            "complete": not outcome.failures and not outcome.interrupted,
            "interrupted": outcome.interrupted,
            "seconds": round(outcome.seconds, 3),
            "inputs": outcome.records,
            "failures": [
                {"input": failure.title, "curve": failure.method or None,
                 "message": failure.message}
                for failure in outcome.failures
            ],
        }
    )  # fmt: skip
