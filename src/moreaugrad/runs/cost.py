"""What a run would cost, from a short timing: evaluations, time and memory, at each quality too."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.moreau import Moreau
from moreaugrad.explainers.quality import QUALITIES, evaluations_to_reach, is_level
from moreaugrad.runs.timing import memory_so_far
from moreaugrad.score.forward import Chunks
from moreaugrad.score.score import Score
from moreaugrad.score.targets import TargetLike
from moreaugrad.solvers.blocks import FEWEST

TIMED, TIMING = 3, 1.0
"""Passes of a timing at least, and seconds: some passes take many times as long where other
processes need the cores that threads wait for each other on."""
PILOTED, STEPS = 4, 8
"""Inputs of a pilot, and its steps."""
UNREACHED = 1e-9
"""Its tolerance, so that it takes all of its steps."""


def seconds_per_evaluation(explainer: Explainer, first: Tensor, target: TargetLike) -> float:
    """Of full passes of one input, `first` a batch of it alone."""
    size = min(16, Chunks.of(explainer.batch_size, first.reshape(1, -1)).size)
    score = Score(
        explainer.forward_func, kind=explainer.score, task=explainer.task, layer=explainer.layer,
        batch_size=size, check=explainer.check,
    )  # fmt: skip
    bound = score.bind(first.expand(size, *first.shape[1:]), target)
    bound.value_and_grad()
    times = list[float]()
    while len(times) < TIMED or sum(times) < TIMING:
        began = time.perf_counter()
        bound.value_and_grad()[1].sum().item()  # waits for an accelerator
        times.append(time.perf_counter() - began)
    return statistics.median(times) / size


def expected_evaluations(
    explainer: Explainer, few: Sequence[Tensor], target: TargetLike
) -> dict[str, float]:
    """Evaluations of a map at each quality level, by the error after a few steps on a few inputs,
    batches of one; empty for a method without levels.

    The steps are without a centre, which saves most at few evaluations: their error falls with the
    square root of the evaluations from the first on.
    """
    if not isinstance(explainer, Moreau) or not explainer.fresh:
        return {}
    pilot = replace(
        explainer, tolerance=UNREACHED, max_evaluations=STEPS * explainer.draws, chains=1,
        centre=False,
    )  # fmt: skip
    alike = len({x.shape for x in few}) == 1
    found = [pilot.explain(x, target) for x in ([torch.cat(list(few))] if alike else few)]
    errors = torch.cat([each.error for each in found])
    spent = torch.cat([each.evaluations for each in found])
    expected = {}
    for level, tolerance in QUALITIES.items():
        most, least = replace(explainer, tolerance=level).budget(), FEWEST * explainer.draws
        needed = explainer.chains * evaluations_to_reach(tolerance, errors, spent).clamp_min(least)
        # An error that is not known is none that is ever reached.
        expected[level] = float(needed.nan_to_num(most, most).clamp_max(most).mean())
    return expected


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one method: maps, gradient evaluations of each at most, and seconds for all of them.

    expected: evaluations of each by quality level; empty for methods without levels. level: the
    method's own.
    """

    key: str
    maps: int
    evaluations: int
    seconds: float
    expected: Mapping[str, float] = field(default_factory=dict)
    level: str | None = None

    @classmethod
    def of(cls, key: str, maps: int, most: int, each: float, **more: Any) -> Cost:
        """most: evaluations of a map. each: seconds of one."""
        return cls(key=key, maps=maps, evaluations=most, seconds=maps * most * each, **more)

    def seconds_at(self, level: str) -> float:
        """Seconds by estimate at a level; at most, for a method without levels."""
        most = max(1, self.evaluations)
        return self.seconds * self.expected.get(level, most) / most


def method_costs(
    explainer: Explainer, target: TargetLike, few: Sequence[Tensor], each: float,
    rows: Iterable[tuple[str, int, int]],
) -> list[Cost]:  # fmt: skip
    """Of a method's maps, by a pilot on a few inputs. each: seconds of an evaluation. rows: a name,
    maps, and the most evaluations of each, those of an attack included; 0 where it has no map."""
    expected = expected_evaluations(explainer, few, target)
    level, own = getattr(explainer, "tolerance", None), explainer.budget()
    return [
        Cost.of(
            key, maps, most, each, level=level if is_level(level) else None,
            expected={name: most - own + n for name, n in expected.items() if most},
        )
        for key, maps, most in rows
    ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LevelCost:
    """Of a quality level: evaluations of a map, of the methods with levels; seconds of the run.

    chosen: whether it is the level of all these methods.
    """

    level: str
    tolerance: float
    evaluations: float
    seconds: float
    chosen: bool


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run would cost at most: methods that stop at a tolerance often take a quarter of it
    or less, which `levels` estimates.

    seconds_per_evaluation: the mean where there are several networks. memory: the most bytes that
    the timing took; None where it is not known. kept: bytes of the maps that are kept, and of their
    inputs, without images of them; kept_at_most: whether the maps may take less.
    """

    inputs: int
    seconds_per_evaluation: float
    costs: Sequence[Cost]
    memory: int | None = None
    kept: int = 0
    kept_at_most: bool = False

    @classmethod
    def of(
        cls, inputs: int, costs: Sequence[Cost], device: torch.device, kept: int = 0,
        at_most: bool = False,
    ) -> Estimate:  # fmt: skip
        total, count = sum(c.seconds for c in costs), sum(c.maps * c.evaluations for c in costs)
        each = total / max(1, count)
        memory = memory_so_far(device)
        return cls(
            inputs=inputs, seconds_per_evaluation=each, costs=costs, memory=memory, kept=kept,
            kept_at_most=at_most,
        )  # fmt: skip

    @property
    def evaluations(self) -> int:
        return sum(cost.maps * cost.evaluations for cost in self.costs)

    @property
    def seconds(self) -> float:
        return sum(cost.seconds for cost in self.costs)

    @property
    def levels(self) -> list[LevelCost]:
        """The cost at each quality level; none where no method has levels."""
        own = [cost for cost in self.costs if cost.expected]
        maps = sum(cost.maps for cost in own)
        return [
            LevelCost(
                level=level,
                tolerance=tolerance,
                evaluations=sum(cost.maps * cost.expected[level] for cost in own) / max(1, maps),
                seconds=sum(cost.seconds_at(level) for cost in self.costs),
                chosen=all(cost.level == level for cost in own),
            )
            for level, tolerance in QUALITIES.items()
            if own
        ]

    def words(self, duration: Callable[[float], str]) -> str:
        """The totals; duration: seconds in words."""
        most = "at most " * self.kept_at_most
        kept = f"; {most}{self.kept / 1e6:.3g} MB of maps" if self.kept else ""
        return (
            f"{self.inputs} input{'' if self.inputs == 1 else 's'}, "
            f"{self.evaluations} gradient evaluation{'s' * (self.evaluations != 1)} at most, "
            f"{1000 * self.seconds_per_evaluation:.2g} ms each: {duration(self.seconds)} at "
            f"most{kept}"
        )
