"""What `report` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moreaugrad.runs.plans.option import Plan, option


@dataclass(frozen=True, kw_only=True)
class ReportPlan(Plan):
    """runs: folders of runs of any command. confidence: of the intervals over images. gallery: how
    many images of each run are shown. base: which method each is made of (METHOD=BASE, or BASE for
    all others): the report then has the faithfulness that is lost."""

    GROUP: ClassVar[str] = "Report"

    runs: tuple[str, ...] = option((), "Folders of runs, of any command.", "RUN", path=True)
    confidence: float = option(0.95, "Confidence of the intervals over images (Student's t).")
    gallery: int = option(
        4, "Number of images whose maps are shown. Those of a page of more than 32 images or 128 "
        "maps are files in index_files/ next to it.",
    )  # fmt: skip
    base: tuple[str, ...] = option(
        (), "[METHOD=]BASE: what a method is made of; the report has the fraction of the base's "
        "AOPC that it loses.", repeated=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence: expected between 0 and 1, got {self.confidence!r}")
        if self.gallery < 0:
            raise ValueError(f"gallery: expected at least 0 images, got {self.gallery}")
