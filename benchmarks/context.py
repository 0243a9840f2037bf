"""What every part is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.cache import Cache

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Context:
    """`quick`: two images and few evaluations, to try the code; its figures mean nothing.

    `photos`: galleries show the images next to the maps. What they show stays on this machine.
    """

    out: Path
    cache: Cache
    quick: bool
    threads: int
    photos: bool = False
    device: torch.device = CPU
    """Of parts that do not run the command line, which chooses its own."""
