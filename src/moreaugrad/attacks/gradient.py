"""Top-k, mass-centre and targeted-region attacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from moreaugrad.attacks.base import Attack
from moreaugrad.attacks.descent import SPHERE, DescentAttack
from moreaugrad.attacks.objectives import PER, Goal, centre_shift, region, top_k
from moreaugrad.registry import choose
from moreaugrad.score.inputs import Layout


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TopK(Attack):
    """D = the fraction of the map's magnitude on the k largest entries of the clean map.

    Source: Ghorbani et al. (2019); Zhang and Farnia (2023), appendix B.2.
    """

    share: float = 0.4
    """k as a fraction of the clean map's entries that are not zero."""
    count: int | None = None
    """k itself instead; one that covers all of these entries has the status "flat objective"."""
    per: str = PER[0]
    """What is counted: "element", or "pixel" (channels summed)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("per", self.per, PER)
        if not 0 < self.share < 1:
            raise ValueError(f"share: expected a number between 0 and 1, got {self.share!r}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count: expected at least 1, got {self.count!r}")

    def _goal(self, clean: Tensor, layout: Layout) -> Goal:
        return top_k(clean, layout, share=self.share, count=self.count, per=self.per)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TopKAttack(TopK, DescentAttack):
    """The fraction of the map's magnitude on the clean map's largest entries, made small.

    >>> result = mg.attacks.TopKAttack(mg.SimpleGradient(model), epsilon=0.5, steps=10).attack(x)

    Source: Ghorbani et al. (2019); Levine et al. (2019).
    """

    name: ClassVar[str] = "top-k"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MassCentreAttack(DescentAttack):
    """D = -||C(x') - C(x)||^2, C the centre of the map's magnitude in pixels.

    >>> attack = mg.attacks.MassCentreAttack(mg.SimpleGradient(model), epsilon=0.5, steps=10)
    >>> result = attack.attack(x)

    Source: Ghorbani et al. (2019).
    """

    start: str = SPHERE
    """The "sphere" alone: the gradient is zero at the input itself."""

    name: ClassVar[str] = "mass-centre"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start != SPHERE:
            raise ValueError(
                f"start: expected {SPHERE!r} for mass-centre, got {self.start!r}: its gradient is "
                "zero at the input itself"
            )

    def _goal(self, clean: Tensor, layout: Layout) -> Goal:
        return centre_shift(clean, layout)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TargetRegionAttack(DescentAttack):
    """D = -(the fraction of the map's magnitude in a region): draws the map there.

    >>> attack = mg.attacks.TargetRegionAttack(mg.SimpleGradient(model), epsilon=0.5, steps=10)
    >>> result = attack.attack(x)

    Source: Ghorbani et al. (2019), targeted attack.
    """

    region: Tensor | Sequence[int] | None = None
    """Non-zero inside, `[*spatial]` or `[B, *spatial]`; or a box (top, left, height, width) in
    pixels; None is the least important of 4 x 4 blocks."""

    name: ClassVar[str] = "target-region"

    def _goal(self, clean: Tensor, layout: Layout) -> Goal:
        return region(clean, layout, self.region)

    def _needs(self) -> str | None:
        return "region" if self.region is None else None
