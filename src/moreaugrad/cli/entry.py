"""How a command is run: its exit code, how an error becomes one line, and streams that last."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

from moreaugrad.cli import interruption
from moreaugrad.cli.app import UsageError, command_of, make_app, print_help
from moreaugrad.cli.interruption import DONE, INTERRUPTED, REFUSED

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
        if print_help(app, arguments):
            return DONE
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
    if os.environ.get("RANK", "0") != "0":  # of torchrun, all of whose processes warn alike
        return
    from moreaugrad.cli.screen import note

    note(f"note: {' '.join(str(message).split())}")


GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""Errors of a reader that has gone: a closed pipe, a terminal that was hung up, a closed file."""


class _Lasting(io.RawIOBase):
    """Writes to the file of a stream; when its reader has gone, to nowhere."""

    def __init__(self, stream: io.TextIOWrapper, file: io.RawIOBase) -> None:
        self._file, self._gone = file, False
        self._stream = stream  # which would close the file when nobody holds it any more

    def write(self, data: bytes, /) -> int | None:  # type: ignore[override]
        if not self._gone:
            try:
                return self._file.write(data)
            except OSError as error:
                self._gone = True  # what is left in buffers fails no second time
                if error.errno not in GONE:
                    raise
        return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def isatty(self) -> bool:
        return self._file.isatty()


def lasting() -> None:
    """From here on no name or label is lost by the encoding of standard output and error, and no
    work by a reader that has gone: characters they do not have are written as escapes, and what
    nobody reads any more is dropped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before the start
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            buffer = stream.buffer
            unbuffered = isinstance(buffer, io.RawIOBase)  # as by python -u
            raw = buffer if unbuffered else buffer.raw
            file: Any = _Lasting(stream, raw)
            new = io.TextIOWrapper(
                io.BufferedWriter(file),
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=unbuffered or stream.line_buffering,
            )
            setattr(sys, name, new)
