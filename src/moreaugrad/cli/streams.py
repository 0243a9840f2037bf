"""Standard output and error that no character and no closed reader breaks."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path
from typing import Any

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
