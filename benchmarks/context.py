"""What every part is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.cache import Cache


@dataclass(frozen=True, kw_only=True)
class Context:
    """`quick`: two pictures and few evaluations, to try the code; its figures mean nothing."""

    out: Path
    cache: Cache
    quick: bool
    threads: int
