"""What metrics draw: a function of (seed, sample key, stream, number), whoever asks and when."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """A word of the generator's counter that keeps draws apart; maps' own noise has 0."""

    ORDER = 1
    VALUES = 2
    NORMAL = 3
    BOX = 4
    WEIGHTS = 5
    RANKS = 6
    JITTER = 7


def generator(seed: int, key: int, stream: Stream, number: int) -> np.random.Generator:
    """Errors: ValueError for a negative seed."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed: expected an integer from 0 to 2^63 - 1, got {seed!r}")
    return np.random.Generator(np.random.Philox(key=[seed, key], counter=[0, 0, stream, number]))
