"""Maps while they are computed: a first one after a few evaluations, then better ones."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.explainers.explanation import Explanation
from moreaugrad.score.forward import outside_autocast
from moreaugrad.score.inputs import Layout
from moreaugrad.settings import Documented
from moreaugrad.solvers.solution import Solution

FIRST, GROWTH = 16, 4
"""Noise samples of the first map of a fixed number of them, and by which factor they grow."""

Stage = tuple[Solution, Tensor | None]
"""The maps, and what the penalty's threshold is applied to, `[B, n]`; None: it is not known."""
Stages = Generator[Stage, None, Stage]


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame(metaclass=Documented, heading="Attributes"):
    """What `Explainer.frames` has at one moment.

    >>> *_, last = mg.SparseMoreauGrad(model, tolerance="preview").frames(x[:1])
    >>> found = last.explanation.maps, last.explanation.error, last.done
    """

    explanation: Explanation
    """The map, with its status, error and cost, as if the evaluations ended here."""
    gradient: Tensor | tuple[Tensor, ...] | None
    """The averaged gradient to which the penalty's threshold is applied, like the map: another
    threshold of it shows about the map of another `eta`. None: the method has no threshold."""
    done: bool
    """Whether this is the last frame, that of `explain`."""

    @classmethod
    def of(
        cls, explanation: Explanation, gradient: Tensor | None, layout: Layout, done: bool
    ) -> Frame:
        """gradient: flat, `[1, n]`."""
        parts = None if gradient is None else layout.restore(gradient)
        shaped = parts if parts is None or isinstance(explanation.maps, tuple) else parts[0]
        return cls(explanation=explanation, gradient=shaped, done=done)


def staged(stages: Stages, device: torch.device) -> Iterator[tuple[Solution, Tensor | None, bool]]:
    """Each stage, and whether it is the last one."""
    while True:
        try:
            with outside_autocast(device):  # and not around the caller's loop
                found = next(stages)
        except StopIteration as end:
            yield *end.value, True
            return
        yield *found, False
