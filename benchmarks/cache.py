"""Finished pieces of long computations, kept so that an interrupted run goes on.

A piece is one image's tensors. Its file is named by everything that it depends on: settings,
weights, image, and the source code that made it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from moreaugrad.files.atomic import write_atomically

Piece = dict[str, Tensor]


@dataclass(frozen=True)
class Cache:
    folder: Path

    def fetch(
        self,
        kind: str,
        settings: dict[str, Any],
        names: Sequence[str],
        compute: Callable[[Sequence[str]], Sequence[Piece]],
        *,
        at_once: int,
    ) -> Piece:
        """The pieces of `names`, stacked; those that are missing are computed `at_once` a time."""
        paths = {name: self._path(kind, settings, name) for name in names}
        missing = [name for name in names if not paths[name].is_file()]
        began = time.perf_counter()
        for start in range(0, len(missing), at_once):
            some = missing[start : start + at_once]
            for name, piece in zip(some, compute(some), strict=True):
                paths[name].parent.mkdir(parents=True, exist_ok=True)
                write_atomically(paths[name], save({k: v.cpu() for k, v in piece.items()}))
            done, spent = start + len(some), time.perf_counter() - began
            left = spent / done * (len(missing) - done)
            print(f"  {kind}: {done}/{len(missing)}, {spent:.0f} s, {left:.0f} s left", flush=True)
        pieces = [load_file(paths[name]) for name in names]
        return {key: torch.stack([piece[key] for piece in pieces]) for key in pieces[0]}

    def _path(self, kind: str, settings: dict[str, Any], name: str) -> Path:
        return self.folder / kind / f"{digest({**settings, 'picture': name})}.safetensors"


def digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def digest_of(*paths: Path) -> str:
    """Of the contents of files, and of all modules in folders."""
    files = sorted(
        file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])
    )
    return digest([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
