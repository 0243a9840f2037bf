"""How a command is run: its exit code, and how an error becomes one line."""

from __future__ import annotations

import os
import sys
import traceback
import warnings

import typer

from moreaugrad.cli.app import app
from moreaugrad.cli.codes import DONE, INTERRUPTED, REFUSED

BAD_INPUT = (ValueError, TypeError, MemoryError, FloatingPointError, OSError)
# typer brings its own copy of click or uses the installed one, by version; both raise this.
USAGE: type[Exception] = typer.BadParameter.__mro__[2]
TRACEBACK = "MOREAUGRAD_TRACEBACK"
"""Environment variable: when set, an error comes with its traceback."""


def main(arguments: list[str] | None = None) -> None:
    """Runs a command and exits: with 0, or with a code that `--help` explains."""
    warnings.showwarning = _show_warning
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """A command's exit code. Bad input is told in one line on standard error."""
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="moreaugrad", standalone_mode=False)
        return code if isinstance(code, int) else DONE
    except (KeyboardInterrupt, typer.Abort):
        return _refuse("interrupted", INTERRUPTED)
    except (*BAD_INPUT, USAGE) as error:
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        if isinstance(error, BrokenPipeError):  # the reader of our output has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return DONE
        return _refuse(_words(error), REFUSED)


def _words(error: Exception) -> str:
    text = error.format_message() if isinstance(error, USAGE) else str(error)  # type: ignore[attr-defined]
    if isinstance(error, MemoryError) and not text:
        text = "not enough memory: use a smaller --batch-size, --crop or model"
    return " ".join(text.split()) or type(error).__name__


def _refuse(text: str, code: int) -> int:
    from moreaugrad.cli.screen import errors

    errors().print("[bold red]error:[/]", end=" ")
    errors().print(text, markup=False)
    return code


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    from moreaugrad.cli.screen import note

    note(f"note: {' '.join(str(message).split())}")
