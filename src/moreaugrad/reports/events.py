"""Figures for TensorBoard, where that is installed."""

from __future__ import annotations

import importlib.util
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

EVENTS = "events"
"""The folder, in that of the results."""


def events(folder: Path, step: int) -> AbstractContextManager[Any]:
    """A writer for TensorBoard, or None where that is not installed. step: of its first figures;
    what an earlier start wrote from there on is hidden.

    These files hold clock times, so they alone differ between equal trainings.
    """
    if importlib.util.find_spec("tensorboard") is None:
        return nullcontext()
    from torch.utils.tensorboard import SummaryWriter

    # TensorBoard reads files in the order of their names, which begin with the second and end with
    # a counter without leading zeros; it drops what it reads too late.
    while any(folder.glob(f"events.out.tfevents.{int(time.time()):010d}.*")):
        time.sleep(0.05)
    writer: AbstractContextManager[Any] = SummaryWriter(folder, purge_step=step)
    return writer
