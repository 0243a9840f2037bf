"""What `visualise` is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from moreaugrad.runs.plans.common import ComputePlan, ModelPlan
from moreaugrad.runs.plans.maps import read_batch_size
from moreaugrad.runs.plans.option import Option, Plan, Settings, option, part
from moreaugrad.runs.plans.text import of_text, setting, words


def _classes(_: Any, texts: list[str]) -> tuple[int | str, ...]:
    return tuple(of_text("--classes", word, int | str) for word in words(",".join(texts)))


@dataclass(frozen=True, kw_only=True)
class VisualisePlan(Plan):
    """Images that raise the score of each class.

    classes: indices or labels; () is all. count: images of each, from noise of their own.
    score: which is raised. ascent: settings of `explainers.feature_visualisation.Ascent`.
    The images have the size that the network's preprocessing gives.
    """

    GROUP: ClassVar[str] = "Visualisation"
    EDITS: ClassVar[Mapping[str, Option]] = {
        "set": Option(
            names=("--set",), group="Visualisation", repeated=True,
            help="NAME=VALUE: steps, step, normalise, decay, tv, jitter, blur, every, clip or "
            "sigma of the gradient ascent.",
        )
    }  # fmt: skip

    classes: tuple[int | str, ...] = option(
        (), "Classes, by index or label, separated by commas.", "--classes", "--target", "-t",
        read=_classes, shown="all",
    )  # fmt: skip
    count: int = option(1, "Number of images of each class.", "--images")
    score: str = option("logit", "The score that is raised: logit, probability, margin, ...")
    seed: int = option(0, "Random seed of the noise that the ascent starts from.")
    batch_size: int | None = option(
        None, "Network passes done at once, or auto; halved when memory runs out.", shown="auto",
        group="Computation", read=lambda _, text: read_batch_size(text),
    )  # fmt: skip
    ascent: Settings = field(default_factory=dict)
    model: ModelPlan = part(ModelPlan)
    compute: ComputePlan = part(ComputePlan)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"images: expected at least 1, got {self.count}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {self.batch_size}")

    def edited(self, name: str, value: Any) -> Self:
        given = dict(setting("--set", text) for text in value)
        return replace(self, ascent={**self.ascent, **given})
