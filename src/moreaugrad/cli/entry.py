"""How a command is run: its exit code, and how an error becomes one line."""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
import warnings

from moreaugrad.cli import interruption
from moreaugrad.cli.app import UsageError, command_of, make_app
from moreaugrad.cli.codes import DONE, INTERRUPTED, REFUSED
from moreaugrad.cli.streams import lasting

EXPECTED = (ValueError, TypeError, FloatingPointError, UsageError)
"""Errors whose message says what was expected; the type of the others is named too."""
TRACEBACK = "MOREAUGRAD_TRACEBACK"
"""Environment variable: when set, an error comes with its traceback."""

EMPTY = re.compile(r"--[\w-]+=\s*")


def main(arguments: list[str] | None = None) -> None:
    """Runs a command and exits with its code."""
    lasting()
    warnings.showwarning = _show_warning
    code = run(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.stdout.flush()
    except OSError as error:  # of a full disk
        code = _refuse(f"standard output: {error.strerror}", REFUSED)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """The exit code of a command. An error is one line on standard error."""
    interruption.forget()
    # What it logs of a damaged file is in the error or the note that follows.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        _check_values(arguments)
        app = make_app(command_of(arguments))
        command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
        code = command(*bound.args, **bound.kwargs)
        if code == INTERRUPTED:
            return interruption.exit_code()
        return code if isinstance(code, int) else DONE
    except (interruption.Interrupted, KeyboardInterrupt):
        return _refuse("interrupted", interruption.exit_code())
    except (Exception, SystemExit) as error:
        if interruption.received():  # what was interrupted may raise errors of its own
            return _refuse("interrupted", interruption.exit_code())
        # Models and factories are code of others, which may raise anything, or exit.
        if os.environ.get(TRACEBACK):
            from moreaugrad.cli.screen import errors

            errors().print(traceback.format_exc(), markup=False)
        return _refuse(_words(error), REFUSED)


def _check_values(arguments: list[str]) -> None:
    """Refuses empty values: of an unset variable of a shell, an empty path would mean the working
    folder. Errors: ValueError."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if not argument.strip() or EMPTY.fullmatch(argument):
            where = argument.strip("= ") or before
            raise ValueError(
                f"expected a value, got an empty one{f' after {where}' if where else ''}: is a "
                "variable of the shell unset?"
            )


def _words(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"code of the model or its factory ended the program (exit code {error.code})"
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return text or "not enough memory: use a smaller --batch-size, --crop or model"
    if isinstance(error, EXPECTED) and text:
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    found = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{found} (set {TRACEBACK}=1 to see where it comes from)"


def _refuse(text: str, code: int) -> int:
    from moreaugrad.cli.screen import errors

    errors().print("[bold red]error:[/]", end=" ")
    errors().print(text, markup=False)
    return code


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    from moreaugrad.cli.screen import note

    note(f"note: {' '.join(str(message).split())}")
