"""The log as TensorBoard reads it, where that is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from moreaugrad.runs.train.folder import EVENTS


class Events:
    """Writes the figures of an epoch under `events/`; nothing without the package `tensorboard`.

    These files hold clock times, so they alone differ between equal trainings.
    """

    def __init__(self, folder: Path, *, leads: bool) -> None:
        self._folder = folder / EVENTS
        self._writer: Any = None
        self._wanted = leads and importlib.util.find_spec("tensorboard") is not None

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, record: Mapping[str, Any]) -> None:
        if not self._wanted:
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # What an earlier start wrote from this step on is hidden.
            self._writer = SummaryWriter(self._folder, purge_step=record["steps"])
        for name, value in _figures(record):
            self._writer.add_scalar(name, value, record["steps"])
        self._writer.flush()


def _figures(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    yield "learning rate", record["learning_rate"]
    for part in ("training", "validation"):
        for name, value in record[part].items():
            if name != "count":
                yield f"{part}/{name}", value
