"""`moreaugrad data`: data sets that the package makes itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

data = typer.Typer()


@data.callback(invoke_without_command=True)
def group(context: typer.Context) -> int:
    """Make data sets."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    return 0


@data.command()
def cells(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")],
    count: Annotated[int, typer.Option(min=0, help="Pictures to train on.")] = 4096,
    validation: Annotated[int, typer.Option(min=0, help="Pictures of a part `val`.")] = 0,
    test: Annotated[int, typer.Option(min=0, help="Pictures of a part `test`.")] = 0,
    size: Annotated[int, typer.Option(min=16, help="Side in pixels.")] = 64,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: this one alone.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
    json: Annotated[bool, typer.Option("--json", help="A summary for scripts.")] = False,
) -> int:
    """Write synthetic cells of ten classes as a folder of pictures, with their true maps.

    moreaugrad data cells --count 4096 --test 1024 --size 64 --out cells

    Interrupted and started again, it goes on where it was.
    """
    from moreaugrad.cli.screen import print_json, results, watching
    from moreaugrad.data.writing import write_cells

    counts = {"train": count, "val": validation, "test": test}
    if not any(counts.values()):
        raise ValueError("count: expected at least one picture")
    with watching(quiet=quiet) as watch:
        written = write_cells(
            out, counts=counts, size=size, seed=seed, workers=workers,
            progress=lambda done, total: watch.pace(done, total, "drawing cells"),
        )  # fmt: skip
    if json:
        print_json({"out": str(out), "counts": counts, "written": written})
    elif not quiet:
        results().print(f"{written} pictures written to {out}", markup=False, soft_wrap=True)
    return 0
