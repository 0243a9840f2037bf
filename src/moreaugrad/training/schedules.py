"""Learning rates over the steps of a training, as a share of the largest."""

from __future__ import annotations

import math
from collections.abc import Callable

WARMUP, LEAST = 0.3, 1e-2
"""Of one-cycle: the share of steps in which the rate rises, and where it starts and ends."""


def constant(step: int, steps: int) -> float:
    """1."""
    return 1.0


def cosine(step: int, steps: int) -> float:
    """(1 + cos(pi t)) / 2, t = step / steps: from 1 towards 0.

    Source: Loshchilov and Hutter, SGDR, 2017 (arXiv 1608.03983), eq. 5, without restarts.
    """
    return (1 + math.cos(math.pi * step / steps)) / 2


def one_cycle(step: int, steps: int) -> float:
    """Up from 1/100 to 1 in the first 30 % of the steps and down again, each a half cosine.

    Source: Smith and Topin, Super-Convergence, 2018 (arXiv 1708.07120).
    """
    top = WARMUP * (steps - 1)
    far = abs(step - top) / max(top if step < top else steps - 1 - top, 1e-9)
    return LEAST + (1 - LEAST) * (1 + math.cos(math.pi * min(far, 1.0))) / 2


SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": constant,
    "cosine": cosine,
    "one-cycle": one_cycle,
}
