"""What `explain`, `compare` and `sweep` are asked for where they are of series and volumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moreaugrad.runs.plans.option import Plan, option


@dataclass(frozen=True, kw_only=True)
class ArrayPlan(Plan):
    """How the values of files become inputs, see `models.ArrayInput`; what is None is as the
    network's source has it."""

    GROUP: ClassVar[str] = "Series and volumes"

    shape: tuple[int, ...] | None = option(
        None, "Shape of the inputs that the network takes, without the batch, such as 1,16000; -1 "
        "is any length.",
    )  # fmt: skip
    rate: float | None = option(
        None, "Samples per second of the series that the network takes; sounds are resampled."
    )
    fit: str | None = option(
        None, "Inputs of another length: exact refuses them, start or centre cuts them or pads "
        "them with zeros.", shown="exact", choices=("exact", "start", "centre"),
    )  # fmt: skip
    window: tuple[float, ...] | None = option(
        None, "Level and width of the values of a scan that become 0 to 1, such as 40,400.",
        metavar="LEVEL,WIDTH", shown="values as they are",
    )  # fmt: skip
